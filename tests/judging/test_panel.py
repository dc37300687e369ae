"""Several judges: how they decide, what is kept of each, what they cost; and one judge alone."""

import json
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from bezoar import llm, params
from bezoar.judging import agreement, panel, verdicts
from bezoar.llm import embedded
from bezoar.llm.client import Failed
from bezoar.llm.ledger import Ledger
from bezoar.params import Endpoint, Endpoints
from bezoar.preflight import endpoints, expected, forecast
from bezoar.preflight.__main__ import _calls_table as calls
from bezoar.preflight.forecast import Row
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask, Failure, Message, Reply, Spending, Verdict
from stages import generate, judge
from tests.builders import parameters
from tests.builders.clients import openai
from tests.builders.folders import (
    judged_by,
    lines,
    read,
    simulated,
    tree,  # noqa: F401  (a fixture)
)
from tests.builders.rows import form, sample, stated
from tests.builders.scripted import said
from tests.builders.servers import prompt_of, serving

EMBEDDED = ("world-judge", "strict-world-judge", "form-judge")
TABLE = "llm.judge"


def vote(status: str, rating: int | None = None, judge: str = "j", id: str = "a-1") -> Verdict:
    row = {"id": id, "status": status, "rating": rating, "reason": "So.", "reply": "..."}
    return Verdict.model_validate({**row, "judge": judge, "simulated": False})


def said_by(*votes: int | None) -> dict[str, list[Verdict]]:
    """One sample's votes: a positive rating accepts, a negative one rejects, None is undecided."""
    return {
        f"m{at}": [
            vote("undecided")
            if stars is None
            else vote("accepted" if stars > 0 else "rejected", abs(stars))
        ]
        for at, stars in enumerate(votes)
    }


# --- deciding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "votes", "status", "rating"),
    [
        ("majority", (6, 5, -2), "accepted", 6),
        ("majority", (7, -2, -1), "rejected", 2),
        ("majority", (7, -1), "undecided", None),
        ("majority", (7, 7, -1, -1), "undecided", None),
        ("majority", (3, None, None), "accepted", 3),
        ("majority", (5, 6, None, -1), "accepted", 6),
        ("majority", (None, None), "undecided", None),
        ("majority", (7, -1, None), "undecided", None),
        ("mean", (7, -2, -2), "rejected", 4),
        ("mean", (7, 6, -1), "accepted", 5),
        ("mean", (7, -1), "undecided", None),
        ("mean", (4, 4), "undecided", None),
        ("mean", (4, 4, 5), "accepted", 4),
        ("mean", (-5, None), "accepted", 5),
        ("mean", (None, None), "undecided", None),
    ],
)
def test_a_panel_decides(
    how: Literal["majority", "mean"],
    votes: tuple[int | None, ...],
    status: str,
    rating: int | None,
) -> None:
    for order in permutations(votes):
        (got,) = panel.decide(said_by(*order), how, 7)
        assert (got.id, got.status, got.rating) == ("a-1", status, rating), order
        assert got.judge == ", ".join(f"m{at}" for at in range(len(votes)))
        assert got.reply == "" and got.reason.count("So.") == len(votes)


def test_the_middle_is_that_of_the_scale() -> None:
    votes = said_by(3, 3)
    assert [panel.decide(votes, "mean", s)[0].status for s in (4, 5, 6)] == [
        "accepted",
        "undecided",
        "rejected",
    ]


def test_one_judge_alone_says_what_it_says() -> None:
    alone = [vote("undecided"), vote("rejected", 6)]
    for how in ("majority", "mean"):
        assert panel.decide({"m": alone}, how, 7) == alone  # type: ignore[arg-type]


