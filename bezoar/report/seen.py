"""The parts of the stages' JSON files that the report reads, as models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Seen(BaseModel):
    """A part of a JSON file that the report reads. Keys that it does not show are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Set = Literal["generated", "kept"]
Counts = dict[str, dict[str, int]]


class Funnel(Seen):
    """One scheme's rows, counted from the instructions asked for to the rows kept."""

    asked: int
    parsed: int
    repaired: int
    # a share; a run from before it was counted has none
    replies_read: float | None = None
    undecided_checks: int = 0
    copies: int
    equal: int
    accepted: int
    rejected: int
    undecided: int
    kept: int
    # of the rows kept, those to learn from and those held out; an older run has no such counts
    train: int | None = None
    eval: int | None = None
    # rows that were dropped, and faults of rows that stay
    reasons: dict[str, int]
    reported: dict[str, int] = {}
    simulated_teacher: bool
    simulated_judge: bool
    teacher: str
    judge: str
    # dimension -> value -> rows, and category -> strategy -> rows
    distributions: dict[Set, Counts]
    by_category: dict[Set, Counts]


class Own(Seen):
    """The user's own rows, counted from those given to those kept."""

    own: int
    kept: int
    # of the rows kept, those to learn from and those held out
    train: int
    eval: int
    # rows that were dropped, and faults of rows that stay
    reasons: dict[str, int]
    reported: dict[str, int] = {}


class Trust(Seen):
    """A judge's result on `known_rows` rows with known answers (judging/known.py). All fields are
    None where it was not asked, and there is no AUC where there were too few rows."""

    known_rows: int | None = None
    known_auc: float | None = None
    # the 95 % interval of the AUC
    known_auc_low: float | None = None
    known_auc_high: float | None = None
    # the share of its replies that could be read
    known_read: float | None = None
    # of single verdicts, the shares of right and of wrong answers that it accepts
    known_accepted_own: float | None = None
    known_accepted_other: float | None = None
    # of pairs, the share that the order of the two answers decides
    known_order: float | None = None


class Member(Trust):
    """One judge's verdicts on a scheme's samples, and its pay."""

    accepted: int
    rejected: int
    undecided: int
    # the share of its replies that could be read
    read: float | None = None
    # rows that were too long to be asked about, and requests that got no reply
    too_long: int = 0
    failed: int
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float


class Agreeing(Seen):
    """The agreement of two judges on the `n` samples that both decide. None where there are
    none."""

    agreement: float | None
    kappa: float | None
    n: int


class Judging(Seen):
    """The judges of a scheme's samples, a panel where there are several. `unanimous` is the share
    of samples that all accept or all reject."""

    judges: int
    unanimous: float | None
    members: dict[str, Member]
    pairs: dict[str, Agreeing]


class Lengths(Seen):
    """Lengths of one field of a set's rows, in one unit. `category` is "" for all rows."""

    set: Literal["before", "after"]
    category: str
    field: str
    unit: Literal["characters", "tokens"]
    n: int
    mean: float
    std: float
    min: int
    q1: float
    median: float
    q3: float
    max: int


class Tasks(Seen):
    """A set's rows by kind of task, and their distance to the target: None for an empty set."""

    rows: int
    tasks: dict[str, int]
    distance: float | None


class Described(Seen):
    """One scheme's distributions before and after filtering. `target` holds the share of each kind
    of task."""

    target: dict[str, float]
    sets: dict[Literal["before", "after"], Tasks]
    lengths: list[Lengths]


class Score(Seen):
    """A harness task's accuracy over `n` items, and its standard error."""

    acc: float | None = None
    acc_stderr: float | None = None
    acc_norm: float | None = None
    acc_norm_stderr: float | None = None
    n: int


class Skill(Seen):
    """The share of `n` held-out questions that were answered exactly."""

    share: float
    n: int


