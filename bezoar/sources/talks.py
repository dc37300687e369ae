"""MT-Bench: its questions, models' answers, references, votes and single grades, out of files."""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Grade, Question, Vote
from bezoar.sources.accounts import TWICE, Account, File, Taking
from bezoar.sources.dialogues import Skipped
from bezoar.sources.reader import Reader
from bezoar.sources.rows import Row
from bezoar.sources.tables import Tables

T = TypeVar("T")
REFERENCED = {"math", "reasoning", "coding"}  # MT-Bench has references for these alone


def tables(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    """Read the tables of a fetch out of its files. BadInput: as readers.read."""
    recognised = [(file, reader.recognise(file)) for file in files]

    def of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[File, list[T]]]:
        for file, each in recognised:
            if each.shape.name == kind:
                yield file, list(reader.each(file, each, make))

    questions, wanted = _questions(reader, list(of("questions", _question)), limit)
    references: dict[int, list[str]] = {}
    later: _Later[Answers] = _Later(reader.account, "a model answered again later")
    for file, answered in of("answers", answers):
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
    told = later.rows
    votes: list[Vote] = []
    seen: dict[Vote, File] = {}
    for file, ballots in of("votes", lambda row: (vote(row), _voted_on(row))):
        for ballot, shown in ballots:
            if not _known(reader, file, [ballot], wanted):
                continue
            if seen.setdefault(ballot, file) != file:
                reader.account.leave_out(file, TWICE)
                continue
            votes.append(ballot)
            reader.account.use(file)
            _take_shown(reader, told, shown)
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
        "answers.jsonl": list(told.values()),
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


def _take_shown(reader: Reader, answers: dict[Hashable, Answers], shown: Sequence[Answers]) -> None:
    """Keep the answers that a vote shows, the first of a model to a question."""
    for row in shown:
        if answers.setdefault((row.question_id, row.model), row).turns != row.turns:
            reader.account.partly["another answer of a model to a question than the first"] += 1


def _questions(
    reader: Reader, given: Sequence[tuple[File, list[Question]]], limit: int | None
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


def _known(reader: Reader, file: File, rows: Sequence[Q], wanted: dict[int, bool]) -> list[Q]:
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


def answers(row: Row) -> Answers:
    """Read a model's answers to a question. Skipped: they are not two turns."""
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


def vote(row: Row) -> Vote:
    """Read a vote on the answers of two models. Skipped: it names no winner and no tie."""
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
