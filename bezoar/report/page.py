"""The page: what each section shows, worked out here; how it looks stands in page.html.

Whatever a model or a user's file said is escaped by the template (autoescape), cut to a length
that can be read, and cleared of characters that could reorder or break the page.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bezoar import differences, distributions, progress
from bezoar.params import PAIRS, Dpo, Further, FurtherHub, FurtherServed
from bezoar.records import Answers, Grade, Question, Spending
from bezoar.report import figures, harness, mt_bench, paper, trust
from bezoar.report.run import Curve, Funnel, Judging, Link, Run, Tasks
from bezoar.report.summary import counts, simulated, skills

NAMES = {
    "base": "Base",
    "lamini": "LaMini",
    "evol_instruct": "Evol-Instruct",
    "orca": "Orca",
    "sft": "SFT",
    "hh_rlhf": "HH-SFT",
    "dpo": "DPO",
    "redpajama": "RedPajama 3B",
    "minichat": "MiniChat-2",
    "phi_2": "Phi-2",
}
SPEAKERS = {
    "teacher": "the teacher",
    "judge": "the judge",
    "grader": "the MT-Bench grader",
    "voters": "the voters",
}
STEPS = {
    "asked": "asked for",
    "parsed": "parsed",
    "repaired": "repaired",
    "copies": "seed copies",
    "equal": "not evolved",
    "accepted": "accepted",
    "rejected": "rejected",
    "undecided": "undecided",
    "kept": "kept",
}
STATUSES = ("accepted", "rejected", "undecided")
DIMENSIONS = {
    "category": "Category",
    "strategy": "Strategy",
    "operation": "Operation",
    "iteration": "Iteration",
    "epoch": "Epoch",
    "mixture": "FLAN sub-mixture",
    "system_id": "System message, by number",
    "topic_guided": "Guided by topics",
}
NUMBERED = ("iteration", "epoch", "system_id")  # their values are numbers, shown in order
STYLE = Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
SETS: tuple[Literal["before", "after"], ...] = ("before", "after")
FIELDS = ("instruction", "context", "response")
LEARNT = 0.1  # a skill's share must move by so much between two points to be called a change
MOST_BARS = 10
MOST_CHARACTERS, MOST_LINES = 600, 12  # of an answer

# control characters, bidirectional overrides and lone surrogates: they hide or reorder text
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def page(run: Run, examples: int) -> str:
    """The whole report as one HTML document; `examples` questions with every answer at its end."""
    return rendered(
        "page.html",
        style=STYLE,
        paper=paper,
        profile=run.profile,
        base=_base(run),
        same_base=any(part.repository == paper.REPOSITORY for part in run.sources["base"].parts),
        sources=_sources(run),
        licences=run.licences,
        simulated=[SPEAKERS[who] for who, so in simulated(run).items() if so],
        glance=_glance(run),
        skills=_skills(run),
        funnels=_funnels(run),
        distributions=_distributions(run),
        judges=trust.judges(run),
        graders=trust.graders(run),
        least_auc=run.least_auc,
        panels={scheme: found for scheme, found in run.judging.items() if found.judges > 1},
        tasks=_tasks(run),
        lengths=_lengths(run),
        training=_training(run),
        dpo=_dpo(run),
        harness=_harness(run),
        mt_bench=_mt_bench(run),
        agreement=_agreement(run),
        spending=_spending(run),
        examples=_examples(run, examples),
        checkpoints=run.checkpoints,
        further=list(run.further),
        speakers=_speakers(run),
        voters_simulated=run.voters_simulated,
    )


def answers(run: Run, checkpoint: str) -> str:
    """Every MT-Bench question with what the checkpoint answered and the grader's words, and the
    answers of the other checkpoints beside it, as one HTML document."""
    others = [name for name in run.checkpoints if name != checkpoint]
    asked = [q for q in run.questions if q.question_id in run.answers[checkpoint]]
    talks = [
        {
            "question": question,
            "turns": [
                {
                    "asked": question.turns[turn],
                    "own": _said(run, checkpoint, question.question_id, turn),
                    "others": [_said(run, name, question.question_id, turn) for name in others],
                }
                for turn in (0, 1)
            ],
        }
        for question in asked
    ]
    return rendered(
        "answers.html",
        style=STYLE,
        profile=run.profile,
        checkpoint=checkpoint,
        names=run.checkpoints,
        talks=talks,
        simulated=simulated(run)["grader"],
    )


def _said(run: Run, checkpoint: str, question_id: int, turn: int) -> dict[str, Any]:
    """A checkpoint's answer to one turn, whole, and its grade with the grader's words."""
    given = run.answers[checkpoint].get(question_id)
    grade = next(
        (
            each
            for each in run.grades[checkpoint]
            if (each.question_id, each.turn) == (question_id, turn + 1)
        ),
        None,
    )
    return {
        "checkpoint": checkpoint,
        "css": _css(run, checkpoint),
        "text": given.turns[turn] if given else None,
        "cut": given is not None and given.finish[turn] == "length",
        "grade": grade,
    }


def rendered(file: str, **shown: Any) -> str:
    """A template of this folder, filled: what is shown is escaped, and nothing may be left out."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= {"number": number, "percent": percent, "name": name, "dollars": dollars}
    environment.filters |= {"points": points, "bound": bound, "signed": signed}
    environment.filters |= {"duration": progress.duration, "size": size}
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return environment.from_string(text).render(**shown)


