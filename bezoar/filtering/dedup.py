"""Finds copies of seeds (OpenBezoar 3.1.1) and rows that ask nearly the same.

Copies are found faster than by the plain double loop, with the same decisions. Near-duplicates are
proposed by MinHash and then compared word by word."""

from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import Levenshtein

from bezoar.rows.folding import ngrams, words


class Copy(NamedTuple):
    """The seed that a text copies: its index, gestalt ratio and Levenshtein distance."""

    seed: int
    ratio: float
    distance: int


def copies(
    texts: Sequence[str], seeds: Sequence[str], ratio: float, distance: int
) -> list[Copy | None]:
    """Return for each text the seed it copies, or None.

    The most similar seed is the one with the highest `SequenceMatcher(None, seed, text).ratio()`,
    the first of equals. The text is its copy where that ratio is at least `ratio` and their
    Levenshtein distance at most `distance`.

    The plain loop takes the ratio of every pair. Here the distance comes first, because a text with
    no seed within `distance` is no copy. Otherwise it is a copy only if the best of the near seeds
    is the best of all seeds. The other seeds are compared only where their upper bound reaches that
    ratio."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, seed in enumerate(seeds):
        by_length[len(seed)].append(index)
    copy_of = {t: _find_copy(t, seeds, by_length, ratio, distance) for t in dict.fromkeys(texts)}
    return [copy_of[text] for text in texts]


def _find_copy(
    text: str, seeds: Sequence[str], by_length: dict[int, list[int]], ratio: float, distance: int
) -> Copy | None:
    """Return the seed that `text` copies, or None. `by_length` has the indices of the seeds by
    their length in characters."""
    near = {
        index: edits
        for length in range(max(0, len(text) - distance), len(text) + distance + 1)
        for index in by_length.get(length, ())
        # Above score_cutoff the search stops early and returns distance + 1.
        if (edits := Levenshtein.distance(text, seeds[index], score_cutoff=distance)) <= distance
    }
    if not near:
        return None
    # SequenceMatcher caches what it computes of its second text, so only the first one changes.
    matcher: SequenceMatcher[str] = SequenceMatcher(None, "", text)
    best, best_ratio = -1, -1.0
    for index in sorted(near):
        matcher.set_seq1(seeds[index])
        if (similar := matcher.ratio()) > best_ratio:
            best, best_ratio = index, similar
    if best_ratio < ratio:
        return None
    # Another seed that is more similar would be the one to copy, and it is not near enough.
    for length, indices in by_length.items():
        if _highest_ratio(length, len(text)) < best_ratio:
            continue
        for index in indices:
            if index in near or not _may_reach(best_ratio, text, seeds[index]):
                continue
            matcher.set_seq1(seeds[index])
            similar = matcher.ratio()
            # An earlier seed wins a tie. A later one must be better.
            if similar > best_ratio or (similar == best_ratio and index < best):
                return None
    return Copy(best, best_ratio, near[best])


def _may_reach(ratio: float, a: str, b: str) -> bool:
    """Say whether the gestalt ratio of two texts may be `ratio` or more. Its matching blocks are a
    common subsequence, so it is at most 2 LCS / (len(a) + len(b)). Levenshtein.ratio computes that
    fast."""
    # The two libraries round differently.
    cutoff = ratio - 1e-9
    return bool(Levenshtein.ratio(a, b, score_cutoff=max(0.0, cutoff)) >= cutoff)


def _highest_ratio(a: int, b: int) -> float:
    """Return an upper bound on the ratio of texts of these lengths (difflib's real_quick_ratio)."""
    return 2.0 * min(a, b) / (a + b) if a + b else 1.0


# --- near-duplicates -----------------------------------------------------------------------------

# 42 bands of 3 hashes: two texts of Jaccard index 0.5 become candidates with a probability of
# 0.996, of 0.8 all but always. The exact index of a candidate is then computed.
BANDS, ROWS = 42, 3


class Near(NamedTuple):
    """A row that asks nearly the same: its name, and how near it is (0 to 1)."""

    name: str
    similarity: float


# The lines of a text, as the words of each line -> their n-grams.
Lines = dict[str, frozenset[str]]


class Neighbours:
    """An index of rows, each under a name, that finds the row nearest to a new one.

    Two rows are as near as their instructions or their contexts, whichever are less similar. So two
    questions about one passage are no duplicates.

    The similarity of two texts is a Jaccard index of word n-grams. Lines that both texts have are
    left out: a definition or a passage that many queries of FLAN share says nothing about the rest.
    Texts of the same lines have similarity 1."""

    def __init__(self, ngram: int, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._ngram, self._threshold = ngram, threshold
        self._empty = MinHash(num_perm=BANDS * ROWS, seed=1)
        self._index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._rows: list[tuple[str, Lines, Lines]] = []

    def add(self, name: str, instruction: str, context: str) -> None:
        """Add a row to the index."""
        instruction_lines, context_lines = self._lines(instruction), self._lines(context)
        self._index.insert(len(self._rows), self._sketch(instruction_lines, context_lines))
        self._rows.append((name, instruction_lines, context_lines))

    def nearest(self, instruction: str, context: str) -> Near | None:
        """Return the nearest row (the first of equals), or None where none is as near as the
        threshold."""
        instruction_lines, context_lines = self._lines(instruction), self._lines(context)
        best: Near | None = None
        for index in sorted(self._index.query(self._sketch(instruction_lines, context_lines))):
            name, *lines = self._rows[index]
            similarity = min(map(_similarity, (instruction_lines, context_lines), lines))
            if similarity >= self._threshold and (best is None or similarity > best.similarity):
                best = Near(name, similarity)
        return best

    def _lines(self, text: str) -> Lines:
        word_lists = (words(line) for line in text.splitlines())
        return {" ".join(line): frozenset(ngrams(line, self._ngram)) for line in word_lists if line}

    def _sketch(self, *texts: Lines) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch(
            [gram.encode() for lines in texts for grams in lines.values() for gram in grams]
        )
        return sketch


def _similarity(first: Lines, second: Lines) -> float:
    first_grams = {gram for line, grams in first.items() if line not in second for gram in grams}
    second_grams = {gram for line, grams in second.items() if line not in first for gram in grams}
    return (
        len(first_grams & second_grams) / len(first_grams | second_grams)
        if first_grams or second_grams
        else 1.0
    )
