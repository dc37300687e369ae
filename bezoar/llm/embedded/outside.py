"""What can be said of a text from outside the world: only what the text itself holds.

Extraction, no knowledge: the sentence of a context that shares most with the question, and phrases
made of the text's own key words.
"""

import random
import re
from collections.abc import Sequence

_STOP = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again all also am an and any are as at be because been before being
        below between both but by can could did do does doing down during each few for from further
        had has have having he her here hers him his how i if in into is it its just me more most
        my name no nor not now of off on once one only or other our out over own same she should so
        some such than that the their them then there these they this those through to too under
        until up very was we were what when where which while who whom whose why will with would
        you your give tell write list make following text passage please use used using input
        answer ask asked beginner best came case come describe differ explain expert five follows
        four generate get go good great identify introduces knowing like many matter matters
        means mention mentions much need new note provide question questions relate say said short
        steps suggest summarize take terms thing things think three time two want way ways well
        works worth
        """,
    )
)
LONGEST = 20_000  # characters read of a text: a hostile one may be huge


def key_words(text: str) -> list[str]:
    """The words that carry the text, in the order of first use, as they are written there."""
    found: dict[str, str] = {}
    for word in re.findall(r"[^\W\d_][\w'’-]*", text[:LONGEST]):
        if len(word) > 3 and word.lower() not in _STOP:
            found.setdefault(word.lower(), word)
    return list(found.values())


def subjects(texts: Sequence[str], rng: random.Random, wanted: int) -> list[str]:
    """`wanted` key words of the texts, drawn at random; fewer words than wanted repeat."""
    pool = key_words(" ".join(texts)) or ["this"]
    drawn = rng.sample(pool, min(wanted, len(pool)))
    return [drawn[i % len(drawn)] for i in range(wanted)]


def sentences(text: str) -> list[str]:
    """A text's sentences, blank ones left out."""
    parts = re.split(r"(?<=[.!?])\s+|\n+", text[:LONGEST])
    return [part.strip() for part in parts if part.strip()]


def answer(instruction: str, context: str) -> str:
    """The two sentences of the context nearest to the question, in their order; without a context
    a sentence or two made of the instruction's key words."""
    asked = {word.lower() for word in key_words(instruction)}
    told = sentences(context)
    if told:
        ranked = sorted(
            range(len(told)),
            key=lambda i: (-len(asked & {w.lower() for w in key_words(told[i])}), i),
        )
        return " ".join(told[i] for i in sorted(ranked[:2]))
    words = key_words(instruction)
    if not words:
        return "There is nothing in the request that could be answered."
    first, *rest = words[:5]
    others = f", together with {_and(rest)}" if rest else ""
    return (
        f"In short, the matter here is {first}{others}. "
        f"An answer begins with what {words[-1]} means and then turns to {first}."
    )


def explanation(query: str, target: str) -> str:
    """A given answer, explained by what the query holds."""
    words = key_words(query)[:4] or ["this"]
    return (
        f"The task is about {_and(words)}. Reading it with that in mind, the answer is: {target}"
        + ("" if target.rstrip().endswith((".", "!", "?")) else ".")
    )


def new_instruction(subject: str, other: str, rng: random.Random) -> str:
    """An instruction about two key words or topics."""
    return rng.choice(
        (
            "Explain to a beginner what {} has to do with {}.",
            "Name three things worth knowing about {} and relate them to {}.",
            "In what way does {} differ from {}?",
            "Describe how {} came to matter for {}.",
            "Write a short note that introduces {} and mentions {}.",
            "Which questions about {} would an expert on {} ask first?",
        )
    ).format(subject, other)


def deeper(instruction: str, operation: str, rng: random.Random) -> str:
    """An instruction made more demanding by one operation of Evol-Instruct."""
    first, second = subjects([instruction], rng, 2)
    return (
        instruction.rstrip()
        + " "
        + {
            "add_constraints": f"Answer in five sentences at most, the first of them on {first}.",
            "deepen": f"Also say why {first} matters here and what follows from it for {second}.",
            "concretize": f"Take one particular case of {first} and name its details.",
            "increase_reasoning": f"Go through it in several steps, from {first} to {second}.",
            "complicate_input": f"Take this record into account: {{{first}: 1, {second}: 2}}.",
        }.get(operation, f"Say more about {first}.")
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
