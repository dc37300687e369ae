"""Readers of the user's files, on small files made by hand: good ones, odd ones, bad ones."""

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bezoar.params import Local, World
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.sources import collect, embedded, local, names, shapes, weights
from tests.builders.bases import model
from tests.builders.cutting import beside
from tests.builders.files import (
    CHAIN,
    DOLLY,
    FLAT,
    ITEMS,
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
    table,
    vote,
)
from tests.conftest import DATA

# --- the world -----------------------------------------------------------------------------------

FILES = {
    "dolly": {"seeds.jsonl"},
    "flan": {"queries.jsonl"},
    "topics": {"topics.jsonl"},
    "hh_rlhf": {"train.jsonl", "test.jsonl"},
    "mt_bench": {"questions.jsonl", "answers.jsonl", "votes.jsonl", "votes.json", "grades.jsonl"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "benchmarks"])
def test_the_world_fills_every_file_and_says_so(tmp_path: Path, name: str) -> None:
    source = collect(name, World(source="world", rows=40), 7)
    source.write(tmp_path)
    written = {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.rglob("*.json*")}
    account = json.loads(written.pop("source.json"))
    tasks = {file for file in written if file.startswith("tasks/")}
    assert set(written) == FILES.get(name, {"probes.jsonl", *tasks}) and len(tasks) != 1
    for file, text in written.items():
        if file.endswith(".jsonl"):
            assert account["rows"][file] == len(text.splitlines()) > 0
    assert account["source"] == "world" and "stands_in_for" not in account
    again = collect(name, World(source="world", rows=40), 7)
    assert again.tables == source.tables


def test_explained_answers_are_probed_under_the_shipped_system_messages() -> None:
    probes: Any = collect("benchmarks", World(source="world", rows=40), 7).tables["probes.jsonl"]
    told = {probe.system for probe in probes if probe.skill == "explained"}
    assert len(told) > 5 and told <= set(embedded.systems())
    assert {probe.system for probe in probes if probe.skill == "lookup"} == {""}


