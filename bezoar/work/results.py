"""Keeps what an evaluation has worked out in its work folder.

A killed evaluation goes on from there, and one that is repeated with the same inputs takes seconds.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bezoar.rows.files import BadInput, read_json, write_json


class Results:
    """Results by name in `folder`, as JSON. They are read back as JSON has them: lists and maps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the result of `name`. It is made only where it is not kept yet. BadInput: the file
        that keeps it is spoilt."""
        # A name of a task may hold a slash.
        path = self.folder / f"{quote(name, safe='')}.json"
        if not path.exists():
            write_json(path, make())
        try:
            return read_json(path)
        except (BadInput, UnicodeDecodeError):
            raise _spoilt(path) from None

    def rows(self, name: str) -> "Rows":
        """Return the rows of `name` that are kept so far. BadInput: as `once`."""
        return Rows(self.folder / f"{name}.jsonl")


class Rows(dict[int, Any]):
    """JSON values by number. Each is on the disk as soon as it is set."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        # A kill can leave half a line behind, which is always the last one.
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole != lines:
            path.write_bytes(b"".join(whole))
        for line in whole:
            try:
                number, value = json.loads(line)
            # One of a JSON error, of bytes that are no text, and of JSON that is no pair.
            except (ValueError, TypeError):
                raise _spoilt(path) from None
            super().__setitem__(number, value)

    def __setitem__(self, number: int, value: Any) -> None:
        super().__setitem__(number, value)
        with self.path.open("ab") as lines:
            lines.write(json.dumps([number, value]).encode() + b"\n")


def _spoilt(path: Path) -> BadInput:
    """Return the error on a file that a power cut spoilt, as one that is full of zeros."""
    return BadInput(
        f"{path}: is spoilt, as by a power cut; delete this file, then run the same command again: "
        "what it held is worked out anew"
    )
