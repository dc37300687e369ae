"""No wait without an end or a word, and an end that leaves nothing lying about."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm
from bezoar.llm import client
from bezoar.llm import openai as openai_wire
from bezoar.llm.budget import Purse
from bezoar.llm.ledger import Bill, Ledger
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask
from tests.builders import ROOT
from tests.builders.clients import connected, openai, run, say, user, work
from tests.builders.servers import Faults, serving

assert work  # the fixture of a scratch folder


def test_a_pause_longer_than_patience_ends_the_stage_with_the_servers_words() -> None:
    def closed(*_: Any) -> Any:
        return 429, {"error": {"message": "daily quota"}}, "Retry-After: 7200\r\n"

    began = time.monotonic()
    with serving(script=closed) as (_, url), pytest.raises(BadInput) as raised:
        run(openai(url, max_failed=1, patience=1), [f"p{n}" for n in range(200)])
    assert time.monotonic() - began < 10
    message = str(raised.value)
    assert re.search(r"asks to wait until [\d: -]+ .*daily quota.*patience of 1 s", message)


def test_a_pause_of_days_is_shown_with_its_date() -> None:
    def closed(*_: Any) -> Any:
        return 503, {"error": {"message": "closed"}}, "Retry-After: 259200\r\n"

    with serving(script=closed) as (_, url), pytest.raises(BadInput) as raised:
        run(openai(url, max_failed=1, patience=1), [f"p{n}" for n in range(200)])
    assert re.search(r"asks to wait until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", str(raised.value))


@pytest.mark.slow
@pytest.mark.parametrize("pause", ["Retry-After: 1" + 18 * "0", "retry-after-ms: inf"])
def test_a_pause_without_an_end_ends_the_stage(pause: str) -> None:
    def closed(*_: Any) -> Any:
        return 429, {"error": {"message": "closed"}}, f"{pause}\r\n"

    began = time.monotonic()
    with serving(script=closed) as (_, url):
        try:
            result = run(openai(url, max_failed=1, patience=1), [f"p{n}" for n in range(40)])
            assert len(result.failures) == 40
        except BadInput as error:
            assert "asks to wait until" in str(error)
    assert time.monotonic() - began < 10


def test_one_request_that_is_to_wait_for_an_hour_takes_no_patience_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.05)
    tries: list[str] = []

    def script(prompt: str, _: Any) -> Any:
        tries.append(prompt)
        if prompt == "p0":
            return 429, {"error": {"message": "not you"}}, "Retry-After: 3600\r\n"
        return (500, {"error": {"message": "hm"}}, "") if tries.count(prompt) < 3 else None

    prompts = [f"p{n}" for n in range(8)]
    with serving(script=script) as (_, url):
        result = run(openai(url, max_failed=0.2, patience=30, concurrency=8), prompts)
    (failure,) = result.failures
    assert failure.job == "p0" and "the server asks to wait until" in failure.reason


@pytest.mark.slow
def test_the_rest_of_a_cap_that_a_halted_process_holds_is_not_waited_for_longer_than_patience(
    work: Path,
) -> None:
    """Another owner lives, has all but nothing of the cap set aside, and never moves."""
    with serving() as (model, url):
        endpoint = openai(url, patience=0.3, timeout=0.3)
        ledger = Ledger()
        bill = Bill("run", "generate", "x", "m")
        halted = Purse(ledger, bill, None, 0.01)
        assert halted.take("ab" * 32, 0.00999) == "taken"
        wire = openai_wire.Wire(endpoint, "")
        ask = client.Client(endpoint, wire, Ledger(), Purse(Ledger(), bill, None, 0.01), "")
        began = time.monotonic()
        with pytest.raises(BadInput, match="set aside by other processes that have not moved"):
            llm.run_jobs(say, ["a", "b"], ask, endpoint, prefix="test", name=str)
        assert time.monotonic() - began < 10 and not model.attempts
        ask.close()
        halted.close()


@pytest.mark.slow
def test_a_server_that_says_nothing_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.05)
    with serving() as (_, url):
        pass
    began = time.monotonic()
    result = run(
        openai(url, max_failed=1, patience=0.5, concurrency=2), [f"p{n}" for n in range(40)]
    )
    assert time.monotonic() - began < 4, "twenty times half a second, if each waited for itself"
    assert len(result.failures) == 40


@pytest.mark.slow
def test_a_server_that_takes_requests_and_never_answers_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.05)
    began = time.monotonic()
    with serving(Faults(latency=60)) as (model, url):
        endpoint = openai(url, max_failed=1, patience=1, timeout=0.5, concurrency=4)
        result = run(endpoint, [f"p{n}" for n in range(60)])
    assert time.monotonic() - began < 8, "half a minute, if each were sent by itself"
    assert len(result.failures) == 60 and sum(model.attempts.values()) < 30
    assert any("no reply to anything" in failure.reason for failure in result.failures)


def test_past_max_failed_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request is refused for good while others are asked to come back later."""
    monkeypatch.setattr(client, "GRACE", 0.5)

    def script(prompt: str, _: Any) -> Any:
        if prompt == "bad":
            return 400, {"error": {"message": "never"}}, ""
        return 503, {"error": {"message": "later"}}, "Retry-After: 20\r\n"

    began = time.monotonic()
    with serving(script=script) as (_, url), pytest.raises(BadInput, match="HTTP 400: never"):
        run(
            openai(url, patience=900, timeout=600),
            ["p0", "p1", "bad", *(f"p{n}" for n in range(2, 20))],
        )
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_replies_under_way_are_kept_when_the_stage_has_failed() -> None:
    def script(prompt: str, _: Any) -> Any:
        return (400, {"error": {"message": "never"}}, "") if prompt == "bad" else None

    with serving(Faults(latency=0.5), script=script) as (model, url), pytest.raises(BadInput):
        run(openai(url), ["good", "bad"])
    assert model.paid == {"good": 1} and len(Ledger()) == 1


