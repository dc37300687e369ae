"""The last line of the report's table: is this run the recorded one, and if not, since when."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import arithmetic
from bezoar.report import recorded
from tests.conftest import ROOT, Run

Lock = dict[str, Any]


def stage(
    reads: dict[str, str], writes: dict[str, str], file: str = "params.yaml", **values: Any
) -> Lock:
    """A stage as dvc.lock has it: files with their hashes, parameters of `file` by section."""
    return {
        "cmd": "python -m stages.any",
        "deps": [{"path": path, "md5": md5} for path, md5 in reads.items()],
        "params": {file: values},
        "outs": [{"path": path, "md5": md5} for path, md5 in writes.items()],
    }


def lock(base: str = "b", link: str = "l", **changes: Any) -> Lock:
    """A base that is grown, a link that is trained on it, and a report; the report stands first."""
    summary = hashlib.md5(recorded.SUMMARY.read_bytes()).hexdigest()
    seed, epochs = changes.get("seed", 7), changes.get("epochs", 4)
    return {
        "report": stage({"models/sft": link}, {recorded.SUMMARY.as_posix(): summary}),
        "sft@one": stage(
            {"bezoar/sft.py": changes.get("code", "c"), "models/fetch/base": base},
            {"models/sft/one": link},
            f"profiles/{changes.get('profile', 'embedded')}.yaml",
            sft={"epochs": epochs},
        ),
        "fetch@base": stage({}, {"models/fetch/base": base}, fetch={"seed": seed}),
    }


def git(*arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def write(stages: Lock) -> None:
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository whose one commit records a run."""
    monkeypatch.chdir(tmp_path)
    recorded.SUMMARY.parent.mkdir(parents=True)
    recorded.SUMMARY.write_text("{}")
    write(lock())
    git("init", "-q")
    git("add", "dvc.lock")
    git("commit", "-qm", "record")


def test_an_equal_run_says_so_on_any_branch_and_in_any_folder(tmp_path: Path) -> None:
    equal = "Recorded run: this one equals it, byte for byte, in all 3 stages."
    assert recorded.line() == equal
    git("checkout", "-q", "--detach")  # as an experiment's folder stands
    Path("params.yaml").write_text("profile: other\n")  # not committed, and not run
    assert recorded.line() == equal
    git("checkout", "-qb", "mine")
    below = tmp_path / "projects/bezoar"
    (below / recorded.SUMMARY).parent.mkdir(parents=True)
    (below / recorded.SUMMARY).write_text("{}")
    os.chdir(below)
    write(lock(base="other"))
    git("add", "dvc.lock")
    git("commit", "-qm", "record another in a folder")
    assert recorded.line() == equal


@pytest.mark.parametrize(
    ("changed", "since"),
    [
        ({"epochs": 5, "link": "m"}, "sft@one: profiles/embedded.yaml:sft.epochs 4 -> 5. That"),
        ({"code": "d", "link": "m"}, "sft@one: bezoar/sft.py is another one. That is no fault."),
        ({"profile": "local", "link": "m"}, "sft@one: profile embedded -> local. That is no fault"),
        ({"seed": 8, "base": "a", "link": "m"}, "fetch@base: fetch.seed 7 -> 8. That is no fault."),
        ({"base": "a", "link": "m"}, "fetch@base: the same inputs gave other bytes, so another"),
    ],
)
def test_the_first_stage_that_differs_says_why(changed: dict[str, Any], since: str) -> None:
    write(lock(**changed))
    assert recorded.line().startswith(f"Recorded run: this one differs since {since}")


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write(lock(base="a", link="m"))
    monkeypatch.setattr(arithmetic, "model", lambda: "Some CPU")
    monkeypatch.setattr(arithmetic, "flags", lambda: {"avx2", "avx512f", "fma"})
    assert "This CPU: Some CPU (avx2, avx512f)." in recorded.line()
    monkeypatch.setattr(arithmetic, "flags", set)
    assert "This CPU: Some CPU (" in recorded.line()


def test_other_libraries_are_named() -> None:
    write(lock(base="a", link="m"))
    Path("requirements.lock").write_text("torch==1.0\nnumpy\nno such line ==\n")
    assert "and other libraries: torch 2." in recorded.line()
    assert "instead of 1.0" in recorded.line()


def test_stages_that_one_of_the_two_lacks_are_named() -> None:
    stages = lock()
    write({name: each for name, each in stages.items() if name != "sft@one"})
    assert "differs since sft@one: it is recorded, and this run has none." in recorded.line()
    write(stages | {"sft@two": stage({}, {"models/sft/two": "t"})})
    assert "differs since sft@two: it is not recorded." in recorded.line()


def test_what_cannot_be_compared_is_said_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.SUMMARY.write_text("{ }")
    assert "summary.json is of another run than dvc.lock" in recorded.line()
    for broken in ("<<<<<<< HEAD\nstages:\n=======\n", "", "stages:\n", "- a", "stages: {a: b}"):
        Path("dvc.lock").write_text(broken)
        assert recorded.line() == "Recorded run: not compared, dvc.lock here cannot be read."
    Path("dvc.lock").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in recorded.line()
    Path("dvc.lock").unlink()
    assert "cannot be read" in recorded.line()


def test_without_a_history_or_git_there_is_nothing_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    none = "Recorded run: none to compare with, git has no readable dvc.lock for this folder."
    git("rm", "-q", "--cached", "dvc.lock")
    git("commit", "-qm", "forget")
    assert recorded.line() == none
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in an unpacked archive
    assert recorded.line() == none
    monkeypatch.setenv("PATH", "")
    assert recorded.line() == none


def test_the_recorded_run_of_this_repository_can_be_read_in_the_order_of_its_dag() -> None:
    stages = recorded._stages((ROOT / "dvc.lock").read_text())
    assert stages
    names = recorded.order(stages)
    chain = ["fetch@base", "sft@lamini", "merge@sft", "sft@hh_rlhf", "dpo@policy", "mt_answer@dpo"]
    assert sorted(chain, key=names.index) == chain
    assert names[-1] == "report" and len(names) == len(stages)


@pytest.mark.slow
def test_it_is_the_last_line_of_the_table(finished: Run) -> None:
    command = [sys.executable, "-m", "bezoar.report"]
    done = subprocess.run(
        command, cwd=finished.folder, env=finished.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Recorded run: ")
