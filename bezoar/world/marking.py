"""Marks for answers to questions of the world."""

from bezoar.world.facts import KIND, words
from bezoar.world.grammar import Fact, Reading, read

# Words beyond a full answer, from which on it rambles. A polite opening has fewer.
RAMBLE = 8


def repetitive(text: str) -> bool:
    """Say whether a text goes round in circles: few different words for its length."""
    tokens = text.split()
    return len(tokens) >= 8 and len(set(tokens)) * 3 <= len(tokens)


def share_right(reading: Reading, answer: str) -> float:
    """Return the share of the asked parts that the answer gets right, 0 to 1.

    A part counts if its value is stated and no other value of its kind is. So an answer that names
    every colour is wrong."""
    tokens = words(answer)
    asked_values = {(part.kind, part.answer) for part in reading.parts if isinstance(part, Fact)}
    # Values that answer another part of the same kind are no contradiction.
    wrong = {KIND[w] for w in tokens if w in KIND and (KIND[w], w) not in asked_values}
    expected = {part.answer for part in reading.parts if not isinstance(part, Fact)}
    operands = {str(n) for p in reading.parts if not isinstance(p, Fact) for n in (p.left, p.right)}
    numbers = {w for w in tokens if w.isdigit()}
    hits = 0
    for part in reading.parts:
        if isinstance(part, Fact):
            hits += part.answer in tokens and part.kind not in wrong
        else:
            hits += part.answer in numbers and numbers <= expected | operands
    return hits / len(reading.parts)


def quality(question: str, answer: str, reference: str = "") -> int:
    """Return a mark from 1 to 10 for an answer to one turn.

    1 nothing or gibberish · 2-3 wrong, or right and rambling on · 4-5 partly right · 6-7 right but
    bare · 9 right in full sentences · 10 the same and polite. Outside the world the reference
    decides, if there is one."""
    text = answer.strip()
    if not text or repetitive(text):
        return 1
    reading = read(question)
    if reading is None:
        return _mark_by_reference(text, reference)
    share = share_right(reading, text)
    formed = text[0].isupper() and text[-1] in ".!"
    if share < 1:
        return (4 if share else 2) + formed
    full = reading.answer if reading.form != "values" else reading.explanation
    rambling = len(text.split()) > len(full.split()) + RAMBLE
    return (
        3 if rambling else 9 if text == full else 10 if full in text else _bare_mark(reading, text)
    )


def _bare_mark(reading: Reading, text: str) -> int:
    return 7 if text == reading.answer else 6


def _mark_by_reference(text: str, reference: str) -> int:
    """Mark by the share of the reference's words that the answer holds. Without a reference, mark
    by its length."""
    reference_words = set(words(reference))
    if reference_words:
        share = len(reference_words & set(words(text))) / len(reference_words)
        return 2 + round(7 * share)
    return 3 if len(words(text)) < 5 else 5
