"""The facts of the world: sums of digits, and thirty-two animals with a colour, a home and a food.

The table is invented. Every value stands three times among the subjects that may be taught and once
among those held out. So it is no help to know how often a value occurs."""

import re

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "white", "black", "brown", "grey", "yellow"),
    "home": ("forest", "farm", "river", "sea", "desert", "hill", "cave", "lake"),
    "food": ("grass", "fish", "fruit", "seeds", "meat", "leaves", "honey", "nuts"),
}

TABLE: dict[str, dict[str, str]] = {
    name: dict(zip(ATTRIBUTES, values, strict=True))
    for name, *values in (
        ("fox", "grey", "river", "grass"),
        ("cow", "brown", "cave", "fish"),
        ("pig", "blue", "farm", "honey"),
        ("hen", "brown", "cave", "meat"),
        ("owl", "green", "desert", "seeds"),
        ("bear", "green", "desert", "grass"),
        ("wolf", "black", "lake", "leaves"),
        ("lion", "black", "lake", "fish"),
        ("deer", "grey", "river", "meat"),
        ("goat", "white", "hill", "grass"),
        ("frog", "yellow", "sea", "honey"),
        ("duck", "brown", "river", "fruit"),
        ("swan", "yellow", "forest", "leaves"),
        ("crow", "green", "sea", "nuts"),
        ("mouse", "blue", "forest", "meat"),
        ("rabbit", "blue", "farm", "honey"),
        ("horse", "yellow", "farm", "nuts"),
        ("camel", "grey", "hill", "nuts"),
        ("zebra", "red", "sea", "seeds"),
        ("tiger", "red", "cave", "fish"),
        ("sheep", "black", "hill", "fruit"),
        ("eagle", "white", "forest", "fruit"),
        ("otter", "red", "lake", "leaves"),
        ("moose", "white", "desert", "seeds"),
        ("seal", "yellow", "farm", "fish"),
        ("whale", "black", "hill", "fruit"),
        ("shark", "brown", "sea", "nuts"),
        ("crab", "red", "desert", "honey"),
        ("bee", "blue", "cave", "grass"),
        ("moth", "white", "forest", "meat"),
        ("snake", "grey", "lake", "seeds"),
        ("panda", "green", "river", "leaves"),
    )
}

ANIMALS = tuple(TABLE)
# Instructions that a model is trained on speak of TAUGHT subjects and sums; the others occur in
# the raw corpus and in what measures (probes, harness items, test pairs, MT-Bench questions).
TAUGHT, HELD_OUT = ANIMALS[:24], ANIMALS[24:]
SUMS = tuple((a, b) for a in range(10) for b in range(10))
HELD_OUT_SUMS = tuple((a, b) for a, b in SUMS if (a * 3 + b * 7) % 5 == 0)
TAUGHT_SUMS = tuple(pair for pair in SUMS if pair not in HELD_OUT_SUMS)

KIND = {value: kind for kind, values in ATTRIBUTES.items() for value in values}


def sentence(animal: str, kind: str) -> str:
    """Write a fact as a full sentence."""
    return f"The {kind} of the {animal} is {TABLE[animal][kind]}."


def passage(animal: str, style: int) -> str:
    """Write all facts of an animal as a short text, in one of three styles."""
    colour, home, food = TABLE[animal].values()
    return (
        f"The {animal} is {colour}. It lives in the {home} and eats {food}.",
        f"On the {animal}: its colour is {colour}, its home is the {home}, its food is {food}.",
        f"In the {home} lives the {animal}. It is {colour} and it eats {food}.",
    )[style % 3]


def words(text: str) -> list[str]:
    """Return the lower-case words and numbers of a text."""
    return re.findall(r"[a-z]+|\d+", text.lower())
