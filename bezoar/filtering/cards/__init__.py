"""Cards: the README.md that a set or a checkpoint has on the Hugging Face Hub, with the front
matter that the Hub reads.

A card is written from the files of a run alone. It holds no date and no path of this machine, so
the same run writes the same bytes."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bezoar.filtering import spdx
from bezoar.rows.files import read_jsonl
from bezoar.rows.records import Contamination

PROJECT = "bezoar"
# The Hub's names for numbers of rows below each bound.
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def render(template: Path, front: Any, **values: Any) -> str:
    """Return a card: `front` (huggingface_hub's card data) as YAML, then the template filled with
    `values`. The filter `cell` keeps a text within its table cell."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; `cell` is its escape
    )
    environment.filters |= {"cell": cell, "share": share, "grade": grade}
    body = environment.from_string(template.read_text(encoding="utf-8")).render(**values)
    return f"---\n{front.to_yaml(line_break=chr(10))}\n---\n\n{body}"


def cell(value: object) -> str:
    """Put a text on one line of a Markdown table, with nothing in it read as Markdown or HTML."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def share(value: float | None) -> str:
    """Format a share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def grade(value: float | None) -> str:
    """Format a grade from 1 to 10."""
    return "–" if value is None else f"{value:.2f}"


def size(rows: int) -> str:
    """Return the Hub's category of a number of rows."""
    return next((name for bound, name in SIZES if rows < bound), "n>10M")


def licence(name: str) -> dict[str, Any]:
    """Return the front matter of a licence: its id where the Hub lists it, otherwise `other` and
    its name."""
    known_licence = spdx.find_licence(name)
    if known_licence.hub != "other":
        return {"license": known_licence.hub}
    return {"license": "other", "license_name": known_licence.name.lower()}


def licence_of_set(sheet: dict[str, Any]) -> dict[str, Any]:
    """Return the front matter of a set's licence, by its licences.json. One name for rows of known
    and of unknown licences would promise too much, so there the rows are counted."""
    unknown, rows = sheet["unknown"], sheet["rows"]
    if unknown in (0, rows):
        return licence(sheet["text"])
    counted = "; ".join(f"{name}: {number} rows" for name, number in sheet["texts"].items())
    name = f"unknown-for-{unknown}-of-{rows}-rows"
    return {"license": "other", "license_name": name, "license_details": counted}


def unjoinable(pairs: list[dict[str, Any]]) -> list[str]:
    """Describe pairs of licences of which no one work can be made."""
    return [
        " with ".join(pair["licences"])
        + (f" ({pair['rows']} rows stand under both)" if pair.get("rows") else "")
        for pair in pairs
    ]


def repositories(account: dict[str, Any]) -> list[str]:
    """Return the Hub repositories that a source.json names."""
    return [part["repository"] for part in account.get("parts", [])]


def findings(path: Path) -> dict[str, int] | None:
    """Count the items of each benchmark found in a set's rows. Return None where no search was
    made."""
    if not path.exists():
        return None
    counts = Counter(row.benchmark for row in read_jsonl(path, Contamination))
    return dict(sorted(counts.items()))
