"""The grader marks a checkpoint's MT-Bench answers, each turn from 1 to 10.

reads   data/fetch/mt_bench/questions.jsonl, data/mt_answer/CHECKPOINT/answers.jsonl
writes  data/mt_grade/CHECKPOINT/: grades.jsonl, two a question: turn 1, turn 2 (none where a
        request failed for good), replies.jsonl (every exchange, as bought), failures.jsonl
metrics metrics/mt_grade/CHECKPOINT.json: turn_1, turn_2, average over all grades, each with a 95 %
        interval (_low, _high) over questions; coverage (share of the turns answered that have a
        grade), turns by status, retried (requests made once more, their reply stated nothing);
        metrics/mt_grade/CHECKPOINT_spending.json
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from bezoar import budget, llm, params, preflight, progress, verdicts, work
from bezoar.differences import bootstrap
from bezoar.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.records import Answers, Ask, Grade, Question


def main(name: str) -> None:
    work.die_with_parent()
    p = params.load()
    preflight.stage("mt_grade", name)
    questions = {
        q.question_id: q for q in read_jsonl("data/fetch/mt_bench/questions.jsonl", Question)
    }
    source = f"data/mt_answer/{name}/answers.jsonl"
    answers = list(read_jsonl(source, Answers))
    if not answers:
        raise BadInput(f"{source}: holds no answers; mt_answer@{name} writes them")
    ask = llm.connect(p.llm.grader, p, "mt_grade", name)

    def grade(one: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grader(questions, p.mt_grade.references, ask)(one)

    with progress.bar(f"mt_grade {name}", len(answers)) as advance:
        run = llm.each(
            grade, answers, ask, p.llm.grader, where=f"mt_grade@{name}",
            name=lambda one: str(one.question_id), advance=advance,
        )  # fmt: skip
    grades = [grade for _, both in run.done for grade in both]
    write_jsonl(f"data/mt_grade/{name}/grades.jsonl", grades)
    write_jsonl(f"data/mt_grade/{name}/replies.jsonl", run.exchanges)
    write_jsonl(f"data/mt_grade/{name}/failures.jsonl", run.failures)
    write_json(
        f"metrics/mt_grade/{name}.json",
        {
            **mean("turn_1", [g for g in grades if g.turn == 1], p.mt_grade.seed),
            **mean("turn_2", [g for g in grades if g.turn == 2], p.mt_grade.seed),
            **mean("average", grades, p.mt_grade.seed),
            "coverage": sum(g.score is not None for g in grades) / (2 * len(answers)),
            **statuses(grades),
            "retried": verdicts.retried(run.exchanges, verdicts.rating),
        },
    )
    spent = budget.spending(p.llm.grader, run.exchanges)
    write_json(f"metrics/mt_grade/{name}_spending.json", spent.model_dump())


def mean(name: str, grades: Sequence[Grade], seed: int) -> dict[str, float | None]:
    """The mean of the grades there are and its interval; None where there are too few for it."""
    scores = [(grade.question_id, grade.score) for grade in grades if grade.score is not None]
    low, high = bootstrap(scores, seed) or (None, None)
    average = sum(score for _, score in scores) / len(scores) if scores else None
    return {name: average, f"{name}_low": low, f"{name}_high": high}


def statuses(grades: Sequence[Grade]) -> dict[str, int]:
    """How many turns have each status of records.Grade."""
    found = Counter(grade.status for grade in grades)
    return {status: found[status] for status in get_args(Grade.model_fields["status"].annotation)}


if __name__ == "__main__":
    main(sys.argv[1].rpartition("@")[2])
