"""From judged samples to training data: every reason, the split, the funnel."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.filtering import contamination, curation
from bezoar.params import Filter, RowAction
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Rejected, Sample, Seed, Verdict
from tests.builders.rows import dolly, sample
from tests.conftest import ROOT

PARAMS = params.load(ROOT).filter.model_copy(
    update={"min_rating": 3, "copy_ratio": 0.6, "copy_distance": 9, "eval_share": 0.2}
)


def verdict(row: Sample, status: str = "accepted", rating: int | None = 6) -> Verdict:
    return Verdict.model_validate(
        {
            "id": row.id,
            "status": status,
            "rating": rating,
            "reason": "so",
            "reply": "",
            "judge": "j",
            "simulated": False,
        }
    )


def kept_and_reasons(
    rows: list[Sample], verdicts: list[Verdict] | None = None, seeds: list[Seed] | None = None
) -> tuple[list[str], list[str]]:
    judged = [verdict(row) for row in rows] if verdicts is None else verdicts
    kept, dropped, *_ = curation.keep(rows, judged, seeds or [], PARAMS)
    assert [row.id for row in rows] == sorted([r.id for r in (*kept, *dropped)]), "none is lost"
    return [row.id for row in kept], [row.reason for row in dropped]


@pytest.mark.slow
def test_good_rows_stay() -> None:
    rows = [sample(id="1"), sample(id="2", instruction="Name a lake.")]
    assert kept_and_reasons(rows) == (["1", "2"], [])


@pytest.mark.parametrize(
    ("status", "rating", "reason"),
    [
        ("rejected", 7, "rejected"),
        ("undecided", None, "undecided"),
        ("accepted", 2, "low_rating"),
        ("accepted", 3, None),
    ],
)
def test_the_judges_word_decides(status: str, rating: int | None, reason: str | None) -> None:
    row = sample(id="1")
    kept, reasons = kept_and_reasons([row], [verdict(row, status, rating)])
    assert (kept, reasons) == (([], [reason]) if reason else (["1"], []))


@pytest.mark.parametrize("field", ["instruction", "context", "response", "system"])
@pytest.mark.parametrize("marker", ["### Response:", "### System:", "</s>", "<|im_end|>"])
def test_a_row_that_would_break_the_template_goes(field: str, marker: str) -> None:
    kept, reasons = kept_and_reasons([sample(id="1", **{field: f"a {marker} b"})])
    assert (kept, reasons) == ([], ["template_marker"])


def test_a_copy_of_a_seed_goes_whatever_the_judge_says() -> None:
    seeds = dolly("open_qa", 2)
    rows = [
        sample(id="1", instruction=seeds[1].instruction + " now"),
        sample(id="2", instruction="Something else altogether."),
    ]
    kept, dropped, *_ = curation.keep(
        rows, [verdict(rows[0], "rejected"), verdict(rows[1])], seeds, PARAMS
    )
    assert [row.id for row in kept] == ["2"]
    assert dropped[0].reason == "copy"
    details = {"seed": "open_qa-1", "seed_text": seeds[1].instruction}
    assert dropped[0].details == {**details, "distance": 4, "ratio": "0.923"}


def test_duplicates_go_and_the_first_accepted_one_stays() -> None:
    rows = [
        sample(id="1"),
        sample(id="2"),
        sample(id="3", instruction=" Name  a\nriver. "),
        sample(id="4", context="Rhine, Po"),
        sample(id="5", system="Be brief."),
    ]
    verdicts = [verdict(rows[0], "rejected"), *(verdict(row) for row in rows[1:])]
    assert kept_and_reasons(rows, verdicts) == (["2", "4", "5"], ["rejected", "duplicate"])


def test_a_profile_may_keep_duplicates_and_rows_with_markers_and_write_them_down() -> None:
    reports = RowAction(action="report")
    params = PARAMS.model_copy(update={"duplicates": reports, "markers": reports})
    rows = [
        sample(id="1"),
        sample(id="2"),
        sample(id="3", instruction="Another.", response="### Response: a river"),
    ]
    curated = curation.keep(rows, [verdict(row) for row in rows], [], params)
    assert [row.id for row in curated.kept] == ["1", "2", "3"]
    reported = [(row.id, row.reason) for row in curated.reported]
    assert {("2", "duplicate"), ("3", "template_marker")} <= set(reported)
    assert curated.dropped == []


def test_verdicts_of_other_samples_are_an_error() -> None:
    rows = [sample(id="1"), sample(id="2")]
    for verdicts in ([verdict(rows[0])], [verdict(rows[1]), verdict(rows[0])]):
        with pytest.raises(BadInput, match="run the judge stage again"):
            curation.keep(rows, verdicts, [], PARAMS)


# --- what a profile may drop or report ----------------------------------------------------------

LONG = "Name three rivers that run through four towns or more, and say where each of them ends."
BENCHMARK = [contamination.Text("quiz", "7", LONG, ())]


def acting(action: str, **more: Any) -> Filter:
    """The parameters, with one action for every check."""
    document = PARAMS.model_dump()
    for check in ("near_duplicates", "contamination", "gates"):
        document[check]["action"] = action
    return Filter.model_validate({**document, **more})


def curated(rows: list[Sample], action: str, **more: Any) -> curation.Curated:
    return curation.keep(rows, [verdict(row) for row in rows], [], acting(action), **more)


FAULTY = [
    sample(id="1", response="I'm sorry, but I can't help with that."),
    sample(id="2", instruction=LONG),
    sample(id="3", instruction=LONG[:-1] + " please."),
    sample(id="4", instruction="Name a lake."),
]


def test_dropped_rows_say_why() -> None:
    found = curated(FAULTY, "drop")
    assert [row.id for row in found.kept] == ["2", "4"]
    assert [(row.id, row.reason) for row in found.dropped] == [
        ("1", "refusal"),
        ("3", "near_duplicate"),
    ]
    assert found.dropped[1].details == {"of": "2", "similarity": "0.938"}
    assert found.reported == found.contaminations == []


def test_reported_rows_stay_and_say_why() -> None:
    found = curated(FAULTY, "report", benchmarks=BENCHMARK)
    assert [row.id for row in found.kept] == ["1", "2", "3", "4"] and not found.dropped
    assert [(row.id, row.reason) for row in found.reported] == [
        ("1", "refusal"),
        ("2", "contaminated"),
        ("3", "contaminated"),
        ("3", "near_duplicate"),
    ]


def test_an_item_of_a_benchmark_goes_and_is_named() -> None:
    found = curated(FAULTY, "drop", benchmarks=BENCHMARK)
    assert [row.id for row in found.kept] == ["4"]
    gone = {row.id: row for row in found.dropped}
    assert gone["2"].reason == gone["3"].reason == "contaminated"
    assert gone["2"].details == {
        "benchmark": "quiz",
        "item": "7",
        "kind": "ngram",
        "score": "1.000",
    }
    assert [(c.id, c.kind) for c in found.contaminations] == [
        ("2", "fuzzy"),
        ("2", "ngram"),
        ("3", "fuzzy"),
        ("3", "ngram"),
    ]


def test_what_the_judge_refused_is_not_looked_for_in_benchmarks() -> None:
    rows = [sample(id="1", instruction=LONG)]
    found = curation.keep(
        rows, [verdict(rows[0], "rejected")], [], acting("drop"), benchmarks=BENCHMARK
    )
    assert not found.contaminations and found.dropped[0].reason == "rejected"


def test_a_row_near_one_that_went_stays() -> None:
    rows = [
        sample(id="1", instruction=LONG, response="I'm sorry, but I can't help with that."),
        sample(id="2", instruction=LONG[:-1] + " please."),
    ]
    assert [row.id for row in curated(rows, "drop").kept] == ["2"]


def test_the_same_question_under_another_system_message_is_another_row() -> None:
    rows = [sample(id=s, instruction=LONG, system=s) for s in ("Be brief.", "Explain.")]
    assert len(curated(rows, "drop").kept) == 2
    alike = [*rows, sample(id="3", instruction=LONG[:-1] + " please.", system="Explain.")]
    assert [(r.id, r.details["of"]) for r in curated(alike, "drop").dropped] == [("3", "Explain.")]


def test_a_row_near_one_of_an_earlier_scheme_goes() -> None:
    before = [sample(id="lamini-1", instruction=LONG[:-1] + " please.")]
    rows = [sample(id="orca-1", instruction=LONG, system="Explain."), sample(id="orca-2")]
    found = curated(rows, "drop", earlier=before)
    assert [row.id for row in found.kept] == ["orca-2"]
    assert found.dropped[0].details["of"] == "lamini-1"


def test_an_earlier_scheme_contributes_what_passes_on_its_own() -> None:
    rows = [*FAULTY, sample(id="5", instruction="Name a hill.")]
    verdicts = [*map(verdict, FAULTY), verdict(rows[-1], "rejected")]
    for action, ids in (("drop", ["2", "3", "4"]), ("report", ["1", "2", "3", "4"])):
        assert [r.id for r in curation.accepted_rows(rows, verdicts, acting(action))] == ids


@pytest.mark.parametrize("turned", [False, True])
def test_which_scheme_is_earlier_is_no_matter_of_the_order_in_the_file(
    turned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC sees the values of params.yaml alone, so another order would run nothing again."""
    p = params.load(ROOT)
    schemes = [*p.schemes.model_dump().items()][:: -1 if turned else 1]
    p = p.model_copy(update={"schemes": params.Schemes.model_validate(dict(schemes))})
    monkeypatch.chdir(tmp_path)
    for scheme in ("lamini", "evol_instruct", "orca"):
        row = sample(id=f"{scheme}-1", instruction=f"Name what {scheme} is.")
        write_jsonl(f"data/generate/{scheme}/samples.jsonl", [row])
        write_jsonl(f"data/judge/{scheme}/verdicts.jsonl", [verdict(row)])
    earlier = {
        scheme: [row.id for row in curation.earlier_rows(scheme, p)]
        for scheme in ("lamini", "evol_instruct", "orca")
    }
    before_orca = ["lamini-1", "evol_instruct-1"]
    assert earlier == {"lamini": [], "evol_instruct": ["lamini-1"], "orca": before_orca}


