"""Claims: two processes never buy one request twice, and one cap holds for all of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bezoar import llm
from bezoar.llm import claims as module
from bezoar.llm import elsewhere
from bezoar.llm.budget import Purse
from bezoar.llm.claims import Claims
from bezoar.llm.ledger import Bill, Ledger
from bezoar.rows.files import BadInput
from tests.builders import ROOT
from tests.builders.clients import (
    connected,
    openai,
    say,
    user,
    work,  # noqa: F401  (a fixture)
)
from tests.builders.servers import Faults, Model, serving

BILL = Bill("run", "generate", "lamini", "m")
KEYS = [f"{n:064x}" for n in range(20)]


def claims(folder: Path, bill: Bill = BILL) -> Claims:
    return Claims(Ledger(folder), bill)


def take(one: Claims, key: str, usd: float = 0.5, batch: bool = False) -> bool:
    """Whether `one` gets the claim."""
    with one.locked():
        if one.holder(key):
            return False
        one.take(key, usd, batch)
    return True


def lines(folder: Path) -> Path:
    return folder / "claims" / "lines"


# --- one request, one owner ----------------------------------------------------------------------


def test_a_request_is_one_owners_until_it_lets_go(tmp_path: Path) -> None:
    one, other = claims(tmp_path), claims(tmp_path)
    assert take(one, KEYS[0]) and not take(other, KEYS[0]) and take(other, KEYS[1])
    assert take(one, KEYS[0]), "its own it may claim again"
    one.release(KEYS[0])
    assert take(other, KEYS[0])


def test_a_claim_ends_with_its_owner(tmp_path: Path) -> None:
    one, other = claims(tmp_path), claims(tmp_path)
    assert take(one, KEYS[0])
    one.close()
    assert take(other, KEYS[0])


HOLDER = """
import os, sys, time
from tests.llm.test_claims import *
one = claims(Path(sys.argv[1]), Bill(*sys.argv[2].split("/")))
assert all(take(one, key, float(sys.argv[3]), batch=sys.argv[4] == "batch") for key in KEYS[:3])
print("held", flush=True)
time.sleep(60)
"""


def holding(folder: Path, usd: float = 0.5, kind: str = "live") -> "subprocess.Popen[str]":
    """Another process that has three requests under way."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), "/".join(BILL), str(usd), kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_what_a_killed_process_had_under_way_is_free_and_counted_as_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with holding(tmp_path) as process:
        here = claims(tmp_path)
        assert not take(here, KEYS[0])
        process.send_signal(signal.SIGKILL)
    book = Ledger(tmp_path)
    book.put(KEYS[2], {"reply": {}}, BILL, 0.1)  # answered, and killed before it could say so
    book.close()
    assert take(here, KEYS[0])
    assert f"2 requests were under way when process {process.pid} ended" in capsys.readouterr().err
    after = Ledger(tmp_path)
    assert after.lost == {BILL: 1.0} and sum(after.spent.values()) == 1.1
    another = claims(tmp_path)
    assert take(another, KEYS[1]), "and charged once, whoever finds it"
    assert Ledger(tmp_path).lost == {BILL: 1.0}


@pytest.mark.slow
def test_a_batch_of_a_killed_process_goes_on_and_is_not_lost(tmp_path: Path) -> None:
    with holding(tmp_path, kind="batch") as process:
        process.send_signal(signal.SIGKILL)
    assert take(claims(tmp_path), KEYS[0]) and not Ledger(tmp_path).lost


def test_dollars_set_aside_are_everybodys(tmp_path: Path) -> None:
    one = claims(tmp_path)
    other = claims(tmp_path, Bill("run", "judge", "lamini", "n"))
    foreign = claims(tmp_path, Bill("another", "judge", "lamini", "n"))
    for n, owner in enumerate((one, other, foreign)):
        assert take(owner, KEYS[n], 0.25)
    with one.locked():
        assert one.set_aside(("run",)) == 0.5 and one.others("run")
        assert one.set_aside(("run", "judge", "lamini")) == 0.25
    other.rest(KEYS[1])
    other.flush()
    with one.locked():
        assert one.set_aside(("run",)) == 0.25 and not one.others("run")
    assert not take(one, KEYS[1]), "a request that rests is still claimed"


# --- the file ------------------------------------------------------------------------------------


