"""launch/as-the-paper.txt: the one line by which a run is as near to OpenBezoar as can be."""

import re
from pathlib import Path

import pytest

from bezoar import params
from bezoar.params import OpenAI, Params
from tests.builders import parameters
from tests.conftest import ROOT, from_yaml

FILE = ROOT / "launch/as-the-paper.txt"
OVERRIDES = [line.removeprefix("-S ") for line in FILE.read_text().splitlines()]


@pytest.fixture
def overridden(tmp_path: Path) -> Params:
    parameters.copy(tmp_path)
    parameters.override(tmp_path, *OVERRIDES)
    return params.load(tmp_path)


@pytest.mark.slow
def test_what_is_ours_in_the_recipe_becomes_the_papers(overridden: Params) -> None:
    p = overridden
    assert p.profile == "paper"
    assert (p.sft.keep, p.sft.scheduler, p.merge.onto) == ("last", "linear", "reloaded")
    assert not p.schemes.lamini.fewer_examples
    assert p.known is None
    assert p.filter.copies == ["lamini"]
    assert p.dpo.eval_limit is None
    assert all(amount.eval_limit is None for amount in p.sft.links.values())
    adapters = [p.sft.links[name] for name, link in p.chain.items() if link.weights == "adapter"]
    assert {amount.warmup_steps for amount in adapters} == {100}
    assert p.others == ["redpajama", "minichat", "phi_2"]


@pytest.mark.slow
def test_a_judges_empty_reply_is_undecided_at_once(overridden: Params) -> None:
    """Where the second request is the first one again, it is not made (bezoar/llm/client.py)."""
    judge = overridden.llm.judge
    assert isinstance(judge, OpenAI) and judge.params["temperature"] == 0
    assert {**judge.params, **judge.again} == judge.params


@pytest.mark.slow
def test_the_papers_numbers_stand_in_the_recipe(overridden: Params) -> None:
    sft, rows = overridden.sft, overridden.filter
    assert (sft.lora_r, sft.lora_alpha, sft.lora_dropout) == (16, 16, 0.05)
    assert set(sft.target_modules) == {"q_proj", "v_proj", "k_proj"}
    checks = (rows.duplicates, rows.markers, rows.near_duplicates, rows.contamination, rows.gates)
    assert {check.action for check in checks} == {"report"}


@pytest.mark.parametrize("override", OVERRIDES)
def test_every_line_changes_something(override: str) -> None:
    assert parameters.value(override) != from_yaml(override.partition("=")[2])


def test_the_pages_name_the_command() -> None:
    command = "dvc exp run $(cat launch/as-the-paper.txt)"
    assert command in (ROOT / "docs/training.md").read_text()
    assert command in (ROOT / "DEVIATIONS.md").read_text()


# --- DEVIATIONS.md -------------------------------------------------------------------------------

DEVIATIONS = (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8")
ON, OFF, CHOSEN = "on", "off", "on, off as the paper"
PAPERS_LINKS = ("lamini", "orca", "evol_instruct")


def first_table() -> list[list[str]]:
    """The cells of each line of the first table, without the line of dashes."""
    part = DEVIATIONS.partition("## From OpenBezoar")[2].partition("\n## ")[0].strip("\n")
    block = part[part.index("|") :]
    assert all(line.startswith("|") for line in block.splitlines()), "the table is one block"
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
    return [rows[0], *rows[2:]]


def test_every_deviation_says_whether_the_paper_profile_has_it() -> None:
    head, *rows = first_table()
    assert head == ["what", "paper", "here", "why", "in `paper`"]
    for row in rows:
        assert len(row) == 5 and all(row), row
        assert row[4] in (ON, OFF, CHOSEN), row
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names), "no row is said twice"


def test_the_line_turns_off_as_much_as_the_table_says() -> None:
    """Keys by the words of a row: what the table says is turned off is, and nothing else is."""
    rows = {row[0]: row[4] for row in first_table()[1:]}
    turned_off = {
        "recipes/openbezoar.yaml:schemes.lamini.fewer_examples": "LaMini calls that do not fit",
        "known": "is the judge any good",
        "profiles/paper.yaml:llm.endpoints.gpt.again.temperature": "a judge's reply that states",
        "filter.copies": "copies of seeds, for which schemes",
        "sft.scheduler": "schedule and warm-up",
        "sft.keep": "checkpoint of a link",
        "merge.onto": "merge",
        "profiles/paper.yaml:dpo.eval_limit": "held-out rows of HH-SFT and DPO",
        "others": "whether the models of Table 8",
    }
    beside = {"profile", "profiles/paper.yaml:sft.links.hh_rlhf.eval_limit"}
    beside |= {"profiles/paper.yaml:sft.every_link.warmup_steps"}
    assert {line.partition("=")[0] for line in OVERRIDES} == {*turned_off, *beside}
    for opening in turned_off.values():
        said = [value for name, value in rows.items() if name.startswith(opening)]
        assert said[:1] == [CHOSEN], opening
    assert list(rows.values()).count(CHOSEN) == len(turned_off)


# The modules of bezoar/ that the plan of the house has, by these names.
PLANNED = {
    *("rows", "params", "work", "world", "llm", "sources", "schemes", "judging", "filtering"),
    *("models", "training", "evaluating", "report", "preflight"),
}


def test_modules_that_the_plan_lacks_are_named() -> None:
    section = DEVIATIONS.partition("## From the plan of this house")[2].partition("\n## ")[0]
    library = ROOT / "bezoar"
    modules = {path.stem for path in library.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in library.glob("*/__init__.py")}
    for name in sorted(modules - PLANNED):
        assert f"`{name}.py`" in section, name
    for name in sorted(packages - PLANNED):
        assert f"`bezoar/{name}/`" in section, name
    written = re.findall(r"`(?:bezoar/)?((?:\w+/)?\w+\.py)`", section)
    there = {path.name for path in library.rglob("*.py")}
    assert [name for name in written if name.rpartition("/")[2] not in there] == []
