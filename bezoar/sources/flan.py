"""Streams the FLAN collection from the Hub. It reads some 160 million rows and keeps a few of each
task.

OpenBezoar 3.1.3 takes zero-shot rows of four sub-mixtures. The `per_task` rows of each task with
the smallest hashes stay. That is an even draw from all its distinct rows. It depends neither on
their order nor on other tasks, and the memory that it takes does not grow with the rows read.
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
# A bound that excludes no row: a rank is hexadecimal, and "g" sorts behind each of its digits.
LAST = "g"


class Row(NamedTuple):
    """A row that stays. `file` is the first field, so that of equal rows the smallest is the one of
    the first file by name."""

    file: str
    query: str
    target: str


def read(settings: HubFlan, seed: int) -> Source:
    """Return the queries that are drawn, in order of sub-mixture, task and hash. A fetch that was
    killed continues after its last whole file. BadInput: the Hub cannot be reached, a column is
    missing, or no row is usable."""
    commit = hub.resolve(settings)
    chosen = {
        mixture: {
            pattern: _spread(hub.select(settings, commit, [pattern]), settings.shards)
            for pattern in getattr(settings.mixtures, mixture)
        }
        for mixture in get_args(Mixture)
    }
    names = [name for patterns in chosen.values() for paths in patterns.values() for name in paths]
    key = work.fingerprint(
        commit=commit,
        chosen=chosen,
        per_task=settings.per_task,
        task_share=settings.task_share,
        seed=seed,
        code=work.code(__file__),
    )
    draws: dict[str, _Draw] = {}
    with (
        work.scratch("fetch", f"flan-{key}") as folder,
        progress.bar("fetch flan: files", len(names)) as advance,
    ):
        for mixture, patterns in chosen.items():
            draw = draws[mixture] = _Draw(settings, mixture, seed, folder / f"{mixture}.json")
            # What an earlier fetch has finished is in the scratch folder, and is not read again.
            for name in (name for paths in patterns.values() for name in paths):
                if name not in draw.finished:
                    draw.take(name, _batches(settings, commit, name))
                advance(1)
    if not any(draw.rows_by_task for draw in draws.values()):
        raise BadInput(f"{settings.repository}@{commit[:12]}: no row is usable")
    numbers: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    queries = []
    for mixture, draw in draws.items():
        folders = {name: p for p, paths in chosen[mixture].items() for name in paths}
        for task, row in draw.rows():
            numbers[task] += 1
            rows[hub.title(settings, commit, folders[row.file])] += 1
            queries.append(
                Query.model_validate(
                    {
                        "id": f"{task}-{numbers[task]:05d}",
                        "mixture": mixture,
                        "task": task,
                        "query": row.query,
                        "target": row.target,
                        "source": hub.title(settings, commit, row.file),
                        "licence": settings.licence,
                    }
                )
            )
    left_out: Counter[str] = Counter()
    for draw in draws.values():
        left_out.update(draw.left_out)
    account = {
        "source": "hub",
        "parts": [hub.account(settings, commit, names)],
        "rows": rows,
        "left_out": left_out,
        "beyond_limit": sum(d.read for d in draws.values()) - len(queries) - left_out.total(),
        # the paper's counts: cot 18, niv2 1,560, t0 193, flan2021 142
        "tasks": {mixture: len(draw.rows_by_task) for mixture, draw in draws.items()},
        "read": {mixture: draw.read for mixture, draw in draws.items()},
    }
    return Source({"queries.jsonl": queries}, account)


class _Draw:
    """The rows of one sub-mixture that stay, and the files that it has seen. Both are saved at
    `path` after each file, so that a fetch that was killed can continue.

    `rows_by_task` maps a task to its rows by rank, the hash of a row. `bounds` maps a task to the
    largest rank that can still stay.
    """

    def __init__(self, settings: HubFlan, mixture: str, seed: int, path: Path) -> None:
        self.most, self.share, self.seed = settings.per_task, settings.task_share, seed
        self.mixture, self.path = mixture, path
        self.finished: list[str] = []
        self.read = 0
        self.left_out: Counter[str] = Counter()
        self.rows_by_task: dict[str, dict[str, Row]] = {}
        if path.exists():
            saved: Any = files.read_json(path)
            self.finished, self.read = saved["finished"], saved["read"]
            self.left_out = Counter(saved["left_out"])
            self.rows_by_task = {
                task: {rank: Row(*row) for rank, row in rows.items()}
                for task, rows in saved["kept"].items()
            }
        self.bounds = {task: self._bound(rows) for task, rows in self.rows_by_task.items()}
        self.tasks: dict[str, bool] = {}  # task -> drawn or not, by `task_share`

    def take(self, name: str, batches: Iterator[dict[str, list[str | None]]]) -> None:
        """Offer every row of a file, then save what stays and that the file was seen."""
        for batch in batches:
            for row in zip(*(batch[column] for column in COLUMNS), strict=True):
                self.read += 1
                if reason := self._offer(name, *row):
                    self.left_out[reason] += 1
        for task, rows in self.rows_by_task.items():
            self._prune(task, rows)
        self.finished.append(name)
        state = {
            "finished": self.finished,
            "read": self.read,
            "left_out": self.left_out,
            "kept": self.rows_by_task,
        }
        files.write(self.path, [json.dumps(state, ensure_ascii=False)])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield (task, row) of the rows that stay, in order of task and rank."""
        for task, rows in sorted(self.rows_by_task.items()):
            yield from ((task, row) for _, row in sorted(rows.items()))

    def _offer(
        self,
        name: str,
        inputs: str | None,
        targets: str | None,
        task: str | None,
        template: str | None,
    ) -> str | None:
        """Keep a row if its rank is small enough. Return the reason where the row is of no use."""
        if not (template or "").startswith("zs"):
            return "few-shot"
        query, target = (inputs or "").strip(), (targets or "").strip()
        if not query or not target:
            return "empty query or target"
        if not task:
            return "no task's name"
        # A hash of its name decides on a task, so that the order of the rows does not matter.
        if task not in self.tasks:
            digest = hashlib.sha256(f"{self.seed}\0{self.mixture}\0{task}".encode()).digest()
            self.tasks[task] = int.from_bytes(digest[:8], "big") < self.share * 2**64
        if not self.tasks[task]:
            return "a task that was not drawn"
        rank = hashlib.sha256(f"{self.seed}\0{task}\0{query}\0{target}".encode()).hexdigest()[:32]
        if rank > self.bounds.get(task, LAST):
            return None
        rows = self.rows_by_task.setdefault(task, {})
        row = Row(name, query, target)
        rows[rank] = min(row, rows.get(rank, row))
        # Sorting is costly, so a task is pruned only once it holds four times what it may.
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
    """Return at most `most` of the names, evenly spread over them, all where it is None."""
    if most is None or len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]


