"""Faults of a row that are seen without a model. What each gate looks at, and how far it may go
(`filter.gates` in params.yaml):

refusal         the answer, or the instruction, opens by declining; not where it goes on for
                `refusal_words` words
leaked_prompt   a piece of the prompts' own markup stands in the row
thought         a mark of thoughts stands in the answer or the instruction, and not in code
                or quotes: what bezoar/thoughts.py did not take for thoughts, or could not part
loop            of a text of `loop_words` words at least `loop_share` of the n-grams (`loop_ngram`
                words) stood in it before
truncated       an answer of `truncated_words` words ends inside a sentence, or inside a block of
                code. (What a server cut, finish_reason "length", is rejected by the schemes.)
wrong_language  a text of `language_words` words is not English: half of its letters are not Latin,
                or three function words of another language stand in it, more often than English
                ones and as a `language_share` of all. An answer may be in a language that the
                instruction names
overlong        system message, instruction, context and answer have more than `characters`
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from bezoar import thoughts
from bezoar.folding import ngrams, words
from bezoar.params import Gates
from bezoar.records import Sample


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

_DECLINING = re.compile(
    r"""\W*(?:unfortunately\W+|regrettably\W+|well\W+|(?:i\ am|i'm)\ afraid\ (?:that\ )?)*
    (?: (?:i\ am|i'm)?\ *(?:very\ |so\ |truly\ |really\ )*sorry\W+(?:but|i|as|this|that|the)\b
      | (?:i\ (?:do\ |must\ )?|my\ )apolog(?:i[sz]e|ies)\W+(?:but|i|as)\b
      | as\ an?\ (?:ai|artificial\ intelligence|(?:large\ )?language\ model)\b.{0,60}?
        \bi(?:'m|\ am)?\ *(?:do\ not|don't|can\ ?not|can't|not|unable|have\ no|must)\b
      | i(?:\ am|'m)?\ (?:can\ ?not|can't|will\ not|won't|(?:not\ |un)able\ to|must\ decline\ to)
        \ (?:be\ able\ to\ )?(?:help|assist|comply|fulfil|answer|provide|give|offer|create|generate|
            write|rewrite|complete|continue|produce|share|discuss|engage|support|access|do\ that)
      | i\ (?:do\ not|don't)\ have\ (?:access|enough\ (?:information|context)|the\ ability|
            (?:any\ )?(?:personal|information\ (?:on|about)|real-time))
    )""",
    re.VERBOSE,
)

_CLOSED = re.compile(r"""[.!?:;…。！？"'”’»)\]}>|`*_~=+%\d]\s*\Z""")
_ENTRY = re.compile(r"\s*(?:[-*•#>|]|\w{1,3}[.)]\s)")

# Frequent words of languages in Latin script; of others than English without those that are English
# words too.
_FREQUENT = {
    "English": "the of and to in is that it was for with as be by at this are from or an which "
    "have not on you we were has had their there can will who what how your a i he she they",
    "Dutch": "de het een en dat niet te zijn voor met die op aan ook wordt",
    "French": "le la les des et est une dans que qui pour pas sur avec du au sont ce il elle",
    "German": "der und das ist nicht ein eine mit dem zu auf für sich von im auch wird",
    "Indonesian": "yang dan di dengan untuk ini itu dari pada adalah tidak dalam akan ke",
    "Italian": "il che di della sono una con gli le del più è nel alla anche",
    "Polish": "nie na się jest że jak po co dla przez są oraz być",
    "Portuguese": "que não uma para com os em da é por mais dos como ao foi são",
    "Spanish": "el que los las una por con para del es se su como más pero está",
    "Swedish": "och att det som är en på av för med till inte har ett om",
    "Turkish": "ve bir bu için ile da de olarak olan daha gibi çok ne kadar",
}
_FUNCTION_WORDS = {name: frozenset(listed.split()) for name, listed in _FREQUENT.items()}
_NAMES_A_LANGUAGE = re.compile(
    r"\b(?:translat\w*|language|arabic|bengali|chinese|czech|danish|dutch|finnish|french|german|"
    r"greek|hebrew|hindi|indonesian|italian|japanese|korean|latin|mandarin|norwegian|persian|polish|"
    r"portuguese|romanian|russian|spanish|swahili|swedish|tamil|thai|turkish|ukrainian|urdu|"
    r"vietnamese)\b",
    re.IGNORECASE,
)


def fault(sample: Sample, gates: Gates) -> Fault | None:
    """The first gate that a row does not pass, in the order above; None where it passes all."""
    return next((found for gate in GATES if (found := gate(sample, gates))), None)


def _refusal(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        text = getattr(sample, field)
        opening = " ".join(text[:400].replace("’", "'").casefold().split())
        if _DECLINING.match(opening) and len(text.split()) < gates.refusal_words:
            return Fault("refusal", {"field": field})
    return None


def _leaked_prompt(sample: Sample, gates: Gates) -> Fault | None:
    whole = "\0".join((sample.instruction, sample.context, sample.response)).casefold()
    found = next((mark for mark in MARKUP if mark.casefold() in whole), None)
    return Fault("leaked_prompt", {"marker": found}) if found else None


def _thought(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("response", "instruction"):
        if mark := thoughts.left(getattr(sample, field)):
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
    if len(text.split()) < gates.truncated_words:
        return None
    last = text.rpartition("\n")[2]
    prose = len(last.split()) >= PROSE and not _ENTRY.match(last)
    if text.count("```") % 2 or (prose and not _CLOSED.search(text)):
        return Fault("truncated", {"end": " ".join(last.split()[-5:])})
    return None


def _wrong_language(sample: Sample, gates: Gates) -> Fault | None:
    for field in ("instruction", "response"):
        if field == "response" and _NAMES_A_LANGUAGE.search(sample.instruction):
            continue
        language = _language(getattr(sample, field), gates)
        if language:
            return Fault("wrong_language", {"field": field, "language": language})
    return None


def _language(text: str, gates: Gates) -> str | None:
    """What a text is written in if that is not English, as far as its letters and words tell."""
    letters = [c for c in text if c.isalpha()]
    latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
    # a language written without spaces has few words, so its letters count
    if len(letters) >= gates.language_words and latin < len(letters) / 2:
        return "not in Latin script"
    tokens = words(text)
    if len(tokens) < gates.language_words:
        return None
    there = {n: [t for t in tokens if t in listed] for n, listed in _FUNCTION_WORDS.items()}
    english = len(there.pop("English"))
    name = max(there, key=lambda each: len(there[each]))
    enough = len(there[name]) > max(english, gates.language_share * len(tokens))
    # one word again and again may be a name, or an answer ("no, no, no")
    return name if enough and len(set(there[name])) >= 3 else None


def _overlong(sample: Sample, gates: Gates) -> Fault | None:
    size = sum(map(len, (sample.system, sample.instruction, sample.context, sample.response)))
    return Fault("overlong", {"characters": size}) if size > gates.characters else None


GATES: tuple[Callable[[Sample, Gates], Fault | None], ...] = (
    *(_refusal, _leaked_prompt, _thought, _loop, _truncated, _wrong_language, _overlong),
)
