"""Copies of seeds (OpenBezoar 2.1), found fast: the same decisions as of the plain double loop."""

from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import Levenshtein


class Copy(NamedTuple):
    """The seed that a text copies: its index, gestalt ratio and Levenshtein distance."""

    seed: int
    ratio: float
    distance: int


def copies(
    texts: Sequence[str], seeds: Sequence[str], ratio: float, distance: int
) -> list[Copy | None]:
    """For each text the seed it copies, or None. The rule: of all seeds take the most similar by
    `SequenceMatcher(None, seed, text).ratio()`, the first of equals; the text is its copy when that
    ratio is at least `ratio` and their Levenshtein distance at most `distance`.

    The plain loop takes the ratio of every pair. Here the distance comes first: no seed within
    `distance` means no copy. Else the text is a copy only if the best of those near seeds is the
    best of all, and of the others only those are compared whose upper bound reaches it."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, seed in enumerate(seeds):
        by_length[len(seed)].append(index)
    found = {t: _copied(t, seeds, by_length, ratio, distance) for t in dict.fromkeys(texts)}
    return [found[text] for text in texts]


def _copied(
    text: str, seeds: Sequence[str], by_length: dict[int, list[int]], ratio: float, distance: int
) -> Copy | None:
    near = {
        index: edits
        for length in range(max(0, len(text) - distance), len(text) + distance + 1)
        for index in by_length.get(length, ())
        # score_cutoff: a distance above it comes back as distance + 1, early
        if (edits := Levenshtein.distance(text, seeds[index], score_cutoff=distance)) <= distance
    }
    if not near:
        return None
    matcher: SequenceMatcher[str] = SequenceMatcher(None, "", text)
    best, best_ratio = -1, -1.0
    for index in sorted(near):
        matcher.set_seq1(seeds[index])
        if (similar := matcher.ratio()) > best_ratio:
            best, best_ratio = index, similar
    if best_ratio < ratio:
        return None
    for length, indices in by_length.items():
        if _bound(length, len(text)) < best_ratio:
            continue
        for index in indices:
            if index in near or not _may_reach(best_ratio, text, seeds[index]):
                continue
            matcher.set_seq1(seeds[index])
            similar = matcher.ratio()
            # an earlier seed wins a tie, a later one must be better
            if similar > best_ratio or (similar == best_ratio and index < best):
                return None
    return Copy(best, best_ratio, near[best])


def _may_reach(ratio: float, a: str, b: str) -> bool:
    """False where the gestalt ratio is certainly below `ratio`: its matching blocks are a common
    subsequence, and 2 LCS / (len(a) + len(b)) is what Levenshtein.ratio computes, fast."""
    cutoff = ratio - 1e-9  # the two round differently
    return bool(Levenshtein.ratio(a, b, score_cutoff=max(0.0, cutoff)) >= cutoff)


def _bound(a: int, b: int) -> float:
    """No ratio of texts of these lengths is higher (difflib's real_quick_ratio)."""
    return 2.0 * min(a, b) / (a + b) if a + b else 1.0
