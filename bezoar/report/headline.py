"""The few numbers by which two runs are compared: what `dvc metrics diff`, `dvc exp show` and
`dvc plots diff` show without being asked for more."""

import math
from typing import Any

from bezoar.report import harness
from bezoar.report.run import Metrics, Run


def headline(run: Run) -> dict[str, Any]:
    """Rows kept, losses, preferences, mean harness accuracy, mean grades and win rates with their
    95 % intervals, agreement with people, dollars: flat in twos and threes, so that a name stays
    short; shares and grades to 4 digits. What was not measured is left out."""
    held_out = "eval_loss_end" if run.sft.keep == "last" else "eval_loss_best"  # of what is kept
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
    """Lines of a CSV: a row a checkpoint, its mean harness accuracy and mean MT-Bench grade; a cell
    is empty where there is none."""
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
    """A mean and its interval, under short names."""
    return {
        short_name: metrics[key],
        "low": metrics.get(f"{key}_low"),
        "high": metrics.get(f"{key}_high"),
    }


def _without_missing(value: Any) -> Any:
    """Without what is None or holds nothing else, floats to 4 digits."""
    if isinstance(value, dict):
        present = {key: _without_missing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in present.items() if inner not in (None, {})}
    return round(value, 4) if isinstance(value, float) else value
