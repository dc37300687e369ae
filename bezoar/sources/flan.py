"""The FLAN collection from the Hub, streamed: some 160 million rows pass, a few of each task stay.

OpenBezoar 3.1.3: zero-shot rows of four sub-mixtures. Of each task the `per_task` rows stay whose
hash is smallest: an even draw from all rows, whatever their order and whatever other tasks hold,
with each distinct row counted once, and in memory that does not grow with what is read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bezoar import work
from bezoar.params import HubFlan
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Mixture, Query
from bezoar.sources import hub
from bezoar.sources.tables import Source
from bezoar.work import progress

COLUMNS = ("inputs", "targets", "_task_name", "_template_type")
BATCH = 5_000  # rows in memory at once
LAST = "g"  # comes after every rank, which is hexadecimal


class Row(NamedTuple):
    """A row that stays; the file's name comes first, so that of equal rows the first file's
    stays."""

    file: str
    query: str
    target: str


def read(wanted: HubFlan, seed: int) -> Source:
    """The queries drawn, in order of sub-mixture, task and hash. A fetch that was killed goes on
    after its last whole file. BadInput: what cannot be reached, a column that is missing, or
    nothing drawn."""
    commit = hub.resolve(wanted)
    chosen = {
        mixture: {
            pattern: _spread(hub.select(wanted, commit, [pattern]), wanted.shards)
            for pattern in getattr(wanted.mixtures, mixture)
        }
        for mixture in get_args(Mixture)
    }
    names = [name for patterns in chosen.values() for each in patterns.values() for name in each]
    key = work.fingerprint(
        commit=commit,
        chosen=chosen,
        per_task=wanted.per_task,
        task_share=wanted.task_share,
        seed=seed,
        code=work.content(__file__),
    )
    drawn: dict[str, _Draw] = {}
    with (
        work.scratch("fetch", f"flan-{key}") as folder,
        progress.bar("fetch flan: files", len(names)) as advance,
    ):
        for mixture, patterns in chosen.items():
            draw = drawn[mixture] = _Draw(wanted, mixture, seed, folder / f"{mixture}.json")
            for name in (name for each in patterns.values() for name in each):
                if name not in draw.finished:
                    draw.take(name, _batches(wanted, commit, name))
                advance(1)
    if not any(draw.kept for draw in drawn.values()):
        raise BadInput(f"{wanted.repository}@{commit[:12]}: no row is usable")
    numbers: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    queries = []
    for mixture, draw in drawn.items():
        folders = {name: p for p, each in chosen[mixture].items() for name in each}
        for task, row in draw.rows():
            numbers[task] += 1
            rows[hub.title(wanted, commit, folders[row.file])] += 1
            queries.append(
                Query.model_validate(
                    {
                        "id": f"{task}-{numbers[task]:05d}",
                        "mixture": mixture,
                        "task": task,
                        "query": row.query,
                        "target": row.target,
                        "source": hub.title(wanted, commit, row.file),
                        "licence": wanted.licence,
                    }
                )
            )
    left_out: Counter[str] = Counter()
    for draw in drawn.values():
        left_out.update(draw.left_out)
    account = {
        "source": "hub",
        "parts": [hub.account(wanted, commit, names)],
        "rows": rows,
        "left_out": left_out,
        "beyond_limit": sum(d.read for d in drawn.values()) - len(queries) - left_out.total(),
        # the paper's counts: cot 18, niv2 1,560, t0 193, flan2021 142
        "tasks": {mixture: len(draw.kept) for mixture, draw in drawn.items()},
        "read": {mixture: draw.read for mixture, draw in drawn.items()},
    }
    return Source({"queries.jsonl": queries}, account)


class _Draw:
    """What stays of one sub-mixture, and which files it has seen: kept in a file of its own after
    each of them."""

    def __init__(self, wanted: HubFlan, mixture: str, seed: int, path: Path) -> None:
        self.most, self.share, self.seed = wanted.per_task, wanted.task_share, seed
        self.mixture, self.path = mixture, path
        self.finished: list[str] = []
        self.read = 0
        self.left_out: Counter[str] = Counter()
        self.kept: dict[str, dict[str, Row]] = {}  # task -> rank -> row
        if path.exists():
            told: Any = files.read_json(path)
            self.finished, self.read = told["finished"], told["read"]
            self.left_out = Counter(told["left_out"])
            self.kept = {
                task: {rank: Row(*row) for rank, row in rows.items()}
                for task, rows in told["kept"].items()
            }
        self.bounds = {task: self._bound(rows) for task, rows in self.kept.items()}
        self.tasks: dict[str, bool] = {}  # whether a task is drawn

    def take(self, name: str, batches: Iterator[dict[str, list[str | None]]]) -> None:
        """Look at every row of a file, then remember that it was seen."""
        for batch in batches:
            for row in zip(*(batch[column] for column in COLUMNS), strict=True):
                self.read += 1
                if reason := self._offer(name, *row):
                    self.left_out[reason] += 1
        for task, rows in self.kept.items():
            self._prune(task, rows)
        self.finished.append(name)
        told = {
            "finished": self.finished,
            "read": self.read,
            "left_out": self.left_out,
            "kept": self.kept,
        }
        files.write(self.path, [json.dumps(told, ensure_ascii=False)])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(task, row) of all that stay, in order."""
        for task, rows in sorted(self.kept.items()):
            yield from ((task, row) for _, row in sorted(rows.items()))

    def _offer(
        self,
        name: str,
        inputs: str | None,
        targets: str | None,
        task: str | None,
        template: str | None,
    ) -> str | None:
        """Keep a row, or not; returns the reason where it is of no use."""
        if not (template or "").startswith("zs"):
            return "few-shot"
        query, target = (inputs or "").strip(), (targets or "").strip()
        if not query or not target:
            return "empty query or target"
        if not task:
            return "no task's name"
        if task not in self.tasks:
            digest = hashlib.sha256(f"{self.seed}\0{self.mixture}\0{task}".encode()).digest()
            self.tasks[task] = int.from_bytes(digest[:8], "big") < self.share * 2**64
        if not self.tasks[task]:
            return "a task that was not drawn"
        rank = hashlib.sha256(f"{self.seed}\0{task}\0{query}\0{target}".encode()).hexdigest()[:32]
        if rank > self.bounds.get(task, LAST):
            return None
        rows = self.kept.setdefault(task, {})
        row = Row(name, query, target)
        rows[rank] = min(row, rows.get(rank, row))
        if len(rows) > 4 * self.most:
            self._prune(task, rows)
        return None

    def _prune(self, task: str, rows: dict[str, Row]) -> None:
        for rank in sorted(rows)[self.most :]:
            del rows[rank]
        self.bounds[task] = self._bound(rows)

    def _bound(self, rows: dict[str, Row]) -> str:
        return max(rows) if len(rows) == self.most else LAST


