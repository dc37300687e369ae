"""A run without a terminal says now and then how far it is, and how long that will take."""

import subprocess
import sys

import pytest

from bezoar.work.progress import Lines, duration
from tests.conftest import ROOT


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(seconds: list[float], total: float, done: float = 0, each: float = 1) -> list[str]:
    """What is printed where each unit takes as long as `seconds` say, one after the other."""
    clock, said = Clock(), []
    lines = Lines("train", total, done, clock, said.append)
    for unit in seconds:
        clock.now += unit
        lines.advance(each)
    return said


def test_a_long_run_says_so_every_twentieth_with_the_time_left() -> None:
    said = told([6.0] * 100, 100)
    assert len(said) == 20
    assert said[0] == "train: 5 of 100 (5 %), 30 s so far, 9 min 30 s left"
    assert said[9] == "train: 50 of 100 (50 %), 5 min so far, 5 min left"
    assert said[-1] == "train: 100 of 100, 10 min"


def test_a_run_of_hours_says_so_every_five_minutes() -> None:
    said = told([60.0] * 1000, 1000)
    assert said[0] == "train: 5 of 1,000 (0 %), 5 min so far, 16 h 35 min left"
    assert len(said) == 200


def test_what_is_over_in_seconds_says_nothing() -> None:
    assert told([0.04] * 100, 100) == []
    assert told([], 0) == []


def test_a_run_that_goes_on_counts_what_was_done_but_not_its_time() -> None:
    said = told([2.0] * 10, 100, done=90)
    assert said[0] == "train: 95 of 100 (95 %), 10 s so far, 10 s left"
    assert said[-1] == "train: 100 of 100, 20 s"


def test_shares_of_one_add_up_to_the_end_and_no_further() -> None:
    assert told([2.0] * 10, 1, each=0.1)[-1] == "train: 1 of 1, 20 s"
    assert told([9.0] * 3, 5, each=2)[-1] == "train: 5 of 5, 27 s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_a_time_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.slow
def test_a_bar_without_a_terminal_prints_lines_on_standard_error() -> None:
    code = (
        "from bezoar.work import progress\n"
        "progress.SOONEST = 0\n"
        "with progress.bar('grow', 4) as advance:\n"
        "    for _ in range(4): advance(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stdout and len(done.stderr.splitlines()) == 4
    assert done.stderr.startswith("grow: 1 of 4 (25 %), 0 s so far, 0 s left\n")
