"""Words of the report: display names, numbers as text, and pages filled from templates.

A text of a model or of a user's file is escaped by the template (autoescape) and cut to a length
that can be read. Characters that could reorder or break the page are taken out of it.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from bezoar.report.run import Run
from bezoar.work import progress

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
# Markup is not escaped: the style sheet is this project's own.
STYLE = Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
# The most characters of a question in a list.
LINE = 90
# The most characters and lines of an answer in the report; pages of their own have all of it.
MOST_CHARACTERS, MOST_LINES = 600, 12

# Control characters, bidirectional overrides and lone surrogates: they hide or reorder text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def render(file: str, **values: Any) -> str:
    """Return the template `file` of this folder, filled with `values`. They are escaped, and each
    that the template uses must be there."""
    return _template(file).render(**values)


@cache
def _template(file: str) -> Template:
    """Compile a template, which takes longer than filling it."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # `type is`, for a chart is Markup, a subclass of str that stays as it was drawn
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= {"number": number, "percent": percent, "name": name, "dollars": dollars}
    environment.filters |= {"points": points, "bound": bound, "signed": signed}
    environment.filters |= {"duration": progress.duration, "size": size}
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return environment.from_string(text)


def clean(text: str) -> str:
    """Return the text with U+FFFD in place of characters that hide or reorder what is around
    them."""
    return _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n"))


def excerpt(text: str) -> tuple[str, int]:
    """Return the beginning of a text that a page has room for, and the number of characters cut
    off."""
    text = re.sub(r"\n\s*\n+", "\n\n", text.strip())
    beginning = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    # cut between two words, if a blank is near the end
    if len(beginning) < len(text) and " " in beginning[-40:]:
        beginning = beginning[: beginning.rindex(" ")]
    return beginning, len(text) - len(beginning)


def beginning(text: str) -> str:
    """Return the first words of a text, on one line."""
    line = " ".join(text.split())
    if len(line) <= LINE:
        return line
    return line[:LINE].rsplit(" ", 1)[0] + " …"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with thousands marked, and "–" for None. An integer has no digits behind the
    point."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "−")


def size(count: int) -> str:
    """Return a count of bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as a percentage, and "–" for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a difference of two grades, with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def bound(share: float) -> str:
    """Return an end of a difference's interval in percentage points, without a decimal from ten
    points on. A number that rounds to zero keeps its minus, to show on which side of zero it
    lies."""
    return f"{100 * share:.{0 if abs(share) >= 0.1 else 1}f}".replace("-", "−")


def dollars(usd: float) -> str:
    """Return an amount with cents. An amount below one cent is "< $0.01", so as not to look like
    nothing."""
    return "< $0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"


def name(key: str) -> str:
    """Return the display name of a scheme, link or checkpoint: its key where NAMES has none."""
    return NAMES.get(key, key)


def css(run: Run, checkpoint: str) -> str:
    """Return the CSS class of a checkpoint's colour, the same in every figure."""
    # style.css has ten colours
    return f"c{run.checkpoints.index(checkpoint) % 10}"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None. None where all are."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
