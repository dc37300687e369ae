"""Files of any source as the records that a fetch writes.

Files are told by what is in them. A file that is not what its fetch wants is an error; a row that
is well-formed but of no use is left out and counted.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from bezoar.files import BadInput
from bezoar.records import Answers, Grade, Item, Pair, Query, Question, Seed, Topic, Vote
from bezoar.sources import shapes
from bezoar.sources.rows import EMPTY, Row, is_parquet, lines, rows
from bezoar.sources.shapes import Shape, Skipped, shape_of
from bezoar.sources.tables import Source, Tables

WANTED = {
    "flan": "a natural-instructions task, prompts and completions, or a chain-of-thought table",
    "topics": "a category tree, or names of topics",
    "mt_bench": "MT-Bench questions, answers, votes or single grades",
    "benchmarks": "multiple-choice items",
}
T = TypeVar("T")


class File(NamedTuple):
    """A file to read; `title` names it in records, the same wherever the project lies."""

    path: Path
    title: str
    licence: str


def read(name: str, files: Sequence[File], limit: int | None, seed: int, where: str) -> Source:
    """The records of one fetch out of `files`, at most `limit` rows (hh_rlhf: rows read;
    benchmarks: of a task); `where` names the lot in messages. BadInput: a file that is not what
    the fetch wants, or no usable row."""
    for file in files:
        if not is_parquet(file.path) and next(lines(file.path), None) is None:
            raise BadInput(f"{file.path}: {EMPTY}")
    reader = _Reader(name, where, seed)
    tables = READERS[name](reader, files, limit)
    if not any(table for file, table in tables.items() if file.endswith(".jsonl")):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(reader.left_out.items()))
        raise BadInput(f"{where}: no row is usable ({reasons or 'no row was read'})")
    return Source(tables, {"rows": reader.rows, "left_out": reader.left_out})


def votes(path: Path) -> list[Vote]:
    """The votes of a file (JSON Lines or parquet), those that name no winner and no tie left out;
    BadInput for a row that is none."""
    reader = _Reader("mt_bench", str(path), 0)
    return list(reader.each(File(path, path.name, ""), lambda row: [_vote(row)]))


def answers(path: Path) -> list[Answers]:
    """A file of models' answers to MT-Bench, two turns each; BadInput for a row that is none."""
    reader = _Reader("mt_bench", str(path), 0)
    return list(reader.each(File(path, path.name, ""), lambda row: [_answers(row)]))


class _Reader:
    """Reads rows and keeps the books: rows used of each file, rows left out by reason."""

    def __init__(self, source: str, where: str, seed: int) -> None:
        self.source, self.where, self.seed = source, where, seed
        self.rows: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.left = math.inf  # rows that may still be read

    def each(
        self, file: File, make: Callable[[Row], Iterable[T]], shape: Shape | None = None
    ) -> Iterator[T]:
        """What `make` makes of every row of a file; BadInput for a row that is not of `shape`."""
        for row in rows(file.path):
            if not self.left:
                return
            self.left -= 1
            if shape and not shape.fits(row.fields):
                raise BadInput(
                    f"{row.where}: no row of {shape.name} as the first one is; "
                    f"its fields are {', '.join(row.fields)}"
                )
            try:
                for made in make(row):
                    self.rows[file.title] += 1
                    yield made
            except Skipped as reason:
                self.left_out[str(reason)] += 1

    def shape(self, file: File) -> Shape:
        """What the file is; BadInput where its fetch has no use for it."""
        shape = shape_of(file.path)
        if shape and shape.source == self.source:
            return shape
        held = (
            f"holds {shape.name}, which belong in local/{shape.source}" if shape else "is not that"
        )
        raise BadInput(
            f"{file.path}: {held}; {self.where} takes {WANTED[self.source]}; see local/README.md"
        )