class Results(Seen):
    """The harness stage's measurements at one point of the chain, and the harness' warnings."""

    tasks: dict[str, Score]
    skills: dict[str, Skill]
    warnings: list[str] = []


class Agreed(Seen):
    """Two kinds of judges, `a` and `b`, on one turn: the share of comparisons in which they agree.
    The 95 % intervals (low, high) are None for one question."""

    turn: Literal[1, 2]
    a: str
    b: str
    # among all comparisons, with ties: s1_agree of s1_n
    s1: float
    s1_agree: int
    s1_n: int
    s1_low: float | None
    s1_high: float | None
    # among those that both decide: s2_agree of s2_n
    s2: float | None
    s2_agree: int
    s2_n: int
    s2_low: float | None
    s2_high: float | None
    kappa: float | None


class Portion(Seen):
    """Two kinds of judges on one turn, in one category or on one pair of models. `by` says which,
    and `of` names it."""

    by: Literal["category", "models"]
    of: str
    turn: Literal[1, 2]
    a: str
    b: str
    s1: float
    s1_agree: int
    s1_n: int
    s2: float | None
    s2_agree: int
    s2_n: int


class Study(Seen):
    """The agreement study: its records are pairs of answers to one turn of a question."""

    # our judge compared pairs, or its single grades were compared
    verdicts: Literal["pairs", "single"]
    # the records on which every kind of judge has a verdict, or those on which any has
    which: Literal["intersection", "all"]
    # the records by turn, and those of them on which our judge has a verdict
    records: dict[Literal["1", "2"], int]
    judged: dict[Literal["1", "2"], int]
    # the models whose answers are in the records
    models: list[str]
    # the votes of every kind of judge
    votes: dict[str, int]
    # the paper's groups of judges that this run does not have
    absent: list[str]


class Leaning(Seen):
    """A bias of one kind of judges: the share of its `n` votes that go that way."""

    judge: str
    bias: Literal["verbosity", "self_preference", "first_shown", "inconsistent"]
    share: float
    n: int
    # the 95 % interval of the share, None for one question
    low: float | None
    high: float | None
    # the share of people's votes on the same answers
    people: float | None
    people_n: int


class Part(Seen):
    """A repository of a hub at one commit, with the licence that it states."""

    repository: str
    revision: str
    licence: str


class Source(Seen):
    """The origin of a fetch's rows, or of the base model."""

    source: str
    # the repositories of a hub
    parts: list[Part] = []
    # the address and licence of a download
    url: str = ""
    licence: str = ""
    # rows used, by file, and rows left out, by reason
    rows: dict[str, int] = {}
    left_out: dict[str, int] = {}
    # the user's folder that was empty
    stands_in_for: str | None = None


class Voters(Seen):
    """The voters of MT-Bench: `simulated` where the project made up their votes."""

    simulated: bool


class Once(Seen):
    """One run of a link: its epochs, and the evaluation loss before the first and after the
    last."""

    epochs: int
    eval_loss_start: float
    eval_loss_end: float


class Fitted(Seen):
    """The result of a link's runs. Epochs are counted through all of them."""

    eval_loss_start: float
    eval_loss_end: float
    eval_loss_best: float
    epochs: int
    kept_epoch: int
    train_rows: int
    eval_rows: int
    # rows whose prompt leaves no room for an answer
    dropped_rows: int
    # the share of the other rows that lost their end
    truncated_share: float
    # by number, from 1
    runs: dict[int, Once]


class Mixed(Seen):
    """The rows that a link was given to learn from, by set. Replayed ones are among them."""

    sets: dict[str, int]


class Unjoinable(BaseModel):
    """Two licences that no one work can satisfy, and the rows that stand under both."""

    licences: tuple[str, str]
    rows: int


class Standing(BaseModel):
    """The licences of a set's rows (licences.json): the strictest, and what is unclear."""

    # the strictest licence
    text: str
    rows: int
    # rows whose licence is unknown
    unknown: int
    unjoinable: list[Unjoinable]
