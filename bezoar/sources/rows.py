"""Reads the rows of a file of JSON Lines, JSON, a table of text, parquet or Arrow.

Oddities that cannot be misread are accepted: a byte order mark, CRLF, blank lines, no newline at
the end. For others BadInput names the file and the line.
"""

import ast
import csv
import io
import json
import math
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bezoar.rows.files import BadInput
from bezoar.sources import containers
from bezoar.sources.containers import EMPTY, lines

Fields = dict[str, Any]
# Columns of a text table whose cells are read as lists, and below as numbers. Others are text.
LISTS = {
    *("choices", "options", "endings", "incorrect_answers", "correct_answers", "mc1_targets"),
    *("turns", "messages", "conversations", "conversation", "conversation_a", "conversation_b"),
    *("chosen", "rejected"),
}
# Columns that are known by their name in any case, as `Question`.
TITLES = {
    *("instruction", "input", "output", "context", "response", "category", "question", "answer"),
    *("prompt", "completion", "chosen", "rejected", "choices", "options", "label"),
}
NUMBERS = {"question_id", "turn", "subcategories"}
WRAPS = ("data", "rows", "examples", "items", "instances", "records")  # lists of rows in an object
DELIMITERS = (",", "\t", ";", "|")
RULE = re.compile(r"[-:]{2,}")
BLANKS = re.compile(r"\s*")
MISSING = object()  # stands for a field that a row lacks; None stands for null
CELL = 2**24  # ours: characters in a cell


class Row(NamedTuple):
    """A JSON object and its place ("file:line"), for messages."""

    place: str
    fields: Fields

    def text(self, key: str) -> str:
        """Return a field that must be text. BadInput: it is missing, null or something else."""
        if key not in self.fields:
            raise BadInput(
                f"{self.place}: {key}: missing; the fields here are {', '.join(self.fields)}"
            )
        return self.check_text(key, self.fields[key])

    def as_text(self, key: str) -> str:
        """Return a field as text. A number becomes its digits. Null, NaN and a missing field become
        "". BadInput: a value of another type."""
        value = self.fields.get(key, MISSING)
        if missing(value):
            return ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        return self.text(key)

    def texts(self, key: str) -> list[str]:
        """Return a field that must be a list of text. BadInput: it is empty or something else."""
        values = self.fields.get(key)
        if not isinstance(values, list) or not values:
            raise BadInput(f"{self.place}: {key}: a list of text is expected, got {values!r:.60}")
        return [self.check_text(key, value) for value in values]

    def integer(self, key: str) -> int:
        """Return a field that must be a whole number. BadInput: it is something else."""
        value = self.fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadInput(f"{self.place}: {key}: a whole number is expected, got {value!r:.60}")
        return value

    def check_text(self, key: str, value: object) -> str:
        """Return `value`, which must be text that UTF-8 can encode. BadInput: it is something else,
        or holds half a surrogate pair, which JSON can escape. `key` names it in messages."""
        if not isinstance(value, str):
            raise BadInput(f"{self.place}: {key}: text is expected, got {value!r:.60}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{self.place}: {key}: half a surrogate pair; mend the text") from None
        return value


def missing(value: object) -> bool:
    """Say whether a value is null or NaN. Tables have both for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def values(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of a file that is no text table.

    The values are the rows of a parquet or Arrow file, the lines of a JSONL file, the items of a
    JSON array, or else each JSON value. BadInput: an empty file, a line that is not JSON, or a cut
    or broken table.
    """
    kind = containers.kind(path)
    if kind != "text":
        yield from _columns(path, kind)
        return
    source = lines(path)
    number, line = next(source, (0, ""))
    if not number:
        raise BadInput(f"{path}: {EMPTY}")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError) as error:
        # Either the first line of a value that spans many lines, or a broken line of JSONL.
        if line.strip() not in ("{", "[") and not line.startswith("["):
            raise _broken_json(f"{path}:{number}", error) from None
        first = None
    if isinstance(first, dict):
        yield f"{path}:{number}", first
        for number, line in source:
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _broken_json(f"{path}:{number}", error) from None
        return
    parsed = _parse_all(path)
    if len(parsed) == 1 and isinstance(parsed[0], list):
        yield from ((f"{path}: item {n}", value) for n, value in enumerate(parsed[0], 1))
    elif len(parsed) == 1:
        yield str(path), parsed[0]
    else:
        yield from ((f"{path}: object {n}", value) for n, value in enumerate(parsed, 1))


