"""Finds items of benchmarks in training data: word for word (`ngram`), `whole` though short, and
reworded (`fuzzy`).

Word for word: a row holds `ngram` neighbouring words of an item's question or of one of its
answers.

Whole: a row holds all words of a question that is too short for `ngram`, in their order. A question
of fewer than `whole` words may stand in any text by chance. It counts only as a sentence of its
own, or together with one of the item's answers. A question that items with different answers share
counts only together with an answer.

Reworded: the cosine between a row and a question is high, each as its words weighted by TF-IDF.
Short texts resemble each other by chance, so they need a higher cosine than long ones. Every pair
is compared: no estimate passes one over."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bezoar.params import Decontamination, Params, Step
from bezoar.rows import folding
from bezoar.rows.files import read_jsonl
from bezoar.rows.folding import letters_a_word, ngrams, script, spaceless, unmarked
from bezoar.rows.records import (
    Contamination,
    Item,
    ItemText,
    Pair,
    Probe,
    Query,
    Question,
    Sample,
    Seed,
    SeedContamination,
)

FETCHED = Path("data/fetch")
# Questions of fewer words are not searched for.
LEAST = 2
# Questions of fewer words never count as a sentence of their own.
SENTENCE = 3
# This many pairs are compared at once. Their cosines take 16 MB.
BLOCK = 2_000_000

_ENDS = re.compile(r"[.?!:;\"“”„«»()\[\]*|\n\r。．？！：；…]+")


def words(text: str) -> list[str]:
    """Return the words of a text, without the HTML between them."""
    return folding.words(unmarked(text))


class Row(NamedTuple):
    """The texts of a seed that are searched for items of benchmarks."""

    id: str
    system: str
    instruction: str
    context: str
    response: str


Readable = Row | Sample


class Text(NamedTuple):
    """A text on which checkpoints are evaluated: a question, and the answers to choose from."""

    benchmark: str
    id: str
    question: str
    choices: tuple[str, ...]


def texts(folder: Path = FETCHED) -> list[Text]:
    """Read every text below `folder` on which a checkpoint is evaluated.

    These are the harness items, the held-out questions, both turns of MT-Bench, and the user's
    messages in the test split of the preference pairs. BadInput: a file is missing or broken."""
    benchmark_texts: list[Text] = []
    for path in sorted((folder / "benchmarks/tasks").glob("*.jsonl")):
        for item in read_jsonl(path, Item):
            benchmark_texts.append(Text(path.stem, item.id, item.question, tuple(item.choices)))
    for path in sorted((folder / "benchmarks/texts").glob("*.jsonl")):
        for text in read_jsonl(path, ItemText):
            benchmark_texts.append(Text(path.stem, text.id, text.question, tuple(text.choices)))
    for probe in read_jsonl(folder / "benchmarks/probes.jsonl", Probe):
        benchmark_texts.append(Text("probes", probe.id, probe.instruction, ()))
    for question in read_jsonl(folder / "mt_bench/questions.jsonl", Question):
        for turn in question.turns:
            benchmark_texts.append(Text("mt_bench", str(question.question_id), turn, ()))
    for pair in read_jsonl(folder / "hh_rlhf/test.jsonl", Pair):
        for message in pair.prompt:
            if message.role == "user":
                benchmark_texts.append(Text("hh_rlhf", pair.id, message.content, ()))
    return benchmark_texts


def find(
    samples: Sequence[Sample], benchmarks: Sequence[Text], params: Decontamination
) -> list[list[Contamination]]:
    """Return for each sample the items of `benchmarks` that it holds.

    There is at most one item for each benchmark and kind of match: that with the highest score (the
    first of equals). The items are sorted by the benchmark's name, then by kind."""
    best_matches: list[dict[tuple[str, str], Contamination]] = [{} for _ in samples]
    for kind, matches in (
        ("ngram", _verbatim_matches(samples, benchmarks, params.ngram)),
        ("whole", _whole_matches(samples, benchmarks, params)),
        ("fuzzy", _reworded_matches(samples, benchmarks, params.fuzzy)),
    ):
        for row, index, exact in matches:
            # Scores are compared as contamination.jsonl has them, with three decimals.
            text, score = benchmarks[index], float(f"{exact:.3f}")
            best = best_matches[row].get((text.benchmark, kind))
            if best is None or score > best.score:
                best_matches[row][text.benchmark, kind] = Contamination.model_validate(
                    {
                        "id": samples[row].id,
                        "benchmark": text.benchmark,
                        "item": text.id,
                        "kind": kind,
                        "score": score,
                    }
                )
    return [[contamination for _, contamination in sorted(row.items())] for row in best_matches]


