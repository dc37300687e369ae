"""How far our judge agrees with people and with other judges.

reads   data/fetch/mt_bench/: questions.jsonl, answers.jsonl (other models'; may be empty),
        votes.jsonl and grades.jsonl (other judges'; may be empty)
writes  data/agreement/: comparisons.jsonl (our judge's verdicts on pairs, for verdicts: pairs),
        grades.jsonl (its grades, for verdicts: single), replies.jsonl (every exchange, as bought),
        failures.jsonl, study.json (what was asked, on which records, which groups voted),
        table.json (S1, S2 in shares and votes, kappa and an interval for every two kinds of
        judges, a turn each), breakdown.json (the same by category and by pair of models),
        biases.json (what sways each kind)
metrics metrics/agreement/agreement.json: A_B_s1_turn_1 and so on, of our judge's rows; of the given
        judges' where ours judged nothing that they voted on; records, judged, unanswered (pairs
        of models without answers), read, the share of its verdicts that could be read, and of
        references as in mt_grade; metrics/agreement/spending.json
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from bezoar import agreement, budget, llm, pairwise, params, preflight, progress, verdicts, work
from bezoar.agreement import Put
from bezoar.files import read_jsonl, write_json, write_jsonl
from bezoar.params import Params
from bezoar.records import (
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

J = TypeVar("J")
R = TypeVar("R")

SOURCE = "data/fetch/mt_bench"


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


def main() -> None:
    work.begin()
    p = params.load()
    questions = {q.question_id: q for q in read_jsonl(f"{SOURCE}/questions.jsonl", Question)}
    answers = list(read_jsonl(f"{SOURCE}/answers.jsonl", Answers))
    others = agreement.given(
        list(read_jsonl(f"{SOURCE}/votes.jsonl", Vote)),
        list(read_jsonl(f"{SOURCE}/grades.jsonl", Grade)),
        p.agreement.tie_margin,
    )
    records = agreement.records(others, p.agreement.records)
    puts, unanswered = agreement.puts(records, answers, p.agreement.limit)
    if puts:
        preflight.stage("agreement")
    judged = (by_pairs if p.agreement.verdicts == "pairs" else by_grades)(p, questions, puts)
    study = agreement.described(others, judged.votes, records)
    votes = agreement.only([*others, *judged.votes], records)
    rows = agreement.table(votes, p.agreement.seed)
    category_of = {id: question.category for id, question in questions.items()}
    how = {"verdicts": p.agreement.verdicts, "which": p.agreement.records}
    write_json("data/agreement/study.json", how | study)
    write_json("data/agreement/table.json", rows)
    write_json("data/agreement/breakdown.json", agreement.breakdown(votes, category_of))
    write_json("data/agreement/biases.json", leanings(p, votes, answers))
    counts = {
        "records": len(records),
        "judged": sum(study["judged"].values()),
        "unanswered": unanswered,
        "read": verdicts.share_read([one.status for one in judged.said]),
        **verdicts.reference_metrics(judged.said),
    }
    write_json("metrics/agreement/agreement.json", agreement.flat(rows) | counts)
    keep(p, judged)


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
        return llm.each(
            do, jobs, ask, p.llm.grader, where="agreement", name=name, advance=advance
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


def keep(p: Params, judged: Judged) -> None:
    """Write what our judge said, then stop where it cannot be read."""
    write_jsonl("data/agreement/comparisons.jsonl", judged.comparisons)
    write_jsonl("data/agreement/grades.jsonl", judged.grades)
    write_jsonl("data/agreement/replies.jsonl", judged.exchanges)
    write_jsonl("data/agreement/failures.jsonl", judged.failures)
    spent = budget.spending(p.llm.grader, judged.exchanges)
    write_json("metrics/agreement/spending.json", spent.model_dump())
    where = f"agreement, {p.llm.grader.model}"
    statuses = [one.status for one in judged.said]
    verdicts.hold(where, statuses, judged.exchanges, judged.read)
    verdicts.tell_unreferenced(where, judged.said)


if __name__ == "__main__":
    main()
