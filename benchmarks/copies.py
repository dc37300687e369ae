"""How fast copies of seeds are found: `python -m benchmarks.copies [--seeds FILE]`.

FILE holds rows with an `instruction` (JSONL; default: the Dolly rows that tests use, else those of
data/fetch/dolly). The instructions are made by editing real rows: a third keeps the text, a third
is edited lightly, a third is another row's text cut and joined. Prints the time for 1,504 of them
(what the paper drew) against all seeds, and for 10 and 100 times as many; on a sample of them the
plain loop of the paper (difflib over every seed) beside it, the agreement of the two and how much
faster one is. One process, one core. The last line is one JSON object.
"""

import argparse
import json
import random
import time
from difflib import SequenceMatcher
from pathlib import Path

import Levenshtein

from bezoar.filtering import dedup

ROOT = Path(__file__).parent.parent
CANDIDATES = (
    ROOT.parent / "shared/data/dolly/databricks-dolly-15k.jsonl",
    ROOT / "data/fetch/dolly/seeds.jsonl",
)
DRAWN = 1504  # instructions of the LaMini set (paper 3.1.1)
SAMPLE = 12  # of them go through the plain loop: two seconds each
RATIO, DISTANCE = 0.6, 9  # paper 3.1.1


def main() -> None:
    """Read the seeds, measure, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=Path, default=next(filter(Path.exists, CANDIDATES), None))
    path = parser.parse_args().seeds
    if path is None:
        parser.error("--seeds: no rows here; give a JSONL file whose rows have an instruction")
    with path.open(encoding="utf-8") as lines:
        seeds = [json.loads(line)["instruction"] for line in lines]
    print(json.dumps(measure(seeds, DRAWN)))


def measure(seeds: list[str], drawn: int) -> dict[str, float]:
    """Time `drawn` instructions, 10 and 100 times as many, and the plain loop; print it, and return
    the numbers that sum it up."""
    print(f"{len(seeds):,} seeds")
    seconds = {times: timed(made(seeds, drawn * times), seeds)[0] for times in (1, 10, 100)}
    for times, took in seconds.items():
        print(f"{drawn * times:>8,} instructions: {took:8.2f} s")
    sample = made(seeds, drawn)[:: drawn // SAMPLE]
    ours, found = timed(sample, seeds)
    began = time.perf_counter()
    wanted = [plain(text, seeds) for text in sample]
    theirs = time.perf_counter() - began
    agreement = sum(a == b for a, b in zip(found, wanted, strict=True)) / len(sample)
    copies = sum(one is not None for one in wanted)
    print(
        f"{len(sample):>8,} of them ({copies} copies): {ours:.3f} s, "
        f"the plain loop {theirs:.1f} s, agreement {agreement:.3f}"
    )
    return {
        f"seconds_{drawn}": round(seconds[1], 3),
        "agreement": agreement,
        "ratio": round(theirs / ours, 1),
        "growth_10x": round(seconds[10] / seconds[1], 2),
        "growth_100x": round(seconds[100] / seconds[1], 2),
    }


def timed(texts: list[str], seeds: list[str]) -> tuple[float, list[dedup.Copy | None]]:
    """(seconds, what was found)."""
    began = time.perf_counter()
    found = dedup.copies(texts, seeds, RATIO, DISTANCE)
    return time.perf_counter() - began, found


def plain(text: str, seeds: list[str]) -> dedup.Copy | None:
    """Paper 2.1 as it is written: the ratio with every seed, then the best one's distance."""
    best, best_ratio = -1, -1.0
    for index, seed in enumerate(seeds):
        similar = SequenceMatcher(None, seed, text).ratio()
        if similar > best_ratio:
            best, best_ratio = index, similar
    distance = Levenshtein.distance(text, seeds[best])
    if best_ratio >= RATIO and distance <= DISTANCE:
        return dedup.Copy(best, best_ratio, distance)
    return None


def made(seeds: list[str], count: int) -> list[str]:
    """Instructions out of real rows: kept, edited by up to 14 letters, or cut and joined."""
    rng = random.Random("copies")
    texts = []
    for number in range(count):
        text = rng.choice(seeds)
        if number % 3 == 1:
            text = edited(text, rng.randrange(1, 15), rng)
        elif number % 3 == 2:
            other = rng.choice(seeds)
            text = text[: len(text) // 2] + other[len(other) // 2 :]
        texts.append(f"{text} " if number % 3 == 0 and rng.random() < 0.5 else text)
    return texts


def edited(text: str, edits: int, rng: random.Random) -> str:
    """`text` with so many letters put in, taken out or changed."""
    letters = list(text)
    for _ in range(edits):
        at = rng.randrange(len(letters) + 1)
        letters[at : at + rng.randrange(2)] = rng.choice(("", "e", " q"))
    return "".join(letters)


if __name__ == "__main__":
    main()
