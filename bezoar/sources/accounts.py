"""The account of the rows of a fetch.

Each row of each file is used, left out with a reason, or beyond the limit. The three numbers of a
file add up to the rows that were read of it.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar
from unicodedata import normalize

from bezoar.sources.dialogues import Skipped

T = TypeVar("T")
DUPLICATE = "given by another file too"


class File(NamedTuple):
    """A file to read. Records name it by its `title`, which is the same wherever the project lies.
    `licence` is that of all its rows."""

    path: Path
    title: str
    licence: str


@dataclass
class Account:
    """Counts of rows by the title of their file, and of reasons over all files.

    `partly` counts rows of which a part is not used, by the part. `categories` counts the seeds
    that are used, by their category.
    """

    read: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    out: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    partly: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)

    def open(self, file: File) -> None:
        """List a file, so that the account names it even if none of its rows is usable."""
        self.used[file.title] += 0

    def use(self, file: File, count: int = 1) -> None:
        """Count `count` records of a file as used."""
        self.used[file.title] += count

    def leave_out(self, file: File, reason: str, count: int = 1) -> None:
        """Count `count` rows of a file as left out for `reason`."""
        self.out[file.title] += count
        self.reasons[reason] += count

    def add(self, part: "Account") -> None:
        """Add the counts of a part that has an account of its own."""
        for mine, its in zip(self._counts(), part._counts(), strict=True):
            mine.update(its)

    def _counts(self) -> list[Counter[str]]:
        return [self.read, self.used, self.out, self.beyond, self.reasons, self.partly]

    def as_json(self) -> dict[str, object]:
        """Return the account as source.json has it."""
        files = {
            title: {
                "read": self.read[title],
                "used": used,
                "left_out": self.out[title],
                "beyond_limit": self.beyond[title],
            }
            for title, used in self.used.items()
        }
        kinds = {"categories": dict(self.categories)} if self.categories else {}
        return {
            **kinds,
            "rows": dict(self.used),
            "left_out": dict(self.reasons),
            "beyond_limit": self.beyond.total(),
            "partly_used": dict(self.partly),
            "files": files,
        }


class Taking(Generic[T]):
    """The records of several files, taken one file after another, up to a limit.

    `key` maps a record to a value that equal records share. A record whose key an earlier file gave
    is left out. A file may repeat its own records. Without `key` no record counts as repeated.
    `take` says which records count: "spread" takes as many of each file, "first" those that come
    first. At most `limit` records of a file are held in memory.
    """

    def __init__(
        self,
        account: Account,
        limit: int | None,
        take: Literal["spread", "first"],
        key: Callable[[T], Hashable] | None,
    ) -> None:
        self.account, self.limit, self.take, self.key = account, limit, take, key
        self.collected: list[tuple[File, list[T]]] = []
        self.seen: dict[Hashable, str] = {}
        self.read = 0

    def add(self, file: File, records_by_row: Iterator[Iterable[T | Skipped]]) -> None:
        """Take the records of each row of a file, or the reason why it gives none."""
        self.account.open(file)
        collected: list[T] = []
        self.collected.append((file, collected))
        for records in records_by_row:
            for record in records:
                self._offer(file, collected, record)

    def is_full(self, collected: Sequence[T]) -> bool:
        """Say whether no further row of a file counts.

        With "spread", its file alone has filled the limit. With "first", as many rows as the limit
        were read of all files, whether or not they were of use.
        """
        if self.limit is None:
            return False
        return self.read >= self.limit if self.take == "first" else len(collected) >= self.limit

    def within_limit(self) -> list[tuple[File, T]]:
        """Return the records that the limit allows, in the order of the files. The account counts
        them as used, and the others as beyond the limit."""
        shares = self._shares([len(records) for _, records in self.collected])
        taken = []
        for (file, records), share in zip(self.collected, shares, strict=True):
            self.account.use(file, share)
            self.account.beyond[file.title] += len(records) - share
            taken += [(file, record) for record in records[:share]]
        return taken

    def _offer(self, file: File, collected: list[T], record: T | Skipped) -> None:
        self.account.read[file.title] += 1
        if self.is_full(collected):
            self.account.beyond[file.title] += 1
            return
        self.read += 1
        if isinstance(record, Skipped):
            self.account.leave_out(file, str(record))
        elif self.key and self.seen.setdefault(self.key(record), file.title) != file.title:
            self.account.leave_out(file, DUPLICATE)
        else:
            collected.append(record)

    def _shares(self, sizes: list[int]) -> list[int]:
        """Return the number of records to take of each file, as even as their sizes allow."""
        if self.limit is None or self.take == "first" or sum(sizes) <= self.limit:
            return sizes
        # The smallest file first: what it lacks of an even share is left for the larger ones.
        # Example: a limit of 10 over sizes 2, 20 and 20 gives 2, 4 and 4.
        shares, left = [0] * len(sizes), self.limit
        order = sorted(range(len(sizes)), key=lambda index: sizes[index])
        for rank, index in enumerate(order):
            shares[index] = min(sizes[index], left // (len(order) - rank))
            left -= shares[index]
        return shares


def text_key(*texts: str) -> Hashable:
    """Return a value that equal texts share, whatever their blanks, their case and the form of
    their accents (NFC or NFD)."""
    return hash(tuple(" ".join(normalize("NFC", text).split()).casefold() for text in texts))