# --- the split -----------------------------------------------------------------------------------


def many(count: int, **changes: Any) -> list[Sample]:
    return [sample(id=str(n), instruction=f"Ask {n}?", **changes) for n in range(count)]


def test_the_split_has_about_the_wanted_share_and_loses_nothing() -> None:
    rows = many(1000)
    train, held_out = curation.split(rows, [], 0.2)
    assert 150 < len(held_out) < 250
    assert sorted(r.id for r in (*train, *held_out)) == sorted(r.id for r in rows)
    assert [int(r.id) for r in train] == sorted(int(r.id) for r in train)


def test_a_row_stays_on_its_side_when_others_come_or_ids_change() -> None:
    before = {r.instruction for r in curation.split(many(300), [], 0.2)[1]}
    more = [row.model_copy(update={"id": f"new-{row.id}"}) for row in reversed(many(600))]
    after = {r.instruction for r in curation.split(more, [], 0.2)[1]}
    assert before == {text for text in after if int(text[4:-1]) < 300}


def test_rows_of_one_instruction_stand_on_one_side() -> None:
    rows = [row for n in range(3) for row in many(200, system=str(n))]
    train, held_out = curation.split(rows, [], 0.3)
    assert not {r.instruction for r in train} & {r.instruction for r in held_out}


