"""Files of any source as the records that a fetch writes.

Files are told by what is in them. A file that is not what its fetch wants is an error. A row that
is well-formed but of no use is left out and counted.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from bezoar.files import BadInput
from bezoar.params import Reading
from bezoar.records import (
    Answers,
    Grade,
    Item,
    Message,
    Pair,
    Query,
    Question,
    Seed,
    Topic,
    Vote,
)  # fmt: skip
from bezoar.sources import choices, names, shapes
from bezoar.sources.accounts import TWICE, Account, File, Taking, plain
from bezoar.sources.choices import Benchmark, RawItem
from bezoar.sources.containers import lines
from bezoar.sources.dialogues import Skipped
from bezoar.sources.rows import Row, rows
from bezoar.sources.shapes import RawSeed, Recognised, recognise
from bezoar.sources.tables import Source, Tables

__all__ = ["File", "answers", "read", "votes"]

WANTED = {
    "dolly": "seeds: an instruction and a response, or a dialogue",
    "flan": "a natural-instructions task, prompts and completions, or a chain-of-thought table",
    "topics": "a category tree, or names of topics",
    "hh_rlhf": "preference pairs: a chosen and a rejected answer",
    "mt_bench": "MT-Bench questions, answers, votes or single grades",
    "benchmarks": "multiple-choice items",
}
T = TypeVar("T")


def read(
    name: str,
    files: Sequence[File],
    limit: int | None,
    seed: int,
    where: str,
    *,
    how: Reading | None = None,
) -> Source:
    """Read the records of one fetch out of `files`, as `how` says: at most `limit` rows
    (benchmarks: of a task). `where` names the lot in messages. BadInput: a file that is not what
    the fetch wants, or no usable row."""
    reader = _Reader(name, where, seed, how or Reading())
    tables = READERS[name](reader, files, limit)
    account = reader.account
    if not any(table for file, table in tables.items() if file.endswith(".jsonl")):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(account.reasons.items()))
        raise BadInput(f"{where}: no row is usable ({reasons or 'no row was read'})")
    if reader.how.fields and not reader.renamed:
        names_given = ", ".join(reader.how.fields.values())
        raise BadInput(
            f"{where}: no file has the fields {names_given} that `fields` in params.yaml names; "
            "name them as the files do"
        )
    return Source(tables, account.as_json())


def votes(path: Path) -> list[Vote]:
    """Read the votes of a file (JSON Lines or parquet). Those that name no winner and no tie are
    left out. BadInput: a row that is none."""
    return _all(path, _vote)


def answers(path: Path) -> list[Answers]:
    """Read a file of models' answers to MT-Bench, two turns each. BadInput: a row that is none."""
    return _all(path, _answers)


def _all(path: Path, make: Callable[[Row], T]) -> list[T]:
    made = (_one(make)(row) for row in rows(path))
    return [record for records in made for record in records if not isinstance(record, Skipped)]


def _one(make: Callable[[Row], T]) -> Callable[[Row], list[T | Skipped]]:
    """Make a reader of rows, each of which gives one record or the reason why it gives none."""

    def made(row: Row) -> list[T | Skipped]:
        try:
            return [make(row)]
        except Skipped as reason:
            return [reason]

    return made


