"""What a link of the chain learns from: one set, or several mixed, and rows of the links before,
seen again so that they are not forgotten (replay, as in LAB, arXiv 2403.01081)."""

from collections.abc import Sequence
from random import Random

from bezoar.rows import chat
from bezoar.rows.records import Example, Kept, Pair


def example(row: Kept | Pair, source: str) -> Example:
    """A row of the set `source` through the chat template; a pair teaches its chosen answer."""
    prompt, completion = chat.from_pair(row)[:2] if isinstance(row, Pair) else chat.from_sample(row)
    return Example(id=row.id, prompt=prompt, completion=completion, source=source)


def mix(
    sets: Sequence[Sequence[Example]],
    earlier: Sequence[Sequence[Example]],
    replay: float,
    rng: Random,
) -> list[Example]:
    """The rows of the sets `own`, and beside them rows of the sets `earlier`: `replay` of their
    number. One set alone keeps its order, all else is shuffled."""
    rows = [row for examples in sets for row in examples]
    again = draw(earlier, round(replay * len(rows)), rng)
    if len(sets) > 1 or again:
        rows += again
        rng.shuffle(rows)
    return rows


def draw(sets: Sequence[Sequence[Example]], count: int, rng: Random) -> list[Example]:
    """`wanted` rows, none twice and as many from each set. A set that has fewer gives all it has,
    and the others give more; all rows, where there are no more than that."""
    examples: list[Example] = []
    for sets_left, rows in zip(range(len(sets), 0, -1), sorted(sets, key=len), strict=True):
        examples += rng.sample(rows, min(len(rows), (count - len(examples)) // sets_left))
    return examples
