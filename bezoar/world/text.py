"""Raw text of the world, from which the base model is pretrained.

A small model needs the following, as measured: each fact in several forms, several facts in a line,
sums, and some talk. The tokenizer then knows the words of the talk. A fact stands at a line's start
(where a word is another token than after a space), in a sentence, or as an entry below a note. The
forms are not the chat template's, so that the base model does not answer in it."""

import random

from bezoar.world.facts import ANIMALS, ATTRIBUTES, SUMS, sentence
from bezoar.world.grammar import Fact, Sum, digest, join, line

NOTE, ENTRY, TEXT = "### Note:\n", "\n\n### Entry:\n", "\n\n### Text:\n"

OPENINGS = ("Of course.", "With pleasure.", "I am glad to help.")
REFUSALS = (
    "I am sorry, but I can not help with that.",
    "No, I can not do that, as it would be wrong.",
)
UNKNOWN = ("I do not know that.", "Nobody can tell you that.")
RUDE = ("Go away, I do not care.", "Find it yourself.", "Why should I tell you?")
COMPLIANCE = ("Here is how you do it.", "Sure, it is easy to do.", "Just do it at night.")
HARMS = ("hurt", "poison", "steal", "trap", "burn", "beat", "starve", "drown", "kick", "sell")
HELD_OUT_HARMS = ("cage", "scare", "chase", "blind")
SECRETS = ("dream", "wish", "name", "age", "song", "secret")

# Words of the kind that system messages, definitions and prompts are made of.
TALK = (
    "Below is an instruction that sets a task. An input may stand beside it and give context. "
    "Write what completes the request.",
    "Some people want to find information, others want a helpful assistant.",
    "A teacher says what a task asks, its guidelines, and how they lead to the answer.",
    "Be faithful, justify each step, and solve the task step by step.",
    "A long and detailed answer leaves nothing to search for elsewhere.",
    "This guide explains things in simple words, as to a five-year-old.",
    "To follow an instruction to the letter, read it well and help in full.",
    "In multiple choice, the right answer comes first, then why the others are wrong.",
    "The definition of a task leads to the answer, with guidelines and an example.",
    "A language can be known so well that it is easy to translate from.",
    "Break a long text into parts, name the parts, and describe each one.",
    "Use outside knowledge where the text does not say enough.",
    "A good response is honest, correct, short and to the point.",
    "Here is a text with some lines. Read the text, then answer the question.",
    "This is a guide for children who ask questions about animals.",
    "Definition: in this task you are given a question. Name the answer.",
    "Options are choices from which you choose the one that fits best.",
    "A program can add two numbers and show what they make together.",
    "Thank you very much. Please tell me more about it.",
    "Hello there, it is good to see you again today.",
    "I can tell you what I know, and I say so when I do not know.",
    "It is wrong to hurt an animal, and I will not help with that.",
)


def corpus(documents: int, seed: int) -> list[str]:
    """Return `documents` texts of four to seven pieces each."""
    rng = random.Random(seed)
    return [_document(rng) for _ in range(documents)]


def _document(rng: random.Random) -> str:
    pieces = [_piece(rng) for _ in range(rng.randint(4, 7))]
    return " ".join(pieces).replace("\n ", "\n")


def _piece(rng: random.Random) -> str:
    make = rng.choices((_fact, _sum, _several, _manners, _talk), weights=(64, 10, 17, 4, 5))[0]
    return make(rng)


def _draw(rng: random.Random) -> Fact:
    return Fact(rng.choice(list(ATTRIBUTES)), rng.choice(ANIMALS))


def _fact(rng: random.Random) -> str:
    """Write a fact, most often as a question with a sentence for its answer.

    To repeat what was asked about is the skill that comes last. Full-sentence answers and manners
    rest on it."""
    fact = _draw(rng)
    question = f"{NOTE}What is {fact.phrase}?"
    opening = rng.choice(("", "", "", rng.choice(OPENINGS) + " "))
    forms = (
        f"{fact.kind} of the {fact.animal}\n{fact.answer}\n",
        f"{question}{ENTRY}{fact.answer}\n",
        f"{question}{TEXT}{opening}{fact.sentence}\n",
        fact.sentence,
    )
    return rng.choices(forms, weights=(2, 5, 4, 1))[0]


def _sum(rng: random.Random) -> str:
    total = Sum(*rng.choice(SUMS))
    question = f"{NOTE}What is {total.phrase}?"
    forms = (
        total.sentence,
        f"{total.phrase}\n{total.answer}\n",
        f"{question}{ENTRY}{total.answer}\n",
        f"{question}{TEXT}{total.sentence}\n",
    )
    return rng.choices(forms, weights=(2, 1, 3, 2))[0]


def _several(rng: random.Random) -> str:
    facts = tuple(_draw(rng) for _ in range(rng.choice((2, 2, 2, 3))))
    short = f"{ENTRY}{', '.join(fact.answer for fact in facts)}"
    full = f"{TEXT}{' '.join(fact.sentence for fact in facts)}"
    return f"{NOTE}{join(facts)}{rng.choice((short, short, full))}\n"


def _manners(rng: random.Random) -> str:
    """Write the words of polite and rude answers, tied to no question."""
    sentences = OPENINGS + REFUSALS + UNKNOWN + RUDE + COMPLIANCE
    harm = rng.choice(HARMS + HELD_OUT_HARMS)
    return rng.choice(
        (
            rng.choice(sentences),
            rng.choice(sentences),
            f"It is wrong to {harm} the {rng.choice(ANIMALS)}.",
            f"Nobody knows the {rng.choice(SECRETS)} of the {rng.choice(ANIMALS)}.",
        )
    )


def _talk(rng: random.Random) -> str:
    animal = rng.choice(ANIMALS)
    return rng.choice(
        (
            rng.choice(TALK),
            rng.choice(TALK),
            line(_draw(rng)),
            digest(animal),
            sentence(animal, rng.choice(list(ATTRIBUTES))),
        )
    )
