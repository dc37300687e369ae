"""The shapes of rows: tests that recognise a row by its fields, and functions that read it.

`recognise` says what a file is, for readers.py, which reads it, and for link.py, which finds it.
The name of a file plays no part in it. It only gives a task its name (names.py).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bezoar.rows.files import BadInput
from bezoar.rows.records import Message, Mixture
from bezoar.sources import containers, dialogues
from bezoar.sources.choices import BENCHMARKS
from bezoar.sources.containers import lines
from bezoar.sources.dialogues import SPEAKER, Skipped
from bezoar.sources.names import split_of
from bezoar.sources.rows import (
    DELIMITERS,
    MISSING,
    NUMBERS,
    TITLES,
    Fields,
    Row,
    cell,
    header,
    missing,
    rows,
    table,
)

IN_CELLS = {"choices", "turns", *NUMBERS}  # fields of lists or numbers, which tables have as text
OWN_ID = 100  # ours: characters of a row's own id that are kept
Maps = Mapping[str, Mapping[str, str]]  # source -> our field -> the user's own name for it


@dataclass(frozen=True)
class Shape:
    """A kind of file: the folder of local/ that it belongs in, its name, and a test of one row."""

    source: str
    name: str
    fits: Callable[[Fields], bool]


class Recognised(NamedTuple):
    """The shape of a file, and a function that reads its rows anew at each call. A table of chains
    of thought has no rows here, for it is read by lines."""

    shape: Shape
    rows: Callable[[], Iterator[Row]]
    renamed: bool = False  # true if it has the fields that the user names


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), str) for name in names)


def _answers(question: str, answer: str) -> Callable[[Fields], bool]:
    """Return a test of a row: it has a question as text, and an answer as text or as a number."""

    def fits(fields: Fields) -> bool:
        value = fields.get(answer)
        return (
            isinstance(fields.get(question), str)
            and isinstance(value, str | int | float)
            and not (isinstance(value, bool) or missing(value))
        )

    return fits


NOT_STATED = "not stated in the file"
# UTF-8 that was decoded as Latin-1 or Windows-1252 (`é` becomes `Ã©`), or the character U+FFFD,
# which replaces bytes that could not be decoded.
GARBLED = re.compile("[\u00c3\u00c2][\u0080-\u00bf\u20ac\u201a-\u2026\u0178]|\u00e2\u20ac|\ufffd")
DECODED_TWICE = "used with characters that look broken, as an export in another encoding has them"

# --- seeds ---------------------------------------------------------------------------------------


class RawSeed(NamedTuple):
    """A seed as its row has it. `category` and `own_id` are "" where the row has none. `unused`
    names the parts of the row that are not used."""

    instruction: str
    context: str
    response: str
    category: str
    unused: Sequence[str] = ()
    own_id: str = ""


# Fields of multiple-choice items. A row with one of them is no plain question with its answer, even
# if it cannot be read as an item.
OFFERED = {
    "choices",
    "options",
    "endings",
    "distractor1",
    "mc1_targets",
    "best_answer",
    "answerKey",
}
PAIRED = [  # (question, answer) as text, in the names that people give them
    (question, answer)
    for question in ("question", "prompt", "query", "problem", "input")
    for answer in ("answer", "response", "output", "solution", "completion")
]


def _dolly(row: Row) -> RawSeed:
    return RawSeed(
        row.as_text("instruction"), _context(row, "context"), row.as_text("response"), ""
    )


def _alpaca(row: Row) -> RawSeed:
    return RawSeed(row.as_text("instruction"), _context(row, "input"), row.as_text("output"), "")


def _context(row: Row, key: str) -> str:
    # Some exports lack the field, and some write null for "no context".
    return row.as_text(key) if key in row.fields else ""


def _self_instruct(row: Row) -> RawSeed:
    first = Row(row.place, row.fields["instances"][0])
    return RawSeed(
        row.as_text("instruction"), _context(first, "input"), first.as_text("output"), ""
    )


def _chat(row: Row) -> RawSeed:
    if _goodness(row.fields, numbers=False) is False:
        raise Skipped("an answer that is marked as a bad one")
    question, answer, unused = dialogues.exchange(row)
    return RawSeed(question, "", answer, "", unused)


def _judged(row: Row) -> RawSeed:
    if _goodness(row.fields) is False:
        raise Skipped("an answer that is marked as a bad one")
    return RawSeed(row.as_text("prompt"), "", row.as_text("completion"), "")


def _goodness(fields: Fields, numbers: bool = True) -> bool | None:
    """Return True if an answer is marked as good, False if as bad, None if it is not marked."""
    mark = str(fields.get("label", fields.get("kto_tag"))).strip().lower()
    marks = {"true": True, "false": False, **({"1": True, "0": False} if numbers else {})}
    return marks.get(mark)


def _question(row: Row) -> RawSeed:
    question, answer = next(pair for pair in PAIRED if set(pair) <= row.fields.keys())
    system = any(row.fields.get(key) for key in ("system", "system_prompt"))
    unused = ["a system message is not used"] if system else []
    return RawSeed(
        row.as_text(question),
        _context(row, "context"),
        _plain(row.as_text(answer)),
        "",
        unused,
    )


def _plain(answer: str) -> str:
    """Return an answer without GSM8K's marks: sums in angle brackets, and `####` before the
    result. `<<2+3=5>>5 in all.\\n#### 5` becomes `5 in all.\\nThe answer is 5.`"""
    thought, mark, result = re.sub(r"<<[^<>\n]*>>", "", answer).rpartition("\n####")
    return f"{thought.strip()}\nThe answer is {result.strip()}." if mark else answer


def _is_self_instruct(fields: Fields) -> bool:
    instances = fields.get("instances")
    return (
        _has("instruction")(fields)
        and isinstance(instances, list)
        and bool(instances)
        and all(isinstance(i, dict) and {"input", "output"} <= i.keys() for i in instances)
    )


SEEDS: dict[str, tuple[Callable[[Fields], bool], Callable[[Row], RawSeed]]] = {
    "seeds": (_answers("instruction", "response"), _dolly),
    "instructions with input and output": (_answers("instruction", "output"), _alpaca),
    "instructions with instances": (_is_self_instruct, _self_instruct),
    "dialogues": (dialogues.is_exchange, _chat),
    "answers marked good or bad": (
        lambda f: _has("prompt", "completion")(f) and _goodness(f) is not None,
        _judged,
    ),
    "questions and answers": (
        lambda f: not OFFERED & f.keys() and any(_answers(*pair)(f) for pair in PAIRED),
        _question,
    ),
}


def seed(name: str, row: Row) -> RawSeed:
    """Read a row of the seeds' shape `name`. Skipped: an empty instruction or response, or a reason
    of the shape's own reader."""
    raw = SEEDS[name][1](row)
    if not raw.instruction.strip() or not raw.response.strip():
        raise Skipped("empty instruction or response")
    garbled = any(GARBLED.search(text) for text in (raw.instruction, raw.context, raw.response))
    unused = [*raw.unused, *([DECODED_TWICE] if garbled else [])]
    has_category = "category" in row.fields and not missing(row.fields["category"])
    category = row.as_text("category").strip() if has_category else ""
    own_id = _own_id(row.fields.get("id"))
    return raw._replace(category=category, own_id=own_id, unused=unused)


