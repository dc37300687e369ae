"""The user's own rows as a set: filtered and split as generated ones are, judged by nobody."""

from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.report import __main__ as report
from bezoar.report import lineage
from bezoar.rows.files import BadInput, read_json, read_jsonl, write_jsonl
from bezoar.rows.records import Kept, Rejected, Seed
from bezoar.sources import local
from stages import filter as filtering
from stages import mix
from tests.builders import parameters


def write_params() -> params.Params:
    """params.yaml of the current folder with own rows in the first link."""
    with parameters.changed(Path()) as document:
        document["own"] = ["dolly"]
        document["chain"]["lamini"]["data"] = ["filter/lamini", "filter/dolly"]
    return params.load()


def bad_rows(seeds: list[Seed]) -> list[Seed]:
    """Rows that a filter must see without a judge, made of good ones."""
    good = seeds[0]
    broken: dict[str, dict[str, Any]] = {
        "dolly-90001": {},  # the first row again
        "dolly-90002": {"instruction": "Where is the lynx?", "response": "A </s><s>[INST] b"},
        "dolly-90003": {
            "instruction": "How do I mend a fence of willow?",
            "response": "I'm sorry, but as an AI language model I cannot help with that.",
        },
        "dolly-90004": {
            "instruction": "What does the heron say at dawn?",
            "response": "it goes on and on and " * 30,
        },
    }
    return [good.model_copy(update={"id": id, **change}) for id, change in broken.items()]


@pytest.mark.slow
def test_own_rows_become_a_set_that_a_link_mixes(folder: Path) -> None:
    seeds = list(read_jsonl("data/fetch/dolly/seeds.jsonl", Seed))
    bad = bad_rows(seeds)
    named = [seeds[0].model_copy(update={"own_id": "T 1"}), *seeds[1:], *bad]
    write_jsonl("data/fetch/dolly/seeds.jsonl", named)
    settings = write_params()
    filtering.main("dolly")
    train = list(read_jsonl("data/filter/dolly/train.jsonl", Kept))
    held_out = list(read_jsonl("data/filter/dolly/eval.jsonl", Kept))
    dropped = {
        row.id: row.reason for row in read_jsonl("data/filter/dolly/rejected.jsonl", Rejected)
    }
    assert dropped["dolly-90001"] == "duplicate" and dropped["dolly-90003"] == "refusal"
    assert dropped["dolly-90004"] == "loop" and {*dropped} >= {row.id for row in bad} - {
        "dolly-90002"
    }
    assert len(train) + len(held_out) + len(dropped) == len(named)
    assert 0.04 < len(held_out) / (len(train) + len(held_out)) < 0.2
    by_id = {seed.id: seed for seed in named}
    for row in [*train, *held_out]:
        assert row.response == by_id[row.id].response and row.seeds == [row.id]
        assert (row.teacher, row.teacher_terms, row.judge_terms) == ("", "", "")
    sheet: Any = read_json("data/filter/dolly/licences.json")
    assert not sheet["unknown"] and {each["teacher"] for each in sheet["combinations"]} == {
        "nobody"
    }
    card = Path("data/filter/dolly/README.md").read_text(encoding="utf-8")
    assert f"{len(train) + len(held_out)} of {len(named)} rows" in card and "teacher" not in card
    measured: Any = read_json("metrics/filter/dolly.json")
    assert measured["own"] == len(named) and "accepted_share" not in measured

    mix.main("lamini")
    counts: Any = read_json("metrics/mix/lamini.json")
    assert counts["sets"]["filter/dolly"] == len(train) and counts["sets"]["filter/lamini"] > 0

    once = settings.mix.model_copy(update={"replay": 0.0})  # no other link was mixed here
    settings = settings.model_copy(update={"mix": once})
    trained = next(row.id for row in train)
    found = lineage.trace(trained, settings)
    assert found["exchanges"] == [] and found["verdict"] is None
    assert found["trained_by"] == ["sft@lamini"]
    text = lineage.text(lineage.trace(named[0].id, settings))
    assert f"seed {named[0].id} (T 1)" in text and "teacher" not in text
    lost = lineage.text(lineage.trace("dolly-90003", settings))
    assert "dropped by filter_own@dolly: refusal" in lost
    with pytest.raises(BadInput, match="dolly-99999: no row has this id; the nearest of"):
        lineage.trace("dolly-99999", settings)


def test_one_line_says_which_categories_there_are_and_which_a_scheme_draws_from() -> None:
    schemes = params.load().schemes
    counts = {"Rechnung": 120, "Versand": 80, "Konto": 2, "general_qa": 9}
    assert local.describe_draws({"categories": counts}, schemes) == (
        "categories of the seeds: Rechnung (120), Versand (80), general_qa (9), Konto (2); lamini "
        "draws from Rechnung, Versand, and not from Konto, general_qa; evol_instruct draws from "
        "Konto, Rechnung, Versand, and not from general_qa"
    )
    assert schemes.lamini
    listed = schemes.lamini.model_copy(update={"categories": ["open_qa"]})
    told = local.describe_draws(
        {"categories": counts}, schemes.model_copy(update={"lamini": listed, "orca": None})
    )
    assert "lamini draws from none: it wants 3 or more of open_qa" in told


def test_one_line_of_the_report_says_what_became_of_own_rows() -> None:
    rows = {"kept": 1667, "own": 1804, "reasons": {"duplicate": 134, "loop": 3}}
    assert report._own_rows_line("dolly", {**rows, "shares": {"lamini": 0.6621, "orca": 0.05}}) == (
        "Your own rows (dolly): 1,667 of 1,804 kept (dropped: duplicate 134, loop 3); they are "
        "66 % of lamini's, 5 % of orca's rows"
    )
    unused = report._own_rows_line("dolly", {"kept": 9, "own": 9, "reasons": {}, "shares": {}})
    assert unused == "Your own rows (dolly): 9 of 9 kept; no link learns from them"
