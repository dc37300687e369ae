"""Files of any source as the records that a fetch writes.

Files are told by what is in them. A file that is not what its fetch wants is an error; a row that
is well-formed but of no use is left out and counted.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from bezoar.files import BadInput
from bezoar.params import Reading
from bezoar.records import Answers, Item, Message, Pair, Query, Question, Seed, Topic, Vote
from bezoar.sources import choices, names, shapes
from bezoar.sources.accounts import TWICE, Account, File, Taking, plain
from bezoar.sources.choices import Asked, Benchmark
from bezoar.sources.containers import lines
from bezoar.sources.dialogues import Skipped
from bezoar.sources.rows import Row, rows
from bezoar.sources.shapes import Found, Told, recognise
from bezoar.sources.tables import Source, Tables

__all__ = ["File", "answers", "read", "votes"]

WANTED = {
    "dolly": "seeds: an instruction and a response, or a dialogue",
    "flan": "a natural-instructions task, prompts and completions, or a chain-of-thought table",
    "topics": "a category tree, or names of topics",
    "hh_rlhf": "preference pairs: a chosen and a rejected answer",
    "mt_bench": "MT-Bench questions, answers or votes",
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
    """The records of one fetch out of `files`, at most `limit` rows (benchmarks: of a task), read
    as `how` says; `where` names the lot in messages. BadInput: a file that is not what the fetch
    wants, or no usable row."""
    reader = _Reader(name, where, seed, how or Reading())
    tables = READERS[name](reader, files, limit)
    account = reader.account
    if not any(table for file, table in tables.items() if file.endswith(".jsonl")):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(account.reasons.items()))
        raise BadInput(f"{where}: no row is usable ({reasons or 'no row was read'})")
    if reader.how.fields and not reader.renamed:
        told = ", ".join(reader.how.fields.values())
        raise BadInput(
            f"{where}: no file has the fields {told} that `fields` in params.yaml names; name them "
            "as the files do"
        )
    return Source(tables, account.told())


def votes(path: Path) -> list[Vote]:
    """The votes of a file (JSON Lines or parquet), those that name no winner and no tie left out;
    BadInput for a row that is none."""
    return _all(path, _vote)


def answers(path: Path) -> list[Answers]:
    """A file of models' answers to MT-Bench, two turns each; BadInput for a row that is none."""
    return _all(path, _answers)


def _all(path: Path, make: Callable[[Row], T]) -> list[T]:
    made = (_one(make)(row) for row in rows(path))
    return [record for records in made for record in records if not isinstance(record, Skipped)]


def _one(make: Callable[[Row], T]) -> Callable[[Row], list[T | Skipped]]:
    """A reader of rows, each of which gives one record or the reason why it gives none."""

    def made(row: Row) -> list[T | Skipped]:
        try:
            return [make(row)]
        except Skipped as reason:
            return [reason]

    return made


class _Reader:
    """What one fetch reads: how, and the account of it."""

    def __init__(self, source: str, where: str, seed: int, how: Reading) -> None:
        self.source, self.where, self.seed, self.how = source, where, seed, how
        self.account = Account()
        self.renamed = False  # whether a file had the fields that the user names

    def found(self, file: File) -> Found:
        """What the file is; BadInput where its fetch has no use for it."""
        maps = {self.source: self.how.fields}
        found = recognise(file.path, maps, self.source)
        if found:
            self.renamed = self.renamed or found.renamed
            return found
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
        """An empty collection of records out of files."""
        # one file alone is as its owner wants it: what it repeats is meant, or filter finds it
        return Taking(self.account, limit, self.how.take, same if len(files) > 1 else None)

    def each(self, file: File, found: Found, make: Callable[[Row], T]) -> Iterator[T]:
        """What is made of each row of a file; rows of no use are left out. BadInput for a row that
        is not of the file's shape."""
        self.account.open(file)
        for row in found.rows():
            if not found.shape.fits(row.fields):
                raise BadInput(
                    f"{row.where}: no row of {found.shape.name} as the first ones are; "
                    f"its fields are {', '.join(row.fields)}"
                )
            self.account.read[file.title] += 1
            try:
                yield make(row)
            except Skipped as reason:
                self.account.leave_out(file, str(reason))


