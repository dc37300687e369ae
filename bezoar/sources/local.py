"""The user's own files in local/NAME/ as the records that a fetch writes (local/README.md).

Files are told by what is in them. A file that is not what its folder wants is an error; a row
that is well-formed but of no use is left out and counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from bezoar.files import BadInput
from bezoar.records import Answers, Item, Pair, Query, Question, Seed, Topic, Vote
from bezoar.sources import shapes
from bezoar.sources.rows import EMPTY, Row, lines, rows
from bezoar.sources.shapes import NOT_STATED, Shape, Skipped, shape_of
from bezoar.sources.tables import Source, Tables

LOCAL = Path("local")
LINKED = "linked"  # what link.py makes, below each folder
WANTED = {
    "flan": "a natural-instructions task, prompts and completions, or a chain-of-thought table",
    "topics": "a category tree, or names of topics",
    "mt_bench": "MT-Bench questions, answers or votes",
    "benchmarks": "multiple-choice items",
}
T = TypeVar("T")


def found(name: str, folder: Path = LOCAL) -> list[Path]:
    """The user's files below local/NAME/, in order of their paths; hidden ones are left out."""
    listed: dict[Path, Path] = {}
    for top, folders, names in os.walk(folder / name):
        folders.sort()
        for inner in (Path(top, each) for each in folders):
            if inner.is_symlink():
                # DVC takes such a link for an empty folder, and would miss every change in it
                raise BadInput(
                    f"{inner}: a link to a folder, into which DVC does not look; run "
                    "`make local DATA=folder`, which links each file, or copy the files"
                )
        for each in sorted(names):
            if not each.startswith("."):
                path = Path(top, each)
                listed.setdefault(path.resolve(), path)
    return sorted(listed.values())


def read(name: str, limit: int | None, folder: Path = LOCAL) -> Source | None:
    """The records of local/NAME/, at most `limit` rows (benchmarks: of a task); None where the
    folder holds no file. BadInput: a file that is not what the folder wants, or no usable row."""
    paths = found(name, folder)
    if not paths:
        return None
    for path in paths:
        if next(lines(path), None) is None:
            raise BadInput(f"{path}: {EMPTY}")
    reader = _Reader(folder / name, Counter(), Counter())
    tables = READERS[name](reader, paths, limit)
    if not any(table for file, table in tables.items() if file.endswith(".jsonl")):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(reader.left_out.items()))
        raise BadInput(f"{folder / name}: no row is usable ({reasons or 'no row was read'})")
    account = {"source": "local", "rows": reader.rows, "left_out": reader.left_out}
    return Source(tables, account)


class _Reader:
    """Reads rows and keeps the books: rows used of each file, rows left out by reason."""

    def __init__(self, folder: Path, rows: Counter[str], left_out: Counter[str]) -> None:
        self.folder, self.rows, self.left_out = folder, rows, left_out

    def title(self, path: Path) -> str:
        """A file's name in records: the same wherever the project lies, linked or not."""
        return path.relative_to(self.folder).as_posix().removeprefix(f"{LINKED}/")

    def each(
        self, path: Path, make: Callable[[Row], Iterable[T]], shape: Shape | None = None
    ) -> Iterator[T]:
        """What `make` makes of every row of a file; BadInput for a row that is not of `shape`."""
        for row in rows(path):
            if shape and not shape.fits(row.fields):
                raise BadInput(
                    f"{row.where}: no row of {shape.name} as the first one is; "
                    f"its fields are {', '.join(row.fields)}"
                )
            try:
                for made in make(row):
                    self.rows[self.title(path)] += 1
                    yield made
            except Skipped as reason:
                self.left_out[str(reason)] += 1

    def shape(self, path: Path) -> Shape:
        """What the file is; BadInput where its folder has no use for it."""
        source = self.folder.name
        shape = shape_of(path)
        if shape and shape.source == source:
            return shape
        held = (
            f"holds {shape.name}, which belong in local/{shape.source}" if shape else "is not that"
        )
        raise BadInput(f"{path}: {held}; {self.folder} takes {WANTED[source]}; see local/README.md")


