"""Prompts are text files under prompts/; `$name` is a blank to fill, `$$` a dollar sign."""

import re
from functools import cache, cached_property
from pathlib import Path
from string import Template

from bezoar.files import BadInput

ROOT = Path(__file__).parent.parent / "prompts"

# Characters that make a marker, and look-alikes that a reader takes for them and a parser does not.
_FENCED = str.maketrans("<>[]#:", "‹›⟦⟧＃：")


class Prompt:
    """`Prompt("lamini/answer").fill(instruction="...")`; the file is read on first use."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def template(self) -> Template:
        path = ROOT / f"{self.name}.txt"
        try:
            return Template(path.read_text(encoding="utf-8").strip("\n"))
        except FileNotFoundError:
            raise BadInput(f"prompts/{self.name}.txt: there is no such prompt file") from None

    @property
    def blanks(self) -> set[str]:
        """Names of the blanks that the file holds."""
        return set(self.template.get_identifiers())

    def fill(self, **values: str) -> str:
        """The prompt with its blanks filled; BadInput where names and values do not match."""
        if self.blanks != values.keys():
            raise BadInput(
                f"prompts/{self.name}.txt: has the blanks {sorted(self.blanks)}; "
                f"{sorted(values)} are what the code fills"
            )
        return self.template.substitute(values)


def fence(text: str, *markers: str) -> str:
    """`text` for a blank between `markers` (`</answer>`, `#Task:`): what stands in it as one of
    them, in any case and spacing, gets look-alike characters and opens or closes nothing."""
    return _marker(markers).sub(lambda found: found[0].translate(_FENCED), text)


@cache
def _marker(markers: tuple[str, ...]) -> re.Pattern[str]:
    # the gaps are short so that a text made of gaps cannot make the search slow
    spaced = (r"\s{0,3}".join(map(re.escape, re.findall(r"\w+|\S", m))) for m in markers)
    return re.compile("|".join(spaced), re.IGNORECASE)