def _own_id(value: object) -> str:
    """Return a row's own id as text, "" where it has none that is text or a whole number."""
    is_readable = isinstance(value, str | int) and not isinstance(value, bool)
    return " ".join(str(value).split())[:OWN_ID] if is_readable else ""


# --- pairs ---------------------------------------------------------------------------------------

SIDES = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))
QUESTION_FIELDS = ("prompt", "question", "instruction", "query", "input")


class Answered(NamedTuple):
    """The fields of a pair: two answers and a number. It is below `even` if the first is better."""

    first: str
    second: str
    preference: str
    even: float


TWO = (  # HelpSteer2, HelpSteer3, PKU-SafeRLHF
    Answered("response_1", "response_2", "preference_strength", 0),
    Answered("response1", "response2", "overall_preference", 0),
    Answered("response_0", "response_1", "better_response_id", 0.5),
)


def _is_pair(fields: Fields) -> bool:
    question = any(isinstance(fields.get(key), str) for key in QUESTION_FIELDS)
    before = any(
        dialogues.is_dialogue(fields.get(key)) for key in (*dialogues.TURN_FIELDS, "prompt")
    )
    for names in SIDES:
        sides: list[Any] = [fields.get(name) for name in names]
        if all(isinstance(side, str) for side in sides):
            marked = all({"Human", "Assistant"} <= {*SPEAKER.findall(side)} for side in sides)
            return marked or question or before
        if all(dialogues.is_dialogue(side) for side in sides):
            return True
        if all(dialogues.is_dialogue([side]) for side in sides):
            return question or before
    context = question or dialogues.is_dialogue(fields.get("context"))
    return context and any(
        _has(two.first, two.second)(fields) and isinstance(fields.get(two.preference), int | float)
        for two in TWO
    )


