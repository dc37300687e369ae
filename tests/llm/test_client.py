"""The client against servers that speak the real protocols on loopback and misbehave to order."""

import email.utils
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm
from bezoar.llm import batch, client
from bezoar.llm import openai as openai_wire
from bezoar.llm.admission import Admission
from bezoar.llm.client import Failed
from bezoar.llm.ledger import Ledger
from bezoar.llm.wire import encode, request_key
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask, Message, Reply
from tests.builders import ROOT
from tests.builders.clients import KEY, anthropic, connected, openai, run, user, work
from tests.builders.servers import Faults, Model, reply_to, serving

__all__ = ["work"]  # fixtures


PROMPTS = [f"prompt {n} é\u2028" for n in range(60)]
RIGHT = [(prompt, reply_to(prompt)) for prompt in PROMPTS]


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [openai, anthropic])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(error=0.2),
        Faults(busy=0.1),
        Faults(later=0.2),
        Faults(drop=0.2),
        Faults(hangup=0.2),
        Faults(torn=0.2),
        Faults(html=0.2),
        Faults(empty=0.2),
        Faults(error=0.1, later=0.05, drop=0.1, hangup=0.05, torn=0.05, html=0.05, empty=0.05),
    ],
    ids=str,
)
def test_every_row_comes_and_each_is_bought_once(
    make: Any, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.005)
    with serving(faults) as (model, url):
        result = run(make(url), PROMPTS)
    assert result.done == RIGHT and not result.failures
    assert set(model.paid.values()) == {1}
    assert sum(model.statuses.values()) > len(PROMPTS), "nothing went wrong: the test is empty"


@pytest.mark.slow
def test_a_server_that_drips_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.005)
    with serving(Faults(drip=0.2)) as (model, url):
        assert run(openai(url, timeout=0.3), PROMPTS).done == RIGHT
    assert model.statuses["drip"]


def test_prompts_that_are_always_refused_cost_themselves_alone() -> None:
    prompts = [f"ALWAYS-400 {n}" if n in (3, 17, 18, 59) else f"prompt {n}" for n in range(60)]
    with serving() as (_, url):
        result = run(openai(url, max_failed=0.1), prompts)
    assert [prompt for prompt, text in result.done if text] == [
        p for p in prompts if "400" not in p
    ]
    assert [failure.model_dump() for failure in result.failures] == [
        {
            "job": p,
            "step": 0,
            "reason": "HTTP 400: never this prompt",
            "status": 400,
            "attempts": 1,
            "usd": 0.0,
        }
        for p in prompts
        if "400" in p
    ]


def test_a_later_step_that_fails_says_which_and_keeps_the_first() -> None:
    def two(job: str, ask: Ask) -> str:
        return ask(user(job)).text + ask(user(f"ALWAYS-400 {job}")).text

    with serving() as (_, url), connected(endpoint := openai(url, max_failed=1)) as ask:
        result = llm.run_jobs(two, ["a", "b"], ask, endpoint, prefix="test", name=str)
    assert result.done == [("a", reply_to("a")), ("b", reply_to("b"))], "what was answered stays"
    assert [f.step for f in result.failures] == [1, 1]
    assert [exchange.job for exchange in result.exchanges] == ["a", "b"]


def test_too_many_failures_end_the_run_early_and_say_why() -> None:
    with serving() as (model, url), pytest.raises(BadInput) as raised:
        run(openai(url, max_failed=0.02, concurrency=4), [f"ALWAYS-400 {n}" for n in range(500)])
    assert "max_failed" in str(raised.value) and "HTTP 400: never this prompt" in str(raised.value)
    assert model.statuses["400"] < 50


def test_an_answer_that_stays_broken_is_a_failure_with_what_it_may_have_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.0)
    with serving(Faults(empty=1)) as (model, url):
        result = run(openai(url, max_failed=1), ["x"])
    (failure,) = result.failures
    assert failure.attempts == client.SPOILT == model.statuses["empty"]
    assert "without choices" in failure.reason and failure.usd > 0


@pytest.mark.slow
def test_nobody_listens_until_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.05)
    with serving() as (_, url):
        pass
    result = run(openai(url, max_failed=1, patience=0.3), ["x"])
    (failure,) = result.failures
    assert failure.status is None and "patience" in failure.reason and failure.attempts > 2


def test_a_wait_longer_than_patience_is_not_waited_for() -> None:
    with serving(Faults(bucket=(0.001, 0), retry_after="3600")) as (_, url):
        (failure,) = run(openai(url, max_failed=1), ["x"]).failures
    assert failure.status == 429 and failure.attempts == 1