def rows(path: Path, is_row: Callable[[Fields], bool] = bool) -> Iterator[Row]:
    """Yield the rows of a file that is no text table.

    A file may be one object that `is_row` does not accept and that holds a list of objects, such as
    `{"data": [...]}`. The items of that list are then the rows. BadInput: a value that is no
    object, or several such lists.
    """
    source = values(path)
    place, value = next(source, ("", None))
    if not place:  # a list or a table without a row
        return
    # Only a value that stands alone in its file can be a wrapper of rows, so the second is needed.
    following = next(source, None)
    if following is None and isinstance(value, dict) and not is_row(value):
        key = wrap(value)
        lists = [name for name in _row_lists(value) if name == key or is_row(value[name][0])]
        if len(lists) > 1:
            raise BadInput(
                f"{place}: holds several lists of rows ({', '.join(lists)}); give each of them a "
                "file of its own"
            )
        inside = value[key] if key else _frame(value, is_row)
        if inside:
            inner = ((f"{place}: {key}[{n}]", item) for n, item in enumerate(inside))
            yield from (_row(place, _unbox(item)) for place, item in inner)
            return
    yield _row(place, value)
    if following is not None:
        yield _row(*following)
    for place, item in source:
        yield _row(place, item)


def wrap(fields: Fields) -> str:
    """Return the field of an object that holds rows: one of WRAPS, else its only list of objects.
    The result is "" where there is none."""
    holding = _row_lists(fields)
    by_name = [key for key in WRAPS if key in holding]
    return by_name[0] if by_name else holding[0] if len(holding) == 1 else ""


def _row_lists(fields: Fields) -> list[str]:
    return [
        key
        for key, value in fields.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ]


