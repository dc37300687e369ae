"""What an evaluation has worked out: kept, read again, and made anew where the code does another
thing."""

import re
from pathlib import Path

import pytest

from bezoar import work
from bezoar.rows.files import BadInput
from bezoar.work.results import Results


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> object:
        made.append("once")
        return {"accuracy": 0.1 + 0.2, "items": ["a", None]}

    for _ in range(2):  # the second in another process, as it were
        assert Results(tmp_path).once("group/task", make) == {
            "accuracy": 0.1 + 0.2,
            "items": ["a", None],
        }
    assert made == ["once"]
    assert Results(tmp_path).once("group_task", lambda: "another") == "another"


def test_rows_are_on_the_disk_as_soon_as_they_are_set(tmp_path: Path) -> None:
    rows = Results(tmp_path).rows("turn_1")
    rows[7] = ["An answer.\u2028It goes on.", "stop"]
    rows[0] = ["", "length"]
    assert Results(tmp_path).rows("turn_1") == rows == {7: rows[7], 0: ["", "length"]}


def test_half_a_line_is_forgotten(tmp_path: Path) -> None:
    rows = Results(tmp_path).rows("turn_1")
    rows[0], rows[1] = ["one", "stop"], ["two", "stop"]
    data = rows.path.read_bytes()
    rows.path.write_bytes(data[:-4])  # as a kill leaves it
    again = Results(tmp_path).rows("turn_1")
    assert again == {0: ["one", "stop"]}
    again[1] = ["two", "stop"]
    assert rows.path.read_bytes() == data


def test_a_file_that_a_power_cut_spoilt_is_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for spoilt in (b"\0" * 64 + b"\n", b'{"accuracy": 0.\n', b"\xff\xfe\n", b"7\n"):
        rows = tmp_path / "turn_1.jsonl"
        rows.write_bytes(b'[0, "one"]\n' + spoilt)
        with pytest.raises(BadInput, match=rf"{re.escape(str(rows))}: is spoilt, .*; delete this"):
            results.rows("turn_1")
    for spoilt in (b"", b"\0" * 64, b"\xff\xfe"):
        kept = tmp_path / "harness.json"
        kept.write_bytes(spoilt)
        with pytest.raises(BadInput, match=rf"{re.escape(str(kept))}: is spoilt, .*; delete this"):
            results.once("harness", lambda: "never made")
        kept.unlink()
        assert results.once("harness", lambda: "anew") == "anew"


def test_code_is_what_it_does(tmp_path: Path) -> None:
    def code(text: str) -> str:
        file = tmp_path / "module.py"
        file.write_text(text)
        return work.code(file)

    plain = code("def f(x: int) -> int:\n    return x + 1\n")
    told = (
        '"""A module."""\n\n\ndef f(x: int) -> int:\n    """Add one."""\n    return x + 1  # yes\n'
    )
    assert code(told) == plain
    assert code("def f(x: int) -> int:\n    return x + 2\n") != plain
    assert code('def f():\n    return "x"\n') != code('def f():\n    "x"\n')
    assert code('"""Only words."""\n') == code("")
