"""Detects the language of a text, as an ISO 639-1 code, where the text allows it.

py3langid detects it by its bytes, without a download. Rows are shorter than such a detector likes,
and full of names, code and tables. So a language is stated only where the words that are no names
give the same language, and nearly all of the text does too."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from bezoar.rows.folding import letters_a_word, script, spaceless, words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# The languages that the detector tells apart, except those that have a code of three letters alone.
NAMES = {
    **{"af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani"},
    **{"ba": "Bashkir", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "br": "Breton"},
    **{"bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish"},
    **{"de": "German", "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish"},
    **{"et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French"},
    **{"fy": "Frisian", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa"},
    **{"he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian"},
    **{"id": "Indonesian", "ig": "Igbo", "is": "Icelandic", "it": "Italian", "ja": "Japanese"},
    **{"jv": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada"},
    **{"ko": "Korean", "ku": "Kurdish", "ky": "Kyrgyz", "la": "Latin", "lo": "Lao"},
    **{"lt": "Lithuanian", "lv": "Latvian", "mg": "Malagasy", "mk": "Macedonian"},
    **{"ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese"},
    **{"my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "oc": "Occitan"},
    **{"or": "Odia", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese"},
    **{"qu": "Quechua", "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda", "si": "Sinhala"},
    **{"sk": "Slovak", "sl": "Slovenian", "sn": "Shona", "so": "Somali", "sq": "Albanian"},
    **{"sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu"},
    **{"tg": "Tajik", "th": "Thai", "tk": "Turkmen", "tl": "Tagalog", "tr": "Turkish"},
    **{"tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek"},
    **{"vi": "Vietnamese", "xh": "Xhosa", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu"},
}
# The code of ISO 639 for text in no language: code, tables and numbers
NO_LANGUAGE = "zxx"
_OTHERWISE = {
    **{"nb": "no", "nn": "no", "iw": "he", "in": "id", "mandarin": "zh", "farsi": "fa"},
    **{"flemish": "nl", "castilian": "es", "filipino": "tl", "slovene": "sl", "burmese": "my"},
}
# A short text may be in any language of a group. Where one of them is allowed, so are the others.
_ALIKE = (
    *({"bs", "hr", "sr"}, {"no", "da"}, {"id", "ms", "jv"}, {"gl", "pt"}, {"cs", "sk"}),
    *({"af", "nl", "fy"}, {"hi", "ne", "mr"}, {"az", "tr", "tk", "uz"}),
)
# Words that English has and its neighbours do not. They tell most rows at once, and save English
# texts that are full of names.
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the and that with this are from which their there they what how your who has been were "
        "would because about does should could these those when where is of its his",
    )
)
# A text is English if it holds so many different ones, and if they are so large a share of its
# words.
ENGLISH_WORDS, ENGLISH_SHARE = 3, 0.1
# Characters of a text that are looked at, from its start
LONGEST = 2000
# `detect` asks for so many words that are no names, and for a language so much likelier than
# others.
LEAST, ODDS = 3, 5.0
# A list has at least so many pieces, of at most so many words on average.
A_LIST = 3
SEEDS_LOOKED_AT = 1000
# A language is one of the seeds' languages if so large a share of the seeds is in it.
SEEDS_SHARE = 0.05

_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_FENCES = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\S+@\S+", re.DOTALL)
_PIECES = re.compile(r"[,;:=•|()\n]+|\s[-–]\s")
_SENTENCE = re.compile(r"(?<=[.!?。！？؟।])\s*|\n+")


def code(name: str) -> str:
    """Return the ISO 639-1 code of a language that is named by its code or in English. ValueError:
    this module has no such language."""
    plain = name.strip().casefold().replace("_", "-").partition("-")[0]
    by_name = {full.casefold(): short for short, full in NAMES.items()}
    short = _OTHERWISE.get(plain) or (plain if plain in NAMES else by_name.get(plain))
    if short is None:
        near = get_close_matches(plain, by_name, 1)
        hint = f"; did you mean {NAMES[by_name[near[0]]]}?" if near else ""
        raise ValueError(f"{name!r} is no language that can be told, as de or German{hint}")
    return short


def name(short: str) -> str:
    """Name a language in English."""
    return NAMES.get(short, short)


def listed(codes: Iterable[str]) -> str:
    """Name languages in one line, or say that there are none."""
    return ", ".join(map(name, codes)) or "none"


def length(text: str) -> int:
    """Count a text's words. In scripts that put no blanks between words, two or three letters count
    as one."""
    parts = text.split()
    if text.isascii():
        return len(parts)
    tokens = words(text)
    single = sum(map(spaceless, tokens))
    return len(parts) + single // max(2, letters_a_word(tokens))


def detect(text: str, least: int = LEAST, odds: float = ODDS) -> str:
    """Return the language code of a text, or "" where the text does not show one.

    It shows none if it is code, has fewer than `least` words that are no names, or if another
    language is nearly as likely. A language must be `odds` times as likely as each other one."""
    plain = _prose(text)
    if _is_plainly_english(plain):
        return "en"
    short = _likeliest(plain, frozenset(), odds)
    return short if short and _agrees(plain, short, least, odds) else ""


def foreign(text: str, allowed: Collection[str], least: int, odds: float) -> str:
    """Return the language code of a text that is in none of `allowed`.

    "" means that it is in an allowed language or does not show one. Its sentences vote, weighted by
    their letters, so that a title or a quotation is no fault."""
    plain, at_home = _prose(text), _with_alike(allowed)
    if "en" in at_home and _is_plainly_english(plain):
        return ""
    short = _likeliest(plain, at_home, odds)
    if not short or not _agrees(plain, short, least, odds, at_home):
        return ""
    parts = [part for part in _SENTENCE.split(plain) if length(part) >= LEAST]
    home_length = sum(len(part) for part in parts if _best(part) in at_home)
    return "" if 2 * home_length > sum(map(len, parts)) else short


def of_texts(texts: Sequence[str]) -> dict[str, int]:
    """Count texts by language code, the most frequent first. "" counts those that do not show one.
    At most a thousand texts are looked at, spread evenly."""
    step = max(1, len(texts) / SEEDS_LOOKED_AT)
    sample = [texts[int(number * step)] for number in range(min(len(texts), SEEDS_LOOKED_AT))]
    counts = Counter(map(detect, sample))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def of_seeds(counts: dict[str, int]) -> list[str]:
    """List the languages of the seeds, the most frequent first. Each has at least a twentieth of
    the seeds that show one. [] where no seed shows one."""
    identified = {short: count for short, count in counts.items() if short}
    least = SEEDS_SHARE * sum(identified.values())
    return [short for short, count in identified.items() if count >= least]


def _prose(text: str) -> str:
    return _FENCES.sub(" ", text[:LONGEST]).strip()


def _is_plainly_english(plain: str) -> bool:
    tokens = [token.lower() for token in _WORDS.findall(plain)]
    english = [token for token in tokens if token in _ENGLISH]
    return len(set(english)) >= ENGLISH_WORDS and len(english) >= ENGLISH_SHARE * len(tokens)


def _likeliest(plain: str, at_home: Collection[str], odds: float) -> str:
    """Return the likeliest language of a text if it is not one of `at_home`, else "".

    It must be `odds` times as likely as its rivals, else "" too. The rivals are the languages of
    `at_home`, or all others where that is empty."""
    ranked = _ranks(plain)
    best, chance = ranked[0]
    if best == NO_LANGUAGE or best in at_home:
        return ""
    like = _with_alike([best])
    rivals = [p for short, p in ranked if (short in at_home if at_home else short not in like)]
    return best if chance >= odds * max(rivals, default=0.0) else ""


def _agrees(plain: str, short: str, least: int, odds: float, at_home: Collection[str] = ()) -> bool:
    """Say whether the words that are no names are in a foreign language too, and are enough."""
    common_words = " ".join(w for w in _WORDS.findall(plain) if not w[0].isupper())
    letters = sum(map(str.isalpha, common_words))
    if script(common_words) != "LATIN":
        # Another script shows its language by the letters alone, without whole words.
        return letters >= least
    if len(set(common_words.split())) < least or _is_list(plain):
        return False
    likeliest = _likeliest(common_words, at_home, odds)
    return bool(likeliest) if at_home else likeliest in _with_alike([short])


def _is_list(plain: str) -> bool:
    """Say whether a text is a list of names and terms, which look like any language."""
    pieces = [len(piece.split()) for piece in _PIECES.split(plain) if piece.strip()]
    return len(pieces) >= A_LIST and sum(pieces) <= A_LIST * len(pieces)


def _best(text: str) -> str:
    return _ranks(text)[0][0]


def _with_alike(codes: Collection[str]) -> frozenset[str]:
    return frozenset(codes).union(*(group for group in _ALIKE if not group.isdisjoint(codes)))


@cache
def _ranks(text: str) -> list[tuple[str, float]]:
    return [(_OTHERWISE.get(short, short), chance) for short, chance in _detector().rank(text)]


@cache
def _detector() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Languages with a code of three letters have few speakers, and texts in others are taken for
    # them.
    codes = {*NAMES, "nn", NO_LANGUAGE}
    detector.set_languages([short for short in detector.labels if short in codes])
    return detector
