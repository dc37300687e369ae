"""The simulated judge: verdicts on samples, MT-Bench grades and comparisons, reference answers.

Inside the world it checks whether the answer is true. Outside it uses rules of thumb, which see
form and not truth: empty, too short, too long, repetitive, an echo of the request, a refusal. An
explanation must also hold the expected answer.

It only counts and compares the words of a text, so no text can persuade it. It skips marks in the
text that look like its own (`MARKS`).

For a panel there are two more judges. One accepts only answers that could not be better. The other
does not know the world and goes by form everywhere.
"""

import random
import re
from typing import NamedTuple

from bezoar.llm.embedded import outside
from bezoar.llm.embedded.outside import words
from bezoar.world.grammar import Reading, read
from bezoar.world.marking import quality, repetitive, share_right

# Rates of replies that state no verdict. The paper's judge left 0.1 % of LaMini, none of Evol and
# 47.5 % of Orca undecided; the embedded one shows each path in a set of a few hundred rows.
BLANK, MALFORMED = 0.02, 0.02
BLANK_EXPLANATION, MALFORMED_EXPLANATION = 0.04, 0.04
UNRATED = 0.02  # of MT-Bench gradings and comparisons
BY_POSITION = 0.05  # of comparisons: the first answer wins, whatever it says

# Rules of thumb.
LONGEST = 150  # words of a good answer in the world, and of a good explanation
LONGEST_OUTSIDE = 400  # words of a good answer outside
ECHO = 0.9  # share of the answer's words, and of the request's, that the two have in common
# The judge's own marks, as they are or as a prompt neutralises them.
MARKS = re.compile(
    r"[<‹]\s{0,3}/?\s{0,3}(?:status|rating|reason|instruction|response|expected|generated)\s{0,3}[>›]"
    r"|[\[⟦]{2}\s*(?:\d{1,2}|[ABC])\s*[\]⟧]{2}",
    re.IGNORECASE,
)


class Opinion(NamedTuple):
    """A verdict before it is written down: `rating` from 1 to 7."""

    accept: bool
    rating: int
    reason: str


def respond(
    prompt: str, rng: random.Random, least: int = 1, knows: bool = True
) -> tuple[str, bool]:
    """Answer a judge's prompt, by its markers alone: (reply, True unless the reply is cut).

    The marker that comes first opens the data. A marker further in belongs to the judged text.
    Samples rated below `least` are rejected. Without `knows` samples are judged by form alone.
    """
    opening = _first(prompt, "<instruction>\n", "[Question]\n", "[Question 1]\n")
    if opening == "<instruction>\n":
        return _judge(prompt, rng, least, knows)
    # nothing to judge in the prompt: it asks for a reference answer
    if not opening:
        return _full(prompt), True
    turn = " 2" if opening == "[Question 1]\n" else ""
    question, reference = (_section(prompt, f"{s}{turn}") for s in ("Question", "Reference answer"))
    if f"[Answer B{turn}]\n" in prompt:
        a, b = (_section(prompt, f"Answer {side}{turn}") for side in "AB")
        return _compare(question, a, b, reference, rng), True
    return _grade(question, _section(prompt, f"Answer{turn}"), reference, rng), True


def _judge(prompt: str, rng: random.Random, least: int, knows: bool) -> tuple[str, bool]:
    data = prompt[prompt.index("<instruction>\n") :]
    if _first(data, "<expected>\n", "<response>\n") == "<expected>\n":
        seen = judge_explanation(
            _between(data, "instruction", "expected"),
            _between(data, "expected", "generated"),
            _between(data, "generated", ""),
            knows,
        )
        blank, malformed = BLANK_EXPLANATION, MALFORMED_EXPLANATION
    else:
        instruction, answer = (
            _between(data, "instruction", "response"),
            _between(data, "response", ""),
        )
        seen = judge_response(instruction, answer, knows)
        blank, malformed = BLANK, MALFORMED
    if seen.accept and seen.rating < least:
        seen = Opinion(False, seen.rating, "It could be better.")
    return _verdict(seen, blank, malformed, rng)


# --- reading a prompt -----------------------------------------------------------------------------


def _first(prompt: str, *markers: str) -> str:
    """Return the marker that stands first, "" where none does."""
    return min((m for m in markers if m in prompt), key=prompt.index, default="")


def _between(data: str, tag: str, following: str) -> str:
    """Return the text between a pair of tags, up to the last closing tag before `following`.

    So a closing tag that was smuggled into the text cuts nothing off. Example: of
    "<response> yes </response> and no </response>" it returns "yes </response> and no".
    """
    _, _, data = data.partition(f"<{tag}>\n")
    stop = data.find(f"<{following}>\n") if following else -1
    stop = stop if stop >= 0 else len(data)
    end = data.rfind(f"</{tag}>", 0, stop)
    return data[: end if end >= 0 else stop].strip()


def _section(prompt: str, name: str) -> str:
    """Return the text of a section of a grader's prompt, up to its last end mark."""
    start = prompt.find(f"[{name}]\n")
    if start < 0:
        return ""
    end = prompt.rfind(f"[/{name}]")
    return prompt[start + len(name) + 2 : end if end > start else len(prompt)].strip()


# --- opinions -------------------------------------------------------------------------------------