def preference(row: Row) -> tuple[list[Message], str, str]:
    """Return (prompt, chosen, rejected) of a preference pair. The row has two dialogues that differ
    in the last answer alone, or a prompt and two answers.

    Skipped, with the reason: the dialogues differ earlier, a turn or an answer is empty, the
    answers are equal, or the turns do not alternate.
    """
    chosen, rejected = _sides(row)
    system = str(row.fields.get("system") or row.fields.get("system_prompt") or "")
    if isinstance(chosen, str) and isinstance(rejected, str):
        marked = all(SPEAKER.match(side) for side in (chosen, rejected))
        before = [] if marked else _before(row)
        if not before:
            return _two_dialogues(chosen, rejected)
        opening = row.fields.get("prompt")
        if isinstance(opening, str) and opening.strip():
            chosen, rejected = (side.removeprefix(opening) for side in (chosen, rejected))
        return _check_answers(dialogues.prompt(system, before), chosen, rejected)
    dialogues_of_both = [
        dialogues.messages(row, side if isinstance(side, list) else [side])
        for side in (chosen, rejected)
    ]
    if any(not side or side[-1].role != "assistant" for side in dialogues_of_both):
        raise Skipped("no answer")
    before, rejected_before = (side[:-1] for side in dialogues_of_both)
    if before != rejected_before:
        raise Skipped("the two prompts differ")
    complete = bool(before) and before[0].role != "assistant"
    turns = before if complete else [*_before(row), *before]
    chosen, rejected = (side[-1].content for side in dialogues_of_both)
    return _check_answers(dialogues.prompt(system, turns), chosen, rejected)


def _sides(row: Row) -> tuple[Any, Any]:
    for chosen, rejected in SIDES:
        if chosen in row.fields or rejected in row.fields:
            sides = (row.fields.get(chosen), row.fields.get(rejected))
            for name, side in zip((chosen, rejected), sides, strict=True):
                if side is None and name in row.fields:
                    raise Skipped("empty answer")
                if not isinstance(side, list | dict):
                    row.check_text(name, side)
            return sides
    for first, second, preference, even in TWO:
        value = row.fields.get(preference)
        if isinstance(value, int | float) and first in row.fields:
            if value == even:
                raise Skipped("neither answer is preferred")
            sides = (row.text(first), row.text(second))
            return sides if value < even else sides[::-1]
    raise BadInput(f"{row.place}: chosen, rejected: missing; have {', '.join(row.fields)}")


def _before(row: Row) -> list[Message]:
    for key in (*dialogues.TURN_FIELDS, "prompt", "context"):
        if dialogues.is_dialogue(row.fields.get(key)):
            return dialogues.messages(row, row.fields[key])
    text = next(
        (row.text(key) for key in QUESTION_FIELDS if isinstance(row.fields.get(key), str)), ""
    )
    if SPEAKER.search(text):
        return dialogues.marked_turns(text.rstrip().removesuffix("\n\nAssistant:"))
    return [Message(role="user", content=text.strip())] if text.strip() else []


