"""Splits a text into words that compare equal, however they are disguised.

Case, punctuation, invisible characters and look-alike letters are folded away. Scripts that put no
blanks between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) are read character by
character."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Unicode's Default_Ignorable_Code_Point: zero-width blanks, soft hyphens, marks of direction
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Accents, strokes and rings that are laid over a letter
_MARKS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
# Letters that look like a Latin one, beside those that Unicode itself folds (full width, bold)
_ALIKE = {
    **dict(zip("АВЕЅІЈКМНОРСТУХҮҺԀԚԜӀ", "abesijkmhopctyxyhdqwl", strict=True)),
    **dict(zip("авеѕіјкмнорстухүһԁԛԝӏ", "abesijkmhopctyxyhdqwl", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "abezhikmnoptyx", strict=True)),
    **dict(zip("αβεηικνορτυχγ", "abenikvoptuxy", strict=True)),
    **dict(zip("ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ", "abcdeghijklmnoprtuvwyz", strict=True)),
    **dict(zip("ɑɡıɩℓոօսհցԁοⅼ", "agiilnouhgdol", strict=True)),
}
_LOOKS = re.compile(f"[{''.join(_ALIKE)}]")
_TABLE = str.maketrans(_ALIKE)
_SPACELESS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecd\u1000-\u109f\u1780-\u17d3\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{_SPACELESS}]|[^\\W_{_SPACELESS}]+")
_CHARACTER = re.compile(f"[{_SPACELESS}]")
# Letters of scripts without blanks, of which some three make what one ideograph says
_LETTER = re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecd\u1000-\u109f\u1780-\u17d3]")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>")
LETTERS = 3
# The script of a text is read from its first characters, so many of them.
SAMPLED = 200


def words(text: str) -> list[str]:
    """Return the words and numbers of a text, without case, punctuation and typographic
    variants."""
    return _WORD.findall(text.casefold() if text.isascii() else _fold(text))


def _fold(text: str) -> str:
    visible = _UNSEEN.sub("", text)
    # NFKD parts a letter from its accents ("é" becomes "e" and a mark), so that they can be
    # dropped.
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", visible))
    plain = unicodedata.normalize("NFKC", plain)
    if _LOOKS.search(plain):
        plain = re.sub(r"\w+", _to_latin, plain)
    return plain.casefold()


def _to_latin(word: re.Match[str]) -> str:
    """Write a word in Latin letters if each of its letters looks like one, else as it is."""
    # Cyrillic "сор" becomes "cop". With another Cyrillic letter in it, it is a Russian word and
    # stays.
    folded = word[0].translate(_TABLE)
    return folded if folded.isascii() else word[0]


def unmarked(text: str) -> str:
    """Take the marks of HTML out of a text. Each tag becomes a blank, and each entity such as
    `&nbsp;` its character."""
    if "<" in text:
        text = _TAG.sub(" ", text)
    return html.unescape(text) if "&" in text else text


def spaceless(word: str) -> bool:
    """Say whether a word is a character of a script that puts no blanks between words."""
    return _CHARACTER.fullmatch(word) is not None


def letters_a_word(tokens: Sequence[str]) -> int:
    """Return the number of tokens that count as one word: more than one in Thai and its like."""
    letters = sum(len(token) == 1 and bool(_LETTER.match(token)) for token in tokens)
    return LETTERS if 2 * letters > len(tokens) else 1


def script(text: str) -> str:
    """Name the script that most of a text's first letters belong to, such as LATIN. "": no
    letters."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters = (letter for letter in text[:SAMPLED] if letter.isalpha())
    scripts = Counter(unicodedata.name(letter, "OTHER").split()[0] for letter in letters)
    return scripts.most_common(1)[0][0] if scripts else ""


def ngrams(tokens: Sequence[str], n: int) -> list[str]:
    """Return each run of `n` neighbouring words. Fewer words than `n` make one run, and no words
    make none."""
    return [" ".join(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1)) if tokens]
