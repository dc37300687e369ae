"""The result of a fetch: its files, and the account of where their rows come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bezoar.rows import files
from bezoar.rows.records import Record

# name below the fetch's folder -> records (JSONL) or one JSON value
Tables = Mapping[str, Sequence[Record] | Mapping[str, bool]]


@dataclass(frozen=True)
class Source:
    """The files of one fetch, and their account, which is written to source.json beside them.

    The account has `source` (world, local, hub, wikipedia or harness), `rows`, the number used of
    each file, and `left_out`, the number of rows by reason. For a hub it also has `parts`, with
    revision and licence.
    """

    tables: Tables
    account: Mapping[str, object]

    def write(self, folder: Path) -> None:
        """Write every file and source.json below `folder`."""
        for name, table in self.tables.items():
            if isinstance(table, Mapping):
                files.write_json(folder / name, dict(table))
            else:
                files.write_jsonl(folder / name, table)
        files.write_json(folder / "source.json", dict(self.account))