SPOILT = {
    "torn": b"c 1-aaaaaaaa 00",
    "torn in the middle of a key": b"o 1-aaaaaaaa run/a/b/m\nc 1-aaaaaaaa " + KEYS[3].encode()[:40],
    "another program's": b"\xff\xfe\x00 not ours\n{}\n",
    "no number": f"o 1-aaaaaaaa r/a/b/m\nc 1-aaaaaaaa {KEYS[3]} 1e9 l\n".encode(),
    "less than nothing": f"o 1-aaaaaaaa r/a/b/m\nc 1-aaaaaaaa {KEYS[3]} -5 l\n".encode(),
    "no owner": f"c 9-99999999 {KEYS[3]} 5000000000 l\n".encode(),
    "a bill of two parts": f"o 1-aaaaaaaa r/a\nc 1-aaaaaaaa {KEYS[3]} 5 l\n".encode(),
    "nothing": b"",
    "one long line": b"c" * 1_000_000,
    "zeros, as after a power cut": b"\0" * 5000,
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_file_claims_nothing_and_hides_nothing(tmp_path: Path, spoilt: bytes) -> None:
    lines(tmp_path).parent.mkdir()
    lines(tmp_path).write_bytes(spoilt)
    one, other = claims(tmp_path), claims(tmp_path)
    assert take(one, KEYS[3]) and not take(other, KEYS[3])
    with lines(tmp_path).open("ab") as out:
        out.write(spoilt)
    assert take(one, KEYS[4]) and not take(other, KEYS[4]) and not take(other, KEYS[3])
    assert not Ledger(tmp_path).lost


def test_the_file_does_not_grow_with_what_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 5_000)
    one, other = claims(tmp_path), claims(tmp_path)
    assert take(one, KEYS[0]) and take(other, KEYS[1])
    for n in range(500):
        assert take((one, other)[n % 2], f"{n + 100:064x}")
        (one, other)[n % 2].release(f"{n + 100:064x}")
    assert lines(tmp_path).stat().st_size < 6_000
    assert not take(one, KEYS[1]) and not take(other, KEYS[0])
    with one.locked():
        assert one.set_aside(("run",)) == 1.0
    one.close()
    other.close()
    last = claims(tmp_path)
    assert take(last, KEYS[5])
    assert lines(tmp_path).stat().st_size < 200, "owners that are gone leave nothing"
    assert len(list(lines(tmp_path).parent.glob("*.owner"))) == 1


def test_a_claims_folder_that_cannot_be_written_is_an_error_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    (tmp_path / "claims").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="claims"):
        take(claims(tmp_path), KEYS[0])


def test_a_claim_that_could_not_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = claims(tmp_path)
    assert take(one, KEYS[0])
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 40:
            return real(descriptor, data[:40])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            take(one, KEYS[1])
    other = claims(tmp_path)
    assert take(other, KEYS[1]) and not take(other, KEYS[0])
    one.close()
    assert sum(Ledger(tmp_path).lost.values()) == 0.5, "what was sent, and no more"


def test_names_in_a_foreign_file_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "precious.owner").write_text("mine")
    lines(tmp_path).parent.mkdir()
    lines(tmp_path).write_text(f"o ../precious r/a/b/m\nc ../precious {KEYS[0]} 5 l\n")
    assert take(claims(tmp_path), KEYS[0])
    assert (tmp_path / "precious.owner").exists()


def test_a_lock_that_stays_locked_is_an_error_and_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCKED", 0.05)
    one, other = claims(tmp_path), claims(tmp_path)
    assert take(other, KEYS[0])
    with one.locked(), pytest.raises(TimeoutError, match="locked by another process"):
        take(other, KEYS[1])


# --- clients -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "LOOK", 0.02)
    monkeypatch.setattr("bezoar.llm.client.backoff", lambda attempts: 0.01)


@pytest.mark.slow
def test_two_clients_of_one_process_buy_a_request_once() -> None:
    """As the members of a panel are, on one ledger."""
    with serving(Faults(latency=0.05, error=0.1)) as (model, url):
        prompts = [f"p{n}" for n in range(60)]
        endpoint = openai(url)
        with connected(endpoint) as one, connected(endpoint) as other:
            jobs = [(prompt, ask) for prompt in prompts for ask in (one, other)]
            result = llm.run_jobs(
                lambda job, _: say(job[0], job[1]), jobs, one, endpoint, prefix="t", name=str
            )
    assert len(result.done) == 120 and set(model.paid.values()) == {1}


