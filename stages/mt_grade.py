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

from bezoar import params, preflight, work
from bezoar.judging import rounds, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("mt_grade", name)
    source = f"data/mt_answer/{name}/answers.jsonl"
    answers = list(read_jsonl(source, Answers))
    if not answers:
        raise BadInput(f"{source}: holds no answers; mt_answer@{name} writes them")
    asker = Asker(p, "mt_grade", name, p.llm.grader)
    for graded in rounds.grade(asker, p, answers):
        asker.write(graded.run)
        write_jsonl(f"data/mt_grade/{name}/grades.jsonl", graded.verdicts)
        measured = verdicts.measure(graded.verdicts, len(graded.jobs), p.mt_grade.seed)
        measured["retried"] = graded.retried
        write_json(f"metrics/mt_grade/{name}.json", measured | graded.trust)
        graded.check_grader(f"{asker.label}, {p.llm.grader.model}")


if __name__ == "__main__":
    main(arguments.label("stages.mt_grade", __doc__))