def clean(text: str) -> str:
    """Text without characters that hide or reorder what stands around them."""
    return _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n"))


def excerpt(text: str) -> tuple[str, int]:
    """(the beginning of a text that a page has room for, how many characters were cut off)."""
    text = re.sub(r"\n\s*\n+", "\n\n", text.strip())
    shown = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    if len(shown) < len(text) and " " in shown[-40:]:
        shown = shown[: shown.rindex(" ")]
    return shown, len(text) - len(shown)


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands marked; "–" where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "−")


def size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference of two grades, with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def bound(share: float) -> str:
    """An end of a difference's interval: no decimal from ten points on. What rounds to zero keeps
    its minus, so that one sees on which side of zero it lies."""
    return f"{100 * share:.{0 if abs(share) >= 0.1 else 1}f}".replace("-", "−")


def name(key: str) -> str:
    """The display name of a scheme, link or checkpoint; its own key for one we do not know."""
    return NAMES.get(key, key)


def _css(run: Run, checkpoint: str) -> str:
    """The class of a checkpoint's colour, the same in every figure; style.css has ten."""
    return f"c{run.checkpoints.index(checkpoint) % 10}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# --- sections ------------------------------------------------------------------------------------


def _glance(run: Run) -> list[dict[str, str]]:
    """Four numbers for the page's head: what came out of the data, and first against last."""
    own = run.own(run.checkpoints)
    first, last = own[0], own[-1]
    both = f"{name(first)} and {name(last)}"
    asked = sum(f.asked for f in run.funnels.values())
    kept = sum(f.kept for f in run.funnels.values())
    told = [percent(run.dpo.metrics[key]) for key in ("accuracy_before", "accuracy")]
    measured = [harness.once(harness.tasks(run, c)).values() for c in (first, last)]
    accuracy = [percent(_mean(score.acc for score in scores)) for scores in measured]
    grades = [number(run.mt_bench[c]["average"]) for c in (first, last)]
    return [
        {"value": f"{kept:,}", "what": "rows kept for training", "more": f"of {asked:,} asked for"},
        {
            "value": " → ".join(told),
            "what": "preferences told apart, held out",
            "more": "before and after DPO",
        },
        {"value": " → ".join(accuracy), "what": "mean harness accuracy", "more": both},
        {"value": " → ".join(grades), "what": "mean MT-Bench grade, 1–10", "more": both},
    ]


def _skills(run: Run) -> dict[str, Any]:
    names = skills(run)
    rows = []
    for skill in names:
        found = [r.skills.get(skill) for r in run.results.values()]
        rows.append(
            {
                "skill": skill,
                "n": max(s.n for s in found if s),
                "shares": [s.share if s else None for s in found],
            }
        )
    changes = []
    for earlier, point in pairwise(run.own(list(run.results))):
        before, after = run.results[earlier], run.results[point]
        moved = {
            skill: after.skills[skill].share - before.skills[skill].share
            for skill in names
            if skill in before.skills and skill in after.skills
        }
        changes.append(
            {
                "point": point,
                "taught": {s: round(100 * d) for s, d in moved.items() if d >= LEARNT},
                "forgot": {s: round(-100 * d) for s, d in moved.items() if d <= -LEARNT},
            }
        )
    return {"points": list(run.results), "rows": rows, "changes": changes if names else []}