def test_evolutions_of_one_seed_stand_on_one_side() -> None:
    seeds = dolly("open_qa", 100)
    twin = seeds[0].model_copy(update={"id": "twin"})  # Dolly holds some instructions twice
    rows = [
        sample(id=f"{s.id}-{e}", instruction=f"{s.id} {e}", seeds=[s.id], details={"epoch": e})
        for s in [*seeds, twin]
        for e in (1, 2)
    ]
    train, held_out = curation.split(rows, [*seeds, twin], 0.3)
    sides = [{r.seeds[0] for r in side} for side in (train, held_out)]
    assert not sides[0] & sides[1] and len(sides[1]) > 10
    assert any({"open_qa-0", "twin"} <= side for side in sides)


def calls(count: int, shown: int, seeds: int, first: int = 0) -> list[Sample]:
    """Rows of LaMini calls, three a call; each call shows some of the seeds."""
    rows = []
    for call in range(first, first + count):
        named = [f"open_qa-{n}" for n in random.Random(call).sample(range(seeds), shown)]
        rows += [sample(id=f"{call}-{n}", instruction=f"{call} {n}", seeds=named) for n in range(3)]
    return rows


def used(rows: Sequence[Sample]) -> set[str]:
    return {seed for row in rows for seed in row.seeds}


