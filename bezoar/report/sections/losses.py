"""The training of the links and of DPO: losses, rows, rewards."""

from itertools import groupby
from typing import Any

from markupsafe import Markup

from bezoar.params import PAIRS, Dpo
from bezoar.report import figures, paper, words
from bezoar.report.run import Curve, Link, Run, Training


def training(run: Run) -> dict[str, Any]:
    """Return a chart of each link, the paper's Table 5 with ours, and the rows that each link
    learnt from."""
    return {
        "sft": run.sft,
        "links": [
            {"link": key, "metrics": link.metrics, "figure": _losses(key, link)}
            for key, link in run.links.items()
        ],
        "runs": [row for key in run.links for row in _runs(key, run)],
        "rows": [_rows(key, link) for key, link in run.links.items()],
    }


def _losses(key: str, link: Link) -> Markup:
    """Draw both losses of a link over its epochs. A run is a line of its own: it begins at the
    epoch, not at the loss, at which the one before it ended."""

    def by_run(curve: Curve) -> list[list[tuple[float, float]]]:
        runs = groupby(curve, lambda row: row.get("run"))
        return [_points(list(rows), "epoch", "loss") for _, rows in runs]

    def labelled(label: str, run: int) -> str:
        return label if len(link.metrics.runs) == 1 else f"{label}, run {run}"

    training_runs, held_out_runs = by_run(link.train), by_run(link.eval)
    return figures.lines(
        f"loss-{key}",
        f"Loss of the link {words.name(key)}",
        "epoch",
        "loss",
        [
            *(
                figures.Line(labelled("training", n), "quiet", run)
                for n, run in enumerate(training_runs, 1)
            ),
            *(
                figures.Line(labelled("held out", n), "accent", run, dots=True)
                for n, run in enumerate(held_out_runs, 1)
            ),
        ],
        marks=[(run[0][0], f"run {n}") for n, run in enumerate(held_out_runs, 1) if n > 1 and run],
    )


def _runs(key: str, run: Run) -> list[dict[str, Any]]:
    """Return a link's rows of Table 5: our runs, the paper's, and the first run that was not made,
    with the reason."""
    runs, amount = run.links[key].metrics.runs, run.sft.links[key]
    printed = paper.TRAINING.get(key, ())
    missing = len(runs) + 1
    # a run that the profile asks for is left out only after a run whose losses diverged
    diverged = missing <= amount.runs
    cause = f"the losses of run {len(runs)} had diverged" if diverged else "not asked for"
    last = max(len(runs), len(printed), min(missing, amount.runs))
    return [
        {
            "link": key,
            "number": number,
            "ours": runs.get(number),
            "asked": amount,
            "paper": printed[number - 1] if number <= len(printed) else None,
            "why": cause if number == missing else "",
        }
        for number in range(1, last + 1)
    ]


def _rows(key: str, link: Link) -> dict[str, Any]:
    """Return the rows that a link was trained on, with those that were cut short or dropped."""
    metrics = link.metrics
    used = metrics.train_rows + metrics.eval_rows
    sets = [
        ("HH-RLHF" if path == PAIRS else words.name(path.rpartition("/")[2]), n, replayed)
        for rows_by_set, replayed in ((link.own, False), (link.replayed, True))
        for path, n in rows_by_set.items()
    ]
    return {
        "link": key,
        "metrics": metrics,
        # the stage writes the share alone, and the number follows from it
        "cut": round(metrics.truncated_share * used),
        "dropped_share": metrics.dropped_rows / max(1, metrics.dropped_rows + used),
        # one set alone is the link's rows, which stand there already
        "sets": sets if len(sets) > 1 else [],
    }


def _points(curve: Curve, x: str, y: str) -> list[tuple[float, float]]:
    return sorted((row[x], row[y]) for row in curve if x in row and y in row)


def preferences(dpo: Training, preference: Dpo) -> dict[str, Any]:
    """Return DPO's numbers and its curves, and the settings that are not the paper's."""
    curves = {"train": ("training", "quiet", False), "eval": ("held out", "accent", True)}
    curve_by_split = {"train": dpo.train, "eval": dpo.eval}
    charts = [
        {
            "title": title,
            "figure": figures.lines(
                f"dpo-{key}",
                f"DPO: {title}",
                "step",
                title,
                [
                    figures.Line(label, css, _points(curve_by_split[split], "step", key), dots)
                    for split, (label, css, dots) in curves.items()
                ],
            ),
        }
        for key, title in (("loss", "loss"), ("margin", "reward margin"), ("accuracy", "accuracy"))
    ]
    rewards = figures.lines(
        "dpo-rewards",
        "DPO: rewards of chosen and rejected answers, held out",
        "step",
        "reward",
        [
            figures.Line("chosen", "good", _points(dpo.eval, "step", "chosen"), dots=True),
            figures.Line("rejected", "bad", _points(dpo.eval, "step", "rejected"), dots=True),
        ],
    )
    return {
        "metrics": dpo.metrics,
        "unlike": _departures(preference),
        "charts": charts,
        "rewards": rewards,
    }


def _departures(ours: Dpo) -> list[str]:
    """Return a clause for each setting of the preference optimisation that is not the paper's."""
    differences = []
    if ours.loss != paper.DPO.loss:
        smoothed = f", label smoothing {ours.label_smoothing:g}" if ours.label_smoothing else ""
        differences.append(f"the loss is {ours.loss}{smoothed} (there {paper.DPO.loss})")
    if ours.weights != paper.DPO.weights:
        differences.append(
            f"a LoRA adapter of rank {ours.lora_r} was trained and merged (there all parameters)"
        )
    if ours.epochs != paper.DPO.epochs:
        differences.append(f"there were {ours.epochs} epochs (there {paper.DPO.epochs})")
    return differences
