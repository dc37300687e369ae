"""What the active profile will ask for and what that will cost, before anything is sent.

`make forecast`, or `python -m bezoar.forecast` where data/fetch/ is there: no key, no network. Each
scheme is planned as `generate` plans it and, for up to SAMPLED of its jobs, played against the
embedded teacher, which gives the number of calls a job and the length of prompts. The estimates,
stated: a token is four bytes of a prompt; a reply has the endpoint's `reply_tokens` (the embedded
models': what they say), at most the `max_tokens` of its params. Answers that the ledger holds cost
nothing again; what it holds is not subtracted here.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from bezoar import budget, params, schemes, verdicts
from bezoar.files import BadInput, read_jsonl
from bezoar.llm import embedded
from bezoar.params import Anthropic, Endpoint, OpenAI, Params
from bezoar.records import Answers, Ask, Message, Query, Question, Reply, Seed, Seeds, Topic

SAMPLED = 200  # jobs of a scheme that are played; the rest is in proportion


class Row(NamedTuple):
    """One stage instance: calls, tokens in and out, dollars as estimated and at most (None where
    the endpoint's params set no maximum)."""

    stage: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    most: float | None


class Counter:
    """Counts what goes through an `Ask`."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.calls, self.bytes_in, self.tokens_out = ask, 0, 0, 0

    def __call__(self, messages: Sequence[Message], sample: int = 0) -> Reply:
        """Ask, and count."""
        reply = self.ask(messages, sample)
        self.calls += 1
        self.bytes_in += sum(len(message.content.encode()) for message in messages)
        self.tokens_out += reply.tokens_out
        return reply

    def row(self, stage: str, endpoint: Endpoint, scale: float) -> Row:
        """What was counted, times `scale`, at the prices of `endpoint`."""
        calls = round(self.calls * scale)
        tokens_in = round(self.bytes_in * scale / budget.BYTES_PER_TOKEN)
        if not isinstance(endpoint, OpenAI | Anthropic):
            out = round(self.tokens_out * scale)
            return Row(stage, endpoint.model, calls, tokens_in, out, 0.0, 0.0)
        batch, out = endpoint.mode == "batch", calls * endpoint.reply_tokens
        usd = budget.cost(endpoint.price, tokens_in, 0, out, batch)
        _, longest = budget.worst_tokens(0, endpoint.params)
        most = longest and budget.cost(endpoint.price, tokens_in, 0, calls * longest, batch)
        return Row(stage, endpoint.model, calls, tokens_in, out, usd, most)


def forecast(p: Params, fetched: Path) -> list[Row]:
    """A row for each instance of a stage that asks a model; `fetched` is data/fetch. BadInput where
    that is not there yet."""
    rows = []
    for name in schemes.names():
        rows += _scheme(p, name, read_seeds(fetched, getattr(p.schemes, name).seeds))
    questions = {
        q.question_id: q for q in read_jsonl(fetched / "mt_bench/questions.jsonl", Question)
    }
    said = "x" * budget.BYTES_PER_TOKEN * p.mt_answer.max_new_tokens
    answers = [
        Answers(question_id=id, model="", turns=[said, said], finish=["stop", "stop"])
        for id in questions
    ][: p.mt_answer.limit]
    rows += [_grades(p, f"mt_grade {name}", questions, answers) for name in p.checkpoints]
    given = list(read_jsonl(fetched / "mt_bench/answers.jsonl", Answers))
    return [*rows, _grades(p, "agreement", questions, given)]


def read_seeds(fetched: Path, source: str) -> Seeds:
    """What a scheme plans from, as the fetch stage left it."""
    topics = list(read_jsonl(fetched / "topics/topics.jsonl", Topic))
    if source == "dolly":
        return Seeds(dolly=list(read_jsonl(fetched / "dolly/seeds.jsonl", Seed)), topics=topics)
    return Seeds(flan=list(read_jsonl(fetched / "flan/queries.jsonl", Query)), topics=topics)


def _scheme(p: Params, name: str, seeds: Seeds) -> list[Row]:
    jobs = schemes.load(name).plan(
        seeds, getattr(p.schemes, name), Random(f"{p.generate.seed}/{name}")
    )
    if not jobs:
        raise BadInput(f"forecast: {name}: no jobs can be planned from its seeds; look at fetch")
    played = jobs[:: max(1, len(jobs) // SAMPLED)]
    teacher = Counter(embedded.connect("world-teacher"))
    outcomes = [schemes.attempt(name, job, teacher) for job in played]
    judge = Counter(embedded.connect("world-judge"))
    for outcome in outcomes:
        for sample in outcome.samples:
            verdicts.judge(sample, p.judge.scale, judge)
    scale = len(jobs) / len(played)
    return [
        teacher.row(f"generate {name}", p.llm.teacher, scale),
        judge.row(f"judge {name}", p.llm.judge, scale),
    ]


def _grades(
    p: Params, stage: str, questions: dict[int, Question], answers: Sequence[Answers]
) -> Row:
    judge = Counter(embedded.connect("world-judge"))
    grade = verdicts.grader(questions, p.mt_grade.references, judge)
    for both in answers:
        grade(both)
    return judge.row(stage, p.llm.grader, 1.0)


def table(p: Params, rows: Sequence[Row]) -> str:
    """The forecast as text."""
    most = [row.most for row in rows]
    total = Row(
        "total",
        "",
        sum(row.calls for row in rows),
        sum(row.tokens_in for row in rows),
        sum(row.tokens_out for row in rows),
        sum(row.usd for row in rows),
        None if None in most else sum(usd for usd in most if usd is not None),
    )
    head = ("stage", "model", "calls", "tokens in", "tokens out", "$", "$ at most")
    body = [
        (
            *row[:2], f"{row.calls:,}", f"{row.tokens_in:,}", f"{row.tokens_out:,}",
            f"{row.usd:,.2f}", "no maximum" if row.most is None else f"{row.most:,.2f}",
        )
        for row in [*rows, total]
    ]  # fmt: skip
    wide = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, wide, strict=True))
        ).rstrip()
        for line in [head, *body]
    ]
    caps = ", ".join(
        f"budget_usd.{name} {'none' if cap is None else f'${cap:,.2f}'}"
        for name, cap in (("stage", p.budget_usd.stage), ("run", p.budget_usd.run))
    )
    return "\n".join([f"profile {p.profile}; {caps}", "", *lines])


def main() -> None:
    """Print the active profile's forecast."""
    p = params.load()
    print(table(p, forecast(p, Path("data/fetch"))))


if __name__ == "__main__":
    main()
