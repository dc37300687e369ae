"""Prompts are text files under prompts/. `$name` and `${name}` are blanks, if the code fills one of
that name. Every other dollar sign is text. `$$name` writes a blank's name as text."""

import html
import re
import sys
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from bezoar.rows.files import BadInput

ROOT = Path(__file__).parents[2] / "prompts"

_BLANK = re.compile(r"(\$?)\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
# Characters that make a marker, and look-alikes that a reader takes for them and a parser does not.
_FENCED = str.maketrans("<>[]#:", "‹›⟦⟧＃：")
# Letters of other alphabets and slashes that look like ASCII ones (Unicode's own compatibility
# forms, such as full-width letters, need no table).
_ALIKE = str.maketrans("асеорхуіѕԁјһгтпοιανετρκηυɡı∕⁄⧸", "aceopxyisdjhrtnoiavetpknugi///")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")

# The markup of the schemes' prompts, by scheme. A text in a blank must not hold it, and a row that
# does shows a piece of the prompt.
MARKUP = {
    "lamini": ("<example>", "</example>", "###PROVIDED EXAMPLES(", "###RESPONSE:"),
    "evol_instruct": (
        *("<human>:", "<bot>:", "#Given Prompt#:", "#Rewritten Prompt#:", "#Created Prompt#:"),
        *("#First Prompt#:", "#Second Prompt#:"),
    ),
    "orca": ("#Task:", "#Correct answer:", "#Response:"),
}


class Prompt:
    """`Prompt("judge/response", "scale").fill(instruction="...", response="...", scale="7")`.

    A text must hold every blank that is filled. It may do without the `optional` ones, so that a
    user's own wording need not have them."""

    def __init__(self, name: str, *optional: str) -> None:
        self.name, self.optional = name, optional

    @property
    def path(self) -> str:
        """Name the file, as messages do."""
        return f"prompts/{self.name}.txt"

    @property
    def text(self) -> str:
        """Read the file, without the line ends around its text."""
        return _read_file(f"{ROOT}/{self.name}.txt", self.path).strip("\n")

    @property
    def blanks(self) -> frozenset[str]:
        """List every name in the text that would be a blank, if the code filled it."""
        return _blanks(self.text)

    @property
    def places(self) -> dict[str, int]:
        """Return the line of the file in which each of the `blanks` first stands."""
        text = _read_file(f"{ROOT}/{self.name}.txt", self.path)
        lines: dict[str, int] = {}
        for match in _BLANK.finditer(text):
            if not match[1]:
                lines.setdefault(match[2] or match[3], text.count("\n", 0, match.start()) + 1)
        return lines

    def holds(self, blank: str) -> bool:
        """Say whether the text has a place for this value."""
        return blank in self.blanks

    def require(self, blank: str, otherwise: str = "") -> None:
        """Check that the text holds a blank. BadInput: it does not. `otherwise` is added to the
        message, and says what else would do."""
        if not self.holds(blank):
            others = ", ".join(f"${name}" for name in sorted(self.blanks)) or "none"
            raise BadInput(
                f"{self.path}: lacks ${blank} (blanks found: {others}); put ${blank} "
                f"where its text belongs{otherwise}"
            )

    def fill(self, **values: str) -> str:
        """Fill the blanks. BadInput: a blank is missing, or misspelt."""
        for blank in values:
            if blank not in self.optional:
                self.require(blank)
        if unknown := sorted(self.blanks - values.keys()):
            places = self.places
            odd = tuple((word, places[word]) for word in unknown)
            _report_unknown(self.path, odd, tuple(sorted(values.keys() - self.blanks)))

        def replacement(match: re.Match[str]) -> str:
            value = values.get(match[2] or match[3])
            if value is None:
                return match[0]
            return match[0][1:] if match[1] else value

        return _BLANK.sub(replacement, self.text)


@cache
def _blanks(text: str) -> frozenset[str]:
    return frozenset(match[2] or match[3] for match in _BLANK.finditer(text) if not match[1])


@cache
def _read_file(path: str, label: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{label}: there is no such prompt file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{label}: is no UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{label}: cannot be read ({error.strerror})") from None


@cache
def _report_unknown(path: str, odd: tuple[tuple[str, int], ...], absent: tuple[str, ...]) -> None:
    """Say once on stderr which names of a file, each with its line, are no blanks. BadInput: one is
    nearly an absent blank."""
    for word, line in odd:
        if near := nearest(word, absent):
            raise BadInput(misspelt(f"{path}:{line}: ${word}", word, near))
    names = ", ".join(f"${word} (line {line})" for word, line in odd)
    print(f"{path}: no blank, sent as text: {names}", file=sys.stderr)


def nearest(word: str, absent: Sequence[str]) -> str:
    """Return the blank of `absent` that a name is probably meant for, or ""."""
    return next(iter(get_close_matches(word.lower(), absent, 1, 0.75)), "")


def misspelt(place: str, word: str, near: str) -> str:
    """Say that a name is nearly a blank."""
    return f"{place} is no blank; did you mean ${near}? (`$${word}` writes it as text)"


def fence(text: str, *markers: str) -> str:
    """Return `text` for a blank between `markers` (`</answer>`, `#Task:`), unable to open or close
    one.

    Any marker in it, in any case and spacing, is written in look-alike characters. Some markers
    look like one to a reader alone: in entities, in another alphabet's letters, or with unseen
    characters between. These are first written out plainly."""
    if text.isascii() and "&" not in text:
        return _marker(markers).sub(lambda match: match[0].translate(_FENCED), text)
    # Markers are searched in the plain text, and replaced at their places in the original.
    plain, places = _plain(text)
    fenced, done = [], 0
    for match in _marker(markers).finditer(plain):
        start, end = places[match.start()][0], places[match.end() - 1][1]
        fenced += [text[done:start], match[0].translate(_FENCED)]
        done = end
    return "".join([*fenced, text[done:]])


def _plain(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return `text` as a reader sees it, without unseen characters, and for each of its characters
    the (start, end) of its place in `text`."""
    pieces, places, start = [], [], 0
    while start < len(text):
        entity = _ENTITY.match(text, start) if text[start] == "&" else None
        end = entity.end() if entity else start + 1
        read = "".join(map(_read, html.unescape(text[start:end]) if entity else text[start]))
        pieces.append(read)
        places += [(start, end)] * len(read)
        start = end
    return "".join(pieces), places


@cache
def _read(character: str) -> str:
    if character.isascii():
        return character
    # Tag characters repeat ASCII at this offset. No screen shows them, but a model reads them.
    if 0xE0020 <= ord(character) <= 0xE007E:
        return chr(ord(character) - 0xE0000)
    # Format characters and combining marks are not seen on their own.
    if unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return ""
    return unicodedata.normalize("NFKC", character).lower().translate(_ALIKE)


@cache
def _marker(markers: tuple[str, ...]) -> re.Pattern[str]:
    # The gaps are short, so that a text made of gaps cannot make the search slow.
    spaced = (r"\s{0,3}".join(map(re.escape, re.findall(r"\w+|\S", m))) for m in markers)
    return re.compile("|".join(spaced), re.IGNORECASE)
