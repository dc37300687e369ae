"""One run as the report sees it: the files of the stages before, read and checked."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from bezoar.params import Dpo, Further, FurtherServed, Params, Sft
from bezoar.report import stand_ins
from bezoar.report.seen import (
    Agreed,
    Described,
    Fitted,
    Funnel,
    Judging,
    Leaning,
    Mixed,
    Own,
    Portion,
    Results,
    Source,
    Standing,
    Study,
    Voters,
)
from bezoar.rows.files import BadInput, read_json, read_jsonl
from bezoar.rows.records import Answers, Grade, Question, Rejected, Scored, Spending

SOURCES = ("base", "dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks")

Metrics = dict[str, int | float | None]
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Contest:
    """The metrics of one comparison, in which the grader sees the answers of a checkpoint and of a
    baseline."""

    model: str
    baseline: str
    metrics: Metrics


@dataclass(frozen=True)
class Training:
    """DPO: its flat metrics, and its curves as rows of numbers."""

    metrics: Metrics
    train: Curve
    eval: Curve


@dataclass(frozen=True)
class Link:
    """A link's training: its numbers, its rows and its curves."""

    metrics: Fitted
    # rows to learn from by set: the link's own sets, and the sets of earlier links
    own: dict[str, int]
    replayed: dict[str, int]
    # curves through all runs of the link; each row names its run
    train: Curve
    eval: Curve


@dataclass(frozen=True)
class Run:
    """Everything that the report shows. Dicts keep the order of the recipe."""

    profile: str
    sources: dict[str, Source]
    funnels: dict[str, Funnel]
    # the user's own rows, by their source
    own_sets: dict[str, Own]
    # the rows that filter dropped as copies of a seed, by scheme
    copies: dict[str, list[Rejected]]
    described: dict[str, Described]
    licences: dict[str, Standing]
    judging: dict[str, Judging]
    # the parameters that the links were trained by
    sft: Sft
    links: dict[str, Link]
    # the parameters that DPO was trained by, and its training: None where nothing was aligned
    preference: Dpo
    dpo: Training | None
    # the harness' scores by point, and its items by point and task
    results: dict[str, Results]
    scored: dict[str, dict[str, list[Scored]]]
    # the checkpoints that answer MT-Bench
    checkpoints: list[str]
    # those, and the checkpoints that the harness looked at beside the links
    measured: list[str]
    # whole weights that neither looks at
    unmeasured: list[str]
    # a sentence for each thing that was invented
    stand_ins: list[str]
    # the models that the recipe did not make, under the names that `results` and `checkpoints` use
    further: dict[str, Further]
    questions: list[Question]
    voters_simulated: bool
    # by checkpoint and number of the question
    answers: dict[str, dict[int, Answers]]
    # counts of the ways in which a checkpoint's answers ended
    ended: dict[str, Metrics]
    grades: dict[str, list[Grade]]
    mt_bench: dict[str, Metrics]
    # the seed of the bootstrap over grades
    seed: int
    # the AUC below which a judge is worth little
    least_auc: float | None
    contests: dict[str, Contest]
    agreement: Metrics
    agreed: list[Agreed]
    study: Study
    portions: list[Portion]
    leanings: list[Leaning]
    spending: dict[str, dict[str, Spending]]

    def without_further(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that the recipe made."""
        return [name for name in names if name not in self.further]

    def shares(self, data: str) -> dict[str, float]:
        """Return link -> the share of its rows that are of the set `data` (a path below data/).
        Links that saw none of them are left out."""
        shares = {}
        for name, link in self.links.items():
            rows = link.own.get(data, 0) + link.replayed.get(data, 0)
            if rows:
                shares[name] = rows / sum([*link.own.values(), *link.replayed.values()])
        return shares

    def compared_with(self, names: Sequence[str]) -> dict[str, str]:
        """Return the checkpoint that each of `names` is compared with: for ours the one before,
        for a further model our last. Our first is compared with none."""
        ours = self.without_further(names)
        others = {name: ours[-1] for name in names if ours and name in self.further}
        # ours from the second on, each with the one before: one of the two lists is longer by one
        return dict(zip(ours[1:], ours, strict=False)) | others


def read(params: Params) -> Run:
    """Return the run in the current folder. BadInput names a file that is missing or broken."""
    schemes = list(params.schemes.by_name)
    checkpoints = list(params.checkpoints)
    mt_bench = "data/fetch/mt_bench"
    return Run(
        profile=params.profile,
        # of all that is fetched only the base is a model
        sources={
            name: _json(
                f"{'models' if name == 'base' else 'data'}/fetch/{name}/source.json", Source
            )
            for name in SOURCES
            if name in ("base", *params.sources)
        },
        funnels={s: _json(f"data/filter/{s}/funnel.json", Funnel) for s in schemes},
        own_sets={s: _json(f"data/filter/{s}/funnel.json", Own) for s in params.own},
        copies={s: _copies(f"data/filter/{s}/rejected.jsonl") for s in schemes},
        described={s: _json(f"data/filter/{s}/distributions.json", Described) for s in schemes},
        licences={
            s: _json(f"data/filter/{s}/licences.json", Standing) for s in [*schemes, *params.own]
        },
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
                [
                    *checkpoints,
                    *(n for n, checkpoint in params.evaluated.items() if not checkpoint.link),
                ]
            )
        ),
        unmeasured=[*params.unmeasured],
        stand_ins=stand_ins.sentences(params),
        further={
            name: model
            for looked_at in (params.evaluated, params.checkpoints)
            for name, checkpoint in looked_at.items()
            if (model := params.further(checkpoint)) is not None
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
        # a file of another version may have many errors, and the first is enough to act on
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"])) or "file"
        raise BadInput(
            f"{path}: {location}: {first['msg'].lower()}; `dvc repro -f` of the stage that writes "
            "it makes it anew"
        ) from None


def _metrics(path: str) -> Metrics:
    return _json(path, Metrics)


def _spending(name: str) -> Spending:
    return _json(f"metrics/{name}.json", Spending)


def _link(name: str, sets: list[str]) -> Link:
    """Return the link `name`, whose own sets are `sets`. Its other rows are replayed ones."""
    rows = _json(f"metrics/mix/{name}.json", Mixed).sets
    return Link(
        _json(f"metrics/sft/{name}.json", Fitted),
        {path: rows[path] for path in sets if path in rows},
        {path: n for path, n in rows.items() if path not in sets},
        *_curves(f"metrics/sft/{name}_"),
    )


def _copies(path: str) -> list[Rejected]:
    return [row for row in read_jsonl(path, Rejected) if row.reason == "copy"]


def _scored(path: str) -> dict[str, list[Scored]]:
    by_task: dict[str, list[Scored]] = {}
    for row in read_jsonl(path, Scored):
        by_task.setdefault(row.task, []).append(row)
    return by_task


def _curves(name: str) -> tuple[Curve, Curve]:
    return _curve(f"{name}train.csv"), _curve(f"{name}eval.csv")


def _curve(path: str) -> Curve:
    """Return the rows of a CSV as numbers. A cell that is empty or not finite is left out of its
    row. BadInput: there is no such file."""
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
