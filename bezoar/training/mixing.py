"""The rows that a link of the chain learns from: one set or several mixed, and earlier rows again.

Replay mixes in rows of the links before, so that the model does not forget them (LAB, arXiv
2403.01081).
"""

from collections.abc import Sequence
from random import Random

from bezoar.rows import chat
from bezoar.rows.records import Example, Kept, Pair


def example(row: Kept | Pair, source: str) -> Example:
    """Put a row of the set `source` through the chat template. A pair teaches its chosen answer."""
    prompt, completion = chat.from_pair(row)[:2] if isinstance(row, Pair) else chat.from_sample(row)
    return Example(id=row.id, prompt=prompt, completion=completion, source=source)


def mix(
    sets: Sequence[Sequence[Example]],
    earlier: Sequence[Sequence[Example]],
    replay: float,
    rng: Random,
) -> list[Example]:
    """Return all rows of `sets`, mixed with rows of the sets `earlier`.

    The earlier rows are `replay` times as many as the rows of `sets` (0.1: one for every ten). A
    single set without replay keeps its order. All else is shuffled.
    """
    rows = [row for examples in sets for row in examples]
    again = draw(earlier, round(replay * len(rows)), rng)
    if len(sets) > 1 or again:
        rows += again
        rng.shuffle(rows)
    return rows


def draw(sets: Sequence[Sequence[Example]], count: int, rng: Random) -> list[Example]:
    """Draw `count` rows from `sets`, none twice and as many from each set.

    A set that has fewer gives all it has, and the others give more. All rows are returned where
    `sets` hold no more than `count`.
    """
    examples: list[Example] = []
    # From the smallest set on, each gives an even share of what is still to be drawn, if it has so
    # many. Of 9 rows from sets of 1, 5 and 10 the first gives 1 instead of 3, the others 4 each.
    for sets_left, rows in zip(range(len(sets), 0, -1), sorted(sets, key=len), strict=True):
        examples += rng.sample(rows, min(len(rows), (count - len(examples)) // sets_left))
    return examples
