"""The benchmarks as they were fetched, and what a checkpoint came to on them as numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bezoar.evaluating.harness import Measured
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Item

FETCHED = Path("data/fetch/benchmarks")

# The share of right answers, and the number of probes, by skill (probes.shares)
Skills = Mapping[str, Mapping[str, float]]


def items() -> dict[str, list[Item]]:
    """Read the items of each task that was fetched. BadInput: a task has none."""
    tasks = {
        path.stem: list(files.read_jsonl(path, Item))
        for path in sorted((FETCHED / "tasks").glob("*.jsonl"))
    }
    for task, rows in tasks.items():
        if not rows:
            raise BadInput(f"{FETCHED / 'tasks' / task}.jsonl: has no items")
    return tasks


def results(measured: Measured, skills: Skills) -> dict[str, Any]:
    """Return results.json of a checkpoint."""
    return {
        "tasks": measured.scores,
        "skills": skills,
        "truncated": measured.cut,
        "warnings": measured.warnings,
    }


def metrics(measured: Measured, skills: Skills) -> dict[str, Any]:
    """Return a checkpoint's metrics: the share of each skill, the accuracies of each task, and what
    lm_eval warned of."""
    numbers: dict[str, Any] = {f"skill.{skill}": row["share"] for skill, row in skills.items()}
    for task, row in measured.scores.items():
        numbers |= {f"{task}.{key}": row[key] for key in ("acc", "acc_norm") if key in row}
    return {**numbers, "warnings": measured.warnings}