def _spread(names: list[str], most: int | None) -> list[str]:
    """At most `most` of the names, evenly spread over them."""
    if most is None or len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]


def _batches(wanted: HubFlan, commit: str, name: str) -> Iterator[dict[str, list[str | None]]]:
    """A file's columns, `BATCH` rows at a time, fetched a column at once and never written to disk.

    Not by `datasets`, which decodes a row group whole: with files of one row group and 150 MiB it
    holds 1.5 GiB and takes three times as long, this 0.7 GiB."""
    from huggingface_hub import HfFileSystem
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    where = hub.title(wanted, commit, name)
    folder = "" if wanted.kind == "model" else f"{wanted.kind}s/"
    try:
        with (
            hub.reached(wanted),
            HfFileSystem().open(f"{folder}{wanted.repository}@{commit}/{name}", "rb") as source,
            ParquetFile(source) as table,
        ):
            held = {field.name: field.type for field in table.schema_arrow}
            text = (types.is_string, types.is_large_string)
            for column in COLUMNS:
                if not (column in held and any(is_text(held[column]) for is_text in text)):
                    told = ", ".join(f"{key} ({kind})" for key, kind in held.items())
                    raise BadInput(f"{where}: no column {column} of text; has {told}")
            for batch in table.iter_batches(batch_size=BATCH, columns=list(COLUMNS)):
                yield batch.to_pydict()
    except (ArrowException, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise BadInput(f"{where}: is no whole parquet file of text ({why})") from None