# --- any file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(DOLLY).encode(),  # no line break at the end
        b"\xef\xbb\xbf" + json.dumps(DOLLY).encode() + b"\r\n\r\n",  # as Windows writes it
        json.dumps([DOLLY], indent=2).encode(),
        b"\n" + json.dumps([DOLLY]).encode(),
        json.dumps(DOLLY, indent=1).encode(),
        gzip.compress(json.dumps(DOLLY).encode() + b"\n"),
        parquet(DOLLY),
    ],
    ids=["unended", "windows", "array", "array line", "object", "gzip", "parquet"],
)
def test_harmless_oddities_of_a_file_are_read(tmp_path: Path, data: bytes) -> None:
    put(tmp_path / "dolly/a.json").write_bytes(data)
    assert [s.response for s in table("dolly", "seeds.jsonl", tmp_path)] == ["Oder."]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a.json: is empty"),
        (b"\n \n", "a.json: is empty"),
        (b'{"instruction": "x"\n', "a.json:1: not JSON (expecting ',' delimiter, column 20)"),
        (b'[\n{"instruction": "x"},\n{oops}\n]', "a.json:3: not JSON"),
        (b"instruction,response\n", "a table without a row; its columns are instruction, resp"),
        (b'["a"]', "a.json: item 1: a JSON object is expected, got 'a'"),
        (b"7", "a.json: is not that (text that holds no rows)"),
        (b"[" * 100_000, "a.json: not JSON (nested too deeply)"),
        (json.dumps(DOLLY).encode() + b'\n{"instruction": "\xe9"}\n', "a.json:2: not UTF-8"),
        (json.dumps(DOLLY).encode("utf-16-le"), "a.json: is UTF-16 without a byte order mark"),
        (gzip.compress(json.dumps(DOLLY).encode(), mtime=0)[:-9], "a.json: cannot be read"),
        (parquet(DOLLY)[:-9], "a.json: broken after row 0 (Parquet magic bytes not found"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    put(tmp_path / "dolly/a.json").write_bytes(data)
    gc.disable()  # a finalizer that runs at the end of the stack fails, and pytest tells it as ours
    try:
        assert said in fails("dolly", tmp_path)
    finally:
        gc.enable()


def test_a_bad_line_is_found_far_from_the_start(tmp_path: Path) -> None:
    rows = [json.dumps(DOLLY)] * 15_000
    rows[4710] = rows[4710][:-5]
    put(tmp_path / "dolly/a.jsonl", text="\n".join(rows))
    assert "dolly/a.jsonl:4711: not JSON (unterminated string" in fails("dolly", tmp_path)
    rows[4710] = json.dumps({**DOLLY, "response": "é"}, ensure_ascii=False)
    put(tmp_path / "dolly/a.jsonl").write_bytes("\n".join(rows).encode("latin-1"))
    assert "dolly/a.jsonl:4711: not UTF-8" in fails("dolly", tmp_path)


def test_an_empty_folder_is_no_source_unless_something_may_stand_in(
    tmp_path: Path, monkeypatch: Any
) -> None:
    put(tmp_path / "local/topics/.gitkeep", text="")
    monkeypatch.chdir(tmp_path)
    wanted = Local(source="local", limit=None, otherwise=World(source="world", rows=8))
    source = collect("topics", wanted, 7)
    assert source.account["source"] == "world" and len(source.tables["topics.jsonl"]) == 8
    assert source.account["stands_in_for"] == "local/topics"
    with pytest.raises(BadInput, match="local/topics: holds no file, and nothing stands in"):
        collect("topics", Local(source="local", limit=None, otherwise=None), 7)


def test_links_to_folders_and_to_nothing_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "mine/a.jsonl", DOLLY)
    (tmp_path / "dolly").mkdir()
    (tmp_path / "dolly/b").symlink_to(tmp_path / "mine")
    assert "a link to a folder, into which DVC does not look" in fails("dolly", tmp_path)
    (tmp_path / "dolly/b").unlink()
    (tmp_path / "dolly/a.jsonl").symlink_to(tmp_path / "mine/gone.jsonl")
    assert "a link to a file that is gone" in fails("dolly", tmp_path)


def test_what_belongs_elsewhere_is_sent_there(tmp_path: Path) -> None:
    put(tmp_path / "flan/a.jsonl", PAIR)
    assert "holds preference pairs, which belong in local/hh_rlhf" in fails("flan", tmp_path)
    put(tmp_path / "benchmarks/a.jsonl", {"question": "?", "choices": ["a", "b"]})
    said = fails("benchmarks", tmp_path)
    assert "is not that" in said and "takes multiple-choice items" in said


# --- seeds ---------------------------------------------------------------------------------------


def test_seeds_keep_their_words_order_and_file(tmp_path: Path) -> None:
    rows = [{**DOLLY, "context": None}, {**DOLLY, "instruction": " "}, {**DOLLY, "context": "a\nb"}]
    put(tmp_path / "dolly/linked/deep/b.jsonl", *rows)
    put(tmp_path / "dolly/a.jsonl", {**DOLLY, "response": "Elbe."})
    source = read("dolly", tmp_path)
    seeds: Any = source.tables["seeds.jsonl"]
    assert [(s.id, s.response, s.context) for s in seeds] == [
        ("dolly-00001", "Elbe.", ""),
        ("dolly-00002", "Oder.", ""),
        ("dolly-00003", "Oder.", "a\nb"),
    ]
    assert [s.source for s in seeds] == ["a.jsonl", "deep/b.jsonl", "deep/b.jsonl"]
    assert source.account["rows"] == {"a.jsonl": 1, "deep/b.jsonl": 2}
    assert source.account["left_out"] == {"empty instruction or response": 1}
    assert len(table("dolly", "seeds.jsonl", tmp_path, limit=2)) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({k: v for k, v in DOLLY.items() if k != "response"}, "response: missing; the fields here"),
        ({**DOLLY, "category": ["x"]}, "a.jsonl:2: category: text is expected, got ['x']"),
        ({**DOLLY, "context": ["x"]}, "context: text is expected, got ['x']"),
        ({**DOLLY, "response": "\ud800"}, "response: half a surrogate pair"),
    ],
)
def test_a_seed_without_a_needed_field_is_named(tmp_path: Path, row: Any, said: str) -> None:
    put(tmp_path / "dolly/a.jsonl", DOLLY, row)
    assert said in fails("dolly", tmp_path)