def _base(run: Run) -> str:
    """What the base model is, in words."""
    base = run.sources["base"]
    if base.parts:
        return base.parts[0].repository
    return {
        "grown": "a tiny Llama, grown here from nothing",
        "local": "the model in local/base",
    }[base.source]


def _sources(run: Run) -> list[dict[str, Any]]:
    shown = []
    for key, source in run.sources.items():
        of = {
            "world": ["the project’s own world"],
            "grown": ["grown here"],
            "local": [f"local/{key}"],
            "hub": [part.repository for part in source.parts],
            "wikipedia": [source.url],
            "harness": ["what lm_eval fetches"],
        }
        notes = [f"{part.revision[:12]} · {part.licence}" for part in source.parts]
        if source.stands_in_for:
            notes = [f"{source.stands_in_for} is empty"]
        elif source.licence:
            notes = [source.licence]
        places = of[source.source]
        shown.append(
            {
                "name": key,
                "places": [
                    (where, notes[at] if at < len(notes) else "") for at, where in enumerate(places)
                ],
                "rows": sum(source.rows.values()) if source.rows else None,
                "left_out": sum(source.left_out.values()),
                "reasons": [
                    f"{excerpt(reason)[0]}: {n:,}" for reason, n in sorted(source.left_out.items())
                ][:MOST_BARS],
            }
        )
    for key, model in run.further.items():
        place = [_place(key, model)]
        shown.append({"name": key, "places": place, "rows": None, "left_out": 0, "reasons": []})
    return shown


def _place(key: str, model: Further) -> tuple[str, str]:
    """(where a further model comes from, a note)."""
    if isinstance(model, FurtherHub):
        return model.repository, f"{model.revision[:12]} · {model.licence}"
    if isinstance(model, FurtherServed):
        return model.endpoint.model, "behind an endpoint"
    return f"local/models/{key}", ""


def _funnels(run: Run) -> list[dict[str, Any]]:
    shown = []
    for scheme, funnel in run.funnels.items():
        theirs = paper.SAMPLING.get(scheme)
        judged = sum(getattr(funnel, status) for status in STATUSES)
        ours = {s: getattr(funnel, s) / judged if judged else 0.0 for s in STATUSES}
        bars = [("ours", ours)]
        aside = {step: [percent(share, 1)] for step, share in ours.items() if judged}
        below: dict[str, dict[str, str]] = {}
        if funnel.replies_read is not None:
            below["parsed"] = {"replies read": percent(funnel.replies_read, 1)}
        if funnel.undecided_checks:
            below["equal"] = {"equality undecided": f"{funnel.undecided_checks:,}"}
        beside: dict[str, str] = {}
        if theirs:
            rest = 1 - theirs.accepted_share - theirs.undecided_share
            shares = (theirs.accepted_share, rest, theirs.undecided_share)
            bars.append(("paper", dict(zip(STATUSES, shares, strict=True))))
            beside = {status: percent(share, 1) for status, share in bars[1][1].items()}
            beside["accepted"] = f"{theirs.accepted:,} · {beside['accepted']}"
            if theirs.asked:
                beside["asked"] = f"{theirs.asked:,}"
        shown.append(
            {
                "scheme": scheme,
                "teacher": funnel.teacher,
                "judge": funnel.judge,
                "bars": bars,
                "steps": _steps(funnel, aside, below, beside),
                "reasons": _bars(funnel.reasons),
                "reported": _bars(funnel.reported),
            }
        )
    return shown


def _steps(
    funnel: Funnel,
    aside: Mapping[str, list[str]],
    below: Mapping[str, Mapping[str, str]],
    beside: Mapping[str, str],
) -> list[dict[str, str]]:
    """The rows of a funnel's table: each step's count with what stands `aside` of it, the paper's
    `beside` it, and further rows `below`."""
    rows = []
    for step, count in counts(funnel).items():
        ours = " · ".join([f"{count:,}", *aside.get(step, [])])
        rows.append({"step": STEPS[step], "ours": ours, "paper": beside.get(step, "")})
        for name, value in below.get(step, {}).items():
            rows.append({"step": name, "ours": value, "paper": ""})
    return rows


