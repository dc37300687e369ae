"""What a stage took is kept, through kills, beside outs that know nothing of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bezoar.llm import ledger
from bezoar.report import took
from bezoar.work import times
from tests.builders import parameters
from tests.conftest import ROOT

PIPELINE = """
vars:
- sources:
    base: {out: models/fetch/base}
stages:
  fetch:
    foreach: ${sources}
    do:
      cmd: x
      outs: ['${item.out}']
  sft:
    foreach: ${chain}
    do:
      cmd: x
      outs: ['models/sft/${key}']
      metrics: [{'metrics/sft/${key}.json': {cache: false}}]
"""
LOCK = "stages: {fetch@base: {}, sft@one: {}, sft@gone: {}, old@x: {}}\n"
# A stage: it burns CPU, writes its outs where it is told to, and waits to be killed where not.
STAGE = """
import sys, time
from pathlib import Path
from bezoar import work
work.begin()
until = time.process_time() + float(sys.argv[1])
while time.process_time() < until: pass
if sys.argv[2] == "wait":
    print("ready", flush=True)
    time.sleep(60)
Path("models/sft/one").mkdir(parents=True, exist_ok=True)
Path("models/sft/one/weights").write_text(sys.argv[2])
Path("metrics/sft").mkdir(parents=True, exist_ok=True)
Path("metrics/sft/one.json").write_text("{}")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    monkeypatch.chdir(project(tmp_path / "one"))
    return tmp_path / "one"


def project(folder: Path) -> Path:
    folder.mkdir()
    for name, text in (("dvc.yaml", PIPELINE), ("dvc.lock", LOCK)):
        (folder / name).write_text(text)
    parameters.copy(folder)
    return folder


def begun(folder: Path, cpu: float, text: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(cpu), text],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "sft@one"} | more,
    )


def run(folder: Path, cpu: float = 0.2, text: str = "a", **more: str) -> None:
    process = begun(folder, cpu, text, **more)
    process.communicate(timeout=60)
    assert process.returncode == 0


def killed(folder: Path, cpu: float, number: int) -> None:
    process = begun(folder, cpu, "wait")
    assert process.stdout and process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode


def home(here: Path) -> Path:
    return here.parent / "work"


def one(here: Path) -> times.Spent | None:
    return times.of_run(home(here))["sft@one"]


@pytest.mark.slow
def test_a_stage_that_came_to_its_outs_has_its_time(here: Path) -> None:
    run(here)
    spent = one(here)
    assert spent and spent.starts == 1
    assert spent.cpu >= 0.2 and 0.2 <= spent.seconds < 60 and spent.memory > 2**22
    assert not list((home(here) / "times/open").rglob("*.json"))


@pytest.mark.slow
def test_what_a_killed_stage_spent_is_counted_once_it_is_done(here: Path) -> None:
    killed(here, 0.5, signal.SIGTERM)
    killed(here, 0.5, signal.SIGINT)
    assert times.of_machine(home(here))[1]["sft"].cpu >= 1
    run(here)
    spent = one(here)
    assert spent and spent.starts == 3 and spent.cpu >= 1.2
    assert times.of_machine(home(here))[1] == {}


@pytest.mark.slow
def test_a_kill_that_nobody_hears_of_loses_what_came_since_the_last_look(here: Path) -> None:
    killed(here, 0.2, signal.SIGKILL)
    run(here)
    assert (spent := one(here)) and spent.starts == 2


@pytest.mark.slow
def test_what_was_spent_under_other_parameters_or_in_another_clone_is_left_out(
    here: Path,
) -> None:
    killed(here, 0.5, signal.SIGTERM)
    killed(project(here.parent / "two"), 0.5, signal.SIGTERM)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  beta: 0.1", "  beta: 0.2"))
    run(here)
    assert (spent := one(here)) and spent.starts == 1
    assert times.of_machine(home(here))[1]["sft"].starts == 2


@pytest.mark.slow
def test_a_stage_out_of_the_cache_shows_the_run_that_made_it(here: Path) -> None:
    run(here, 1.5, "a")
    run(here, 0.1, "b")
    assert (spent := one(here)) and spent.cpu < 1.5
    Path("models/sft/one/weights").write_text("a")  # as DVC checks it out
    assert (spent := one(here)) and spent.cpu >= 1.5
    run(here, 0.1, "a")  # it found its work done in the work folder
    assert (spent := one(here)) and spent.cpu >= 1.5
    other = project(here.parent / "two")
    for part in ("models", "metrics"):
        shutil.copytree(here / part, other / part)
    os.chdir(other)
    assert (spent := one(here)) and spent.cpu >= 1.5
    Path("models/sft/one/weights").write_text("made elsewhere")
    assert one(here) is None


@pytest.mark.slow
def test_a_stage_without_its_outs_and_one_that_is_no_more_are_left_out(here: Path) -> None:
    run(here)
    assert list(times.of_run(home(here))) == ["sft@one"]


@pytest.mark.slow
def test_a_run_by_hand_and_a_process_of_several_keep_no_time(here: Path) -> None:
    run(here, DVC_STAGE="")
    run(here, LOCAL_RANK="1")
    assert not (home(here) / "times").exists()


@pytest.mark.parametrize("size", [10, 5 * times.SAMPLE])
def test_a_large_file_is_known_by_its_size_and_its_ends(here: Path, size: int) -> None:
    keys = set()
    for data in (b"a" * size, b"b" + b"a" * (size - 1), b"a" * (size - 1) + b"b", b"a" * size):
        for path in (Path("models/sft/one/weights"), Path("metrics/sft/one.json")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if path.name == "weights" else b"{}")
        keys.add(times.outs_key("sft@one"))
    assert len(keys) == 3 and None not in keys


@pytest.mark.slow
def test_stats_and_the_page_beside_the_report_show_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(here)
    ledger.run(["stats"])
    told = json.loads(capsys.readouterr().out)
    assert told["cpu_seconds_by_stage"]["sft"] >= 0.2 and told["memory_by_stage"]["sft"] > 2**22
    assert told["seconds_unfinished_by_stage"] == {}
    bought: Any = {"sft": {"one": {"tokens_in": 1234, "tokens_out": 5, "usd": 0.5}}}
    line = took.write_beside(Path("metrics"), {"spending": bought})
    assert re.fullmatch(r"Time: .+, [\d.,]+ [MG]iB of memory", line)
    page = Path("metrics/times.html").read_text()
    assert "1,234" in page and "$0.50" in page and '<th scope="row">sft' in page


@pytest.mark.slow
def test_a_damaged_file_counts_nothing_and_stops_nothing(here: Path) -> None:
    run(here)
    for file in (home(here) / "times").rglob("*.json"):
        file.write_text("{")
    assert one(here) == times.Spent()
    time.sleep(0.01)
    run(here)
    assert (spent := one(here)) and spent.starts == 1
