"""What models write, and what is read of it: tests/reading/forms/NAME.yaml, one file a reader."""

import time
from pathlib import Path
from typing import Any

import pytest

from bezoar.judging import verdicts
from bezoar.reading.closing import CHOICE, RATING, read_value
from bezoar.reading.equality import equality
from bezoar.reading.evolved import prompt
from bezoar.reading.examples import examples
from bezoar.reading.markup import split_input
from bezoar.rows.records import Reply
from tests.builders.rows import sample
from tests.builders.scripted import said
from tests.conftest import from_yaml

FORMS = Path(__file__).parent / "forms"
READERS = ("choice", "equality", "evolved", "examples", "rating", "verdict")


def forms(reader: str) -> list[Any]:
    rows = from_yaml((FORMS / f"{reader}.yaml").read_text(encoding="utf-8"))
    return [pytest.param(row, id=row["name"]) for row in rows]


def ended(row: dict[str, Any]) -> Reply:
    return said(row["reply"], "length" if row.get("cut") else "stop")


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_is_held_by_sixty_forms(reader: str) -> None:
    rows = [param.values[0] for param in forms(reader)]
    assert len(rows) >= 60 and len({row["name"] for row in rows}) == len(rows)
    assert len({(row["reply"], row.get("cut")) for row in rows}) == len(rows)


@pytest.mark.parametrize("row", forms("rating"))
def test_the_rating_of_a_grader_is_read(row: dict[str, Any]) -> None:
    score, status = verdicts.rating(ended(row))
    assert (score if status == "ok" else "undecided") == row["reading"]


@pytest.mark.parametrize("row", forms("choice"))
def test_the_choice_of_a_judge_is_read(row: dict[str, Any]) -> None:
    chosen, status = verdicts.choice(ended(row))
    assert (chosen if status == "ok" else "undecided") == row["reading"]


@pytest.mark.parametrize("row", forms("equality"))
def test_equality_is_read(row: dict[str, Any]) -> None:
    assert equality(row["reply"]) == row["reading"]


@pytest.mark.parametrize("row", forms("evolved"))
def test_the_evolved_prompt_is_read(row: dict[str, Any]) -> None:
    found = prompt(row["reply"])
    wanted = row["reading"]
    if isinstance(wanted, dict):
        assert split_input(found or "") == (wanted["instruction"], wanted["input"])
    else:
        assert ("undecided" if found is None else found) == wanted


def listed(row: dict[str, Any]) -> list[str | dict[str, str]]:
    items = examples(row["reply"], cut=row.get("cut", False))
    return [
        {"fault": item.fault}
        if item.fault
        else {"instruction": item.instruction, "input": item.context}
        if item.context
        else item.instruction
        for item in items
    ]


@pytest.mark.parametrize("row", forms("examples"))
def test_the_examples_of_a_teacher_are_read(row: dict[str, Any]) -> None:
    found = listed(row)
    sure = found and found != [{"fault": "unread_example"}]
    assert (found if sure else "undecided") == row["reading"]


@pytest.mark.parametrize("row", forms("verdict"))
def test_the_verdict_of_a_judge_is_read(row: dict[str, Any]) -> None:
    judged = sample(**({"response": row["judged"]} if "judged" in row else {}))
    found = verdicts.verdict(judged, ended(row), 7)
    decided = {"status": found.status, "rating": found.rating}
    assert ("undecided" if found.status == "undecided" else decided) == row["reading"]


PIECES = from_yaml((FORMS / "pieces.yaml").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_a_reply_of_a_hundred_kilobytes_is_read_at_once(piece: str) -> None:
    for text in (piece * (100_000 // len(piece)), "x" + piece * (100_000 // len(piece)) + "x"):
        for name, read in {
            "rating": lambda text: read_value(RATING, text),
            "choice": lambda text: read_value(CHOICE, text),
            "equality": equality,
            "evolved": prompt,
            "examples": examples,
            "verdict": lambda text: verdicts.verdict(sample(), said(text), 7),
        }.items():
            begun = time.process_time()
            read(text)
            assert time.process_time() - begun < 2, (name, piece)