def _dolly(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    def make(row: Row) -> Iterator[dict[str, str]]:
        told = {key: row.text(key) for key in ("instruction", "response", "category")}
        # null is how some exports write "no context"
        told["context"] = "" if row.fields.get("context", "") is None else row.text("context")
        if not told["instruction"].strip() or not told["response"].strip():
            raise Skipped("empty instruction or response")
        yield told

    seeds = ((told, file) for file in files for told in reader.each(file, make))
    return {
        "seeds.jsonl": [
            Seed(id=f"dolly-{n:05d}", source=file.title, licence=file.licence, **told)
            for n, (told, file) in enumerate(islice(seeds, limit), 1)
        ]
    }


def _flan(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    numbers: Counter[str] = Counter()

    def query(file: File, mixture: str, task: str, pair: tuple[str, str], licence: str) -> Query:
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
                "source": file.title,
                "licence": licence,
            }
        )

    def of(file: File) -> Iterator[Query]:
        shape, (task, _) = reader.shape(file), shapes.task_name(file.path)
        if shape == shapes.CHAINS:
            for number, line in lines(file.path):
                if (pair := shapes.chain(line)) is None:
                    raise BadInput(
                        f"{file.path}:{number}: three columns parted by tabs are expected: "
                        f"question, answer, chain of thought; got {line!r:.60}"
                    )
                reader.rows[file.title] += 1
                yield query(file, "cot", task, pair, file.licence)
            return

        def make(row: Row) -> Iterator[Query]:
            if shape.name == "natural-instructions task":
                for asked, target, licence in shapes.instances(row):
                    yield query(file, "niv2", task, (asked, target), licence)
            elif shape.name == "prompts and completions":
                yield query(file, "t0", task, shapes.completion(row), file.licence)
            else:
                mixture, named, asked, target = shapes.templated(row)
                yield query(file, mixture, named or task, (asked, target), file.licence)

        yield from reader.each(file, make)

    return {"queries.jsonl": list(islice((q for file in files for q in of(file)), limit))}


