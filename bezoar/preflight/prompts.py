"""The check that the prompts are texts that can be sent."""

from typing import Literal

from bezoar.params import blanks
from bezoar.preflight.findings import Finding


def findings() -> list[Finding]:
    """Look at every file of prompts/. One that cannot be sent is a stop, an odd one a warning."""
    seen = blanks.look()
    return [
        *(_finding("stop", line) for line in seen.faults),
        *(_finding("warning", line) for line in seen.notes),
    ]


def _finding(level: Literal["stop", "warning"], line: str) -> Finding:
    place, _, rest = line.partition(": ")
    message, _, do = rest.partition("; ")
    return Finding(level, place, message, do)