def table(path: Path, delimiter: str, column_names: list[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a text table.

    Its first row names the columns, unless `column_names` does. An empty list of these names them
    "0", "1" and so on. BadInput: a row with more or fewer cells, a quote that is not closed, or a
    cell that is too large.
    """
    csv.field_size_limit(CELL)
    number = 0
    try:
        with containers.open_text(path) as source:
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            names = column_names or []
            for written in reader:
                cells = _strip_cells(written) if delimiter == "|" else written
                number, begins = reader.line_num, number + 1
                # Excel may write a first line that names the delimiter.
                if not any(cells) or (not names and cells[0] == "sep="):
                    continue
                if not names and column_names is None:
                    names = columns(cells)
                    if twice := [name for name in names if name and names.count(name) > 1]:
                        raise BadInput(
                            f"{path}:{begins}: column {twice[0]} stands there twice; name each once"
                        )
                    continue
                names = names or [str(n) for n in range(len(cells))]
                # A spreadsheet leaves empty cells at the end of a row.
                if len(cells) < len(names) or any(cells[len(names) :]):
                    raise BadInput(
                        f"{path}:{begins}: {len(names)} cells are expected, as the first row has "
                        f"names, got {len(cells)}; put a cell that holds {_name_of(delimiter)} or "
                        "a line break into double quotes"
                    )
                yield Row(
                    f"{path}:{begins}",
                    {name: cell(name, text) for name, text in zip(names, cells, strict=False)},
                )
    except csv.Error as error:
        raise BadInput(
            f"{path}:{number + 1}: no row of a table ({error}); put a cell that holds "
            f"{_name_of(delimiter)}, a quote or a line break into double quotes, and write a quote "
            "in it twice"
        ) from None
    except UnicodeDecodeError as error:
        # csv does not know the line. `lines` raises an error that names it.
        for _ in lines(path):
            pass
        raise containers.NotText(str(path), error) from None


def _name_of(delimiter: str) -> str:
    return "a tab" if delimiter == "\t" else repr(delimiter)


def _strip_cells(cells: list[str]) -> list[str]:
    """Return the stripped cells of a Markdown table's row, none for the rule below its header."""
    stripped = [text.strip() for text in cells]
    return [] if RULE.fullmatch("".join(stripped)) else stripped


def _is_talk(value: Any) -> bool:
    """Say whether a value is a list of messages. Some exports have such a list for a row."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in value)
    )


def _are_alike(first: Any, second: Any) -> bool:
    """Say whether two values can be rows of one file: two objects, or two lists of messages."""
    objects = isinstance(first, dict) and isinstance(second, dict)
    return objects or (_is_talk(first) and _is_talk(second))


def _row(place: str, value: Any) -> Row:
    if _is_talk(value):
        return Row(place, {"messages": value})
    if not isinstance(value, dict):
        raise BadInput(f"{place}: a JSON object is expected, got {value!r:.60}")
    return Row(place, value)


def _unbox(item: Any) -> Any:
    # The Hub's viewer wraps each row: {"row_idx": 3, "row": {...}, "truncated_cells": []}.
    if isinstance(item, dict) and isinstance(item.get("row"), dict) and "row_idx" in item:
        return item["row"]
    return item


def _frame(value: Fields, is_row: Callable[[Fields], bool]) -> list[Fields]:
    """Return the rows of an object as pandas writes a table, none where it is no such object.

    pandas has several forms: lists by column, {"columns": [...], "data": [...]}, objects by row, or
    objects by column that map each index to a cell.
    """
    parts = list(value.values())
    if parts and all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
        every = [dict(zip(value, cells, strict=True)) for cells in zip(*parts, strict=True)]
        return every if every and is_row(every[0]) else []
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        cells = [row for row in data if isinstance(row, list) and len(row) == len(columns)]
        return [dict(zip(columns, row, strict=True)) for row in cells] if cells == data else []
    if not parts or not all(isinstance(part, dict) and part for part in parts):
        return []
    if is_row(parts[0]):
        return parts
    ids = list(parts[0])
    if any(list(part) != ids for part in parts):
        return []
    return [{name: part[id] for name, part in value.items()} for id in ids]


def columns(cells: list[str]) -> list[str]:
    """Return the names of a text table's columns. A title such as `Question` is our `question`."""
    names = [cell.strip() for cell in cells]
    return [name.lower() if name.lower() in TITLES else name for name in names]


def header(path: Path, delimiter: str) -> list[str]:
    """Return the names in the first row of a text table."""
    with containers.open_text(path) as source:
        try:
            return columns(next(csv.reader(source, delimiter=delimiter), []))
        except (csv.Error, UnicodeDecodeError):
            return []


def cell(name: str, text: str) -> Any:
    """Return the value of a cell of a text table: a number, a list or text, by its column."""
    if name in NUMBERS and text.strip().lstrip("-").isdecimal():
        return int(text)
    if name in LISTS and text.lstrip()[:1] in ("[", "{", "a"):
        return _list(text)
    return text


def _list(cell: str) -> Any:
    """Read a list as JSON, Python or NumPy writes it. Return other text as it is."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    text = cell.strip()
    if text.startswith("array(") or (text.startswith("[") and "{" not in text):
        return _strings(text) or cell
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return value if isinstance(value, list | dict) else cell


def _strings(text: str) -> list[str]:
    """Read the strings of a list as NumPy prints it: ['a' 'b']. It has no commas, so that Python
    itself would join the strings."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(f"({text})").readline))
        return [ast.literal_eval(t.string) for t in tokens if t.type == tokenize.STRING]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return []


def _columns(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _batches(path, kind):
            for value in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", value
    except (ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise BadInput(f"{path}: broken after row {number} ({why}); fetch it again") from None


def _batches(path: Path, kind: str) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, ipc
    from pyarrow.parquet import ParquetFile

    with containers.open_seekable(path) as source:
        if kind == "parquet":
            with ParquetFile(source) as columns:
                yield from columns.iter_batches(batch_size=1000)
            return
        if kind == "arrow":
            with ipc.open_file(source) as columns:
                for number in range(columns.num_record_batches):
                    yield from _small_batches(columns.get_batch(number))
            return
        # pyarrow reads a stream that was cut between two batches without an error, so its end mark
        # is checked first. Old versions of Arrow ended a stream with zeros.
        source.seek(-8, io.SEEK_END)
        if source.read(8) not in (b"\xff\xff\xff\xff\0\0\0\0", b"\0" * 8):
            raise ArrowInvalid("the stream's end mark is missing")
        source.seek(0)
        with ipc.open_stream(source) as columns:
            for batch in columns:
                yield from _small_batches(batch)


def _small_batches(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, 1000):
        yield batch.slice(start, 1000)


def _parse_all(path: Path) -> list[Any]:
    # An error names its line, so the blank lines that `lines` leaves out are put back.
    text: list[str] = []
    for number, line in lines(path):
        text += [""] * (number - 1 - len(text)) + [line]
    joined, decoder = "\n".join(text), json.JSONDecoder()
    parsed: list[Any] = []
    position = _skip_blanks(joined, 0)
    try:
        while position < len(joined):
            value, end = decoder.raw_decode(joined, position)
            if parsed and not _are_alike(value, parsed[0]):
                raise json.JSONDecodeError("Extra data", joined, position)
            parsed.append(value)
            position = _skip_blanks(joined, end)
        return parsed
    except json.JSONDecodeError as error:
        raise _broken_json(f"{path}:{error.lineno}", error) from None
    except RecursionError as error:
        raise _broken_json(str(path), error) from None


def _skip_blanks(text: str, position: int) -> int:
    blanks = BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _broken_json(place: str, error: Exception) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        detail = f"{error.msg[0].lower()}{error.msg[1:]}, column {error.colno}"
    else:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return BadInput(f"{place}: not JSON ({detail}); each row is one whole JSON object")
