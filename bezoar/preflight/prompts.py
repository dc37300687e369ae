"""Are the prompts texts that can be sent? The forecast fills their blanks, and so checks them."""

from bezoar.files import BadInput
from bezoar.preflight.findings import Finding
from bezoar.prompts import ROOT, Prompt


def findings() -> list[Finding]:
    """Read every file of prompts/: one that cannot be read stops, an empty one is told."""
    names = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.txt"))
    return [finding for name in names if (finding := _look(Prompt(name.as_posix())))]


def _look(prompt: Prompt) -> Finding | None:
    try:
        empty = not prompt.text.strip()
    except BadInput as error:
        return Finding.of(prompt.path, error)
    what, way = "is empty, and nothing is sent for it", "write a text, or restore it with git"
    return Finding("warning", prompt.path, what, way) if empty else None
