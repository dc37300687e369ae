"""The new data source of docs/source.md, applied to a copy of the code and run as it stands."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bezoar.report.run import SOURCES
from tests.builders import parameters
from tests.builders.pages import FENCE, joined
from tests.conftest import ROOT, environment

PAGE = (ROOT / "docs/source.md").read_text(encoding="utf-8")
CODE = ("bezoar", "stages", "prompts", "launch", "params.yaml", "recipes", "profiles")
TICKETS = [
    (2, "Wie setze ich mein Passwort zurück?", "Klicken Sie auf „Passwort vergessen“."),
    (1, "Wo finde ich meine Rechnung?", "Unter Konto, Rechnungen."),
    (3, "Antwort fehlt", ""),
]


def block(language: str) -> str:
    """The one block of that language on the page."""
    blocks: list[str] = [text for info, text in FENCE.findall(PAGE) if info == language]
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the code to which the page was applied, with a database of tickets."""
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    (tmp_path / "bezoar/sources/sqlite.py").write_text(block("python"), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=block("diff"), text=True, check=True)
    document = parameters.read(tmp_path)
    wanted = parameters.of_page(block("yaml"))
    document["profiles"]["local"]["fetch"]["dolly"] = {}
    document = {**joined(document, wanted), "profile": "local"}
    parameters.write(tmp_path, document)
    (tmp_path / "local/dolly").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "local/dolly/tickets.sqlite")) as database:
        database.execute("CREATE TABLE tickets (id INTEGER, subject TEXT, reply TEXT)")
        database.executemany("INSERT INTO tickets VALUES (?, ?, ?)", TICKETS)
        database.commit()
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder / "work", PYTHONPATH=str(folder))
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_diff_of_the_page_applies_here() -> None:
    done = subprocess.run(
        ["git", "apply", "--check"], cwd=ROOT, input=block("diff"), text=True, check=False
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_the_source_of_the_page_reads_a_database(project: Path) -> None:
    checked = run(project, "bezoar.params")
    assert checked.returncode == 0, checked.stderr
    fetched = run(project, "stages.fetch", "dolly")
    assert fetched.returncode == 0, fetched.stderr
    out = project / "data/fetch/dolly"
    lines = (out / "seeds.jsonl").read_text(encoding="utf-8").splitlines()
    seeds = [json.loads(line) for line in lines]
    assert [seed["instruction"] for seed in seeds] == [TICKETS[1][1], TICKETS[0][1]]
    assert {seed["licence"] for seed in seeds} == {"CC-BY-4.0"}
    account = json.loads((out / "source.json").read_text(encoding="utf-8"))
    assert account["rows"] == {"seeds.jsonl": 2}
    assert account["left_out"] == {"no instruction or no response": 1}
    assert "dolly" in SOURCES  # the report reads the account of each of them


def _gone(folder: Path) -> None:
    (folder / "local/dolly/tickets.sqlite").unlink()


def _another_query(folder: Path) -> None:
    with parameters.changed(folder) as document:
        document["profiles"]["local"]["fetch"]["dolly"]["query"] = "SELECT subject FROM tickets"


def _no_database(folder: Path) -> None:
    (folder / "local/dolly/tickets.sqlite").write_text("id,subject\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_gone, "local/dolly/tickets.sqlite: there is no such file"),
        (_another_query, "the query selects no instruction, context, response, category"),
        (_no_database, "local/dolly/tickets.sqlite: file is not a database"),
    ],
    ids=["gone", "another query", "no database"],
)
def test_what_a_user_can_mend_is_said(
    project: Path, change: Callable[[Path], None], said: str
) -> None:
    change(project)
    done = run(project, "stages.fetch", "dolly")
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
