"""demos/lanes.py: the demo's stages in two lanes, which must not get into each other's way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from demos import lanes
from tests.builders import parameters
from tests.conftest import BIN, ROOT, environment, from_yaml

# Two lanes of one leg, as a program: what is tested is what `make demo` starts.
RUN = (
    "import sys; from bezoar import interrupts; interrupts.say_in_a_line();"
    "from demos.lanes import Group, Leg, run;"
    "sys.exit(run(Leg(('a', 'b'), (Group('', ('c',)), Group('b', ('d',))))))"
)


def test_the_lanes_hold_every_stage_but_the_last_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    named = [stage for leg in lanes.LEGS for stage in leg.stages()]
    assert len(named) == len({*named})
    assert {*named, *lanes.LAST} == lanes.stages()


@pytest.mark.slow
def test_no_lane_reads_what_the_other_one_writes() -> None:
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        graph = repo.index.graph
        needs = {
            stage.addressing: {each.addressing for each in graph.successors(stage)}
            for stage in graph
        }
    assert {*needs} == lanes.stages()
    before: set[str] = set()
    for leg in lanes.LEGS:
        there = set(before)
        for stage in leg.first:
            assert needs[stage] <= there, f"{stage} runs before {needs[stage] - there}"
            there.add(stage)
        there = set(before)
        for group in leg.second:
            # what the first lane has done when it comes to the stage that the group waits for
            there |= {*leg.first[: leg.first.index(group.after) if group.after else 0]}
            for stage in group.stages:
                assert needs[stage] <= there, f"{stage} runs before {needs[stage] - there}"
                there.add(stage)
        before |= {*leg.stages()}


@pytest.mark.slow
def test_other_stages_or_a_finished_run_are_left_to_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "dvc.yaml", parameters.copy(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    legs: list[lanes.Leg] = []
    monkeypatch.setattr(lanes, "run", lambda leg: legs.append(leg) or 0)
    lanes.main()
    assert legs == [*lanes.LEGS]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    lanes.main()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    settings = parameters.read(Path())
    settings["checkpoints"]["orca"] = {"model": "sft/orca"}
    parameters.write(Path(), settings)
    lanes.main()
    parameters.copy(tmp_path)
    Path("models/fetch/base").mkdir(parents=True)
    lanes.main()
    assert legs == [*lanes.LEGS]


def project(folder: Path, **commands: str) -> dict[str, str]:
    """Make a DVC project in `folder` with a stage for each command; returns its environment."""
    env = environment(folder / "work", PYTHONPATH=str(ROOT))
    stages = {name: {"cmd": cmd, "outs": [f"{name}.out"]} for name, cmd in commands.items()}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    subprocess.run(["git", "init", "-q"], cwd=folder, env=env, check=True)
    subprocess.run([BIN / "dvc", "init", "-q"], cwd=folder, env=env, check=True)
    return env


def ran(
    command: list[str | Path], folder: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """The command, run in `folder` to its end."""
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def awaiting(file: str, out: str) -> str:
    """A command that goes on once `file` is there, for a minute at most."""
    return f"for i in $(seq 600); do test -e {file} && break; sleep 0.1; done; cp {file} {out}"


@pytest.mark.slow
def test_two_lanes_run_at_the_same_time_and_one_waits_for_a_stage(tmp_path: Path) -> None:
    env = project(
        tmp_path,
        a=f"echo from a > a.mark; {awaiting('c.mark', 'a.out')}; sleep 1; test ! -e d.mark",
        b=f"echo from b > b.mark; {awaiting('d.mark', 'b.out')}",
        c=f"echo from c > c.mark; {awaiting('a.mark', 'c.out')}",
        d=f"echo from d > d.mark; {awaiting('b.mark', 'd.out')}",
    )
    done = ran([sys.executable, "-c", RUN], tmp_path, env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a.out").read_text() == "from c\n"
    assert (tmp_path / "c.out").read_text() == "from a\n"
    assert (tmp_path / "b.out").read_text() == "from d\n"
    assert (tmp_path / "d.out").read_text() == "from b\n"
    locked = from_yaml((tmp_path / "dvc.lock").read_text())["stages"]
    assert {*locked} == {"a", "b", "c", "d"}
    assert "Running stage 'a'" in done.stdout and "Running stage 'c'" in done.stdout
    assert "up to date" in ran([BIN / "dvc", "status"], tmp_path, env).stdout


# As every stage of this project, it ends when the DVC that started it does.
DYING = (
    f"{sys.executable} -c 'from bezoar import work; work.die_with_parent();"
    ' import time, pathlib; pathlib.Path("c.pid").write_text(str(__import__("os").getpid()));'
    " time.sleep(120)'"
)


@pytest.mark.slow
def test_a_lane_that_fails_ends_the_other_one(tmp_path: Path) -> None:
    env = project(tmp_path, a=f"{awaiting('c.pid', 'a.out')}; exit 3", b="echo b > b.out", c=DYING)
    started = time.monotonic()
    done = ran([sys.executable, "-c", RUN], tmp_path, env)
    assert done.returncode == 255, "DVC's own code for a stage that failed"
    assert time.monotonic() - started < 90, "the other lane did not sleep to its end"
    assert "failed to reproduce 'a'" in done.stdout and not (tmp_path / "b.out").exists()
    assert ended(int((tmp_path / "c.pid").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_lanes_with_a_line(tmp_path: Path, number: signal.Signals) -> None:
    env = project(tmp_path, a=DYING.replace("c.pid", "a.pid"), b="echo b > b.out", c=DYING)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    pids = [tmp_path / f"{name}.pid" for name in "ac"]
    for _ in range(900):
        if all(path.exists() and path.read_text() for path in pids):
            break
        time.sleep(0.1)
    # as a terminal sends Ctrl-C: to all of them
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + number, output
    ran = [line for line in output.splitlines() if not line.startswith(("Running stage", "> "))]
    words = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert ran == [f"error: {words}; run the same command again: it goes on from what is whole"]
    assert all(ended(int(path.read_text())) for path in pids)


def ended(pid: int) -> bool:
    """Whether a process is gone, or is about to be, within ten seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