@pytest.mark.slow
def test_a_token_bucket_is_met_at_its_own_pace() -> None:
    prompts = [f"p{n}" for n in range(120)]
    with serving(Faults(bucket=(100, 20), retry_after="0.2", latency=0.01)) as (model, url):
        assert len(run(openai(url), prompts).done) == 120
    assert model.statuses["429"] < 60, "half of what plain retries would draw"


def test_an_error_of_a_job_ends_the_run_as_itself() -> None:
    def wrong(job: str, ask: Ask) -> str:
        ask(user(job))
        raise ZeroDivisionError(job)

    with serving() as (_, url), connected(endpoint := openai(url)) as ask:
        with pytest.raises(ZeroDivisionError):
            llm.run_jobs(wrong, ["a", "b"], ask, endpoint, prefix="test", name=str)
        assert ask(user("a")).text == reply_to("a"), "the client is still there"


# --- what is sent --------------------------------------------------------------------------------


@pytest.mark.slow
def test_openai_wire_format_is_the_packages_own() -> None:
    import openai as package

    turns = [{"role": "system", "content": "be é"}, {"role": "user", "content": "hi\u2028"}]
    messages = [Message.model_validate(turn) for turn in turns]
    params = {"max_tokens": 5, "temperature": 0, "stop": ["x"], "seed": None}
    with serving(keep_bodies=True) as (model, url):
        theirs = package.OpenAI(base_url=f"{url}/v1", api_key=KEY)
        chat: Any = theirs.chat.completions.create(
            model="m",
            messages=turns,
            max_tokens=5,
            temperature=0,
            stop=["x"],  # type: ignore[arg-type]
        )
        text = theirs.completions.create(model="m", prompt="once", max_tokens=5)
        with connected(openai(url, params=params)) as ask:
            assert ask(messages).text == chat.choices[0].message.content
        raw = openai(url, style="completion", params={"max_tokens": 5})
        with connected(raw) as ask:
            assert ask(user("once")).text == text.choices[0].text
    same_requests(model, ["POST /v1/chat/completions", "POST /v1/completions"])


@pytest.mark.slow
def test_anthropic_wire_format_is_the_packages_own() -> None:
    import anthropic as package

    messages = [Message(role="system", content="be é"), *user("hi\u2028")]
    with serving(keep_bodies=True) as (model, url):
        theirs: Any = package.Anthropic(base_url=url, api_key=KEY)
        reply = theirs.messages.create(
            model="m",
            system="be é",
            max_tokens=5,
            stop_sequences=["x"],
            messages=[{"role": "user", "content": "hi\u2028"}],
        )
        params = {"max_tokens": 5, "stop_sequences": ["x"]}
        with connected(anthropic(url, params=params)) as ask:
            assert ask(messages).text == next(b.text for b in reply.content if b.type == "text")
    same_requests(model, ["POST /v1/messages"])


def same_requests(model: Model, paths: list[str]) -> None:
    theirs, ours = model.bodies[: len(paths)], model.bodies[len(paths) :]
    assert [path for path, _, _ in theirs] == [path for path, _, _ in ours] == paths
    for (_, their_head, their_body), (_, our_head, our_body) in zip(theirs, ours, strict=True):
        assert json.loads(our_body) == json.loads(their_body)
        assert len(our_body) == len(their_body), "compact, and not escaped"
        for name, value in our_head.items():
            if name not in ("host", "user-agent", "accept-encoding", "content-length"):
                assert their_head[name] == value, name
        for name in ("authorization", "anthropic-version", "content-type", "accept"):
            assert our_head.get(name) == their_head.get(name), name


@pytest.mark.slow
@pytest.mark.parametrize("make", [openai, anthropic])
def test_the_real_packages_survive_the_same_server(make: Any) -> None:
    """The faults are faults of the protocol, not of our reading of it."""
    import anthropic as anthropic_package
    import openai as openai_package

    with serving(Faults(later=0.5)) as (model, url):
        for n in range(8):
            messages: Any = [{"role": "user", "content": f"p{n}"}]
            if make is openai:
                one = openai_package.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=9)
                text = one.chat.completions.create(model="m", messages=messages)
                assert text.choices[0].message.content == reply_to(f"p{n}")
            else:
                two: Any = anthropic_package.Anthropic(base_url=url, api_key=KEY, max_retries=9)
                told = two.messages.create(model="m", messages=messages, max_tokens=5)
                assert told.content[1].text == reply_to(f"p{n}")
    assert sum(model.statuses.values()) > 8


def test_length_is_kept_and_marked() -> None:
    with serving() as (_, url):
        for endpoint in (openai(url), openai(url, style="completion"), anthropic(url)):
            with connected(endpoint) as ask:
                assert ask(user("CUT-ME")).finish_reason == "length"
                assert ask(user("whole")).finish_reason == "stop"