def test_a_request_that_another_gave_up_is_asked_here() -> None:
    with serving() as (model, url), connected(openai(url)) as here:
        there = Claims(Ledger(), BILL)
        key = here(user("first")).key
        with there.locked():
            for n in range(5):
                there.take(request(here, f"p{n}"), 0.1, batch=False)
        started = threads(lambda n: here(user(f"p{n}")).text, 5)
        time.sleep(0.1)
        assert sum(model.attempts.values()) == 1 and len(here.elsewhere) == 5
        assert here.elsewhere.words() == f"5 requests are under way in process {os.getpid()}"
        there.close()
        assert all(text.startswith("reply") for text in started()) and key
    assert set(model.paid.values()) == {1} and len(model.paid) == 6


def test_a_process_that_never_ends_a_request_is_waited_for_as_long_as_patience_says() -> None:
    with serving() as (model, url):
        endpoint = openai(url, max_failed=1, patience=0.1, timeout=0.1)
        with connected(endpoint) as here:
            there = Claims(Ledger(), BILL)
            assert take(there, request(here, "x"))
            result = llm.run_jobs(say, ["x"], here, endpoint, prefix="test", name=str)
    (failure,) = result.failures
    assert f"process {os.getpid()} had it under way" in failure.reason and not model.attempts


@pytest.mark.parametrize("spoil", ["file", "disk"])
def test_a_ledger_that_cannot_be_written_stops_the_stage_before_anything_is_sent(
    spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as (model, url):
        if spoil == "file":
            folder = Ledger().folder
            folder.mkdir(parents=True)
            (folder / "claims").write_text("no folder")
        else:
            real = os.write

            def full(descriptor: int, data: bytes) -> int:
                if data.startswith(b"c "):
                    raise OSError(28, "No space left on device")
                return real(descriptor, data)

            monkeypatch.setattr(module.os, "write", full)
        with pytest.raises(BadInput, match="what is bought cannot be written down") as raised:
            run(url)
        assert not model.attempts and "BEZOAR_WORK" in str(raised.value)
        assert "3 of 3 jobs" in str(raised.value)


def test_a_ledger_that_is_removed_under_a_stage_stops_it() -> None:
    with serving() as (model, url), connected(openai(url)) as ask:
        ask(user("one"))
        shutil.rmtree(Ledger().folder)
        with pytest.raises(Exception, match="folder was removed"):
            ask(user("two"))
        assert "two" not in model.attempts


def run(url: str) -> None:
    endpoint = openai(url)
    with connected(endpoint) as ask:
        llm.run_jobs(say, ["a", "b", "c"], ask, endpoint, prefix="test", name=str)


def request(ask: llm.client.Client, text: str) -> str:
    """The key that a prompt has with this client."""
    from bezoar.llm.wire import encode, request_key

    return request_key(ask.wire, encode(ask.wire.body(user(text))), 0)


def threads(one: Callable[[int], str], count: int) -> Callable[[], list[str]]:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(one, n) for n in range(count)]
    return lambda: [future.result(20) for future in futures]


# --- processes, with prices ----------------------------------------------------------------------

RUNNER = """
import sys
from bezoar import llm
from bezoar.llm import batch
from tests.builders import clients
batch.POLL, batch.LINGER = 0.05, 0.05
url, mode, cap, name = sys.argv[1:]
where = clients.openai(url, concurrency=8, mode=mode, api_key_env=None)
caps = clients.capped(None, float(cap) if cap else None)
ask = llm.connect(where, caps, "generate", name)
jobs = [f"prompt {n} " + "word " * 20 for n in range(240)]
assert len(llm.run_jobs(clients.say, jobs, ask, where, prefix="test", name=str).done) == 240
"""