class _Reader:
    """Hold what one fetch reads: how, and the account of it."""

    def __init__(self, source: str, where: str, seed: int, how: Reading) -> None:
        self.source, self.where, self.seed, self.how = source, where, seed, how
        self.account = Account()
        self.renamed = False  # whether a file had the fields that the user names

    def recognise(self, file: File) -> Recognised:
        """Recognise a file. BadInput: its fetch has no use for it."""
        maps = {self.source: self.how.fields}
        recognised = recognise(file.path, maps, self.source)
        if recognised:
            self.renamed = self.renamed or recognised.renamed
            return recognised
        other = recognise(file.path)
        held = (
            f"holds {other.shape.name}, which belong in local/{other.shape.source}"
            if other
            else f"is not that ({shapes.unknown(file.path)})"
        )
        raise BadInput(
            f"{file.path}: {held}; {self.where} takes {WANTED[self.source]}; see local/README.md"
        )

    def taking(
        self, files: Sequence[File], limit: int | None, same: Callable[[T], Hashable] | None
    ) -> "Taking[T]":
        """Make an empty collection of records out of files."""
        # one file alone is as its owner wants it: what it repeats is meant, or filter finds it
        return Taking(self.account, limit, self.how.take, same if len(files) > 1 else None)

    def each(self, file: File, recognised: Recognised, make: Callable[[Row], T]) -> Iterator[T]:
        """Yield what is made of each row of a file. Rows of no use are left out. BadInput: a row
        that is not of the file's shape."""
        self.account.open(file)
        for row in recognised.rows():
            if not recognised.shape.fits(row.fields):
                raise BadInput(
                    f"{row.where}: no row of {recognised.shape.name} as the first ones are; "
                    f"its fields are {', '.join(row.fields)}"
                )
            self.account.read[file.title] += 1
            try:
                yield make(row)
            except Skipped as reason:
                self.account.leave_out(file, str(reason))


