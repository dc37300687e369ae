"""Money: reserved, settled, capped."""

from pathlib import Path
from typing import Any

import pytest

from bezoar import budget, llm, params
from bezoar.budget import Purse
from bezoar.files import BadInput
from bezoar.ledger import Bill, Ledger
from bezoar.llm.client import Client
from bezoar.params import Budget, Params, Price
from bezoar.records import Exchange, Reply
from tests.servers import Faults, serving
from tests.test_client import openai, say, work  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
PRICE = Price(input=2.0, cached=0.5, output=10.0, batch=0.5)
DEAR = {"input": 1000.0, "cached": 0.0, "output": 1000.0, "batch": 0.5}
PROMPTS = [f"p{n}" for n in range(200)]


def capped(stage: float | None, run: float | None) -> Params:
    loaded = params.load(ROOT / "params.yaml")
    return loaded.model_copy(update={"budget_usd": Budget(stage=stage, run=run)})


def spend(url: str, caps: Params, stage: str = "generate", **changed: Any) -> Any:
    endpoint = openai(url, price=DEAR, **changed)
    ask = llm.connect(endpoint, caps, stage, "lamini")
    assert isinstance(ask, Client)
    try:
        return llm.each(say, PROMPTS, ask, endpoint, where="test", name=str)
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
            text="", finish_reason="stop", tokens_in=3, tokens_out=4, model="m-2026-11",
            simulated=not key, usd=usd, key=key,
        )  # fmt: skip
        return Exchange(job="j", step=0, messages=[], reply=reply)

    bought = [exchange("a", 0.1), exchange("b", 0.2), exchange("c", 1e-7), exchange("a", 0.1)]
    spent = budget.spending(openai("http://127.0.0.1:9"), [*bought, exchange("", 9.0)])
    assert (spent.model, spent.calls, spent.tokens_in, spent.tokens_out) == ("m", 3, 9, 12)
    assert spent.usd == 0.3000001
    assert budget.spending(openai("http://127.0.0.1:9"), bought[::-1]) == spent


def test_a_run_is_named_by_its_recipe_and_not_by_its_caps() -> None:
    one, two = capped(1.0, 2.0), capped(None, 9.0)
    assert budget.run_id(one) == budget.run_id(two)
    other = one.model_copy(update={"generate": params.Generate(seed=18)})
    assert budget.run_id(other) != budget.run_id(one)


def test_reservations_count_until_they_are_settled(tmp_path: Path) -> None:
    purse = Purse(Ledger(tmp_path), Bill("r", "s", "l", "m"), 1.0, None)
    assert purse.reserve(0.6) and not purse.reserve(0.5) and purse.reserve(0.4)
    purse.settle(0.6, 0.1)
    assert purse.reserve(0.5) and "budget_usd.stage" in purse.why()


def test_the_dollars_of_the_runs_other_stages_count_for_the_run_alone(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.put("0" * 64, {}, Bill("r", "judge", "l", "m"), 0.9)
    book.put("1" * 64, {}, Bill("another", "s", "l", "m"), 50.0)
    assert not Purse(book, Bill("r", "s", "l", "m"), None, 1.0).reserve(0.2)
    assert Purse(book, Bill("r", "s", "l", "m"), 1.0, None).reserve(0.2)


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
        assert len(llm.each(say, PROMPTS, ask, endpoint, where="test", name=str).done) == 200


# --- what params.yaml may say of an endpoint -----------------------------------------------------


def faults_of(tmp_path: Path, **changed: Any) -> str:
    import yaml

    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    teacher = openai("http://127.0.0.1:9").model_dump() | changed
    profile = document["profiles"]["embedded"]
    profile["llm"] = {**profile["llm"], "teacher": teacher}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput) as raised:
        params.load(tmp_path / "params.yaml")
    return str(raised.value)


def test_an_endpoint_in_params_is_typed_and_closed(tmp_path: Path) -> None:
    where = "profiles.embedded.llm.teacher"
    told = faults_of(tmp_path, concurency=3)
    assert f"{where}.concurency: no such parameter; did you mean 'concurrency'?" in told
    assert f"{where}.timeout: input should be greater than 0" in faults_of(tmp_path, timeout=0)
    assert "set by the client" in faults_of(tmp_path, params={"n": 3})
    assert "'openai'" in faults_of(tmp_path, provider="opnai")


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
