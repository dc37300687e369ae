"""Are the prompts texts that can be sent?"""

from typing import Literal

from bezoar.params import blanks
from bezoar.preflight.findings import Finding


def findings() -> list[Finding]:
    """Look at every file of prompts/: one that cannot be sent stops, an odd one is told."""
    seen = blanks.look()
    return [
        *(_finding("stop", line) for line in seen.faults),
        *(_finding("warning", line) for line in seen.notes),
    ]


def _finding(level: Literal["stop", "warning"], line: str) -> Finding:
    place, _, rest = line.partition(": ")
    message, _, do = rest.partition("; ")
    return Finding(level, place, message, do)
