"""A point of the chain is measured by the LM Evaluation Harness and by the held-out questions.

reads   models/MODEL and models/BASE of evaluated.POINT in the recipe,
        data/fetch/benchmarks/tasks/TASK.jsonl, data/fetch/benchmarks/probes.jsonl
writes  data/lm_eval/POINT/: results.json: scores by task (none for a link between checkpoints),
        shares by skill, what lm_eval warns of; items.jsonl: scores by item; probes.jsonl: every
        answer to a held-out question. All empty for a model behind an endpoint, which gives no
        log-probabilities
metrics metrics/lm_eval/POINT.json: TASK.acc and so on, skill.SKILL, warnings: the texts
"""

from pathlib import Path

from bezoar import params, preflight, work
from bezoar.evaluating import benchmarks, checkpoints, probes
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.rows.records import Probe


def main(name: str) -> None:
    work.begin()
    p = params.load()
    if name not in p.evaluated:
        leave_out(name)
        return
    preflight.stage("lm_eval", name)
    point, out = p.evaluated[name], Path("data/lm_eval", name)
    questions = list(files.read_jsonl(benchmarks.FETCHED / "probes.jsonl", Probe))
    tasks = {} if point.link else benchmarks.items()
    measured, attempts = checkpoints.measure(p, point, tasks, questions)
    skills = probes.shares(attempts)
    files.write_jsonl(out / "items.jsonl", measured.items)
    files.write_jsonl(out / "probes.jsonl", attempts)
    files.write_json(out / "results.json", benchmarks.results(measured, skills))
    files.write_json(f"metrics/lm_eval/{name}.json", benchmarks.metrics(measured, skills))


def leave_out(name: str) -> None:
    """Write that a model behind an endpoint is not measured."""
    print(f"lm_eval: {name} is behind an endpoint, which gives no log-probabilities: left out")
    out = Path("data/lm_eval", name)
    files.write_jsonl(out / "items.jsonl", [])
    files.write_jsonl(out / "probes.jsonl", [])
    files.write_json(out / "results.json", {"tasks": {}, "skills": {}, "truncated": 0})
    files.write_json(f"metrics/lm_eval/{name}.json", {})


if __name__ == "__main__":
    main(arguments.label("stages.lm_eval", __doc__))