def _batches(settings: HubFlan, commit: str, name: str) -> Iterator[dict[str, list[str | None]]]:
    """Yield COLUMNS of a file on the Hub, `BATCH` rows at a time. Only these columns are fetched,
    and nothing is written to disk. BadInput: a column that is missing, or a broken file.

    `datasets` would decode a whole row group. With files of one row group and 150 MiB it holds
    1.5 GiB and takes three times as long. This function holds 0.7 GiB.
    """
    from huggingface_hub import HfFileSystem
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    title = hub.title(settings, commit, name)
    folder = "" if settings.kind == "model" else f"{settings.kind}s/"
    try:
        with (
            hub.explain_errors(settings),
            HfFileSystem().open(f"{folder}{settings.repository}@{commit}/{name}", "rb") as source,
            ParquetFile(source) as table,
        ):
            kinds = {field.name: field.type for field in table.schema_arrow}
            text = (types.is_string, types.is_large_string)
            for column in COLUMNS:
                if not (column in kinds and any(is_text(kinds[column]) for is_text in text)):
                    listing = ", ".join(f"{key} ({type_})" for key, type_ in kinds.items())
                    raise BadInput(f"{title}: no column {column} of text; has {listing}")
            for batch in table.iter_batches(batch_size=BATCH, columns=list(COLUMNS)):
                yield batch.to_pydict()
    except (ArrowException, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise BadInput(f"{title}: is no whole parquet file of text ({why})") from None