def test_rows_that_are_all_of_no_use_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.jsonl", {**DOLLY, "response": ""})
    assert "no row is usable (empty instruction or response: 1)" in fails("dolly", tmp_path)


# --- the FLAN collection -------------------------------------------------------------------------


def test_the_four_sub_mixtures_are_told_by_their_files(tmp_path: Path) -> None:
    put(tmp_path / "flan/task007_opposites.json", text=json.dumps(TASK, indent=1))
    put(
        tmp_path / "flan/a/qa_is_True.jsonl", {"prompt": "True?\n", "completion": "No<|endoftext|>"}
    )
    put(tmp_path / "flan/hens_train.tsv", text=f"{CHAIN}\r\n{CHAIN}")
    exported = [
        {"inputs": "1", "targets": "a"},
        {"inputs": "2", "targets": "b", "_task_source": "NIv2", "_task_name": "task9"},
        {"inputs": "3", "targets": "c", "_task_source": "CoT", "_template_type": "fs_opt"},
        {"inputs": "4", "targets": "d", "_task_source": "Dialog"},
        {"inputs": "5", "targets": " ", "task": "cola"},
    ]
    put(tmp_path / "flan/cola/train.jsonl", *exported)
    source = read("flan", tmp_path)
    queries: Any = source.tables["queries.jsonl"]
    assert [(q.id, q.mixture, q.query, q.target) for q in queries] == [
        ("qa_is_true-00001", "t0", "True?", "No"),
        ("cola-00001", "flan2021", "1", "a"),
        ("task9-00001", "niv2", "2", "b"),
        *[
            (
                f"hens-0000{n}",
                "cot",
                "How many legs have two hens?",
                "A hen has two legs, so two hens have four.\n2 + 2 = 4\nThe answer is 4.",
            )
            for n in (1, 2)
        ],
        ("task007_opposites-00001", "niv2", "Say the opposite.\n\nhot", "cold"),
    ]
    assert queries[-1].licence == "MIT" and queries[0].licence == shapes.NOT_STATED
    assert source.account["left_out"] == {
        "few-shot": 1,
        "sub-mixture dialog": 1,
        "empty query or target": 1,
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", f"{CHAIN}\n" * 6 + "a question\tan answer", "a.tsv:7: three columns parted by"),
        ("a.tsv", "id\tlabel\ttext\n", "is not that"),
        ("a.json", json.dumps({**TASK, "Definition": 3}), "Definition: text is expected, got 3"),
        (
            "a.json",
            json.dumps({**TASK, "Instances": [*TASK["Instances"] * 5, {"input": "x"}]}),
            "Instances[5]: output: missing",
        ),
        ("a.json", json.dumps({**TASK, "Instances": [*TASK["Instances"] * 5, 3]}), "got 3"),
        ("a.jsonl", '{"prompt": "x", "completion": "y"}\n{"prompt": "x"}', "a.jsonl:2: completion"),
    ],
)
def test_a_bad_flan_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    put(tmp_path / "flan" / name, text=text)
    assert said in fails("flan", tmp_path)


# --- topics --------------------------------------------------------------------------------------