def _bars(counted: Mapping[str, int]) -> list[dict[str, Any]]:
    """The largest first, the small ones as one."""
    ranked = sorted(counted.items(), key=lambda kv: (-kv[1], kv[0]))
    most = len(ranked) if len(ranked) <= MOST_BARS else MOST_BARS - 1
    rest = ranked[most:]
    if rest:
        ranked = [*ranked[:most], (f"{len(rest)} others", sum(n for _, n in rest))]
    total, top = sum(counted.values()), max([n for _, n in ranked], default=0)
    return [
        {
            "label": excerpt(label)[0][:60] or "(none)",
            "n": n,
            "share": n / total if total else 0.0,
            "width": n / top if top else 0.0,
        }
        for label, n in ranked
    ]


def _distributions(run: Run) -> list[dict[str, Any]]:
    """What each scheme's rows are, those generated beside those kept (figures 7-9)."""
    return [
        {
            "scheme": scheme,
            "generated": sum(getattr(funnel, status) for status in STATUSES),
            "kept": funnel.kept,
            "shown": [
                {"title": title, "bars": _beside(funnel, dimension)}
                for dimension, title in DIMENSIONS.items()
                if dimension in funnel.distributions["generated"]
            ],
            "crossed": _crossed(scheme, funnel),
        }
        for scheme, funnel in run.funnels.items()
    ]


def _beside(funnel: Funnel, dimension: str) -> list[dict[str, Any]]:
    """A bar a value, the one of most rows first or in order of numbers. Of FLAN's sub-mixtures the
    paper gives the draw."""
    generated = funnel.distributions["generated"][dimension]
    kept = funnel.distributions["kept"].get(dimension, {})
    drawn = sum(paper.MIXTURES.values())
    return [
        {
            "label": label,
            "kept": kept.get(label, 0),
            "generated": count,
            "width": kept.get(label, 0) / max(generated.values()),
            "before": count / max(generated.values()),
            "paper": paper.MIXTURES[label] / drawn
            if dimension == "mixture" and label in paper.MIXTURES
            else None,
        }
        for label, count in sorted(
            generated.items(),
            key=lambda kv: (len(kv[0]), kv[0]) if dimension in NUMBERED else (-kv[1], kv[0]),
        )
    ]


STRATEGIES = {"in_depth": "accent", "in_breadth": "c2"}  # each with its CSS class


def _crossed(scheme: str, funnel: Funnel) -> dict[str, Any] | None:
    """The strategies of each category (figure 8); None of a scheme that has none."""
    generated, kept = funnel.by_category["generated"], funnel.by_category["kept"]
    if not generated:
        return None
    drawn = dict.fromkeys([*STRATEGIES, *(s for counts in generated.values() for s in counts)])
    rows = [
        figures.Stack(_words(category), _named(counts), _named(kept.get(category, {})))
        for category, counts in generated.items()
    ]
    kinds = {_words(strategy): STRATEGIES.get(strategy, "c5") for strategy in drawn}
    title = f"Strategies of {name(scheme)} by category"
    return {
        "strategies": kinds,
        "rows": rows,
        "figure": figures.stacks(f"strategies-{scheme}", title, kinds, rows),
    }


def _words(key: str) -> str:
    return clean(key.replace("_", " "))


def _named(counts: Mapping[str, int]) -> dict[str, int]:
    return {_words(key): count for key, count in counts.items()}


def _tasks(run: Run) -> list[dict[str, Any]]:
    """A chart of the kinds of task of each scheme's rows, and of all schemes' together."""
    target = next(iter(run.described.values())).target
    whole = {
        which: sum((Counter(d.sets[which].tasks) for d in run.described.values()), Counter[str]())
        for which in SETS
    }
    together = {
        which: Tasks(
            rows=counts.total(),
            tasks=dict(counts),
            distance=distributions.distance(counts, target),
        )
        for which, counts in whole.items()
    }
    charts = [(scheme, name(scheme), found.sets) for scheme, found in run.described.items()]
    return [
        {
            "title": title,
            "rows": sets["after"].rows,
            "distances": [sets[which].distance for which in SETS],
            "figure": figures.shares(
                f"tasks-{key}", f"Kinds of task: {title}", _task_bars(sets, target)
            ),
        }
        for key, title, sets in [*charts, ("together", "All schemes together", together)]
    ]


