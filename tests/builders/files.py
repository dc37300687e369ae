"""Files as users have them, and what is read of them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bezoar.params import Reading
from bezoar.rows.files import BadInput
from bezoar.sources import local
from bezoar.sources.tables import Source

DOLLY = {"instruction": "Name a river.", "context": "", "response": "Oder.", "category": "open_qa"}
PAIR = {
    "chosen": "\n\nHuman: Hello.\n\nAssistant: Hi!",
    "rejected": "\n\nHuman: Hello.\n\nAssistant: Go.",
}
TASK = {
    "Definition": ["Say the opposite."],
    "Instances": [{"id": "a", "input": "hot", "output": ["cold", "chilly"]}],
    "Instance License": ["MIT"],
}
CHAIN = "How many legs have two hens?\t4\tA hen has two legs, so two hens have four.\\n2 + 2 = 4"
QUESTIONS = [
    {"question_id": 1, "category": "math", "turns": ["One?", "Two?"], "reference": ["hint", ""]},
    {"question_id": 2, "category": "writing", "turns": ["Three?", "Four?"]},
]


def put(path: Path, *rows: Any, text: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if text is None else text)
    return path


def parquet(*rows: Any) -> bytes:
    from pyarrow import BufferOutputStream, Table
    from pyarrow.parquet import write_table

    out = BufferOutputStream()
    write_table(Table.from_pylist(rows), out)
    return bytes(out.getvalue().to_pybytes())


def read(name: str, folder: Path, limit: int | None = None, **how: Any) -> Source:
    source = local.read(name, limit, 7, folder, settings=Reading(**how))
    assert source is not None
    return source


def table(name: str, file: str, folder: Path, limit: int | None = None) -> Any:
    return read(name, folder, limit).tables[file]


def fails(name: str, folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        local.read(name, None, 7, folder)
    assert caught.value.code
    return str(caught.value)


def adds_up(source: Source) -> None:
    """Every row that was read is used, left out with a reason, or beyond the limit."""
    files: Any = source.account["files"]
    for title, counts in files.items():
        ends = counts["used"] + counts["left_out"] + counts["beyond_limit"]
        assert counts["read"] == ends, title
    reasons: Any = source.account["left_out"]
    assert sum(counts["left_out"] for counts in files.values()) == sum(reasons.values())


def pair(question: str, chosen: str = "Yes.", rejected: str = "No.") -> dict[str, str]:
    asked = f"\n\nHuman: {question}\n\nAssistant: "
    return {"chosen": asked + chosen, "rejected": asked + rejected}


def answer(question: int, *turns: str, model: str = "m") -> dict[str, Any]:
    return {"question_id": question, "model_id": model, "choices": [{"index": 0, "turns": turns}]}


def vote(question: int, winner: str, turn: int = 1) -> dict[str, Any]:
    sides = {"model_a": "m", "model_b": "n"}
    return {"judge": "author_1", "question_id": question, "turn": turn, "winner": winner, **sides}


FLAT = {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}
NESTED = [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]
TRUTH = {"question": "?", "best_answer": "b", "correct_answers": ["b"], "incorrect_answers": ["a"]}
ITEMS = [
    ({"question": "?", "choices": FLAT, "answerKey": "2"}, "?", ["a", "b", "c"], 1),
    ({"question_stem": "?", "choices": FLAT, "answerKey": "3"}, "?", ["a", "b", "c"], 2),
    ({"question": {"stem": "?", "choices": NESTED}, "answerKey": "B"}, "?", ["a", "b"], 1),
    ({"goal": "?", "sol1": "a", "sol2": "b", "label": 1}, "?", ["a", "b"], 1),
    (TRUTH, "?", ["b", "a"], 0),
    (
        {"question": "?", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}},
        "?",
        ["a", "b"],
        1,
    ),
    ({"ctx": "She", "endings": ["ran", "sat"], "label": "1"}, "She", ["ran", "sat"], 1),
    (
        {"sentence": "The _ fell.", "option1": "cup", "option2": "cat", "answer": "2"},
        "The",
        ["cup fell.", "cat fell."],
        1,
    ),
    (
        {
            "question": "?",
            "correct_answer": "a",
            **{f"distractor{n}": str(n) for n in (1, 2, 3)},
            "support": "Read.",
        },
        "Read.\n\n?",
        ["a", "1", "2", "3"],
        0,
    ),
    ({"question": "?", "passage": "Read.", "answer": True}, "Read.\n\n?", ["no", "yes"], 1),
    ({"question": "?", "choices": ["3", "2"], "answer": 0, "subject": "x"}, "?", ["3", "2"], 0),
    (
        {"question": "?", "options": ["a", "b"], "answer": "B", "article": "R"},
        "R\n\n?",
        ["a", "b"],
        1,
    ),
    ({"question": "?", "choices": ["x", "y"], "label": "y"}, "?", ["x", "y"], 1),
]


def piqa(n: int, label: object = 1) -> dict[str, Any]:
    return {"goal": f"Goal {n}?", "sol1": "a", "sol2": "b", "label": label}


def spread(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\r\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
