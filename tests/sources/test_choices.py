"""What the answers of a benchmark mean: read from all rows of a file, and an error where two
readings fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from bezoar.rows.files import BadInput
from tests.builders.files import fails, put, read, spread
from tests.conftest import DATA

FOUR = ["8", "2", "24", "120"]
WORDS = ["four", "three", "two", "one"]


def quiz(answers: list[object], choices: Any = None) -> list[dict[str, Any]]:
    return [
        {"question": f"Number {n}?", "choices": choices or WORDS, "answer": answer}
        for n, answer in enumerate(answers)
    ]


def labels(folder: Path, *rows: Any, name: str = "quiz_test.jsonl", **how: Any) -> list[int]:
    put(folder / "benchmarks" / name, *rows)
    (items,) = [t for f, t in read("benchmarks", folder, **how).tables.items() if "tasks/" in f]
    return [getattr(item, "label") for item in items]  # noqa: B009


def arc(answer: object, names: str = "ABCD") -> dict[str, Any]:
    choices = {"text": ["w", "x", "y", "z"], "label": list(names)}
    return {"question": f"{answer} {names}?", "choices": choices, "answerKey": answer}


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([0, 3, 1], [0, 3, 1]),
        ([1, 4, 2], [0, 3, 1]),
        (["0", "2", "3"], [0, 2, 3]),
        (["4", "2", "1"], [3, 1, 0]),
        ([0.0, 2.0, 3.0], [0, 2, 3]),  # a column with gaps
        (["A", "d", "C"], [0, 3, 2]),
        (["(A)", "B.", "c)"], [0, 1, 2]),
        ([" A", "B ", "C\n"], [0, 1, 2]),
        (["four", "one", "two"], [0, 3, 2]),
        ([" four ", "one\t", "\ntwo"], [0, 3, 2]),
    ],
)
def test_an_answer_means_what_fits_every_row(
    tmp_path: Path, answers: list[object], wanted: list[int]
) -> None:
    assert labels(tmp_path, *quiz(answers)) == wanted


def test_a_number_that_is_a_choice_too_is_read_as_the_other_rows_are(tmp_path: Path) -> None:
    rows = [*quiz(["2"], FOUR), *({**row, "question": "Z?"} for row in quiz(["0"]))]
    assert labels(tmp_path, *rows) == [2, 0]  # counted from 0, not the text "2"
    texts = [{"question": f"{t}?", "choices": FOUR, "answer": t} for t in ("120", "2", "8")]
    assert labels(tmp_path, *texts) == [3, 1, 0]
    blanks = [
        {"question": f"{t}?", "choices": [" 8", "2 ", "24"], "answer": t} for t in ("8", "24")
    ]
    assert labels(tmp_path, *blanks) == [0, 2]


@pytest.mark.parametrize(
    ("rows", "readings"),
    [
        (quiz([1, 2]), ("a number counted from 0", "a number counted from 1")),
        (quiz(["2", "3"]), ("a number counted from 0", "a number counted from 1")),
        (quiz(["A", "B"], ["B", "A", "C"]), ("a letter", "the text of the choice")),
        (quiz(["0", "1"], ["1", "0"]), ("a number counted from 0", "the text of the choice")),
    ],
)
def test_two_readings_that_fit_the_whole_file_are_an_error_that_names_both(
    tmp_path: Path, rows: list[dict[str, Any]], readings: tuple[str, str]
) -> None:
    put(tmp_path / "benchmarks/quiz.jsonl", *rows)
    message = fails("benchmarks", tmp_path)
    assert f"quiz.jsonl:1: the answers of this file can be read as {readings[0]}" in message
    assert f"and as {readings[1]}: " in message and "answer_is: " in message


def test_answer_is_says_which_of_two_readings_counts_and_no_more(tmp_path: Path) -> None:
    assert labels(tmp_path, *quiz([1, 2]), answer_is="number_from_0") == [1, 2]
    assert labels(tmp_path, *quiz([1, 2]), answer_is="number_from_1") == [0, 1]
    assert labels(tmp_path, *quiz(["A", "D"]), answer_is="number_from_1") == [0, 3]


def test_the_files_of_one_split_are_read_together(tmp_path: Path) -> None:
    put(tmp_path / "benchmarks/quiz/test-00001-of-00002.jsonl", *quiz([0, 3]))
    rows = [{**row, "question": "Other?"} for row in quiz([2])]
    assert labels(tmp_path, *rows, name="quiz/test-00000-of-00002.jsonl") == [2, 0, 3]


def test_arc_may_mix_letters_and_numbers_in_one_file(tmp_path: Path) -> None:
    rows = [arc("B"), arc("3", "1234"), arc("D"), arc("1", "1234"), arc("4")]
    assert labels(tmp_path, *rows) == [1, 2, 3, 0, 3]


@pytest.mark.parametrize(
    ("row", "answers", "wanted"),
    [
        ({"goal": "?", "sol1": "a", "sol2": "b"}, {"label": [1, 1]}, [1, 1]),
        ({"goal": "?", "sol1": "a", "sol2": "b"}, {"label": ["0", "1"]}, [0, 1]),
        ({"goal": "?", "sol1": "a", "sol2": "b"}, {"label": [1, 2]}, [0, 1]),
        ({"ctx": "?", "endings": ["a", "b", "c"]}, {"label": ["1", "2"]}, [1, 2]),
        ({"ctx": "?", "endings": ["a", "b", "c"]}, {"label": [3, 1]}, [2, 0]),
        ({"sentence": "A _.", "option1": "a", "option2": "b"}, {"answer": ["1", "1"]}, [0, 0]),
        ({"sentence": "A _.", "option1": "a", "option2": "b"}, {"answer": [1, 2]}, [0, 1]),
        ({"sentence": "A _.", "option1": "a", "option2": "b"}, {"answer": [0, 1]}, [0, 1]),
        ({"question": "?", "passage": "p"}, {"answer": [True, False]}, [1, 0]),
        ({"question": "?", "passage": "p"}, {"answer": ["yes", "No"]}, [1, 0]),
        ({"question": "?", "passage": "p"}, {"answer": ["True", "false"]}, [1, 0]),
        ({"question": "?", "passage": "p"}, {"label": [1, 0]}, [1, 0]),
        (
            {"context": "c", "question": "?", "answerA": "a", "answerB": "b", "answerC": "c"},
            {"label": ["1", "2"]},
            [0, 1],
        ),
        ({"question": "?", "options": {"A": "x", "B": "y"}}, {"answer_idx": ["B", "A"]}, [1, 0]),
        ({"question": "?", "options": {"A": "x", "B": "y"}}, {"answer": ["x", "y"]}, [0, 1]),
        ({"question": "?", "options": ["A)1", "B)2"]}, {"correct": ["B", "A"]}, [1, 0]),
        (
            {
                "question": "?",
                "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}],
            },
            {"answerKey": ["B", "A"]},
            [1, 0],
        ),
        ({"question": "?", "A": "a", "B": "b", "C": "c"}, {"answer": ["A", "C"]}, [0, 2]),
        ({"question": "?", "A": "1", "B": "2", "C": "5"}, {"answer": [1, 3]}, [0, 2]),
        ({"question": "?", "options": ["a", "b"], "article": "p"}, {"answer": ["A", "B"]}, [0, 1]),
        (
            {"question": "?", "best_answer": "t", "incorrect_answers": ["f", "g"]},
            {"x": [1, 2]},
            [0, 0],
        ),
        ({"question": "?", "mc1_targets": {"f": 0, "t": 1}}, {"x": [1, 2]}, [1, 1]),
    ],
    ids=str,
)
def test_each_benchmark_has_its_own_way_unless_the_file_says_otherwise(
    tmp_path: Path, row: dict[str, Any], answers: dict[str, list[object]], wanted: list[int]
) -> None:
    ((key, values),) = answers.items()
    asked = next(key for key in ("question", "goal", "ctx", "sentence") if key in row)
    rows = [{**row, asked: f"{n} {row[asked]}", key: value} for n, value in enumerate(values)]
    assert labels(tmp_path, *rows) == wanted


@pytest.mark.parametrize("answer", [-1, "-1", "", None, "?", " ", float("nan")])
def test_a_split_that_hides_its_answers_is_no_evaluation_data(
    tmp_path: Path, answer: object
) -> None:
    put(tmp_path / "benchmarks/quiz/test.jsonl", *quiz([answer, answer]))
    rows = [{**row, "question": "Known?"} for row in quiz([0])]
    assert labels(tmp_path, *rows, name="quiz/dev.jsonl") == [0]
    source = read("benchmarks", tmp_path)
    assert source.account["left_out"] == {"a row without its answer, as a hidden test set has": 2}
    (tmp_path / "benchmarks/quiz/dev.jsonl").unlink()
    assert "no row is usable (a row without its answer" in fails("benchmarks", tmp_path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (quiz(["A", "E"]), "a.jsonl:2: answer: one of A, B, C, D is expected, got 'E'"),
        (quiz([0, 9, 3]), "a.jsonl:2: answer: one of 0, 1, 2, 3 is expected, got 9"),
        (quiz(["four", "five", "one"]), "one of four, three, two, one is expected, got 'five'"),
        ([arc("A"), arc("Q")], "a.jsonl:2: answer: one of A, B, C, D is expected, got 'Q'"),
        (
            [{"goal": f"{n}?", "sol1": "a", "sol2": "b", "label": n} for n in (0, 1, 2)],
            "a.jsonl:3: answer: one of 0, 1 is expected, got 2",
        ),
        (
            [{"question": f"{n}?", "passage": "p", "answer": n} for n in ("yes", "no", "maybe")],
            "a.jsonl:3: no row of BoolQ",
        ),
    ],
)
def test_an_answer_that_fits_nothing_is_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    put(tmp_path / "benchmarks/a.jsonl", *rows)
    assert said in fails("benchmarks", tmp_path)


def test_two_forms_of_one_name_are_two_tasks_and_a_copy_is_none(tmp_path: Path) -> None:
    put(tmp_path / "benchmarks/quiz.jsonl", *quiz([0, 3]))
    put(tmp_path / "benchmarks/backup/quiz.jsonl", *quiz([0, 3]))
    put(tmp_path / "benchmarks/quiz.csv", text=spread([arc_row(n) for n in range(3)]))
    source = read("benchmarks", tmp_path)
    assert {name: len(rows) for name, rows in source.tables.items()} == {
        "tasks/quiz_listed_choices.jsonl": 2,
        "tasks/quiz_choices_in_columns.jsonl": 3,
        "probes.jsonl": 0,
    }
    assert source.account["left_out"] == {"given by another file too": 2}


def arc_row(n: int) -> dict[str, str]:
    return {"question": f"Row {n}?", "A": "a", "B": "b", "answer": "AB"[n % 2]}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_the_labels_of_real_items_are_those_that_their_rows_say(tmp_path: Path) -> None:
    tables: Any = read("benchmarks", DATA).tables
    arc_easy = (DATA / "benchmarks/arc_easy/test.head500.jsonl").read_text().splitlines()
    for item, line in zip(tables["tasks/arc_easy.jsonl"], arc_easy, strict=True):
        row = json.loads(line)
        right = row["choices"]["label"].index(row["answerKey"])
        assert item.choices[item.label] == row["choices"]["text"][right]
    # the same items as MMLU keeps them: an index as text
    rows = [
        {"question": item.question, "choices": item.choices, "answer": str(item.label)}
        for item in tables["tasks/arc_easy.jsonl"]
    ]
    assert labels(tmp_path, *rows) == [item.label for item in tables["tasks/arc_easy.jsonl"]]
    with pytest.raises(BadInput, match="one of 0, 1, 2, 3 is expected, got '7'"):
        labels(tmp_path, *rows, {**rows[0], "question": "Z?", "answer": "7"})


# --- what other files have -----------------------------------------------------------------------


def test_a_letter_names_its_column_where_a_column_before_it_is_empty(tmp_path: Path) -> None:
    rows = "question,A,B,C,D,answer\nOne?,1,,3,4,C\nTwo?,1,2,3,,A\nTen?,1,,3,4,D\n"
    put(tmp_path / "benchmarks/quiz.csv", text=rows)
    items: Any = read("benchmarks", tmp_path).tables["tasks/quiz.jsonl"]
    assert [item.choices[item.label] for item in items] == ["3", "1", "4"]


def test_a_letter_names_its_choice_where_a_choice_is_null(tmp_path: Path) -> None:
    gap = {"question": "One?", "options": {"A": "1", "B": None, "C": "3", "D": "4"}, "answer": "c"}
    assert labels(tmp_path, gap) == [1]


def test_numbers_are_choices(tmp_path: Path) -> None:
    rows = quiz([3, 5, 9], [3, 5, 9])
    assert labels(tmp_path, *rows) == [0, 1, 2]


def test_answers_that_name_no_choice_are_told_with_the_choices(tmp_path: Path) -> None:
    put(tmp_path / "benchmarks/quiz.jsonl", *quiz(["FOUR", "TWO"]))
    told = "answer: 'FOUR' names none of the choices four, three, two, one"
    message = fails("benchmarks", tmp_path)
    assert told in message and "it may be a number counted from 0" in message


def test_a_column_that_names_the_split_keeps_training_out_of_the_task(tmp_path: Path) -> None:
    splits = ["train", "Test", "train", "validation", "test"]
    rows = [{**row, "split": s} for row, s in zip(quiz([0, 1, 2, 3, 0]), splits, strict=True)]
    put(tmp_path / "benchmarks/a/quiz.jsonl", *rows)
    put(
        tmp_path / "benchmarks/b/exam.csv",
        text=spread([{**r, "question": f"Exam: {r['question']}"} for r in rows]),
    )
    source = read("benchmarks", tmp_path)
    tables: Any = source.tables
    for task, opening in (("quiz", ""), ("exam", "Exam: ")):
        asked = [item.question.removeprefix(opening) for item in tables[f"tasks/{task}.jsonl"]]
        assert asked == ["Number 1?", "Number 4?"]
    assert source.account["left_out"] == {
        "a training split, on which nothing is evaluated": 4,
        "another split of quiz is used (test)": 1,
        "another split of exam is used (test)": 1,
    }


@pytest.mark.parametrize(
    ("one", "other"), [("größe", "gräße"), ("数学", "物理"), ("2023", "2024"), ("é", "è")]
)
def test_names_in_any_script_are_tasks_of_their_own(tmp_path: Path, one: str, other: str) -> None:
    put(tmp_path / "benchmarks/exam" / f"{one}.jsonl", *quiz([0, 3]))
    put(tmp_path / "benchmarks/exam" / f"{other}.jsonl", *quiz([0, 3], ["5", "6", "7", "9"]))
    assert sum("tasks/" in name for name in read("benchmarks", tmp_path).tables) == 2
