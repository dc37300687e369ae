"""The calls that the active profile will make and their price, before anything is sent.

`make forecast`, or `python -m bezoar.forecast` where data/fetch/ is there: no key, no network.

Each scheme is planned as `generate` plans it. Up to SAMPLED of its jobs are played against the
embedded teacher, which gives the number of calls a job and the length of prompts. The estimates,
stated: a token is four bytes of a prompt. A reply has the endpoint's `reply_tokens` (the embedded
models': the tokens of their text), and for the price at most the `max_tokens` of its params.

Answers that the ledger holds cost nothing again, and are not subtracted here. Reference answers are
bought once for all stages, and are counted so. Requests that do not fit the model with their reply
(bezoar/llm/room.py) are never sent: they are no calls, and are counted apart.

`estimate` does the same before anything is fetched, on rows as many and as long as the sources'.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from bezoar import params, schemes, sources
from bezoar.evaluating import talks
from bezoar.judging import agreement, known, pairwise, verdicts
from bezoar.llm import budget, embedded
from bezoar.llm.client import empty_reply
from bezoar.llm.room import Room
from bezoar.params import (
    Anthropic,
    Endpoint,
    FurtherServed,
    HubFlan,
    Local,
    OpenAI,
    Params,
    World,
    arguments,
)
from bezoar.rows.files import BadInput, read_jsonl
from bezoar.rows.records import (
    Answers,
    Ask,
    Grade,
    Message,
    Query,
    Question,
    Record,
    Reply,
    Sample,
    Seed,
    Seeds,
    Topic,
    Vote,
)
from bezoar.schemes.orca import MIXTURES
from bezoar.sources.tables import Tables

R = TypeVar("R", bound=Record)
J = TypeVar("J")

TOO_LONG = (
    "Too long: requests with no room for their longest reply in the model's context. They are "
    "not sent and cost nothing; what cannot be asked for in fewer words is a reject."
)
SAMPLED = 200  # jobs of a scheme that are played; the rest is in proportion

# The contents of the hub's sources, for an estimate before they are fetched. Bytes are means.
DOLLY = 15_011  # rows of databricks-dolly-15k, in eight categories of about a like size
DOLLYS = (
    *("brainstorming", "classification", "closed_qa", "creative_writing", "general_qa"),
    *("information_extraction", "open_qa", "summarization"),
)
# Measured on databricks-dolly-15k: bytes of an instruction and of a context, and the share of rows
# with a context.
INSTRUCTION, CONTEXT, CONTEXTS = 72, 1190, 0.35
# For the estimate every row of these categories has a context, and no other row.
WITH_CONTEXT = ("closed_qa", "information_extraction", "summarization")
TASKS = {"cot": 18, "niv2": 1560, "t0": 193, "flan2021": 142}  # OpenBezoar 3.1.3
# Measured on 39 tasks of natural-instructions, P3 and FLAN's CoT tables.
QUERY = 550
# The lengths of texts: bytes at these shares of a source's texts, shortest first. A mean would make
# every request fit. Measured, as published: all of databricks-dolly-15k but general_qa, 4 CoT
# tables of FLAN (800 rows), 24 tasks of natural-instructions (940) and 11 of P3 (440).
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
INSTRUCTIONS = (4, 26, 35, 42, 49, 57, 66, 77, 96, 128, 165, 218, 265, 635)
CONTEXT_BYTES = (3, 325, 459, 573, 685, 808, 977, 1169, 1531, 2300, 3094, 5222, 7720, 16937)
RESPONSES = (1, 33, 54, 82, 112, 151, 213, 302, 438, 712, 1114, 1783, 2633, 6821)
QUERIES = {
    "cot": (22, 52, 70, 112, 154, 169, 186, 209, 243, 284, 334, 400, 439, 542),
    "niv2": (139, 197, 230, 264, 313, 340, 424, 556, 800, 978, 1290, 1480, 1700, 2762),
    "t0": (71, 118, 148, 201, 263, 326, 480, 701, 1072, 1493, 2203, 2222, 2230, 2317),
}
TARGETS = {
    "cot": (39, 81, 113, 138, 158, 175, 193, 212, 242, 314, 394, 475, 531, 767),
    "niv2": (1, 9, 14, 20, 32, 41, 49, 59, 73, 96, 122, 152, 167, 192),
    "t0": (1, 2, 2, 4, 6, 7, 9, 14, 29, 74, 354, 891, 1382, 2047),
}
# Not measured. Like T0's, its tasks are supervised sets in templates.
QUERIES["flan2021"], TARGETS["flan2021"] = QUERIES["t0"], TARGETS["t0"]
TOPICS = 1000  # more than any plan draws
# Counts and bytes of FastChat's question.jsonl and reference_answer/, and of six models' answers in
# mt_bench_human_judgments.
MT_BENCH = verdicts.CATEGORIES
REFERENCED = ("reasoning", "math", "coding")
TURN, REFERENCE, ANSWER, MODELS = 200, 750, 1000, 6
# Of the 1,200 pairs of answers that GPT-4 compared people voted on 910. It graded five of the six
# models (the released grades are of another version of Vicuna).
VOTED_ON, GRADED = 910 / 1200, 5


class Row(NamedTuple):
    """One stage instance and one model that it asks (a panel's judges have a row each).

    `usd`: US dollars as estimated.
    `most`: US dollars at most, None where the endpoint's params set no maximum.
    `too_long`: requests that are not sent, because they do not fit the model.
    """

    stage: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    most: float | None
    too_long: int = 0


Bought = set[tuple[str, ...]]  # requests for reference answers: sample index and contents


class Counter:
    """Counts the calls of an `Ask` that stands in for the model of `endpoint`, and the requests
    that the model has no room for. Reference answers that are `bought` already cost nothing again.
    """

    def __init__(self, ask: Ask, endpoint: Endpoint, bought: Bought | None = None) -> None:
        self.ask, self.endpoint, self.room = ask, endpoint, Room(endpoint)
        self.bought = bought
        self.calls = self.bytes_in = self.tokens_out = self.too_long = 0

    def __call__(self, messages: Sequence[Message], sample: int = 0) -> Reply:
        """Ask, and count the call."""
        if not self.room.fits(messages, sample):
            self.too_long += 1
            return empty_reply("too_long", self.endpoint.model)
        reply = self.ask(messages, sample)
        if self.bought is not None and _is_reference(messages):
            request = (str(sample), *(message.content for message in messages))
            if request in self.bought:
                return reply
            self.bought.add(request)
        self.calls += 1
        self.bytes_in += sum(len(message.content.encode()) for message in messages)
        self.tokens_out += reply.tokens_out
        return reply

    def row(self, stage: str, scale: float) -> Row:
        """Return the counts, times `scale`, at the prices of the endpoint."""
        endpoint = self.endpoint
        calls, too_long = round(self.calls * scale), round(self.too_long * scale)
        tokens_in = round(self.bytes_in * scale / budget.BYTES_PER_TOKEN)
        if not isinstance(endpoint, OpenAI | Anthropic):
            out = round(self.tokens_out * scale)
            return Row(stage, endpoint.model, calls, tokens_in, out, 0.0, 0.0, too_long)
        batch, out = endpoint.mode == "batch", calls * endpoint.reply_tokens
        usd = budget.cost(endpoint.price, tokens_in, 0, out, batch)
        _, longest = budget.worst_tokens(0, endpoint.params)
        most = longest and budget.cost(endpoint.price, tokens_in, 0, calls * longest, batch)
        return Row(stage, endpoint.model, calls, tokens_in, out, usd, most, too_long)


@dataclass(frozen=True)
class Given:
    """The rows that the stages which ask models start from."""

    dolly: list[Seed]
    flan: list[Query]
    topics: list[Topic]
    questions: list[Question]
    answers: list[Answers]
    votes: list[Vote]
    grades: list[Grade]

    def seeds(self, source: str) -> Seeds:
        """Return the seeds that a scheme plans from."""
        if source == "dolly":
            return Seeds(dolly=self.dolly, topics=self.topics)
        return Seeds(flan=self.flan, topics=self.topics)


def forecast(p: Params, fetched: Path) -> list[Row]:
    """Return a row for each model that a stage's instance asks. `fetched` is data/fetch. BadInput:
    it is not there yet."""

    def read(name: str, record: type[R]) -> list[R]:
        return list(read_jsonl(fetched / name, record))

    return _forecast_rows(p, _read_inputs(read))


def estimate(p: Params) -> list[Row]:
    """Return the rows of `forecast` where nothing was fetched. The world's rows and the user's own
    are those that fetch would make, the hub's are assumed. BadInput: files of the user's that are
    no good."""
    tables = {name: _tables(p, name) for name in ("dolly", "flan", "topics", "mt_bench")}

    def read(name: str, record: type[R]) -> list[R]:
        folder, _, file = name.partition("/")
        return [row for row in tables[folder][file] if isinstance(row, record)]

    return _forecast_rows(p, _read_inputs(read))


class _Read(Protocol):
    def __call__(self, name: str, record: type[R]) -> list[R]: ...


def _read_inputs(read: _Read) -> Given:
    return Given(
        dolly=read("dolly/seeds.jsonl", Seed),
        flan=read("flan/queries.jsonl", Query),
        topics=read("topics/topics.jsonl", Topic),
        questions=read("mt_bench/questions.jsonl", Question),
        answers=read("mt_bench/answers.jsonl", Answers),
        votes=read("mt_bench/votes.jsonl", Vote),
        grades=read("mt_bench/grades.jsonl", Grade),
    )


def _tables(p: Params, name: str) -> Tables:
    """Return the files of a fetch. A source that takes no network is really read. The rows of
    another are as long as its own, and say nothing."""
    source = getattr(p.fetch, name)
    if isinstance(source, World | Local):
        return sources.collect(name, source, p.fetch.seed).tables
    rng = Random(0)
    origin = {"source": "", "licence": ""}
    if name == "dolly":
        category_lists = [
            getattr(scheme, "categories", None) or DOLLYS for scheme in p.schemes.by_name.values()
        ]
        seeds = [
            Seed(
                id=f"{category}-{n}",
                instruction=_filler(_length(INSTRUCTIONS, rng), rng),
                context=_filler(_length(CONTEXT_BYTES, rng), rng)
                if category in WITH_CONTEXT
                else "",
                response=_filler(_length(RESPONSES, rng), rng),
                category=category,
                **origin,
            )
            for category in dict.fromkeys(chain.from_iterable(category_lists))
            for n in range((source.limit or DOLLY) // 8)
        ]
        return {"seeds.jsonl": seeds}
    if name == "flan":
        assert isinstance(source, HubFlan)
        queries = [
            Query(
                id=f"{mixture}-{task}-{n}",
                mixture=mixture,
                task=f"{mixture}-{task}",
                query=_filler(_length(QUERIES[mixture], rng), rng),
                target=_filler(_length(TARGETS[mixture], rng), rng),
                **origin,
            )
            for mixture in MIXTURES
            if getattr(source.mixtures, mixture)
            for task in range(round(TASKS[mixture] * source.task_share))
            for n in range(source.per_task)
        ]
        return {"queries.jsonl": queries}
    if name == "topics":
        return {"topics.jsonl": [Topic(name=str(n), subcategories=1000) for n in range(TOPICS)]}
    files = [file for part in source.parts for file in part.files]
    with_reference = REFERENCED if any("reference" in f for f in files) else ()
    questions = [
        Question(
            question_id=number,
            category=MT_BENCH[number // 10],
            turns=[_filler(TURN, rng)] * 2,
            reference=[_filler(REFERENCE, rng)] * 2
            if MT_BENCH[number // 10] in with_reference
            else [],
        )
        for number in range(10 * len(MT_BENCH))
    ]
    voted = any("human" in f for f in files)
    answers = [
        Answers(
            question_id=question.question_id,
            model=f"model {n}",
            turns=[_filler(ANSWER, rng)] * 2,
            finish=["stop", "stop"],
        )
        for n in range(MODELS if voted else 0)
        for question in questions
    ]
    return {
        "questions.jsonl": questions,
        "answers.jsonl": answers,
        "votes.jsonl": _make_votes(answers, rng),
        "grades.jsonl": _make_grades(answers) if any("single" in f for f in files) else [],
    }


def _make_votes(answers: Sequence[Answers], rng: Random) -> list[Vote]:
    """Return a machine's verdicts on every two answers to a question, and people's on some of
    them."""
    pairs = [(a, b) for a, b in combinations(answers, 2) if a.question_id == b.question_id]
    some = rng.sample(pairs, round(VOTED_ON * len(pairs)))
    return [
        Vote.model_validate(
            {
                "judge": judge,
                "question_id": a.question_id,
                "turn": turn,
                "model_a": a.model,
                "model_b": b.model,
                "winner": "tie",
            }
        )
        for judge, its in (("gpt4_pair", pairs), ("expert_1", some))
        for a, b in its
        for turn in (1, 2)
    ]


def _make_grades(answers: Sequence[Answers]) -> list[Grade]:
    """Return a machine's single grades of the answers of some models."""
    models = sorted({answer.model for answer in answers})[:GRADED]
    return [
        Grade.model_validate(
            {
                "question_id": answer.question_id,
                "model": answer.model,
                "turn": turn,
                "score": 5,
                "status": "ok",
                "reply": "",
                "judge": "gpt4_single",
                "simulated": False,
            }
        )
        for answer in answers
        if answer.model in models
        for turn in (1, 2)
    ]


_LETTERS = Random(0).choices("abcdefghijklmnoprstuvw", k=20_000)
_WORDS = " ".join("".join(_LETTERS[start : start + 6]) for start in range(0, len(_LETTERS), 6))


def _filler(size: int, rng: Random) -> str:
    """Return `size` bytes of words that say nothing, another text each time."""
    # A word has six letters and a blank, so every text begins with a whole word.
    start = 7 * rng.randrange((len(_WORDS) - size) // 7)
    return _WORDS[start : start + size]


def _length(lengths: Sequence[int], rng: Random) -> int:
    """Draw the bytes of one text, from the lengths of its kind at SHARES."""
    point = SHARES[-1] * rng.random()
    above = bisect(SHARES, point)
    low, high = lengths[above - 1], lengths[above]
    share = (point - SHARES[above - 1]) / (SHARES[above] - SHARES[above - 1])
    return round(low + share * (high - low))


def _forecast_rows(p: Params, inputs: Given) -> list[Row]:
    rows = []
    for name in p.schemes.by_name:
        rows += _scheme_rows(p, name, inputs.seeds(p.schemes.by_name[name].seeds))
    questions = {question.question_id: question for question in inputs.questions}
    longest = "x" * budget.BYTES_PER_TOKEN * p.mt_answer.max_new_tokens
    answers = [
        Answers(question_id=id, model="", turns=[longest, longest], finish=["stop", "stop"])
        for id in questions
    ][: p.mt_answer.limit]
    rows += [
        _answers_row(f"mt_answer {name}", served.endpoint, inputs.questions[: p.mt_answer.limit])
        for name, checkpoint in p.checkpoints.items()
        if isinstance(served := p.further(checkpoint), FurtherServed)
    ]
    check = known.check_on(inputs.dolly, "dolly", p.known)
    all_questions = questions | check.questions
    bought: Bought = set()
    graded = [*check.answers, *answers]
    pairs = pairwise.pairs(answers, answers, p.mt_compare.limit)
    # The known rows check the grader, and are only asked about where it has something to compare.
    compared = [*check.pairs, *pairs] if pairs else []
    with_reference = verdicts.referenced_ids(inputs.questions, p.mt_grade.references)
    for name in p.checkpoints:
        judge = _grader(p, bought)
        grade = partial(_grade, all_questions, with_reference, judge)
        rows.append(_play(judge, f"mt_grade {name}", grade, graded))
    for name in p.compared:
        judge = _grader(p, bought)
        compare = partial(_compare, all_questions, with_reference, judge)
        rows.append(_play(judge, f"mt_compare {name}", compare, compared))
    return [
        *rows,
        *([_agreement_row(p, inputs, questions, with_reference, bought)] if p.checkpoints else []),
    ]


def _grade(
    questions: dict[int, Question], with_reference: frozenset[int], ask: Ask, answers: Answers
) -> object:
    return verdicts.grade_answers(answers, questions, with_reference, ask)


def _compare(
    questions: dict[int, Question], with_reference: frozenset[int], ask: Ask, pair: pairwise.Pair
) -> object:
    return pairwise.compare_answers(pair, questions, with_reference, ask)


def _agreement_row(
    p: Params,
    inputs: Given,
    questions: dict[int, Question],
    with_reference: frozenset[int],
    bought: Bought,
) -> Row:
    """Return the row of the agreement study: the pairs, or answers, that the stage puts to our
    judge."""
    others = agreement.judgements(inputs.votes, inputs.grades, p.agreement.tie_margin)
    among = agreement.records(others, p.agreement.records)
    puts, _ = agreement.puts(among, inputs.answers, p.agreement.limit)
    judge = _grader(p, bought)
    if p.agreement.verdicts == "single":
        alone = {
            (answers.question_id, answers.model): answers for put in puts for answers in put.pair
        }
        grade = partial(_grade, questions, with_reference, judge)
        return _play(judge, "agreement", grade, list(alone.values()))

    def compare(put: agreement.Put) -> object:
        return pairwise.compare_answers(put.pair, questions, with_reference, judge, put.turns)

    return _play(judge, "agreement", compare, puts)


def _grader(p: Params, bought: Bought) -> Counter:
    """Return a counter in place of the grader. A reference answer of a real one is as long as its
    replies."""
    simulated, grader = embedded.connect("world-judge"), p.llm.grader
    if not isinstance(grader, OpenAI | Anthropic):
        return Counter(simulated, grader, bought)
    text = "x" * budget.BYTES_PER_TOKEN * grader.reply_tokens

    def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
        reply = simulated(messages, sample)
        return reply.model_copy(update={"text": text}) if _is_reference(messages) else reply

    return Counter(ask, grader, bought)


def _is_reference(messages: Sequence[Message]) -> bool:
    """Say whether a grader is asked for a reference answer: it has no instruction to judge then."""
    return messages[0].role == "user"


def _play(judge: Counter, stage: str, do: Callable[[J], object], jobs: Sequence[J]) -> Row:
    for job in jobs:
        do(job)
    return judge.row(stage, 1.0)


def _scheme_rows(p: Params, name: str, seeds: Seeds) -> list[Row]:
    jobs = schemes.load(name).plan(
        seeds, p.schemes.by_name[name], Random(f"{p.generate.seed}/{name}")
    )
    if not jobs:
        raise BadInput(f"forecast: {name}: no jobs can be planned from its seeds; look at fetch")
    # Every n-th job, so that all parts of the plan are played.
    played = jobs[:: max(1, len(jobs) // SAMPLED)]
    teacher = Counter(embedded.connect("world-teacher"), p.llm.teacher)
    outcomes = [schemes.attempt(name, job, teacher) for job in played]
    longer = {}
    # A real teacher says more than the embedded one, and the judge reads it.
    if isinstance(p.llm.teacher, OpenAI | Anthropic):
        longer = {"response": "x" * budget.BYTES_PER_TOKEN * p.llm.teacher.reply_tokens}
    judges = [Counter(embedded.connect("world-judge"), member) for member in p.llm.judges]
    samples = [sample for outcome in outcomes for sample in outcome.samples]
    for sample in samples:
        for judge in judges:
            verdicts.judge(sample.model_copy(update=longer), p.judge.scale, judge)
    scale = len(jobs) / len(played)
    check = known.check_on([*seeds.dolly, *seeds.flan], name, p.known)
    known_samples = check.samples(any(sample.expected for sample in samples)) if samples else []
    return [
        teacher.row(f"generate {name}", scale),
        *(
            _add_known(judge.row(f"judge {name}", scale), p, judge.endpoint, known_samples)
            for judge in judges
        ),
    ]


def _add_known(row: Row, p: Params, member: Endpoint, samples: Sequence[Sample]) -> Row:
    """Return a judge's row with the calls on which it is checked, which are as many for any number
    of jobs."""
    judge = Counter(embedded.connect("world-judge"), member)
    for sample in samples:
        verdicts.judge(sample, p.judge.scale, judge)
    combined = total([row, judge.row(row.stage, 1.0)])
    return combined._replace(stage=row.stage, model=row.model)


def _answers_row(stage: str, endpoint: OpenAI | Anthropic, questions: Sequence[Question]) -> Row:
    """Return the row of a model that answers both turns. The second stands behind its first
    answer."""
    reply = Reply(
        text="x" * budget.BYTES_PER_TOKEN * endpoint.reply_tokens,
        finish_reason="stop",
        tokens_in=0,
        tokens_out=0,
        model="",
        simulated=False,
    )
    model = Counter(lambda messages, sample=0: reply, endpoint)
    for question in questions:
        talks.interview(question, "", model)
    return model.row(stage, 1.0)


def total(rows: Sequence[Row]) -> Row:
    """Return the sums. `most` is None where a row has no maximum."""
    most = [row.most for row in rows]
    return Row(
        "total",
        "",
        sum(row.calls for row in rows),
        sum(row.tokens_in for row in rows),
        sum(row.tokens_out for row in rows),
        sum(row.usd for row in rows),
        None if None in most else sum(usd for usd in most if usd is not None),
        sum(row.too_long for row in rows),
    )


def table(p: Params, rows: Sequence[Row]) -> str:
    """Return the forecast as text. Requests that are too long have a column where there are any."""
    columns = 8 if any(row.too_long for row in rows) else 7
    head = ("stage", "model", "calls", "tokens in", "tokens out", "$", "$ at most", "too long")
    body = [
        (
            *row[:2],
            f"{row.calls:,}",
            f"{row.tokens_in:,}",
            f"{row.tokens_out:,}",
            f"{row.usd:,.2f}",
            "no maximum" if row.most is None else f"{row.most:,.2f}",
            f"{row.too_long:,}",
        )
        for row in [*rows, total(rows)]
    ]
    cells = [line[:columns] for line in [head, *body]]
    wide = [max(len(line[i]) for line in cells) for i in range(columns)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, wide, strict=True))
        ).rstrip()
        for line in cells
    ]
    caps = ", ".join(
        f"budget_usd.{name} {'none' if cap is None else budget.dollars(cap)}"
        for name, cap in (("stage", p.budget_usd.stage), ("run", p.budget_usd.run))
    )
    return "\n".join([f"profile {p.profile}; {caps}", "", *lines, *left_out(p, rows)])


def fit_more(p: Params, stage: str) -> str:
    """Return the advice where requests of a stage do not fit their model."""
    more = "raise context_tokens if its server takes more, or lower max_tokens of its params"
    if stage != "generate lamini":
        return more
    if p.schemes.lamini and p.schemes.lamini.fewer_examples:
        return f"LaMini asks again with an example less (fewer_examples); else {more}"
    return f"set schemes.lamini.fewer_examples: true, {more}"


def left_out(p: Params, rows: Sequence[Row]) -> list[str]:
    """Return the explanation of the column of requests that are too long, with advice, [] without
    it."""
    stages = [row.stage for row in rows if row.too_long]
    if not stages:
        return []
    return ["", TOO_LONG, *dict.fromkeys(f"-> {fit_more(p, stage)}" for stage in stages)]


def main() -> None:
    """Print the active profile's forecast."""
    arguments.none("bezoar.forecast", __doc__)
    p = params.load()
    print(table(p, forecast(p, Path("data/fetch"))))
