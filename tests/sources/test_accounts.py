"""Every row that is given is used, left out with a reason, or beyond the limit; what is given twice
stands on one side alone."""

import gzip
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from bezoar.sources import link, local
from bezoar.sources.tables import Source
from tests.builders.files import (
    CHAIN,
    DOLLY,
    PAIR,
    QUESTIONS,
    TASK,
    adds_up,
    answer,
    fails,
    pair,
    parquet,
    piqa,
    put,
    read,
    spread,
    vote,
)
from tests.conftest import DATA


def sides(source: Source) -> tuple[Any, Any]:
    tables: Any = source.tables
    return tables["train.jsonl"], tables["test.jsonl"]


def prompts(pairs: Any) -> set[str]:
    texts = ("\n".join(turn.content for turn in pair.prompt) for pair in pairs)
    return {" ".join(text.split()).casefold() for text in texts}


def counts(source: Source) -> Any:
    adds_up(source)
    return source.account["rows"]


# --- given twice ---------------------------------------------------------------------------------


def test_the_same_pairs_in_other_files_are_read_once_and_told(tmp_path: Path) -> None:
    rows = [pair(f"Ball {n}?") for n in range(18)]
    folder = tmp_path / "hh_rlhf"
    put(folder / "a.jsonl", *rows)
    put(folder / "b.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    put(folder / "c.csv", text=spread(rows))
    put(folder / "deep/d.parquet").write_bytes(parquet(*rows[::-1]))
    put(folder / "e.json", text=json.dumps({"data": [pair(f"  BALL {n}?\n") for n in range(18)]}))
    source = read("hh_rlhf", tmp_path)
    train, test = sides(source)
    assert (len(train), len(test)) == (10, 8) and not prompts(train) & prompts(test)
    assert counts(source) == {
        "a.jsonl": 18,
        "b.jsonl.gz": 0,
        "c.csv": 0,
        "deep/d.parquet": 0,
        "e.json": 0,
    }
    assert source.account["left_out"] == {"given by another file too": 72}


def test_no_prompt_stands_in_training_and_in_the_test(tmp_path: Path) -> None:
    rows = [
        pair(question, chosen=f"Answer {n}.")
        for n in range(60)
        for question in ([f"Ask {n % 20}?", f" ask  {n % 20}?", f"ASK {n % 20}?"][n % 3],)
    ]
    put(tmp_path / "hh_rlhf/a.jsonl", *rows, *rows[:5])
    source = read("hh_rlhf", tmp_path)
    train, test = sides(source)
    assert len(train) + len(test) == 65 and not prompts(train) & prompts(test)
    assert abs(len(train) - 65 * 5 / 9) < 4


def test_a_prompt_that_most_pairs_share_is_on_one_side_and_one_prompt_alone_is_an_error(
    tmp_path: Path,
) -> None:
    many = [pair("Same?", chosen=f"Answer {n}.") for n in range(9)]
    put(tmp_path / "hh_rlhf/a.jsonl", *many, pair("Other?"))
    train, test = sides(read("hh_rlhf", tmp_path))
    assert (len(train), len(test)) == (1, 9)
    put(tmp_path / "hh_rlhf/a.jsonl", *many)
    assert "all 9 pairs have one prompt; training and testing want" in fails("hh_rlhf", tmp_path)


def test_the_same_rows_of_any_kind_are_read_once(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.jsonl", DOLLY, DOLLY)  # what one file repeats is its own
    put(tmp_path / "dolly/b.csv", text=spread([{**DOLLY, "response": "oder. "}]))
    put(tmp_path / "flan/task1.json", text=json.dumps(TASK))
    put(tmp_path / "flan/task1 copy.json", text=json.dumps([TASK]))
    put(tmp_path / "topics/a.txt", text="Seas\t12\nRivers\t3\n")
    put(tmp_path / "topics/b.jsonl", {"name": "Seas", "subcategories": 9})
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS)
    put(tmp_path / "mt_bench/q2.json", text=json.dumps(QUESTIONS))
    put(tmp_path / "mt_bench/v.jsonl", vote(1, "tie"), vote(1, "tie"))
    put(tmp_path / "mt_bench/w.jsonl", vote(1, "tie"), vote(2, "model_a"))
    assert counts(read("dolly", tmp_path)) == {"a.jsonl": 2, "b.csv": 0}
    assert counts(read("flan", tmp_path)) == {"task1 copy.json": 1, "task1.json": 0}
    assert counts(read("topics", tmp_path)) == {"a.txt": 2, "b.jsonl": 0}
    bench = read("mt_bench", tmp_path)
    assert counts(bench) == {"q.jsonl": 2, "q2.json": 0, "v.jsonl": 2, "w.jsonl": 1}
    assert len(bench.tables["votes.jsonl"]) == 3
    other = {**QUESTIONS[0], "turns": ["Another?", "Two?"]}
    put(tmp_path / "mt_bench/q2.json", other)
    assert "question 1: another one than" in fails("mt_bench", tmp_path)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "shares"),
    [(30, [17, 10, 3]), (3, [1, 1, 1]), (2, [1, 1, 0]), (113, [100, 10, 3]), (500, [100, 10, 3])],
)
def test_a_limit_is_spread_over_the_files(tmp_path: Path, limit: int, shares: list[int]) -> None:
    for name, size in (("a", 100), ("b", 10), ("c", 3)):
        put(tmp_path / f"hh_rlhf/{name}.jsonl", *[pair(f"{name} {n}?") for n in range(size)])
        rows = [{**DOLLY, "response": f"{name} {n}"} for n in range(size)]
        put(tmp_path / f"dolly/{name}.jsonl", *rows)
        put(
            tmp_path / f"flan/{name}.jsonl",
            *[{"prompt": f"{name} {n}", "completion": "x"} for n in range(size)],
        )
        put(tmp_path / f"topics/{name}.txt", text="".join(f"{name} {n}\n" for n in range(size)))
        items = [piqa(ord(name) * 1000 + n) for n in range(size)]
        put(tmp_path / f"benchmarks/piqa/test-{ord(name):05d}-of-00099.jsonl", *items)
    for kind in ("hh_rlhf", "dolly", "flan", "topics", "benchmarks"):
        source = read(kind, tmp_path, limit=limit)
        assert sorted(counts(source).values()) == sorted(shares), kind
        assert source.account["beyond_limit"] == 113 - sum(shares)