def test_agreement_counts_the_rows_that_both_decide() -> None:
    statuses = {"a": "aaaarr.a", "b": "aarrrra.", "c": "........"}
    name = {"a": "accepted", "r": "rejected", ".": "undecided"}
    votes = {
        who: [vote(name[c], None if c == "." else 5, id=str(n)) for n, c in enumerate(row)]
        for who, row in statuses.items()
    }
    spent = [Spending(model="", calls=0, tokens_in=0, tokens_out=0, usd=0.0)] * 3
    found = panel.measure(votes, {who: {} for who in votes}, {"a": 0, "b": 0, "c": 8}, spent)
    pair = found["pairs"]["a, b"]
    assert (pair["n"], pair["agreement"]) == (6, 4 / 6)
    # by hand: a says a 4/6, b says a 2/6, so chance is 8/36 + 8/36
    assert pair["kappa"] == pytest.approx((4 / 6 - 16 / 36) / (1 - 16 / 36))
    assert found["pairs"]["a, c"] == {"agreement": None, "kappa": None, "n": 0}
    assert found["unanimous"] == 0 and found["members"]["c"]["failed"] == 8
    assert [member["read"] for member in found["members"].values()] == [7 / 8, 7 / 8, 0]
    assert list(found["pairs"]) == ["a, b", "a, c", "b, c"]


def test_kappa_is_none_where_chance_alone_agrees() -> None:
    assert agreement.kappa(["x"] * 3, ["x"] * 3) is None
    assert agreement.kappa(["x", "y"], ["x", "y"]) == 1
    assert agreement.kappa(["x", "y"], ["y", "x"]) == -1


# --- the stage -----------------------------------------------------------------------------------


