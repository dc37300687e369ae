"""The grader marks a checkpoint's MT-Bench answers, each turn from 1 to 10.

reads   data/fetch/mt_bench/questions.jsonl, data/mt_answer/CHECKPOINT/answers.jsonl,
        data/fetch/dolly: real rows that the grader judges too, to see whether it is better than
        a coin
writes  data/mt_grade/CHECKPOINT/: grades.jsonl, two a question: turn 1, turn 2, replies.jsonl
        (every exchange, as bought), failures.jsonl
metrics metrics/mt_grade/CHECKPOINT.json: turn_1, turn_2, average over all grades, each with a 95 %
        interval (_low, _high) over questions; coverage (share of the turns answered that have a
        grade), read (share of the turns asked about that the grader's reply gave one), turns by
        status, retried (requests made once more, their reply stated nothing), how it did on the
        real rows (known_); metrics/mt_grade/CHECKPOINT_spending.json
"""

from collections.abc import Sequence

from bezoar import llm, params, preflight, work
from bezoar.judging import known, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import Params, arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers, Ask, Grade, Question


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("mt_grade", name)
    mt_bench = list(read_jsonl("data/fetch/mt_bench/questions.jsonl", Question))
    with_reference = verdicts.referenced_ids(mt_bench, p.mt_grade.references)
    source = f"data/mt_answer/{name}/answers.jsonl"
    answers = list(read_jsonl(source, Answers))
    if not answers:
        raise BadInput(f"{source}: holds no answers; mt_answer@{name} writes them")
    asker = Asker(p, "mt_grade", name, p.llm.grader)
    check = known.check("dolly", p.known)
    questions = {question.question_id: question for question in mt_bench} | check.questions

    def grade(row: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grade_answers(row, questions, with_reference, ask)

    for graded in check.rounds(answers):
        run = asker.run(grade, [*check.answers, *graded], known.job_name)
        keep(asker, p, graded, run, check)


def keep(
    asker: Asker,
    p: Params,
    answers: Sequence[Answers],
    run: llm.Run[Answers, list[Grade]],
    check: known.Check,
) -> None:
    """Write the grader's grades, then stop if it can be neither read nor trusted."""
    of_rows, grades = known.separate(run.done)
    trust = check.of_grades(of_rows)
    asker.write(run)
    write_jsonl(f"data/mt_grade/{asker.instance}/grades.jsonl", grades)
    measured = verdicts.measure(grades, len(answers), p.mt_grade.seed)
    measured["retried"] = verdicts.retries(known.without_known(run.exchanges), verdicts.rating)
    write_json(f"metrics/mt_grade/{asker.instance}.json", measured | trust)
    prefix = f"{asker.label}, {p.llm.grader.model}"
    verdicts.check_read(
        prefix, [g.status for g in grades or of_rows], run.exchanges, verdicts.rating
    )
    verdicts.tell_unreferenced(prefix, grades)
    check.tell(prefix, trust)


if __name__ == "__main__":
    main(arguments.label("stages.mt_grade", __doc__))