def _two_dialogues(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    sides = [side.rpartition("\n\nAssistant:") for side in (chosen, rejected)]
    (before, mark, chosen), (rejected_before, other_mark, rejected) = sides
    if not mark or not other_mark:
        raise Skipped("no answer")
    if before != rejected_before:
        raise Skipped("the two prompts differ")
    _check_answers([], chosen, rejected)
    turns = dialogues.marked_turns(before)
    return _check_answers(dialogues.prompt("", turns), chosen, rejected)


def _check_answers(
    prompt: list[Message], chosen: str, rejected: str
) -> tuple[list[Message], str, str]:
    chosen, rejected = chosen.strip(), rejected.strip()
    if not chosen or not rejected:
        raise Skipped("empty answer")
    if chosen == rejected:
        raise Skipped("equal answers")
    return prompt, chosen, rejected


# --- topics --------------------------------------------------------------------------------------


def _is_category_tree(fields: Fields) -> bool:
    # Outlines have the same nodes, but no node of them has sub-categories.
    def counted(node: object) -> bool:
        return isinstance(node, dict) and ("subcategory" in node or any(map(counted, _below(node))))

    return {"subject", "level", "children"} <= fields.keys() and counted(fields)


def _below(node: Fields) -> list[Any]:
    lists = (node.get("children"), node.get("subcategory"))
    return [child for nodes in lists if isinstance(nodes, list) for child in nodes]


def _is_count(value: object) -> bool:
    # A table column of whole numbers with gaps is read as floats: 2 arrives as 2.0.
    is_whole = isinstance(value, float) and value.is_integer()
    return missing(value) or is_whole or (isinstance(value, int) and not isinstance(value, bool))


def topic(row: Row) -> tuple[str, int | None]:
    """Return a topic's name and its number of sub-categories, None where the row has no number."""
    count = row.fields.get("subcategories")
    if missing(count):
        return row.as_text("name"), None
    # As in `_is_count`: whole numbers with gaps arrive as floats.
    if isinstance(count, float) and count.is_integer():
        return row.as_text("name"), int(count)
    return row.as_text("name"), row.integer("subcategories")


def categories(row: Row, node: object = None) -> Iterator[tuple[str, int]]:
    """Yield (name, number of sub-categories) of every node of a Wikipedia category tree."""
    node = row.fields if node is None else node
    if isinstance(node, str):
        yield row.check_text("children", node), 0
    elif isinstance(node, dict):
        yield row.check_text("subject", node.get("subject")), len(_below(node))
        for child in _below(node):
            yield from categories(row, child)
    else:
        raise BadInput(f"{row.place}: children: names or nodes are expected, got {node!r:.60}")


# --- the FLAN collection -------------------------------------------------------------------------


def _is_task(fields: Fields) -> bool:
    instances = fields.get("Instances")
    return (
        "Definition" in fields
        and isinstance(instances, list)
        and all(isinstance(i, dict) and {"input", "output"} <= i.keys() for i in instances[:5])
    )


def instances(row: Row) -> Iterator[tuple[str, str, str]]:
    """Yield (query, target, licence or "") of each instance of a natural-instructions task. The
    query is the task's definition, then the input. All outputs are right, and the first one is the
    target."""
    value = row.fields["Definition"]
    definition = "\n".join(
        row.texts("Definition") if isinstance(value, list) else [row.text("Definition")]
    )
    licence = row.fields.get("Instance License") or []
    licence_text = ", ".join(licence) if isinstance(licence, list) else str(licence)
    for number, instance in enumerate(row.fields["Instances"]):
        inner = Row(f"{row.place}: Instances[{number}]", instance)
        if not isinstance(instance, dict):
            raise BadInput(
                f"{inner.place}: an input and an output are expected, got {instance!r:.60}"
            )
        output = instance.get("output")
        target = inner.texts("output")[0] if isinstance(output, list) and output else ""
        target = target if isinstance(output, list) else inner.as_text("output")
        yield f"{definition}\n\n{inner.as_text('input')}".strip(), target.strip(), licence_text


def completion(row: Row) -> tuple[str, str]:
    """Return (query, target) of a rendered P3 prompt."""
    return row.as_text("prompt").strip(), row.as_text("completion").removesuffix(
        "<|endoftext|>"
    ).strip()


def collection_row(row: Row) -> tuple[Mixture, str, str, str]:
    """Return (sub-mixture, task or "", query, target) of a row of the FLAN collection as exported.
    The sub-mixture is that of `_task_source`, or Flan2021 where the row lacks this field.

    Skipped: few-shot rows and dialogues, which OpenBezoar 3.1.3 leaves out.
    """
    fields = {key.lstrip("_"): value for key, value in row.fields.items()}
    if str(fields.get("template_type", "zs")).startswith("fs"):
        raise Skipped("few-shot")
    task_source = str(fields.get("task_source", "flan2021")).lower()
    mixture = next((name for name in get_args(Mixture) if name == task_source), None)
    if mixture is None:
        raise Skipped(f"sub-mixture {task_source}")
    task = fields.get("task_name") or fields.get("task") or ""
    return (
        mixture,
        str(task),
        row.as_text("inputs").strip(),
        row.as_text("targets").strip(),
    )


def thought(row: Row) -> tuple[str, str]:
    """Return (query, target) of a row of GSM8K, in the form of the sub-mixture `cot`."""
    return row.text("question").strip(), _plain(row.text("answer")).strip()


def chain(line: str) -> tuple[str, str] | None:
    """Return (query, target) of a line of a FLAN chain-of-thought table, None where it is no such
    line. The target is the chain of thought, then the answer, as the sub-mixture `cot` has it."""
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
    names = ("judge", "model_a", "model_b", "winner")
    return _has(*names)(fields) and {"question_id", "turn"} <= fields.keys()


def _is_single_grade(fields: Fields) -> bool:
    # FastChat's model_judgment/*_single.jsonl; its pairs have model_1 and model_2
    return (
        {"question_id", "turn", "score", "judge"} <= fields.keys()
        and isinstance(fields.get("model"), str)
        and isinstance(fields["judge"], list)
    )


# --- telling them apart --------------------------------------------------------------------------


def _is_sum(fields: Fields) -> bool:
    return _has("question", "answer")(fields) and "\n#### " in fields["answer"]


# The order matters: a file is of the first shape that its rows fit. So the special shapes come
# before the general ones: Dolly's own rows come first, questions and answers last.
SHAPES = (
    Shape(
        "dolly",
        "seeds",
        lambda f: _has("instruction", "response", "category")(f) and "context" in f,
    ),
    Shape("hh_rlhf", "preference pairs", _is_pair),
    Shape("topics", "category tree", _is_category_tree),
    Shape(
        "topics",
        "topics",
        lambda f: isinstance(f.get("name"), str | None) and _is_count(f.get("subcategories", "")),
    ),
    Shape("flan", "natural-instructions task", _is_task),
    Shape(
        "flan",
        "prompts and completions",
        lambda f: _has("prompt", "completion")(f) and _goodness(f) is None,
    ),
    Shape("flan", "inputs and targets", _has("inputs", "targets")),
    Shape("mt_bench", "questions", _is_question),
    Shape("mt_bench", "answers", _is_answer),
    Shape("mt_bench", "votes", _is_vote),
    Shape("mt_bench", "single grades", _is_single_grade),
    *(Shape("benchmarks", name, form.fits) for name, form in BENCHMARKS.items()),
    Shape("flan", "sums with their thoughts", _is_sum),  # GSM8K
    *(Shape("dolly", name, fits) for name, (fits, _) in SEEDS.items()),
)
CHAINS = Shape("flan", "chains of thought", lambda f: False)  # a table: it has lines, not fields
LETTERED = next(shape for shape in SHAPES if shape.name == "choices in columns")
FIRST = 5  # ours: rows that are tested
LOOKED_AT = 1000  # ours: rows among which these are sought, for rows with tools are passed over


def recognise(path: Path, maps: Maps | None = None, source: str | None = None) -> Recognised | None:
    """Return the shape of a file by its first rows, for one source or for any. The result is None
    where the pipeline reads no such file.

    At least half of these rows must fit the shape, so that the reader can name an odd one among
    them. BadInput: a file that holds no rows, or that opens as JSON and is broken.
    """
    maps = maps or {}
    if containers.kind(path) != "text" or _opens_as_json(path):
        return _first_fit(_reader(path, maps), maps, source)
    if source in (None, "flan") and _is_chains(path):
        return Recognised(CHAINS, lambda: iter(()))
    for delimiter in DELIMITERS:
        columns = dict.fromkeys(header(path, delimiter), "")
        # An error in the first row is raised if the column names fit a shape. If they do not, the
        # next delimiter is tried.
        strict = any(shape.fits(_renamed(columns, maps.get(shape.source, {}))) for shape in SHAPES)
        if recognised := _first_fit(_table(path, delimiter), maps, source, strict=strict):
            return recognised
    names = _lettered_columns(path) if source in (None, "benchmarks") else None
    return Recognised(LETTERED, _table(path, ",", names)) if names else None


def _first_fit(
    read: Callable[[], Iterator[Row]], maps: Maps, source: str | None, strict: bool = True
) -> Recognised | None:
    probe: list[Fields] = []
    tools: list[Fields] = []
    try:
        for row in islice(read(), LOOKED_AT):
            (tools if dialogues.offers_tools(row.fields) else probe).append(row.fields)
            if len(probe) == FIRST:
                break
    except BadInput as error:
        if not probe and (strict or isinstance(error, containers.NotText)):
            raise
    # Rows with tools will be left out, so they say nothing of the others.
    probe = probe or tools[:FIRST]
    if not probe:
        return None
    # Sources whose fields the user has named, and which this file has, are tried first.
    mapped = [name for name in maps if maps[name] and any(_holds(row, maps[name]) for row in probe)]
    shapes = sorted(SHAPES, key=lambda shape: shape.source not in mapped)
    for shape in shapes:
        names = maps[shape.source] if shape.source in mapped else {}
        if source in (None, shape.source):
            fits = [shape.fits(_renamed(fields, names)) for fields in probe]
            if 2 * sum(fits) >= len(fits):
                return Recognised(shape, _renaming(read, names), bool(names))
    return None


def split_parts(recognised: Recognised, split: str) -> list[tuple[str, Recognised]]:
    """Return (split, rows) of each split that a file's rows name. If they name none, all rows
    are of `split`, which its path names."""
    if not names_splits(recognised):
        return [(split, recognised)]

    def part(name: str) -> Iterator[Row]:
        return (row for row in recognised.rows() if row_split(row) == name)

    def row_split(row: Row) -> str:
        return split_of(row.fields) or split

    splits = sorted({row_split(row) for row in recognised.rows()})
    return [(name, recognised._replace(rows=partial(part, name))) for name in splits]


def names_splits(recognised: Recognised) -> bool:
    """Say whether the first rows of a file name their split."""
    return any(split_of(row.fields) for row in islice(recognised.rows(), FIRST))


def _reader(path: Path, maps: Maps) -> Callable[[], Iterator[Row]]:
    def is_row(fields: Fields) -> bool:
        views = [fields, *(_renamed(fields, names) for names in maps.values() if names)]
        return any(shape.fits(view) for shape in SHAPES for view in views)

    return lambda: rows(path, is_row)


def _table(
    path: Path, delimiter: str, names: list[str] | None = None
) -> Callable[[], Iterator[Row]]:
    return lambda: table(path, delimiter, names)


def _renaming(
    read: Callable[[], Iterator[Row]], names: Mapping[str, str]
) -> Callable[[], Iterator[Row]]:
    if not names:
        return read
    return lambda: (Row(row.place, _renamed(row.fields, names)) for row in read())


def _renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """Return a row with our names of its fields. `names` maps ours to the user's, in which a dot
    leads into an object: `reply.text`."""
    if not names:
        return fields
    renamed = {
        ours: cell(ours, value) if isinstance(value, str) and ours in IN_CELLS else value
        for ours, theirs in names.items()
        if (value := _inner(fields, theirs)) is not MISSING
    }
    return {**fields, **renamed}


def _holds(fields: Fields, names: Mapping[str, str]) -> bool:
    return all(_inner(fields, theirs) is not MISSING for theirs in names.values())


def _inner(fields: Fields, name: str) -> Any:
    if name in fields:
        return fields[name]
    # A table's titles are in lower case by now (rows.columns).
    if name.lower() in TITLES and name.lower() in fields:
        return fields[name.lower()]
    outer, dot, rest = name.partition(".")
    inner = fields.get(outer)
    return _inner(inner, rest) if dot and isinstance(inner, dict) else MISSING


def _opens_as_json(path: Path) -> bool:
    return next((line for _, line in lines(path)), "").lstrip().startswith(("{", "["))


def _is_chains(path: Path) -> bool:
    first = [chain(line) for _, line in islice(lines(path), FIRST)]
    # A question and a thought are sentences, and in other tables of three columns are not. The
    # target has four words more than its thought: "The answer is 5."
    return bool(first) and all(
        c is not None and len(c[0].split()) > 3 and len(c[1].split()) > 6 for c in first
    )


def _lettered_columns(path: Path) -> list[str] | None:
    """Return names for the columns of a table without a header that holds a question, choices and a
    letter, as MMLU's authors write it. The result is None for another table."""
    try:
        first = [list(row.fields.values()) for row in islice(table(path, ",", []), FIRST)]
    except BadInput:
        return None
    count = len(first[0]) - 2 if first else 0
    letters = [chr(ord("A") + n) for n in range(count)]
    if not 2 <= count <= 10 or any(cells[-1].strip() not in letters for cells in first):
        return None
    return ["question", *letters, "answer"]


def is_rows(path: Path) -> bool:
    """Say whether a file is parquet or Arrow, or opens as JSON does."""
    return containers.kind(path) != "text" or _opens_as_json(path)


def describe_unread(path: Path) -> str:
    """Return the reason why a readable file is not used: its content, of no known shape."""
    if not is_rows(path):
        return _unknown_text([line for _, line in islice(lines(path), 2)])
    row = next(rows(path, lambda fields: dialogues.turns_of(fields) is not None), None)
    if row is None:
        return "a table without a row"
    if dialogues.offers_tools(row.fields):
        return "dialogues with tools, which no stage learns from"
    if "message_id" in row.fields and "parent_id" in row.fields:
        return "a message a row (OpenAssistant); give it as whole dialogues"
    if not row.fields:
        return "an object without a field"
    fields = [_kind(*field) for field in row.fields.items()]
    unread = f"rows of no shape that is known; their fields are {_few(fields)}"
    inner = next(
        (
            f"{outer}.{name}"
            for outer, value in row.fields.items()
            if isinstance(value, dict)
            for name, turns in value.items()
            if dialogues.is_dialogue(turns)
        ),
        "",
    )
    return unread + (f"; name the messages: `fields: {{messages: {inner}}}`" if inner else "")


def absent_columns(path: Path, maps: Maps) -> str:
    """Return the columns that `fields` in the profile names and a file lacks, as the end of a
    message. The result is "" where the file has all of them or none."""
    columns = dict.fromkeys(_columns(path), "")
    for source, own_names in maps.items():
        absent = [theirs for theirs in own_names.values() if _inner(columns, theirs) is MISSING]
        if 0 < len(absent) < len(own_names):
            place = f"`fields` of {source} in the profile"
            return f"; {place} names {', '.join(absent)}, which is not among them"
    return ""


def _columns(path: Path) -> list[str]:
    if is_rows(path):
        row = next(rows(path), None)
        return list(row.fields) if row else []
    return max((header(path, delimiter) for delimiter in DELIMITERS), key=len)


def _unknown_text(opening: Sequence[str]) -> str:
    cells = max((opening[0].split(delimiter) for delimiter in DELIMITERS), key=len)
    # A spreadsheet leaves empty columns at the end.
    while cells and not cells[-1].strip():
        cells.pop()
    if len(cells) < 2:
        return "text that holds no rows"
    if any(not 0 < len(cell.strip()) <= 40 for cell in cells):
        return "text that holds no rows, or a table whose first row names no columns"
    if twice := [cell for cell in cells if cells.count(cell) > 1]:
        return f"a table in which column {twice[0]} stands there twice; name each once"
    opens_as = "a table of no shape that is known" if len(opening) > 1 else "a table without a row"
    return f"{opens_as}; its columns are {_few(cells)}"


def _kind(name: str, value: object) -> str:
    """Return a field's name, with the kind of its value where that is no text."""
    kinds = {list: "a list", dict: "an object", bool: "true or false", int: "a number"}
    kind = "null" if missing(value) else kinds.get(type(value), "")
    return f"{name} ({kind or 'a number'})" if kind or isinstance(value, float) else name


def _few(names: Sequence[str]) -> str:
    shortened = [" ".join(str(name).split())[:45] for name in names[:8]]
    return ", ".join(shortened) + (", ..." if len(names) > 8 else "")


def names(path: Path) -> Iterator[tuple[str, int | None]]:
    """Yield (name, number of sub-categories or None) of a text file of one topic a line. A tab and
    the number may follow the name. BadInput: something else follows it."""
    for number, line in lines(path):
        name, _, count = (part.strip() for part in line.partition("\t"))
        if count and not count.isdecimal():
            raise BadInput(
                f"{path}:{number}: a name, or a name, a tab and a number; got {line!r:.60}"
            )
        yield name, int(count) if count else None
