"""Multiple-choice items in the forms that benchmarks come in, and the meaning of their answers.

An answer may be a number counted from 0 or 1, a letter, the text of the choice, or the row's own
label of it. The whole file decides between these readings. If two of them fit it and differ,
that is an error.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bezoar.params import AnswerIs
from bezoar.rows.files import BadInput
from bezoar.sources.rows import Fields, Row, missing


class RawItem(NamedTuple):
    """An item as its row has it. `place` is "file:line". `labels` are the row's own names of its
    choices, and empty where it has none."""

    place: str
    question: str
    choices: list[str]
    answer: object
    labels: list[str]


class Benchmark(NamedTuple):
    """A form of item: a test of a row, a reader of it, and the readings that its answers may have.
    The `usual` reading, where there is one, is taken whenever it fits a whole file."""

    fits: Callable[[Fields], bool]
    read: Callable[[Row], RawItem]
    readings: Sequence[AnswerIs]
    usual: AnswerIs | None


HIDDEN = (None, "", -1, "-1", "?")  # a test set's marks for an answer that it does not publish
COUNTS: tuple[AnswerIs, ...] = ("number_from_0", "number_from_1")
ALL: tuple[AnswerIs, ...] = (*COUNTS, "letter", "text")
NAMES = {
    "number_from_0": "a number counted from 0",
    "number_from_1": "a number counted from 1",
    "letter": "a letter",
    "text": "the text of the choice",
    "label": "a label",
}
LETTERS = "ABCDEFGHIJ"  # columns that are choices
_LISTS = ("choices", "options")
_ANSWERS = ("answer", "label", "answerKey", "correct", "answer_idx", "gold")
_PASSAGES = ("article", "passage", "context", "support")


def is_hidden(item: RawItem) -> bool:
    """Say whether the row does not publish its answer."""
    answer = item.answer.strip() if isinstance(item.answer, str) else item.answer
    gap = isinstance(answer, float) and math.isnan(answer)
    return not isinstance(answer, bool) and (gap or answer in HIDDEN)


def right_choices(
    items: Sequence[RawItem], form: Benchmark, answer_is: AnswerIs | None
) -> list[int]:
    """Return the index of the right choice of each item of a file, counted from 0.

    If several readings fit the whole file, the usual one of its form is taken, else `answer_is`.
    BadInput: no reading fits, or several do and differ on an item.
    """
    fitting = {
        reading: indices
        for reading in form.readings
        if None not in (indices := [_index(item, reading) for item in items])
    }
    for preferred in (form.usual, answer_is):
        if preferred in fitting:
            return [index for index in fitting[preferred] if index is not None]
    if not fitting:
        return _read_mixed(items, form)
    (reading, indices), *rivals = fitting.items()
    for rival, rival_indices in rivals:
        for item, index, rival_index in zip(items, indices, rival_indices, strict=True):
            if index is not None and rival_index is not None and index != rival_index:
                raise BadInput(
                    f"{item.place}: the answers of this file can be read as {NAMES[reading]} and "
                    f"as {NAMES[rival]}: {item.answer!r:.40} is then {item.choices[index]!r:.40} "
                    f"or {item.choices[rival_index]!r:.40}; say which in the profile, answer_is: "
                    f"{reading} (or {rival}) in fetch.benchmarks of the profile"
                )
    return [index for index in indices if index is not None]


def _read_mixed(items: Sequence[RawItem], form: Benchmark) -> list[int]:
    """Return the indices of a file that mixes labels with numbers from 1 or letters, as ARC does.
    BadInput: an item that none of them fits."""
    chosen = []
    for item in items:
        indices = [_index(item, "label"), _index(item, "number_from_1"), _index(item, "letter")]
        index = next((index for index in indices if index is not None), None)
        if index is None or "label" not in form.readings:
            raise _unfitting(items, form)
        chosen.append(index)
    return chosen


def _unfitting(items: Sequence[RawItem], form: Benchmark) -> BadInput:
    """Return the error that names the odd row: the first that the best reading does not fit. The
    best reading is the one that fits most rows."""
    fits = {r: [_index(item, r) is not None for item in items] for r in form.readings}
    best = max(fits, key=lambda reading: sum(fits[reading]))
    if not any(fits[best]):
        readings = ", ".join(NAMES[reading] for reading in form.readings if reading != "label")
        return BadInput(
            f"{items[0].place}: answer: {items[0].answer!r:.60} names none of the choices "
            f"{', '.join(items[0].choices)[:80]}, and no row of the file does better; it may be "
            f"{readings}"
        )
    item = items[fits[best].index(False)]
    count = len(item.choices)
    names = {
        "number_from_0": [str(n) for n in range(count)],
        "number_from_1": [str(n) for n in range(1, count + 1)],
        "letter": [chr(ord("A") + n) for n in range(count)],
        "text": item.choices,
        "label": item.labels,
    }[best]
    return BadInput(
        f"{item.place}: answer: one of {', '.join(names)} is expected, got {item.answer!r:.60}, "
        f"for {sum(fits[best])} of {len(items)} rows of the file give {NAMES[best]}"
    )


def _index(item: RawItem, reading: AnswerIs) -> int | None:
    """Return the index of the choice that an answer names in a reading, None where it names none.

    The labels of the choices may skip letters (A, C, D). A letter and a number then count places in
    the alphabet: D is the place 3, and the index 2.
    """
    answer = item.answer
    if isinstance(answer, bool):
        answer = int(answer)
    text = str(answer).strip()
    if reading in COUNTS:
        number = _number(answer)
        first = COUNTS.index(reading)
        return _place(item, number - first) if number is not None else None
    if reading == "letter":
        letter = re.fullmatch(r"\(?([A-Za-z])[).:]?", text)
        return _place(item, ord(letter[1].upper()) - ord("A")) if letter else None
    names = item.labels if reading == "label" else item.choices
    stripped = [name.strip() for name in names]
    return stripped.index(text) if text in stripped else None


def _place(item: RawItem, place: int) -> int | None:
    """Return the index of the choice at a place of the alphabet. Both are counted from 0."""
    if item.labels and all(len(name) == 1 and name in LETTERS for name in item.labels):
        places = [LETTERS.index(name) for name in item.labels]
        return places.index(place) if place in places else None
    return place if 0 <= place < len(item.choices) else None


def _number(answer: object) -> int | None:
    # A table column of whole numbers with gaps is read as floats: 2 arrives as 2.0.
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    if isinstance(answer, int):
        return answer
    digits = re.fullmatch(r"\s*(\d+)(?:\.0)?\s*", answer) if isinstance(answer, str) else None
    return int(digits[1]) if digits else None


# --- the forms -----------------------------------------------------------------------------------


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), str) for name in names)


def _with_passage(passage: str, question: str) -> str:
    return f"{passage.strip()}\n\n{question}" if passage.strip() else question


def _read_labelled(row: Row) -> RawItem:
    """Read ARC, OpenBookQA, CommonsenseQA. In AI2's own files `question` is an object that holds
    all but the answer's key."""
    nested = row.fields.get("question")
    inner = Row(row.place, nested) if isinstance(nested, dict) else row
    stem = next(key for key in ("stem", "question_stem", "question") if key in inner.fields)
    choices = inner.fields["choices"]
    if isinstance(choices, list):
        pairs = [Row(row.place, choice) for choice in choices if isinstance(choice, dict)]
        texts, own_labels = [c.text("text") for c in pairs], [c.text("label") for c in pairs]
    else:
        listed = Row(row.place, choices)
        texts, own_labels = listed.texts("text"), listed.texts("label")
    if len(texts) != len(own_labels):
        raise BadInput(f"{row.place}: choices: {len(texts)} texts and {len(own_labels)} labels")
    return RawItem(row.place, inner.text(stem), texts, row.fields.get("answerKey"), own_labels)


