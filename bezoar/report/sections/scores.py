"""The checkpoints' scores in the harness and in MT-Bench."""

import re
from collections.abc import Sequence
from typing import Any

from bezoar.judging import differences
from bezoar.params import Further, FurtherHub, FurtherServed
from bezoar.report import figures, harness, mt_bench, paper, words
from bezoar.report.run import Run
from bezoar.rows.records import Grade


def of_harness(run: Run) -> dict[str, Any]:
    """Return the harness' table, a row for each metric of each task, and the facts for the notes
    below it."""
    rows = harness.rows(run)
    return {
        "points": harness.points(run),
        "rows": rows,
        "average": harness.average(rows),
        "warnings": dict.fromkeys(
            line for results in run.results.values() for line in results.warnings
        ),
        "shared": [row.task for row in rows if row.task in paper.HARNESS],
        "listed": sum(map(len, paper.HARNESS.values())),
        "pooled": [row.task for row in rows if row.task in paper.POOLED],
        "compared": any(cell.before for row in rows for cell in row.cells),
        "fewest": differences.FEWEST,
    }


def of_mt_bench(run: Run) -> dict[str, Any]:
    """Return the grades by turn and by category, the contests, and counts of the ways in which the
    answers ended."""
    category = {q.question_id: words.clean(q.category) for q in run.questions}
    categories = list(dict.fromkeys(category.values()))
    by_category: dict[str, list[float | None]] = {}
    spread: dict[str, list[tuple[float, float] | None]] = {}
    for checkpoint in run.checkpoints:
        scores: dict[str, list[tuple[int, float]]] = {c: [] for c in categories}
        for grade in run.grades[checkpoint]:
            if grade.question_id in category and grade.score is not None:
                scores[category[grade.question_id]].append((grade.question_id, grade.score))
        by_category[checkpoint] = [words.mean(score for _, score in scores[c]) for c in categories]
        spread[checkpoint] = [differences.bootstrap(scores[c], run.seed) for c in categories]
    means = list(by_category.values())
    # categories in which any checkpoint has a grade
    graded = [i for i in range(len(categories)) if any(v[i] is not None for v in means)]
    shapes = [
        figures.Shape(words.name(c), words.css(run, c), [values[i] for i in graded])
        for c, values in by_category.items()
    ]
    differences_by_checkpoint = mt_bench.differences(run)
    return {
        "rows": [
            {
                "checkpoint": checkpoint,
                "css": words.css(run, checkpoint),
                "metrics": metrics,
                "moved": next(iter(differences_by_checkpoint.get(checkpoint, {}).values()), None),
                "paper": _paper_grades(run, checkpoint),
                "ungraded": _count_ungraded(run.grades[checkpoint]),
                "unreferenced": _questions_without_reference(run.grades[checkpoint]),
                "without": sum(g.reference == "missing" for g in run.grades[checkpoint]),
            }
            for checkpoint, metrics in run.mt_bench.items()
        ],
        "ended": [
            {"checkpoint": checkpoint, "css": words.css(run, checkpoint), "counts": counts}
            for checkpoint, counts in run.ended.items()
        ],
        "checkpoints": [{"checkpoint": c, "css": words.css(run, c)} for c in run.checkpoints],
        "categories": [
            {
                "category": categories[i],
                "means": [(by_category[c][i], spread[c][i]) for c in run.checkpoints],
            }
            for i in graded
        ],
        "radar": figures.radar(
            "radar", "Mean grade by category", [categories[i] for i in graded], 10, shapes
        )
        # a radar of fewer axes has no area
        if len(graded) >= 3
        else None,
        "questions": len({g.question_id for graded in run.grades.values() for g in graded}),
        "contests": mt_bench.contests(run),
        "absent": _absent_models(run),
        "moved": bool(differences_by_checkpoint),
    }


def _paper_grades(run: Run, checkpoint: str) -> paper.MtBench | None:
    """Return a checkpoint's grades in the paper's Tables 7 and 8. None where they have none."""
    if checkpoint not in run.further:
        return paper.MT_BENCH.get(checkpoint)
    listed_name = _in_table_8(checkpoint, run.further[checkpoint])
    return None if listed_name is None else paper.MT_BENCH_OTHERS[listed_name]


def _in_table_8(key: str, model: Further) -> str | None:
    """Return the name under which Table 8 has a further model. None where it has none.

    The name is compared with the end of the model's repository or of its name at an endpoint. A
    model that has neither is compared by its key.
    """
    name = key
    if isinstance(model, FurtherHub):
        name = model.repository
    elif isinstance(model, FurtherServed):
        name = model.endpoint.model

    # microsoft/phi-2 and Phi-2 are both phi2
    def plain(text: str) -> str:
        return re.sub(r"[\W_]", "", text.rpartition("/")[2].lower())

    return next(
        (listed_name for listed_name in paper.MT_BENCH_OTHERS if plain(listed_name) == plain(name)),
        None,
    )


def _absent_models(run: Run) -> dict[str, paper.MtBench]:
    """Return the models of Table 8 that this run does not have, with their grades."""
    have = {_in_table_8(key, model) for key, model in run.further.items()}
    return {name: grades for name, grades in paper.MT_BENCH_OTHERS.items() if name not in have}


def _count_ungraded(grades: Sequence[Grade]) -> dict[str, int]:
    statuses = sorted(g.status for g in grades if g.status != "ok")
    return {status.replace("_", " "): statuses.count(status) for status in dict.fromkeys(statuses)}


def _questions_without_reference(grades: Sequence[Grade]) -> list[int]:
    """Return the questions of which a turn was graded without the reference that it should have
    had."""
    return sorted({grade.question_id for grade in grades if grade.reference == "missing"})
