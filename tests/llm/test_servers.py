"""Several servers of one model: load is spread, and a dead one draws nothing."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bezoar.llm.servers import LONGEST, REST, Servers
from tests.builders.clients import openai, run
from tests.builders.servers import Faults, reply_to, serving


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("TEST_KEY", "sk-test")


PROMPTS = [f"question {n}" for n in range(120)]
RIGHT = [(prompt, reply_to(prompt)) for prompt in PROMPTS]


def test_each_server_gets_its_share() -> None:
    slow = Faults(latency=0.01)
    with serving(slow) as (one, first), serving(slow) as (two, second):
        done = run(openai(first, base_url=[f"{first}/v1", f"{second}/v1"]), PROMPTS).done
        assert done == RIGHT
        paid = [sum(model.paid.values()) for model in (one, two)]
    assert sum(paid) == len(PROMPTS)
    assert min(paid) > len(PROMPTS) / 4


@pytest.mark.slow
def test_a_dead_server_costs_attempts_but_no_answer() -> None:
    with serving() as (model, alive):
        with serving() as (_, dead):
            pass
        found = run(openai(alive, base_url=[f"{dead}/v1", f"{alive}/v1"]), PROMPTS)
        assert found.done == RIGHT
        assert sum(model.paid.values()) == len(PROMPTS)


@pytest.mark.slow
def test_a_server_that_only_fails_is_left_alone() -> None:
    with serving(Faults(error=1.0)) as (broken, ill), serving() as (model, well):
        found = run(openai(well, base_url=[f"{ill}/v1", f"{well}/v1"]), PROMPTS)
        assert found.done == RIGHT
        # one volley as wide as the window, then a try now and then
        assert sum(broken.attempts.values()) < len(PROMPTS)
        assert sum(model.paid.values()) == len(PROMPTS)


def test_more_servers_after_the_first_buy_nothing_again() -> None:
    with serving() as (one, first), serving() as (two, second):
        run(openai(first), PROMPTS)
        again = run(openai(first, base_url=[f"{first}/v1", f"{second}/v1"]), PROMPTS)
        assert again.done == RIGHT
        assert sum(one.paid.values()) == len(PROMPTS)
        assert not two.paid


def test_the_least_busy_is_taken_and_a_failing_one_rests_longer_each_time() -> None:
    servers = Servers(["a", "b"])
    assert [servers.take(0) for _ in range(4)] == ["a", "b", "a", "b"]
    servers.give_back("b", 0, failed=True)
    servers.give_back("b", 0, failed=True)
    assert servers.take(2 * REST - 0.1) == "a", "b rests twice as long after two failures"
    assert servers.take(2 * REST) == "b"
    for _ in range(20):
        servers.give_back("b", 100, failed=True)
    assert servers.take(100 + LONGEST) == "b", "no rest is longer than the longest"
    servers.give_back("b", 200, failed=False)
    assert servers.take(200) == "b", "an answer makes it well at once"


def test_where_all_rest_the_first_to_come_back_is_tried() -> None:
    servers = Servers(["a", "b"])
    servers.take(0), servers.take(0)
    servers.give_back("a", 5, failed=True)
    servers.give_back("b", 4, failed=True)
    assert servers.take(4.5) == "b"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_url": []}, "names no address"),
        ({"base_url": ["http://a/v1", "http://a/v1/"]}, "stands there twice"),
        ({"base_url": ["http://a/v1", "http://b/v1"], "mode": "batch"}, "goes to one address"),
        ({"base_url": ["http://a/v1", "http://k:s@b/v1"]}, "no place in an address"),
        ({"base_url": "http://a/v1/chat/completions"}, "/chat/completions is added by the client"),
    ],
)
def test_bad_addresses(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        openai("http://a", **changed)


def test_one_address_needs_no_list() -> None:
    assert openai("http://a").addresses == ["http://a/v1"]
    assert openai("", base_url=["http://a/v1"]).addresses == ["http://a/v1"]