def test_useless_and_repeated_rows_take_no_place_under_a_limit(tmp_path: Path) -> None:
    put(tmp_path / "hh_rlhf/a.jsonl", *[pair("A?", "Same.", "Same.")] * 5, pair("B?"), pair("C?"))
    put(tmp_path / "hh_rlhf/b.jsonl", pair("B?"), pair("D?"), pair("E?"), pair("F?"))
    source = read("hh_rlhf", tmp_path, limit=5)
    assert counts(source) == {"a.jsonl": 2, "b.jsonl": 3}
    assert source.account["left_out"] == {"equal answers": 5, "given by another file too": 1}


def test_the_first_rows_are_taken_as_they_stand_where_that_is_wanted(tmp_path: Path) -> None:
    useless = pair("A?", "Same.", "Same.")
    put(tmp_path / "hh_rlhf/a.jsonl", pair("A?"), useless, pair("B?"))
    put(tmp_path / "hh_rlhf/b.jsonl", *[pair(f"C{n}?") for n in range(20)])
    source = read("hh_rlhf", tmp_path, limit=10, take="first")
    assert [len(side) for side in sides(source)] == [5, 4]
    assert counts(source) == {"a.jsonl": 2, "b.jsonl": 7}
    assert source.account["left_out"] == {"equal answers": 1}
    assert source.account["beyond_limit"] == 13


# --- the account ---------------------------------------------------------------------------------


def test_a_file_without_a_usable_row_is_named(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.jsonl", DOLLY)
    put(tmp_path / "dolly/b.jsonl", {**DOLLY, "response": " "})
    source = read("dolly", tmp_path)
    assert counts(source) == {"a.jsonl": 1, "b.jsonl": 0}
    files: Any = source.account["files"]
    assert files["b.jsonl"] == {"read": 1, "used": 0, "left_out": 1, "beyond_limit": 0}


def test_an_instance_of_no_use_does_not_take_the_others_of_its_task_with_it(tmp_path: Path) -> None:
    instances = [{"input": str(n), "output": ["" if n == 1 else "x"]} for n in range(5)]
    put(tmp_path / "flan/task.json", {**TASK, "Instances": instances})
    put(tmp_path / "flan/hens.tsv", text=f"{CHAIN}\n" * 2)
    source = read("flan", tmp_path)
    assert counts(source) == {"hens.tsv": 2, "task.json": 4}
    assert source.account["left_out"] == {"empty query or target": 1}


def test_what_is_said_on_questions_that_are_not_asked_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS)
    put(
        tmp_path / "mt_bench/a.jsonl", answer(1, "x", "y"), answer(2, "x", "y"), answer(9, "x", "y")
    )
    put(tmp_path / "mt_bench/v.jsonl", vote(1, "tie"), vote(2, "tie"), vote(9, "tie"))
    put(tmp_path / "mt_bench/references.jsonl", answer(1, "r", "r"), answer(1, "s", "s"))
    source = read("mt_bench", tmp_path, limit=1)
    assert counts(source) == {"a.jsonl": 1, "q.jsonl": 1, "references.jsonl": 1, "v.jsonl": 1}
    assert source.account["beyond_limit"] == 3
    assert source.account["left_out"] == {
        "on a question that is not given": 2,
        "a second reference to a question": 1,
    }


