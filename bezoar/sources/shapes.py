"""What a row of each kind of file looks like, by its fields alone, and how it becomes records.

`shape_of` tells what a file is, for local.py (which reads it) and link.py (which finds it); a
file's name is never looked at, except as the name of a task.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from bezoar.files import BadInput
from bezoar.records import Message, Mixture
from bezoar.sources.rows import GZIP, PARQUET, Row, is_parquet, lines, rows

Fields = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A kind of file: the folder of local/ that it feeds, and a test of one row."""

    source: str
    name: str
    fits: Callable[[Fields], bool]


class Skipped(Exception):
    """This row is well-formed but of no use; str(self) is the reason that is counted."""


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), str) for name in names)


# --- seeds, pairs and topics ---------------------------------------------------------------------

NOT_STATED = "not stated in the file"
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _is_pair(fields: Fields) -> bool:
    sides = [fields.get("chosen"), fields.get("rejected")]
    return all(
        isinstance(s, str) and {"Human", "Assistant"} <= {*SPEAKER.findall(s)} for s in sides
    )


def preference(row: Row) -> tuple[list[Message], str, str]:
    """(prompt, chosen, rejected) of a row of HH-RLHF: two dialogues that part at the last answer.

    Skipped, with the reason, where they part earlier, where a turn or an answer is empty, where
    the answers are equal, or where the turns do not alternate.
    """
    sides = [row.text(key).rpartition("\n\nAssistant:") for key in ("chosen", "rejected")]
    (asked, mark, chosen), (other, other_mark, rejected) = sides
    if not mark or not other_mark:
        raise Skipped("no answer")
    if asked != other:
        raise Skipped("the two prompts differ")
    chosen, rejected = chosen.strip(), rejected.strip()
    if not chosen or not rejected:
        raise Skipped("empty answer")
    if chosen == rejected:
        raise Skipped("equal answers")
    before, *parts = SPEAKER.split(asked)
    speakers, words = parts[::2], [part.strip() for part in parts[1::2]]
    wanted = ["Human" if n % 2 == 0 else "Assistant" for n in range(len(speakers))]
    if before.strip() or speakers != wanted or len(speakers) % 2 == 0:
        raise Skipped("turns do not alternate")
    if not all(words):
        raise Skipped("empty turn")
    turns = [
        Message(role="user" if n % 2 == 0 else "assistant", content=text)
        for n, text in enumerate(words)
    ]
    return turns, chosen, rejected


def _is_category_tree(fields: Fields) -> bool:
    # an outline has the same nodes, without sub-categories
    def counted(node: object) -> bool:
        return isinstance(node, dict) and ("subcategory" in node or any(map(counted, _below(node))))

    return {"subject", "level", "children"} <= fields.keys() and counted(fields)


def _below(node: Fields) -> list[Any]:
    lists = (node.get("children"), node.get("subcategory"))
    return [child for each in lists if isinstance(each, list) for child in each]


def categories(row: Row, node: object = None) -> Iterator[tuple[str, int]]:
    """(name, number of sub-categories) of every node of a Wikipedia category tree."""
    node = row.fields if node is None else node
    if isinstance(node, str):
        yield row.checked("children", node), 0
    elif isinstance(node, dict):
        yield row.checked("subject", node.get("subject")), len(_below(node))
        for child in _below(node):
            yield from categories(row, child)
    else:
        raise BadInput(f"{row.where}: children: names or nodes are expected, got {node!r:.60}")


# --- the FLAN collection -------------------------------------------------------------------------


def _is_task(fields: Fields) -> bool:
    instances = fields.get("Instances")
    return (
        "Definition" in fields
        and isinstance(instances, list)
        and all(isinstance(i, dict) and {"input", "output"} <= i.keys() for i in instances[:5])
    )


def instances(row: Row) -> Iterator[tuple[str, str, str]]:
    """(query, target, licence) of each instance of a natural-instructions task: the definition,
    then the input; the first of the outputs, all of which are right."""
    given = row.fields["Definition"]
    definition = "\n".join(
        row.texts("Definition") if isinstance(given, list) else [row.text("Definition")]
    )
    licence = row.fields.get("Instance License") or [NOT_STATED]
    named = ", ".join(licence) if isinstance(licence, list) else str(licence)
    for number, instance in enumerate(row.fields["Instances"]):
        inner = Row(f"{row.where}: Instances[{number}]", instance)
        if not isinstance(instance, dict):
            raise BadInput(
                f"{inner.where}: an input and an output are expected, got {instance!r:.60}"
            )
        output = instance.get("output")
        target = inner.texts("output")[0] if isinstance(output, list) else inner.text("output")
        yield f"{definition}\n\n{inner.text('input')}".strip(), target.strip(), named


