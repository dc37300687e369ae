"""What the active profile will ask for and what that will cost, before anything is sent.

`make forecast`, or `python -m bezoar.forecast` where data/fetch/ is there: no key, no network. Each
scheme is planned as `generate` plans it and, for up to SAMPLED of its jobs, played against the
embedded teacher, which gives the number of calls a job and the length of prompts. The estimates,
stated: a token is four bytes of a prompt; a reply has the endpoint's `reply_tokens` (the embedded
models': what they say), at most the `max_tokens` of its params. Answers that the ledger holds cost
nothing again; what it holds is not subtracted here.

`estimate` does the same before anything is fetched, on as many rows of the sources' mean lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from bezoar import budget, evaluation, pairwise, params, schemes, sources, verdicts
from bezoar.files import BadInput, read_jsonl
from bezoar.llm import embedded
from bezoar.params import (
    Anthropic,
    Endpoint,
    FurtherServed,
    HubFlan,
    Local,
    OpenAI,
    Params,
    World,
)
from bezoar.records import (
    Answers,
    Ask,
    Message,
    Query,
    Question,
    Record,
    Reply,
    Seed,
    Seeds,
    Topic,
)
from bezoar.schemes.orca import MIXTURES
from bezoar.sources.tables import Tables

R = TypeVar("R", bound=Record)

SAMPLED = 200  # jobs of a scheme that are played; the rest is in proportion

# What the hub's sources hold, for an estimate before they are fetched. Bytes are means.
DOLLY = 15_011  # rows of databricks-dolly-15k, in eight categories of about a like size
INSTRUCTION, CONTEXT, CONTEXTS = 72, 1190, 0.35  # measured on it; the share of rows with a context
RESPONSE = 320
TASKS = {"cot": 18, "niv2": 1560, "t0": 193, "flan2021": 142}  # OpenBezoar 2.3
QUERY, TARGET = 550, 60  # measured on 39 tasks of natural-instructions, P3 and FLAN's CoT tables
TOPICS = 1000  # more than any plan draws
# FastChat's question.jsonl and reference_answer/; six models' answers in mt_bench_human_judgments
MT_BENCH = (
    "writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities",
)  # fmt: skip
TURN, REFERENCE, ANSWER, MODELS = 200, 750, 1000, 6


class Row(NamedTuple):
    """One stage instance and one model that it asks (a panel's judges have a row each): calls,
    tokens in and out, dollars as estimated and at most (None where the endpoint's params set no
    maximum)."""

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


@dataclass(frozen=True)
class Given:
    """What the stages that ask models start from."""

    dolly: list[Seed]
    flan: list[Query]
    topics: list[Topic]
    questions: list[Question]
    answers: list[Answers]

    def seeds(self, source: str) -> Seeds:
        """What a scheme plans from."""
        if source == "dolly":
            return Seeds(dolly=self.dolly, topics=self.topics)
        return Seeds(flan=self.flan, topics=self.topics)


def forecast(p: Params, fetched: Path) -> list[Row]:
    """A row for each model that a stage's instance asks; `fetched` is data/fetch. BadInput where
    that is not there yet."""

    def read(name: str, record: type[R]) -> list[R]:
        return list(read_jsonl(fetched / name, record))

    return _rows(p, _gather(read))


def estimate(p: Params) -> list[Row]:
    """As `forecast`, where nothing was fetched: the world's rows and the user's own are what the
    fetch would make of them, the hub's are assumed. BadInput: files of the user's that are no
    good."""
    tables = {name: _tables(p, name) for name in ("dolly", "flan", "topics", "mt_bench")}

    def read(name: str, record: type[R]) -> list[R]:
        folder, _, file = name.partition("/")
        return [row for row in tables[folder][file] if isinstance(row, record)]

    return _rows(p, _gather(read))


class _Read(Protocol):
    def __call__(self, name: str, record: type[R]) -> list[R]: ...


def _gather(read: _Read) -> Given:
    return Given(
        dolly=read("dolly/seeds.jsonl", Seed),
        flan=read("flan/queries.jsonl", Query),
        topics=read("topics/topics.jsonl", Topic),
        questions=read("mt_bench/questions.jsonl", Question),
        answers=read("mt_bench/answers.jsonl", Answers),
    )


def _tables(p: Params, name: str) -> Tables:
    """The files of a fetch: in truth where that takes no network, else with rows of mere length."""
    wanted = getattr(p.fetch, name)
    if isinstance(wanted, World | Local):
        return sources.collect(name, wanted, p.fetch.seed).tables
    rng = Random(0)
    where = {"source": "", "licence": ""}
    if name == "dolly":
        categories = [*p.schemes.lamini.categories, *p.schemes.evol_instruct.categories]
        seeds = [
            Seed(
                id=f"{category}-{n}",
                instruction=_filler(INSTRUCTION, rng),
                context=_filler(CONTEXT, rng) if rng.random() < CONTEXTS else "",
                response=_filler(RESPONSE, rng),
                category=category,
                **where,
            )
            for category in dict.fromkeys(categories)
            for n in range((wanted.limit or DOLLY) // 8)
        ]
        return {"seeds.jsonl": seeds}
    if name == "flan":
        assert isinstance(wanted, HubFlan)
        queries = [
            Query(
                id=f"{mixture}-{task}-{n}",
                mixture=mixture,
                task=f"{mixture}-{task}",
                query=_filler(QUERY, rng),
                target=_filler(TARGET, rng),
                **where,
            )
            for mixture in MIXTURES
            if getattr(wanted.mixtures, mixture)
            for task in range(round(TASKS[mixture] * wanted.task_share))
            for n in range(wanted.per_task)
        ]
        return {"queries.jsonl": queries}
    if name == "topics":
        return {"topics.jsonl": [Topic(name=str(n), subcategories=1000) for n in range(TOPICS)]}
    files = [file for part in wanted.parts for file in part.files]
    questions = [
        Question(
            question_id=number,
            category=MT_BENCH[number // 10],
            turns=[_filler(TURN, rng)] * 2,
            reference=[_filler(REFERENCE, rng)] * 2 if any("reference" in f for f in files) else [],
        )
        for number in range(10 * len(MT_BENCH))
    ]
    answers = [
        Answers(
            question_id=question.question_id,
            model=f"model {n}",
            turns=[_filler(ANSWER, rng)] * 2,
            finish=["stop", "stop"],
        )
        for n in range(MODELS if any("human" in f for f in files) else 0)
        for question in questions
    ]
    return {"questions.jsonl": questions, "answers.jsonl": answers}


_LETTERS = Random(0).choices("abcdefghijklmnoprstuvw", k=10_000)
_WORDS = " ".join("".join(_LETTERS[at : at + 6]) for at in range(0, len(_LETTERS), 6))


def _filler(size: int, rng: Random) -> str:
    """`size` bytes of words that say nothing, another text each time."""
    start = 7 * rng.randrange((len(_WORDS) - size) // 7)
    return _WORDS[start : start + size]


def _rows(p: Params, given: Given) -> list[Row]:
    rows = []
    for name in schemes.names():
        rows += _scheme(p, name, given.seeds(getattr(p.schemes, name).seeds))
    questions = {question.question_id: question for question in given.questions}
    said = "x" * budget.BYTES_PER_TOKEN * p.mt_answer.max_new_tokens
    answers = [
        Answers(question_id=id, model="", turns=[said, said], finish=["stop", "stop"])
        for id in questions
    ][: p.mt_answer.limit]
    rows += [
        _answers(f"mt_answer {name}", served.endpoint, given.questions[: p.mt_answer.limit])
        for name, checkpoint in p.checkpoints.items()
        if isinstance(served := p.further(checkpoint), FurtherServed)
    ]
    rows += [_grades(p, f"mt_grade {name}", questions, answers) for name in p.checkpoints]
    rows += [_compares(p, f"mt_compare {name}", questions, answers) for name in p.compared]
    return [*rows, _grades(p, "agreement", questions, given.answers)]


def _scheme(p: Params, name: str, seeds: Seeds) -> list[Row]:
    jobs = schemes.load(name).plan(
        seeds, getattr(p.schemes, name), Random(f"{p.generate.seed}/{name}")
    )
    if not jobs:
        raise BadInput(f"forecast: {name}: no jobs can be planned from its seeds; look at fetch")
    played = jobs[:: max(1, len(jobs) // SAMPLED)]
    teacher = Counter(embedded.connect("world-teacher"))
    outcomes = [schemes.attempt(name, job, teacher) for job in played]
    longer = {}
    if isinstance(p.llm.teacher, OpenAI | Anthropic):  # it says more than the embedded one
        longer = {"response": "x" * budget.BYTES_PER_TOKEN * p.llm.teacher.reply_tokens}
    judge = Counter(embedded.connect("world-judge"))
    for outcome in outcomes:
        for sample in outcome.samples:
            verdicts.judge(sample.model_copy(update=longer), p.judge.scale, judge)
    scale = len(jobs) / len(played)
    return [
        teacher.row(f"generate {name}", p.llm.teacher, scale),
        *(judge.row(f"judge {name}", member, scale) for member in p.llm.judges),
    ]


def _answers(stage: str, endpoint: OpenAI | Anthropic, questions: Sequence[Question]) -> Row:
    """Of a model that answers both turns; the second stands behind what it said in the first."""
    said = Reply(
        text="x" * budget.BYTES_PER_TOKEN * endpoint.reply_tokens,
        finish_reason="stop", tokens_in=0, tokens_out=0, model="", simulated=False,
    )  # fmt: skip
    model = Counter(lambda messages, sample=0: said)
    for question in questions:
        evaluation.interview(question, "", model)
    return model.row(stage, endpoint, 1.0)


def _grades(
    p: Params, stage: str, questions: dict[int, Question], answers: Sequence[Answers]
) -> Row:
    judge = Counter(embedded.connect("world-judge"))
    grade = verdicts.grader(questions, p.mt_grade.references, judge)
    for both in answers:
        grade(both)
    return judge.row(stage, p.llm.grader, 1.0)


def _compares(
    p: Params, stage: str, questions: dict[int, Question], answers: Sequence[Answers]
) -> Row:
    judge = Counter(embedded.connect("world-judge"))
    compare = pairwise.comparer(questions, p.mt_grade.references, judge)
    for pair in pairwise.pairs(answers, answers, p.mt_compare.limit):
        compare(pair)
    return judge.row(stage, p.llm.grader, 1.0)


def total(rows: Sequence[Row]) -> Row:
    """The sums; `most` is None where a row has no maximum."""
    most = [row.most for row in rows]
    return Row(
        "total",
        "",
        sum(row.calls for row in rows),
        sum(row.tokens_in for row in rows),
        sum(row.tokens_out for row in rows),
        sum(row.usd for row in rows),
        None if None in most else sum(usd for usd in most if usd is not None),
    )


def table(p: Params, rows: Sequence[Row]) -> str:
    """The forecast as text."""
    head = ("stage", "model", "calls", "tokens in", "tokens out", "$", "$ at most")
    body = [
        (
            *row[:2], f"{row.calls:,}", f"{row.tokens_in:,}", f"{row.tokens_out:,}",
            f"{row.usd:,.2f}", "no maximum" if row.most is None else f"{row.most:,.2f}",
        )
        for row in [*rows, total(rows)]
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
