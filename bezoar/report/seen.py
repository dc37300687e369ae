"""What the report reads of the JSON files that the stages before wrote."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Seen(BaseModel):
    """What the report reads of a JSON file; keys that it does not show are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Set = Literal["generated", "kept"]
Counts = dict[str, dict[str, int]]


class Funnel(Seen):
    """What became of one scheme's instructions. `reasons` count rows that were dropped, `reported`
    what was found on rows that stay. `distributions` count the rows generated and the rows kept by
    what they are, `by_category` their strategies by category. `train` and `eval` count
    the rows kept to learn from and those held out."""

    asked: int
    parsed: int
    repaired: int
    replies_read: float | None = None  # a run from before they were counted has none
    undecided_checks: int = 0
    copies: int
    equal: int
    accepted: int
    rejected: int
    undecided: int
    kept: int
    train: int | None = None  # a run from before they were counted apart has none
    eval: int | None = None
    reasons: dict[str, int]
    reported: dict[str, int] = {}
    simulated_teacher: bool
    simulated_judge: bool
    teacher: str
    judge: str
    distributions: dict[Set, Counts]
    by_category: dict[Set, Counts]


class Own(Seen):
    """What became of the user's own rows: `own` were given, `kept` stay, some `train`, some held
    out (`eval`). `reasons` count the others, `reported` what was found on rows that stay."""

    own: int
    kept: int
    train: int
    eval: int
    reasons: dict[str, int]
    reported: dict[str, int] = {}


class Trust(Seen):
    """How a judge did on `known_rows` rows with known answers (judging/known.py): None where it
    was not asked, no AUC where there were too few. Of its verdicts the share of right and of wrong
    answers that it accepts, of pairs the share that the order decides."""

    known_rows: int | None = None
    known_auc: float | None = None
    known_auc_low: float | None = None
    known_auc_high: float | None = None
    known_read: float | None = None
    known_accepted_own: float | None = None
    known_accepted_other: float | None = None
    known_order: float | None = None


class Member(Trust):
    """What one judge said of a scheme's samples, the share that was read, how often a row was too
    long to be asked about, or it was asked in vain, and its pay."""

    accepted: int
    rejected: int
    undecided: int
    read: float | None = None
    too_long: int = 0
    failed: int
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float


class Agreeing(Seen):
    """How far two judges agree on the `n` samples that both decide; None where there are none."""

    agreement: float | None
    kappa: float | None
    n: int


class Judging(Seen):
    """The judges of a scheme's samples, a panel where there are several; `unanimous` is the share
    of samples that all of them accept or all reject."""

    judges: int
    unanimous: float | None
    members: dict[str, Member]
    pairs: dict[str, Agreeing]


class Lengths(Seen):
    """Lengths of one field of a set's rows, in one unit; `category` is "" for all rows."""

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
    """A set's rows by kind of task, and their distance to the target; None for an empty set."""

    rows: int
    tasks: dict[str, int]
    distance: float | None


class Described(Seen):
    """One scheme's distributions before and after filtering; `target` holds shares."""

    target: dict[str, float]
    sets: dict[Literal["before", "after"], Tasks]
    lengths: list[Lengths]


class Score(Seen):
    """A harness task's accuracy and its standard error; `n` items."""

    acc: float | None = None
    acc_stderr: float | None = None
    acc_norm: float | None = None
    acc_norm_stderr: float | None = None
    n: int


class Skill(Seen):
    """Share of held-out questions answered exactly; `n` questions."""

    share: float
    n: int


class Results(Seen):
    """What the harness stage measured at one point of the chain, and what the harness warned of."""

    tasks: dict[str, Score]
    skills: dict[str, Skill]
    warnings: list[str] = []


class Agreed(Seen):
    """Two kinds of judges, `a` and `b`, on one turn: the share and number of comparisons in which
    they agree, with ties (`s1`) and among those that both decide (`s2`), each with its 95 %
    interval (None for one question)."""

    turn: Literal[1, 2]
    a: str
    b: str
    s1: float
    s1_agree: int
    s1_n: int
    s1_low: float | None
    s1_high: float | None
    s2: float | None
    s2_agree: int
    s2_n: int
    s2_low: float | None
    s2_high: float | None
    kappa: float | None


class Portion(Seen):
    """Two kinds of judges on one turn of one category (`by`), or of one pair of models."""

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
    """How the agreement study was made: our judge's `verdicts`, `which` records there are of it by
    turn and how many of them our judge has a verdict on, the models in them, the votes of every
    kind of judge, and the paper's groups that are `absent`."""

    verdicts: Literal["pairs", "single"]
    which: Literal["intersection", "all"]
    records: dict[Literal["1", "2"], int]
    judged: dict[Literal["1", "2"], int]
    models: list[str]
    votes: dict[str, int]
    absent: list[str]


class Leaning(Seen):
    """What sways a kind of judges: a share of its votes with its 95 % interval (None for one
    question), and the share of people's votes on the same."""

    judge: str
    bias: Literal["verbosity", "self_preference", "first_shown", "inconsistent"]
    share: float
    n: int
    low: float | None
    high: float | None
    people: float | None
    people_n: int


class Part(Seen):
    """A repository of a hub at one commit, with the licence that it states."""

    repository: str
    revision: str
    licence: str


class Source(Seen):
    """Where a fetch's rows (or the base model) come from; `parts` are a hub's repositories, `url`
    and `licence` a download's; `rows` used of each file, and those left out by reason.
    `stands_in_for` names the user's folder that was empty."""

    source: str
    parts: list[Part] = []
    url: str = ""
    licence: str = ""
    rows: dict[str, int] = {}
    left_out: dict[str, int] = {}
    stands_in_for: str | None = None


class Voters(Seen):
    """Whether the votes were made up by the project."""

    simulated: bool


class Once(Seen):
    """One run of a link: epochs, and evaluation loss before the first and after the last."""

    epochs: int
    eval_loss_start: float
    eval_loss_end: float


class Fitted(Seen):
    """What a link's runs (by number) came to, epochs counted through all of them. `dropped_rows`
    had no room for an answer; `truncated_share` of the others lost their end."""

    eval_loss_start: float
    eval_loss_end: float
    eval_loss_best: float
    epochs: int
    kept_epoch: int
    train_rows: int
    eval_rows: int
    dropped_rows: int
    truncated_share: float
    runs: dict[int, Once]


class Mixed(Seen):
    """The rows that a link was given to learn from, by set; replayed ones are among them."""

    sets: dict[str, int]


class Unjoinable(BaseModel):
    """Two licences that no one work can satisfy, and the rows that stand under both."""

    licences: tuple[str, str]
    rows: int


class Standing(BaseModel):
    """Under what a set stands (licences.json): its strictest licence, and what is unclear."""

    text: str
    rows: int
    unknown: int
    unjoinable: list[Unjoinable]
