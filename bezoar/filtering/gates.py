"""Faults of a row that are seen without a model. What each gate looks at, and how far it may go
(`filter.gates` in params.yaml):

refusal         the answer, or the instruction, opens by declining (bezoar/rows/refusals.py, by
                language); not where it goes on for `refusal_words` words
leaked_prompt   a piece of the prompts' own markup stands in the row
thought         a mark of thoughts stands in the answer or the instruction, and not in code
                or quotes: what bezoar/rows/thoughts.py did not take for thoughts, or could not part
loop            of a text of `loop_words` words at least `loop_share` of the n-grams (`loop_ngram`
                words) stood in it before
truncated       an answer of `truncated_words` words ends inside a sentence, or inside a block of
                code. (What a server cut, finish_reason "length", is rejected by the schemes.) Thai
                and its like have no full stops: there it is the code alone
wrong_language  a text of `language_words` words that are no names is in none of the languages that
                `language` allows: another is `language_odds` times as likely as each of them
                (rows/languages.py). An answer may be in a language that the instruction names
overlong        system message, instruction, context and answer have more than `characters`
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from bezoar.params import Gates
from bezoar.rows import languages, refusals, thoughts
from bezoar.rows.folding import ngrams, script, words
from bezoar.rows.languages import length
from bezoar.rows.records import Sample


class Fault(NamedTuple):
    """Why a row does not pass, and what was found."""

    reason: str
    details: dict[str, str | int | bool]


# The markup of the schemes' prompts (a test holds the two together).
MARKUP = (
    *("<example>", "</example>", "###PROVIDED EXAMPLES(", "###RESPONSE:"),
    *("<human>:", "<bot>:", "#Given Prompt#:", "#Rewritten Prompt#:", "#Created Prompt#:"),
    *("#First Prompt#:", "#Second Prompt#:", "#Task:", "#Correct answer:", "#Response:"),
)

# Longer than this a last line is prose, which ends in a mark; a shorter one may be a heading, an
# entry of a list, a signature.
PROSE = 12  # words

_CLOSED = re.compile(
    r"""[.!?:;…。．｡！？：；」』】）〉》।॥؟۔؛։።៖។၊။"'“”‘’«»)\]}>|`*_~=+%\d]\s*\Z"""
)
_STOPLESS = ("THAI", "LAO")  # scripts whose sentences end without a mark
_ENTRY = re.compile(r"\s*(?:[-*•#>|]|\w{1,3}[.)]\s)")

# A language by its English name, or what translating and English are called elsewhere.
_NAMES_A_LANGUAGE = re.compile(
    r"\b(?:translat\w*|language|mandarin|farsi|"
    + "|".join(sorted(full.casefold() for full in languages.NAMES.values()))
    + r"|übersetz\w*|\w*sprachig\w*|sprache|(?:englisch|französisch|spanisch|italienisch|türkisch|"
    r"niederländisch|portugiesisch|russisch|polnisch|deutsch|arabisch|japanisch|chinesisch)\w*|"
    r"tradui\w*|traduct\w*|langue|anglais\w*|allemande?|espagnole?|traduc\w*|traduz\w*|tradur\w*|"
    r"idioma|lingua|língua|ingl[eéê]se?\w*|alem[aá]n|alemão|tedesco|francese|franc[eéê]s|vertaal\w*|"
    r"engels\w*|duits\w*|frans|spaans|tłumacz\w*|przetłumacz\w*|angielsk\w*|перевед\w*|перевод\w*|"
    r"английск\w*|немецк\w*|översätt\w*|engelska|çevir\w*|ingilizce\w*)\b"
    r"|翻訳|翻译|翻譯|英語|英语|英文|번역|영어|ترجم|الإنجليزية|अनुवाद|अंग्रेज",
    re.IGNORECASE,
)


def fault(sample: Sample, gates: Gates, allowed: Collection[str] | None = None) -> Fault | None:
    """Return the first gate that a row does not pass, in the order above; None where it passes all.
    `allowed` are the languages that it may be in, by ISO 639-1; None: any."""
    for gate in GATES:
        if fault := gate(sample, gates):
            return fault
    return (_wrong_language(sample, gates, allowed) if allowed else None) or _overlong(
        sample, gates
    )


def allowed(gates: Gates, found: Sequence[str]) -> list[str] | None:
    """List the languages that rows may be in, where `found` are those of the seeds. None: any, for
    so it is said, or no seed tells one."""
    if gates.language == "any":
        return None
    return (list(found) or None) if gates.language == "seeds" else list(gates.language)


def unknown(codes: Sequence[str]) -> dict[str, list[str]]:
    """Name the gates that are off for some languages, and those languages."""
    off = {
        "refusal": [short for short in codes if short not in refusals.KNOWN],
        "truncated": [short for short in codes if short in ("th", "lo")],
    }
    return {gate: listed for gate, listed in off.items() if listed}


def _refusal(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        text = getattr(sample, field)
        if refusals.language(text) and length(text) < gates.refusal_words:
            return Fault("refusal", {"field": field})
    return None


def _leaked_prompt(sample: Sample, gates: Gates) -> Fault | None:
    whole = "\0".join((sample.instruction, sample.context, sample.response)).casefold()
    found = next((mark for mark in MARKUP if mark.casefold() in whole), None)
    return Fault("leaked_prompt", {"marker": found}) if found else None


def _thought(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        if mark := thoughts.leftover_mark(getattr(sample, field)):
            return Fault("thought", {"field": field, "marker": mark})
    return None


def _loop(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        share = repeated(getattr(sample, field), gates.loop_words, gates.loop_ngram)
        if share >= gates.loop_share:
            return Fault("loop", {"field": field, "share": f"{share:.2f}"})
    return None


def repeated(text: str, least: int, n: int) -> float:
    """Of the text's n-grams of words the share that stood in it before; 0 where the text has fewer
    than `least` words, for a short one repeats words without looping."""
    tokens = words(text)
    if len(tokens) < max(least, n):
        return 0.0
    grams = ngrams(tokens, n)
    return 1 - len(set(grams)) / len(grams)


def _truncated(sample: Sample, gates: Gates) -> Fault | None:
    text = sample.response.rstrip()
    if length(text) < gates.truncated_words:
        return None
    last = text.rpartition("\n")[2]
    stops = script(last) not in _STOPLESS
    prose = stops and length(last) >= PROSE and not _ENTRY.match(last)
    if text.count("```") % 2 or (prose and not _CLOSED.search(text)):
        return Fault("truncated", {"end": " ".join(last.split()[-5:])})
    return None


def _wrong_language(sample: Sample, gates: Gates, allowed: Collection[str]) -> Fault | None:
    for field in ("instruction", "response"):
        if field == "response" and _NAMES_A_LANGUAGE.search(sample.instruction):
            continue
        text = getattr(sample, field)
        short = languages.foreign(text, allowed, gates.language_words, gates.language_odds)
        if short:
            return Fault("wrong_language", {"field": field, "language": languages.name(short)})
    return None


def _overlong(sample: Sample, gates: Gates) -> Fault | None:
    size = sum(map(len, (sample.system, sample.instruction, sample.context, sample.response)))
    return Fault("overlong", {"characters": size}) if size > gates.characters else None


# Those that look at a row alone; its language and its length come after them.
GATES: tuple[Callable[[Sample, Gates], Fault | None], ...] = (
    *(_refusal, _leaked_prompt, _thought, _loop, _truncated),
)