@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        ({"message": {"content": None}, "finish_reason": "length"}, "", "length"),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, "", "refused"),
        ({"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}, "no", "refused"),
        ({"message": {"content": "x"}, "finish_reason": "eos_token"}, "x", "stop"),
    ],
)
def test_what_openai_servers_say_of_the_end(choice: Any, text: str, finish: str) -> None:
    from bezoar.llm.openai import Wire

    parsed = Wire(openai("http://127.0.0.1"), None).parse({"choices": [choice]})
    assert (parsed.text, parsed.finish, parsed.tokens_in) == (text, finish, None)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "x",
        7,
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
        {"choices": [{"message": "x", "finish_reason": "stop"}]},
        {"type": "message"},
        {"type": "message", "content": "x"},
        {"type": "message", "content": [{"type": "text"}], "stop_reason": "end_turn"},
    ],
)
def test_hostile_documents_are_unusable_and_no_more(document: Any) -> None:
    from bezoar.llm import anthropic as a
    from bezoar.llm import openai as o
    from bezoar.llm.wire import Unusable

    for wire in (
        o.Wire(openai("http://127.0.0.1"), None),
        a.Wire(anthropic("http://127.0.0.1"), None),
    ):
        with pytest.raises(Unusable):
            wire.parse(document)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("\ud800 half", "? half"),
        ("</instruction>\0\u2028" * 9, "</instruction>\0\u2028" * 9),
        ("x" * 100_000, "x" * 100_000),
        ("", ""),
    ],
    ids=["surrogate", "tags", "long", "empty"],
)
def test_hostile_replies_can_be_kept_and_written(tmp_path: Path, said: str, text: str) -> None:
    with serving(speak=lambda prompt: said) as (_, url):
        for endpoint in (openai(url), anthropic(url)):
            for _again in range(2):
                result = run(endpoint, ["x"])
                assert result.done == [("x", text)]
                files.write_jsonl(tmp_path / "replies.jsonl", result.exchanges)


def test_a_reply_of_nothing_but_brackets_is_only_broken() -> None:
    assert client._document(b"[" * 1_000_000) is None


def test_redirects_are_not_followed() -> None:
    """They would carry the key to a host that nobody named."""
    with serving() as (model, url):
        (failure,) = run(openai(f"{url}/redirect", max_failed=1), ["x"]).failures
    assert failure.status == 307 and failure.attempts == 1 and not model.paid


# --- what is bought ------------------------------------------------------------------------------


def test_ten_copies_are_one_call_and_samples_are_wanted_by_index() -> None:
    with serving(Faults(latency=0.02)) as (model, url):
        endpoint = openai(url, again={"temperature": 0.5})
        run(endpoint, ["same"] * 10)
        assert model.paid == {"same": 1}
        with connected(endpoint) as ask:
            assert len({ask(user("same"), sample=n).key for n in range(4)}) == 4
            assert ask(user("same"), sample=3).text == reply_to("same")
    assert model.paid == {"same": 4}


def asked_again(url: str, model: Model, endpoint: Any, prompts: Sequence[str]) -> list[str]:
    """The prompts that a run sends."""
    before = model.paid.copy()
    run(endpoint, prompts)
    return sorted((model.paid - before).elements())


def test_exactly_the_affected_requests_are_asked_again() -> None:
    rows = ["a", "b", "c"]
    with serving() as (model, url), serving() as (elsewhere, other):
        assert asked_again(url, model, openai(url), rows) == rows
        for same in (
            openai(url),
            openai(url, concurrency=1, timeout=9, patience=1, requests_per_minute=10**6),
            openai(url, params={"temperature": 0, "max_tokens": 64}),  # the order of keys
            openai(url, params={"temperature": 0, "max_tokens": 64, "top_p": None}),
            openai(url, price={"input": 9.0, "cached": 0, "output": 9.0, "batch": 1}),
            openai(url, base_url=f"{url}/v1/"),
        ):
            assert asked_again(url, model, same, rows) == []
        assert asked_again(url, model, openai(url), ["c", "a", "b"]) == []
        assert asked_again(url, model, openai(url), ["a", "b!", "c"]) == ["b!"]
        assert asked_again(url, model, openai(url), ["a", "b", "c", "d"]) == ["d"]
        for another in (
            openai(url, model="n"),
            openai(url, params={"temperature": 0.1, "max_tokens": 64}),
            openai(url, params={"temperature": 0, "max_tokens": 65}),
            openai(url, params={"temperature": 0, "max_tokens": 64, "top_p": 1}),
            openai(url, params={"max_tokens": 64}),
            openai(url, style="completion"),
            anthropic(url),
            anthropic(url, api_version="2023-06-01"),
        ):
            assert asked_again(url, model, another, rows) == rows
        assert asked_again(other, elsewhere, openai(other), rows) == rows


