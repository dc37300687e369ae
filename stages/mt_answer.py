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
from bezoar.evaluating import evaluation
from bezoar.llm import budget
from bezoar.models import loading
from bezoar.params import Endpoint, FurtherHub, FurtherLocal, arguments
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Ask, Question
from bezoar.work import progress


def main(name: str) -> None:
    work.begin()
    p = params.load()
    path = Path("data/fetch/mt_bench/questions.jsonl")
    questions = list(files.read_jsonl(path, Question))
    if not questions:
        raise BadInput(f"{path}: has no questions; each line is one two-turn question")
    questions = evaluation.some(questions, p.mt_answer.limit)
    checkpoint = p.checkpoints[name]
    folder, out = Path("models", checkpoint.model), Path("data/mt_answer", name)
    if endpoint := llm.served(folder):
        answers, tokens = ask(name, endpoint, questions, p, out)
    else:
        preflight.stage("mt_answer", name)
        model, tokenizer = loading.load(folder, folder, p.sft, checkpoint.further)
        other = p.further(checkpoint)
        stop = other.stop if isinstance(other, FurtherHub | FurtherLocal) else []
        answers = evaluation.converse(model, tokenizer, questions, name, p.mt_answer, stop=stop)
        tokens = evaluation.lengths(answers, tokenizer)
    files.write_jsonl(out / "answers.jsonl", answers)
    counts = evaluation.counts(answers, tokens, p.mt_answer)
    files.write_json(f"metrics/mt_answer/{name}.json", counts)
    if unsaid := evaluation.unsaid(answers):
        print(
            f"warning: mt_answer@{name}: {unsaid} of {2 * len(answers)} answers were cut before "
            "they said anything, as thoughts are, and count as empty; allow the model more tokens",
            file=sys.stderr,
        )


def ask(
    name: str, endpoint: Endpoint, questions: Sequence[Question], p: params.Params, out: Path
) -> tuple[list[Answers], list[int]]:
    """The answers of a model behind an endpoint, and the tokens of each turn as it counts them."""
    preflight.stage_endpoint(f"models.{name}", endpoint, "mt_answer", name)
    model = llm.connect(endpoint, p, "mt_answer", name)

    def answer(question: Question, ask: Ask) -> Answers:
        return evaluation.interview(question, name, ask)

    with progress.bar(f"mt_answer {name}", len(questions)) as advance:
        run = llm.each(
            answer, questions, model, endpoint, where=f"mt_answer@{name}",
            name=lambda question: str(question.question_id), advance=advance,
        )  # fmt: skip
    files.write_jsonl(out / "replies.jsonl", run.exchanges)
    files.write_jsonl(out / "failures.jsonl", run.failures)
    files.write_json(out / "spending.json", budget.spending(endpoint, run.exchanges).model_dump())
    # a turn that a server never answered is not an empty answer of the model's
    failed = {failure.job for failure in run.failures}
    answers = [both for question, both in run.done if str(question.question_id) not in failed]
    tokens = [e.reply.tokens_out for e in run.exchanges if e.job not in failed]
    return answers, tokens


if __name__ == "__main__":
    main(arguments.label("stages.mt_answer", __doc__))
