"""Runs the agreement study (OpenBezoar, appendix D): puts answers to our judge, and measures
biases. bezoar/judging/agreement.py measures the agreement."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bezoar.judging import agreement, pairwise, verdicts
from bezoar.judging.agreement import Put
from bezoar.llm import Run
from bezoar.llm.asker import Asker
from bezoar.params import Params
from bezoar.rows.files import read_jsonl
from bezoar.rows.records import (
    Answers,
    Ask,
    Comparison,
    Grade,
    Question,
    Reply,
    Vote,
)


class Judged(NamedTuple):
    """The verdicts of our judge: as `votes`, and as `comparisons` or `grades`.

    `run` bought them, and `read` reads a reply."""

    votes: list[Vote]
    comparisons: list[Comparison]
    grades: list[Grade]
    run: Run[Any, Any]
    read: Callable[[Reply], tuple[Any, str]]

    @property
    def verdicts(self) -> list[Comparison] | list[Grade]:
        """Its comparisons or grades, whichever were asked for."""
        return self.comparisons or self.grades

    def check_grader(self, prefix: str) -> None:
        """Check our judge's replies. BadInput: they cannot be read."""
        statuses = [verdict.status for verdict in self.verdicts]
        verdicts.check_read(prefix, statuses, self.run.exchanges, self.read)
        verdicts.tell_unreferenced(prefix, self.verdicts)


def read_others(folder: str, p: Params) -> list[Vote]:
    """Read the votes and grades of other judges, as votes. There are none in a run in which no
    checkpoint answers MT-Bench: it has no grader to compare with anybody."""
    if not p.checkpoints:
        return []
    votes = list(read_jsonl(f"{folder}/votes.jsonl", Vote))
    grades = list(read_jsonl(f"{folder}/grades.jsonl", Grade))
    return agreement.judgements(votes, grades, p.agreement.tie_margin)


def judge(
    asker: Asker, p: Params, questions: Mapping[int, Question], puts: Sequence[Put]
) -> Judged:
    """Ask our judge about `puts`: about pairs, or about their answers one by one, as
    `agreement.verdicts` has it."""
    return (by_pairs if p.agreement.verdicts == "pairs" else by_grades)(asker, p, questions, puts)


def by_pairs(
    asker: Asker, p: Params, questions: Mapping[int, Question], puts: Sequence[Put]
) -> Judged:
    """Let our judge compare the two answers of each pair, in both orders (the paper's way)."""
    with_reference = verdicts.referenced_ids(questions.values(), p.mt_grade.references)

    def compare(put: Put, ask: Ask) -> list[Comparison]:
        return pairwise.compare_answers(put.pair, questions, with_reference, ask, put.turns)

    run = asker.run(compare, puts, lambda put: put.name)
    comparisons = [comparison for _, judged in run.done for comparison in judged]
    votes = pairwise.votes(comparisons)
    return Judged(votes, comparisons, [], run, verdicts.choice)


def by_grades(
    asker: Asker, p: Params, questions: Mapping[int, Question], puts: Sequence[Put]
) -> Judged:
    """Let our judge grade each answer alone, and compare the grades."""
    with_reference = verdicts.referenced_ids(questions.values(), p.mt_grade.references)
    answers_of = {
        (model_answers.question_id, model_answers.model): model_answers
        for put in puts
        for model_answers in put.pair
    }

    def grade(model_answers: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grade_answers(model_answers, questions, with_reference, ask)

    run = asker.run(
        grade,
        list(answers_of.values()),
        lambda model_answers: f"{model_answers.model}/{model_answers.question_id}",
    )
    grades = [grade for _, judged in run.done for grade in judged]
    ours = [grade.model_copy(update={"judge": agreement.GRADER}) for grade in grades]
    votes = agreement.from_grades(ours, p.agreement.tie_margin)
    return Judged(votes, [], grades, run, verdicts.rating)


def describe(
    p: Params, others: Sequence[Vote], judged: Judged, records: Collection[agreement.Item]
) -> dict[str, Any]:
    """Return study.json: the settings, and the numbers of agreement.describe."""
    settings = {"verdicts": p.agreement.verdicts, "which": p.agreement.records}
    return settings | agreement.describe(others, judged.votes, records)


def counts(
    description: Mapping[str, Any], unanswered: int, judged: Judged
) -> dict[str, int | float | None]:
    """Count the records of `description`, those that our judge judged, and those that lack answers
    (`unanswered`). Return the counts with the share of its verdicts that could be read, and with
    verdicts.reference_metrics."""
    return {
        "records": sum(description["records"].values()),
        "judged": sum(description["judged"].values()),
        "unanswered": unanswered,
        "read": verdicts.share_read([verdict.status for verdict in judged.verdicts]),
        **verdicts.reference_metrics(judged.verdicts),
    }


def biases(p: Params, votes: Sequence[Vote], answers: Sequence[Answers]) -> list[agreement.Row]:
    """Return the biases of each kind of judge, as agreement.biases."""
    lengths = {
        (row.question_id, row.model, turn): len(text)
        for row in answers
        for turn, text in enumerate(row.turns, 1)
    }
    # These judges saw one answer at a time, so no answer was shown first.
    alone = {agreement.kind(vote.judge) for vote in votes if vote.judge.endswith("single")}
    if p.agreement.verdicts == "single":
        alone.add(agreement.GRADER)
    return agreement.biases(votes, lengths, p.agreement.own, p.agreement.seed, alone)