def test_topics_of_a_tree_count_their_sub_categories(tmp_path: Path) -> None:
    inner = {"subject": "Rivers", "level": 2, "children": ["Oder", "Elbe"], "subcategory": ["Ems"]}
    tree = {"subject": "Water", "level": 1, "children": [inner, "Rivers"]}
    put(tmp_path / "topics/a.json", text=json.dumps([tree]))
    topics = table("topics", "topics.jsonl", tmp_path)
    assert [(t.name, t.subcategories) for t in topics] == [
        ("Water", 2),
        ("Rivers", 3),
        ("Oder", 0),
        ("Elbe", 0),
        ("Ems", 0),
    ]


def test_topics_may_be_a_list_of_names(tmp_path: Path) -> None:
    put(tmp_path / "topics/a.txt", text="Sea birds\r\nTides\t12\n\nSea birds\t3\n")
    put(tmp_path / "topics/b.jsonl", {"name": "Salt", "subcategories": 4})
    topics = table("topics", "topics.jsonl", tmp_path)
    assert [(t.name, t.subcategories) for t in topics] == [
        ("Sea birds", None),
        ("Tides", 12),
        ("Salt", 4),
    ]
    put(tmp_path / "topics/a.txt", text="Tides\tmany\n")
    assert "a.txt:1: a name, or a name, a tab and a number" in fails("topics", tmp_path)


def test_an_outline_is_no_category_tree(tmp_path: Path) -> None:
    put(
        tmp_path / "topics/a.json", {"subject": "Water", "level": 1, "children": [{"subject": "x"}]}
    )
    assert "is not that" in fails("topics", tmp_path)


# --- preference pairs ----------------------------------------------------------------------------


def test_pairs_share_a_prompt_and_are_shuffled_and_split_five_to_four(tmp_path: Path) -> None:
    long = "\n\nHuman: A?\n\nAssistant: B.\n\nHuman: C{n}?\n\nAssistant:"
    rows = [
        {
            "chosen": f"{long} good {n}".replace("{n}", str(n)),
            "rejected": f"{long} bad".replace("{n}", str(n)),
        }
        for n in range(18)
    ]
    put(tmp_path / "hh_rlhf/a.jsonl", *rows)
    source = read("hh_rlhf", tmp_path)
    train: Any = source.tables["train.jsonl"]
    test: Any = source.tables["test.jsonl"]
    assert len(train) == 10 and len(test) == 8
    assert train[3].prompt == [
        Message(role="user", content="A?"),
        Message(role="assistant", content="B."),
        Message(role="user", content=f"C{train[3].chosen.removeprefix('good ')}?"),
    ]
    assert {(p.id, p.chosen, p.rejected) for p in [*train, *test]} == {
        (f"hh-{n + 1:06d}", f"good {n}", "bad") for n in range(18)
    }
    assert [pair.id for pair in train] != sorted(pair.id for pair in train)
    assert max(pair.id for pair in test) > min(pair.id for pair in train)
    assert read("hh_rlhf", tmp_path).tables == source.tables


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: A?\n\nAssistant: B.", "\n\nHuman: Z?\n\nAssistant: C.", "prompts differ"),
        ("\n\nHuman: A?\n\nAssistant: B.", "\n\nHuman: A?\n\nAssistant:", "empty answer"),
        ("\n\nHuman: A?\n\nAssistant: B.", "\n\nHuman: A?\n\nAssistant: B. ", "equal answers"),
        ("\n\nHuman: \n\nAssistant: B.", "\n\nHuman: \n\nAssistant: C.", "empty turn"),
        (
            "\n\nHuman: A?\n\nHuman: B?\n\nAssistant: B.",
            "\n\nHuman: A?\n\nHuman: B?\n\nAssistant: C.",
            "do not alternate",
        ),
        ("x\n\nHuman: A?\n\nAssistant: B.", "x\n\nHuman: A?\n\nAssistant: C.", "do not alternate"),
        ("\n\nHuman: A?", "\n\nHuman: A?", "no answer"),
    ],
)
def test_useless_pairs_are_left_out_with_the_reason(
    tmp_path: Path, chosen: str, rejected: str, reason: str
) -> None:
    put(tmp_path / "hh_rlhf/a.jsonl", PAIR, {"chosen": chosen, "rejected": rejected}, pair("Z?"))
    source = read("hh_rlhf", tmp_path)
    left_out: Any = source.account["left_out"]
    assert [reason in key for key in left_out] == [True] and sum(left_out.values()) == 1
    assert sum(len(t) for t in source.tables.values()) == 2


