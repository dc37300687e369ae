"""One run as the report sees it: what the stages before wrote, read and checked."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bezoar.files import BadInput, read_json, read_jsonl
from bezoar.params import Dpo, Further, FurtherServed, Params, Sft
from bezoar.records import Answers, Grade, Question, Scored, Spending
from bezoar.report import stand_ins

SOURCES = ("base", "dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks")

Metrics = dict[str, int | float | None]
Curve = list[dict[str, float]]


class Seen(BaseModel):
    """What the report reads of a JSON file; keys that it does not show are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Set = Literal["generated", "kept"]
Counts = dict[str, dict[str, int]]


class Funnel(Seen):
    """What became of one scheme's instructions. `reasons` count rows that were dropped, `reported`
    what was found on rows that stay. `distributions` count the rows generated and the rows kept by
    what they are, `by_category` their strategies by category."""

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
    reasons: dict[str, int]
    reported: dict[str, int] = {}
    simulated_teacher: bool
    simulated_judge: bool
    teacher: str
    judge: str
    distributions: dict[Set, Counts]
    by_category: dict[Set, Counts]


class Trust(Seen):
    """How a judge did on `known_rows` rows whose answers are known (bezoar/known.py): None where it
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

    source: Literal["world", "grown", "local", "hub", "wikipedia", "harness"]
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


@dataclass(frozen=True)
class Contest:
    """How often the grader calls a checkpoint better than a baseline."""

    model: str
    baseline: str
    metrics: Metrics


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


@dataclass(frozen=True)
class Training:
    """DPO: its flat metrics and its curves, a dict of numbers a row."""

    metrics: Metrics
    train: Curve
    eval: Curve


@dataclass(frozen=True)
class Link:
    """A link's training: numbers, rows by set (`own` without those replayed), curves through all
    its runs, whose rows say which run they are of."""

    metrics: Fitted
    own: dict[str, int]
    replayed: dict[str, int]
    train: Curve
    eval: Curve


@dataclass(frozen=True)
class Run:
    """Everything that the report shows. Dicts keep the order of params.yaml. `sft` and `preference`
    are the parameters that `links` and `dpo` were trained by; `dpo` is None where nothing was
    aligned. `scored` has the harness' items by task. `checkpoints` answer MT-Bench; `measured` are
    those, and what the harness looked at beside the links. `stand_ins` says in a sentence each what
    was invented. `seed` is the bootstrap's over grades, `least_auc` the line below which a judge is
    worth little. `further` are the models that the recipe did not make, by the names under which
    `results` and `checkpoints` have them."""

    profile: str
    sources: dict[str, Source]
    funnels: dict[str, Funnel]
    described: dict[str, Described]
    licences: dict[str, Standing]
    judging: dict[str, Judging]
    sft: Sft
    links: dict[str, Link]
    preference: Dpo
    dpo: Training | None
    results: dict[str, Results]
    scored: dict[str, dict[str, list[Scored]]]
    checkpoints: list[str]
    measured: list[str]
    stand_ins: list[str]
    further: dict[str, Further]
    questions: list[Question]
    voters_simulated: bool
    answers: dict[str, dict[int, Answers]]
    ended: dict[str, Metrics]
    grades: dict[str, list[Grade]]
    mt_bench: dict[str, Metrics]
    seed: int
    least_auc: float | None
    contests: dict[str, Contest]
    agreement: Metrics
    agreed: list[Agreed]
    study: Study
    portions: list[Portion]
    leanings: list[Leaning]
    spending: dict[str, dict[str, Spending]]

    def own(self, named: Sequence[str]) -> list[str]:
        """Those of `named` that the recipe made."""
        return [name for name in named if name not in self.further]

    def beside(self, named: Sequence[str]) -> dict[str, str]:
        """What each of `named` is compared with: our checkpoints with the one before, a further
        model with our last."""
        own = self.own(named)
        others = {name: own[-1] for name in named if own and name in self.further}
        return dict(zip(own[1:], own, strict=False)) | others


def read(params: Params) -> Run:
    """The run in the current folder; BadInput names a file that is missing or broken."""
    schemes = list(params.schemes.named)
    checkpoints = list(params.checkpoints)
    mt_bench = "data/fetch/mt_bench"
    return Run(
        profile=params.profile,
        sources={
            name: _json(
                f"{'models' if name == 'base' else 'data'}/fetch/{name}/source.json", Source
            )
            for name in SOURCES
            if name in ("base", *params.sources)
        },
        funnels={s: _json(f"data/filter/{s}/funnel.json", Funnel) for s in schemes},
        described={s: _json(f"data/filter/{s}/distributions.json", Described) for s in schemes},
        licences={s: _json(f"data/filter/{s}/licences.json", Standing) for s in schemes},
        judging={s: _json(f"metrics/judge/{s}.json", Judging) for s in schemes},
        sft=params.sft,
        links={name: _link(name, link.sets) for name, link in params.chain.items()},
        preference=params.dpo,
        dpo=Training(_metrics("metrics/dpo/dpo.json"), *_curves("metrics/dpo/"))
        if params.aligned
        else None,
        results={p: _json(f"data/lm_eval/{p}/results.json", Results) for p in params.evaluated},
        scored={p: _scored(f"data/lm_eval/{p}/items.jsonl") for p in params.evaluated},
        checkpoints=checkpoints,
        measured=list(
            dict.fromkeys(
                [*checkpoints, *(n for n, each in params.evaluated.items() if not each.link)]
            )
        ),
        stand_ins=stand_ins.sentences(params),
        further={
            name: model
            for looked_at in (params.evaluated, params.checkpoints)
            for name, each in looked_at.items()
            if (model := params.further(each)) is not None
        },
        questions=list(read_jsonl(f"{mt_bench}/questions.jsonl", Question)),
        voters_simulated=bool(checkpoints) and _json(f"{mt_bench}/votes.json", Voters).simulated,
        answers={
            c: {a.question_id: a for a in read_jsonl(f"data/mt_answer/{c}/answers.jsonl", Answers)}
            for c in checkpoints
        },
        ended={c: _metrics(f"metrics/mt_answer/{c}.json") for c in checkpoints},
        grades={c: list(read_jsonl(f"data/mt_grade/{c}/grades.jsonl", Grade)) for c in checkpoints},
        mt_bench={c: _metrics(f"metrics/mt_grade/{c}.json") for c in checkpoints},
        seed=params.mt_grade.seed,
        least_auc=params.known.least_auc if params.known else None,
        contests={
            name: Contest(c.model, c.baseline, _metrics(f"metrics/mt_compare/{name}.json"))
            for name, c in params.compared.items()
        },
        agreement=_metrics("metrics/agreement/agreement.json"),
        agreed=_json("data/agreement/table.json", list[Agreed]),
        study=_json("data/agreement/study.json", Study),
        portions=_json("data/agreement/breakdown.json", list[Portion]),
        leanings=_json("data/agreement/biases.json", list[Leaning]),
        spending={
            "generate": {s: _spending(f"generate/{s}_spending") for s in schemes},
            "judge": {s: _spending(f"judge/{s}_spending") for s in schemes},
            "mt_answer": {
                c: _json(f"data/mt_answer/{c}/spending.json", Spending)
                for c, checkpoint in params.checkpoints.items()
                if isinstance(params.further(checkpoint), FurtherServed)
            },
            "mt_grade": {c: _spending(f"mt_grade/{c}_spending") for c in checkpoints},
            "mt_compare": {n: _spending(f"mt_compare/{n}_spending") for n in params.compared},
            "agreement": {"agreement": _spending("agreement/spending")},
        },
    )


T = TypeVar("T")


def _json(path: str, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise BadInput(
            f"{path}: {where}: {first['msg'].lower()}; `dvc repro -f` of the stage that writes it "
            "makes it anew"
        ) from None


def _metrics(path: str) -> Metrics:
    return _json(path, Metrics)


def _spending(name: str) -> Spending:
    return _json(f"metrics/{name}.json", Spending)


def _link(name: str, own: list[str]) -> Link:
    """The link `name`, whose sets are `own`; its other rows are replayed ones."""
    rows = _json(f"metrics/mix/{name}.json", Mixed).sets
    return Link(
        _json(f"metrics/sft/{name}.json", Fitted),
        {path: rows[path] for path in own if path in rows},
        {path: n for path, n in rows.items() if path not in own},
        *_curves(f"metrics/sft/{name}_"),
    )


def _scored(path: str) -> dict[str, list[Scored]]:
    by_task: dict[str, list[Scored]] = {}
    for row in read_jsonl(path, Scored):
        by_task.setdefault(row.task, []).append(row)
    return by_task


def _curves(name: str) -> tuple[Curve, Curve]:
    return _curve(f"{name}train.csv"), _curve(f"{name}eval.csv")


def _curve(path: str) -> Curve:
    """Rows of a CSV as numbers; a cell that is empty or not finite is left out of its row."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return [
                {key: float(cell) for key, cell in row.items() if _finite(cell)}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; the stage before writes it") from None


def _finite(cell: str | None) -> bool:
    try:
        return math.isfinite(float(cell or "nan"))
    except ValueError:
        return False
