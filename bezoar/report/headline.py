"""The few numbers by which two runs are compared: `dvc metrics diff`, `dvc exp show` and
`dvc plots diff` show them by default."""

import math
from typing import Any

from bezoar.report import harness
from bezoar.report.run import Metrics, Run


def headline(run: Run) -> dict[str, Any]:
    """Return the run's main numbers: rows kept, losses, preferences, mean harness accuracy, mean
    grades and win rates with their 95 % intervals, agreement with people, dollars.

    They are two or three levels deep, so that a name (`mt_bench.dpo.grade`) stays short. Floats are
    rounded to 4 digits, and a number that was not measured is left out.
    """
    # the loss on held-out rows of the weights that a link keeps
    held_out = "eval_loss_end" if run.sft.keep == "last" else "eval_loss_best"
    numbers: dict[str, Any] = _without_missing(
        {
            "kept": {scheme: funnel.kept for scheme, funnel in run.funnels.items()},
            "loss": {
                link: getattr(training.metrics, held_out) for link, training in run.links.items()
            },
            "dpo": {key: run.dpo.metrics[key] for key in ("accuracy", "margin")} if run.dpo else {},
            "harness": harness.means(run),
            "mt_bench": {
                c: _mean(metrics, "average", "grade") for c, metrics in run.mt_bench.items()
            },
            "win_rate": {
                name: _mean(contest.metrics, "win_rate", "share")
                for name, contest in run.contests.items()
            },
            "with_people": {
                f"turn_{pair.turn}": {"s1": pair.s1, "s2": pair.s2}
                for pair in run.agreed
                if (pair.a, pair.b) == ("grader", "human")
            },
            "usd": math.fsum(
                spent.usd for instances in run.spending.values() for spent in instances.values()
            ),
        }
    )
    return numbers


def checkpoints(run: Run) -> list[str]:
    """Return the lines of a CSV with a row for each checkpoint: its mean harness accuracy and its
    mean MT-Bench grade. A cell is empty where there is none."""
    means = harness.means(run)
    lines = ["checkpoint,accuracy,grade\n"]
    for name in run.measured:
        cells = (
            means.get(name),
            run.mt_bench[name]["average"] if name in run.mt_bench else None,
        )
        formatted = ("" if cell is None else f"{cell:.4f}" for cell in cells)
        lines.append(",".join([name, *formatted]) + "\n")
    return lines


def _mean(metrics: Metrics, key: str, short_name: str) -> Metrics:
    """Return the mean that `metrics` holds under `key`, as `short_name`, and its interval."""
    return {
        short_name: metrics[key],
        "low": metrics.get(f"{key}_low"),
        "high": metrics.get(f"{key}_high"),
    }


def _without_missing(value: Any) -> Any:
    """Return `value` without entries that are None or empty, floats rounded to 4 digits."""
    if isinstance(value, dict):
        # the inner dicts go first, for one that loses all its entries is dropped too; a 0 stays
        present = {key: _without_missing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in present.items() if inner not in (None, {})}
    return round(value, 4) if isinstance(value, float) else value