def _task_bars(
    sets: Mapping[Literal["before", "after"], Tasks], target: Mapping[str, float]
) -> list[figures.Bar]:
    """The target's largest kind first; kinds that it lacks at the end."""
    kinds = {*target, *sets["before"].tasks}
    return [
        figures.Bar(
            label=kind.replace("_", " "),
            target=target.get(kind, 0.0),
            **{w: sets[w].tasks.get(kind, 0) / max(1, sets[w].rows) for w in SETS},
        )
        for kind in sorted(kinds, key=lambda kind: (-target.get(kind, 0.0), kind))
    ]


def _lengths(run: Run) -> dict[str, Any]:
    """A chart of each scheme's tokens, and a table a unit: lines of all rows and of categories,
    each with the lengths after filtering and before."""
    charts = []
    tables: dict[str, Any] = {
        unit: {"unit": unit, "whole": [], "parts": []} for unit in ("tokens", "characters")
    }
    for scheme, found in run.described.items():
        before = {(r.category, r.field, r.unit): r for r in found.lengths if r.set == "before"}
        for row in found.lengths:
            if row.set == "after":
                line = {
                    "scheme": scheme,
                    "after": row,
                    "before": before[row.category, row.field, row.unit],
                }
                tables[row.unit]["parts" if row.category else "whole"].append(line)
        boxes = [
            figures.Box(
                row.field,
                "accent" if row.set == "after" else "quiet",
                (row.min, row.q1, row.median, row.q3, row.max),
            )
            for row in sorted(found.lengths, key=lambda row: (FIELDS.index(row.field), row.set))
            if row.unit == "tokens" and not row.category
        ]
        title = f"Tokens of {name(scheme)}’s rows"
        charts.append(
            {"scheme": scheme, "figure": figures.boxes(f"tokens-{scheme}", title, "tokens", boxes)}
        )
    return {"charts": charts, "tables": list(tables.values())}


def _training(run: Run) -> dict[str, Any]:
    """A chart of each link, the paper's Table 5 with ours, and the rows that each learnt from."""
    return {
        "sft": run.sft,
        "links": [
            {"link": key, "metrics": link.metrics, "figure": _losses(key, link)}
            for key, link in run.links.items()
        ],
        "runs": [row for key in run.links for row in _runs(key, run)],
        "rows": [_rows(key, link) for key, link in run.links.items()],
    }


def _losses(key: str, link: Link) -> Markup:
    """Both losses of a link over its epochs. A run is a line of its own: it begins at the epoch,
    not at the loss, at which the one before it ended."""

    def by_run(curve: Curve) -> list[list[tuple[float, float]]]:
        runs = groupby(curve, lambda row: row.get("run"))
        return [_points(list(rows), "epoch", "loss") for _, rows in runs]

    def named(label: str, run: int) -> str:
        return label if len(link.metrics.runs) == 1 else f"{label}, run {run}"

    taught, held = by_run(link.train), by_run(link.eval)
    return figures.lines(
        f"loss-{key}",
        f"Loss of the link {name(key)}",
        "epoch",
        "loss",
        [
            *(figures.Line(named("training", n), "quiet", run) for n, run in enumerate(taught, 1)),
            *(
                figures.Line(named("held out", n), "accent", run, dots=True)
                for n, run in enumerate(held, 1)
            ),
        ],
        marks=[(run[0][0], f"run {n}") for n, run in enumerate(held, 1) if n > 1 and run],
    )


def _runs(key: str, run: Run) -> list[dict[str, Any]]:
    """A link's rows of Table 5: runs that were made, that the paper made, and the first that was
    not made, with the reason."""
    made, amount = run.links[key].metrics.runs, run.sft.links[key]
    theirs = paper.TRAINING.get(key, ())
    missing = len(made) + 1
    diverged = missing <= amount.runs
    why = f"the losses of run {len(made)} had diverged" if diverged else "not asked for"
    last = max(len(made), len(theirs), min(missing, amount.runs))
    return [
        {
            "link": key,
            "number": number,
            "ours": made.get(number),
            "asked": amount,
            "paper": theirs[number - 1] if number <= len(theirs) else None,
            "why": why if number == missing else "",
        }
        for number in range(1, last + 1)
    ]


