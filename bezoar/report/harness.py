"""The harness' scores by checkpoint, what the paper pools, and which differences are real."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from bezoar.judging.differences import Difference, paired_change, standard_error
from bezoar.report import paper
from bezoar.report.run import Run
from bezoar.report.seen import Score
from bezoar.rows.records import Scored

Metric = Literal["acc", "acc_norm"]
METRICS: tuple[Metric, ...] = ("acc", "acc_norm")


class Cell(NamedTuple):
    """A checkpoint's score with its standard error, the paper's beside it, and by how much it
    differs from the checkpoint before (Run.beside) and from the first; None where there is none."""

    value: float | None
    error: float | None
    paper: float | None
    before: Difference | None
    base: Difference | None


class Row(NamedTuple):
    """One metric of a task over `n` items, a cell a checkpoint."""

    task: str
    metric: Metric
    n: int
    cells: list[Cell]


class Average(NamedTuple):
    """The mean harness accuracy by checkpoint, over `n` rows of the table: acc, and acc_norm where
    a task has it. It takes the rows that the paper has too, and the paper's own mean over the same
    values stands in `paper`. Where the paper has none of them it takes all, and `paper` is empty.
    """

    n: int
    ours: list[float | None]
    paper: list[float | None]


def points(run: Run) -> list[str]:
    """The checkpoints that the harness looked at, ours before others, in the order of
    params.yaml."""
    named = [*run.own(run.measured), *run.further]
    return [checkpoint for checkpoint in named if checkpoint in run.results]


def tasks(run: Run, point: str) -> dict[str, Score]:
    """Scores by task, and the mean of what the paper pools beside its parts."""
    found = dict(run.results[point].tasks)
    for name in paper.POOLED:
        pooled = list(_items(run.scored[point], name, "acc").values())
        if name not in found and len(pooled) > 1:
            error = standard_error(pooled)
            found[name] = Score(acc=fmean(pooled), acc_stderr=error, n=len(pooled))
    return found


def rows(run: Run) -> list[Row]:
    """A row for each metric of each task that a checkpoint has, by name."""
    by_point = {point: tasks(run, point) for point in points(run)}
    names = sorted({task for found in by_point.values() for task in found})
    shown = [_row(run, by_point, task, metric) for task in names for metric in METRICS]
    return [row for row in shown if any(cell.value is not None for cell in row.cells)]


def average(rows: Sequence[Row]) -> Average:
    """The last line of the table."""
    theirs = [row for row in rows if row.metric in paper.HARNESS.get(row.task, {})]
    used = theirs or rows
    columns = list(zip(*(row.cells for row in used), strict=True))
    return Average(
        n=len(used),
        ours=[_mean(cell.value for cell in column) for column in columns],
        paper=[_mean(cell.paper for cell in column) for column in columns] if theirs else [],
    )


def means(run: Run) -> dict[str, float | None]:
    """The mean harness accuracy by checkpoint: the last line of the table, and what every other
    place shows. None where a checkpoint has no score."""
    named = points(run)
    ours = average(rows(run)).ours or [None] * len(named)
    return dict(zip(named, ours, strict=True))


def differences(run: Run) -> dict[str, dict[str, dict[str, dict[str, Difference]]]]:
    """Checkpoint -> the one before it and the first -> task -> metric -> difference."""
    named = points(run)
    beside = run.beside(named)
    found: dict[str, dict[str, dict[str, dict[str, Difference]]]] = {}
    for row in rows(run):
        for at, cell in enumerate(row.cells):
            before = beside.get(named[at], named[0])
            for other, difference in ((before, cell.before), (named[0], cell.base)):
                if difference is not None:
                    of = found.setdefault(named[at], {}).setdefault(other, {})
                    of.setdefault(row.task, {})[row.metric] = difference
    return found


def _row(run: Run, by_point: Mapping[str, Mapping[str, Score]], task: str, metric: Metric) -> Row:
    theirs = paper.HARNESS.get(task, {}).get(metric)
    beside = dict(zip(paper.CHECKPOINTS, theirs, strict=True)) if theirs else {}
    items = {point: _items(run.scored[point], task, metric) for point in by_point}
    first, other = next(iter(by_point)), run.beside(list(by_point))
    scores = {point: found.get(task) for point, found in by_point.items()}
    return Row(
        task=task,
        metric=metric,
        n=max(score.n for score in scores.values() if score),
        cells=[
            Cell(
                value=getattr(score, metric) if score else None,
                error=getattr(score, f"{metric}_stderr") if score else None,
                paper=beside.get(point),
                before=paired_change(items[other[point]], items[point]) if point in other else None,
                base=paired_change(items[first], items[point]) if point != first else None,
            )
            for point, score in scores.items()
        ],
    )


def _items(scored: Mapping[str, Sequence[Scored]], task: str, metric: Metric) -> dict[str, float]:
    """Scores by item. What is pooled and not measured itself: the mean of its parts, whose items
    are the same questions in the same places."""
    if task in paper.POOLED and task not in scored:
        parts = [_items(scored, part, metric) for part in paper.POOLED[task]]
        placed = [{item.rpartition("/")[2]: by for item, by in part.items()} for part in parts]
        return {
            place: fmean(part[place] for part in placed)
            for place in placed[0]
            if all(place in part for part in placed)
        }
    found = {row.item: getattr(row, metric) for row in scored.get(task, ())}
    return {item: score for item, score in found.items() if score is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
