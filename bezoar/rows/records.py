"""The records that cross a file boundary, and nothing else."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A frozen and closed record. A field that is not declared is an error at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what the sources hold (data/fetch/) -------------------------------------------------------


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Seed(Record):
    """A row of the shape of databricks-dolly-15k. `context` is "" where there is none. `own_id` is
    the file's own name of the row, or ""."""

    id: str
    instruction: str
    context: str
    response: str
    category: str
    source: str
    licence: str
    own_id: str = ""


Mixture = Literal["cot", "niv2", "t0", "flan2021"]


class Query(Record):
    """A zero-shot query of the FLAN collection and the answer it wants."""

    id: str
    mixture: Mixture
    task: str
    query: str
    target: str
    source: str
    licence: str


class Topic(Record):
    """A Wikipedia category with the number of its sub-categories. None: a user's list names it
    without one."""

    name: str
    subcategories: int | None


class Pair(Record):
    """A preference pair. `prompt` ends with a user turn, and both answers follow it."""

    id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    source: str
    licence: str


class Question(Record):
    """An MT-Bench question of two turns. `reference` has two answers, or none."""

    question_id: int
    category: str
    turns: list[str] = Field(min_length=2, max_length=2)
    reference: list[str]


class Vote(Record):
    """One judge's verdict between two models' answers to one turn of an MT-Bench question.

    Inconsistent: the judge named one model in one order and the other model in the other order. It
    counts as a tie."""

    judge: str
    question_id: int
    turn: Literal[1, 2]
    model_a: str
    model_b: str
    winner: Literal["model_a", "model_b", "tie", "inconsistent"]


class Item(Record):
    """A multiple-choice item of a harness task. `label` is the index of the right choice."""

    id: str
    question: str
    choices: list[str] = Field(min_length=2)
    label: int = Field(ge=0)


class ItemText(Record):
    """The text of an item of a task that the harness brings: the question and the answers to choose
    from. It is looked for in training data."""

    id: str
    question: str
    choices: list[str]


class Probe(Record):
    """A held-out question that is answered freely. The answer is right if it equals one of
    `answers`."""

    id: str
    skill: str
    system: str
    instruction: str
    answers: list[str] = Field(min_length=1)


# --- what a model said ---------------------------------------------------------------------------


Ending = Literal["stop", "length", "refused", "too_long", "failed"]
# Endings of requests to which no reply came: the model was not asked, or the request failed
UNSAID = ("too_long", "failed")


class Reply(Record):
    """One answer of a model.

    `text` is the answer, `thoughts` the reasoning before it, and `raw` the whole text as it came
    ("" where that is `text`). `finish_reason` says how the reply ended. Two of its values say why
    no text came. `too_long`: the request does not fit the model and was not sent. `failed`: it
    failed for good (failures.jsonl has the reason).

    `simulated` is true when no language model wrote it. `key` is the request's key in the ledger
    ("" where nothing was bought). `usd` is its price when it was bought. `tokens_cached` is the
    part of `tokens_in` that was billed at the cache rate."""

    text: str
    finish_reason: Ending
    tokens_in: int
    tokens_out: int
    model: str
    simulated: bool
    tokens_cached: int = 0
    usd: float = 0.0
    key: str = ""
    thoughts: str = ""
    raw: str = ""


class Ask(Protocol):
    """A model as a function. `sample` tells apart several answers to one request."""

    def __call__(self, messages: Sequence[Message], sample: int = 0) -> Reply: ...


class Exchange(Record):
    """A request and its reply as bought, which `generate` keeps beside the samples."""

    job: str
    step: int
    messages: list[Message]
    reply: Reply


class Failure(Record):
    """A request that failed for good, and its job with it. `status` is None where no server
    answered."""

    job: str
    step: int
    reason: str
    status: int | None
    attempts: int
    usd: float


class Spending(Record):
    """The price of the answers of one stage instance, each at its price when it was bought, now or
    before. An answer used twice counts once. A simulated one does not count."""

    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float


# --- what the schemes make and links learn from (data/generate/, ..., data/mix/) ------------------


class Seeds(Record):
    """All that a scheme may plan from. Lists that the scheme does not read stay empty."""

    dolly: list[Seed] = []
    flan: list[Query] = []
    topics: list[Topic] = []


class Job(Record):
    """One unit of teacher work, planned before any money is spent. `asked` counts the instructions
    that it asks for."""

    id: str
    asked: int
    inputs: dict[str, Any]


class Sample(Record):
    """An instruction and the teacher's response. `expected` is the answer that the query wants
    (Orca), else "". `system` is "" where the scheme brings no system message of its own."""

    id: str
    scheme: str
    system: str
    instruction: str
    context: str
    response: str
    expected: str
    category: str
    details: dict[str, str | int | bool]
    seeds: list[str]
    licence: str
    teacher: str
    simulated: bool