def test_a_system_prompt_is_part_of_the_request() -> None:
    with serving() as (model, url):
        for endpoint in (openai(url), anthropic(url)):
            with connected(endpoint) as ask:
                keys = {
                    ask([Message(role="system", content=system), *user("a")]).key
                    for system in ("be brief", "be long", "be brief")
                }
                assert len(keys | {ask(user("a")).key}) == 3
    assert model.paid["a"] == 2 and model.paid["be brief\n\na"] == 2


@pytest.mark.slow
def test_the_same_bytes_at_any_concurrency_and_order_of_arrival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chain(job: str, ask: Ask) -> list[str]:
        first = ask(user(job))
        return [first.text, ask(user(f"{job} {first.text}"), sample=1).text]

    monkeypatch.setattr(client, "backoff", lambda attempts: 0.005)
    written = []
    jobs = [f"{'ALWAYS-400 ' * (n == 7)}job {n % 30}" for n in range(40)]
    with serving(Faults(error=0.1, drop=0.1, torn=0.05)) as (_, url):
        for concurrency in (1, 7, 64):
            # a cold ledger each time, and replies that arrive in another order
            monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / str(concurrency)))
            endpoint = openai(url, concurrency=concurrency, max_failed=0.1)
            random.seed(concurrency)
            with connected(endpoint) as ask:
                result = llm.run_jobs(chain, jobs, ask, endpoint, prefix="test", name=str)
            out = tmp_path / f"out{concurrency}"
            files.write_jsonl(out / "replies.jsonl", result.exchanges)
            files.write_jsonl(out / "failures.jsonl", result.failures)
            files.write_json(out / "done.json", result.done)
            written.append([path.read_bytes() for path in sorted(out.iterdir())])
    assert written[0] == written[1] == written[2] and b"job 29" in written[0][2]


def test_threads_may_ask_too() -> None:
    with serving(Faults(latency=0.01)) as (model, url), connected(openai(url)) as ask:
        got: dict[int, Reply] = {}

        def one(n: int) -> None:
            got[n] = ask(user(f"p{n % 10}"))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        with pytest.raises(Failed, match="HTTP 400"):
            ask(user("ALWAYS-400"))
    assert {n: reply.text for n, reply in got.items()} == {
        n: reply_to(f"p{n % 10}") for n in range(30)
    }
    assert set(model.paid.values()) == {1} and len(model.paid) == 10


