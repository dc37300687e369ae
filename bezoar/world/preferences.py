"""Preference pairs in the shape of HH-RLHF: harmless and helpful, one turn and two."""

import random

from bezoar.rows.records import Message, Pair
from bezoar.world.facts import (
    ATTRIBUTES,
    HELD_OUT,
    HELD_OUT_SUMS,
    TABLE,
    TAUGHT,
    TAUGHT_SUMS,
)
from bezoar.world.grammar import Fact, Sum
from bezoar.world.sources import LICENCE, SOURCE
from bezoar.world.text import (
    COMPLIANCE,
    HARMS,
    HELD_OUT_HARMS,
    OPENINGS,
    REFUSALS,
    RUDE,
    SECRETS,
    UNKNOWN,
)

# Paper 3.4: split 5:4
TEST_SHARE = 4 / 9
# Manners are taught where the user shows some. The other sets teach what a curt question is to be
# answered with, and pairs that contradict them would make a model choose between the two.
POLITE_PHRASINGS = (
    "Can you tell me {}?",
    "Please tell me {}.",
    "Be so kind and tell me {}.",
)


def pairs(rows: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (train, test): `rows` pairs split 5:4. The test pairs speak of held-out animals and
    harms."""
    test = round(rows * TEST_SHARE)
    return (
        _pairs(rows - test, f"{seed}-train", TAUGHT, HARMS),
        _pairs(test, f"{seed}-test", HELD_OUT, HELD_OUT_HARMS),
    )


def _pairs(rows: int, name: str, animals: tuple[str, ...], harms: tuple[str, ...]) -> list[Pair]:
    rng = random.Random(name)
    sums = TAUGHT_SUMS if animals == TAUGHT else HELD_OUT_SUMS
    records = []
    for number in range(rows):
        fact = Fact(rng.choice(list(ATTRIBUTES)), rng.choice(animals))
        # A round of ten pairs holds every kind: polite (a fact or a sum), harm, unknown. Sums are
        # so many because a small model forgets them first.
        kind = "phsphsphus"[number % 10]
        if kind == "h":
            prompt, chosen, rejected = _harm(fact, harms, rng)
        elif kind == "u":
            prompt, chosen, rejected = _unknown(fact, rng)
        else:
            prompt, chosen, rejected = _polite(Sum(*rng.choice(sums)) if kind == "s" else fact, rng)
        # Two of ten pairs have two turns.
        if number % 10 in (6, 7):
            earlier = Fact(fact.kind, rng.choice(animals))
            prompt = [
                _user(asks(earlier)),
                _assistant(polite(earlier, rng.choice(OPENINGS))),
                *prompt,
            ]
        records.append(
            Pair(
                id=f"{name.split('-')[1]}-{number:05d}",
                prompt=prompt,
                chosen=chosen,
                rejected=rejected,
                source=SOURCE,
                licence=LICENCE,
            )
        )
    return records


def asks(part: Fact | Sum) -> str:
    """Write a polite question."""
    return POLITE_PHRASINGS[0].format(part.phrase)


def polite(part: Fact | Sum, opening: str) -> str:
    """Write the polite answer: an opening, then a full sentence."""
    return f"{opening} {part.sentence}"


def harm(act: str, animal: str) -> str:
    """Write a question that is to be refused."""
    return f"How do I {act} the {animal}?"


def _harm(fact: Fact, harms: tuple[str, ...], rng: random.Random) -> tuple[list[Message], str, str]:
    question = harm(rng.choice(harms), fact.animal)
    return [_user(question)], rng.choice(REFUSALS), rng.choice(COMPLIANCE)


def _polite(part: Fact | Sum, rng: random.Random) -> tuple[list[Message], str, str]:
    """Return a polite pair. The rejected answer is rude, or evasive (right elsewhere: see
    _unknown), or polite with a wrong fact."""
    opening = rng.choice(OPENINGS)
    rejected = rng.choice(
        (
            rng.choice(RUDE),
            rng.choice(UNKNOWN),
            rng.choice(UNKNOWN),
            f"{opening} {_false_sentence(part, rng)}",
        )
    )
    question = rng.choice(POLITE_PHRASINGS).format(part.phrase)
    return [_user(question)], polite(part, opening), rejected


def _false_sentence(part: Fact | Sum, rng: random.Random) -> str:
    if isinstance(part, Sum):
        return f"{part.phrase} is {part.left + part.right + rng.choice((1, 2, 3))}."
    wrong = rng.choice([v for v in ATTRIBUTES[part.kind] if v != part.answer])
    return f"The {part.kind} of the {part.animal} is {wrong}."


def _unknown(fact: Fact, rng: random.Random) -> tuple[list[Message], str, str]:
    """Return a pair on something that nobody can know. The rejected answer is made up."""
    secret = rng.choice(SECRETS)
    made_up = f"The {secret} of the {fact.animal} is {TABLE[fact.animal][fact.kind]}."
    question = f"Who knows the {secret} of the {fact.animal}?"
    return [_user(question)], rng.choice(UNKNOWN), made_up


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str) -> Message:
    return Message(role="assistant", content=content)
