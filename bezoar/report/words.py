"""How the report says things: the names of links and numbers as words, and pages from templates.

Whatever a model or a user's file said is escaped by the template (autoescape), cut to a length
that can be read, and cleared of characters that could reorder or break the page.
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
STYLE = Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
LINE = 90  # characters of a question in a list
MOST_CHARACTERS, MOST_LINES = 600, 12  # of an answer

# control characters, bidirectional overrides and lone surrogates: they hide or reorder text
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def render(file: str, **values: Any) -> str:
    """A template of this folder, filled: what is shown is escaped, and nothing may be left out."""
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
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= {"number": number, "percent": percent, "name": name, "dollars": dollars}
    environment.filters |= {"points": points, "bound": bound, "signed": signed}
    environment.filters |= {"duration": progress.duration, "size": size}
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return environment.from_string(text)


def clean(text: str) -> str:
    """Text without characters that hide or reorder what stands around them."""
    return _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n"))


def excerpt(text: str) -> tuple[str, int]:
    """(the beginning of a text that a page has room for, how many characters were cut off)."""
    text = re.sub(r"\n\s*\n+", "\n\n", text.strip())
    beginning = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    if len(beginning) < len(text) and " " in beginning[-40:]:
        beginning = beginning[: beginning.rindex(" ")]
    return beginning, len(text) - len(beginning)


def beginning(text: str) -> str:
    """The first words of a text, on one line."""
    line = " ".join(text.split())
    if len(line) <= LINE:
        return line
    return line[:LINE].rsplit(" ", 1)[0] + " …"


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


def dollars(usd: float) -> str:
    """An amount with cents; what is below a cent is told from nothing."""
    return "< $0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"


def name(key: str) -> str:
    """The display name of a scheme, link or checkpoint; its own key for one we do not know."""
    return NAMES.get(key, key)


def css(run: Run, checkpoint: str) -> str:
    """The class of a checkpoint's colour, the same in every figure; style.css has ten."""
    return f"c{run.checkpoints.index(checkpoint) % 10}"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where none is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