# --- MT-Bench ------------------------------------------------------------------------------------


def test_questions_answers_references_and_votes_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "mt_bench"
    put(folder / "z.jsonl", *QUESTIONS)
    put(folder / "reference_answer/a.jsonl", answer(2, "r2", "r2b"))
    put(folder / "b.jsonl", answer(1, "r1", "r1b"))  # math alone: references by another name
    put(folder / "c.jsonl", answer(1, "x", "y"), answer(2, "x", ""), answer(2, "again", "y"))
    put(folder / "d.jsonl", answer(2, "x", "y", model="n"), answer(9, "x", "y", model="n"))
    put(folder / "e.jsonl", answer(1, "one turn"), answer(2, "x", "y", model="o"))
    votes = [vote(1, "tie (inconsistent)"), vote(2, "model_b", 2), vote(9, "tie"), vote(1, "error")]
    put(folder / "votes/a.jsonl", *votes)
    source = read("mt_bench", tmp_path)
    tables: Any = source.tables
    assert [(q.question_id, q.reference) for q in tables["questions.jsonl"]] == [
        (1, ["r1", "r1b"]),
        (2, ["r2", "r2b"]),
    ]
    assert [(a.question_id, a.model, a.turns) for a in tables["answers.jsonl"]] == [
        (1, "m", ["x", "y"]),
        (2, "m", ["again", "y"]),
        (2, "n", ["x", "y"]),
        (2, "o", ["x", "y"]),
    ]
    assert [(v.question_id, v.turn, v.winner) for v in tables["votes.jsonl"]] == [
        (1, 1, "inconsistent"),
        (2, 2, "model_b"),
    ]
    assert tables["votes.json"] == {"simulated": False}
    assert source.account["left_out"] == {
        "an answer that has not two turns": 1,
        "winner error": 1,
        "a model answered again later": 1,
        "on a question that is not given": 2,
    }


def single(question: int, score: object, turn: int = 1, **other: Any) -> dict[str, Any]:
    """A row of FastChat's model_judgment/gpt-4_single.jsonl."""
    told = {"question_id": question, "model": "m", "judge": ["gpt-4", "single-v1"], "turn": turn}
    rest = {"user_prompt": "Rate.", "judgment": "Rating: [[7]]", "tstamp": 1687221741.5}
    return told | rest | {"score": score} | other


def test_single_grades_of_fastchat_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "mt_bench"
    put(folder / "question.jsonl", *QUESTIONS)
    put(
        folder / "model_judgment/gpt-4_single.jsonl",
        single(1, 7),
        single(1, 6.5, 2, model="n"),
        single(2, -1),
        single(2, 95),
        single(9, 3),
        single(1, 8),  # run again: FastChat appends
        single(2, 4, judge=["claude-v1", "single-math-v1"]),
    )
    source = read("mt_bench", tmp_path)
    tables: Any = source.tables
    assert [(g.judge, g.question_id, g.model, g.turn, g.score) for g in tables["grades.jsonl"]] == [
        ("gpt4_single", 1, "m", 1, 8),
        ("gpt4_single", 1, "n", 2, 6.5),
        ("claudev1_single", 2, "m", 1, 4),
    ]
    assert source.account["left_out"] == {
        "a single grade without a score (-1)": 1,
        "a single grade of 95, which is not from 1 to 10": 1,
        "a turn was graded again later": 1,
        "on a question that is not given": 1,
    }


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (single(1, "7"), "score: a number is expected, got '7'"),
        (single(1, True), "score: a number is expected, got True"),
        (single(1, 7, 3), "turn: 1 or 2 is expected, got 3"),
        ({**single(1, 7), "model": 5}, "no row of single grades as the first ones are"),
    ],
)
def test_a_single_grade_that_is_none_is_an_error(
    tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS)
    put(tmp_path / "mt_bench/s.jsonl", single(1, 7), row)
    assert f"s.jsonl:2: {why}" in fails("mt_bench", tmp_path)