def _dolly(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[RawSeed] = reader.taking(
        files, limit, lambda raw: plain(raw.instruction, raw.context, raw.response)
    )
    for file in files:
        recognised = reader.recognise(file)
        taking.add(file, map(_one(partial(shapes.seed, recognised.shape.name)), recognised.rows()))
    seeds: list[Seed] = []
    for n, (file, raw) in enumerate(taking.done(), 1):
        reader.account.partly.update(raw.unused)
        if not raw.category:
            reader.account.partly[f"no category: taken for {reader.how.category}"] += 1
        seeds.append(
            Seed(
                id=f"dolly-{n:05d}",
                instruction=raw.instruction,
                context=raw.context,
                response=raw.response,
                category=raw.category or reader.how.category,
                source=file.title,
                licence=file.licence,
            )
        )
    reader.account.categories.update(seed.category for seed in seeds)
    return {"seeds.jsonl": seeds}


def _flan(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    tasks = names.distinct([file.title for file in files])
    taking: Taking[Query] = reader.taking(files, limit, lambda q: plain(q.query, q.target))
    for file in files:
        recognised, task = reader.recognise(file), tasks[file.title].task
        taking.add(file, _queries(file, recognised, task))
    numbers: Counter[str] = Counter()
    queries = []
    for _, query in taking.done():
        numbers[query.task] += 1
        queries.append(query.model_copy(update={"id": f"{query.task}-{numbers[query.task]:05d}"}))
    return {"queries.jsonl": queries}


def _queries(file: File, recognised: Recognised, task: str) -> Iterator[list[Query | Skipped]]:
    """Yield the queries of each row of a file, to be numbered later."""

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
                mixture, named, question, target = shapes.templated(row)
            except Skipped as reason:
                yield [reason]
            else:
                yield [query(mixture, named or task, (question, target), file.licence)]


def _topics(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    counts: dict[str, int | None] = {}
    first: dict[str, File] = {}
    account = reader.account
    for file in files:
        account.open(file)
        for name, count in _named(reader, file):
            account.read[file.title] += 1
            if not name.strip():
                account.leave_out(file, "no name")
                continue
            if name in counts:
                account.leave_out(file, "a name that was there already")
            first.setdefault(name, file)
            # one name may be a node here and a leaf there; None: no count to fail on
            have = counts.get(name, 0)
            counts[name] = None if have is None or count is None else max(have, count)
    taking: Taking[str] = Taking(Account(), limit, reader.how.take, None)
    for file in files:
        taking.add(file, ([name] for name in counts if first[name] == file))
    chosen = {name for _, name in taking.done()}
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


def _named(reader: _Reader, file: File) -> Iterator[tuple[str, int | None]]:
    recognised = recognise(file.path, {"topics": reader.how.fields}, "topics")
    if recognised is None and not shapes.is_rows(file.path):
        yield from shapes.names(file.path)
        return
    recognised = reader.recognise(file)
    for row in recognised.rows():
        if recognised.shape.name == "category tree":  # a branch may be bare
            yield from shapes.categories(row)
        else:
            yield row.text("name"), row.integer("subcategories")


ANEW = "its split is not kept: all pairs are parted anew"


def _hh_rlhf(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[tuple[list[Message], str, str]] = reader.taking(
        files, limit, lambda pair: plain(*(turn.content for turn in pair[0]), *pair[1:])
    )
    split: set[File] = set()
    for file in files:
        recognised = reader.recognise(file)
        if names.named(file.title).split or shapes.names_splits(recognised):
            split.add(file)
        taking.add(file, map(_one(shapes.preference), recognised.rows()))
    taken = taking.done()
    if told := sum(file in split for file, _ in taken):
        reader.account.partly[ANEW] = told
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
        raise BadInput(f"{reader.where}: one usable pair; training and testing want one each")
    # in the order of the files the test part would hold the last files' kind of pairs alone
    Random(f"{reader.seed}/hh_rlhf").shuffle(pairs)
    train, test = _parted(pairs, round(len(pairs) * 5 / 9))  # paper 3.4: 5:4
    if pairs and not (train and test):
        raise BadInput(
            f"{reader.where}: all {len(pairs)} pairs have one prompt; training and testing want "
            "prompts of their own"
        )
    return {"train.jsonl": train, "test.jsonl": test}


def _parted(pairs: Sequence[Pair], most: int) -> tuple[list[Pair], list[Pair]]:
    """Part pairs for training, `most` at most, from those for testing. Pairs whose prompts differ
    in blanks and case alone stand on one side, or a test would ask what training answered."""
    prompts = [plain(*(turn.content for turn in pair.prompt)) for pair in pairs]
    left, trained = most, {}
    for prompt, count in Counter(prompts).items():
        trained[prompt] = count <= left
        left -= count if trained[prompt] else 0
    sides = {
        side: [pair for pair, prompt in zip(pairs, prompts, strict=True) if trained[prompt] == side]
        for side in (True, False)
    }
    return sides[True], sides[False]


REFERENCED = {"math", "reasoning", "coding"}  # MT-Bench has references for these alone


def _mt_bench(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    recognised = [(file, reader.recognise(file)) for file in files]

    def of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[File, list[T]]]:
        for file, each in recognised:
            if each.shape.name == kind:
                yield file, list(reader.each(file, each, make))

    questions, wanted = _questions(reader, list(of("questions", _question)), limit)
    references: dict[int, list[str]] = {}
    later: _Later[Answers] = _Later(reader.account, "a model answered again later")
    for file, answered in of("answers", _answers):
        about = {
            questions[row.question_id].category for row in answered if row.question_id in questions
        }
        known = _known(reader, file, answered, wanted)
        if "reference" in file.title.lower() or (
            len(answered) < len(questions) and about <= REFERENCED
        ):
            for row in known:
                if references.setdefault(row.question_id, row.turns) is row.turns:
                    reader.account.use(file)
                else:
                    reader.account.leave_out(file, "a second reference to a question")
            continue
        later.add(file, known, lambda row: (row.question_id, row.model))
    answers = later.rows
    votes: list[Vote] = []
    seen: dict[Vote, File] = {}
    for file, ballots in of("votes", lambda row: (_vote(row), _voted_on(row))):
        for vote, shown in ballots:
            if not _known(reader, file, [vote], wanted):
                continue
            if seen.setdefault(vote, file) != file:
                reader.account.leave_out(file, TWICE)
                continue
            votes.append(vote)
            reader.account.use(file)
            _take_shown(reader, answers, shown)
    grades: _Later[Grade] = _Later(reader.account, "a turn was graded again later")
    for file, graded in of("single grades", _single_grade):
        known_grades = _known(reader, file, graded, wanted)
        grades.add(
            file, known_grades, lambda row: (row.judge, row.question_id, row.model, row.turn)
        )
    return {
        "questions.jsonl": [
            questions[n].model_copy(update={"reference": references.get(n, [])})
            for n in questions
            if wanted[n]
        ],
        "answers.jsonl": list(answers.values()),
        "votes.jsonl": votes,
        "grades.jsonl": list(grades.rows.values()),
        "votes.json": {"simulated": False},
    }


class _Later(Generic[T]):
    """Keep the later of two rows that say the same thing, for FastChat appends them."""

    def __init__(self, account: Account, reason: str) -> None:
        self.account, self.reason = account, reason
        self.rows: dict[Hashable, T] = {}
        self.files: dict[Hashable, File] = {}

    def add(self, file: File, rows: Sequence[T], key: Callable[[T], Hashable]) -> None:
        """Take the rows of a file. An earlier one of the same key is left out."""
        for row in rows:
            if earlier := self.files.get(key(row)):
                self.account.use(earlier, -1)
                self.account.leave_out(earlier, self.reason)
            self.rows[key(row)], self.files[key(row)] = row, file
            self.account.use(file)


def _take_shown(
    reader: _Reader, answers: dict[Hashable, Answers], shown: Sequence[Answers]
) -> None:
    """Keep the answers that a vote shows, the first of a model to a question."""
    for row in shown:
        if answers.setdefault((row.question_id, row.model), row).turns != row.turns:
            reader.account.partly["another answer of a model to a question than the first"] += 1


def _questions(
    reader: _Reader, given: Sequence[tuple[File, list[Question]]], limit: int | None
) -> tuple[dict[int, Question], dict[int, bool]]:
    """Return all questions by their numbers, and whether each is asked. BadInput: none, or two
    questions of one number."""
    questions: dict[int, Question] = {}
    first: dict[int, File] = {}
    for file, numbered in given:
        for row in numbered:
            have = questions.setdefault(row.question_id, row)
            if have.turns != row.turns:
                raise BadInput(
                    f"{file.path}: question {row.question_id}: another one than "
                    f"{first[row.question_id].path} has under this number; keep one of the two"
                )
            if row.question_id in first:
                reader.account.leave_out(file, "a question that was there already")
            first.setdefault(row.question_id, file)
    if not questions:
        raise BadInput(
            f"{reader.where}: holds no questions; add rows of question_id, category and turns"
        )
    taking: Taking[int] = Taking(Account(), limit, reader.how.take, None)
    for file, _ in given:
        taking.add(file, ([n] for n in questions if first[n] == file))
    wanted = {n: True for _, n in taking.done()}
    for n, file in first.items():
        reader.account.use(file, n in wanted)
        reader.account.beyond[file.title] += n not in wanted
    return questions, {n: n in wanted for n in questions}


Q = TypeVar("Q", Answers, Vote, Grade)


def _known(reader: _Reader, file: File, rows: Sequence[Q], wanted: dict[int, bool]) -> list[Q]:
    """Return the answers or votes on questions that are asked. The others are counted."""
    for row in rows:
        if row.question_id not in wanted:
            reader.account.leave_out(file, "on a question that is not given")
        elif not wanted[row.question_id]:
            reader.account.beyond[file.title] += 1
    return [row for row in rows if wanted.get(row.question_id)]


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


Group = Sequence[tuple[File, str, Recognised]]  # files of a task, or parts of them, by split


def _benchmarks(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    task_names = names.distinct([file.title for file in files])
    groups: dict[tuple[str, str], list[tuple[File, str, Recognised]]] = {}
    for file in files:
        recognised, name = reader.recognise(file), task_names[file.title]
        reader.account.open(file)
        group = groups.setdefault((name.task, recognised.shape.name), [])
        group += [(file, split, part) for split, part in shapes.parted(recognised, name.split)]
    several = Counter(task for task, _ in groups)
    tables: dict[str, list[Item]] = {}
    tasks = _Tasks(reader, limit)
    for (task, shape), group in sorted(groups.items(), key=_depth):
        named = f"{task}_{'_'.join(shape.lower().split())}" if several[task] > 1 else task
        if items := tasks.items(named, group, choices.BENCHMARKS[shape]):
            tables[f"tasks/{named}.jsonl"] = items
    # what the world's probes ask is nothing that a user's own seeds teach
    return {**tables, "probes.jsonl": []}


def _depth(task: tuple[tuple[str, str], Group]) -> tuple[int, str, str]:
    # of two copies the one that lies less deep has the better name
    (name, shape), group = task
    return min(file.title.count("/") for file, _, _ in group), name, shape


class _Tasks:
    """Make the tasks of all benchmarks, one after another."""

    def __init__(self, reader: _Reader, limit: int | None) -> None:
        self.reader, self.limit = reader, limit
        self.earlier: list[set[Hashable]] = []  # the items of each task

    def items(self, task: str, group: Group, form: Benchmark) -> list[Item]:
        """Return the items of the first split that gives its answers: test, then validation, then a
        file that names none. A training split is no task."""
        used, chosen = "", list[tuple[File, list[RawItem]]]()
        for split in names.EVALUATED:
            shards = [(file, recognised) for file, each, recognised in group if each == split]
            if used:
                self._leave_out(shards, f"another split of {task} is used ({used})")
                continue
            chosen = [
                (file, list(self._raw_items(file, recognised, form))) for file, recognised in shards
            ]
            if any(items for _, items in chosen):
                used, taken = split or "no split named", chosen
        self._leave_out(
            [(f, recognised) for f, each, recognised in group if each == "train"], names.TRAINING
        )
        return self._labelled(task, taken, form) if used else []

    def _leave_out(self, shards: Sequence[tuple[File, Recognised]], reason: str) -> None:
        for file, recognised in shards:
            count = sum(1 for _ in recognised.rows())
            self.reader.account.read[file.title] += count
            self.reader.account.leave_out(file, reason, count)

    def _raw_items(self, file: File, recognised: Recognised, form: Benchmark) -> Iterator[RawItem]:
        def make(row: Row) -> RawItem:
            item = form.read(row)
            if len(item.choices) < 2:
                raise Skipped("fewer than two choices")
            if choices.hidden(item):
                raise Skipped("a row without its answer, as a hidden test set has")
            return item

        return self.reader.each(file, recognised, make)

    def _labelled(
        self, task: str, taken: Sequence[tuple[File, list[RawItem]]], form: Benchmark
    ) -> list[Item]:
        """Return items with the index of the right choice, as all rows of the task together say. A
        task all of whose items stand in an earlier one is a copy of it."""

        def same(item: RawItem) -> Hashable:
            return plain(item.question, *item.choices)

        account = self.reader.account
        every = [item for _, items in taken for item in items]
        keys = set(map(same, every))
        if any(keys <= others for others in self.earlier):
            for file, items in taken:
                account.leave_out(file, TWICE, len(items))
            return []
        self.earlier.append(keys)
        labels = iter(choices.labels(every, form, self.reader.how.answer_is))
        taking: Taking[tuple[RawItem, int]] = Taking(
            Account(), self.limit, self.reader.how.take, lambda each: same(each[0])
        )
        for file, items in taken:
            taking.add(file, ([(item, next(labels))] for item in items))
        labelled = [
            Item(id=f"{task}-{n:05d}", question=item.question, choices=item.choices, label=label)
            for n, (_, (item, label)) in enumerate(taking.done(), 1)
        ]
        taking.account.read.clear()  # counted as they were read
        account.add(taking.account)
        return labelled


READERS: dict[str, Callable[[_Reader, Sequence[File], int | None], Tables]] = {
    "dolly": _dolly,
    "flan": _flan,
    "topics": _topics,
    "hh_rlhf": _hh_rlhf,
    "mt_bench": _mt_bench,
    "benchmarks": _benchmarks,
}
