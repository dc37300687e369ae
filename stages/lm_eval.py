"""A point of the chain is measured by the LM Evaluation Harness and by the held-out questions.

reads   models/MODEL and models/BASE of evaluated.POINT in params.yaml,
        data/fetch/benchmarks/tasks/TASK.jsonl, data/fetch/benchmarks/probes.jsonl
writes  data/lm_eval/POINT/: results.json: scores by task (none for a link between checkpoints),
        shares by skill, what lm_eval warns of; items.jsonl: scores by item; probes.jsonl: every
        answer to a held-out question. All empty for a model behind an endpoint, which gives no
        log-probabilities
metrics metrics/lm_eval/POINT.json: TASK.acc and so on, skill.SKILL, warnings: the texts
"""

from pathlib import Path
from typing import Any

from bezoar import params, preflight, work
from bezoar.evaluating import checkpoints
from bezoar.evaluating.probes import shares
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Item, Probe

BENCHMARKS = Path("data/fetch/benchmarks")


def main(name: str) -> None:
    work.begin()
    settings = params.load()
    if name not in settings.evaluated:
        leave_out(name)
        return
    preflight.stage("lm_eval", name)
    point = settings.evaluated[name]
    questions = list(files.read_jsonl(BENCHMARKS / "probes.jsonl", Probe))
    tasks = {} if point.link else items()
    measured, attempts = checkpoints.measure(settings, point, tasks, questions)
    skills = shares(attempts)
    out = Path("data/lm_eval", name)
    files.write_jsonl(out / "items.jsonl", measured.items)
    files.write_jsonl(out / "probes.jsonl", attempts)
    files.write_json(
        out / "results.json",
        {
            "tasks": measured.scores,
            "skills": skills,
            "truncated": measured.cut,
            "warnings": measured.warnings,
        },
    )
    metrics: dict[str, Any] = {f"skill.{skill}": row["share"] for skill, row in skills.items()}
    for task, row in measured.scores.items():
        metrics |= {f"{task}.{key}": row[key] for key in ("acc", "acc_norm") if key in row}
    metrics["warnings"] = measured.warnings
    files.write_json(f"metrics/lm_eval/{name}.json", metrics)


def leave_out(name: str) -> None:
    """Write that a model behind an endpoint is not measured."""
    print(f"lm_eval: {name} is behind an endpoint, which gives no log-probabilities: left out")
    out = Path("data/lm_eval", name)
    files.write_jsonl(out / "items.jsonl", [])
    files.write_jsonl(out / "probes.jsonl", [])
    files.write_json(out / "results.json", {"tasks": {}, "skills": {}, "truncated": 0})
    files.write_json(f"metrics/lm_eval/{name}.json", {})


def items() -> dict[str, list[Item]]:
    """Read the items of each task that was fetched. BadInput: a task has none."""
    tasks = {
        path.stem: list(files.read_jsonl(path, Item))
        for path in sorted((BENCHMARKS / "tasks").glob("*.jsonl"))
    }
    for task, rows in tasks.items():
        if not rows:
            raise BadInput(f"{BENCHMARKS / 'tasks' / task}.jsonl: has no items")
    return tasks


if __name__ == "__main__":
    main(arguments.label("stages.lm_eval", __doc__))