def outs(scheme: str) -> dict[str, bytes]:
    paths = [*Path(f"data/judge/{scheme}").iterdir(), *Path("metrics/judge").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def samples(tree: Path) -> list[dict[str, Any]]:  # noqa: F811
    """LaMini's samples, made in the current folder."""
    generate.main("lamini")
    return lines("data/generate/lamini/samples.jsonl")


@pytest.mark.slow
def test_a_panels_votes_are_kept_and_combined(samples: list[dict[str, Any]]) -> None:
    judged_by(*(simulated(model) for model in EMBEDDED))
    judge.main("lamini")
    votes = [Verdict.model_validate(row) for row in lines("data/judge/lamini/votes.jsonl")]
    combined = lines("data/judge/lamini/verdicts.jsonl")
    assert [v.judge for v in votes] == [*EMBEDDED] * len(samples)
    assert [row["id"] for row in combined] == [sample["id"] for sample in samples]
    for at, row in enumerate(combined):
        three = votes[3 * at : 3 * at + 3]
        assert {v.id for v in three} == {row["id"]}
        count = Counter(v.status for v in three)
        lead = count["accepted"] - count["rejected"]
        wanted = "accepted" if lead > 0 else "rejected" if lead < 0 else "undecided"
        assert (row["status"], row["judge"]) == (wanted, ", ".join(EMBEDDED))
        assert (row["rating"] is None) == (wanted == "undecided") and row["simulated"]
    assert {row["status"] for row in combined} == {"accepted", "rejected", "undecided"}
    found = read("metrics/judge/lamini.json")
    assert found["judges"] == 3 and len(found["pairs"]) == 3
    assert all(-1 <= pair["kappa"] <= pair["agreement"] <= 1 for pair in found["pairs"].values())
    assert found["pairs"]["world-judge, form-judge"]["agreement"] < 1
    for who, member in found["members"].items():
        its = Counter(v.status for v in votes if v.judge == who)
        assert {s: member[s] for s in ("accepted", "rejected", "undecided")} == its
    replies = lines("data/judge/lamini/replies.jsonl")
    own = [reply for reply in replies if not reply["job"].startswith("known/")]
    assert len(own) == 3 * len(samples) and len(replies) == len(own) + 3 * 2 * 20


@pytest.mark.slow
def test_the_mean_is_another_panel(samples: list[dict[str, Any]]) -> None:
    judged_by(*(simulated(model) for model in EMBEDDED))
    judge.main("lamini")
    majority = outs("lamini")
    judged_by(*(simulated(model) for model in EMBEDDED), vote="mean")
    judge.main("lamini")
    mean = outs("lamini")
    assert {name for name in mean if mean[name] != majority[name]} == {"verdicts.jsonl"}


@pytest.mark.slow
def test_one_judge_writes_what_it_always_did(samples: list[dict[str, Any]]) -> None:
    judge.main("lamini")
    alone = outs("lamini")
    assert "votes.jsonl" not in alone
    assert [v["judge"] for v in map(json.loads, alone["verdicts.jsonl"].splitlines())] == [
        "world-judge"
    ] * len(samples)
    with parameters.changed(Path()) as document:
        document["profiles"]["embedded"]["llm"]["judge"] = [simulated("world-judge")]
    judge.main("lamini")
    assert outs("lamini") == alone, "a list of one is that one"


class Panelist:
    """A judge of a test: says `line`, and fails for good where the prompt holds `lost`."""

    def __init__(self, line: str, lost: str = "\0") -> None:
        self.line, self.lost = line, lost

    def __call__(self, messages: Any, sample: int = 0) -> Reply:
        if self.lost in messages[-1].content:
            raise Failed(
                Failure(job="", step=0, reason="HTTP 400", status=400, attempts=1, usd=0.25)
            )
        return said(self.line, model="as-served")


@pytest.mark.slow
def test_a_member_that_fails_on_a_row_loses_its_vote_and_not_the_row(
    samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(*(simulated(model) for model in EMBEDDED))
    lost = samples[3]["instruction"]
    hit = [s["id"] for s in samples if lost in s["instruction"] or lost in s["response"]]
    members = {
        "world-judge": Panelist(stated("Accept", "6")),
        "strict-world-judge": Panelist(stated("Reject", "2"), lost),
        "form-judge": Panelist(stated("Reject", "3")),
    }
    monkeypatch.setattr(llm, "connect", lambda endpoint, *_: members[endpoint.model])
    monkeypatch.setattr(llm.run, "max_failed", lambda endpoint: 0.5)
    judge.main("lamini")
    combined = {row["id"]: row for row in lines("data/judge/lamini/verdicts.jsonl")}
    for id, row in combined.items():
        assert row["status"] == ("undecided" if id in hit else "rejected")
    votes = [v for v in lines("data/judge/lamini/votes.jsonl") if v["id"] == hit[0]]
    assert [v["judge"] for v in votes] == ["as-served", "strict-world-judge", "as-served"]
    assert votes[1]["status"] == "undecided" and votes[1]["reason"] == "failed: HTTP 400"
    failures = lines("data/judge/lamini/failures.jsonl")
    assert [f["job"] for f in failures] == hit
    assert {f["reason"] for f in failures} == {"strict-world-judge: HTTP 400"}
    members_found = read("metrics/judge/lamini.json")["members"]
    assert [m["failed"] for m in members_found.values()] == [0, len(hit), 0]


@pytest.mark.slow
def test_a_member_that_fails_on_too_many_rows_ends_the_stage(
    samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(*(simulated(model) for model in EMBEDDED[:2]))
    good, bad = Panelist(stated()), Panelist(stated(), "<response>")
    monkeypatch.setattr(
        llm, "connect", lambda endpoint, *_: good if endpoint.model == "world-judge" else bad
    )
    with pytest.raises(BadInput, match=r"judge@lamini, strict-world-judge: .*max_failed"):
        judge.main("lamini")
    assert not Path("data/judge").exists()


@pytest.mark.slow
def test_a_panel_over_http_with_a_verdict_by_schema_and_what_it_costs(
    samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")

    def speak(prompt: str) -> str:
        ask = embedded.connect("world-judge")
        return ask([Message(role="user", content=prompt)]).text

    with (
        serving(speak=speak, keep_bodies=True, served=("tags",)) as (one, url),
        serving(speak=lambda prompt: form(), keep_bodies=True, served=("schema",)) as (
            other,
            address,
        ),
    ):
        members = [
            openai(url, model="tags"),
            openai(address, model="schema", structured=True, terms="Apache-2.0"),
        ]
        judged_by(*(member.model_dump() for member in members))
        judge.main("lamini")
        assert set(one.paid.values()) == set(other.paid.values()) == {1}
        bodies = {
            name: [json.loads(body) for request, _, body in model.bodies if "POST" in request]
            for name, model in (("tags", one), ("schema", other))
        }
        assert not any("response_format" in body for body in bodies["tags"])
        wanted = {"name": "reply", "strict": True, "schema": verdicts.schema(7)}
        for body in bodies["schema"]:
            assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}
        asked = [{prompt_of("", body) for body in sent} for sent in bodies.values()]
        assert asked[0] == asked[1], "all members see the same"
        whole = outs("lamini")
        before = sum(one.paid.values()) + sum(other.paid.values())
        judge.main("lamini")
        assert outs("lamini") == whole
        assert sum(one.paid.values()) + sum(other.paid.values()) == before, "nothing twice"
    votes = lines("data/judge/lamini/votes.jsonl")
    assert {v["status"] for v in votes if v["judge"] == "schema"} == {"accepted"}
    spent = read("metrics/judge/lamini_spending.json")
    found = read("metrics/judge/lamini.json")["members"]
    assert spent["model"] == "tags, schema" and spent["usd"] > 0
    for key in ("calls", "tokens_in", "tokens_out", "usd"):
        assert spent[key] == pytest.approx(sum(m[key] for m in found.values()))
    assert spent["calls"] == before


@pytest.mark.slow
def test_a_cap_holds_for_the_panel_together(
    samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    with serving(speak=lambda prompt: stated(), served=("a", "b")) as (_, url):
        members = [openai(url, model=name, concurrency=50) for name in ("a", "b")]
        judged_by(*(member.model_dump() for member in members))
        judge.main("lamini")
        usd = read("metrics/judge/lamini_spending.json")["usd"]
        monkeypatch.setenv("BEZOAR_WORK", str(Path("cold").absolute()))
        document = parameters.read(Path())
        document["profiles"]["embedded"]["budget_usd"]["stage"] = 0.75 * usd
        parameters.write(Path(), document)
        params.forget()
        with pytest.raises(BadInput, match=r"judge@lamini, b: .*raise budget_usd\.stage"):
            judge.main("lamini")
        assert 0 < sum(Ledger().spent.values()) <= 0.75 * usd


# --- params, forecast, preflight -----------------------------------------------------------------


def refused(*judges: dict[str, Any], **grader: Any) -> str:
    judged_by(*judges)
    if grader:
        document = parameters.read(Path())
        document["profiles"]["embedded"]["llm"]["grader"] = grader
        parameters.write(Path(), document)
    with pytest.raises(BadInput) as raised:
        params.load()
    return str(raised.value)


@pytest.mark.slow
def test_what_params_may_not_say_of_judges(tree: Path) -> None:  # noqa: F811
    one = simulated("world-judge")
    remote = openai("http://127.0.0.1:9").model_dump()
    assert f"{TABLE}: world-judge stands there twice" in refused(one, one)
    assert f"{TABLE}.1.modl: no such parameter; did you mean 'model'?" in refused(
        one, {**simulated("x"), "modl": "x"}
    )
    assert f"{TABLE}.1.concurrency: " in refused(one, {**simulated("x"), "concurrency": 0})
    said = refused(one, {k: v for k, v in simulated("x").items() if k != "concurrency"})
    assert "llm.judge.1.concurrency: missing" in said
    assert "structured: a schema goes with style: chat alone" in refused(
        {**remote, "style": "completion", "structured": True}
    )
    assert "grader.structured: only a judge's verdict has a schema" in refused(
        remote, **{**remote, "structured": True}
    )
    document = parameters.read(Path())
    document["profiles"]["embedded"]["llm"] |= {"judge": [], "grader": one}
    parameters.write(Path(), document)
    with pytest.raises(BadInput, match=f"{TABLE}: an empty list is not usable"):
        params.load()


def panel_of(*members: Endpoint) -> params.Params:
    loaded = params.load()
    return loaded.model_copy(update={"llm": loaded.llm.model_copy(update={"judge": list(members)})})


@pytest.mark.slow
def test_the_forecast_counts_every_judge(samples: list[dict[str, Any]]) -> None:
    members = [
        openai("http://127.0.0.1:9", model=name, reply_tokens=n)
        for name, n in (("a", 10), ("b", 30))
    ]
    rows = forecast.forecast(panel_of(*members), Path("data/fetch"))
    ours = [row for row in rows if row.stage == "judge lamini"]
    calls = len(samples) + 2 * 20  # twenty known rows, each with two answers
    assert [(row.model, row.calls) for row in ours] == [("a", calls), ("b", calls)]
    assert [row.tokens_out for row in ours] == [10 * calls, 30 * calls]
    assert (
        forecast.total(rows).usd == pytest.approx(sum(row.usd for row in rows)) and ours[1].usd > 0
    )
    durations = expected.asking(panel_of(*members), rows)
    assert [d.stage for d in durations] == ["judge.0", "judge.1"]
    assert durations[1].seconds == pytest.approx(3 * durations[0].seconds)


def test_the_table_of_calls_tells_the_judges_of_a_panel_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [("judge lamini", "a"), ("judge lamini", "b"), ("judge orca", "a")]
    Console(width=96).print(calls([Row(stage, who, 1, 1, 1, 0.0, 0.0) for stage, who in names]))
    told = capsys.readouterr().out
    assert "judge lamini, a " in told and "judge lamini, b " in told and "judge orca " in told


def test_the_cap_of_a_stage_is_held_against_the_whole_panel() -> None:
    p = params.load()
    p = p.model_copy(update={"budget_usd": params.Budget(stage=10.0, run=None)})
    rows = [Row("judge lamini", name, 1, 1, 1, 6.0, 7.0) for name in ("a", "b")]
    stage, _ = expected.money(p, rows)
    assert stage.level == "stop" and "$12.00 for judge lamini, $14.00 at most" in stage.message


def test_preflight_looks_at_every_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    with serving(served=("a",)) as (_, url):
        a, b = (openai(url, model=name) for name in ("a", "b"))
        found = endpoints.check(Endpoints(teacher=a, judge=[a, b], grader=b), {})
    assert [(f.where, f.level) for f in found] == [
        ("llm.teacher, judge.0", "ok"),
        ("llm.judge.1, grader", "stop"),
    ]


@pytest.mark.slow
def test_a_stage_starts_only_where_every_judge_is_there(
    samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    with serving(served=("a",)) as (model, url):
        judged_by(simulated("world-judge"), openai(url, model="b").model_dump())
        with pytest.raises(BadInput, match=r"llm\.judge\.1: .*serves a; wanted b"):
            judge.main("lamini")
        assert not model.paid


def test_the_simulated_judges_differ() -> None:
    def status(model: str, response: str) -> set[str]:
        ask: Ask = embedded.connect(model)
        rows = [
            sample(instruction="What is the colour of the fox?" + " " * n, response=response)
            for n in range(9)
        ]
        return {verdicts.judge(row, 7, ask).status for row in rows} - {"undecided"}

    full, wrong = "The colour of the fox is grey.", "The colour of the fox is plainly red."
    assert [status(model, full) for model in EMBEDDED] == [{"accepted"}] * 3
    assert [status(model, f"{full} So it is.") for model in EMBEDDED] == [
        {"accepted"},
        {"rejected"},
        {"accepted"},
    ]
    assert [status(model, wrong) for model in EMBEDDED] == [
        {"rejected"},
        {"rejected"},
        {"accepted"},
    ]