@pytest.mark.slow
def test_a_hanging_server_holds_up_a_failed_stage_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "GRACE", 0.5)

    def script(prompt: str, _: Any) -> Any:
        return (400, {"error": {"message": "never"}}, "") if prompt == "bad" else None

    began = time.monotonic()
    with serving(Faults(latency=60), script=script) as (_, url), pytest.raises(BadInput):
        run(openai(url, timeout=600, patience=900), ["good", "bad"])
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_every_so_often_a_line_says_what_is_waited_for_and_until_when(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "REPORT_EVERY", 1.0)
    with serving(Faults(latency=3.5)) as (_, url):
        run(openai(url, patience=60, concurrency=2), ["a", "b", "c"])
    lines = [line for line in capfd.readouterr().err.splitlines() if "waiting for" in line]
    assert 2 <= len(lines) <= 8
    told = r"llm: waiting for 2 replies of m; the oldest for \d s, given up by "
    assert re.match(told + r"\d\d:\d\d:\d\d", lines[0])


@pytest.mark.slow
def test_a_pause_that_the_server_asks_for_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "REPORT_EVERY", 1.0)
    tries: list[str] = []

    def script(prompt: str, _: Any) -> Any:
        tries.append(prompt)
        if len(tries) <= 4:
            return 429, {"error": {"message": "slow down"}}, "Retry-After: 3\r\n"
        return None

    with serving(script=script) as (_, url):
        run(openai(url), ["a", "b", "c", "d"])
    said = capfd.readouterr().err
    assert re.search(r"until \d\d:\d\d:\d\d \(HTTP 429: slow down\)", said)
    assert "llm: 4 requests of m wait; " in said and " 0 replies" not in said


# --- a stage's end -------------------------------------------------------------------------------

