"""Checks whether a judge is better than a coin: it is asked about real rows with known answers.

A row is a seed of the run, shown once with its own answer and once with another row's. The other
answers are the same ones, each moved on by a row. So each answer is right once and wrong once, and
a judge that likes long or fluent answers gains nothing by it. Ours: the paper trusts its judge
unchecked."""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from bezoar.judging.differences import bootstrap, bootstrap_interval
from bezoar.judging.pairwise import WORTH, Pair
from bezoar.params import FEWEST_KNOWN, Known
from bezoar.rows import chat
from bezoar.rows.files import BadInput, read_jsonl
from bezoar.rows.records import (
    UNSAID,
    Answers,
    Comparison,
    Exchange,
    Grade,
    Query,
    Question,
    Sample,
    Seed,
    Verdict,
)

T = TypeVar("T")
G = TypeVar("G", Grade, Comparison)

SIDES = ("own", "other")
# The names of jobs on a row of a check start with this.
PREFIX = "known/"
# The rows as MT-Bench questions have numbers below this, which no other question has.
BELOW = -(10**9)
# Ours: Jaccard index of two texts' words from which they may mean the same.
ALIKE = 0.6
# Ours: characters of a row, so that the check is cheap and fits any context.
LONGEST = 2000
# Ours: words of an answer that can be complete, or an explanation (shorter answers come last).
WORDY = 5

_WORD = re.compile(r"\w+")
Metrics = dict[str, int | float | None]


class Row(NamedTuple):
    """A question, its own answer, and the answer to another question."""

    question: str
    own: str
    other: str


@dataclass(frozen=True)
class _Fact:
    """A seed's question and answer, with the words that tell it from others. Most of thousands of
    seeds are never looked at, so the words are computed only when they are needed."""

    question: str
    answer: str

    @cached_property
    def of_question(self) -> frozenset[str]:
        """The words of the question. Short words are left out, because any two questions share
        them."""
        words = _words(self.question)
        return frozenset(word for word in words if len(word) > 3) or words

    @cached_property
    def of_answer(self) -> frozenset[str]:
        """The words of the answer."""
        return _words(self.answer)

    @property
    def short(self) -> bool:
        """True where the answer has fewer than WORDY different words."""
        return len([*islice(_distinct_words(self.answer), WORDY)]) < WORDY

    def alike(self, neighbour: "_Fact") -> bool:
        """Say whether the answer to one may be right for the other."""
        return (
            self.of_answer <= neighbour.of_answer
            or neighbour.of_answer <= self.of_answer
            or _jaccard(self.of_answer, neighbour.of_answer) >= ALIKE
            or _jaccard(self.of_question, neighbour.of_question) >= ALIKE
        )


def draw(seeds: Iterable[Seed | Query], params: Known) -> list[Row]:
    """Draw at most `params.rows` rows in a ring, where each row's other answer is the next row's
    own.

    Two neighbours have neither nearly the same question nor nearly the same answer. Seeds without
    an answer are passed over. Those with a short one come last."""
    facts = [fact for seed in seeds if (fact := _fact(seed))]
    Random(params.seed).shuffle(facts)
    # The sort is stable, so the long and the short answers each stay shuffled.
    facts.sort(key=lambda fact: fact.short)
    ring: list[_Fact] = []
    while len(ring) < params.rows:
        # The next row stands beside the last one, and the one that closes the ring beside the first
        # as well. The comparison is a slice end: 1 for the row that closes the ring, else 0.
        beside = [ring[-1], *ring[: len(ring) == params.rows - 1]] if ring else []
        index = next((i for i, f in enumerate(facts) if not any(map(f.alike, beside))), None)
        if index is None:
            break
        ring.append(facts.pop(index))
    # The ring closes at another row than planned where the seeds did not suffice.
    while len(ring) > 1 and ring[-1].alike(ring[0]):
        ring.pop()
    return [
        Row(fact.question, fact.answer, following.answer)
        for fact, following in zip(ring, [*ring[1:], *ring[:1]], strict=True)
    ]


def _fact(seed: Seed | Query) -> _Fact | None:
    if isinstance(seed, Query):
        question, answer = seed.query, seed.target
    else:
        question, answer = chat.with_input(seed.instruction, seed.context), seed.response
    if not _WORD.search(question) or not _WORD.search(answer):
        return None
    return _Fact(question, answer) if len(question) + len(answer) <= LONGEST else None


def _distinct_words(text: str) -> Iterator[str]:
    """Yield the words of a text, each where it first stands."""
    seen: set[str] = set()
    for match in _WORD.finditer(text.lower()):
        if match[0] not in seen:
            seen.add(match[0])
            yield match[0]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@dataclass(frozen=True)
