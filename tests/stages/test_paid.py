"""generate and judge over HTTP: killed at any moment, at any concurrency, with faults, the outs
have the same bytes, and no answer is paid for twice beyond those in flight."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import parameters
from tests.builders.paid import CONCURRENCY, point, speak
from tests.builders.servers import Faults, Model, serving
from tests.conftest import environment

pytestmark = pytest.mark.slow


@pytest.fixture
def seeded(project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with its seeds fetched."""
    env = environment(tmp_path / "work")
    for source in ("dolly", "topics"):
        command = [sys.executable, "-m", "stages.fetch", source]
        subprocess.run(command, cwd=project, env=env, check=True, timeout=120, capture_output=True)
    yield project


def start(project: Path, work: Path, stage: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", "lamini"],
        cwd=project,
        env=environment(work),
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(project: Path, work: Path, stage: str) -> dict[str, bytes]:
    """The stage's outs, its spending among them."""
    process = start(project, work, stage)
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, said
    out = project / "data" / stage / "lamini"
    spent = project / "metrics" / stage / "lamini_spending.json"
    return {path.name: path.read_bytes() for path in [*sorted(out.iterdir()), spent]}


def kill_at(project: Path, work: Path, stage: str, model: Model, paid: int) -> None:
    """Start the stage and kill -9 it when the server has been paid so often, all in all."""
    process = start(project, work, stage)
    try:
        deadline = time.monotonic() + 60
        while sum(model.paid.values()) < paid and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_generate_and_judge_survive_kills_and_faults_byte_for_byte(
    seeded: Path, tmp_path: Path
) -> None:
    with serving(Faults(latency=0.01), speak=speak) as (model, url):
        point(seeded, url)
        whole = {stage: finish(seeded, tmp_path / "one", stage) for stage in ("generate", "judge")}
        distinct = len(model.paid)
        assert set(model.paid.values()) == {1} and distinct > 20
        spent = [json.loads(outs["lamini_spending.json"]) for outs in whole.values()]
        assert sum(row["calls"] for row in spent) == distinct
        assert all(row["model"] == "m" and row["usd"] > 0 for row in spent)
        assert finish(seeded, tmp_path / "one", "generate") == whole["generate"]
        assert sum(model.paid.values()) == distinct, "a run again buys nothing"
        # a cold ledger, a server that stumbles, three kills
        model.paid.clear()
        model.faults.error = model.faults.drop = 0.05
        at = 0
        for stage in ("generate", "judge"):
            kills = (3, 11, 19)
            for more in kills:
                kill_at(seeded, tmp_path / "two", stage, model, at + more)
            assert finish(seeded, tmp_path / "two", stage) == whole[stage]
            at = sum(model.paid.values())
        assert len(model.paid) == distinct
        assert at <= distinct + 2 * len(kills) * CONCURRENCY
        # another concurrency, a third machine
        point(seeded, url, concurrency=1)
        assert finish(seeded, tmp_path / "three", "judge") == whole["judge"]


def test_a_machine_warmed_from_pulled_outs_buys_nothing(seeded: Path, tmp_path: Path) -> None:
    with serving(speak=speak) as (model, url):
        point(seeded, url)
        whole = {stage: finish(seeded, tmp_path / "one", stage) for stage in ("generate", "judge")}
        before = sum(model.paid.values())
        subprocess.run(
            [sys.executable, "-m", "bezoar.ledger", "import", "data"],
            cwd=seeded,
            env=environment(tmp_path / "two"),
            check=True,
            timeout=60,
        )
        for stage, outs in whole.items():
            assert finish(seeded, tmp_path / "two", stage) == outs
        assert sum(model.paid.values()) == before


def test_at_the_cap_a_stage_ends_keeps_all_and_goes_on_when_the_cap_is_raised(
    seeded: Path, tmp_path: Path
) -> None:
    with serving(speak=speak) as (model, url):
        point(seeded, url)
        with parameters.changed(seeded) as document:
            document["profiles"]["embedded"]["budget_usd"]["stage"] = 0.004
        process = start(seeded, tmp_path / "work", "generate")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1 and "raise budget_usd.stage" in said
        assert "Traceback" not in said and not (seeded / "data/generate").exists()
        before = sum(model.paid.values())
        assert before > 0
        with parameters.changed(seeded) as document:
            document["profiles"]["embedded"]["budget_usd"]["stage"] = None
        spent = json.loads(finish(seeded, tmp_path / "work", "generate")["lamini_spending.json"])
        assert spent["calls"] == sum(model.paid.values()) > before
        assert set(model.paid.values()) == {1}


def test_a_prompt_that_is_always_refused_is_a_row_and_above_the_share_an_error(
    seeded: Path, tmp_path: Path
) -> None:
    with serving(Faults(bad="Category: brainstorming"), speak=speak) as (_, url):
        point(seeded, url, max_failed=0.9)
        outs = finish(seeded, tmp_path / "work", "generate")
        rows = [json.loads(line) for line in outs["failures.jsonl"].splitlines()]
        assert rows and all(row["status"] == 400 and row["attempts"] == 1 for row in rows)
        point(seeded, url, max_failed=0.0)
        process = start(seeded, tmp_path / "work", "generate")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1 and "max_failed" in said and "Traceback" not in said
        assert os.path.basename(seeded) not in said  # noqa: PTH119


def test_own_answers_reach_the_teacher_and_never_a_rows_own_seed(
    seeded: Path, tmp_path: Path
) -> None:
    def answer(prompt: str) -> str:
        return speak(prompt.rpartition("\n\nSYSTEM:")[2] or prompt)

    with serving(speak=answer, keep_bodies=True) as (model, url):
        point(seeded, url)
        document = parameters.read(seeded)
        document["schemes"]["lamini"]["answers_shown"] = 2
        parameters.write(seeded, document)
        finish(seeded, tmp_path / "one", "generate")
        sent = [json.loads(body)["messages"] for _, _, body in model.bodies if b"messages" in body]
    talks = [messages for messages in sent if len(messages) > 1]
    seeds = {
        seed["id"]: seed
        for line in (seeded / "data/fetch/dolly/seeds.jsonl").read_text().splitlines()
        for seed in [json.loads(line)]
    }
    rows = [
        json.loads(line)
        for line in (seeded / "data/generate/lamini/samples.jsonl").read_text().splitlines()
    ]
    assert rows and talks
    for row in rows:
        talk = next(talk for talk in talks if row["instruction"] in talk[-1]["content"])
        shown = [seeds[id] for id in row["details"]["answers_shown"].split(", ")]
        assert [turn["role"] for turn in talk] == ["user", "assistant"] * 2 + ["user"]
        assert [turn["content"] for turn in talk[1::2]] == [seed["response"] for seed in shown]
        assert not {*row["seeds"]} & {seed["id"] for seed in shown}
        own = {(seeds[id]["instruction"], seeds[id]["context"]) for id in row["seeds"]}
        assert not own & {(seed["instruction"], seed["context"]) for seed in shown}