def find_in_seeds(
    samples: Sequence[Sample], scheme: str, benchmarks: Sequence[Text], p: Params
) -> list[SeedContamination]:
    """Return the items that stand word for word or whole in the seeds of `samples`, each with the
    number of rows made from that seed."""
    params, seeds = p.filter.contamination, _read_seeds(p.schemes.by_name[scheme].seeds)
    row_counts = Counter(seed for row in samples for seed in row.seeds)
    used_seeds = [seed for seed in seeds if seed.id in row_counts]
    contaminations: dict[tuple[str, str], SeedContamination] = {}
    for kind, matches in (
        ("ngram", _verbatim_matches(used_seeds, benchmarks, params.ngram)),
        ("whole", _whole_matches(used_seeds, benchmarks, params)),
    ):
        for row, index, score in matches:
            seed, text = used_seeds[row].id, benchmarks[index]
            contaminations.setdefault(
                (seed, text.benchmark),
                SeedContamination.model_validate(
                    {
                        "id": seed,
                        "benchmark": text.benchmark,
                        "item": text.id,
                        "kind": kind,
                        "score": float(f"{score:.3f}"),
                        "rows": row_counts[seed],
                    }
                ),
            )
    return [contamination for _, contamination in sorted(contaminations.items())]


def _read_seeds(source: str) -> list[Row]:
    """Read the seeds below data/fetch/`source` as rows to search."""
    if source == "dolly":
        seeds = read_jsonl(FETCHED / "dolly/seeds.jsonl", Seed)
        return [Row(seed.id, "", seed.instruction, seed.context, seed.response) for seed in seeds]
    queries = read_jsonl(FETCHED / "flan/queries.jsonl", Query)
    return [Row(query.id, "", query.query, "", query.target) for query in queries]


def count_compared(
    samples: Sequence[Sample], benchmarks: Sequence[Text], params: Decontamination
) -> dict[str, Any]:
    """Return compared.json: the numbers of rows and texts compared, and of the texts that could not
    be."""
    bags = [{*words(text.question)} for text in benchmarks]
    counts = [len(words(text.question)) for text in benchmarks]
    row_texts = (f"{sample.instruction} {sample.response}" for sample in samples)
    row_scripts, text_scripts = (
        Counter(map(script, row_texts)),
        Counter(script(text.question) for text in benchmarks),
    )
    return {
        "rows": len(samples),
        "texts": len(benchmarks),
        "ngram": params.ngram,
        "whole": params.whole,
        "sentence": SENTENCE,
        "reworded": params.fuzzy[0].words,
        "short": sum(LEAST <= count < params.whole for count in counts),
        "unsought": sum(count < LEAST for count in counts),
        "shared": sum(
            len(texts)
            for texts in _short_questions(benchmarks, params).values()
            if _is_ambiguous(texts, benchmarks)
        ),
        "not_reworded": sum(len(bag) < params.fuzzy[0].words for bag in bags),
        "by_character": sum(any(map(spaceless, bag)) for bag in bags),
        "scripts_of_rows": dict(sorted(row_scripts.items())),
        "scripts_of_texts": dict(sorted(text_scripts.items())),
    }