class Check:
    """The rows with known answers that a judge is asked about. There are none where the check is
    off (`params` is None), or where `source` has too few usable rows. `had` is how many it has."""

    params: Known | None
    source: str
    had: int
    rows: list[Row]

    def rounds(self, jobs: Sequence[T]) -> list[Sequence[T]]:
        """Split the other `jobs` of the stage into rounds. There is one round with all jobs. If the
        stage may stop because of the check, an empty round comes before it. The ledger answers the
        rows in the second round."""
        stops = self.params is not None and self.params.below == "stop" and self.rows
        return [[], jobs] if stops else [jobs]

    def samples(self, explained: bool) -> list[Sample]:
        """Return a sample for each answer of each row. With `explained` the row's own answer is the
        expected one."""
        return [
            Sample(
                id=_name(index, side),
                scheme="known",
                system="",
                instruction=row.question,
                context="",
                response=getattr(row, side),
                expected=row.own if explained else "",
                category="known",
                details={},
                seeds=[],
                licence="",
                teacher="",
                simulated=False,
            )
            for index, row in enumerate(self.rows)
            for side in SIDES
        ]

    @property
    def questions(self) -> dict[int, Question]:
        """The rows as MT-Bench questions of one turn."""
        return {
            id: Question(question_id=id, category="known", turns=[row.question, ""], reference=[])
            for id, row in self._numbered()
        }

    @property
    def pairs(self) -> list[Pair]:
        """Both answers of each row, its own first. The second turn is empty: there a rule decides,
        and no grader is asked."""
        return [
            (_answers(id, "own", row.own), _answers(id, "other", row.other))
            for id, row in self._numbered()
        ]

    def _numbered(self) -> list[tuple[int, Row]]:
        return [(BELOW - index, row) for index, row in enumerate(self.rows, 1)]

    @property
    def answers(self) -> list[Answers]:
        """The answers of `pairs`, one after the other."""
        return [answers for pair in self.pairs for answers in pair]

    def of_verdicts(self, judged: Mapping[str, Verdict], scale: int) -> Metrics:
        """Return metrics of a judge's verdicts, by the ids of `samples`: those of `_ranked`, and
        for either side the share of answers that it accepts. An accepted answer ranks above a
        rejected one, then the rating counts."""
        rows = [
            {side: judged.get(_name(index, side)) for side in SIDES}
            for index in range(len(self.rows))
        ]
        # A row that was not put to the judge says nothing of it.
        asked_rows = [row for row in rows if not any(map(_not_asked, row.values()))]
        sides = {side: [row[side] for row in asked_rows] for side in SIDES}
        own_worths, other_worths = (
            [_worth(v, scale) for v in verdicts] for verdicts in sides.values()
        )
        return self._ranked(list(zip(own_worths, other_worths, strict=True))) | {
            f"known_accepted_{side}": _share(
                [v is not None and v.status == "accepted" for v in its]
            )
            for side, its in sides.items()
        }

    def of_grades(self, grades: Iterable[Grade]) -> Metrics:
        """Return metrics of a grader's grades of `answers`: those of `_ranked`."""
        first = [grade for grade in grades if grade.turn == 1]
        scores = {(grade.question_id, grade.model): grade.score for grade in first}
        # A row that was not put to the grader says nothing of it.
        left_out = {grade.question_id for grade in first if grade.status in UNSAID}
        return self._ranked(
            [
                (scores.get((id, "own")), scores.get((id, "other")))
                for id in self.questions
                if id not in left_out
            ]
        )

    def of_comparisons(self, comparisons: Iterable[Comparison]) -> Metrics:
        """Return metrics of a grader's comparisons of `pairs`. `known_auc` is how often the row's
        own answer wins. A tie counts as a half, and so does a comparison that the order decided.
        `known_order` is how often the order decided, of the pairs read in both orders."""
        first = [comparison for comparison in comparisons if comparison.turn == 1]
        winner_of = {comparison.question_id: comparison.winner for comparison in first}
        left_out = {comparison.question_id for comparison in first if comparison.status in UNSAID}
        winners = {id: winner_of.get(id) for id in self.questions if id not in left_out}
        worth = [(id, WORTH[winner or "tie"]) for id, winner in winners.items()]
        decided = [winner for winner in winners.values() if winner]
        mean = sum(w for _, w in worth) / len(worth) if worth else None
        return self._metrics(
            mean,
            bootstrap(worth, self._seed),
            _share([winner is not None for winner in winners.values()]),
        ) | {"known_order": _share([winner == "inconsistent" for winner in decided])}

    def _ranked(self, worth: Sequence[tuple[float | None, float | None]]) -> Metrics:
        """Return metrics of the worth of each row's own answer and of its other answer. A worth is
        None where no reply could be read."""
        return self._metrics(
            auc(worth) if worth else None,
            bootstrap_interval(worth, auc, self._seed),
            _share([value is not None for pair in worth for value in pair]),
        )

    def _metrics(
        self, value: float | None, interval: tuple[float, float] | None, read: float | None
    ) -> Metrics:
        """Return `known_rows`, `known_auc` with its 95 % interval (a bootstrap over rows), and
        `known_read`. `known_rows` is how many rows the source has (None where the check is off),
        `known_read` the share of replies that could be read."""
        low, high = interval or (None, None)
        return {
            "known_rows": None if self.params is None else self.had,
            "known_auc": value,
            "known_auc_low": low,
            "known_auc_high": high,
            "known_read": read,
        }

    @property
    def _seed(self) -> int:
        return self.params.seed if self.params else 0

    def tell(self, label: str, metrics: Metrics) -> None:
        """Print on stderr that the check could not be made, or that the judge `label` is below the
        least AUC. BadInput: it is below, and the parameters say to stop."""
        value = metrics["known_auc"]
        if self.params is None or (value is not None and value >= self.params.least_auc):
            return
        if value is None:
            why = (
                f"none of {self.had} rows of {self.source} could be put to it"
                if self.rows
                else f"{self.source} has {self.had} rows with answers unlike each other, "
                f"{FEWEST_KNOWN} are the least"
            )
            print(f"{label}: not checked for being better than a coin: {why}", file=sys.stderr)
            return
        message = (
            f"{label}: {self._in_words(metrics)}; below known.least_auc {self.params.least_auc:g} "
            "its word is worth little: name a better model"
        )
        if self.params.below == "stop":
            raise BadInput(f"{message}, or go on with known.below: warn")
        print(f"warning: {message}", file=sys.stderr)

    def _in_words(self, metrics: Metrics) -> str:
        value, low, high, read = (
            metrics[f"known_{key}"] for key in ("auc", "auc_low", "auc_high", "read")
        )
        words = (
            f"tells right answers from wrong ones with an AUC of {value:.2f} ({low:.2f} to "
            f"{high:.2f}; a coin has 0.50) on {self.had} rows of {self.source}, {read:.0%} of its "
            "replies read"
        )
        order = metrics.get("known_order")
        return words if order is None else f"{words}, the order decided {order:.0%}"


