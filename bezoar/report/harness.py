"""The harness' scores by checkpoint, those that the paper pools, and the differences between
checkpoints."""

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
    """A checkpoint's score on one metric of a task. A field is None where there is no such
    number."""

    value: float | None
    # one standard error of `value`
    error: float | None
    # the paper's score of the same checkpoint
    paper: float | None
    # the difference to the checkpoint before (Run.compared_with)
    before: Difference | None
    # the difference to the first checkpoint of the table
    base: Difference | None


class Row(NamedTuple):
    """One metric of a task over `n` items, with a cell for each checkpoint."""

    task: str
    metric: Metric
    n: int
    cells: list[Cell]


class Average(NamedTuple):
    """The mean harness accuracy by checkpoint, over `n` rows of the table: acc, and acc_norm where
    a task has it.

    The rows are those that the paper has too, and `paper` holds its mean over the same values. If
    the paper has none of the rows, all of them count, and `paper` is empty.
    """

    n: int
    ours: list[float | None]
    paper: list[float | None]


def points(run: Run) -> list[str]:
    """Return the checkpoints that the harness looked at: ours, then further models, each in the
    order of the recipe."""
    names = [*run.without_further(run.measured), *run.further]
    return [checkpoint for checkpoint in names if checkpoint in run.results]


def tasks(run: Run, point: str) -> dict[str, Score]:
    """Return a checkpoint's scores by task. A benchmark that the paper pools (paper.POOLED) stands
    beside its parts, with the mean of their items."""
    scores = dict(run.results[point].tasks)
    for name in paper.POOLED:
        pooled = list(_items(run.scored[point], name, "acc").values())
        # a harness that measures the benchmark itself goes first; one item has no standard error
        if name not in scores and len(pooled) > 1:
            error = standard_error(pooled)
            scores[name] = Score(acc=fmean(pooled), acc_stderr=error, n=len(pooled))
    return scores


def rows(run: Run) -> list[Row]:
    """Return a row for each metric of each task that a checkpoint has, ordered by name."""
    by_point = {point: tasks(run, point) for point in points(run)}
    names = sorted({task for scores in by_point.values() for task in scores})
    candidates = [_row(run, by_point, task, metric) for task in names for metric in METRICS]
    return [row for row in candidates if any(cell.value is not None for cell in row.cells)]


def average(rows: Sequence[Row]) -> Average:
    """Return the last line of the table, the means by checkpoint."""
    shared = [row for row in rows if row.metric in paper.HARNESS.get(row.task, {})]
    used = shared or rows
    columns = list(zip(*(row.cells for row in used), strict=True))
    return Average(
        n=len(used),
        ours=[_mean(cell.value for cell in column) for column in columns],
        paper=[_mean(cell.paper for cell in column) for column in columns] if shared else [],
    )


def means(run: Run) -> dict[str, float | None]:
    """Return the mean harness accuracy by checkpoint: the last line of the table, and the number
    that every other place shows. None where a checkpoint has no score."""
    names = points(run)
    ours = average(rows(run)).ours or [None] * len(names)
    return dict(zip(names, ours, strict=True))


def differences(run: Run) -> dict[str, dict[str, dict[str, dict[str, Difference]]]]:
    """Return every difference: checkpoint -> earlier checkpoint -> task -> metric -> difference.
    The earlier ones are the one before it (Run.compared_with) and the first of the table."""
    names = points(run)
    previous = run.compared_with(names)
    by_checkpoint: dict[str, dict[str, dict[str, dict[str, Difference]]]] = {}
    for row in rows(run):
        for column, cell in enumerate(row.cells):
            # the first checkpoint has none before it, and its cell has no difference either
            before = previous.get(names[column], names[0])
            for earlier, difference in ((before, cell.before), (names[0], cell.base)):
                if difference is not None:
                    by_task = by_checkpoint.setdefault(names[column], {}).setdefault(earlier, {})
                    by_task.setdefault(row.task, {})[row.metric] = difference
    return by_checkpoint


def _row(run: Run, by_point: Mapping[str, Mapping[str, Score]], task: str, metric: Metric) -> Row:
    printed = paper.HARNESS.get(task, {}).get(metric)
    paper_values = dict(zip(paper.CHECKPOINTS, printed, strict=True)) if printed else {}
    items = {point: _items(run.scored[point], task, metric) for point in by_point}
    first, previous = next(iter(by_point)), run.compared_with(list(by_point))
    scores = {point: by_task.get(task) for point, by_task in by_point.items()}
    return Row(
        task=task,
        metric=metric,
        n=max(score.n for score in scores.values() if score),
        cells=[
            Cell(
                value=getattr(score, metric) if score else None,
                error=getattr(score, f"{metric}_stderr") if score else None,
                paper=paper_values.get(point),
                before=paired_change(items[previous[point]], items[point])
                if point in previous
                else None,
                base=paired_change(items[first], items[point]) if point != first else None,
            )
            for point, score in scores.items()
        ],
    )


def _items(scored: Mapping[str, Sequence[Scored]], task: str, metric: Metric) -> dict[str, float]:
    """Return the scores by item. A benchmark that is pooled and not measured itself has the mean
    of its parts, whose items are the same questions in the same places."""
    # an item is named TASK/PLACE: truthfulqa_mc1/12 and truthfulqa_mc2/12 are one question
    if task in paper.POOLED and task not in scored:
        parts = [_items(scored, part, metric) for part in paper.POOLED[task]]
        by_place = [
            {item.rpartition("/")[2]: score for item, score in part.items()} for part in parts
        ]
        return {
            place: fmean(part[place] for part in by_place)
            for place in by_place[0]
            if all(place in part for part in by_place)
        }
    values = {row.item: getattr(row, metric) for row in scored.get(task, ())}
    return {item: score for item, score in values.items() if score is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