def _is_labelled(fields: Fields) -> bool:
    nested = fields.get("question")
    inner = nested if isinstance(nested, dict) else fields
    choices = inner.get("choices")
    if isinstance(choices, list):
        choices = choices[0] if choices else None
    has_labels = isinstance(choices, dict) and {"text", "label"} <= choices.keys()
    return has_labels and bool({"stem", "question_stem", "question"} & inner.keys())


def _read_piqa(row: Row) -> RawItem:
    sides = [row.text("sol1"), row.text("sol2")]
    return RawItem(row.place, row.text("goal"), sides, row.fields.get("label"), [])


def _read_truthfulqa(row: Row) -> RawItem:
    """Read TruthfulQA's mc1: one true answer among the false ones."""
    targets = row.fields.get("mc1_targets")
    if isinstance(targets, dict) and {"choices", "labels"} <= targets.keys():
        choices, right = Row(row.place, targets).texts("choices"), targets["labels"]
        if list(right).count(1) != 1 or len(right) != len(choices):
            raise BadInput(f"{row.place}: mc1_targets: one label 1 is expected, got {right!r:.60}")
        return RawItem(row.place, row.text("question"), choices, right.index(1), [])
    # as its authors write it: {answer: 1, other answer: 0}
    if isinstance(targets, dict):
        right = list(targets.values())
        if right.count(1) != 1:
            raise BadInput(f"{row.place}: mc1_targets: one label 1 is expected, got {right!r:.60}")
        return RawItem(row.place, row.text("question"), list(targets), right.index(1), [])
    choices = [row.text("best_answer"), *row.texts("incorrect_answers")]
    return RawItem(row.place, row.text("question"), choices, 0, [])


