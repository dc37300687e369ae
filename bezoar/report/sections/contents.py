"""The contents of the rows: categories, kinds of task, lengths."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from bezoar.filtering import distributions as measures
from bezoar.report import figures, paper, words
from bezoar.report.run import Run
from bezoar.report.sections.funnels import STATUSES
from bezoar.report.seen import Funnel, Tasks

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
# The dimensions whose values are numbers, which are shown in their order.
NUMBERED = ("iteration", "epoch", "system_id")
SETS: tuple[Literal["before", "after"], ...] = ("before", "after")
FIELDS = ("instruction", "context", "response")
# Evol-Instruct's strategies, each with its CSS class.
STRATEGIES = {"in_depth": "accent", "in_breadth": "c2"}


def distributions(run: Run) -> list[dict[str, Any]]:
    """Return the contents of each scheme's rows, those generated beside those kept (the paper's
    figures 7-9)."""
    return [
        {
            "scheme": scheme,
            "generated": sum(getattr(funnel, status) for status in STATUSES),
            "kept": funnel.kept,
            "shown": [
                {"title": title, "bars": _bars(funnel, dimension)}
                for dimension, title in DIMENSIONS.items()
                if dimension in funnel.distributions["generated"]
            ],
            "crossed": _strategies(scheme, funnel),
        }
        for scheme, funnel in run.funnels.items()
    ]


def _bars(funnel: Funnel, dimension: str) -> list[dict[str, Any]]:
    """Return a bar for each value of a dimension, the one of most rows first, or in order of
    numbers. FLAN's sub-mixtures have the paper's share beside them."""
    generated = funnel.distributions["generated"][dimension]
    kept_counts = funnel.distributions["kept"].get(dimension, {})
    paper_total = sum(paper.MIXTURES.values())
    return [
        {
            "label": label,
            "kept": kept_counts.get(label, 0),
            "generated": count,
            "width": kept_counts.get(label, 0) / max(generated.values()),
            "before": count / max(generated.values()),
            "paper": paper.MIXTURES[label] / paper_total
            if dimension == "mixture" and label in paper.MIXTURES
            else None,
        }
        for label, count in sorted(
            generated.items(),
            # a shorter number is a smaller one: 9 stands before 10, though both are text
            key=lambda kv: (len(kv[0]), kv[0]) if dimension in NUMBERED else (-kv[1], kv[0]),
        )
    ]


def _strategies(scheme: str, funnel: Funnel) -> dict[str, Any] | None:
    """Return the strategies of each category (the paper's figure 8). None for a scheme without
    categories and strategies."""
    generated_counts, kept_counts = funnel.by_category["generated"], funnel.by_category["kept"]
    if not generated_counts:
        return None
    strategies = dict.fromkeys(
        [*STRATEGIES, *(s for counts in generated_counts.values() for s in counts)]
    )
    rows = [
        figures.Stack(
            _plain(category), _plain_counts(counts), _plain_counts(kept_counts.get(category, {}))
        )
        for category, counts in generated_counts.items()
    ]
    kinds = {_plain(strategy): STRATEGIES.get(strategy, "c5") for strategy in strategies}
    title = f"Strategies of {words.name(scheme)} by category"
    return {
        "strategies": kinds,
        "rows": rows,
        "figure": figures.stacks(f"strategies-{scheme}", title, kinds, rows),
    }


def _plain(key: str) -> str:
    return words.clean(key.replace("_", " "))


def _plain_counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {_plain(key): count for key, count in counts.items()}


def tasks(run: Run) -> list[dict[str, Any]]:
    """Return a chart of the kinds of task of each scheme's rows, and of all schemes' together."""
    if not run.described:
        return []
    # all schemes are filtered to the same target, a parameter of the run
    target = next(iter(run.described.values())).target
    totals = {
        side: sum((Counter(d.sets[side].tasks) for d in run.described.values()), Counter[str]())
        for side in SETS
    }
    together = {
        side: Tasks(
            rows=counts.total(),
            tasks=dict(counts),
            distance=measures.distance(counts, target),
        )
        for side, counts in totals.items()
    }
    charts = [
        (scheme, words.name(scheme), described.sets) for scheme, described in run.described.items()
    ]
    return [
        {
            "title": title,
            "rows": sets["after"].rows,
            "distances": [sets[side].distance for side in SETS],
            "figure": figures.shares(
                f"tasks-{key}", f"Kinds of task: {title}", _task_bars(sets, target)
            ),
        }
        for key, title, sets in [*charts, ("together", "All schemes together", together)]
    ]


def _task_bars(
    sets: Mapping[Literal["before", "after"], Tasks], target: Mapping[str, float]
) -> list[figures.Bar]:
    """Return a bar for each kind of task, the target's largest first. Kinds that the target lacks
    stand at the end."""
    kinds = {*target, *sets["before"].tasks}
    return [
        figures.Bar(
            label=kind.replace("_", " "),
            target=target.get(kind, 0.0),
            **{side: sets[side].tasks.get(kind, 0) / max(1, sets[side].rows) for side in SETS},
        )
        for kind in sorted(kinds, key=lambda kind: (-target.get(kind, 0.0), kind))
    ]


def lengths(run: Run) -> dict[str, Any]:
    """Return a chart of each scheme's tokens, and a table for each unit. A table has lines of all
    rows and lines of categories, each with the lengths after filtering and before."""
    charts = []
    tables: dict[str, Any] = {
        unit: {"unit": unit, "whole": [], "parts": []} for unit in ("tokens", "characters")
    }
    for scheme, described in run.described.items():
        before = {(r.category, r.field, r.unit): r for r in described.lengths if r.set == "before"}
        for row in described.lengths:
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
            for row in sorted(described.lengths, key=lambda row: (FIELDS.index(row.field), row.set))
            if row.unit == "tokens" and not row.category
        ]
        title = f"Tokens of {words.name(scheme)}’s rows"
        charts.append(
            {"scheme": scheme, "figure": figures.boxes(f"tokens-{scheme}", title, "tokens", boxes)}
        )
    return {"charts": charts, "tables": list(tables.values())}