def test_single_grades_of_fastchat_are_read_and_the_later_of_two_stands(tmp_path: Path) -> None:
    grade = {"question_id": 1, "model": "m", "judge": ["gpt-4", "single-v1"], "turn": 1, "score": 7}
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS)
    put(
        tmp_path / "mt_bench/gpt-4_single.jsonl",
        *[{**grade, "score": score} for score in (3, 9.5, -1)],
        {**grade, "question_id": 77},
    )
    source = read("mt_bench", tmp_path)
    assert [getattr(g, "score") for g in source.tables["grades.jsonl"]] == [9.5]  # noqa: B009
    assert counts(source) == {"gpt-4_single.jsonl": 1, "q.jsonl": 2}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_the_account_of_the_real_folder_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link.main([str(DATA)])
    for kind in ("flan", "topics", "hh_rlhf", "mt_bench", "benchmarks"):
        for limit in (None, 50):
            source = local.read(kind, limit, 7)
            assert source is not None
            adds_up(source)
    pairs = local.read("hh_rlhf", None, 7)
    assert pairs is not None
    train, test = sides(pairs)
    assert not prompts(train) & prompts(test) and PAIR["chosen"]


def test_prompts_that_look_alike_stand_on_one_side(tmp_path: Path) -> None:
    for n in range(12):
        asked = f"Wie groß ist Größe {n}?"
        alike = [asked, asked[:-1], unicodedata.normalize("NFD", asked), f"\u200b{asked.upper()}!"]
        rows = [{**pair(each), "id": k} for k, each in enumerate(alike)]
        put(tmp_path / f"hh_rlhf/{n}.jsonl", *rows)
    train, test = sides(read("hh_rlhf", tmp_path))
    numbers = [{re.findall(r"\d+", p.prompt[0].content)[0] for p in side} for side in (train, test)]
    assert len(train) + len(test) == 48
    assert not numbers[0] & numbers[1]


def test_an_item_that_two_files_answer_differently_is_told(tmp_path: Path) -> None:
    row = {"question": "Two?", "choices": ["a", "b", "c"], "answer": "a"}
    put(tmp_path / "benchmarks/quiz_test.csv", text=spread([row]))
    put(tmp_path / "benchmarks/quiz_test.jsonl", {**row, "answer": "b"})
    source = read("benchmarks", tmp_path)
    adds_up(source)
    assert source.account["left_out"] == {"another file gives this item another answer": 1}


def test_an_instance_without_an_output_is_left_out(tmp_path: Path) -> None:
    outputs: list[Any] = [["x", "y"], [], None, "z"]
    instances = [{"input": f"i{n}", "output": each} for n, each in enumerate(outputs)]
    put(tmp_path / "flan/task1.json", {**TASK, "Instances": instances})
    source = read("flan", tmp_path)
    adds_up(source)
    assert [getattr(q, "target") for q in source.tables["queries.jsonl"]] == ["x", "z"]  # noqa: B009
    assert source.account["left_out"] == {"empty query or target": 2}


def test_a_topic_without_a_number_always_qualifies(tmp_path: Path) -> None:
    rows = [{"name": "a", "subcategories": 2.0}, {"name": "b", "subcategories": None}]
    put(tmp_path / "topics/t.jsonl", *rows, {"name": None, "subcategories": 1})
    topics: Any = read("topics", tmp_path).tables["topics.jsonl"]
    assert [(topic.name, topic.subcategories) for topic in topics] == [("a", 2), ("b", None)]
