"""Copies of seeds: the fast search decides as the paper's plain loop does. Near-duplicates: what
counts as near, and the search misses none."""

import json
import os
import random
import subprocess
import sys
from difflib import SequenceMatcher
from itertools import islice

import Levenshtein
import pytest

from benchmarks.copies import measure
from bezoar.filtering import dedup
from bezoar.rows import folding
from tests.conftest import DATA, ROOT

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
@pytest.mark.slow
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


@pytest.mark.slow
def test_the_benchmark_agrees_with_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [f"What is the name of river {n} of the {n % 7} hills?" for n in range(40)]
    found = measure(seeds, 24)
    assert found.keys() == {"seconds_24", "agreement", "ratio", "growth_10x", "growth_100x"}
    assert found["agreement"] == 1
    assert "2,400 instructions" in capsys.readouterr().out


@pytest.mark.slow
def test_dolly_itself_decides_as_the_plain_loop() -> None:
    """A real sample against 3,000 seeds, every decision; the texts are rows with edits."""
    seeds = dolly(3000)
    rng = random.Random(1)
    texts = [edited(rng.choice(seeds), rng.randrange(30), rng) for _ in range(40)]
    found = dedup.copies(texts, seeds, 0.6, 9)
    assert 5 < sum(copy is not None for copy in found) < 30
    assert found == [plain(text, seeds, 0.6, 9) for text in texts]


# --- near-duplicates -----------------------------------------------------------------------------


def nearest(
    rows: list[tuple[str, str]], asked: tuple[str, str], threshold: float = 0.85
) -> dedup.Near | None:
    neighbours = dedup.Neighbours(3, threshold)
    for number, row in enumerate(rows):
        neighbours.add(str(number), *row)
    return neighbours.nearest(*asked)


PASSAGE = (
    "The river rises in the hills and runs through four towns before it comes to the sea, where "
    "people keep boats behind their houses and wade from side to side in late summer."
)


@pytest.mark.parametrize(
    "other",
    [
        "Name three rivers that run through four towns or more, and say where they end.",
        "name THREE rivers that run through four towns or more - and say where they end!",
        "Name three rivers that run through four towns or more, and say where they end please.",
        "Name three  rivers that run through\tfour towns or more, and say where they end.",
        "Please name three rivers that run through four towns or more, and say where they end.",
    ],
)
def test_the_same_question_in_nearly_the_same_words_is_near(other: str) -> None:
    asked = "Name three rivers that run through four towns or more, and say where they end."
    near = nearest([("What is a heron?", ""), (asked, "")], (other, ""))
    assert near and near.name == "1" and near.similarity >= 0.85


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("What is the capital of France?", ""), ("What is the capital of Spain?", "")),
        (("Who built the bridge?", PASSAGE), ("How deep is the water?", PASSAGE)),
        (("Who built it?", PASSAGE + " It is old."), ("How deep is it?", PASSAGE + " It is new.")),
        (("Sum it up.", PASSAGE), ("Sum it up.", "Herons are grey and live on fish.")),
        # a definition, or a passage, in the query itself
        ((f"{PASSAGE}\nWho built it?", ""), (f"{PASSAGE}\nHow deep is it?", "")),
        (("Name a river.", ""), ("", "")),
    ],
)
def test_other_questions_are_not_near(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert nearest([one], other) is None
    assert nearest([other], one) is None


def test_the_nearest_row_is_found_and_the_first_of_equals() -> None:
    words = [f"w{n}" for n in range(40)]
    rows = [" ".join([*words[:-cut], "x"]) for cut in (3, 1, 1, 2)]
    near = nearest([(row, "") for row in rows], (" ".join(words), ""), 0.5)
    assert near == dedup.Near("1", 37 / 39)


def test_the_threshold_itself_counts() -> None:
    one, other = ("a b c d e f", ""), ("a b c d e x", "")
    assert nearest([one], other, 0.6) == dedup.Near("0", 0.6)
    assert nearest([one], other, 0.61) is None


def test_empty_texts_are_near_each_other_alone() -> None:
    assert nearest([("", ""), ("a", "")], ("", "")) == dedup.Near("0", 1.0)
    assert nearest([], ("a", "")) is None


@pytest.mark.slow
def test_no_near_pair_is_missed() -> None:
    """Against a count of every pair, on texts whose likeness runs from none to all."""
    rng = random.Random(3)
    texts: list[str] = []
    for _ in range(60):
        words = [f"w{rng.randrange(300)}" for _ in range(rng.randrange(8, 60))]
        for edits in range(6):
            changed = list(words)
            for _ in range(edits):
                changed[rng.randrange(len(changed))] = "other"
            texts.append(" ".join(changed))
    neighbours = dedup.Neighbours(3, 0.6)
    found = 0
    for at, text in enumerate(texts):
        grams = {*folding.ngrams(text.split(), 3)}
        likest = 0.0
        for before in texts[:at]:
            others = {*folding.ngrams(before.split(), 3)}
            likest = max(likest, len(grams & others) / len(grams | others))
        near = neighbours.nearest(text, "")
        assert (near.similarity if near else 0) == (likest if likest >= 0.6 else 0)
        found += near is not None
        neighbours.add(str(at), text, "")
    assert 50 < found < 300


@pytest.mark.parametrize("seed", ["1", "2"])
@pytest.mark.slow
def test_the_same_is_found_under_any_hash_seed(seed: str) -> None:
    code = (
        "from bezoar.filtering import dedup\n"
        "n = dedup.Neighbours(2, 0.5)\n"
        "for i in range(30): n.add(str(i), f'name the river number {i % 5} of the hills', '')\n"
        "print(n.nearest('name the river number 3 of the hills today', ''))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == "Near(name='3', similarity=0.875)"


def test_words_have_no_case_marks_or_typographic_variants() -> None:
    assert folding.words("The ﬁrst_STRAẞE, isn't ２１!") == [
        *("the", "first", "strasse", "isn", "t", "21")
    ]
    assert folding.ngrams(["a", "b", "c"], 2) == ["a b", "b c"]
    assert folding.ngrams(["a"], 2) == ["a"]
    assert folding.ngrams([], 2) == []


def dolly(count: int) -> list[str]:
    if not DOLLY.exists():
        pytest.skip(f"needs {DOLLY.name} in the shared data folder")
    with DOLLY.open(encoding="utf-8") as lines:
        return [json.loads(line)["instruction"] for line in islice(lines, count)]
