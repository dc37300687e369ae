"""From judged samples to training data: every reason, the split, the funnel."""

from typing import Any

import pytest

from bezoar import curation
from bezoar.files import BadInput
from bezoar.params import Filter
from bezoar.records import Rejected, Sample, Seed, Verdict
from tests.test_schemes import dolly
from tests.test_verdicts import sample

PARAMS = Filter(min_rating=3, copy_ratio=0.6, copy_distance=9, eval_share=0.2)


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
    kept, dropped = curation.keep(rows, judged, seeds or [], PARAMS)
    assert [row.id for row in rows] == sorted([r.id for r in (*kept, *dropped)]), "none is lost"
    return [row.id for row in kept], [row.reason for row in dropped]


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
    kept, dropped = curation.keep(
        rows, [verdict(rows[0], "rejected"), verdict(rows[1])], seeds, PARAMS
    )
    assert [row.id for row in kept] == ["2"]
    assert dropped[0].reason == "copy"
    assert dropped[0].details == {"seed": "open_qa-1", "distance": 4, "ratio": "0.923"}


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


def test_verdicts_of_other_samples_are_an_error() -> None:
    rows = [sample(id="1"), sample(id="2")]
    for verdicts in ([verdict(rows[0])], [verdict(rows[1]), verdict(rows[0])]):
        with pytest.raises(BadInput, match="run the judge stage again"):
            curation.keep(rows, verdicts, [], PARAMS)


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


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_side_is_left_empty(share: float) -> None:
    train, held_out = curation.split(many(5), [], share)
    assert min(len(train), len(held_out)) == 1


@pytest.mark.parametrize("rows", [[], [sample(id="1")], [sample(id="1"), sample(id="2")]])
def test_too_few_rows_to_split_are_an_error(rows: list[Sample]) -> None:
    with pytest.raises(BadInput, match="too few for training and evaluation"):
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
    counts = curation.funnel(verdicts, rows, before)
    assert counts == {
        "copies": 2,
        "equal": 2,
        "accepted": 1,
        "rejected": 1,
        "undecided": 1,
        "kept": 3,
        "reasons": {"copy": 1, "echo": 1, "equal": 2, "missing": 1},
        "distributions": {
            "strategy": {"in_depth": 1, "in_breadth": 1},
            "operation": {"deepen": 1},
            "epoch": {"1": 1, "2": 1},
            "topic_guided": {"true": 1},
            "category": {"open_qa": 2, "summarization": 1},
        },
        "judge": "j",
        "simulated_judge": False,
    }