def completion(row: Row) -> tuple[str, str]:
    """(query, target) of a rendered P3 prompt."""
    return row.text("prompt").strip(), row.text("completion").removesuffix("<|endoftext|>").strip()


def templated(row: Row) -> tuple[Mixture, str, str, str]:
    """(sub-mixture, task or "", query, target) of a row of the FLAN collection as exported: the
    sub-mixture is what `_task_source` says, Flan2021 where nothing says it.

    Skipped: few-shot rows and dialogues, which the paper leaves out (2.3).
    """
    fields = {key.lstrip("_"): value for key, value in row.fields.items()}
    if str(fields.get("template_type", "zs")).startswith("fs"):
        raise Skipped("few-shot")
    told = str(fields.get("task_source", "flan2021")).lower()
    mixture = next((name for name in get_args(Mixture) if name == told), None)
    if mixture is None:
        raise Skipped(f"sub-mixture {told}")
    task = fields.get("task_name") or fields.get("task") or ""
    return mixture, str(task), row.text("inputs").strip(), row.text("targets").strip()


def chain(line: str) -> tuple[str, str] | None:
    """(query, target) of a line of a FLAN chain-of-thought table, None where it is no such line.
    The target is the chain, then the answer: what that sub-mixture teaches."""
    cells = [cell.replace("\\n", "\n").strip() for cell in line.split("\t")]
    if len(cells) != 3 or not all(cells):
        return None
    question, answer, thought = cells
    return question, f"{thought}\nThe answer is {answer}."


# --- MT-Bench ------------------------------------------------------------------------------------


def _is_question(fields: Fields) -> bool:
    turns = fields.get("turns")
    return (
        isinstance(fields.get("question_id"), int)
        and isinstance(fields.get("category"), str)
        and isinstance(turns, list)
        and len(turns) == 2
    )


def _is_answer(fields: Fields) -> bool:
    choices = fields.get("choices")
    return (
        isinstance(fields.get("question_id"), int)
        and isinstance(fields.get("model_id"), str)
        and isinstance(choices, list)
        and all(isinstance(c, dict) and isinstance(c.get("turns"), list) for c in choices)
    )


def _is_vote(fields: Fields) -> bool:
    wanted = ("judge", "model_a", "model_b", "winner")
    return _has(*wanted)(fields) and {"question_id", "turn"} <= fields.keys()


def _is_single_grade(fields: Fields) -> bool:
    # FastChat's model_judgment/*_single.jsonl; its pairs have model_1 and model_2
    return (
        {"question_id", "turn", "score", "judge"} <= fields.keys()
        and isinstance(fields.get("model"), str)
        and isinstance(fields["judge"], list)
    )


# --- multiple choice -----------------------------------------------------------------------------

Asked = tuple[str, list[str], int]  # question, choices, index of the right one
_LISTS, _ANSWERS = ("choices", "options"), ("answer", "label")
_PASSAGES = ("article", "passage", "context", "support")


def _after(passage: str, question: str) -> str:
    return f"{passage.strip()}\n\n{question}" if passage.strip() else question


def _index(row: Row, key: str, labels: list[str]) -> int:
    """Where the value of `key` stands in `labels`, compared as text."""
    value = str(row.fields.get(key)).strip()
    if value not in labels:
        raise BadInput(f"{row.where}: {key}: one of {', '.join(labels)} is expected, got {value!r}")
    return labels.index(value)


def _numbers(first: int, count: int) -> list[str]:
    return [str(n) for n in range(first, first + count)]


def _labelled(row: Row) -> Asked:
    """ARC, OpenBookQA, CommonsenseQA; in AI2's own files `question` holds stem and choices."""
    asked = row.fields.get("question")
    if isinstance(asked, dict):
        inner = Row(row.where, asked)
        pairs = [Row(row.where, c) for c in asked["choices"] if isinstance(c, dict)]
        question, texts = inner.text("stem"), [c.text("text") for c in pairs]
        labels = [c.text("label") for c in pairs]
    else:
        question = row.text("question_stem" if "question_stem" in row.fields else "question")
        inner = Row(row.where, row.fields["choices"])
        texts, labels = inner.texts("text"), inner.texts("label")
    if len(texts) != len(labels):
        raise BadInput(f"{row.where}: choices: {len(texts)} texts and {len(labels)} labels")
    return question, texts, _index(row, "answerKey", labels)


