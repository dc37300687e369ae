"""Reads files of any source as the records that a fetch writes.

Its content says what a file is. A file that its fetch does not read is an error. A row that is
well-formed but of no use is left out and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from bezoar.params import Reading
from bezoar.rows.files import BadInput
from bezoar.rows.folding import words
from bezoar.rows.records import Answers, Message, Pair, Query, Seed, Topic, Vote
from bezoar.sources import items, names, shapes, talks
from bezoar.sources.accounts import Account, File, Taking, text_key
from bezoar.sources.containers import lines
from bezoar.sources.dialogues import Skipped
from bezoar.sources.reader import Reader, one_record
from bezoar.sources.rows import Row, rows
from bezoar.sources.shapes import RawSeed, Recognised, recognise
from bezoar.sources.tables import Source, Tables

__all__ = ["File", "answers", "read", "votes"]

T = TypeVar("T")


def read(
    name: str,
    files: Sequence[File],
    limit: int | None,
    seed: int,
    label: str,
    *,
    settings: Reading | None = None,
) -> Source:
    """Read the records of the fetch `name` out of `files`, at most `limit` rows (benchmarks: of a
    task).

    `settings` are fetch.NAME of the profile. `seed` draws the split of the pairs. `label` names the
    files in messages. BadInput: a file that the fetch does not read, no usable row, or `fields`
    that no file has.
    """
    reader = Reader(name, label, seed, settings or Reading())
    tables = READERS[name](reader, files, limit)
    account = reader.account
    if not any(table for file, table in tables.items() if file.endswith(".jsonl")):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(account.reasons.items()))
        raise BadInput(f"{label}: no row is usable ({reasons or 'no row was read'})")
    if reader.settings.fields and not reader.renamed:
        names_given = ", ".join(reader.settings.fields.values())
        raise BadInput(
            f"{label}: no file has the fields {names_given} that `fields` in the profile names; "
            "name them as the files do"
        )
    return Source(tables, account.as_json())


def votes(path: Path) -> list[Vote]:
    """Read the votes of a file (JSON Lines or parquet). A vote that names neither a winner nor a
    tie is left out. BadInput: a row that is no vote."""
    return _all(path, talks.vote)


def answers(path: Path) -> list[Answers]:
    """Read a file of models' answers to MT-Bench, two turns each. BadInput: a row that is no
    answer."""
    return _all(path, talks.answers)


def _all(path: Path, make: Callable[[Row], T]) -> list[T]:
    results = (one_record(make)(row) for row in rows(path))
    return [record for records in results for record in records if not isinstance(record, Skipped)]


def _dolly(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[RawSeed] = reader.taking(
        files, limit, lambda raw: text_key(raw.instruction, raw.context, raw.response)
    )
    for file in files:
        recognised = reader.recognise(file)
        taking.add(
            file, map(one_record(partial(shapes.seed, recognised.shape.name)), recognised.rows())
        )
    seeds: list[Seed] = []
    for n, (file, raw) in enumerate(taking.within_limit(), 1):
        reader.account.partly.update(raw.unused)
        if not raw.category:
            reader.account.partly[f"no category: taken for {reader.settings.category}"] += 1
        seeds.append(
            Seed(
                id=f"dolly-{n:05d}",
                instruction=raw.instruction,
                context=raw.context,
                response=raw.response,
                category=raw.category or reader.settings.category,
                source=file.title,
                licence=file.licence,
                own_id=raw.own_id,
            )
        )
    reader.account.categories.update(seed.category for seed in seeds)
    return {"seeds.jsonl": seeds}


def _flan(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    tasks = names.distinct([file.title for file in files])
    taking: Taking[Query] = reader.taking(files, limit, lambda q: text_key(q.query, q.target))
    for file in files:
        recognised, task = reader.recognise(file), tasks[file.title].task
        taking.add(file, _queries(file, recognised, task))
    # The ids count the queries of each task, so they wait until the limit has chosen them.
    numbers: Counter[str] = Counter()
    queries = []
    for _, query in taking.within_limit():
        numbers[query.task] += 1
        queries.append(query.model_copy(update={"id": f"{query.task}-{numbers[query.task]:05d}"}))
    return {"queries.jsonl": queries}


def _queries(file: File, recognised: Recognised, task: str) -> Iterator[list[Query | Skipped]]:
    """Yield the queries of each row of a file. Their ids are empty until all are known."""

    def query(mixture: str, task: str, pair: tuple[str, str], licence: str) -> Query | Skipped:
        if not all(part.strip() for part in pair):
            return Skipped("empty query or target")
        fields = {"id": "", "mixture": mixture, "task": task, "query": pair[0], "target": pair[1]}
        return Query.model_validate({**fields, "source": file.title, "licence": licence})

    if recognised.shape == shapes.CHAINS:
        for number, line in lines(file.path):
            if (pair := shapes.chain(line)) is None:
                raise BadInput(
                    f"{file.path}:{number}: three columns parted by tabs are expected: "
                    f"question, answer, chain of thought; got {line!r:.60}"
                )
            yield [query("cot", task, pair, file.licence)]
        return
    for row in recognised.rows():
        if recognised.shape.name == "natural-instructions task":
            yield [
                query("niv2", task, (question, target), licence or file.licence)
                for question, target, licence in shapes.instances(row)
            ]
        elif recognised.shape.name == "prompts and completions":
            yield [query("t0", task, shapes.completion(row), file.licence)]
        elif recognised.shape.name == "sums with their thoughts":
            yield [query("cot", task, shapes.thought(row), file.licence)]
        else:
            try:
                mixture, own_task, question, target = shapes.collection_row(row)
            except Skipped as reason:
                yield [reason]
            else:
                yield [query(mixture, own_task or task, (question, target), file.licence)]


def _topics(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    counts: dict[str, int | None] = {}
    first: dict[str, File] = {}
    account = reader.account
    for file in files:
        account.open(file)
        for name, count in _read_topics(reader, file):
            account.read[file.title] += 1
            if not name.strip():
                account.leave_out(file, "no name")
                continue
            if name in counts:
                account.leave_out(file, "a name that was there already")
            first.setdefault(name, file)
            # One name may be a node here and a leaf there: the largest count stands. None means
            # that a file gives no count, and then the topic has none.
            have = counts.get(name, 0)
            counts[name] = None if have is None or count is None else max(have, count)
    taking: Taking[str] = Taking(Account(), limit, reader.settings.take, None)
    for file in files:
        taking.add(file, ([name] for name in counts if first[name] == file))
    chosen = {name for _, name in taking.within_limit()}
    for name, file in first.items():
        account.use(file, name in chosen)
        account.beyond[file.title] += name not in chosen
    return {
        "topics.jsonl": [
            Topic(name=name, subcategories=count)
            for name, count in counts.items()
            if name in chosen
        ]
    }


def _read_topics(reader: Reader, file: File) -> Iterator[tuple[str, int | None]]:
    recognised = recognise(file.path, {"topics": reader.settings.fields}, "topics")
    if recognised is None and not shapes.is_rows(file.path):
        yield from shapes.names(file.path)
        return
    recognised = reader.recognise(file)
    for row in recognised.rows():
        # A row of a tree may be a branch without sub-categories, so rows are not tested one by one.
        if recognised.shape.name == "category tree":
            yield from shapes.categories(row)
        else:
            yield shapes.topic(row)


ANEW = "its split is not kept: all pairs are parted anew"


def _hh_rlhf(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[tuple[list[Message], str, str]] = reader.taking(
        files, limit, lambda pair: text_key(*(turn.content for turn in pair[0]), *pair[1:])
    )
    split: set[File] = set()
    for file in files:
        recognised = reader.recognise(file)
        if names.parse_path(file.title).split or shapes.names_splits(recognised):
            split.add(file)
        taking.add(file, map(one_record(shapes.preference), recognised.rows()))
    taken = taking.within_limit()
    if count := sum(file in split for file, _ in taken):
        reader.account.partly[ANEW] = count
    pairs = [
        Pair(
            id=f"hh-{n:06d}",
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            source=file.title,
            licence=file.licence,
        )
        for n, (file, (prompt, chosen, rejected)) in enumerate(taken, 1)
    ]
    if len(pairs) == 1:
        raise BadInput(f"{reader.label}: one usable pair; training and testing want one each")
    # Shuffled, because the test part would otherwise hold pairs of the last files alone.
    Random(f"{reader.seed}/hh_rlhf").shuffle(pairs)
    # OpenBezoar 3.4: training and testing pairs are 5:4.
    train, test = _split_pairs(pairs, round(len(pairs) * 5 / 9))
    if pairs and not (train and test):
        raise BadInput(
            f"{reader.label}: all {len(pairs)} pairs have one prompt; training and testing want "
            "prompts of their own"
        )
    return {"train.jsonl": train, "test.jsonl": test}


def _split_pairs(pairs: Sequence[Pair], most: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into at most `most` for training and the others for testing.

    Pairs of one prompt stay together, or a test would ask what training has answered. Prompts count
    as one if they differ only in punctuation, case, accents or characters that are not visible.
    """
    prompts = [
        text_key(*(" ".join(words(t.content)) or t.content for t in p.prompt)) for p in pairs
    ]
    left, trained = most, {}
    for prompt, count in Counter(prompts).items():
        trained[prompt] = count <= left
        left -= count if trained[prompt] else 0
    sides = {
        side: [pair for pair, prompt in zip(pairs, prompts, strict=True) if trained[prompt] == side]
        for side in (True, False)
    }
    return sides[True], sides[False]


READERS: dict[str, Callable[[Reader, Sequence[File], int | None], Tables]] = {
    "dolly": _dolly,
    "flan": _flan,
    "topics": _topics,
    "hh_rlhf": _hh_rlhf,
    "mt_bench": talks.tables,
    "benchmarks": items.tables,
}