RUNNER = """
import sys
from tests.llm import test_client as t
t.run(t.openai(sys.argv[1], concurrency=8), [f"prompt {n}" for n in range(150)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 40, 120])
def test_killed_at_any_moment_nothing_is_paid_twice_beyond_what_was_in_flight(
    after: int, work: Path
) -> None:
    with serving(Faults(latency=0.02)) as (model, url):
        command = [sys.executable, "-c", RUNNER, url]
        first = subprocess.Popen(command, cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while sum(model.paid.values()) < after and time.monotonic() < deadline:
                assert first.poll() is None
                time.sleep(0.001)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        subprocess.run(command, cwd=ROOT, check=True, timeout=60)
        assert len(model.paid) == 150 and sum(model.paid.values()) <= 150 + 8
        before = model.paid.copy()
        subprocess.run(command, cwd=ROOT, check=True, timeout=60)
        assert model.paid == before


# --- keys ----------------------------------------------------------------------------------------


def test_the_key_is_written_nowhere(
    tmp_path: Path, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = [*PROMPTS[:5], "ALWAYS-400"]
    told = ""
    with serving(Faults(echo_key=True, error=0.2)) as (_, url):
        for endpoint in (openai(url, max_failed=1), anthropic(url, max_failed=1)):
            result = run(endpoint, prompts)
            files.write_jsonl(tmp_path / "replies.jsonl", result.exchanges)
            files.write_jsonl(tmp_path / "failures.jsonl", result.failures)
            assert [job for job, text in result.done if "***" in text] == prompts[:5]
            with pytest.raises(BadInput) as raised:
                run(endpoint.model_copy(update={"max_failed": 0.0}), prompts)
            told += str(raised.value) + repr(endpoint)
    output = capfd.readouterr()
    seen = [told, output.out, output.err]
    seen += [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert len(seen) > 5 and not any(KEY in text for text in seen)


def test_a_key_that_is_not_there_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(BadInput, match=r"\$TEST_KEY is not set"):
        llm.connect(openai("http://127.0.0.1:9"))


# --- admission: on a clock of our own ------------------------------------------------------------


class Line:
    """A server on a made-up clock: `slots` are served at once, each in `seconds`; a reply takes
    `tokens`; outside the clock nothing happens."""

    def __init__(self, admission: Admission, slots: int, seconds: float) -> None:
        self.admission, self.slots, self.seconds = admission, slots, seconds
        self.now = 0.0
        self.random = random.Random(1)
        self.free = [0.0] * slots
        self.busy: list[tuple[float, float]] = []
        self.sent: list[float] = []
        self.windows: list[float] = []

    def run(self, requests: int, tokens: int = 100) -> None:
        waiting = requests
        while waiting or self.busy:
            pause = self.admission.wait(self.now) if waiting else float("inf")
            if pause <= 0:
                waiting -= 1
                self.admission.sent(self.now, tokens)
                self.sent.append(self.now)
                slot = self.free.index(min(self.free))
                self.free[slot] = max(self.now, self.free[slot])
                self.free[slot] += self.seconds * self.random.uniform(0.5, 1.5)
                self.busy.append((self.free[slot], self.now))
                continue
            end = min((done for done, _ in self.busy), default=float("inf"))
            self.now = min(self.now + pause, end)
            for done, began in sorted(b for b in self.busy if b[0] <= self.now):
                self.busy.remove((done, began))
                self.admission.answered(self.now, done - began, tokens, tokens, 50)
                self.windows.append(self.admission.window)


def test_the_window_opens_to_its_ceiling_where_nothing_is_wrong() -> None:
    line = Line(Admission(200, None, None), slots=1000, seconds=1.0)
    line.run(2000)
    assert line.windows[-1] == 200 and line.windows[0] < 20


def test_a_server_that_queues_and_never_refuses_is_not_flooded() -> None:
    line = Line(Admission(200, None, None), slots=10, seconds=1.0)
    line.run(4000)
    late = line.windows[2000:]
    assert max(late) < 100 and min(late) > 10, "a queue of a few, and never a slot left idle"


def test_a_server_that_became_slow_for_its_own_reasons_keeps_the_window() -> None:
    line = Line(Admission(50, None, None), slots=1000, seconds=1.0)
    line.run(500)
    line.seconds = 10.0
    line.run(2000)
    assert line.windows[-1] > 40


def test_requests_and_tokens_a_minute_are_kept() -> None:
    line = Line(Admission(100, 10.0, None), slots=1000, seconds=0.5)
    line.run(200)
    assert len([t for t in line.sent if t < 10]) <= 10 * 10 + 2
    line = Line(Admission(100, None, 500.0), slots=1000, seconds=0.5)
    line.run(200, tokens=100)
    assert len([t for t in line.sent if t < 10]) <= 10 * 5 + 2


def test_refusals_pause_all_for_what_the_server_names() -> None:
    admission = Admission(32, None, None)
    for _ in range(8):
        admission.sent(0.0, 1)
    for _ in range(8):
        admission.refused(1.0, 7.0)
    assert admission.wait(1.0) == pytest.approx(7.0) and admission.wait(8.1) == 0.0
    assert admission.under_way == 0 and admission.window < 16


def test_a_refusal_now_and_then_stops_nobody() -> None:
    admission = Admission(32, None, None)
    for n in range(100):
        admission.sent(float(n), 1)
        if n % 20 == 19:
            admission.refused(n + 0.5, 5.0)
        else:
            admission.answered(n + 0.5, 0.5, 1, 1, 1)
    assert admission.wait(100.0) == 0.0 and admission.rate is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "2", "retry-after-ms": "30"}, 0.03),
        ({"Retry-After": email.utils.formatdate(time.time() + 90_000, usegmt=True)}, 90_000),
        ({"Retry-After": email.utils.formatdate(0, usegmt=True)}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e400"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "-20"}, None),
        ({"Retry-After": "1e18"}, client.YEAR),
        ({"Retry-After": "9" * 30}, client.YEAR),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, client.YEAR),
        ({"Retry-After": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
    ],
)
def test_what_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    found = client._retry_after(headers)
    assert found is None if seconds is None else found == pytest.approx(seconds, rel=0.1)


# --- batches -------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "POLL", 0.01)
    monkeypatch.setattr(batch, "LINGER", 0.02)
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.005)


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_batch_answers_as_the_live_api_does_at_half_the_price(make: Any, quick: None) -> None:
    with serving() as (model, url):
        result = run(make(url, mode="batch"), PROMPTS)
        assert result.done == RIGHT and len(model.batches) == 1 and not model.statuses
        live = run(make(url), PROMPTS)
        assert live.done == RIGHT and not model.statuses, "one ledger for both ways"
    with serving() as (_, url):
        live = run(make(url), PROMPTS)
    assert sum(e.reply.usd for e in result.exchanges) == pytest.approx(
        0.5 * sum(e.reply.usd for e in live.exchanges)
    )


@pytest.mark.parametrize("make", [openai, anthropic])
def test_what_a_batch_leaves_is_asked_live_and_what_it_refuses_fails(
    make: Any, quick: None
) -> None:
    fates = {PROMPTS[3]: "expired", PROMPTS[5]: "error", PROMPTS[8]: "bad"}
    with serving(batch_faults=fates) as (model, url):
        result = run(make(url, mode="batch", max_failed=0.1), PROMPTS)
    assert [row for row in result.done if row[1]] == [row for row in RIGHT if row[0] != PROMPTS[8]]
    assert model.statuses == {"200": 2} and [f.status for f in result.failures] == [400]


def test_steps_of_a_job_go_out_in_waves(quick: None) -> None:
    def chain(job: str, ask: Ask) -> str:
        return ask(user(ask(user(job)).text)).text

    with serving() as (model, url), connected(endpoint := openai(url, mode="batch")) as ask:
        result = llm.run_jobs(chain, PROMPTS, ask, endpoint, prefix="test", name=str)
    assert [text for _, text in result.done] == [reply_to(reply_to(p)) for p in PROMPTS]
    assert len(model.batches) == 2


BATCH_RUNNER = """
import os, sys
from tests.llm import test_client as t
from bezoar.llm import batch
batch.POLL, batch.LINGER = 0.02, 0.05
if sys.argv[3] == "orphan":  # killed between the provider's answer and the note of its id
    real = batch.files.write_json
    batch.files.write_json = lambda p, v: os.kill(os.getpid(), 9) if v.get("id") else real(p, v)
