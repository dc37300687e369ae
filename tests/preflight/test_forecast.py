"""What `make forecast` says before anything is sent, against what the stages then ask for."""

import socket
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bezoar import params, sources
from bezoar.params import Endpoints
from bezoar.preflight import forecast
from bezoar.rows.files import BadInput
from stages import generate, judge
from tests.builders.clients import openai
from tests.builders.folders import (
    lines,
    read,
    tree,  # noqa: F401  (a fixture)
)
from tests.conftest import environment


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key nor a connection."""

    def never(*_: object) -> None:
        raise AssertionError("a forecast asks nobody")

    monkeypatch.delenv("TEST_KEY", raising=False)
    monkeypatch.setattr(socket.socket, "connect", never)


def row(rows: list[forecast.Row], stage: str) -> forecast.Row:
    return next(row for row in rows if row.stage == stage)


def paid(**changed: Any) -> params.Params:
    """The active profile with a teacher that costs money and two that do not."""
    loaded = params.load()
    teacher = openai("http://127.0.0.1:9", reply_tokens=50, **changed)
    llm = Endpoints(teacher=teacher, judge=loaded.llm.judge, grader=loaded.llm.grader)
    return loaded.model_copy(update={"llm": llm})


@pytest.mark.slow
def test_it_says_the_calls_that_the_stages_make(tree: Path, offline: None) -> None:  # noqa: F811
    rows = forecast.forecast(params.load(), Path("data/fetch"))
    generate.main("lamini")
    judge.main("lamini")
    assert row(rows, "generate lamini").calls == read("data/generate/lamini/summary.json")["calls"]
    judged = row(rows, "judge lamini").calls
    # every sample, and twenty known rows with two answers each
    assert judged == len(lines("data/judge/lamini/replies.jsonl"))
    assert judged == len(lines("data/judge/lamini/verdicts.jsonl")) + 2 * 20
    stages = [r.stage for r in rows]
    assert stages[0].startswith("generate ") and stages[-1] == "agreement"
    assert {f"mt_grade {c}" for c in params.load().checkpoints} <= set(stages)
    compared = [row(rows, f"mt_compare {name}").calls for name in params.load().compared]
    # 16 questions, two turns, two orders, twenty known rows in two orders, and what states no
    # choice once more
    assert all(4 * 16 + 2 * 20 <= calls <= (4 * 16 + 2 * 20) * 1.1 for calls in compared)
    assert not (tree / "work").exists(), "a forecast writes nothing"


@pytest.mark.slow
def test_it_says_what_that_costs_live_in_batch_and_at_most(tree: Path, offline: None) -> None:  # noqa: F811
    live = row(forecast.forecast(paid(), Path("data/fetch")), "generate orca")
    assert live.tokens_out == 50 * live.calls and live.tokens_in > live.calls
    assert live.usd == pytest.approx((live.tokens_in * 1.0 + live.tokens_out * 2.0) / 1e6)
    assert live.most == pytest.approx((live.tokens_in * 1.0 + 64 * live.calls * 2.0) / 1e6)
    batch = row(forecast.forecast(paid(mode="batch"), Path("data/fetch")), "generate orca")
    assert batch.usd == pytest.approx(live.usd / 2)
    endless = paid(params={"temperature": 0})
    rows = forecast.forecast(endless, Path("data/fetch"))
    assert row(rows, "generate orca").most is None
    said = forecast.table(endless, rows).splitlines()
    assert said[-1].startswith("total") and said[-1].endswith("no maximum")


@pytest.mark.slow
def test_an_estimate_of_sources_that_take_no_network_is_the_forecast(
    tree: Path,  # noqa: F811
    offline: None,
) -> None:
    p = params.load()
    for name in ("dolly", "flan", "topics", "mt_bench"):
        source = sources.collect(name, getattr(p.fetch, name), p.fetch.seed)
        source.write(Path("data/fetch", name))
    assert forecast.estimate(p) == forecast.forecast(p, Path("data/fetch"))


@pytest.mark.slow
def test_an_estimate_of_the_hubs_sources_asks_nobody(tree: Path, offline: None) -> None:  # noqa: F811
    rows = forecast.estimate(params.load(profile="small"))
    assert rows == forecast.estimate(params.load(profile="small")), "the same every time"
    judged = row(rows, "judge orca")
    # the judge reads the query, the target and a reply of 250 tokens, each row another text
    assert judged.tokens_in / judged.calls > forecast.QUERY / 4 + 250
    # 200 pairs of answers, two turns of each in both orders; one in fifty is asked for once more
    assert row(rows, "agreement").calls == pytest.approx(1.02 * 4 * 200, rel=0.02)
    assert row(rows, "mt_compare sft").calls == 0, "the profile compares nothing"
    assert not (tree / "work").exists()


@pytest.mark.slow
def test_what_does_not_fit_is_no_call_and_is_told_with_what_helps(
    tree: Path,  # noqa: F811
    offline: None,
) -> None:
    wide, narrow = paid(), paid(context_tokens=145)
    everything = forecast.forecast(wide, Path("data/fetch"))
    rows = forecast.forecast(narrow, Path("data/fetch"))
    said = forecast.table(wide, everything)
    assert "too long" not in said.lower() and forecast.total(everything).too_long == 0
    before, after = row(everything, "generate orca"), row(rows, "generate orca")
    assert after.too_long > 0 and after.calls + after.too_long == before.calls
    assert after.usd < before.usd and row(rows, "mt_grade base").too_long == 0
    said = forecast.table(narrow, rows)
    head = next(line for line in said.splitlines() if line.startswith("stage"))
    assert head.endswith("too long") and f"{forecast.total(rows).too_long:,}" in said
    assert "context_tokens" in said and "max_tokens" in said
    lamini = narrow.schemes.lamini.model_copy(update={"fewer_examples": False})
    schemes = narrow.schemes.model_copy(update={"lamini": lamini})
    strict = narrow.model_copy(update={"schemes": schemes})
    only = [before._replace(stage="generate lamini", too_long=1)]
    assert "-> set schemes.lamini.fewer_examples: true" in forecast.table(strict, only)
    assert "-> LaMini asks again with an example less" in forecast.table(narrow, only)


@pytest.mark.slow
def test_a_reply_that_fills_the_context_leaves_nothing_to_ask(
    tree: Path,  # noqa: F811
    offline: None,
) -> None:
    rows = forecast.forecast(paid(context_tokens=64), Path("data/fetch"))
    assert row(rows, "generate orca").calls == row(rows, "judge orca").calls == 0


@pytest.mark.parametrize("named", ["gone.json", "data", "params.yaml"])
def test_a_tokenizer_that_is_none_stops_the_forecast(tree: Path, named: str) -> None:  # noqa: F811
    with pytest.raises(BadInput, match="llm: m: tokenizer: "):
        forecast.forecast(paid(context_tokens=99, tokenizer=named), Path("data/fetch"))


def test_lengths_are_drawn_as_the_sources_have_them() -> None:
    rng = Random(0)
    drawn = [forecast._length(forecast.CONTEXT_BYTES, rng) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(forecast.CONTEXT, rel=0.03)
    assert min(drawn) >= 3 and max(drawn) <= 16_937
    drawn = [forecast._length(forecast.INSTRUCTIONS, rng) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(forecast.INSTRUCTION, rel=0.03)


def test_without_seeds_it_says_what_is_missing(tree: Path) -> None:  # noqa: F811
    Path("data/fetch/flan/queries.jsonl").unlink()
    with pytest.raises(BadInput, match=r"queries\.jsonl: there is no such file"):
        forecast.forecast(params.load(), Path("data/fetch"))


@pytest.mark.slow
def test_make_forecast_fetches_the_seeds_and_prints_the_table(
    project: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=install", "forecast"],
        cwd=project,
        env=environment(tmp_path / "work"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "profile embedded; budget_usd.stage none" in done.stdout
    assert "generate lamini" in done.stdout and done.stdout.splitlines()[-1].startswith("total")
    assert not (tmp_path / "work/ledger").exists()
