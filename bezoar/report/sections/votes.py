"""The judge's agreement with the votes of others, and its biases."""

from collections.abc import Callable
from typing import Any

from bezoar.report import paper
from bezoar.report.run import Run

BIASES = {
    "verbosity": "for the longer answer",
    "self_preference": "for its own model",
    "first_shown": "for the one shown first",
    "inconsistent": "another one, shown in the other order",
}


def agreement(run: Run) -> dict[str, Any]:
    """Return a row for each turn and two kinds of judges. The paper's shares and votes stand beside
    those of our judge where it compared pairs too."""
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
    """Return a table by category and one by pair of models. Each has a column for two kinds of
    judges and a turn."""
    tables = []
    for by in ("category", "models"):
        portions = [portion for portion in run.portions if portion.by == by]
        columns = sorted({(p.turn, p.a, p.b) for p in portions}, key=_column_order(run))
        cells = {(p.of, p.turn, p.a, p.b): p for p in portions}
        rows = [
            {"of": group, "cells": [cells.get((group, *column)) for column in columns]}
            for group in dict.fromkeys(p.of for p in portions)
        ]
        tables += [{"by": by, "columns": columns, "rows": rows}] if rows else []
    return tables


def _column_order(run: Run) -> Callable[[tuple[int, str, str]], int]:
    """Return the sort key of a column (turn, a, b): its place in the table of agreement."""
    places: dict[tuple[int, str, str], int] = {
        (pair.turn, pair.a, pair.b): index for index, pair in enumerate(run.agreed)
    }
    return lambda column: places.get(column, len(places))