def check(source: str, params: Known | None) -> Check:
    """Return the check on the seeds of data/fetch/`source`. It has no rows where they are not
    fetched."""
    if params is None:
        return Check(None, source, 0, [])
    return check_on(_read_seeds(f"data/fetch/{source}"), source, params)


def check_on(seeds: Iterable[Seed | Query], source: str, params: Known | None) -> Check:
    """Return the check on these seeds."""
    rows = draw(seeds, params) if params else []
    return Check(
        params, f"data/fetch/{source}", len(rows), rows if len(rows) >= FEWEST_KNOWN else []
    )


def _read_seeds(folder: str) -> list[Seed] | list[Query]:
    if (seeds := Path(folder, "seeds.jsonl")).exists():
        return list(read_jsonl(seeds, Seed))
    queries = Path(folder, "queries.jsonl")
    return list(read_jsonl(queries, Query)) if queries.exists() else []


def auc(worth: Sequence[tuple[float | None, float | None]]) -> float:
    """Return how often a row's own answer ranks above another row's, over all own and all other
    answers. A tie counts as a half. A reply that was not read (None) ties with everything: silence
    earns nothing."""
    others = sorted(other_worth for _, other_worth in worth if other_worth is not None)
    # Each own answer counts the other answers below it less those above it. Ties and answers that
    # were not read add nothing to the lead, which is a half in the result.
    lead = sum(
        bisect_left(others, own_worth) - (len(others) - bisect_right(others, own_worth))
        for own_worth, _ in worth
        if own_worth is not None
    )
    return 0.5 + lead / (2 * len(worth) ** 2)


def separate(done: Iterable[tuple[object, Sequence[G]]]) -> tuple[list[G], list[G]]:
    """Return a grader's grades of the rows of a check, and all its other grades."""
    everything = [grade for _, grades in done for grade in grades]
    return (
        [grade for grade in everything if grade.question_id < BELOW],
        [grade for grade in everything if grade.question_id >= BELOW],
    )


def without_known(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Return the exchanges that are not about the rows of a check."""
    return [exchange for exchange in exchanges if not exchange.job.startswith(PREFIX)]


def job_name(answers: Answers) -> str:
    """Return the name under which a grader's job is filed: a question's number, or a known row and
    its side."""
    return _name_of(answers.question_id, answers.model)


def pair_job_name(pair: Pair) -> str:
    """Return the same name as `job_name` for a comparison."""
    return _name_of(pair[0].question_id, "both")


def _name_of(id: int, side: str) -> str:
    return _name(BELOW - id - 1, side) if id < BELOW else str(id)


def _name(index: int, side: str) -> str:
    return f"{PREFIX}{index}/{side}"


def _answers(id: int, model: str, text: str) -> Answers:
    return Answers(question_id=id, model=model, turns=[text, ""], finish=["stop", "stop"])


def _not_asked(verdict: Verdict | None) -> bool:
    """Say whether the judge was not asked, or a server gave no reply."""
    return verdict is not None and verdict.rating is None and verdict.reason.startswith(UNSAID)


def _worth(verdict: Verdict | None, scale: int) -> float | None:
    """Return a number that ranks answers by verdict, or None where no verdict could be read."""
    if verdict is None or verdict.rating is None:
        return None
    # The lowest accepted rating, 1 + scale, lies above the highest rejected one, scale.
    return verdict.rating + scale * (verdict.status == "accepted")


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