def _rows(key: str, link: Link) -> dict[str, Any]:
    """What a link was trained on and held to, and what of it was cut short or dropped."""
    metrics = link.metrics
    used = metrics.train_rows + metrics.eval_rows
    sets = [
        ("HH-RLHF" if path == PAIRS else name(path.rpartition("/")[2]), n, replayed)
        for given, replayed in ((link.own, False), (link.replayed, True))
        for path, n in given.items()
    ]
    return {
        "link": key,
        "metrics": metrics,
        "cut": round(metrics.truncated_share * used),
        "dropped_share": metrics.dropped_rows / max(1, metrics.dropped_rows + used),
        "sets": sets if len(sets) > 1 else [],
    }


def _points(curve: Curve, x: str, y: str) -> list[tuple[float, float]]:
    return sorted((row[x], row[y]) for row in curve if x in row and y in row)


def _dpo(run: Run) -> dict[str, Any]:
    curves = {"train": ("training", "quiet", False), "eval": ("held out", "accent", True)}
    both = {"train": run.dpo.train, "eval": run.dpo.eval}
    charts = [
        {
            "title": title,
            "figure": figures.lines(
                f"dpo-{key}",
                f"DPO: {title}",
                "step",
                title,
                [
                    figures.Line(label, css, _points(both[split], "step", key), dots)
                    for split, (label, css, dots) in curves.items()
                ],
            ),
        }
        for key, title in (("loss", "loss"), ("margin", "reward margin"), ("accuracy", "accuracy"))
    ]
    rewards = figures.lines(
        "dpo-rewards",
        "DPO: rewards of chosen and rejected answers, held out",
        "step",
        "reward",
        [
            figures.Line("chosen", "good", _points(run.dpo.eval, "step", "chosen"), dots=True),
            figures.Line("rejected", "bad", _points(run.dpo.eval, "step", "rejected"), dots=True),
        ],
    )
    return {
        "metrics": run.dpo.metrics,
        "unlike": _unlike(run.preference),
        "charts": charts,
        "rewards": rewards,
    }


def _unlike(ours: Dpo) -> list[str]:
    """In what the preference optimisation is not the paper's."""
    found = []
    if ours.loss != paper.DPO.loss:
        smoothed = f", label smoothing {ours.label_smoothing:g}" if ours.label_smoothing else ""
        found.append(f"the loss is {ours.loss}{smoothed} (there {paper.DPO.loss})")
    if ours.weights != paper.DPO.weights:
        found.append(
            f"a LoRA adapter of rank {ours.lora_r} was trained and merged (there all parameters)"
        )
    if ours.epochs != paper.DPO.epochs:
        found.append(f"there were {ours.epochs} epochs (there {paper.DPO.epochs})")
    return found


def _harness(run: Run) -> dict[str, Any]:
    rows = harness.rows(run)
    return {
        "points": harness.points(run),
        "rows": rows,
        "average": harness.average(rows),
        "warnings": dict.fromkeys(
            line for found in run.results.values() for line in found.warnings
        ),
        "shared": [row.task for row in rows if row.task in paper.HARNESS],
        "listed": sum(map(len, paper.HARNESS.values())),
        "pooled": [row.task for row in rows if row.task in paper.POOLED],
        "compared": any(cell.before for row in rows for cell in row.cells),
        "fewest": differences.FEWEST,
    }