@pytest.mark.slow
def test_no_row_of_training_was_made_from_a_held_out_seed() -> None:
    seeds, rows = dolly("open_qa", 2000), calls(1000, 3, 2000)
    train, held_out = curation.split(rows, seeds, 0.1)
    assert 0.07 < len(held_out) / len(rows) < 0.13
    assert all({*row.seeds} - used(train) for row in held_out)
    # the rows of one call stand on one side
    assert not {r.id.split("-")[0] for r in train} & {r.id.split("-")[0] for r in held_out}


def test_rows_of_several_seeds_stay_on_their_side_too() -> None:
    seeds = dolly("open_qa", 2000)
    before = {row.id for row in curation.split(calls(300, 3, 2000), seeds, 0.1)[1]}
    after = {row.id for row in curation.split(calls(900, 3, 2000), seeds, 0.1)[1]}
    assert before == {id for id in after if int(id.split("-")[0]) < 300}


@pytest.mark.parametrize("count", [50, 300, 600])
def test_no_seed_stands_on_both_sides(count: int) -> None:
    seeds = dolly("open_qa", 1000)
    rows, dropped = curation.drop_shared_seeds(calls(count, 3, 1000), seeds, 0.1)
    train, held_out = curation.split(rows, seeds, 0.1)
    assert held_out and not used(train) & used(held_out)
    assert len(rows) + len(dropped) == 3 * count
    assert {row.reason for row in dropped} <= {"shared_seed"}
    # nothing that is trained on goes
    assert train == curation.split(calls(count, 3, 1000), seeds, 0.1)[0]
    assert all({*str(row.details["seeds"]).split(", ")} <= used(train) for row in dropped)


def test_rows_of_one_seed_each_lose_nothing() -> None:
    rows = calls(300, 1, 100)
    assert curation.drop_shared_seeds(rows, dolly("open_qa", 100), 0.1) == (rows, [])


@pytest.mark.slow
def test_where_every_held_out_row_shares_a_seed_all_stay() -> None:
    """Far more calls than seeds: each seed was shown to some row of training."""
    rows, seeds = calls(3000, 3, 300), dolly("open_qa", 300)
    assert curation.drop_shared_seeds(rows, seeds, 0.1) == (rows, [])


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_side_is_left_empty(share: float) -> None:
    train, held_out = curation.split(many(5), [], share)
    assert min(len(train), len(held_out)) == 1


@pytest.mark.parametrize("rows", [[], [sample(id="1")], [sample(id="1"), sample(id="2")]])
def test_too_few_rows_to_split_are_an_error(rows: list[Sample]) -> None:
    with pytest.raises(BadInput, match="two are needed that were made from different seeds"):
        curation.split(rows, [], 0.2)


# --- the funnel ----------------------------------------------------------------------------------


def rejected(reason: str) -> Rejected:
    return Rejected(id=reason, scheme="lamini", reason=reason, text="", details={})


def test_the_funnel_counts_reasons_statuses_and_distributions() -> None:
    rows = [
        sample(id="1", details={"strategy": "in_depth", "operation": "deepen", "epoch": 1}),
        sample(id="2", details={"strategy": "in_breadth", "operation": "", "epoch": 2}),
        sample(id="3", category="summarization", details={"topic_guided": True}),
    ]
    verdicts = [verdict(rows[0]), verdict(rows[1], "undecided", None), verdict(rows[2], "rejected")]
    before = [rejected(r) for r in ("copy", "echo", "equal", "equal", "missing")]
    counts = curation.funnel(rows, verdicts, rows[1:], before, [rejected("contaminated")])
    assert counts == {
        "copies": 2,
        "equal": 2,
        "accepted": 1,
        "rejected": 1,
        "undecided": 1,
        "kept": 2,
        "reasons": {"copy": 1, "echo": 1, "equal": 2, "missing": 1},
        "reported": {"contaminated": 1},
        "distributions": {
            "generated": {
                "strategy": {"in_depth": 1, "in_breadth": 1},
                "operation": {"deepen": 1},
                "epoch": {"1": 1, "2": 1},
                "topic_guided": {"true": 1},
                "category": {"open_qa": 2, "summarization": 1},
            },
            "kept": {
                "strategy": {"in_breadth": 1},
                "epoch": {"2": 1},
                "topic_guided": {"true": 1},
                "category": {"open_qa": 1, "summarization": 1},
            },
        },
        "by_category": {
            "generated": {"open_qa": {"in_depth": 1, "in_breadth": 1}},
            "kept": {"open_qa": {"in_breadth": 1}},
        },
        "judge": "j",
        "simulated_judge": False,
    }
