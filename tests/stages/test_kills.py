"""Training and evaluation of the embedded profile, killed at random and started again: the same
bytes."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bezoar import work
from tests.builders import warm
from tests.conftest import Run, environment

pytestmark = pytest.mark.slow

PARTS = (
    "params.yaml",
    "recipes",
    "profiles",
    "stages",
    "bezoar",
    "prompts",
    "launch",
    "data/mix",
    "data/fetch/hh_rlhf",
)
WEIGHTS = ("fetch/base", "merge/sft", "sft/hh_rlhf")  # what the stages below start from


def some_steps(scratch: Path) -> Callable[[], bool]:
    """Somewhere in the first seconds of training: true once a moment drawn at random has come."""
    wait, since = random.uniform(0, 3), [0.0]

    def now() -> bool:
        if not since[0] and any(scratch.rglob("start.json")):
            since[0] = time.monotonic()
        return bool(since[0]) and time.monotonic() - since[0] > wait

    return now


def a_checkpoint(scratch: Path) -> Callable[[], bool]:
    """While a checkpoint that was not there at first is being written."""
    known = {*scratch.rglob("checkpoint-*")}
    return lambda: bool({*scratch.rglob("checkpoint-*")} - known)


@pytest.mark.parametrize(
    ("stage", "out"),
    [
        (("stages.sft", "lamini"), "sft/lamini"),  # QLoRA
        (("stages.sft", "hh_rlhf"), "sft/hh_rlhf"),  # all parameters
        (("stages.dpo", "policy"), "dpo/policy"),
    ],
)
def test_whenever_it_is_killed_the_run_ends_with_the_same_bytes(
    finished: Run, tmp_path: Path, stage: tuple[str, ...], out: str
) -> None:
    place = tmp_path / "elsewhere"
    for part in (*PARTS, *(f"models/{weights}" for weights in WEIGHTS)):
        source = finished.folder / part
        copied = shutil.copytree if source.is_dir() else shutil.copy
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        copied(source, place / part)
    shutil.rmtree(place / "models" / out, ignore_errors=True)
    scratch = place / "work"
    scratch.mkdir()
    command = [warm.python(), "-m", *stage]
    for moment in (some_steps, a_checkpoint, some_steps):
        with subprocess.Popen(command, cwd=place, env=environment(scratch)) as process:
            try:
                come = moment(scratch)
                while process.poll() is None and not come():
                    time.sleep(0.001)
            finally:
                process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"
        assert not (place / "models" / out).exists()
    subprocess.run(command, cwd=place, env=environment(scratch), check=True)
    assert work.content(place / "models" / out) == work.content(finished.folder / "models" / out)
    # metrics and curves too
    for file in (place / "metrics").rglob("*.*"):
        assert file.read_bytes() == (finished.folder / file.relative_to(place)).read_bytes(), file


@pytest.mark.parametrize("stage", ["lm_eval", "mt_answer"])
def test_an_evaluation_that_is_killed_goes_on_and_repeats_nothing(
    finished: Run, tmp_path: Path, stage: str
) -> None:
    place, scratch = tmp_path / "elsewhere", tmp_path / "work"
    for part in (*PARTS[:7], "data/fetch", "models/dpo/policy", "models/fetch/base"):
        source = finished.folder / part
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place / part)
    command = [warm.python(), "-m", f"stages.{stage}", "dpo"]

    def results() -> int:
        """How many rows and tasks are kept."""
        rows = [path.read_bytes().count(b"\n") for path in scratch.rglob("*.jsonl")]
        return sum(rows) + len([*scratch.glob(f"{stage}/*/task_*.json")])

    for _ in range(2):
        before = results()
        with subprocess.Popen(command, cwd=place, env=environment(scratch)) as process:
            while process.poll() is None and results() <= before + random.randint(0, 3):
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"
        assert results() > before and not (place / "data" / stage / "dpo").exists()
    subprocess.run(command, cwd=place, env=environment(scratch), check=True)
    out, right = (folder / "data" / stage / "dpo" for folder in (place, finished.folder))
    assert work.content(out) == work.content(right)
    # What changes no number has the same work folder, in which all is kept.
    shutil.rmtree(out)
    for file in (place / "bezoar").rglob("*.py"):
        file.write_text(file.read_text("utf-8") + "\n# a comment\n", "utf-8")
    folders = [*scratch.glob(f"{stage}/*")]
    subprocess.run(command, cwd=place, env=environment(scratch), check=True)
    assert work.content(out) == work.content(right)
    assert [*scratch.glob(f"{stage}/*")] == folders and len(folders) == 1