def _verbatim_matches(
    samples: Sequence[Readable], benchmarks: Sequence[Text], n: int
) -> Iterator[tuple[int, int, float]]:
    """Yield (sample, text, share of the text's n-grams that the sample holds), both as indices."""
    # Leads from an n-gram to the texts that have it, so each row is read only once.
    owners: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for index, text in enumerate(benchmarks):
        grams = dict.fromkeys(g for part in (text.question, *text.choices) for g in _grams(part, n))
        sizes.append(len(grams))
        for gram in grams:
            owners[gram].append(index)
    for row, sample in enumerate(samples):
        grams = dict.fromkeys(gram for field in _fields(sample) for gram in _grams(field, n))
        gram_counts = Counter(index for gram in grams if gram in owners for index in owners[gram])
        for index, count in gram_counts.items():
            yield row, index, count / sizes[index]


def _fields(sample: Readable) -> tuple[str, ...]:
    """Return a row's texts one by one: a run of words across two of them was written by nobody."""
    return sample.system, sample.instruction, sample.context, sample.response


def _whole_matches(
    samples: Sequence[Readable], benchmarks: Sequence[Text], params: Decontamination
) -> Iterator[tuple[int, int, float]]:
    """Yield (sample, text, 1.0), both as indices, where the sample holds all words of a short
    question."""
    texts_of = _short_questions(benchmarks, params)
    places = _Places(texts_of)
    for row, sample in enumerate(samples):
        fields = [words(field) for field in _fields(sample)]
        for question in dict.fromkeys(run for field in fields for run in places.within(field)):
            # The question alone is enough where it is long, or a sentence of its own. Otherwise
            # one of its answers must stand in the row as well.
            enough = not _is_ambiguous(texts_of[question], benchmarks) and (
                len(question) >= params.whole * letters_a_word(question)
                or (
                    len(question) >= SENTENCE
                    and _stands_alone(question, sample, benchmarks[texts_of[question][0]])
                )
            )
            for index in texts_of[question]:
                if enough or _holds_answer(fields, benchmarks[index].choices):
                    yield row, index, 1.0


def _short_questions(
    benchmarks: Sequence[Text], params: Decontamination
) -> dict[tuple[str, ...], list[int]]:
    """Return the questions that are too short for `ngram`, as words, with the indices of their
    texts."""
    texts_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, text in enumerate(benchmarks):
        question = tuple(words(text.question))
        # In Thai and its like every letter is a token, so a limit in words is multiplied.
        if LEAST <= len(question) < params.ngram * letters_a_word(question):
            texts_of[question].append(index)
    return texts_of


def _is_ambiguous(texts: Sequence[int], benchmarks: Sequence[Text]) -> bool:
    """Say whether one benchmark asks the same question with different answers, or in several
    conversations."""
    answers: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for index in texts:
        answers[benchmarks[index].benchmark].append(benchmarks[index].choices)
    # Different choices mean different things asked. Several texts without choices are turns of
    # several conversations.
    return any(
        len({*choices}) > 1 or (len(choices) > 1 and not choices[0]) for choices in answers.values()
    )


def _stands_alone(question: tuple[str, ...], sample: Readable, text: Text) -> bool:
    """Say whether the question is a sentence of its own. A turn of a conversation, such as "What do
    you think?", has to be a whole field of the row."""
    fields = _fields(sample)
    sentences = (part for field in fields for part in _ENDS.split(unmarked(field)))
    return any(tuple(words(part)) == question for part in (sentences if text.choices else fields))