# Python's development mode prints a line for each step of asyncio that took long, which a busy
# machine makes many of. They say nothing of how the stage ended.
STAGE = """
import logging, sys
logging.getLogger("asyncio").setLevel(logging.ERROR)
from bezoar import llm, work
from tests.builders.clients import openai, say
work.die_with_parent()
where = openai(sys.argv[1], concurrency=4, max_failed=float(sys.argv[3]), timeout=60)
ask = llm.connect(where)
prompts = [f"p{n}" for n in range(int(sys.argv[2]))]
llm.run_jobs(say, prompts, ask, where, prefix="generate@x", name=str)
print("done")
"""


def stage(url: str, jobs: int = 40, most: float = 0.0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-X", "dev", "-c", STAGE, url, str(jobs), str(most)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )


@pytest.mark.slow
def test_ctrl_c_prints_one_line_and_keeps_what_came() -> None:
    with serving(Faults(latency=0.2)) as (model, url):
        process = stage(url, 400)
        while sum(model.paid.values()) < 12:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and not out
    (line,) = err.splitlines()
    assert re.match(r"error: generate@x: interrupted; \d+ of 400 jobs are not done; run the", line)
    assert len(Ledger()) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.005, 0.02, 0.2])
def test_ctrl_c_twice_prints_no_traceback(apart: float) -> None:
    with serving(Faults(latency=0.2)) as (model, url):
        process = stage(url, 400)
        while sum(model.paid.values()) < 12:
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(4):
            process.send_signal(signal.SIGINT)
            time.sleep(apart)
        _, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err and len(err.splitlines()) <= 1


@pytest.mark.slow
def test_ctrl_c_elsewhere_in_a_stage_prints_one_line() -> None:
    code = "import time; from bezoar import work; work.die_with_parent(); print(1, flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(60)"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT, 1)
    assert err.splitlines() == [
        "error: interrupted; run the same command again: it goes on from what is whole"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("stages.generate", "generate@lamini"),
        ("bezoar.report",),
        ("bezoar.recipe", "whole"),
        ("bezoar.sources.link",),
        ("demos.lanes",),
    ],
)
def test_ctrl_c_while_a_command_is_imported_prints_one_line(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'yaml': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode and process.stderr.startswith("error: interrupted; run the same")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{}, {"bad": "p7"}, {"drop": 0.3}, {"latency": 0.05}])
def test_nothing_lies_about_at_the_end(faults: dict[str, Any]) -> None:
    """Python's development mode says what was not closed."""
    with serving(Faults(**faults)) as (_, url):
        process = stage(url)
        out, err = process.communicate(timeout=60)
    assert "Unclosed" not in err and "ResourceWarning" not in err and "futures" not in err
    assert "Traceback" not in err and (out == "done\n") is ("bad" not in faults)


def test_a_client_may_ask_again_after_a_run() -> None:
    with serving() as (model, url), connected(endpoint := openai(url)) as ask:
        for prompts in (["a"], ["a", "b"]):
            llm.run_jobs(say, prompts, ask, endpoint, prefix="test", name=str)
        assert ask(user("c")).text
    assert model.paid == {"a": 1, "b": 1, "c": 1}


def test_the_rest_of_a_job_is_done_after_a_request_that_failed() -> None:
    def three(job: str, ask: Ask) -> list[str]:
        return [ask(user(text)).finish_reason for text in (job, f"ALWAYS-400 {job}", f"{job}!")]

    with serving() as (_, url), connected(endpoint := openai(url, max_failed=1)) as ask:
        result = llm.run_jobs(three, ["a", "b"], ask, endpoint, prefix="test", name=str)
    assert [row for _, row in result.done] == [["stop", "failed", "stop"]] * 2
    assert [(f.job, f.step) for f in result.failures] == [("a", 1), ("b", 1)]
    assert [(e.job, e.step) for e in result.exchanges] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_ledger_that_cannot_be_written_stops_before_anything_is_sent(work: Path) -> None:
    folder = work / "ledger"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    try:
        with serving() as (model, url), pytest.raises(BadInput, match="cannot be"):
            run(openai(url), ["a"])
        assert not model.attempts
    finally:
        folder.chmod(0o700)