def _dolly(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    def make(row: Row) -> Iterator[dict[str, str]]:
        told = {key: row.text(key) for key in ("instruction", "response", "category")}
        # null is how some exports write "no context"
        told["context"] = "" if row.fields.get("context", "") is None else row.text("context")
        if not told["instruction"].strip() or not told["response"].strip():
            raise Skipped("empty instruction or response")
        yield told

    seeds = ((told, reader.title(path)) for path in paths for told in reader.each(path, make))
    return {
        "seeds.jsonl": [
            Seed(id=f"dolly-{n:05d}", source=title, licence=NOT_STATED, **told)
            for n, (told, title) in enumerate(islice(seeds, limit), 1)
        ]
    }


def _flan(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    numbers: Counter[str] = Counter()

    def query(path: Path, mixture: str, task: str, pair: tuple[str, str], licence: str) -> Query:
        if not all(part.strip() for part in pair):
            raise Skipped("empty query or target")
        numbers[task] += 1
        return Query.model_validate(
            {
                "id": f"{task}-{numbers[task]:05d}",
                "mixture": mixture,
                "task": task,
                "query": pair[0],
                "target": pair[1],
                "source": reader.title(path),
                "licence": licence,
            }
        )

    def of(path: Path) -> Iterator[Query]:
        shape, (task, _) = reader.shape(path), shapes.task_name(path)
        if shape == shapes.CHAINS:
            for number, line in lines(path):
                if (pair := shapes.chain(line)) is None:
                    raise BadInput(
                        f"{path}:{number}: three columns parted by tabs are expected: question, "
                        f"answer, chain of thought; got {line!r:.60}"
                    )
                reader.rows[reader.title(path)] += 1
                yield query(path, "cot", task, pair, NOT_STATED)
            return

        def make(row: Row) -> Iterator[Query]:
            if shape.name == "natural-instructions task":
                for asked, target, licence in shapes.instances(row):
                    yield query(path, "niv2", task, (asked, target), licence)
            elif shape.name == "prompts and completions":
                yield query(path, "t0", task, shapes.completion(row), NOT_STATED)
            else:
                mixture, named, asked, target = shapes.templated(row)
                yield query(path, mixture, named or task, (asked, target), NOT_STATED)

        yield from reader.each(path, make)

    return {"queries.jsonl": list(islice((q for path in paths for q in of(path)), limit))}


def _topics(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    named: dict[str, int | None] = {}
    for path in paths:
        for name, count in _named(reader, path):
            # one name may be a node here and a leaf there; None: no count to fail on
            have = named.get(name, 0)
            named[name] = None if have is None or count is None else max(have, count)
    return {
        "topics.jsonl": [
            Topic(name=name, subcategories=count)
            for name, count in islice(named.items(), limit)
            if name.strip()
        ]
    }


def _named(reader: _Reader, path: Path) -> Iterator[tuple[str, int | None]]:
    if not shapes.is_json(path):
        for name, count in shapes.names(path):
            reader.rows[reader.title(path)] += 1
            yield name, count
    elif reader.shape(path).name == "category tree":
        yield from reader.each(path, shapes.categories)
    else:
        yield from reader.each(path, lambda row: [(row.text("name"), row.integer("subcategories"))])


def _hh_rlhf(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    told = (
        (pair, reader.title(path))
        for path in paths
        for pair in reader.each(path, lambda row: [shapes.preference(row)])
    )
    pairs = [
        Pair(
            id=f"hh-{n:06d}",
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            source=title,
            licence=NOT_STATED,
        )
        for n, ((prompt, chosen, rejected), title) in enumerate(islice(told, limit), 1)
    ]
    train = round(len(pairs) * 5 / 9)  # paper 3.4: 5:4, in order
    if 0 < len(pairs) < 2:
        raise BadInput(f"{reader.folder}: one usable pair; training and testing want one each")
    return {"train.jsonl": pairs[:train], "test.jsonl": pairs[train:]}


REFERENCED = {"math", "reasoning", "coding"}  # MT-Bench has references for these alone


def _mt_bench(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    files = [(path, reader.shape(path)) for path in paths]

    def of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[str, list[T]]]:
        for path, shape in files:
            if shape.name == kind:
                yield reader.title(path), list(reader.each(path, lambda row: [make(row)], shape))

    asked = {q.question_id: q for _, given in of("questions", _question) for q in given}
    if not asked:
        raise BadInput(
            f"{reader.folder}: holds no questions; add rows of question_id, category and turns"
        )
    wanted = list(asked)[:limit]
    references: dict[int, list[str]] = {}
    answers: dict[tuple[int, str], Answers] = {}
    for title, given in of("answers", _answers):
        about = {asked[row.question_id].category for row in given if row.question_id in asked}
        if "reference" in title.lower() or (len(given) < len(asked) and about <= REFERENCED):
            for row in given:
                references.setdefault(row.question_id, row.turns)
        else:  # answered twice: the later answer stands
            answers |= {(row.question_id, row.model): row for row in given}
    votes = [vote for _, given in of("votes", _vote) for vote in given]
    return {
        "questions.jsonl": [
            asked[n].model_copy(update={"reference": references.get(n, [])}) for n in wanted
        ],
        "answers.jsonl": [row for row in answers.values() if row.question_id in wanted],
        "votes.jsonl": [vote for vote in votes if vote.question_id in wanted],
        "votes.json": {"simulated": False},
    }


def _question(row: Row) -> Question:
    # a question's own `reference` is a hint to a human reader, not an answer: FastChat reads none
    return Question(
        question_id=row.integer("question_id"),
        category=row.text("category"),
        turns=row.texts("turns"),
        reference=[],
    )


def _answers(row: Row) -> Answers:
    choices = row.fields["choices"]
    turns = Row(row.where, choices[0]).texts("turns") if choices else []
    if len(turns) != 2:
        raise Skipped("an answer that has not two turns")
    return Answers(
        question_id=row.integer("question_id"),
        model=row.text("model_id"),
        turns=turns,
        finish=["stop", "stop"],
    )


def _vote(row: Row) -> Vote:
    winner, turn = row.text("winner"), row.integer("turn")
    winner = "tie" if winner.startswith("tie") else winner  # "tie (inconsistent)"
    if winner not in ("model_a", "model_b", "tie"):
        raise Skipped(f"winner {winner}")
    if turn not in (1, 2):
        raise BadInput(f"{row.where}: turn: 1 or 2 is expected, got {turn}")
    return Vote.model_validate(
        {
            "judge": row.text("judge"),
            "question_id": row.integer("question_id"),
            "turn": turn,
            "model_a": row.text("model_a"),
            "model_b": row.text("model_b"),
            "winner": winner,
        }
    )


RANKS = ("test", "validation", "valid", "val", "dev", "eval", "")  # a training split comes last


def _benchmarks(reader: _Reader, paths: list[Path], limit: int | None) -> Tables:
    def rank(path: Path) -> int:
        split = shapes.task_name(path)[1]
        return RANKS.index(split) if split in RANKS else len(RANKS)

    tasks: dict[str, list[Path]] = {}
    for path in paths:
        tasks.setdefault(shapes.task_name(path)[0], []).append(path)
    tables: dict[str, list[Item]] = {}
    for task, each in sorted(tasks.items()):
        best = min(map(rank, each))
        used = [path for path in each if rank(path) == best]
        for path in each:
            if path not in used:
                reader.left_out[f"{reader.title(path)}: another split of {task} is used"] += 1
        asked = (asked for path in used for asked in _items(reader, path))
        tables[f"tasks/{task}.jsonl"] = [
            Item(id=f"{task}-{n:05d}", question=question, choices=choices, label=label)
            for n, (question, choices, label) in enumerate(islice(asked, limit), 1)
        ]
    # what the world's probes ask is nothing that a user's own seeds teach
    return {**tables, "probes.jsonl": []}


def _items(reader: _Reader, path: Path) -> Iterator[shapes.Asked]:
    shape = reader.shape(path)
    read_item = shapes.BENCHMARKS[shape.name][1]

    def make(row: Row) -> list[shapes.Asked]:
        question, choices, label = read_item(row)
        if len(choices) < 2:
            raise Skipped("fewer than two choices")
        return [(question, choices, label)]

    return reader.each(path, make, shape)


READERS: dict[str, Callable[[_Reader, list[Path], int | None], Tables]] = {
    "dolly": _dolly,
    "flan": _flan,
    "topics": _topics,
    "hh_rlhf": _hh_rlhf,
    "mt_bench": _mt_bench,
    "benchmarks": _benchmarks,
}
