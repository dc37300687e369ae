"""A checkpoint's answers to the two-turn questions of MT-Bench's shape.

reads   models/MODEL of checkpoints.NAME in params.yaml, data/fetch/mt_bench/questions.jsonl
writes  data/mt_answer/NAME/answers.jsonl; of a model behind an endpoint, beside them: replies.jsonl
        (every exchange, as bought), failures.jsonl, spending.json
metrics metrics/mt_answer/NAME.json: how many turns were answered, ended by themselves, were cut,
        are empty or loop, and their mean number of tokens
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bezoar import llm, params, preflight, work
from bezoar.evaluating import checkpoints, talks
from bezoar.llm.asker import Asker
from bezoar.params import Endpoint, arguments
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Question


def main(name: str) -> None:
    work.begin()
    p = params.load()
    path = Path("data/fetch/mt_bench/questions.jsonl")
    questions = list(files.read_jsonl(path, Question))
    if not questions:
        raise BadInput(f"{path}: has no questions; each line is one two-turn question")
    questions = talks.some(questions, p.mt_answer.limit)
    checkpoint = p.checkpoints[name]
    folder, out = Path("models", checkpoint.model), Path("data/mt_answer", name)
    if endpoint := llm.endpoint_of(folder):
        answers, tokens = ask(name, endpoint, questions, p)
    else:
        preflight.stage("mt_answer", name)
        answers, tokens = checkpoints.answer(p, name, questions)
    files.write_jsonl(out / "answers.jsonl", answers)
    counts = talks.counts(answers, tokens, p.mt_answer)
    files.write_json(f"metrics/mt_answer/{name}.json", counts)
    if unsaid := talks.unsaid(answers):
        print(
            f"warning: mt_answer@{name}: {unsaid} of {2 * len(answers)} answers were cut before "
            "they said anything, as thoughts are, and count as empty; allow the model more tokens",
            file=sys.stderr,
        )


def ask(
    name: str, endpoint: Endpoint, questions: Sequence[Question], p: params.Params
) -> tuple[list[Answers], list[int]]:
    """Return the answers of a model behind an endpoint, and its own token count of each turn."""
    preflight.stage_endpoint(f"models.{name}", endpoint, "mt_answer", name)
    asker = Asker(p, "mt_answer", name, endpoint)
    run = asker.run(
        lambda question, ask: talks.interview(question, name, ask),
        questions,
        lambda question: str(question.question_id),
    )
    asker.write(run, spending=Path("data/mt_answer", name, "spending.json"))
    # A turn that a server never answered is no empty answer of the model.
    failed = {failure.job for failure in run.failures}
    answers = [row for question, row in run.done if str(question.question_id) not in failed]
    tokens = [e.reply.tokens_out for e in run.exchanges if e.job not in failed]
    return answers, tokens


if __name__ == "__main__":
    main(arguments.label("stages.mt_answer", __doc__))
