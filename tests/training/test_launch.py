"""Several processes train what one does, end together, and go on together."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import params, work
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.training.runs import launching
from tests.builders import parameters, warm
from tests.builders.micro import enter, grown
from tests.conftest import ROOT, environment, from_yaml

pytestmark = pytest.mark.slow

__all__ = ["grown"]  # a fixture
OUT = {"all": "sft/one", "adapter": "sft/one", "dpo": "dpo/policy"}
TOLERANCE = 1e-3  # relative, of a loss; sums are taken in another order


@pytest.fixture
def place(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with models/fetch/base and launch/."""
    return project(grown, tmp_path / "project", monkeypatch)


def project(grown: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(grown, folder, monkeypatch)
    shutil.copytree(ROOT / "launch", folder / "launch")
    # fsdp.yaml as it is, but for the devices
    cpus = from_yaml((ROOT / "launch/cpu2.yaml").read_text())
    sharded = from_yaml((ROOT / "launch/fsdp.yaml").read_text())
    sharded |= {key: cpus[key] for key in ("use_cpu", "num_processes")}
    (folder / "launch/cpu2_fsdp.yaml").write_text(yaml.safe_dump(sharded))
    return folder


def start(
    folder: Path, *arguments: str, python: str | None = None, **more: Any
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python or warm.python(settled=False), "-m", "tests.builders.launched", *arguments],
        cwd=folder,
        env=environment(folder / "work", PYTHONPATH=str(ROOT), BEZOAR_DEVICE="cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def train(folder: Path, launch: str, run: str, *fault: str) -> tuple[int, str]:
    """Exit code and what was said of a run."""
    process = start(folder, launch, run, *fault)
    try:
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, said


def result(folder: Path, launch: str, run: str) -> Any:
    shutil.rmtree(folder / "work", ignore_errors=True)
    code, said = train(folder, launch, run)
    assert code == 0, said
    return files.read_json(folder / "run.json")


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of a link, with those of its one run beside them."""
    plain = {name: value for name, value in metrics.items() if name != "runs"}
    run = metrics.get("runs", {"1": {}})["1"]
    return plain | {f"run {name}": value for name, value in run.items()}


def near(one: Any, other: Any) -> None:
    """The same numbers within TOLERANCE, and the same rows of both curves."""
    assert flat(one["metrics"]) == pytest.approx(flat(other["metrics"]), rel=TOLERANCE, abs=1e-6)
    for curve in ("train", "evaluation"):
        assert one[curve][0] == other[curve][0] and len(one[curve]) == len(other[curve])
        for line, wanted in zip(one[curve][1:], other[curve][1:], strict=True):
            numbers = [float(number) for number in line.split(",")]
            assert numbers == pytest.approx(
                [float(number) for number in wanted.split(",")], rel=TOLERANCE, abs=1e-5
            )


@pytest.mark.parametrize(
    ("run", "launch"),
    [
        ("all", "cpu2"),
        ("adapter", "cpu2"),
        ("dpo", "cpu2"),
        ("all", "cpu2_fsdp"),
        ("adapter", "cpu2_fsdp"),  # as DDP
        ("dpo", "cpu2_fsdp"),
    ],
)
def test_two_processes_train_what_one_does(place: Path, run: str, launch: str) -> None:
    import torch
    from safetensors.torch import load_file

    alone = result(place, "none", run)
    [weights] = (place / "models" / OUT[run]).glob("*.safetensors")
    before, names = load_file(weights), sorted(p.name for p in weights.parent.iterdir())
    config = (weights.parent / "tokenizer_config.json").read_bytes()
    together = result(place, launch, run)
    near(together, alone)
    after = load_file(weights)
    if "fsdp" in launch and run != "adapter":  # it stores tied embeddings twice
        assert torch.equal(after.pop("lm_head.weight"), after["model.embed_tokens.weight"])
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-2, atol=1e-4)
    assert names == sorted(p.name for p in weights.parent.iterdir())
    assert config == (weights.parent / "tokenizer_config.json").read_bytes()


def test_a_mistake_in_one_process_ends_all_and_is_said_once(place: Path) -> None:
    code, said = train(place, "cpu2", "all", "mistake")
    assert code == 1 and said.splitlines()[-1] == "error: second: bad; do better"
    assert said.count("do better") == 1


def test_a_fault_in_one_process_ends_all_and_says_which(place: Path) -> None:
    code, said = train(place, "cpu2", "all", "fault")
    assert code == 1 and "ValueError: odd" in said
    assert re.fullmatch(
        r"error: launch/cpu2.yaml: process \d of tests.builders.launched cpu2 all fault ended "
        r"\(exit code 1\) and the others with it; what it said stands above",
        said.splitlines()[-1],
    )
    assert not (place / "models/sft").exists()


@pytest.mark.parametrize("launch", ["cpu2", "cpu2_fsdp"])
def test_killed_processes_go_on_to_the_same_bytes(
    place: Path, grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, launch: str
) -> None:
    code, said = train(place, launch, "all", "kill")
    assert code == 1 and "process 1 of" in said and "(SIGKILL)" in said
    assert [p.name for p in (place / "work").rglob("checkpoint-*")] == ["checkpoint-4"]
    code, said = train(place, launch, "all")
    assert code == 0, said
    resumed = work.content(place / "models/sft/one"), files.read_json(place / "run.json")
    other = project(grown, tmp_path / "other", monkeypatch)
    assert result(other, launch, "all") == resumed[1]
    assert work.content(other / "models/sft/one") == resumed[0]
    # another number of processes is another run
    code, said = train(place, "none", "all")
    assert code == 0 and len(list((place / "work/sft").iterdir())) == 2


def test_the_processes_end_when_the_stage_is_killed(place: Path) -> None:
    process = start(place, "cpu2", "all", python=sys.executable)
    try:
        children: list[str] = []
        deadline = time.monotonic() + 60
        while len(children) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
            tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            children = [
                pid
                for pid in tasks.read_text().split()
                if "tests.builders.launched"
                in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
                and b"libc.so" in Path(f"/proc/{pid}/maps").read_bytes()
            ]
        assert len(children) == 2
        time.sleep(3)  # until they have asked the kernel to end with their parent
    finally:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 30
    while any(running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [pid for pid in children if running(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ddp_and_fsdp_want_gpus(place: Path) -> None:
    for launch in ("ddp", "fsdp"):
        code, said = train(place, launch, "all")
        assert code == 1 and "this machine has none" in said, said


def test_one_process_is_launched_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    launching.spread(None, "stages.dpo", shard=True)
    assert launching.processes() == launching.Processes(1, 0, False)
    for name, value in {"LOCAL_RANK": "1", "RANK": "9", "WORLD_SIZE": "16"}.items():
        monkeypatch.setenv(name, value)
    launching.spread("ddp", "stages.dpo", shard=True)  # in a process of a launch
    assert launching.processes() == launching.Processes(16, 9, False)
    assert replace(launching.processes(), rank=0).first and not launching.processes().first


def test_params_name_a_file_of_launch(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    for name in ("ddp", "fsdp", "cpu2", "dpp"):
        parameters.override(tmp_path, f"profiles/embedded.yaml:launch={name}")
        if name != "dpp":
            assert params.load(tmp_path).launch == name
    with pytest.raises(BadInput, match=r"\d: launch: there is no launch/dpp.yaml; have cpu2,"):
        params.load(tmp_path)


@pytest.mark.parametrize("file", sorted((ROOT / "launch").glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_takes_the_files(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    made = load_config_from_file(str(file))
    assert made.num_machines == 1 and made.main_process_port == 0


@pytest.mark.parametrize("launch", ["none", "cpu2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_is_one_line_and_the_checkpoint_stays(
    place: Path, launch: str, number: signal.Signals
) -> None:
    """Of torch, TRL and the processes that training was launched on nothing is heard."""
    python = sys.executable if (launch, number) == ("cpu2", signal.SIGINT) else None
    process = start(place, launch, "all", python=python, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not any((place / "work").rglob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        # as a terminal sends Ctrl-C: to all of them
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    words = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert said == f"error: {words}; run the same command again: it goes on from what is whole\n"
    assert any((place / "work").rglob("checkpoint-*/trainer_state.json"))
    assert not (place / "models/sft").exists()