class Kept(Sample):
    """A sample that became training data, with the sources of its seeds. It also has the terms
    under which the teacher wrote it and the judge chose it. They read "A, B" where several have a
    say."""

    sources: list[str]
    teacher_terms: str
    judge_terms: str


class Rejected(Record):
    """A text that did not become a sample (or did not stay one), and the reason."""

    id: str
    scheme: str
    reason: str
    text: str
    details: dict[str, str | int | bool]


class Example(Record):
    """A row that a link is trained on or evaluated on, as text. The loss is on the completion.
    `source` is the set it comes from (filter/lamini), `id` its row there."""

    id: str
    prompt: str
    completion: str
    source: str


class Contamination(Record):
    """A sample that holds an item of a benchmark.

    `ngram`: `score` is the share of the item's n-grams that the sample holds. `whole`: the sample
    holds a short question, and the score is 1. `fuzzy`: the score is the cosine of the two."""

    id: str
    benchmark: str
    item: str
    kind: Literal["ngram", "whole", "fuzzy"]
    score: float


class SeedContamination(Contamination):
    """A seed that holds an item. `rows` counts the remaining rows that were made from it."""

    rows: int


class Undecided(Record):
    """A mark that the reply before it could not be read, and that its job goes on without it."""


class Outcome(Record):
    """The result of one job. `unread` are the steps of exchanges whose reply could not be read or
    used. `undecided` counts those without which the job went on."""

    samples: list[Sample]
    rejected: list[Rejected]
    exchanges: list[Exchange]
    unread: list[int] = []
    undecided: int = 0


class Generated(Record):
    """The counts of a scheme: what it asked of the teacher and what was read from its replies.

    `asked`, `parsed` and `repaired` count instructions, `calls` counts requests. `replies_read` is
    the share of replies that could be read and used. `undecided_checks` counts the unread replies
    without which a job went on (Evol's checks for equality). `simulated`: no language model wrote
    them."""

    jobs: int
    calls: int
    asked: int
    parsed: int
    repaired: int
    replies_read: float
    undecided_checks: int
    teacher: str
    simulated: bool


class Reject(Exception):
    """This job cannot become a sample. str(self) is the reason that metrics count."""


class Verdict(Record):
    """The verdict of a judge or a panel on one sample.

    Undecided: blank, refused, truncated or unparsable, or a panel that ties. `rating` is None then.
    `reply` is the judge's raw text. For a panel it is "", as the replies of its members stand in
    votes.jsonl."""

    id: str
    status: Literal["accepted", "rejected", "undecided"]
    rating: int | None
    reason: str
    reply: str
    judge: str
    simulated: bool


# --- what evaluation makes (data/lm_eval/, data/mt_answer/, data/mt_grade/ ...) ------------------


class Scored(Record):
    """A checkpoint's scores on one item of a harness task. None: the task has no such metric. A
    group's items stand under the group's name. `acc` may lie between 0 and 1 (truthfulqa_mc2)."""

    task: str
    item: str
    acc: float | None = None
    acc_norm: float | None = None


class Attempt(Record):
    """A checkpoint's free answer to a probe."""

    id: str
    skill: str
    answer: str
    right: bool


class Answers(Record):
    """A checkpoint's answers to both turns of a question. `finish` says how each turn ended. `raw`
    has the turns with the thoughts that were parted from them, or is [] where there were none."""

    question_id: int
    model: str
    turns: list[str]
    finish: list[Literal["stop", "length", "no_room", "refused"]]
    raw: list[str] = []


# Where the reference answer came from that a judge was shown: from the source, or from the judge
# itself. `missing`: the recipe wants one and there is none; `not_wanted`: it wants none.
Referenced = Literal["not_wanted", "given", "asked", "missing"]


class Grade(Record):
    """A judge's grade, 1-10, of one turn. None: `status` has the reason."""

    question_id: int
    model: str
    turn: Literal[1, 2]
    score: float | None
    status: Literal["ok", "empty_answer", "unparsed", "refused", "truncated", "too_long", "failed"]
    reply: str
    judge: str
    simulated: bool
    reference: Referenced = "not_wanted"


class Comparison(Record):
    """A judge's verdict on two models' answers to one turn, shown in both orders.

    `winner` is None where there is no verdict, and `status` has the reason. Inconsistent: the order
    decided. `replies` begins with the reply that saw `model` first. There are fewer where a rule
    decides, or where one of them states nothing."""

    question_id: int
    turn: Literal[1, 2]
    model: str
    baseline: str
    winner: Literal["model", "baseline", "tie", "inconsistent"] | None
    status: Literal["ok", "empty_answer", "unparsed", "refused", "truncated", "too_long", "failed"]
    replies: list[str]
    judge: str
    simulated: bool
    reference: Referenced = "not_wanted"
