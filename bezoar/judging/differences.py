"""Tests of the difference between two checkpoints' scores, compared item by item.

Items that both find easy or hard cancel out, so a paired interval is narrower than one from two
standard errors."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")

# Standard deviations that hold 95 % of a normal distribution.
Z = 1.96
# Ours: items below which the mean of differences is too far from normal.
FEWEST = 30
# Ours: bootstrap samples of an interval.
RESAMPLES = 1000


class Difference(NamedTuple):
    """A mean difference over `n` items, and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def real(self) -> bool:
        """True where the interval leaves out zero, and there are enough items to trust it."""
        return self.n >= FEWEST and (self.low > 0 or self.high < 0)


def paired_change(before: Mapping[str, float], after: Mapping[str, float]) -> Difference | None:
    """Return how much higher `after` scores than `before`, item by item, on the items that both
    have. Return None for fewer than two items.

    Scores may be 0 and 1 or lie between. The interval is the normal approximation: 1.96 standard
    errors of the mean, from the standard deviation of the differences."""
    moved = [after[item] - score for item, score in before.items() if item in after]
    if len(moved) < 2:
        return None
    mean, error = math.fsum(moved) / len(moved), standard_error(moved)
    return Difference(mean, mean - Z * error, mean + Z * error, len(moved))


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean of at least two values."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def bootstrap(values: Iterable[tuple[int, float]], seed: int) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean of (question, value), resampled by question.
    Values of one question (its two turns) are not independent. None for fewer than two questions.
    """
    by_question: dict[int, list[float]] = defaultdict(list)
    for question, value in values:
        by_question[question].append(value)
    sums = tuple((math.fsum(scores), len(scores)) for scores in by_question.values())
    return _interval_of_means(sums, seed)


# A report states many an interval in several places.
@lru_cache(maxsize=1024)
def _interval_of_means(
    sums: tuple[tuple[float, int], ...], seed: int
) -> tuple[float, float] | None:
    return bootstrap_interval(sums, _mean, seed)


def bootstrap_interval(
    questions: Sequence[T], measure: Callable[[list[T]], float], seed: int
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of `measure`, resampled by question. Each element of
    `questions` has all values of one question. None for fewer than two questions."""
    if len(questions) < 2:
        return None
    rng = Random(seed)
    estimates = sorted(measure(rng.choices(questions, k=len(questions))) for _ in range(RESAMPLES))
    # 2.5 % of the estimates lie beyond either end.
    tail = RESAMPLES // 40
    return estimates[tail], estimates[-tail - 1]


def _mean(sums: list[tuple[float, int]]) -> float:
    return math.fsum(total for total, _ in sums) / sum(n for _, n in sums)


def bootstrap_change(
    before: Mapping[tuple[int, int], float], after: Mapping[tuple[int, int], float], seed: int
) -> Difference | None:
    """Return the same as `paired_change`, by (question, turn). The interval is that of `bootstrap`,
    and `n` counts questions."""
    moved = [(key[0], after[key] - score) for key, score in before.items() if key in after]
    if (interval := bootstrap(moved, seed)) is None:
        return None
    mean = math.fsum(value for _, value in moved) / len(moved)
    return Difference(mean, *interval, len({question for question, _ in moved}))
