"""Differences between checkpoints, item by item: by hand, and how often an interval holds."""

import math
import random

import pytest

from bezoar.judging.differences import (
    FEWEST,
    Difference,
    bootstrap,
    bootstrap_change,
    bootstrap_interval,
    paired_change,
    standard_error,
)


def scores(values: list[float]) -> dict[str, float]:
    return {str(n): value for n, value in enumerate(values)}


def test_a_difference_counted_by_hand() -> None:
    # of 40 items 10 get right that were wrong, 2 the other way
    before = scores([0.0] * 10 + [1.0] * 2 + [1.0] * 20 + [0.0] * 8)
    after = scores([1.0] * 10 + [0.0] * 2 + [1.0] * 20 + [0.0] * 8)
    found = paired_change(before, after)
    # mean 8/40; squares 12, so the variance is (12 - 40 * 0.04) / 39 and the error 0.0816497
    assert found == pytest.approx((0.2, 0.2 - 0.1600333, 0.2 + 0.1600333, 40), abs=1e-6)
    assert found and found.real
    back = paired_change(after, before)
    assert back == pytest.approx((-0.2, -0.3600333, -0.0399667, 40), abs=1e-6)
    assert back and back.real


def test_scores_between_zero_and_one() -> None:
    # differences 0.1, 0.3, 0.2: mean 0.2, standard deviation 0.1
    found = paired_change(scores([0.5, 0.25, 0.0]), scores([0.6, 0.55, 0.2]))
    half = 1.96 * 0.1 / math.sqrt(3)
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half, 3))
    assert found and found.low > 0 and not found.real, f"fewer than {FEWEST} items prove nothing"


def test_what_is_alike_is_not_different() -> None:
    same = scores([0.0, 1.0] * 20)
    assert paired_change(same, same) == (0, 0, 0, 40)
    assert not Difference(0, 0, 0, 40).real


def test_items_are_paired_by_name_not_by_place() -> None:
    found = paired_change({"a": 1.0, "b": 0.0, "c": 1.0}, {"b": 0.0, "a": 1.0, "d": 1.0})
    assert found == (0, 0, 0, 2), "c and d stand on one side alone"
    assert paired_change({"a": 1.0, "b": 0.0}, {"a": 1.0}) is None
    assert paired_change({}, {}) is None


def test_pairing_is_narrower_than_two_errors_apart() -> None:
    before = [float(n % 2) for n in range(100)]
    after = [*before[:95], *(1 - score for score in before[95:])]
    found = paired_change(scores(before), scores(after))
    assert found
    apart = math.hypot(standard_error(before), standard_error(after))
    assert found.high - found.low < 2 * 1.96 * apart / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "better", "worse"), [(60, 0.2, 0.1), (200, 0.1, 0.1), (800, 0.05, 0)]
)
def test_95_of_100_intervals_hold_the_truth(n: int, better: float, worse: float) -> None:
    rng = random.Random(f"{n} {better} {worse}")
    held = marked = 0
    for _ in range(1000):
        moved = rng.choices([1.0, -1.0, 0.0], [better, worse, 1 - better - worse], k=n)
        found = paired_change(scores([0.0] * n), scores(moved))
        assert found
        held += found.low <= better - worse <= found.high
        marked += found.real
    assert 0.93 <= held / 1000 <= 0.97
    if better == worse:
        assert marked / 1000 <= 0.07, "one in twenty by chance, not more"


# --- over questions ------------------------------------------------------------------------------


def test_a_bootstrap_draws_questions_not_values() -> None:
    told = [(n, float(n % 2)) for n in range(80)]
    once, twice = bootstrap(told, 1), bootstrap([*told, *told], 1)
    assert once and once == twice, "a question's second turn that says the same adds nothing"
    assert once[0] < 0.5 < once[1]
    # 1.96 * sqrt(0.25 / 80) = 0.11 either side
    assert (once[1] - once[0]) / 2 == pytest.approx(0.11, abs=0.02)
    assert bootstrap(told, 1) == once and bootstrap(told, 2) != once
    assert bootstrap([(1, 0.0), (1, 9.0)], 1) is None and bootstrap([], 1) is None


def test_any_measure_is_redrawn_by_question() -> None:
    told = [(n, float(n % 7)) for n in range(40)]

    def mean(drawn: list[float]) -> float:
        assert len(drawn) == 40
        return math.fsum(drawn) / 40

    values = [value for _, value in told]
    assert bootstrap_interval(values, mean, 3) == bootstrap(told, 3)
    assert bootstrap_interval(values, max, 3) == (6, 6)
    assert bootstrap_interval(values[:1], max, 3) is None


@pytest.mark.slow
def test_95_of_100_bootstraps_hold_the_truth() -> None:
    rng = random.Random(80)
    held = 0
    for seed in range(200):
        hard = [rng.gauss(5, 2) for _ in range(80)]
        told = [(n, mean + rng.gauss(0, 1)) for n, mean in enumerate(hard) for _ in (1, 2)]
        interval = bootstrap(told, seed)
        assert interval
        held += interval[0] <= 5 <= interval[1]
    assert 0.9 <= held / 200 <= 0.99


def test_grades_are_paired_by_question_and_turn() -> None:
    before = {(q, turn): float(q % 7) for q in range(40) for turn in (1, 2)}
    after = {key: score + key[1] - 1 for key, score in before.items() if key != (3, 2)}
    found = bootstrap_change(before, after, 5)
    assert found and found.n == 40 and found.mean == 39 / 79
    # questions differ by up to 6 grades, turns of one by none: only (3, 1) moves the interval
    assert 0.45 < found.low < found.mean <= found.high <= 0.5 and found.real
    assert bootstrap_change(before, {}, 5) is None
    assert bootstrap_change({(1, 1): 2.0, (1, 2): 3.0}, {(1, 1): 4.0, (1, 2): 4.0}, 5) is None
