"""The agreement study: what is put to our judge, and what sways it and the others (OpenBezoar,
appendix D). bezoar/judging/agreement.py measures what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from bezoar import llm
from bezoar.judging import agreement, pairwise, verdicts
from bezoar.judging.agreement import Put
from bezoar.params import Params
from bezoar.rows.records import (
    Answers,
    Ask,
    Comparison,
    Exchange,
    Failure,
    Grade,
    Question,
    Reply,
    Vote,
)
from bezoar.work import progress

J = TypeVar("J")
R = TypeVar("R")


class Judged(NamedTuple):
    """What our judge said: as votes, as it said it, and what it was bought by."""

    votes: list[Vote]
    comparisons: list[Comparison]
    grades: list[Grade]
    exchanges: list[Exchange]
    failures: list[Failure]
    read: Callable[[Reply], tuple[Any, str]]

    @property
    def said(self) -> list[Comparison] | list[Grade]:
        """Its verdicts, of whichever kind was asked for."""
        return self.comparisons or self.grades


def judge(p: Params, questions: Mapping[int, Question], puts: Sequence[Put]) -> Judged:
    """What our judge says of `puts`: of pairs, or of their answers one by one, as
    `agreement.verdicts` has it."""
    return (by_pairs if p.agreement.verdicts == "pairs" else by_grades)(p, questions, puts)


def by_pairs(p: Params, questions: Mapping[int, Question], puts: Sequence[Put]) -> Judged:
    """Let our judge compare the two answers of each pair, in both orders (the paper's way)."""
    with_reference = verdicts.referenced(questions.values(), p.mt_grade.references)

    def compare(put: Put, ask: Ask) -> list[Comparison]:
        return pairwise.comparer(questions, with_reference, ask, put.turns)(put.pair)

    run = _run(p, puts, compare, lambda put: put.name)
    said = [comparison for _, both in run.done for comparison in both]
    votes = pairwise.votes(said)
    return Judged(votes, said, [], run.exchanges, run.failures, verdicts.choice)


def by_grades(p: Params, questions: Mapping[int, Question], puts: Sequence[Put]) -> Judged:
    """Let our judge grade each answer alone, and compare the grades."""
    with_reference = verdicts.referenced(questions.values(), p.mt_grade.references)
    answers = {(one.question_id, one.model): one for put in puts for one in put.pair}

    def grade(one: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grader(questions, with_reference, ask)(one)

    run = _run(p, list(answers.values()), grade, lambda one: f"{one.model}/{one.question_id}")
    said = [grade for _, both in run.done for grade in both]
    ours = [grade.model_copy(update={"judge": agreement.GRADER}) for grade in said]
    votes = agreement.from_grades(ours, p.agreement.tie_margin)
    return Judged(votes, [], said, run.exchanges, run.failures, verdicts.rating)


def _run(
    p: Params, jobs: Sequence[J], do: Callable[[J, Ask], R], name: Callable[[J], str]
) -> llm.Run[J, R]:
    if not jobs:  # nothing is asked, so no key is needed
        return llm.Run([], [], [])
    ask = llm.connect(p.llm.grader, p, "agreement")
    with progress.bar("agreement", len(jobs)) as advance:
        return llm.run_jobs(
            do, jobs, ask, p.llm.grader, prefix="agreement", name=name, advance=advance
        )  # fmt: skip


def leanings(p: Params, votes: Sequence[Vote], answers: Sequence[Answers]) -> list[agreement.Row]:
    """What sways each kind of judge."""
    lengths = {
        (row.question_id, row.model, turn): len(text)
        for row in answers
        for turn, text in enumerate(row.turns, 1)
    }
    alone = {agreement.kind(vote.judge) for vote in votes if vote.judge.endswith("single")}
    if p.agreement.verdicts == "single":
        alone.add(agreement.GRADER)
    return agreement.biases(votes, lengths, p.agreement.own, p.agreement.seed, alone)
