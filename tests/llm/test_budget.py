"""Money: set aside, charged, capped."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, params
from bezoar.llm import budget
from bezoar.llm.budget import Purse
from bezoar.llm.client import Client, Stopped
from bezoar.llm.ledger import Bill, Ledger
from bezoar.params import Budget, Params, Price
from bezoar.rows.files import BadInput
from bezoar.rows.records import Exchange, Message, Reply
from tests.builders import parameters
from tests.builders.clients import (
    capped,
    openai,
    say,
    work,  # noqa: F401  (a fixture)
)
from tests.builders.servers import Faults, serving

PRICE = Price(input=2.0, cached=0.5, output=10.0, batch=0.5)
DEAR = {"input": 1000.0, "cached": 0.0, "output": 1000.0, "batch": 0.5}
KEYS = [f"{n:064x}" for n in range(8)]
PROMPTS = [f"p{n}" for n in range(200)]


def spend(url: str, caps: Params, stage: str = "generate", **changed: Any) -> Any:
    endpoint = openai(url, price=DEAR, **changed)
    ask = llm.connect(endpoint, caps, stage, "lamini")
    assert isinstance(ask, Client)
    try:
        return llm.run_jobs(say, PROMPTS, ask, endpoint, prefix="test", name=str)
    finally:
        ask.close()


def test_what_a_reply_costs() -> None:
    assert budget.cost(PRICE, 1_000_000, 0, 0, batch=False) == 2.0
    assert budget.cost(PRICE, 1_000_000, 400_000, 100_000, batch=False) == 1.2 + 0.2 + 1.0
    assert budget.cost(PRICE, 0, 0, 1_000_000, batch=True) == 5.0


def test_a_request_is_never_billed_more_than_its_worst() -> None:
    assert budget.worst_tokens(1234, {"max_completion_tokens": 50}) == (1234, 50)
    assert budget.worst_tokens(1234, {"max_tokens": None, "temperature": 1}) == (1234, None)


def test_spending_is_the_price_of_the_answers_and_not_of_their_copies() -> None:
    def exchange(key: str, usd: float) -> Exchange:
        reply = Reply(
            text="",
            finish_reason="stop",
            tokens_in=3,
            tokens_out=4,
            model="m-2026-11",
            simulated=not key,
            usd=usd,
            key=key,
        )
        return Exchange(job="j", step=0, messages=[], reply=reply)

    bought = [exchange("a", 0.1), exchange("b", 0.2), exchange("c", 1e-7), exchange("a", 0.1)]
    spent = budget.spending(openai("http://127.0.0.1:9"), [*bought, exchange("", 9.0)])
    assert (spent.model, spent.calls, spent.tokens_in, spent.tokens_out) == ("m", 3, 9, 12)
    assert spent.usd == 0.3000001
    assert budget.spending(openai("http://127.0.0.1:9"), bought[::-1]) == spent


def test_a_cap_is_of_a_profile_and_a_name_whatever_else_changes() -> None:
    one = capped(1.0, 2.0)
    changed = one.model_copy(update={"generate": params.Generate(seed=18)})
    teacher = one.llm.teacher.model_copy(update={"concurrency": 9})
    faster = one.model_copy(update={"llm": one.llm.model_copy(update={"teacher": teacher})})
    dpo = one.model_copy(update={"dpo": one.dpo.model_copy(update={"beta": 0.9})})
    same = [capped(None, 9.0), changed, faster, dpo]
    assert {budget.run_id(other) for other in same} == {budget.run_id(one)}
    second = one.model_copy(update={"budget_usd": Budget(name="second", stage=1.0, run=2.0)})
    small = one.model_copy(update={"profile": "small"})
    assert len({budget.run_id(other) for other in (one, second, small)}) == 3


def test_what_is_set_aside_counts_until_the_request_is_over(tmp_path: Path) -> None:
    purse = Purse(Ledger(tmp_path), Bill("r", "s", "l", "m"), 1.0, None)
    assert [purse.take(KEYS[n], usd) for n, usd in enumerate((0.6, 0.5, 0.4))] == [
        "taken",
        "dear",
        "taken",
    ]
    purse.release(KEYS[0])
    assert purse.take(KEYS[3], 0.6) == "taken" and purse.take(KEYS[4], 0.01) == "dear"
    assert "budget_usd.stage" in purse.why()


def test_the_dollars_of_the_runs_other_stages_count_for_the_run_alone(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.put("0" * 64, {}, Bill("r", "judge", "l", "m"), 0.9)
    book.put("1" * 64, {}, Bill("another", "s", "l", "m"), 50.0)
    assert Purse(book, Bill("r", "s", "l", "m"), None, 1.0).take(KEYS[5], 0.2) == "dear"
    assert Purse(book, Bill("r", "s", "l", "m"), 1.0, None).take(KEYS[5], 0.2) == "taken"


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.016, "$0.016"),
        (0.0, "$0.00"),
        (20.0, "$20.00"),
        (0.1, "$0.10"),
        (1234.5, "$1,234.50"),
        (0.000_001_5, "$0.0000015"),
        (0.999_999_9, "$1.00"),
        (0.015_999_9, "$0.016"),
        (1e-12, "$0.00"),
        (100.0, "$100.00"),
    ],
)
def test_an_amount_is_shown_to_the_digit_that_was_set(usd: float, text: str) -> None:
    assert budget.dollars(usd) == text


@pytest.mark.slow
@pytest.mark.parametrize("caps", [(2.0, None), (None, 2.0)])
@pytest.mark.parametrize("mode", ["live", "batch"])
def test_at_the_cap_the_stage_stops_keeps_all_and_goes_on_where_it_was(
    caps: tuple[float | None, float | None], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bezoar.llm.batch.POLL", 0.01)
    monkeypatch.setattr("bezoar.llm.batch.LINGER", 0.02)
    with serving(Faults(latency=0.002)) as (model, url):
        with pytest.raises(BadInput) as raised:
            spend(url, capped(*caps), mode=mode)
        name = "stage" if caps[0] else "run"
        message = str(raised.value)
        assert f"raise budget_usd.{name}" in message and message.startswith("error: test: $")
        assert "of 200 jobs (about $" in message and "are not done" in message
        spent, bought = sum(Ledger().spent.values()), model.paid.copy()
        assert 1.0 < spent <= 2.0 and 0 < len(bought) < 200
        with pytest.raises(BadInput, match="raise budget_usd"):
            spend(url, capped(*caps), mode=mode)
        assert sum(Ledger().spent.values()) <= 2.0, "a second start is no second allowance"
        result = spend(url, capped(None, None), mode=mode)
        assert len(result.done) == 200 and set(model.paid.values()) == {1}
        assert sum(e.reply.usd for e in result.exchanges) == pytest.approx(
            sum(Ledger().spent.values())
        )


def test_broken_replies_count_against_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bezoar.llm.client.backoff", lambda attempts: 0.0)
    with serving(Faults(torn=1)) as (model, url):
        with pytest.raises(BadInput, match=r"raise budget_usd\.stage"):
            spend(url, capped(2.0, None), max_failed=1)
        assert 0 < sum(model.statuses.values()) * 0.15 <= 2.0


MOST = 0.2  # dollars at most for one request of `lost_to`: 64 tokens written, some 100 read
USAGE = {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "least", "most"),
    [
        (Faults(drop=1), MOST / 2, MOST),
        (Faults(hangup=1), MOST / 2, MOST),
        (Faults(torn=1), MOST / 2, MOST),
        (Faults(html=1), MOST / 2, MOST),
        (Faults(drip=1), MOST / 2, MOST),
        (Faults(empty=1), 0.02, MOST / 2),  # its usage says what it cost
        (Faults(error=1), 0, 0),
        (Faults(busy=1), 0, 0),
        (Faults(later=1), 0, 0),
        (Faults(bad="p"), 0, 0),
    ],
    ids=["drop", "hangup", "torn", "html", "drip", "empty", "500", "429", "429 later", "400"],
)
def test_what_a_provider_bills_is_counted_and_what_it_does_not_is_not(
    faults: Faults, least: float, most: float
) -> None:
    with serving(faults) as (model, url):
        usd, failure = lost_to(url)
        attempts = max(1, sum(model.statuses.values()))
    assert least * failure.attempts <= usd <= most * failure.attempts
    assert failure.usd == pytest.approx(usd) and attempts == failure.attempts
    assert sum(Ledger().spent.values()) == pytest.approx(usd), "a restart remembers"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "body", "usd"),
    [
        (200, b'{"error": {"message": "overloaded", "code": 503}}', 0),
        (200, b'{"choices": [], "usage": %s}' % json.dumps(USAGE).encode(), 0.04),
        (200, b'{"choices": [{"message": {"content": 7}}], "usage": {"prompt_tokens": 10}}', MOST),
        (200, b"", MOST),
        (200, b"null", MOST),
        (502, b"<html>bad gateway</html>", 0),
        (503, b"", 0),
        (504, b"<html>gateway timeout</html>", MOST),
        (504, b'{"error": {"message": "timed out"}}', 0),
        (524, b"", MOST),
        (401, b'{"error": {"message": "who are you"}}', 0),
        (413, b"", 0),
        (307, b"", 0),
    ],
)
def test_what_an_answer_that_is_no_reply_costs(status: int, body: bytes, usd: float) -> None:
    with answering(status, body) as url:
        lost, failure = lost_to(url)
    each = lost / failure.attempts
    assert each == pytest.approx(usd) if usd != MOST else MOST / 2 < each < MOST


def test_a_server_that_refuses_connections_costs_nothing() -> None:
    with serving() as (_, url):
        pass
    assert lost_to(url)[0] == 0


def lost_to(url: str) -> tuple[float, Any]:
    """Dollars that one request to this server is charged, and how it failed."""
    endpoint = openai(url, price=DEAR, max_failed=1, patience=0.2, timeout=0.3)
    ask = llm.connect(endpoint, capped(None, 9.0), "generate", "lamini")
    assert isinstance(ask, Client)
    try:
        run = llm.run_jobs(say, ["p"], ask, endpoint, prefix="test", name=str)
    finally:
        ask.close()
    return sum(Ledger().lost.values()), run.failures[0]


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server with one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_losses_stop_a_stage_at_its_cap_after_a_restart_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bezoar.llm.client.backoff", lambda attempts: 0.0)
    with serving(Faults(drop=0.5)) as (model, url):
        for _restart in range(3):
            with pytest.raises(BadInput, match=r"raise budget_usd\.run") as raised:
                spend(url, capped(None, 2.0), concurrency=4 + _restart)
        assert "of the run on replies that never came whole" in str(raised.value)
        book = Ledger()
        assert 0 < sum(book.lost.values()) < sum(book.spent.values()) <= 2.0
        assert model.statuses["drop"] * 0.14 <= sum(book.lost.values())
        assert sum(model.paid.values()) == len(book)


@pytest.mark.slow
def test_a_request_given_up_at_the_end_of_a_run_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bezoar.llm.client.GRACE", 0.05)
    with serving(Faults(latency=1.0)) as (_, url), ThreadPoolExecutor(1) as pool:
        ask = llm.connect(openai(url, price=DEAR), capped(None, 9.0), "generate", "lamini")
        assert isinstance(ask, Client)
        answer = pool.submit(ask, [Message(role="user", content="p")])
        time.sleep(0.2)
        ask.stop("interrupted")
        with pytest.raises(Stopped, match="interrupted"):
            answer.result(5)
        ask.close()
    assert 0.05 < sum(Ledger().lost.values()) < MOST


def test_a_cap_of_a_thousandth_is_shown_as_it_was_set() -> None:
    with serving(Faults(latency=0.002)) as (_, url), pytest.raises(BadInput) as raised:
        spend(url, capped(None, 0.516))
    assert "of budget_usd.run $0.516 are spent" in str(raised.value)


def test_a_cap_that_could_not_be_kept_is_refused_before_anything_is_sent() -> None:
    with serving() as (model, url):
        with pytest.raises(BadInput, match="max_tokens"):
            spend(url, capped(2.0, None), params={"temperature": 0})
        assert not model.attempts
        assert len(spend(url, capped(None, None), params={"temperature": 0}).done) == 200


def test_what_costs_nothing_knows_no_cap() -> None:
    free = {"input": 0, "cached": 0, "output": 0, "batch": 1}
    with serving() as (_, url):
        endpoint = openai(url, price=free)
        ask = llm.connect(endpoint, capped(0.0, 0.0), "generate", "lamini")
        assert len(llm.run_jobs(say, PROMPTS, ask, endpoint, prefix="test", name=str).done) == 200


# --- what params.yaml may say of an endpoint -----------------------------------------------------


def faults_of(tmp_path: Path, **changed: Any) -> str:
    document = parameters.read()
    teacher = openai("http://127.0.0.1:9").model_dump() | changed
    profile = document["profiles"]["embedded"]
    profile["llm"] = {**profile["llm"], "teacher": teacher}
    parameters.write(tmp_path, document)
    with pytest.raises(BadInput) as raised:
        params.load(tmp_path)
    return str(raised.value)


@pytest.mark.slow
def test_an_endpoint_in_params_is_typed_and_closed(tmp_path: Path) -> None:
    where = "llm.teacher"
    told = faults_of(tmp_path, concurency=3)
    assert f"{where}.concurency: no such parameter; did you mean 'concurrency'?" in told
    told = faults_of(tmp_path, timeout=0)
    assert f"{where}.timeout: 0 is not usable; a number above 0.0 is wanted" in told
    assert "set by the client" in faults_of(tmp_path, params={"n": 3})
    assert "'openai'" in faults_of(tmp_path, provider="opnai")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"api_key_env": "sk-live-abcdef"},
        {"base_url": "http://user:sk-live-abcdef@host/v1"},
        {"base_url": "http://host/v1?key=sk-live-abcdef"},
        {"params": {"api_key": "sk-live-abcdef"}},
        {"params": {"Authorization": "sk-live-abcdef"}},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    assert "sk-live" not in faults_of(tmp_path, **changed)