def test_mt_bench_without_questions_or_with_a_strange_row_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "mt_bench/v.jsonl", vote(1, "tie"))
    assert "holds no questions" in fails("mt_bench", tmp_path)
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS, {**QUESTIONS[1], "turns": ["one"]})
    assert "q.jsonl:3: no row of questions as the first ones are" in fails("mt_bench", tmp_path)
    put(tmp_path / "mt_bench/q.jsonl", *QUESTIONS)
    put(tmp_path / "mt_bench/v.jsonl", vote(1, "tie", 3))
    assert "v.jsonl:1: turn: 1 or 2 is expected, got 3" in fails("mt_bench", tmp_path)


# --- multiple choice -----------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "question", "choices", "label"), ITEMS)
def test_every_benchmark_becomes_items(
    tmp_path: Path, row: Any, question: str, choices: list[str], label: int
) -> None:
    put(tmp_path / "benchmarks/My-Task/test.jsonl", row, row)
    items = table("benchmarks", "tasks/my_task.jsonl", tmp_path)
    assert [(i.question, i.choices, i.label) for i in items] == [(question, choices, label)] * 2
    assert [i.id for i in items] == ["my_task-00001", "my_task-00002"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": "?", "choices": FLAT, "answerKey": "9"},
            "a.jsonl:2: answer: one of 1, 2, 3 is expected, got '9'",
        ),
        ({"goal": "?", "sol1": "a", "sol2": "b"}, ":2: no row of"),
        ({"question": "?", "choices": ["a", "b"], "answer": 2}, ":2: no row of"),
        ({"question": "?", "choices": {**FLAT, "label": ["1"]}, "answerKey": "1"}, "3 texts and 1"),
    ],
)
def test_a_benchmark_row_with_no_right_answer_is_named(tmp_path: Path, row: Any, said: str) -> None:
    put(tmp_path / "benchmarks/a.jsonl", ITEMS[0][0], row)
    assert said in fails("benchmarks", tmp_path)


