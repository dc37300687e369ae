"""Gates find faults of a row that are seen without a model. `filter.gates` in params.yaml has their
limits:

refusal         the answer or the instruction opens by declining (bezoar/rows/refusals.py, by
                language), and has fewer than `refusal_words` words
leaked_prompt   a piece of the prompts' own markup stands in the row
thought         a mark of thoughts stands in the answer or the instruction, outside of code and
                quotes: one that bezoar/rows/thoughts.py could not remove
loop            of a text of `loop_words` words at least `loop_share` of the n-grams (`loop_ngram`
                words) stood in it before
truncated       an answer of `truncated_words` words ends inside a sentence, or inside a block of
                code. Thai and Lao have no full stops, so there only the code counts. Replies that
                a server cut (finish_reason "length") are rejected by the schemes
wrong_language  a text of `language_words` words, names not counted, is in none of the languages
                that `language` allows: another one is `language_odds` times as likely as each of
                them (rows/languages.py). An answer may be in a language that the instruction names
overlong        system message, instruction, context and answer have more than `characters`
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from bezoar.params import Gates
from bezoar.rows import languages, prompts, refusals, thoughts
from bezoar.rows.folding import ngrams, script, words
from bezoar.rows.languages import length
from bezoar.rows.records import Sample


class Fault(NamedTuple):
    """The reason why a row does not pass, and details of the finding."""

    reason: str
    details: dict[str, str | int | bool]


MARKUP = tuple(marker for markers in prompts.MARKUP.values() for marker in markers)

# Words from which a last line is prose, which ends in a mark. A shorter one may be a heading, an
# entry of a list or a signature.
PROSE = 12

_CLOSED = re.compile(
    r"""[.!?:;…。．｡！？：；」』】）〉》।॥؟۔؛։።៖។၊။"'“”‘’«»)\]}>|`*_~=+%\d]\s*\Z"""
)
# Sentences in these scripts end without a mark.
_STOPLESS = ("THAI", "LAO")
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
    """Return the first gate that a row does not pass, in the order above, or None where it passes
    all. `allowed` are the languages that it may be in, by ISO 639-1 code (None: any)."""
    for gate in GATES:
        if fault := gate(sample, gates):
            return fault
    return (_wrong_language(sample, gates, allowed) if allowed else None) or _overlong(
        sample, gates
    )


def allowed_languages(gates: Gates, seed_languages: Sequence[str]) -> list[str] | None:
    """List the languages that rows may be in, given those of the seeds. None means any: params.yaml
    says so, or no seed's language is known."""
    if gates.language == "any":
        return None
    return (list(seed_languages) or None) if gates.language == "seeds" else list(gates.language)


def gates_off(codes: Sequence[str]) -> dict[str, list[str]]:
    """Name the gates that are off for some of these languages, each with those languages."""
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
    # The zero character keeps a marker from matching across two fields.
    text = "\0".join((sample.instruction, sample.context, sample.response)).casefold()
    marker = next((mark for mark in MARKUP if mark.casefold() in text), None)
    return Fault("leaked_prompt", {"marker": marker}) if marker else None


def _thought(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        if mark := thoughts.leftover_mark(getattr(sample, field)):
            return Fault("thought", {"field": field, "marker": mark})
    return None


def _loop(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        share = repeated_share(getattr(sample, field), gates.loop_words, gates.loop_ngram)
        if share >= gates.loop_share:
            return Fault("loop", {"field": field, "share": f"{share:.2f}"})
    return None


def repeated_share(text: str, least: int, n: int) -> float:
    """Return the share of the text's n-grams of words that stood in it before. It is 0 where the
    text has fewer than `least` words, for a short one repeats words without looping."""
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
    # An odd number of fences leaves a block of code open.
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


# The gates that look at a row alone. Its language and its length come after them.
GATES: tuple[Callable[[Sample, Gates], Fault | None], ...] = (
    *(_refusal, _leaked_prompt, _thought, _loop, _truncated),
)