def _dolly(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[Told] = reader.taking(
        files, limit, lambda told: plain(told.instruction, told.context, told.response)
    )
    for file in files:
        found = reader.found(file)
        taking.add(file, map(_one(partial(shapes.seed, found.shape.name)), found.rows()))
    seeds: list[Seed] = []
    for n, (file, told) in enumerate(taking.done(), 1):
        reader.account.partly.update(told.unused)
        if not told.category:
            reader.account.partly[f"no category: taken for {reader.how.category}"] += 1
        seeds.append(
            Seed(
                id=f"dolly-{n:05d}",
                instruction=told.instruction,
                context=told.context,
                response=told.response,
                category=told.category or reader.how.category,
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
        found, task = reader.found(file), tasks[file.title].task
        taking.add(file, _queries(file, found, task))
    numbers: Counter[str] = Counter()
    queries = []
    for _, query in taking.done():
        numbers[query.task] += 1
        queries.append(query.model_copy(update={"id": f"{query.task}-{numbers[query.task]:05d}"}))
    return {"queries.jsonl": queries}


def _queries(file: File, found: Found, task: str) -> Iterator[list[Query | Skipped]]:
    """The queries of each row of a file, numbered later."""

    def query(mixture: str, task: str, pair: tuple[str, str], licence: str) -> Query | Skipped:
        if not all(part.strip() for part in pair):
            return Skipped("empty query or target")
        told = {"id": "", "mixture": mixture, "task": task, "query": pair[0], "target": pair[1]}
        return Query.model_validate({**told, "source": file.title, "licence": licence})

    if found.shape == shapes.CHAINS:
        for number, line in lines(file.path):
            if (pair := shapes.chain(line)) is None:
                raise BadInput(
                    f"{file.path}:{number}: three columns parted by tabs are expected: "
                    f"question, answer, chain of thought; got {line!r:.60}"
                )
            yield [query("cot", task, pair, file.licence)]
        return
    for row in found.rows():
        if found.shape.name == "natural-instructions task":
            yield [
                query("niv2", task, (asked, target), licence)
                for asked, target, licence in shapes.instances(row)
            ]
        elif found.shape.name == "prompts and completions":
            yield [query("t0", task, shapes.completion(row), file.licence)]
        elif found.shape.name == "sums with their thoughts":
            yield [query("cot", task, shapes.thought(row), file.licence)]
        else:
            try:
                mixture, named, asked, target = shapes.templated(row)
            except Skipped as reason:
                yield [reason]
            else:
                yield [query(mixture, named or task, (asked, target), file.licence)]


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
    found = recognise(file.path, {"topics": reader.how.fields}, "topics")
    if found is None and not shapes.is_rows(file.path):
        yield from shapes.names(file.path)
        return
    found = reader.found(file)
    for row in found.rows():
        if found.shape.name == "category tree":  # a branch may be bare
            yield from shapes.categories(row)
        else:
            yield row.text("name"), row.integer("subcategories")


def _hh_rlhf(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    taking: Taking[tuple[list[Message], str, str]] = reader.taking(
        files, limit, lambda pair: plain(*(turn.content for turn in pair[0]), *pair[1:])
    )
    for file in files:
        found = reader.found(file)
        taking.add(file, map(_one(shapes.preference), found.rows()))
    pairs = [
        Pair(
            id=f"hh-{n:06d}",
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            source=file.title,
            licence=file.licence,
        )
        for n, (file, (prompt, chosen, rejected)) in enumerate(taking.done(), 1)
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
    """Pairs for training, `most` at most, and for testing. Pairs whose prompts differ in blanks and
    case alone stand on one side: else a test asks what training answered."""
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
    found = [(file, reader.found(file)) for file in files]

    def of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[File, list[T]]]:
        for file, each in found:
            if each.shape.name == kind:
                yield file, list(reader.each(file, each, make))

    questions, wanted = _questions(reader, list(of("questions", _question)), limit)
    references: dict[int, list[str]] = {}
    answers: dict[tuple[int, str], Answers] = {}
    givers: dict[tuple[int, str], File] = {}
    for file, given in of("answers", _answers):
        about = {
            questions[row.question_id].category for row in given if row.question_id in questions
        }
        known = _known(reader, file, given, wanted)
        if "reference" in file.title.lower() or (
            len(given) < len(questions) and about <= REFERENCED
        ):
            for row in known:
                if references.setdefault(row.question_id, row.turns) is row.turns:
                    reader.account.use(file)
                else:
                    reader.account.leave_out(file, "a second reference to a question")
            continue
        for row in known:  # answered twice: the later answer stands
            key = (row.question_id, row.model)
            if key in answers:
                reader.account.use(givers[key], -1)
                reader.account.leave_out(givers[key], "a model answered again later")
            answers[key], givers[key] = row, file
            reader.account.use(file)
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
    return {
        "questions.jsonl": [
            questions[n].model_copy(update={"reference": references.get(n, [])})
            for n in questions
            if wanted[n]
        ],
        "answers.jsonl": list(answers.values()),
        "votes.jsonl": votes,
        "votes.json": {"simulated": False},
    }


def _take_shown(
    reader: _Reader, answers: dict[tuple[int, str], Answers], shown: Sequence[Answers]
) -> None:
    """Keep the answers that a vote shows, the first of a model to a question."""
    for row in shown:
        if answers.setdefault((row.question_id, row.model), row).turns != row.turns:
            reader.account.partly["another answer of a model to a question than the first"] += 1


def _questions(
    reader: _Reader, given: Sequence[tuple[File, list[Question]]], limit: int | None
) -> tuple[dict[int, Question], dict[int, bool]]:
    """All questions by their numbers, and the numbers of those that are asked. BadInput: none, or
    two questions of one number."""
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


Q = TypeVar("Q", Answers, Vote)


def _known(reader: _Reader, file: File, rows: Sequence[Q], wanted: dict[int, bool]) -> list[Q]:
    """The answers or votes on questions that are asked; the others are counted."""
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


Group = Sequence[tuple[File, str, Found]]  # files of a task, each with its split


def _benchmarks(reader: _Reader, files: Sequence[File], limit: int | None) -> Tables:
    told = names.distinct([file.title for file in files])
    groups: dict[tuple[str, str], list[tuple[File, str, Found]]] = {}
    for file in files:
        found, name = reader.found(file), told[file.title]
        reader.account.open(file)
        groups.setdefault((name.task, found.shape.name), []).append((file, name.split, found))
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
    """Makes the tasks of all benchmarks, one after another."""

    def __init__(self, reader: _Reader, limit: int | None) -> None:
        self.reader, self.limit = reader, limit
        self.earlier: list[set[Hashable]] = []  # the items of each task

    def items(self, task: str, group: Group, form: Benchmark) -> list[Item]:
        """The items of the first split that gives its answers, test before validation before a file
        that names none. A training split is no task."""
        used, chosen = "", list[tuple[File, list[Asked]]]()
        for split in names.EVALUATED:
            shards = [(file, found) for file, each, found in group if each == split]
            if used:
                self._leave_out(shards, f"another split of {task} is used ({used})")
                continue
            chosen = [(file, list(self._asked(file, found, form))) for file, found in shards]
            if any(asked for _, asked in chosen):
                used, taken = split or "no split named", chosen
        self._leave_out([(f, found) for f, each, found in group if each == "train"], names.TRAINING)
        return self._labelled(task, taken, form) if used else []

    def _leave_out(self, shards: Sequence[tuple[File, Found]], reason: str) -> None:
        for file, found in shards:
            count = sum(1 for _ in found.rows())
            self.reader.account.read[file.title] += count
            self.reader.account.leave_out(file, reason, count)

    def _asked(self, file: File, found: Found, form: Benchmark) -> Iterator[Asked]:
        def make(row: Row) -> Asked:
            item = form.read(row)
            if len(item.choices) < 2:
                raise Skipped("fewer than two choices")
            if choices.hidden(item):
                raise Skipped("a row without its answer, as a hidden test set has")
            return item

        return self.reader.each(file, found, make)

    def _labelled(
        self, task: str, taken: Sequence[tuple[File, list[Asked]]], form: Benchmark
    ) -> list[Item]:
        """Items with the index of the right choice, as all rows of the task together say. A task
        all of whose items stand in an earlier one is a copy of it."""

        def same(item: Asked) -> Hashable:
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
        taking: Taking[tuple[Asked, int]] = Taking(
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