def _topics(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    named: dict[str, int | None] = {}
    for file in files:
        for name, count in _named(reader, file):
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


def _named(reader: _Reader, file: File) -> Iterator[tuple[str, int | None]]:
    if not shapes.is_rows(file.path):
        for name, count in shapes.names(file.path):
            reader.rows[file.title] += 1
            yield name, count
    elif reader.shape(file).name == "category tree":
        yield from reader.each(file, shapes.categories)
    else:
        yield from reader.each(file, lambda row: [(row.text("name"), row.integer("subcategories"))])


def _hh_rlhf(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    # the paper's first 100,000 examples are of rows, and some rows are of no use
    reader.left = math.inf if limit is None else limit
    pairs = [
        Pair(
            id=f"hh-{n:06d}",
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            source=file.title,
            licence=file.licence,
        )
        for n, ((prompt, chosen, rejected), file) in enumerate(
            (
                (pair, file)
                for file in files
                for pair in reader.each(file, lambda row: [shapes.preference(row)])
            ),
            1,
        )
    ]
    if len(pairs) == 1:
        raise BadInput(f"{reader.where}: one usable pair; training and testing want one each")
    # in the order of the files the test part would hold the last files' kind of pairs alone
    Random(f"{reader.seed}/hh_rlhf").shuffle(pairs)
    train = round(len(pairs) * 5 / 9)  # paper 3.4: 5:4
    return {"train.jsonl": pairs[:train], "test.jsonl": pairs[train:]}


REFERENCED = {"math", "reasoning", "coding"}  # MT-Bench has references for these alone


def _mt_bench(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    told = [(file, reader.shape(file)) for file in files]

    def of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[str, list[T]]]:
        for file, shape in told:
            if shape.name == kind:
                yield file.title, list(reader.each(file, lambda row: [make(row)], shape))

    asked = {q.question_id: q for _, given in of("questions", _question) for q in given}
    if not asked:
        raise BadInput(
            f"{reader.where}: holds no questions; add rows of question_id, category and turns"
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
    votes = []
    for _, ballots in of("votes", lambda row: (_vote(row), _voted_on(row))):
        for vote, shown in ballots:
            votes.append(vote)
            for row in shown:
                if answers.setdefault((row.question_id, row.model), row).turns != row.turns:
                    reader.left_out["another answer of a model to a question than the first"] += 1
    grades: dict[tuple[str, int, str, int], Grade] = {}
    for _, graded in of("single grades", _single_grade):
        for one in graded:  # a judgement that is run again is appended: the later one stands
            key = (one.judge, one.question_id, one.model, one.turn)
            if key in grades:
                reader.left_out["a single grade before a later one of the same turn"] += 1
            grades[key] = one
    return {
        "questions.jsonl": [
            asked[n].model_copy(update={"reference": references.get(n, [])}) for n in wanted
        ],
        "answers.jsonl": [row for row in answers.values() if row.question_id in wanted],
        "votes.jsonl": [vote for vote in votes if vote.question_id in wanted],
        "grades.jsonl": [g for g in grades.values() if g.question_id in wanted],
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
    winner = {"tie (inconsistent)": "inconsistent"}.get(winner, winner)
    if winner not in ("model_a", "model_b", "tie", "inconsistent"):
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


def _single_grade(row: Row) -> Grade:
    """A grade that FastChat's judge gave to one answer; the judge `gpt-4` is called gpt4_single.
    A score of -1 is FastChat's for a reply without one."""
    turn, score = row.integer("turn"), row.fields["score"]
    if turn not in (1, 2):
        raise BadInput(f"{row.where}: turn: 1 or 2 is expected, got {turn}")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadInput(f"{row.where}: score: a number is expected, got {score!r:.60}")
    if score == -1:
        raise Skipped("a single grade without a score (-1)")
    if not 1 <= score <= 10:
        raise Skipped(f"a single grade of {score:g}, which is not from 1 to 10")
    judge = str(next(iter(row.fields["judge"]), "")).lower()
    return Grade.model_validate(
        {
            "question_id": row.integer("question_id"),
            "model": row.text("model"),
            "turn": turn,
            "score": score,
            "status": "ok",
            "reply": "",
            "judge": f"{re.sub(r'[^a-z0-9]', '', judge) or 'judge'}_single",
            "simulated": False,
        }
    )


def _voted_on(row: Row) -> list[Answers]:
    """The two models' answers that a vote is on, where its row holds the conversations: lists of
    four messages, {role, content}, two of the user's and two of the model's."""
    shown = []
    for side in ("a", "b"):
        if (told := row.fields.get(f"conversation_{side}")) is None:
            continue
        messages = told if isinstance(told, list) else []
        if [m.get("role") for m in messages if isinstance(m, dict)] != ["user", "assistant"] * 2:
            raise BadInput(
                f"{row.where}: conversation_{side}: four messages are expected, user and assistant "
                f"by turns, got {told!r:.60}"
            )
        turns = [Row(row.where, messages[n]).text("content") for n in (1, 3)]
        shown.append(
            Answers(
                question_id=row.integer("question_id"),
                model=row.text(f"model_{side}"),
                turns=turns,
                finish=["stop", "stop"],
            )
        )
    return shown


RANKS = ("test", "validation", "valid", "val", "dev", "eval", "")  # a training split comes last


def _benchmarks(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    def rank(file: File) -> int:
        split = shapes.task_name(file.path)[1]
        return RANKS.index(split) if split in RANKS else len(RANKS)

    tasks: dict[str, list[File]] = {}
    for file in files:
        tasks.setdefault(shapes.task_name(file.path)[0], []).append(file)
    tables: dict[str, list[Item]] = {}
    for task, each in sorted(tasks.items()):
        best = min(map(rank, each))
        used = [file for file in each if rank(file) == best]
        for file in each:
            if file not in used:
                reader.left_out[f"{file.title}: another split of {task} is used"] += 1
        asked = (asked for file in used for asked in _items(reader, file))
        tables[f"tasks/{task}.jsonl"] = [
            Item(id=f"{task}-{n:05d}", question=question, choices=choices, label=label)
            for n, (question, choices, label) in enumerate(islice(asked, limit), 1)
        ]
    # what the world's probes ask is nothing that a user's own seeds teach
    return {**tables, "probes.jsonl": []}


def _items(reader: _Reader, file: File) -> Iterator[shapes.Asked]:
    shape = reader.shape(file)
    read_item = shapes.BENCHMARKS[shape.name][1]

    def make(row: Row) -> list[shapes.Asked]:
        question, choices, label = read_item(row)
        if len(choices) < 2:
            raise Skipped("fewer than two choices")
        return [(question, choices, label)]

    return reader.each(file, make, shape)


READERS: dict[str, Callable[[_Reader, Sequence[File], int | None], Tables]] = {
    "dolly": _dolly,
    "flan": _flan,
    "topics": _topics,
    "hh_rlhf": _hh_rlhf,
    "mt_bench": _mt_bench,
    "benchmarks": _benchmarks,
}