if sys.argv[3] == "polling":
    async def look(self, batch):
        os.kill(os.getpid(), 9)
    batch.OpenAIBatches.look = batch.AnthropicBatches.look = look
make = getattr(t, sys.argv[2])
assert t.run(make(sys.argv[1], mode="batch"), t.PROMPTS).done == t.RIGHT
"""


@pytest.mark.slow
@pytest.mark.parametrize("make", ["openai", "anthropic"])
@pytest.mark.parametrize("when", ["orphan", "polling"])
def test_a_batch_is_not_paid_twice_when_the_run_was_killed(make: str, when: str) -> None:
    with serving() as (model, url):
        command = [sys.executable, "-c", BATCH_RUNNER, url, make]
        killed = subprocess.run([*command, when], cwd=ROOT, check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL and len(model.batches) == 1
        subprocess.run([*command, "whole"], cwd=ROOT, check=True, timeout=60)
        assert len(model.batches) == 1 and set(model.paid.values()) == {1}
        assert not list(Path(os.environ["BEZOAR_WORK"]).glob("batches/*.json"))


@pytest.mark.parametrize(("make", "opened"), [(openai, 3), (anthropic, 2)])
def test_a_batch_that_is_too_large_goes_in_smaller_parts_one_by_one(
    make: Any, opened: int, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(batch_limit=30) as (model, url):
        assert run(make(url, mode="batch"), PROMPTS).done == RIGHT
    sizes = [len(batch["requests"]) for batch in model.batches.values()]
    assert len(sizes) == opened and sizes[-2:] == [30, 30] and not model.statuses
    assert set(model.paid.values()) == {1}
    assert "in batches of 30, one by one" in capfd.readouterr().err


def test_a_request_that_is_too_large_for_any_batch_stops_the_stage(quick: None) -> None:
    with serving(batch_limit=0) as (model, url):
        for make, words in ((openai, "token_limit_exceeded Enqueued"), (anthropic, "413")):
            with pytest.raises(BadInput, match=words):
                run(make(url, mode="batch"), ["a", "b", "c"])
        assert not model.paid and not model.statuses


@pytest.mark.parametrize(
    ("make", "end", "words"),
    [
        (openai, "failed", "of 60 requests: failed: mismatched_model one model a batch"),
        (openai, "cancelled", "cancelled"),
        (anthropic, "cancelled", "it was cancelled"),
    ],
)
def test_a_batch_that_fails_as_a_whole_stops_the_stage_with_the_providers_words(
    make: Any, end: str, words: str, quick: None
) -> None:
    with serving(batch_end=end) as (model, url):
        with pytest.raises(BadInput, match=words) as raised:
            run(make(url, mode="batch"), PROMPTS)
        assert "Traceback" not in str(raised.value) and not model.statuses, "nothing live"
        assert len(model.batches) == 1 and len(model.paid) == (30 if end == "cancelled" else 0)
        model.batch_end = ""
        assert run(make(url, mode="batch"), PROMPTS).done == RIGHT
        assert set(model.paid.values()) == {1}


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_batch_that_expired_is_opened_again_and_twice_is_enough(
    make: Any, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(batch_late=1) as (model, url):
        assert run(make(url, mode="batch"), PROMPTS).done == RIGHT
        assert len(model.batches) == 2 and not model.statuses
    told = capfd.readouterr().err
    assert "left 60 of 60 requests unanswered (the first:" in told and "expired" in told
    assert "asked in another batch" in told
    with serving(batch_late=9) as (model, url):
        with pytest.raises(BadInput, match=r"60 of 60 requests unanswered .*, as the one before"):
            run(make(url, mode="batch"), PROMPTS)
        assert len(model.batches) == 2 and not model.paid


def test_a_batch_that_a_live_run_would_pay_again_is_said(
    quick: None, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving() as (_, url):
        wire = openai_wire.Wire(openai(url), None)
        journal = batch.Journal(url=wire.url, keys=["0" * 64, "1" * 64], opened=0.0)
        files.write_json(work / "batches/x.json", journal.model_dump())
        llm.connect(openai(url, mode="batch"))
        assert not capfd.readouterr().err
        llm.connect(openai(url))
    assert "2 requests are in a batch of another run" in capfd.readouterr().err


@pytest.mark.slow
def test_a_batch_that_runs_for_long_is_told_of(
    quick: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "REPORT_EVERY", 0.1)
    monkeypatch.setattr(client, "SYNC", 0.05)
    with serving(batch_polls=40) as (_, url):
        assert run(openai(url, mode="batch"), PROMPTS).done == RIGHT
    lines = capfd.readouterr().err.splitlines()
    assert lines and lines[0].startswith("llm: waiting for 1 batches of m with 60 requests, looked")
    assert not any("0 replies" in line for line in lines)


def test_what_a_batch_refuses_is_told_apart_as_it_is_live(quick: None) -> None:
    fates = {PROMPTS[3]: "long", PROMPTS[5]: "filtered", PROMPTS[8]: "bad"}

    def ending(prompt: str, ask: Ask) -> str:
        return ask(user(prompt)).finish_reason

    with serving(batch_faults=fates) as (model, url):
        with connected(endpoint := openai(url, mode="batch", max_failed=0.1)) as ask:
            result = llm.run_jobs(ending, PROMPTS, ask, endpoint, prefix="test", name=str)
        endings = dict(result.done)
    assert [endings.get(prompt) for prompt in fates] == ["too_long", "refused", "failed"]
    assert len(result.failures) == 1 and not model.statuses


def test_an_error_inside_of_a_batchs_200_is_that_error(quick: None, work: Path) -> None:
    def ending(prompt: str, ask: Ask) -> str:
        return ask(user(prompt)).finish_reason

    with serving(batch_faults={PROMPTS[3]: "blocked"}) as (model, url):
        with connected(endpoint := openai(url, mode="batch")) as ask:
            result = llm.run_jobs(ending, PROMPTS, ask, endpoint, prefix="test", name=str)
        assert len(model.batches) == 1 and not model.statuses
    assert dict(result.done)[PROMPTS[3]] == "refused"
    assert not Ledger().lost, "an error is not billed"


@pytest.mark.parametrize("make", [openai, anthropic])
def test_what_a_batch_did_and_has_no_line_for_is_counted_as_lost(
    make: Any, quick: None, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(batch_faults=dict.fromkeys(PROMPTS[:9], "lost")) as (model, url):
        endpoint = make(url, mode="batch")
        with pytest.raises(BadInput, match=r"9 of 9 requests .*no line for it.*as the one before"):
            run(endpoint, PROMPTS)
        assert len(model.batches) == 2
    assert sum(Ledger().lost.values()) > 0


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_provider_that_forgets_each_batch_is_given_no_third_one(
    make: Any, quick: None, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(batch_gone=True) as (model, url):
        endpoint = make(url, mode="batch")
        with pytest.raises(BadInput, match="does not know the batch any more"):
            run(endpoint, PROMPTS)
        assert len(model.batches) == 2 and not model.statuses
    assert sum(Ledger().lost.values()) > 0, "it may bill what it forgot"


def test_a_batch_api_that_answers_with_something_else_is_said_in_words(quick: None) -> None:
    words = "an answer of the batch API lacks what it should hold"
    with serving(batch_empty=True) as (_, url), pytest.raises(BadInput, match=words):
        run(openai(url, mode="batch"), ["a", "b"])


def test_a_single_expired_item_is_asked_live_and_that_is_said(
    quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(batch_faults={"only": "expired"}) as (model, url):
        assert run(openai(url, mode="batch"), ["only"]).done == [("only", reply_to("only"))]
    assert model.statuses == {"200": 1}
    told = capfd.readouterr().err
    assert "left 1 of 1 requests unanswered (the first: batch_expired: too late)" in told
    assert "asked live, at the full price" in told


def journal(work: Path, **changed: Any) -> Path:
    """What a killed run left of a batch."""
    path = work / "batches" / "0123.json"
    content = {"url": "", "keys": ["ab" * 32], "opened": 0.0, "id": "batch_9"}
    files.write_json(path, {**content, **changed})
    return path


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_batch_that_the_provider_no_longer_knows_is_said_and_asked_anew(
    make: Any, quick: None, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving() as (model, url):
        endpoint = make(url, mode="batch")
        with connected(endpoint) as ask:
            key = request_key(ask.wire, encode(ask.wire.body(user("p"))), 0)
            left = journal(work, url=ask.wire.url, keys=[key])
        assert run(endpoint, ["p", "q"]).done == [("p", reply_to("p")), ("q", reply_to("q"))]
        said = capfd.readouterr().err
        assert "batch batch_9 left 1 of 1 requests unanswered" in said
        assert "the provider does not know the batch any more" in said
        assert not left.exists() and set(model.paid.values()) == {1} and not model.statuses


def test_another_stages_batch_that_runs_on_holds_up_nobody(quick: None, work: Path) -> None:
    with serving() as (model, url):
        endless = {"id": "batch_9", "status": "in_progress", "polls": -(10**9), "over": False}
        model.batches["batch_9"] = {**endless, "anthropic": False, "requests": [], "results": []}
        endpoint = openai(url, mode="batch")
        with connected(endpoint) as ask:
            left = journal(work, url=ask.wire.url)
        assert run(endpoint, PROMPTS).done == RIGHT
        assert len(model.batches) == 2 and not model.statuses and left.exists()


@pytest.mark.parametrize(
    "spoilt",
    [b"", b"{}", b"[1]", b'{"url": 3}', b"\xff\xfe", b'{"url": "http://elsewhere/v1"'],
)
def test_a_journal_that_is_none_stops_nobody(spoilt: bytes, quick: None, work: Path) -> None:
    journal(work).write_bytes(spoilt)
    with serving() as (_, url):
        assert run(openai(url, mode="batch"), PROMPTS).done == RIGHT


@pytest.mark.slow
def test_batches_of_a_chain_are_as_many_as_its_steps(quick: None) -> None:
    """Though jobs have one to four steps, retries come late, and items expire."""

    def chain(job: str, ask: Ask) -> str:
        text = ask(user(job)).text
        for step in range(int(job.split()[1]) % 4):
            text = ask(user(f"{job} step {step}"), sample=0).text
            if (int(job.split()[1]) + step) % 7 == 0:  # a reply of no use is asked for again
                text = ask(user(f"{job} step {step}"), sample=1).text
        return text

    jobs = [f"job {n}" for n in range(200)]
    fates = {f"job {n}": "expired" for n in (3, 77, 150)} | {"job 91 step 1": "error"}
    with (
        serving(Faults(latency=0.05), batch_faults=fates) as (model, url),
        connected(endpoint := openai(url, mode="batch", again={"temperature": 1})) as ask,
    ):
        result = llm.run_jobs(chain, jobs, ask, endpoint, prefix="test", name=str)
    assert len(result.done) == 200 and set(model.paid.values()) <= {1, 2}
    assert len(model.batches) <= 7, (
        "a wave for each step, and one for each retry on the longest way"
    )
    assert model.statuses == {"200": 4}


BATCH_PAIR = """
import sys
from tests.llm import test_client as t
from bezoar.llm import batch, elsewhere
batch.POLL, batch.LINGER, elsewhere.LOOK = 0.05, 0.05, 0.05
assert t.run(t.openai(sys.argv[1], mode="batch"), t.PROMPTS).done == t.RIGHT
"""


@pytest.mark.slow
def test_who_waits_for_a_killed_process_follows_its_batch() -> None:
    with serving(batch_polls=40) as (model, url):
        command = [sys.executable, "-c", BATCH_PAIR, url]
        with subprocess.Popen(command, cwd=ROOT) as first:
            while not model.batches:
                time.sleep(0.001)
            with subprocess.Popen(command, cwd=ROOT) as second:
                time.sleep(1.5)
                first.kill()
                assert second.wait(60) == 0
        assert len(model.batches) == 1 and set(model.paid.values()) == {1}


def test_a_server_without_batches_is_said(quick: None) -> None:
    with serving() as (_, url), pytest.raises(BadInput, match="set mode: live"):
        run(openai(f"{url}/nowhere", mode="batch"), ["x"])