def _mt_bench(run: Run) -> dict[str, Any]:
    category = {q.question_id: clean(q.category) for q in run.questions}
    categories = list(dict.fromkeys(category.values()))
    by_category: dict[str, list[float | None]] = {}
    spread: dict[str, list[tuple[float, float] | None]] = {}
    for checkpoint in run.checkpoints:
        scores: dict[str, list[tuple[int, float]]] = {c: [] for c in categories}
        for grade in run.grades[checkpoint]:
            if grade.question_id in category and grade.score is not None:
                scores[category[grade.question_id]].append((grade.question_id, grade.score))
        by_category[checkpoint] = [_mean(score for _, score in scores[c]) for c in categories]
        spread[checkpoint] = [differences.bootstrap(scores[c], run.seed) for c in categories]
    means = list(by_category.values())
    graded = [i for i in range(len(categories)) if any(v[i] is not None for v in means)]
    shapes = [
        figures.Shape(name(c), _css(run, c), [values[i] for i in graded])
        for c, values in by_category.items()
    ]
    moved = mt_bench.differences(run)
    return {
        "rows": [
            {
                "checkpoint": checkpoint,
                "css": _css(run, checkpoint),
                "metrics": metrics,
                "moved": next(iter(moved.get(checkpoint, {}).values()), None),
                "paper": _printed(run, checkpoint),
                "ungraded": _ungraded(run.grades[checkpoint]),
                "unreferenced": _unreferenced(run.grades[checkpoint]),
                "without": sum(g.reference == "missing" for g in run.grades[checkpoint]),
            }
            for checkpoint, metrics in run.mt_bench.items()
        ],
        "ended": [
            {"checkpoint": checkpoint, "css": _css(run, checkpoint), "counts": counts}
            for checkpoint, counts in run.ended.items()
        ],
        "checkpoints": [{"checkpoint": c, "css": _css(run, c)} for c in run.checkpoints],
        "categories": [
            {
                "category": categories[i],
                "means": [(by_category[c][i], spread[c][i]) for c in run.checkpoints],
            }
            for i in graded
        ],
        "radar": figures.radar(
            "radar", "Mean grade by category", [categories[i] for i in graded], 10, shapes
        )
        if len(graded) >= 3
        else None,
        "questions": len({g.question_id for graded in run.grades.values() for g in graded}),
        "contests": mt_bench.contests(run),
        "absent": _absent(run),
        "moved": bool(moved),
    }


def _printed(run: Run, checkpoint: str) -> paper.MtBench | None:
    """What the paper's Tables 7 and 8 give a checkpoint."""
    if checkpoint not in run.further:
        return paper.MT_BENCH.get(checkpoint)
    named = _in_table_8(checkpoint, run.further[checkpoint])
    return None if named is None else paper.MT_BENCH_OTHERS[named]


def _in_table_8(key: str, model: Further) -> str | None:
    """The name under which Table 8 has a further model, by the end of its repository's name or of
    what an endpoint calls it, or by its own key; None where it has none."""
    name = key
    if isinstance(model, FurtherHub):
        name = model.repository
    elif isinstance(model, FurtherServed):
        name = model.endpoint.model

    def plain(text: str) -> str:
        return re.sub(r"[\W_]", "", text.rpartition("/")[2].lower())

    return next((other for other in paper.MT_BENCH_OTHERS if plain(other) == plain(name)), None)


def _absent(run: Run) -> dict[str, paper.MtBench]:
    """The models of Table 8 that this run does not have."""
    have = {_in_table_8(key, model) for key, model in run.further.items()}
    return {name: grades for name, grades in paper.MT_BENCH_OTHERS.items() if name not in have}


def _ungraded(grades: Sequence[Grade]) -> dict[str, int]:
    found = sorted(g.status for g in grades if g.status != "ok")
    return {status.replace("_", " "): found.count(status) for status in dict.fromkeys(found)}


def _unreferenced(grades: Sequence[Grade]) -> list[int]:
    """The questions of which a turn was graded without the reference it should have had."""
    return sorted({grade.question_id for grade in grades if grade.reference == "missing"})


BIASES = {
    "verbosity": "for the longer answer",
    "self_preference": "for its own model",
    "first_shown": "for the one shown first",
    "inconsistent": "another one, shown in the other order",
}


def _agreement(run: Run) -> dict[str, Any]:
    """A row a turn and two kinds of judges. The paper's shares and votes stand beside those of our
    judge where it compared pairs too."""
    rows = []
    for agreed in run.agreed:
        ours = agreed.a == "grader" and run.study.verdicts == "pairs"
        shares = paper.AGREEMENT[agreed.turn].get(agreed.b) if ours else None
        votes = paper.AGREEING[agreed.turn].get(agreed.b) if ours else None
        rows.append({"agreed": agreed, "paper": shares, "agreeing": votes})
    leanings = [{"of": leaning, "words": BIASES[leaning.bias]} for leaning in run.leanings]
    return {
        "rows": rows,
        "study": run.study,
        "beside": any(row["paper"] for row in rows),
        "portions": _portions(run),
        "leanings": leanings,
    }


def _portions(run: Run) -> list[dict[str, Any]]:
    """A table by category and one by pair of models: a row each, a column for two kinds of judges
    and a turn."""
    tables = []
    for by in ("category", "models"):
        found = [portion for portion in run.portions if portion.by == by]
        columns = sorted({(p.turn, p.a, p.b) for p in found}, key=_as_in(run))
        cells = {(p.of, p.turn, p.a, p.b): p for p in found}
        rows = [
            {"of": of, "cells": [cells.get((of, *column)) for column in columns]}
            for of in dict.fromkeys(p.of for p in found)
        ]
        tables += [{"by": by, "columns": columns, "rows": rows}] if rows else []
    return tables


