"""The blanks that each file of prompts/ must and may hold, and a look at all files before a run.

The code that fills a prompt checks it too, when it is sent. Files of schemes that are not listed
here are only checked for being empty.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import NamedTuple

from bezoar.rows import prompts
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt

# A file, or a pattern -> the blanks that it (must, may) hold. docs/prompts.md has the same table
# with the reasons.
BLANKS = {
    "chat/*": ("", ""),
    "lamini/instructions": ("examples", "asked category topics"),
    "lamini/topics": ("topics", "examples asked category"),
    "lamini/example": ("instruction", ""),
    "lamini/response": ("instruction", ""),
    "evol_instruct/in_depth": ("method prompt", "operation"),
    "evol_instruct/operations/*": ("", "prompt"),
    "evol_instruct/in_breadth": ("prompt", ""),
    "evol_instruct/equality": ("first second", ""),
    "evol_instruct/response": ("prompt", ""),
    "evol_instruct/stop_words": ("", ""),
    "orca/response": ("query system target", ""),
    "orca/system/*": ("", ""),
    "judge/*_system": ("", "scale"),
    "judge/response": ("instruction response", "scale"),
    "judge/explanation": ("expected generated instruction", "scale"),
    "mt_bench/system": ("", ""),
    "mt_bench/pair_system": ("", ""),
    "mt_bench/one_turn": ("answer_1 question_1", ""),
    "mt_bench/one_turn_reference": ("answer_1 question_1 reference_1", ""),
    "mt_bench/two_turns": ("answer_1 answer_2 question_1 question_2", ""),
    "mt_bench/two_turns_reference": (
        "answer_1 answer_2 question_1 question_2 reference_1 reference_2",
        "",
    ),
    "mt_bench/pair_one_turn": ("answer_a_1 answer_b_1 question_1", ""),
    "mt_bench/pair_one_turn_reference": ("answer_a_1 answer_b_1 question_1 reference_1", ""),
    "mt_bench/pair_two_turns": (
        "answer_a_1 answer_a_2 answer_b_1 answer_b_2 question_1 question_2",
        "",
    ),
    "mt_bench/pair_two_turns_reference": (
        "answer_a_1 answer_a_2 answer_b_1 answer_b_2 question_1 question_2 reference_1 reference_2",
        "",
    ),
}
EMPTY = "is empty, and nothing is sent for it; write a text, or restore it with git"


class Seen(NamedTuple):
    """The lines that a look at the prompts gives: `faults` stop a run, `notes` do not."""

    faults: list[str]
    notes: list[str]


def look() -> Seen:
    """Look at every file of prompts/, and at those that are listed and not there."""
    seen = Seen([], [])
    for name in _names():
        try:
            _look(Prompt(name), seen)
        except BadInput as error:
            seen.faults.append(str(error).removeprefix("error: "))
    return seen


def listed(name: str) -> tuple[set[str], set[str]] | None:
    """Return the blanks that a file must and may hold, None for a file that is not listed."""
    entry = BLANKS.get(name) or next((b for p, b in BLANKS.items() if fnmatch(name, p)), None)
    return (set(entry[0].split()), set(entry[1].split())) if entry else None


def _names() -> list[str]:
    present = {
        path.relative_to(prompts.ROOT).with_suffix("").as_posix()
        for path in prompts.ROOT.rglob("*.txt")
    }
    folders = {name.partition("/")[0] for name in present}
    expected = {name for name in BLANKS if "*" not in name and name.partition("/")[0] in folders}
    return sorted(present | expected)


def _look(prompt: Prompt, seen: Seen) -> None:
    """Add to `seen` the faults and notes of one file. BadInput: it cannot be read."""
    blanks = listed(prompt.name)
    must, may = blanks or (set(), set())
    if not prompt.text.strip() and not must:
        seen.notes.append(f"{prompt.path}:1: {EMPTY}")
    meant = _unknown(prompt, must | may, seen) if blanks is not None else set()
    for blank in sorted(must - meant):
        try:
            # in_depth puts the operation into $method, unless each operation has a prompt of its
            # own.
            if blank != "method" or not _operations_are_whole():
                prompt.require(blank)
        except BadInput as error:
            seen.faults.append(str(error).removeprefix("error: "))


def _unknown(prompt: Prompt, blanks: set[str], seen: Seen) -> set[str]:
    """Add to `seen` the `$names` of a file that are no blanks. Return the blanks that misspelt ones
    stand for, so that one mistake is one line."""
    places = prompt.places
    absent = sorted(blanks - places.keys())
    meant = {word: prompts.nearest(word, absent) for word in sorted(places.keys() - blanks)}
    for word, near in meant.items():
        location = f"{prompt.path}:{places[word]}: ${word}"
        if near:
            seen.faults.append(prompts.misspelt(location, word, near))
        else:
            seen.notes.append(f"{location} is no blank, and is sent as text; `$${word}` says so")
    return {*meant.values()}


def _operations_are_whole() -> bool:
    """Say whether each operation has a prompt of its own, so that none is put into another."""
    return all(Prompt(name).holds("prompt") for name in _operations())


def _operations() -> Iterator[str]:
    return (name for name in _names() if name.startswith("evol_instruct/operations/"))