def start(url: str, mode: str = "live", cap: str = "", name: str = "x") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, url, mode, cap, name],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def bill(model: Model, batch: bool) -> float:
    """What the server's owner charges, by its own books."""
    from bezoar.llm.budget import cost
    from bezoar.params import Price
    from tests.builders.servers import document

    price = Price(input=1.0, cached=0.1, output=2.0, batch=0.5)
    usd = 0.0
    for prompt, times in model.paid.items():
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
        usage = document("/v1/chat/completions", body, model.speak(prompt))["usage"]
        tokens = usage["prompt_tokens"], 0, usage["completion_tokens"]
        usd += times * cost(price, *tokens, batch)
    return usd


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_side_by_side_buy_each_request_once(mode: str, count: int) -> None:
    with serving(Faults(latency=0.02, error=0.05)) as (model, url):
        started = [start(url, mode, name=str(n)) for n in range(count)]
        assert [process.communicate(timeout=60)[1] for process in started] == [""] * count
        assert set(model.paid.values()) == {1} and len(model.paid) == 240
        assert sum(Ledger().spent.values()) == pytest.approx(bill(model, mode == "batch"))
        assert not Ledger().lost


FORKING = """
import os, signal, sys, time
from tests.llm.test_claims import *
with connected(openai(sys.argv[1], api_key_env=None)) as parent:
    assert parent(user("one")).text
    there = claims(Ledger().folder)
    assert take(there, KEYS[0])
    child = os.fork()
    if not child:
        with connected(openai(sys.argv[1], api_key_env=None)) as ask:
            assert ask(user("one")).text and ask(user("two")).text
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_child_that_is_forked_off_asks_for_itself_and_keeps_no_claim_of_its_parents() -> None:
    with serving() as (model, url):
        command = [sys.executable, "-c", FORKING, url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout
            child = int(parent.stdout.readline())
            try:
                while "two" not in model.paid:
                    time.sleep(0.01)
                parent.kill()
                parent.wait()
                assert take(claims(Ledger().folder), KEYS[0])
                assert set(model.paid.values()) == {1}
            finally:
                os.kill(child, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "cap"), [("live", 0.012), ("batch", 0.007)])
def test_one_cap_holds_for_all_processes_of_a_run(mode: str, cap: float) -> None:
    with serving(Faults(latency=0.02)) as (model, url):
        started = [start(url, mode, str(cap), str(n)) for n in range(3)]
        errors = [process.communicate(timeout=60)[1] for process in started]
        assert all(f"of budget_usd.run ${cap} are spent" in text for text in errors)
        assert 0.6 * cap < bill(model, mode == "batch") <= cap
        assert set(model.paid.values()) == {1}


@pytest.mark.slow
def test_kills_neither_lift_a_cap_nor_forget_what_was_lost() -> None:
    cap = 0.015
    with serving(Faults(latency=0.03)) as (model, url):
        started = [start(url, "live", str(cap), str(n)) for n in range(2)]
        for n in range(6):
            before = sum(model.paid.values())
            deadline = time.monotonic() + 20
            while sum(model.paid.values()) < before + 9 and time.monotonic() < deadline:
                time.sleep(0.001)
            started[n % 2].kill()
            started[n % 2].communicate()
            started[n % 2] = start(url, "live", str(cap), str(n))
        errors = [process.communicate(timeout=60)[1] for process in started]
        assert all("raise budget_usd.run" in text for text in errors), errors
        assert bill(model, False) <= cap
        book = Ledger()
        assert sum(book.lost.values()) > 0 and sum(book.spent.values()) <= cap
        assert sum(model.paid.values()) <= len(model.paid) + 6 * 8, "what was in flight at a kill"


@pytest.mark.slow
def test_processes_may_be_killed_at_any_moment_and_the_others_go_on() -> None:
    with serving(Faults(latency=0.02)) as (model, url):
        first, second = start(url), start(url, name="y")
        while sum(model.paid.values()) < 60:
            time.sleep(0.001)
        first.kill()
        first.communicate()
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 0, errors
        assert len(model.paid) == 240 and sum(model.paid.values()) <= 240 + 8


def test_a_purse_of_another_run_does_not_count(tmp_path: Path) -> None:
    one = Purse(Ledger(tmp_path), BILL, None, 1.0)
    other = Purse(Ledger(tmp_path), Bill("second", "generate", "lamini", "m"), None, 1.0)
    assert one.take(KEYS[0], 0.9) == "taken" and other.take(KEYS[1], 0.9) == "taken"
    assert one.take(KEYS[2], 0.2) == "dear" and not one.others()
    assert one.take(KEYS[1], 0.01) == "elsewhere"