class _Places:
    """Finds runs of words in a text by their first two."""

    def __init__(self, runs: Iterable[tuple[str, ...]]) -> None:
        self._runs = {*runs}
        lengths: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for run in self._runs:
            lengths[run[:LEAST]].add(len(run))
        # Only the lengths of runs with the same first words are tried at a place of a text.
        self._lengths = {start: sorted(sizes) for start, sizes in lengths.items()}

    def within(self, tokens: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the runs that stand in `tokens`."""
        for position, first_two in enumerate(pairwise(tokens)):
            for length in self._lengths.get(first_two, ()):
                run = tuple(tokens[position : position + length])
                if run in self._runs:
                    yield run


def _holds_answer(fields: Sequence[Sequence[str]], choices: Sequence[str]) -> bool:
    """Say whether a field holds all words of one of the answers."""
    # The blanks at both ends let only whole words match: "art" does not stand in "party".
    texts = [f" {' '.join(field)} " for field in fields]
    answers = [" ".join(words(choice)) for choice in choices]
    return any(f" {answer} " in text for answer in answers if answer for text in texts)


def _grams(text: str, n: int) -> list[str]:
    """Return the n-grams of a text, or none where it has fewer than `n` words."""
    tokens = words(text)
    size = n if text.isascii() else n * letters_a_word(tokens)
    return ngrams(tokens, size) if len(tokens) >= size else []


def _reworded_matches(
    samples: Sequence[Sample], benchmarks: Sequence[Text], steps: Sequence[Step]
) -> Iterator[tuple[int, int, float]]:
    """Yield (sample, text, cosine), both as indices.

    A sample is compared as a whole and line by line, for a longer prompt may have the question on a
    line of its own. A text is compared with its choices and without them."""
    questions, text_of = _bags(
        (
            (index, part)
            for index, text in enumerate(benchmarks)
            for part in (text.question, " ".join((text.question, *text.choices)))
        ),
        steps,
    )
    lines, row_of = _bags(
        (
            (row, part)
            for row, sample in enumerate(samples)
            for prompt in (f"{sample.instruction}\n{sample.context}",)
            for part in (prompt, *prompt.splitlines())
        ),
        steps,
    )
    if not questions or not lines:
        return
    import numpy as np

    spread = Counter(word for bag in questions for word in bag)
    # The rarity of a word (smoothed IDF) is 1 for a word of every question, and `unknown` for a
    # word of none.
    rarity = {word: 1 + math.log((len(questions) + 1) / (n + 1)) for word, n in spread.items()}
    column = {word: number for number, word in enumerate(rarity)}
    unknown = 1 + math.log(len(questions) + 1)
    question_matrix = _matrix(questions, rarity, column, unknown).T.tocsr()
    line_matrix = _matrix(lines, rarity, column, unknown)
    # A pair must reach the higher threshold of the two, which is that of the shorter text.
    question_thresholds, line_thresholds = (
        np.array([_threshold(len(bag), steps) for bag in bags]) for bags in (questions, lines)
    )
    # The cosines of all pairs at once could take more memory than there is.
    block = max(1, BLOCK // len(questions))
    for start in range(0, len(lines), block):
        cosines = (line_matrix[start : start + block] @ question_matrix).toarray()
        thresholds = np.maximum(
            line_thresholds[start : start + block, None], question_thresholds[None, :]
        )
        for line, question in zip(*np.nonzero(cosines >= thresholds), strict=True):
            yield row_of[start + line], text_of[question], float(cosines[line, question])


def _bags(
    parts: Iterator[tuple[int, str]], steps: Sequence[Step]
) -> tuple[list[Counter[str]], list[int]]:
    """Count the words of each part that has enough of them, each part once. Return these counts and
    the index of the part's owner."""
    bags, owners = [], []
    for owner, part in dict.fromkeys(parts):
        # A single character of a script without blanks is no word.
        bag = Counter(word for word in words(part) if part.isascii() or not spaceless(word))
        if len(bag) >= steps[0].words:
            bags.append(bag)
            owners.append(owner)
    return bags, owners


def _threshold(count: int, steps: Sequence[Step]) -> float:
    """Return the cosine that a text of `count` different words must reach."""
    return min(step.cosine for step in steps if step.words <= count)


def _matrix(
    bags: Sequence[Counter[str]], rarity: dict[str, float], column: dict[str, int], unknown: float
) -> Any:
    """Return the TF-IDF of each bag as a row of length 1. A word that no benchmark has is the
    rarest of all. It gets no column, but it makes the rest of its row weigh less."""
    from scipy.sparse import csr_array

    starts, columns, weights = [0], [], []
    for bag in bags:
        row = {word: (1 + math.log(n)) * rarity.get(word, unknown) for word, n in bag.items()}
        length = math.sqrt(sum(weight * weight for weight in row.values())) or 1.0
        entries = sorted((column[word], weight) for word, weight in row.items() if word in column)
        columns += [index for index, _ in entries]
        weights += [weight / length for _, weight in entries]
        starts.append(len(columns))
    return csr_array((weights, columns, starts), shape=(len(bags), len(column)))