@pytest.mark.parametrize(
    ("path", "task", "split"),
    [
        ("arc/ARC-Easy-Test.jsonl", "arc_easy", "test"),
        ("piqa/validation.head500.jsonl", "piqa", "validation"),
        ("My Data/dev.jsonl.gz", "my_data", "validation"),
        ("x/task080_piqa_answer.json", "task080_piqa_answer", ""),
        ("/test.jsonl", "task", "test"),
        ("ai2_arc/ARC-Challenge/test-00000-of-00001.parquet", "ai2_arc_challenge", "test"),
        ("openbookqa/additional/test-00000-of-00001.parquet", "openbookqa_additional", "test"),
        ("openbookqa/main/test-00000-of-00001.parquet", "openbookqa", "test"),
        ("mmlu/abstract_algebra/dev-00000-of-00001.parquet", "mmlu_abstract_algebra", "validation"),
        ("winogrande/winogrande_xl/train-00000-of-00001.parquet", "winogrande_xl", "train"),
        ("winogrande_1.1/train_xl.jsonl", "winogrande_1_1", "train"),
        ("boolq/data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "boolq", "train"),
        (f"datasets--piqa/snapshots/{'0a' * 20}/plain_text/test/0000.parquet", "piqa", "test"),
        ("sciq/validation/data-00000-of-00001.arrow", "sciq", "validation"),
        ("cache/hellaswag-validation-00001-of-00002.arrow", "hellaswag", "validation"),
        ("mmlu/test/abstract_algebra_test.csv", "abstract_algebra", "test"),
        ("commonsense_qa/dev_rand_split.jsonl", "commonsense_qa", "validation"),
        ("test_arc.jsonl", "arc", "test"),
        ("exam_2024.csv", "exam_2024", ""),
    ],
)
def test_a_task_is_named_by_its_file_or_its_folders(path: str, task: str, split: str) -> None:
    assert names.parse_path(path)[:2] == (task, split)


def test_one_split_of_a_benchmark_is_used_and_the_limit_is_a_task_s(tmp_path: Path) -> None:
    put(tmp_path / "benchmarks/piqa/train.jsonl", *map(piqa, range(10, 15)))
    put(tmp_path / "benchmarks/piqa/valid.jsonl", *map(piqa, range(20, 24)))
    put(tmp_path / "benchmarks/piqa/test.jsonl", *[piqa(n, -1) for n in range(30, 37)])
    put(tmp_path / "benchmarks/other.jsonl", *map(piqa, range(3)))
    put(tmp_path / "benchmarks/alone/train.jsonl", *map(piqa, range(40, 48)))
    source = read("benchmarks", tmp_path, limit=3)
    assert {name: len(rows) for name, rows in source.tables.items()} == {
        "tasks/other.jsonl": 3,
        "tasks/piqa.jsonl": 3,
        "probes.jsonl": 0,
    }
    assert source.account["left_out"] == {
        "a training split, on which nothing is evaluated": 5 + 8,
        "a row without its answer, as a hidden test set has": 7,
    }
    assert source.account["beyond_limit"] == 1
    adds_up(source)


# --- the base model ------------------------------------------------------------------------------


def copy(folder: Path, out: Path) -> dict[str, object]:
    return weights.copy(local.list_files("base", folder), out, "local/base")


@pytest.mark.slow
def test_a_base_model_is_copied_without_what_is_not_its_own(tmp_path: Path) -> None:
    base = beside(model(tmp_path / "base/any name"))
    (base / "linked.safetensors").symlink_to(base / "model.safetensors")
    copy(tmp_path, tmp_path / "out/base")
    assert sorted(path.name for path in (tmp_path / "out/base").iterdir()) == [
        "config.json",
        "linked.safetensors",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not (tmp_path / "out/base/linked.safetensors").is_symlink()


def test_a_base_model_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    out, base = tmp_path / "out", model(tmp_path / "base/m")
    whole = (base / "model.safetensors").read_bytes()

    def refused(said: str) -> None:
        with pytest.raises(BadInput, match=said):
            copy(tmp_path, out)
        assert not out.exists()

    put(base / "model.safetensors.index.json", {"weight_map": {"w": "model-2.safetensors"}})
    refused("model-2.safetensors: missing, though model.safetensors.index.json names it")
    (base / "model.safetensors.index.json").unlink()
    (base / "model.safetensors").write_bytes(whole[:-1])
    refused("holds 3 bytes of tensors, its header says 4; the file is cut")
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused("is a Git LFS pointer, not the weights; run `git lfs pull`")
    (base / "model.safetensors").write_text("no weights at all\n")
    refused("is no safetensors file")
    (base / "model.safetensors").unlink()
    refused("pickled weights only, which can run code")
    (base / "model.safetensors").write_bytes(whole)
    (base / "tokenizer.json").unlink()
    refused("has no tokenizer; put tokenizer.json")
    put(base / "tokenizer.json", {})
    put(base / "config.json", {"model_type": "x", "auto_map": {"AutoModelForCausalLM": "m.M"}})
    refused("brings its own code")
    model(tmp_path / "base/n")
    refused("one language model is expected .* have .*base/m, .*base/n")
    model(base, architectures=["BertModel"])
    model(tmp_path / "base/n", architectures=["BertModel"])
    refused("one language model is expected .* have none")


# --- the real thing ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_the_real_files_are_read_whole() -> None:
    counts = {
        name: sum(len(rows) for rows in read(name, DATA).tables.values())
        for name in ("dolly", "hh_rlhf", "benchmarks")
    }
    # ten of the thousand pairs are of no use
    assert counts == {"dolly": 15_011, "hh_rlhf": 990, "benchmarks": 2_000}
