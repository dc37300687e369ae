"""Asks judges in rounds: about the rows with known answers first where the stage may stop for them,
then about all (judging/known.py)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bezoar.judging import known, panel, verdicts
from bezoar.judging.pairwise import Pair, compare_answers
from bezoar.llm import Run
from bezoar.llm.asker import Asker
from bezoar.params import Params
from bezoar.rows.files import read_jsonl
from bezoar.rows.records import Answers, Ask, Comparison, Grade, Question, Reply, Sample, Verdict

J = TypeVar("J", Answers, Pair)
V = TypeVar("V", Grade, Comparison)

QUESTIONS = "data/fetch/mt_bench/questions.jsonl"


# --- judges of samples ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ruling:
    """The verdicts of one round by judge, each in the order of the samples. `trust` says how each
    judge did on the known rows, `runs` what was bought of it. `judged` has its verdicts on them
    all, by their ids."""

    votes: dict[str, list[Verdict]]
    trust: dict[str, known.Metrics]
    runs: Mapping[str, Run[Sample, Verdict]]
    judged: dict[str, dict[str, Verdict]]
    check: known.Check

    @property
    def failed(self) -> dict[str, int]:
        """The number of requests that failed for good, by judge."""
        return {judge: len(run.failures) for judge, run in self.runs.items()}

    def check_judges(self, label: str) -> None:
        """Check each judge. BadInput: one of them can be neither read nor trusted."""
        for judge, run in self.runs.items():
            prefix = f"{label}, {judge}"
            panel.check_read(prefix, self.votes[judge] or list(self.judged[judge].values()), run)
            self.check.tell(prefix, self.trust[judge])


def judge(asker: Asker, p: Params, source: str, samples: Sequence[Sample]) -> Iterator[Ruling]:
    """Ask all judges about `samples`, and yield the ruling of each round. `source` has the seeds
    that the known rows are drawn from."""
    scale, check = p.judge.scale, known.check(source, p.known)
    rows = check.samples(explained=any(sample.expected for sample in samples))
    for some in check.rounds(samples):
        runs = asker.run_all(
            lambda sample, ask: verdicts.judge(sample, scale, ask),
            [*rows, *some],
            lambda sample: sample.id,
        )
        judged = {judge: panel.by_id(run, judge) for judge, run in runs.items()}
        yield Ruling(
            votes={judge: [by_id[s.id] for s in some] for judge, by_id in judged.items()},
            trust={judge: check.of_verdicts(by_id, scale) for judge, by_id in judged.items()},
            runs=runs,
            judged=judged,
            check=check,
        )


# --- the grader of MT-Bench answers ---------------------------------------------------------------


@dataclass(frozen=True)
class Round(Generic[J, V]):
    """The grader's verdicts of one round on `jobs`. `trust` says how it did on the known rows, on
    which `of_rows` has its verdicts. `run` bought them all, and `read` reads a reply."""

    jobs: Sequence[J]
    verdicts: list[V]
    of_rows: list[V]
    trust: known.Metrics
    run: Run[J, list[V]]
    read: Callable[[Reply], tuple[Any, str]]
    check: known.Check

    @property
    def retried(self) -> int:
        """The number of requests that were made once more."""
        return verdicts.retries(known.without_known(self.run.exchanges), self.read)

    def check_grader(self, prefix: str) -> None:
        """Check the grader. BadInput: it can be neither read nor trusted."""
        statuses = [verdict.status for verdict in self.verdicts or self.of_rows]
        verdicts.check_read(prefix, statuses, self.run.exchanges, self.read)
        verdicts.tell_unreferenced(prefix, self.verdicts)
        self.check.tell(prefix, self.trust)


def grade(asker: Asker, p: Params, answers: Sequence[Answers]) -> Iterator[Round[Answers, Grade]]:
    """Have the grader grade a model's answers, and yield its grades of each round."""
    check = known.check("dolly", p.known)
    questions, with_reference = _questions(p, check)

    def grade_one(row: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grade_answers(row, questions, with_reference, ask)

    for some in check.rounds(answers):
        run = asker.run(grade_one, [*check.answers, *some], known.job_name)
        of_rows, grades = known.separate(run.done)
        trust = check.of_grades(of_rows)
        yield Round(some, grades, of_rows, trust, run, verdicts.rating, check)


def compare(asker: Asker, p: Params, pairs: Sequence[Pair]) -> Iterator[Round[Pair, Comparison]]:
    """Have the grader compare the answers of each pair, and yield its comparisons of each round.
    Without pairs nothing is asked, not even about the known rows."""
    check = known.check("dolly", p.known if pairs else None)
    questions, with_reference = _questions(p, check) if pairs else ({}, frozenset[int]())

    def compare_one(pair: Pair, ask: Ask) -> list[Comparison]:
        return compare_answers(pair, questions, with_reference, ask)

    for some in check.rounds(pairs):
        run = asker.run(compare_one, [*check.pairs, *some], known.pair_job_name)
        of_rows, comparisons = known.separate(run.done)
        trust = check.of_comparisons(of_rows)
        yield Round(some, comparisons, of_rows, trust, run, verdicts.choice, check)


def _questions(p: Params, check: known.Check) -> tuple[dict[int, Question], frozenset[int]]:
    """Return the questions of MT-Bench and of the check by their ids, and the ids of those that are
    judged beside a reference answer."""
    mt_bench = list(read_jsonl(QUESTIONS, Question))
    questions = {question.question_id: question for question in mt_bench} | check.questions
    return questions, verdicts.referenced_ids(mt_bench, p.mt_grade.references)
