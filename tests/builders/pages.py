"""The pages of the project, their blocks, and what a block adds to params.yaml."""

import re
from typing import Any

from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    ROOT / "local/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def joined(into: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """A mapping with what a page tells to write into it; one that says where things come from
    replaces what stood there."""
    whole = {key for key, value in told.items() if {"source", "provider"} & {*_keys(value)}}
    return into | {
        key: joined(into[key], value)
        if isinstance(value, dict) and isinstance(into.get(key), dict) and key not in whole
        else value
        for key, value in told.items()
    }


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()