def _is_truthfulqa(fields: Fields) -> bool:
    return _has("question")(fields) and (
        isinstance(fields.get("mc1_targets"), dict)
        or (_has("best_answer")(fields) and isinstance(fields.get("incorrect_answers"), list))
    )


def _read_hellaswag(row: Row) -> RawItem:
    return RawItem(row.place, row.text("ctx"), row.texts("endings"), row.fields.get("label"), [])


def _read_winogrande(row: Row) -> RawItem:
    """Read WinoGrande. The question is the sentence up to its blank. A choice is an option with the
    rest of the sentence."""
    before, mark, after = row.text("sentence").partition("_")
    if not mark:
        raise BadInput(f"{row.place}: sentence: a blank `_` is expected")
    options = [row.text("option1") + after, row.text("option2") + after]
    return RawItem(row.place, before.strip(), options, row.fields.get("answer"), [])


def _read_sciq(row: Row) -> RawItem:
    wrong = [row.text(f"distractor{n}") for n in (1, 2, 3)]
    question = _with_passage(str(row.fields.get("support") or ""), row.text("question"))
    return RawItem(row.place, question, [row.text("correct_answer"), *wrong], 0, [])


def _read_social_iqa(row: Row) -> RawItem:
    """Read Social IQa: a situation, a question and three answers."""
    choices = [row.text(f"answer{letter}") for letter in "ABC"]
    question = _with_passage(row.text("context"), row.text("question"))
    return RawItem(row.place, question, choices, row.fields.get("label"), [])


TRUTHS = {"false": 0, "no": 0, "0": 0, "true": 1, "yes": 1, "1": 1}


def _read_boolq(row: Row) -> RawItem:
    value = row.fields.get("answer", row.fields.get("label"))
    question = _with_passage(row.text("passage"), row.text("question"))
    item = RawItem(row.place, question, ["no", "yes"], value, [])
    if is_hidden(item):
        return item
    truth = TRUTHS.get(str(value).strip().lower().removesuffix(".0"))
    if truth is None:
        raise BadInput(f"{row.place}: answer: true or false is expected, got {value!r:.60}")
    return item._replace(answer=truth)


def _is_boolq(fields: Fields) -> bool:
    value = fields.get("answer", fields.get("label"))
    truth = isinstance(value, bool) or str(value).strip().lower() in (*TRUTHS, "-1", "none", "")
    return _has("question", "passage")(fields) and truth and not {*_LISTS} & fields.keys()