def _as_in(run: Run) -> Callable[[tuple[int, str, str]], int]:
    """The place of two kinds of judges and a turn in the table of agreement."""
    places: dict[tuple[int, str, str], int] = {
        (of.turn, of.a, of.b): at for at, of in enumerate(run.agreed)
    }
    return lambda column: places.get(column, len(places))


def _spending(run: Run) -> dict[str, Any]:
    """A row for each model that a stage instance bought answers of, and what each cost in all."""
    bought = [
        (stage, instance, spent)
        for stage, instances in run.spending.items()
        for instance, whole in instances.items()
        for spent in (_members(run.judging[instance]) if stage == "judge" else []) or [whole]
        if spent.calls
    ]
    sums = []
    for model in sorted({spent.model for _, _, spent in bought}):
        its = [spent for _, _, spent in bought if spent.model == model]
        sums.append(
            Spending(
                model=model,
                calls=sum(spent.calls for spent in its),
                tokens_in=sum(spent.tokens_in for spent in its),
                tokens_out=sum(spent.tokens_out for spent in its),
                usd=math.fsum(spent.usd for spent in its),
            )
        )
    rows = [
        {"stage": stage, "instance": "" if instance == stage else instance, "spent": spent}
        for stage, instance, spent in bought
    ]
    return {"rows": rows, "models": sums, "usd": math.fsum(spent.usd for spent in sums)}


def _members(judging: Judging) -> list[Spending]:
    """What each member of a panel was paid; [] for one judge, whose pay is the stage's."""
    if judging.judges == 1:
        return []
    paid = {"calls", "tokens_in", "tokens_out", "usd"}
    return [Spending(model=who, **m.model_dump(include=paid)) for who, m in judging.members.items()]


def dollars(usd: float) -> str:
    """An amount with cents; what is below a cent is told from nothing."""
    return "< $0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"


def _examples(run: Run, wanted: int) -> list[dict[str, Any]]:
    """Questions that every checkpoint answered, one from each of evenly spread categories."""
    answered = [q for q in run.questions if all(q.question_id in a for a in run.answers.values())]
    rounds: dict[str, list[Question]] = {}
    for question in answered:
        rounds.setdefault(question.category, []).append(question)
    depth = max(map(len, rounds.values()), default=0)
    first = list(rounds.values())
    wanted = min(wanted, len(answered))
    if wanted <= len(first):
        chosen = [first[i * len(first) // wanted][0] for i in range(wanted)]
    else:
        queue = [same[i] for i in range(depth) for same in first if i < len(same)]
        chosen = sorted(queue[:wanted], key=answered.index)
    scores: dict[tuple[str, int, int], float | None] = {
        (checkpoint, grade.question_id, grade.turn): grade.score
        for checkpoint, grades in run.grades.items()
        for grade in grades
    }
    return [
        {
            "category": question.category,
            "turns": [
                {
                    "question": excerpt(asked),
                    "answers": [
                        {
                            "checkpoint": checkpoint,
                            "css": _css(run, checkpoint),
                            "score": scores.get((checkpoint, question.question_id, turn)),
                            **_answer(answers[question.question_id], turn),
                        }
                        for checkpoint, answers in run.answers.items()
                    ],
                }
                for turn, asked in enumerate(question.turns, 1)
            ],
        }
        for question in chosen
    ]


def _answer(answers: Answers, turn: int) -> dict[str, Any]:
    if turn > len(answers.turns):
        return {"text": "", "cut": 0, "finish": "no answer"}
    text, cut = excerpt(answers.turns[turn - 1])
    told = {"stop": "", "length": "stopped by the token limit", "no_room": "no room left to answer"}
    return {"text": text, "cut": cut, "finish": told[answers.finish[turn - 1]]}


def _speakers(run: Run) -> dict[str, list[str]]:
    """The names of those who taught, judged and graded."""
    return {
        "teacher": sorted({f.teacher for f in run.funnels.values()}),
        "judge": sorted({f.judge for f in run.funnels.values()}),
        "grader": sorted({g.judge for grades in run.grades.values() for g in grades}),
    }
