"""Prompts are text files under prompts/; `$name` is a blank to fill, `$$` a dollar sign."""

from functools import cached_property
from pathlib import Path
from string import Template

from bezoar.files import BadInput

ROOT = Path(__file__).parent.parent / "prompts"


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
