"""Every citation of a paper names a section, table or figure that the paper has, and every number
of params.yaml says what kind of claim stands behind it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.builders import ROOT, parameters

# OpenBezoar, arXiv 2404.12195, version 1: what is cited of it. 2.1 and 2.2 are background.
SECTIONS = {
    *("1", "2", "2.1", "2.2", "3", "3.1", "3.1.1", "3.1.2", "3.1.3", "3.2", "3.3", "3.4"),
    *("4", "4.1", "4.2", "5", "5.1", "A", "B", "C", "D"),
}
BACKGROUND = {"1", "2", "2.1", "2.2"}  # no number of the recipe comes from there
TABLES, FIGURES = range(1, 10), range(1, 28)
# Who may be behind a number. `ours` says why; the others are papers and cards by name.
KINDS = (
    *("paper", "authors' card", "ours", "as"),
    *("LaMini-LM", "WizardLM", "Orca", "QLoRA", "InstructGPT", "MT-Bench", "LAB"),
)
CITED = re.compile(r"(?:\bpaper|OpenBezoar,?|OpenBezoar's)[ (]+(\d(?:\.\d)*|[A-D])(?![\w%])")
LISTED = re.compile(r"^(?: and |, )(\d(?:\.\d)+|[A-D])\b")
PLACE = re.compile(r"\b(Table|figure|Figure)s? (\d+)(?!\.)")


def texts() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.yaml", "*.txt", "*.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    made = ("metrics/", "tests/project/test_citations.py")
    return [ROOT / name for name in names if not name.startswith(made)]


def cited(text: str) -> list[str]:
    """The sections of OpenBezoar that `text` cites, those of a list among them."""
    sections = []
    for citation in CITED.finditer(text):
        sections.append(citation[1])
        rest = text[citation.end() :]
        while further := LISTED.match(rest):
            sections.append(further[1])
            rest = rest[further.end() :]
    return sections


def test_every_cited_section_exists() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {section}"
        for path in texts()
        for section in cited(path.read_text(encoding="utf-8"))
        if section not in SECTIONS - BACKGROUND
    ]
    assert wrong == []


def test_citations_are_found() -> None:
    assert cited("# paper 3.1.1: five") == ["3.1.1"]
    assert cited("(OpenBezoar 2.4), OpenBezoar, 3.3 and 3.4") == ["2.4", "3.3", "3.4"]
    assert cited("paper D, paper silent, the paper has 3 of them") == ["D"]


def test_every_cited_table_and_figure_exists() -> None:
    written = "\n".join(parameters.texts().values())
    for kind, number in PLACE.findall(written.replace("InstructGPT, Table 1", "")):
        assert int(number) in (TABLES if kind == "Table" else FIGURES), f"{kind} {number}"


def numbers() -> list[str]:
    """The lines of params.yaml and of the recipe that hold a number."""
    texts = parameters.texts()
    # what is known of further models has no numbers, and chat templates that look like some
    shared = re.sub(r"(?ms)^models:.*?^(?=\w)", "", texts["params.yaml"])
    recipe = re.sub(r"(?ms)^evaluated:.*?^(?=\w)", "", texts["recipes/openbezoar.yaml"])
    recipe = shared + recipe
    # a list is cited at its key: DVC keeps no comment within one
    recipe = re.sub(r"(?m)^( *)- .*\n(?:\1 +.*\n)*", "", recipe)
    return re.findall(r"^ +[\w*']+: +(?:-?[\d.]+(?:e-?\d+)?|true|false)\b.*$", recipe, re.MULTILINE)


@pytest.mark.parametrize("line", numbers())
def test_a_number_of_the_recipe_says_whose_it_is(line: str) -> None:
    assert re.search(rf"# ({'|'.join(KINDS)})\b", line), line
