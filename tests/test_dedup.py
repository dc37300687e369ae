"""Copies of seeds: the fast search decides as the paper's plain loop does."""

import json
import random
from difflib import SequenceMatcher
from itertools import islice

import Levenshtein
import pytest

from bezoar import dedup
from tests.conftest import DATA

DOLLY = DATA / "dolly" / "databricks-dolly-15k.jsonl"


def plain(text: str, seeds: list[str], ratio: float, distance: int) -> dedup.Copy | None:
    """Paper 2.1, word for word."""
    best, best_ratio = -1, -1.0
    for index, seed in enumerate(seeds):
        similar = SequenceMatcher(None, seed, text).ratio()
        if similar > best_ratio:
            best, best_ratio = index, similar
    if best < 0:
        return None
    edits = Levenshtein.distance(text, seeds[best])
    if best_ratio >= ratio and edits <= distance:
        return dedup.Copy(best, best_ratio, edits)
    return None


def edited(text: str, edits: int, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(edits):
        at = rng.randrange(len(letters) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            letters.insert(at, rng.choice("abc ?é"))
        elif letters and at < len(letters):
            letters[at : at + 1] = [] if kind == 1 else [rng.choice("xyz.")]
    return "".join(letters)


@pytest.mark.parametrize("alphabet", ["ab", "abcdefgh ", "what is the colour of cat dog fox "])
@pytest.mark.parametrize("longest", [6, 30, 260])
def test_every_decision_is_that_of_the_plain_loop(alphabet: str, longest: int) -> None:
    rng = random.Random(f"{alphabet}{longest}")
    words = alphabet.split() if " c" in alphabet else list(alphabet)

    def text() -> str:
        return (" " if len(words[0]) > 1 else "").join(
            rng.choice(words) for _ in range(rng.randrange(longest // len(words[0]) + 1))
        )

    size = 60 if longest < 100 else 12  # the plain loop is slow on long texts
    seeds = [text() for _ in range(size)]
    seeds += [edited(rng.choice(seeds), rng.randrange(4), rng) for _ in range(size // 2)]
    texts = [edited(rng.choice(seeds), rng.randrange(14), rng) for _ in range(size)] + ["", text()]
    wanted = [plain(t, seeds, 0.6, 9) for t in texts]
    assert dedup.copies(texts, seeds, 0.6, 9) == wanted
    assert any(wanted), "the data must hold copies, or the test shows nothing"
    for ratio, distance in ((0.9, 3), (0.0, 0), (1.0, 9)):
        assert dedup.copies(texts, seeds, ratio, distance) == [
            plain(t, seeds, ratio, distance) for t in texts
        ]


def test_the_most_similar_seed_decides_not_the_nearest() -> None:
    text = "abcdefghijklmnopqrst"
    nearest, most_similar = "abcdefghijklm1234567", text + "0123456789"
    assert dedup.copies([text], [nearest], 0.6, 9)[0] == dedup.Copy(0, 0.65, 7)
    assert dedup.copies([text], [nearest, most_similar], 0.6, 9) == [None]
    assert dedup.copies([text], [most_similar, nearest], 0.6, 10)[0] == dedup.Copy(0, 0.8, 10)


def test_the_first_of_equally_similar_seeds_decides() -> None:
    text = "abcdefghij"
    near, far = "abcdefghi1", "abcdefghi2"
    assert dedup.copies([text], [near, far], 0.6, 9)[0] == dedup.Copy(0, 0.9, 1)
    # as similar as `near` in other letters, and further away: swapped halves
    text, near, far = "aaaabbbb", "aaaacccc", "bbbbdddd"
    assert dedup.copies([text], [near, far], 0.5, 4)[0] == dedup.Copy(0, 0.5, 4)
    assert dedup.copies([text], [far, near], 0.5, 4) == [None]


@pytest.mark.parametrize(
    ("text", "seed", "copied"),
    [
        ("What is a heron?", "What is a heron?", True),
        ("What is a heron now?", "What is a heron?", True),
        ("What is a heron, and why is it grey?", "What is a heron?", False),  # distance
        ("abcdefgh", "stuvwxyz", False),  # ratio
        ("", "What is a heron?", False),
        ("", "", True),
    ],
)
def test_both_thresholds_must_be_met(text: str, seed: str, copied: bool) -> None:
    assert (dedup.copies([text], [seed], 0.6, 9)[0] is not None) == copied


def test_the_thresholds_themselves_count() -> None:
    seed, text = "abcde", "abcxy"
    assert SequenceMatcher(None, seed, text).ratio() == 0.6
    assert Levenshtein.distance(seed, text) == 2
    assert dedup.copies([text], [seed], 0.6, 2)[0] is not None
    assert dedup.copies([text], [seed], 0.61, 2)[0] is None
    assert dedup.copies([text], [seed], 0.6, 1)[0] is None


def test_nothing_to_compare_with_copies_nothing() -> None:
    assert dedup.copies(["a", "b"], [], 0.0, 99) == [None, None]
    assert dedup.copies([], ["a"], 0.0, 99) == []


def test_dolly_itself_decides_as_the_plain_loop() -> None:
    if not DOLLY.exists():
        pytest.skip(f"needs {DOLLY.name} in the shared data folder")
    with DOLLY.open(encoding="utf-8") as lines:
        seeds = [json.loads(line)["instruction"] for line in islice(lines, 5000)]
    rng = random.Random(1)
    texts = [edited(rng.choice(seeds), rng.randrange(30), rng) for _ in range(100)]
    found = dedup.copies(texts, seeds, 0.6, 9)
    assert 20 < sum(copy is not None for copy in found) < 60
    at = next(i for i, copy in enumerate(found) if copy)
    assert found[at] == plain(texts[at], seeds, 0.6, 9)