def judge_response(instruction: str, response: str, knows: bool = True) -> Opinion:
    """Judge whether a response is clear, complete and specific to the instruction."""
    reading, response = read(instruction) if knows else None, MARKS.sub("", response)
    if fault := _form(instruction, response, LONGEST if reading else LONGEST_OUTSIDE, reading):
        return fault
    if reading is None:
        length = len(words(response))
        return Opinion(True, 6 if length >= 20 else 5 if length >= 8 else 4, "Clear and specific.")
    return _truth(reading, response)


def judge_explanation(
    instruction: str, expected: str, generated: str, knows: bool = True
) -> Opinion:
    """Judge whether a text is an accurate explanation of the expected answer."""
    reading, generated = read(instruction) if knows else None, MARKS.sub("", generated)
    if fault := _form(instruction, generated, LONGEST, reading):
        return fault
    generated_words, expected_words = words(generated), words(expected)
    share = sum(word in generated_words for word in expected_words) / max(1, len(expected_words))
    if share < (1 if reading else 0.8):
        return Opinion(False, 2, "It does not lead to the expected answer.")
    if len(generated_words) <= len(expected_words) + 1:
        return Opinion(False, 3, "It repeats the answer and explains nothing.")
    if reading:
        return _truth(reading, generated)
    return Opinion(True, 5, "It leads to the expected answer.")


def _form(instruction: str, response: str, longest: int, reading: Reading | None) -> Opinion | None:
    """Return the first fault in the form of a text, None where it has none. Truth comes later."""
    text = response[: outside.LONGEST]
    response_words, request_words = set(words(text)), set(words(instruction[: outside.LONGEST]))
    length = outside.length(text)
    shared = ECHO * max(len(response_words), len(request_words)) <= len(
        request_words & response_words
    )
    extract = text.strip().lower() in instruction.lower()
    faults: list[tuple[object, int, str]] = [
        (not response_words, 1, "The response is empty."),
        (length > longest, 2, "The response is over-long."),
        (repetitive(text), 1, "The response goes round in circles."),
    ]
    if reading is None:
        faults += [
            (length < 3 and not extract, 2, "The response is too short to be complete."),
            (shared, 2, "The response repeats the request."),
            (re.match(r"\W*(?:i am |i'm )?sorry\b", text.lower()), 2, "The response is a refusal."),
        ]
    return next((Opinion(False, rating, why) for fault, rating, why in faults if fault), None)


def _truth(reading: Reading, response: str) -> Opinion:
    share = share_right(reading, response)
    if share == 1:
        exact = response.strip() in (reading.answer, reading.explanation)
        return Opinion(True, 7 if exact else 6, "It is right and answers what was asked.")
    if share > 0:
        return Opinion(False, 3, "Part of the answer is wrong or missing.")
    return Opinion(False, 2, "The answer is wrong.")


# --- writing down ---------------------------------------------------------------------------------


def _verdict(seen: Opinion, blank: float, malformed: float, rng: random.Random) -> tuple[str, bool]:
    status = "Accept" if seen.accept else "Reject"
    stated = f"<status>{status}</status>\n<rating>{seen.rating}</rating>"
    draw = rng.random()
    if draw < blank:
        return "", True
    if draw >= blank + malformed:
        return f"{stated}\n<reason>{seen.reason}</reason>", True
    return rng.choice(
        (
            (f"I would {status.lower()} this response. {seen.reason}", True),
            (f"<rating>{seen.rating}</rating>\n<reason>{seen.reason}</reason>", True),
            (f"<status>Maybe</status>\n<rating>4</rating>\n<reason>{seen.reason}</reason>", True),
            (
                f"<status>{status}</status>\n<rating>9</rating>\n<reason>{seen.reason}</reason>",
                True,
            ),
            (f"{stated}\n<reason>{seen.reason[:12]}", False),
        )
    )


def _full(question: str) -> str:
    """Answer a question as well as the judge can, for a reference answer."""
    reading = read(question)
    return reading.explanation if reading else outside.answer(question, "")


def _mark(question: str, answer: str, reference: str) -> int:
    # an answer that holds marks of the judge tries to write its own grade, and gets the lowest one
    return 1 if MARKS.search(answer) else quality(question, answer, reference)


def _grade(question: str, answer: str, reference: str, rng: random.Random) -> str:
    mark = _mark(question, answer, reference)
    if MARKS.search(answer):
        why = "The answer tries to speak for the grader."
    else:
        why = next(
            text
            for floor, text in (
                (9, "The answer is right, complete and well put."),
                (6, "The answer is right but could be put better."),
                (4, "The answer is only partly right, or its worth can not be told."),
                (2, "The answer does not give what was asked for."),
                (1, "There is no usable answer."),
            )
            if mark >= floor
        )
    if rng.random() < UNRATED:
        return rng.choice((f"{why} I give it a good mark.", f"{why}\nRating: [[n]]", ""))
    return f"{why}\nRating: [[{mark}]]"


def _compare(question: str, a: str, b: str, reference: str, rng: random.Random) -> str:
    lead = _mark(question, a, reference) - _mark(question, b, reference)
    if rng.random() < BY_POSITION:
        lead = 1
    choice, why = (
        ("A", "The first answer serves the user better.")
        if lead > 0
        else ("B", "The second answer serves the user better.")
        if lead < 0
        else ("C", "The two are about equally good.")
    )
    if rng.random() < UNRATED:
        return rng.choice((f"{why} That is all.", f"{why}\nVerdict: [[X]]", ""))
    return f"{why}\nVerdict: [[{choice}]]"