def _is_labelled(fields: Fields) -> bool:
    asked, choices = fields.get("question"), fields.get("choices")
    nested = isinstance(asked, dict) and isinstance(asked.get("choices"), list)
    flat = isinstance(choices, dict) and {"text", "label"} <= choices.keys()
    return bool(fields.get("answerKey")) and (
        nested or (flat and bool({"question", "question_stem"} & fields.keys()))
    )


def _physical(row: Row) -> Asked:
    return row.text("goal"), [row.text("sol1"), row.text("sol2")], _index(row, "label", ["0", "1"])


def _truthful(row: Row) -> Asked:
    """TruthfulQA's mc1: one true answer among the false ones."""
    targets = row.fields.get("mc1_targets")
    if isinstance(targets, dict) and {"choices", "labels"} <= targets.keys():
        choices, right = Row(row.where, targets).texts("choices"), targets["labels"]
        if right.count(1) != 1 or len(right) != len(choices):
            raise BadInput(f"{row.where}: mc1_targets: one label 1 is expected, got {right!r:.60}")
        return row.text("question"), choices, right.index(1)
    return row.text("question"), [row.text("best_answer"), *row.texts("incorrect_answers")], 0


def _ending(row: Row) -> Asked:
    endings = row.texts("endings")
    return row.text("ctx"), endings, _index(row, "label", _numbers(0, len(endings)))


def _blank(row: Row) -> Asked:
    """WinoGrande: the sentence up to its blank, and each option with the sentence's rest."""
    before, mark, after = row.text("sentence").partition("_")
    if not mark:
        raise BadInput(f"{row.where}: sentence: a blank `_` is expected")
    options = [row.text("option1") + after, row.text("option2") + after]
    return before.strip(), options, _index(row, "answer", ["1", "2"])


def _science(row: Row) -> Asked:
    wrong = [row.text(f"distractor{n}") for n in (1, 2, 3)]
    question = _after(str(row.fields.get("support") or ""), row.text("question"))
    return question, [row.text("correct_answer"), *wrong], 0


def _yes_or_no(row: Row) -> Asked:
    return (
        _after(row.text("passage"), row.text("question")),
        ["no", "yes"],
        int(row.fields["answer"]),
    )


def _listed(row: Row) -> Asked:
    """MMLU, RACE, whatever else lists its choices; the answer is an index, a letter or a text."""
    choices = row.texts(next(key for key in _LISTS if key in row.fields))
    passage = next((row.text(key) for key in _PASSAGES if row.fields.get(key)), "")
    key = next(key for key in _ANSWERS if key in row.fields)
    letters = [chr(ord("A") + n) for n in range(len(choices))]
    value, labels = row.fields[key], _numbers(0, len(choices))
    if isinstance(value, str):
        labels = next((each for each in (letters, choices) if value.strip() in each), labels)
    return _after(passage, row.text("question")), choices, _index(row, key, labels)


def _is_listed(fields: Fields) -> bool:
    choices = next((fields[key] for key in _LISTS if key in fields), None)
    answer = next((fields[key] for key in _ANSWERS if key in fields), None)
    return (
        _has("question")(fields)
        and isinstance(choices, list)
        and all(isinstance(choice, str) for choice in choices)
        and isinstance(answer, int | str)
        and answer != ""
    )


def _is_truthful(fields: Fields) -> bool:
    return _has("question")(fields) and (
        isinstance(fields.get("mc1_targets"), dict)
        or (_has("best_answer")(fields) and isinstance(fields.get("incorrect_answers"), list))
    )


