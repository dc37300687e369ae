"""Has a model behind an endpoint answer MT-Bench."""

from collections.abc import Sequence
from pathlib import Path

from bezoar.evaluating import talks
from bezoar.llm.asker import Asker
from bezoar.rows.records import Answers, Question


def answer(
    asker: Asker, questions: Sequence[Question], out: Path
) -> tuple[list[Answers], list[int]]:
    """Return the model's answers, and its own token count of each turn. Write what was bought into
    the folder `out`, with what was paid for it."""
    run = asker.run(
        lambda question, ask: talks.interview(question, asker.instance, ask),
        questions,
        lambda question: str(question.question_id),
    )
    asker.write(run, spending=out / "spending.json")
    # A turn that a server never answered is no empty answer of the model.
    failed = {failure.job for failure in run.failures}
    answers = [row for question, row in run.done if str(question.question_id) not in failed]
    tokens = [e.reply.tokens_out for e in run.exchanges if e.job not in failed]
    return answers, tokens
