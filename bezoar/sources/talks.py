"""Reads MT-Bench out of files: questions, models' answers, references, votes, single grades."""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Grade, Question, Vote
from bezoar.sources.accounts import DUPLICATE, Account, File, Taking
from bezoar.sources.dialogues import Skipped
from bezoar.sources.reader import Reader
from bezoar.sources.rows import Row
from bezoar.sources.tables import Tables

T = TypeVar("T")
REFERENCED = {"math", "reasoning", "coding"}  # MT-Bench has references for these alone


def tables(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    """Read the tables of a fetch out of its files. BadInput: as readers.read."""
    recognised = [(file, reader.recognise(file)) for file in files]

    def rows_of(kind: str, make: Callable[[Row], T]) -> Iterator[tuple[File, list[T]]]:
        for file, contents in recognised:
            if contents.shape.name == kind:
                yield file, list(reader.records(file, contents, make))

    questions, is_asked = _questions(reader, list(rows_of("questions", _question)), limit)
    references: dict[int, list[str]] = {}
    later: _Later[Answers] = _Later(reader.account, "a model answered again later")
    for file, answered in rows_of("answers", answers):
        categories = {
            questions[row.question_id].category for row in answered if row.question_id in questions
        }
        asked_answers = _select_asked(reader, file, answered, is_asked)
        # A file of references has answers to the questions of REFERENCED alone, or says it in its
        # name.
        if "reference" in file.title.lower() or (
            len(answered) < len(questions) and categories <= REFERENCED
        ):
            for row in asked_answers:
                if references.setdefault(row.question_id, row.turns) is row.turns:
                    reader.account.use(file)
                else:
                    reader.account.leave_out(file, "a second reference to a question")
            continue
        later.add(file, asked_answers, lambda row: (row.question_id, row.model))
    answers_by_key = later.rows
    votes: list[Vote] = []
    seen: dict[Vote, File] = {}
    for file, ballots in rows_of("votes", lambda row: (vote(row), _answers_voted_on(row))):
        for ballot, pair in ballots:
            if not _select_asked(reader, file, [ballot], is_asked):
                continue
            if seen.setdefault(ballot, file) != file:
                reader.account.leave_out(file, DUPLICATE)
                continue
            votes.append(ballot)
            reader.account.use(file)
            _add_voted_answers(reader, answers_by_key, pair)
    grades: _Later[Grade] = _Later(reader.account, "a turn was graded again later")
    for file, graded in rows_of("single grades", _single_grade):
        asked_grades = _select_asked(reader, file, graded, is_asked)
        grades.add(
            file, asked_grades, lambda row: (row.judge, row.question_id, row.model, row.turn)
        )
    return {
        "questions.jsonl": [
            questions[n].model_copy(update={"reference": references.get(n, [])})
            for n in questions
            if is_asked[n]
        ],
        "answers.jsonl": list(answers_by_key.values()),
        "votes.jsonl": votes,
        "grades.jsonl": list(grades.rows.values()),
        "votes.json": {"simulated": False},
    }


class _Later(Generic[T]):
    """Rows of which the later of two with the same key is kept, because FastChat appends new ones
    to its file."""

    def __init__(self, account: Account, reason: str) -> None:
        self.account, self.reason = account, reason
        self.rows: dict[Hashable, T] = {}
        self.files: dict[Hashable, File] = {}

    def add(self, file: File, rows: Sequence[T], key: Callable[[T], Hashable]) -> None:
        """Take the rows of a file. Leave out an earlier row of the same key."""
        for row in rows:
            # The earlier row was counted as used. It is counted as left out instead.
            if earlier := self.files.get(key(row)):
                self.account.use(earlier, -1)
                self.account.leave_out(earlier, self.reason)
            self.rows[key(row)], self.files[key(row)] = row, file
            self.account.use(file)


def _add_voted_answers(
    reader: Reader, answers: dict[Hashable, Answers], pair: Sequence[Answers]
) -> None:
    """Add the `pair` of answers that a vote is on. A model's first answer to a question
    stands. Others are counted."""
    for row in pair:
        if answers.setdefault((row.question_id, row.model), row).turns != row.turns:
            reader.account.partly["another answer of a model to a question than the first"] += 1


def _questions(
    reader: Reader, questions_by_file: Sequence[tuple[File, list[Question]]], limit: int | None
) -> tuple[dict[int, Question], dict[int, bool]]:
    """Return all questions by their numbers, and a mapping that is true for the numbers within the
    limit. BadInput: there are none, or two different questions have one number."""
    questions: dict[int, Question] = {}
    first: dict[int, File] = {}
    for file, numbered in questions_by_file:
        for row in numbered:
            earlier = questions.setdefault(row.question_id, row)
            if earlier.turns != row.turns:
                raise BadInput(
                    f"{file.path}: question {row.question_id}: another one than "
                    f"{first[row.question_id].path} has under this number; keep one of the two"
                )
            if row.question_id in first:
                reader.account.leave_out(file, "a question that was there already")
            first.setdefault(row.question_id, file)
    if not questions:
        raise BadInput(
            f"{reader.label}: holds no questions; add rows of question_id, category and turns"
        )
    taking: Taking[int] = Taking(Account(), limit, reader.settings.take, None)
    for file, _ in questions_by_file:
        taking.add(file, ([n] for n in questions if first[n] == file))
    chosen = {n: True for _, n in taking.within_limit()}
    for n, file in first.items():
        reader.account.use(file, n in chosen)
        reader.account.beyond[file.title] += n not in chosen
    return questions, {n: n in chosen for n in questions}


Q = TypeVar("Q", Answers, Vote, Grade)


def _select_asked(
    reader: Reader, file: File, rows: Sequence[Q], is_asked: dict[int, bool]
) -> list[Q]:
    """Return the answers, votes or grades of questions that are asked. Count the others."""
    for row in rows:
        if row.question_id not in is_asked:
            reader.account.leave_out(file, "on a question that is not given")
        elif not is_asked[row.question_id]:
            reader.account.beyond[file.title] += 1
    return [row for row in rows if is_asked.get(row.question_id)]


def _question(row: Row) -> Question:
    # A question's own `reference` is a hint to a human reader, not an answer. FastChat ignores it.
    return Question(
        question_id=row.integer("question_id"),
        category=row.text("category"),
        turns=row.texts("turns"),
        reference=[],
    )


def answers(row: Row) -> Answers:
    """Read a model's answers to the two turns of a question. Skipped: there are not two of them."""
    choices = row.fields["choices"]
    turns = Row(row.place, choices[0]).texts("turns") if choices else []
    if len(turns) != 2:
        raise Skipped("an answer that has not two turns")
    return Answers(
        question_id=row.integer("question_id"),
        model=row.text("model_id"),
        turns=turns,
        finish=["stop", "stop"],
    )


def vote(row: Row) -> Vote:
    """Read a vote on the answers of two models. Skipped: it names neither a winner nor a tie.
    BadInput: its turn is neither 1 nor 2."""
    winner, turn = row.text("winner"), row.integer("turn")
    winner = {"tie (inconsistent)": "inconsistent"}.get(winner, winner)
    if winner not in ("model_a", "model_b", "tie", "inconsistent"):
        raise Skipped(f"winner {winner}")
    if turn not in (1, 2):
        raise BadInput(f"{row.place}: turn: 1 or 2 is expected, got {turn}")
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
    """Read a grade that FastChat's judge gave to one answer. The judge `gpt-4` is called
    gpt4_single. Skipped: a score that is not from 1 to 10. FastChat writes -1 for a reply without
    a score."""
    turn, score = row.integer("turn"), row.fields["score"]
    if turn not in (1, 2):
        raise BadInput(f"{row.place}: turn: 1 or 2 is expected, got {turn}")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadInput(f"{row.place}: score: a number is expected, got {score!r:.60}")
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


def _answers_voted_on(row: Row) -> list[Answers]:
    """Return the two models' answers that a vote is on, none where its row lacks them.

    The row has them as conversations: lists of four messages, {role, content}, two of the user and
    two of the model. BadInput: a conversation of another form.
    """
    pair = []
    for side in ("a", "b"):
        if (conversation := row.fields.get(f"conversation_{side}")) is None:
            continue
        messages = conversation if isinstance(conversation, list) else []
        if [m.get("role") for m in messages if isinstance(m, dict)] != ["user", "assistant"] * 2:
            raise BadInput(
                f"{row.place}: conversation_{side}: four messages are expected, user and assistant "
                f"by turns, got {conversation!r:.60}"
            )
        turns = [Row(row.place, messages[n]).text("content") for n in (1, 3)]
        pair.append(
            Answers(
                question_id=row.integer("question_id"),
                model=row.text(f"model_{side}"),
                turns=turns,
                finish=["stop", "stop"],
            )
        )
    return pair
