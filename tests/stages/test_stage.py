"""The new stage of docs/stage.md, applied to a copy of the project and run as it stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bezoar.rows.files import write_jsonl
from bezoar.rows.records import Kept
from tests.builders.pages import FENCE
from tests.conftest import BIN, ROOT, copy, environment

PAGE = (ROOT / "docs/stage.md").read_text(encoding="utf-8")
# what holds the rules of the house against a new stage, and its place in demo and picture
RULES = [
    "tests/project/test_house.py",
    "tests/project/test_lanes.py",
    "tests/project/test_layout.py",
    "tests/project/test_docs.py",
]
RULES = [*RULES, "-k", "house or lanes_hold or lane_reads or layout or picture"]


def block(language: str) -> str:
    """The one block of that language on the page."""
    blocks: list[str] = [text for info, text in FENCE.findall(PAGE) if info == language]
    assert len(blocks) == 1
    return blocks[0]


def row(number: int, response: str) -> Kept:
    return Kept(
        id=f"lamini-{number:05d}-1",
        scheme="lamini",
        system="",
        instruction="Where does the mouse live?",
        context="",
        response=response,
        expected="",
        category="open_qa",
        details={},
        seeds=["dolly-00001"],
        licence="CC0-1.0",
        teacher="world-teacher",
        simulated=True,
        sources=["world"],
        teacher_terms="Apache-2.0",
        judge_terms="Apache-2.0",
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project to which the page was applied, with a small set of rows."""
    folder = copy(tmp_path_factory.mktemp("stage") / "project")
    subprocess.run(["git", "apply"], cwd=folder, input=block("diff"), text=True, check=True)
    (folder / "stages/openings.py").write_text(block("python"), encoding="utf-8")
    answers = ["Sure, here is one.", "sure! Here is another", "The mouse lives in a barn."]
    write_jsonl(folder / "data/filter/lamini/train.jsonl", map(row, range(3), answers))
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder.parent / "work", PYTHONPATH=str(folder))
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_diff_of_the_page_applies_here() -> None:
    done = subprocess.run(
        ["git", "apply", "--check"], cwd=ROOT, input=block("diff"), text=True, check=False
    )
    assert done.returncode == 0


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) < 120


@pytest.mark.slow
def test_the_stage_of_the_page_measures_a_set(project: Path) -> None:
    done = run(project, str(BIN / "dvc"), "repro", "--single-item", "openings@lamini")
    assert done.returncode == 0, done.stdout + done.stderr
    table = (project / "data/openings/lamini.tsv").read_text(encoding="utf-8")
    assert table == "2\tsure here is\n1\tthe mouse lives\n"
    measured = json.loads((project / "metrics/openings/lamini.json").read_text())
    assert measured == {"rows": 3, "openings": 2, "alike": 0.6667}
    again = run(project, str(BIN / "dvc"), "status", "openings@lamini")
    assert "openings" not in again.stdout, again.stdout


@pytest.mark.slow
def test_a_set_without_rows_is_an_error_in_a_line(project: Path) -> None:
    (project / "data/filter/orca").mkdir(exist_ok=True)
    (project / "data/filter/orca/train.jsonl").write_text("")
    done = run(project, sys.executable, "-m", "stages.openings", "orca")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "error: data/filter/orca/train.jsonl: has no rows; " in done.stderr


@pytest.mark.slow
def test_the_stage_of_the_page_keeps_the_rules_of_the_house(project: Path) -> None:
    assert os.fspath(project) not in sys.path
    for words in (["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        done = run(project, str(BIN / words[0]), *words[1:])
        assert done.returncode == 0, done.stdout
    done = run(project, sys.executable, "-m", "pytest", "-q", "-x", *RULES)
    assert done.returncode == 0, done.stdout[-5000:]