def _read_listed(row: Row) -> RawItem:
    """Read MMLU, RACE and other rows that list their choices, or name them by letters in an object
    ({"A": ..., "B": ...})."""
    key = next(key for key in _LISTS if key in row.fields)
    choices, own_labels = row.fields[key], list[str]()
    if isinstance(choices, dict):
        own_labels = [name for name, text in choices.items() if text is not None]
        choices = [_choice_text(Row(row.place, choices), name) for name in own_labels]
    elif isinstance(choices, list) and choices:
        choices = [_choice_text(Row(row.place, {key: choice}), key) for choice in choices]
    else:
        choices = row.texts(key)
    passage = next((row.text(key) for key in _PASSAGES if row.fields.get(key)), "")
    answer = row.fields[next(key for key in _ANSWERS if key in row.fields)]
    return RawItem(
        row.place, _with_passage(passage, row.text("question")), choices, answer, own_labels
    )


def _is_listed(fields: Fields) -> bool:
    choices = next((fields[key] for key in _LISTS if key in fields), None)
    answers = [fields[key] for key in _ANSWERS if key in fields]
    if isinstance(choices, dict):
        choices = list(choices.values()) if all(len(str(key)) == 1 for key in choices) else None
    return (
        _has("question")(fields)
        and isinstance(choices, list)
        and bool(choices)
        and all(isinstance(choice, str | int | float | None) for choice in choices)
        and bool(answers)
        and isinstance(answers[0], int | float | str | None)
    )


def _read_columns(row: Row) -> RawItem:
    """Read MMLU as a table. Each choice has a column, which is named by its letter."""
    question = row.text("question")
    letters = [letter for letter in LETTERS if row.fields.get(letter) not in (None, "")]
    answer = row.fields[next(key for key in _ANSWERS if key in row.fields)]
    choices = [_choice_text(row, letter) for letter in letters]
    passage = next((row.text(key) for key in _PASSAGES if row.fields.get(key)), "")
    return RawItem(row.place, _with_passage(passage, question), choices, answer, letters)


def _choice_text(row: Row, key: str) -> str:
    value = row.fields[key]
    number = isinstance(value, int | float) and not missing(value)
    return str(value) if number else row.text(key)


def _is_columns(fields: Fields) -> bool:
    return (
        _has("question")(fields)
        and {"A", "B"} <= fields.keys()
        and any(key in fields for key in _ANSWERS)
    )


# The order matters: a file is read as the first form that its rows fit. General ones come last.
BENCHMARKS: dict[str, Benchmark] = {
    "labelled choices": Benchmark(_is_labelled, _read_labelled, ("label", *ALL), "label"),
    "PIQA": Benchmark(_has("goal", "sol1", "sol2"), _read_piqa, COUNTS, "number_from_0"),
    "TruthfulQA": Benchmark(_is_truthfulqa, _read_truthfulqa, COUNTS[:1], None),
    "HellaSwag": Benchmark(
        lambda f: _has("ctx")(f) and isinstance(f.get("endings"), list),
        _read_hellaswag,
        COUNTS,
        "number_from_0",
    ),
    "WinoGrande": Benchmark(
        _has("sentence", "option1", "option2"), _read_winogrande, COUNTS, "number_from_1"
    ),
    "SciQ": Benchmark(
        _has("question", "correct_answer", "distractor1", "distractor2", "distractor3"),
        _read_sciq,
        COUNTS[:1],
        None,
    ),
    "Social IQa": Benchmark(
        _has("context", "question", "answerA", "answerB", "answerC"),
        _read_social_iqa,
        (*COUNTS, "letter"),
        "number_from_1",
    ),
    "BoolQ": Benchmark(_is_boolq, _read_boolq, COUNTS[:1], None),
    "listed choices": Benchmark(_is_listed, _read_listed, ("label", *ALL), "label"),
    "choices in columns": Benchmark(_is_columns, _read_columns, ("label", *ALL), "label"),
}


def gives_answers(rows: Iterator[Row], form: Benchmark) -> bool:
    """Say whether any row publishes its answer."""
    return any(not is_hidden(form.read(row)) for row in rows)
