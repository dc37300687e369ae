"""Reads and writes JSON, JSONL and text. A file appears as a whole or not at all."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bezoar.rows.records import Record

R = TypeVar("R", bound=Record)


class BadInput(SystemExit):
    """A mistake of the user's, printed as one line that says where it is, what is wrong and what
    would be right. There is no traceback."""

    def __init__(self, message: str) -> None:
        # The message may name a file whose name is not UTF-8, and such a name cannot be printed.
        super().__init__(f"error: {message}".encode(errors="backslashreplace").decode())


def read_jsonl(path: str | Path, record: type[R]) -> Iterator[R]:
    """Yield the rows of `path`. BadInput names the file and the line that is not a `record`."""
    for number, line in numbered(path):
        try:
            yield record.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "line"
            raise BadInput(
                f"{path}:{number}: {field}: {first['msg'].lower()}; "
                f"each line is one {record.__name__} as JSON"
            ) from None


def numbered(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) of a UTF-8 text file, without blank lines. BadInput: there
    is no such file, or it is not UTF-8."""
    number = 0
    try:
        # Lines end at "\n" alone. Other breaks (U+2028, \r) may stand inside a JSON string.
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; the stage before writes it") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}:{number + 1}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None


def write_jsonl(path: str | Path, rows: Iterable[Record]) -> None:
    """Write rows as canonical JSON lines, atomically."""
    write(path, (json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows))


def read_json(path: str | Path) -> object:
    """Read one JSON file. BadInput: there is none, or it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; the stage before writes it") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: not JSON ({error.msg.lower()})") from None


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write(path, [text + "\n"])


def write(path: str | Path, chunks: Iterable[str]) -> None:
    """Write text atomically. BadInput: it cannot be written, as on a full disk, and the old file
    (or none) stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(chunks)
        # To rename is atomic: a reader sees the old file or the whole new one.
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); free some space or mend the folder, "
            f"then run the same command again: finished stages and paid answers are kept"
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
