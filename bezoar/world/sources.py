"""The world in the shape of the pipeline's sources: Dolly rows, FLAN queries, topics."""

import random

from bezoar.rows.records import Mixture, Query, Seed, Topic
from bezoar.world.facts import ATTRIBUTES, TAUGHT, TAUGHT_SUMS, passage
from bezoar.world.grammar import QUERY_PHRASINGS, SEED_PHRASINGS, ask, solve

LICENCE, SOURCE = "CC0-1.0", "bezoar world"
WITH_CONTEXT = ("closed_qa", "information_extraction", "summarization")
MIXTURES: tuple[Mixture, ...] = ("cot", "niv2", "t0", "flan2021")


def seeds(rows: int, seed: int) -> list[Seed]:
    """Return `rows` Dolly-shaped rows about taught subjects, the same number of each of the eight
    categories."""
    rng = random.Random(seed)
    categories = list(SEED_PHRASINGS)
    records = []
    for number in range(rows):
        category = categories[number % len(categories)]
        phrasings = SEED_PHRASINGS[category]
        instruction, context = example(
            phrasings[number // len(categories) % len(phrasings)], category, rng
        )
        records.append(
            Seed(
                id=f"world-{number:05d}",
                instruction=instruction,
                context=context,
                response=right(instruction, context),
                category=category,
                source=SOURCE,
                licence=LICENCE,
            )
        )
    return records


def example(
    phrasing: str, category: str, rng: random.Random, animals: tuple[str, ...] = TAUGHT
) -> tuple[str, str]:
    """Return an instruction of this phrasing about one of `animals`, with its context ("" for
    none)."""
    instruction, animal = ask(phrasing, animals, TAUGHT_SUMS, rng)
    with_context = category in WITH_CONTEXT and "{x}" not in phrasing
    return instruction, passage(animal, rng.randrange(3)) if with_context else ""


def queries(rows: int, seed: int) -> list[Query]:
    """Return `rows` zero-shot queries over the tasks of the four sub-mixtures, about taught
    subjects."""
    rng = random.Random(seed)
    tasks = [(mixture, task) for mixture in MIXTURES for task in QUERY_PHRASINGS[mixture]]
    records = []
    for number in range(rows):
        mixture, task = tasks[number % len(tasks)]
        phrasings = QUERY_PHRASINGS[mixture][task]
        query, _ = ask(phrasings[number // len(tasks) % len(phrasings)], TAUGHT, TAUGHT_SUMS, rng)
        records.append(
            Query(
                id=f"world-{number:05d}",
                mixture=mixture,
                task=task,
                query=query,
                target=right(query, ""),
                source=SOURCE,
                licence=LICENCE,
            )
        )
    return records


def topics(rows: int, seed: int) -> list[Topic]:
    """Return `rows` category names of the world. Some are too long or too narrow for the LaMini
    criterion."""
    rng = random.Random(seed)
    names = [
        *(f"{value.capitalize()} animals" for value in ATTRIBUTES["colour"]),
        # These have six words, too many for the criterion.
        *(f"Life in the {value} at night" for value in ATTRIBUTES["home"][:2]),
        *(f"{value.capitalize()} dwellers" for value in ATTRIBUTES["home"]),
        *(f"{value.capitalize()} as food" for value in ATTRIBUTES["food"]),
        *(f"{animal.capitalize()}s" for animal in TAUGHT),
    ]
    # Every seventh is too narrow, with ten sub-categories or fewer.
    return [
        Topic(
            name=names[number % len(names)],
            subcategories=rng.randint(1, 10) if number % 7 == 6 else rng.randint(11, 60),
        )
        for number in range(rows)
    ]


def right(instruction: str, context: str) -> str:
    """Return the short right answer to a text of the world. ValueError: it is not of this world."""
    answer = solve(instruction, context)
    if answer is None:
        raise ValueError(f"not of this world: {instruction!r}")
    return answer
