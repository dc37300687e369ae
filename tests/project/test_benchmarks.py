"""What benchmarks.train tells: its arithmetic, and one whole run of a few steps; benchmarks.dvc."""

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import train
from tests.builders import warm
from tests.conftest import ROOT, Run, environment

TOKENS = [[90, 120], [50, 100], [70, 80]]  # real and padded, a step


def told(side: str, tokens: list[list[int]]) -> dict[str, Any]:
    """As `measure` tells; ours takes half the time."""
    return {
        "seconds": 4.0 if side == "plain" else 2.0,
        "setup": 1.0,
        "whole": 5.0,
        "tokens": tokens,
        "loss": 2.0 if side == "plain" else 2.1,
        "peak": train.GIB,
        "rows": 2,
        "checkpointing": False,
    }


def case(kind: train.Kind, folder: Path) -> train.Case:
    chosen = train.recipe(kind, embedded=True)
    return train.case(kind, [], chosen, model=folder, folder=folder, warm=1)


def test_ratio_bound_and_gap_are_of_the_counted_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "fresh", lambda side, *_: told(side, TOKENS))
    found = train.compare(case("qlora", tmp_path), 2, tmp_path, exact=False, peak=None)
    # the warm-up is not counted, but its loss is
    assert found == {"ratio": 2.0, "bound": 1.5, "loss_gap": 0.05}
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split()[:4] == ["qlora", "plain", "30", "4.00"]  # 120 tokens in 4 s
    assert "bound 1.50 (133% of it)" in rows[2]


def test_sides_that_are_given_other_tokens_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"plain": TOKENS, "ours": [[90, 90], [51, 51], [69, 69]]}
    monkeypatch.setattr(train, "fresh", lambda side, *_: told(side, other[side]))
    with pytest.raises(SystemExit, match="sft: the two sides were given other tokens"):
        train.compare(case("sft", tmp_path), 1, tmp_path, exact=False, peak=None)


def test_the_work_of_dpo_is_a_quarter_less_without_the_reference(tmp_path: Path) -> None:
    shape = {"model_type": "llama", **train.SHAPES["open_llama_3b_v2"]}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    both = case("dpo", tmp_path)
    plain, ours = (train.work(both, side, told(side, TOKENS), 120) for side in ("plain", "ours"))
    # the head's own pass again, which both sides take, is the small rest
    assert 0.75 * plain < ours < 0.755 * plain
    # four passes of 6.65 GFLOP a token, as tests/training/test_memory.py has them
    assert plain == pytest.approx(4 * 120 * 6.65e9, rel=0.02)


def test_the_recipe_is_the_paper_s_batches_or_the_embedded_profile() -> None:
    how, amount = train.recipe("qlora", embedded=False)
    assert (amount.batch_size, amount.max_length, how.lora_dropout) == (64, 512, 0)
    assert train.recipe("qlora", embedded=True)[1].batch_size == 16
    both, _ = train.recipe("dpo", embedded=False, weights="adapter")
    assert (both.weights, both.max_prompt_tokens, both.max_answer_tokens) == ("adapter", 384, 128)


@pytest.mark.slow
def test_what_the_benchmark_of_dvc_takes_the_time_of_is_there() -> None:
    timed = runpy.run_path(str(ROOT / "benchmarks/timed/sitecustomize.py"))
    for module, names in timed["COMPUTE"].items():
        for name in names:
            assert callable(getattr(importlib.import_module(module), name)), name


@pytest.mark.slow
def test_a_run_ends_with_every_kind_s_numbers(tmp_path: Path) -> None:
    """A process a side, as a user runs it; both sides see the same tokens, or it fails."""
    arguments = ["--embedded", "--steps", "2", "--warm", "1", "--repeats", "1", "--batch", "4"]
    arguments.append("--deterministic")
    done = subprocess.run(
        [warm.python(settled=False), "-m", "benchmarks.train", *arguments],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *table, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found.keys() == {"qlora", "sft", "dpo"}
    for kind, numbers in found.items():
        assert numbers.keys() == {"ratio", "bound", "loss_gap", "exact"} and numbers["exact"] > 0
        assert numbers["bound"] > 1.05  # rows differ in length
        assert numbers["loss_gap"] < 0.01
        sides = [row.split()[1] for row in table if row.startswith(kind)][:3]
        assert sides == ["plain", "ours", "exact"]
    assert any(row.startswith("dpo    whole") for row in table)


@pytest.mark.slow
def test_what_equal_bits_cost_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.arithmetic", "1", "1"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["cpu"] and 0.5 < told["avx2_to_own"] < 5


@pytest.mark.slow
def test_a_step_takes_the_memory_that_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "WEIGHED", [(2, 256)])
    monkeypatch.setattr(train, "WAYS", train.WAYS[:1])
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path))
    model = train.grown(tmp_path / "model")
    found = train.memories(model, tmp_path)
    assert found == {"qlora": {"2x256": pytest.approx(1, abs=0.15)}}


@pytest.mark.slow
def test_what_dvc_adds_is_told_of_a_finished_run(finished: Run) -> None:
    run = finished
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dvc", "--quick", "--repeats", "1"],
        cwd=run.folder,
        env=run.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["noop_ratio"] > 0 and told["startup_cpu_s"] > 0 and told["own_overhead"] is None
    assert run.dvc("status", "--quiet", check=False).returncode == 0, "it changed the run"