BENCHMARKS: dict[str, tuple[Callable[[Fields], bool], Callable[[Row], Asked]]] = {
    "labelled choices": (_is_labelled, _labelled),
    "PIQA": (
        lambda f: _has("goal", "sol1", "sol2")(f) and f.get("label") in (0, 1, "0", "1"),
        _physical,
    ),
    "TruthfulQA": (_is_truthful, _truthful),
    "HellaSwag": (
        lambda f: (
            _has("ctx")(f)
            and isinstance(f.get("endings"), list)
            and f.get("label") not in ("", None)
        ),
        _ending,
    ),
    "WinoGrande": (
        lambda f: _has("sentence", "option1", "option2")(f) and bool(f.get("answer")),
        _blank,
    ),
    "SciQ": (
        _has("question", "correct_answer", "distractor1", "distractor2", "distractor3"),
        _science,
    ),
    "BoolQ": (
        lambda f: _has("question", "passage")(f) and isinstance(f.get("answer"), bool),
        _yes_or_no,
    ),
    "listed choices": (_is_listed, _listed),
}

# --- telling them apart --------------------------------------------------------------------------

SHAPES = (
    Shape(
        "dolly",
        "seeds",
        lambda f: _has("instruction", "response", "category")(f) and "context" in f,
    ),
    Shape("hh_rlhf", "preference pairs", _is_pair),
    Shape("topics", "category tree", _is_category_tree),
    Shape(
        "topics", "topics", lambda f: _has("name")(f) and isinstance(f.get("subcategories"), int)
    ),
    Shape("flan", "natural-instructions task", _is_task),
    Shape("flan", "prompts and completions", _has("prompt", "completion")),
    Shape("flan", "inputs and targets", _has("inputs", "targets")),
    Shape("mt_bench", "questions", _is_question),
    Shape("mt_bench", "answers", _is_answer),
    Shape("mt_bench", "votes", _is_vote),
    Shape("mt_bench", "single grades", _is_single_grade),
    *(Shape("benchmarks", name, fits) for name, (fits, _) in BENCHMARKS.items()),
)
CHAINS = Shape("flan", "chains of thought", lambda f: False)  # a table: it has lines, not fields
FIRST = 5  # rows looked at


def shape_of(path: Path) -> Shape | None:
    """What a file is, by its first rows; None where it is nothing that the pipeline reads.

    The first row and half of the next ones must fit, so that the reader can name the odd one.
    BadInput: a file that is no text, or opens as JSON does and is none.
    """
    with path.open("rb") as probe:
        head = probe.read(4096)
    if b"\0" in head and not head.startswith((GZIP, PARQUET)):
        return None
    if not is_rows(path):
        first = [chain(line) for _, line in islice(lines(path), FIRST)]
        # a question and a thought are sentences; another table of three columns is not
        prose = all(c and len(c[0].split()) > 3 and len(c[1].split()) > 6 for c in first)
        return CHAINS if first and prose else None
    seen = []
    try:
        for row in islice(rows(path), FIRST):
            seen.append(row.fields)
    except BadInput:
        if not seen:
            raise
    fitting = (s for s in SHAPES if s.fits(seen[0]) and 2 * sum(map(s.fits, seen)) >= len(seen))
    return next(fitting, None)


def is_rows(path: Path) -> bool:
    """Whether a file holds rows: it is parquet, or opens as JSON does."""
    if is_parquet(path):
        return True
    return next((line for _, line in lines(path)), "").lstrip().startswith(("{", "["))


def names(path: Path) -> Iterator[tuple[str, int | None]]:
    """(name, number of sub-categories or None) of a text file with one topic a line, which a tab
    and a number may follow."""
    for number, line in lines(path):
        name, _, count = (part.strip() for part in line.partition("\t"))
        if count and not count.isdecimal():
            raise BadInput(
                f"{path}:{number}: a name, or a name, a tab and a number; got {line!r:.60}"
            )
        yield name, int(count) if count else None


_SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval", "data", "questions"}


def task_name(path: Path) -> tuple[str, str]:
    """(task, split) of a file: its stem in [a-z0-9_] without the split's name at its end, or else
    its folder's name; the split is "" where the file's name tells none."""
    stem = path.name.lower()
    for ending in (".gz", ".jsonl", ".json", ".tsv", ".txt"):
        stem = stem.removesuffix(ending)
    words, split = [word for word in re.split(r"[^a-z0-9]+", stem) if word], ""
    while words and (words[-1] in _SPLITS or re.fullmatch(r"head\d+", words[-1])):
        last = words.pop()
        split = last if last in _SPLITS else split
    named = "_".join(words) or "_".join(re.findall(r"[a-z0-9]+", path.parent.name.lower()))
    return named or "task", split
