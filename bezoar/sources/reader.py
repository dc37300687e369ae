"""The state that all readers of a fetch share: its settings, and the account of its files."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from bezoar.params import Reading
from bezoar.rows.files import BadInput
from bezoar.sources import shapes
from bezoar.sources.accounts import Account, File, Taking
from bezoar.sources.dialogues import Skipped
from bezoar.sources.rows import Row
from bezoar.sources.shapes import Recognised, recognise

EXPECTED = {
    "dolly": "seeds: an instruction and a response, or a dialogue",
    "flan": "a natural-instructions task, prompts and completions, or a chain-of-thought table",
    "topics": "a category tree, or names of topics",
    "hh_rlhf": "preference pairs: a chosen and a rejected answer",
    "mt_bench": "MT-Bench questions, answers, votes or single grades",
    "benchmarks": "multiple-choice items",
}
T = TypeVar("T")


def one_record(make: Callable[[Row], T]) -> Callable[[Row], list[T | Skipped]]:
    """Return a function that reads a row as a list of one record. If `make` raises Skipped, the
    list holds that reason instead."""

    def read_row(row: Row) -> list[T | Skipped]:
        try:
            return [make(row)]
        except Skipped as reason:
            return [reason]

    return read_row


class Reader:
    """The settings of one fetch and the account of its files. `label` names it in messages."""

    def __init__(self, source: str, label: str, seed: int, settings: Reading) -> None:
        self.source, self.label, self.seed, self.settings = source, label, seed, settings
        self.account = Account()
        self.renamed = False  # true once a file had the fields that the user names

    def recognise(self, file: File) -> Recognised:
        """Recognise a file. BadInput: it is not of a kind that this fetch reads."""
        maps = {self.source: self.settings.fields}
        recognised = recognise(file.path, maps, self.source)
        if recognised:
            self.renamed = self.renamed or recognised.renamed
            return recognised
        actual = recognise(file.path)
        fault = (
            f"holds {actual.shape.name}, which belong in local/{actual.shape.source}"
            if actual
            else f"is not that ({shapes.describe_unread(file.path)}"
            f"{shapes.absent_columns(file.path, maps)})"
        )
        raise BadInput(
            f"{file.path}: {fault}; {self.label} takes {EXPECTED[self.source]}; see local/README.md"
        )

    def taking(
        self, files: Sequence[File], limit: int | None, key: Callable[[T], Hashable] | None
    ) -> "Taking[T]":
        """Make an empty collection of records out of files."""
        # A single file is as its owner wants it. Repeated rows in it are meant, or `filter` finds
        # them. So only rows of several files are compared.
        return Taking(self.account, limit, self.settings.take, key if len(files) > 1 else None)

    def records(self, file: File, recognised: Recognised, make: Callable[[Row], T]) -> Iterator[T]:
        """Yield the record that `make` makes of each row of a file. Rows of no use are left out and
        counted. BadInput: a row that is not of the file's shape."""
        self.account.open(file)
        for row in recognised.rows():
            if not recognised.shape.fits(row.fields):
                raise BadInput(
                    f"{row.place}: no row of {recognised.shape.name} as the first ones are; "
                    f"its fields are {', '.join(row.fields)}"
                )
            self.account.read[file.title] += 1
            try:
                yield make(row)
            except Skipped as reason:
                self.account.leave_out(file, str(reason))
