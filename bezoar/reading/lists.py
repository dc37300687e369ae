"""Lists as models write them: `1.` `(1)` `**1.**` `Example 1:` or bullets, a line or all in one."""

import re
from typing import NamedTuple

from bezoar.reading.markup import split_input

# "Example" in the languages that teachers fall into, and what else an example is called.
NOUN = (
    r"examples?|beispiele?|exemples?|ejemplos?|esempi(?:o)?|exemplos?|voorbeeld(?:en)?|"
    r"przykład(?:y|ów)?|"
    r"пример(?:ы|ов|а)?|示例|例子|例|样例|範例|예시|instructions?|questions?|prompts?|tasks?|queries|"
    r"query|"
    r"requests?|items?|fragen?|aufgaben?|anweisung(?:en)?|preguntas?|instrucciones|consignes|"
    r"指令|问题|任务"
)
COUNTS = {
    word: number
    for number, words in enumerate(
        (
            "two zwei deux dos due dois duas twee два 两 二",
            "three drei trois tres tre três drie три 三",
            "four vier quatre cuatro quattro quatro четыре 四",
            "five fünf cinq cinco cinque vijf pięć пять 五",
            "six sechs six seis sei zes шесть 六",
            "seven sieben sept siete sette sete zeven семь 七",
            "eight acht huit ocho otto oito восемь 八",
            "nine neun neuf nueve nove negen девять 九",
            "ten zehn dix diez dieci dez tien десять 十",
        ),
        2,
    )
    for word in words.split()
}

_MARK = re.compile(
    r"^(?P<indent>[ \t]{0,12})(?P<heading>#{1,6}[ \t]{1,2}|>[ \t]?)?(?P<bold>\*\*|__)?(?:"
    rf"\[?(?:new[ \t])?(?P<word>{NOUN}|Q)[ \t]{{0,2}}(?:[#№]|No\.)?[ \t]?"
    r"(?P<n1>\d{1,3})\]?(?P<b1>\*\*|__)?"
    r"[ \t]?(?:[:：.)]|[\-–—](?=[ \t])|(?=[*_]{0,2}[ \t]*$))"
    r"|[(\[（](?P<n2>\d{1,3})[)\]）]"
    r"|#?(?P<n3>\d{1,3})(?P<b3>\*\*|__)?(?P<sign>[.)]|[:：](?=[ \t\n])|[、．]|"
    r"[ \t][-–—](?=[ \t]))(?![\d])"
    r"|(?P<letter>[a-z])\)(?=\s)"
    r"|(?P<bullet>[-*•–+·])(?=[ \t])"
    r")(?P<b4>\*\*|__)?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_INLINE = re.compile(
    r"(?:\A|(?<=[\s。！？；]))(?:(?P<paren>[(（](?P<n1>\d{1,3})[)）])|"
    r"(?P<n2>\d{1,3})(?P<sign>[.)、．])(?!\d)"
    rf"|(?P<word>{NOUN})[ \t]?[#№]?(?P<n3>\d{{1,3}})[ \t]?[:：.)])[ \t]*",
    re.IGNORECASE,
)
_OPENER = (
    r"here(?:'s| are| is|’s)?|these|below|(?:the )?following|hier(?: sind| ist| kommen)?|"
    r"voici|voilà|"
    r"aqu[ií](?: hay| tienes?| están| estão)?|ecco|oto|вот|以下|下面|这里|這裡|次|다음"
)
_LEAD = re.compile(rf"(?:{_OPENER})", re.IGNORECASE)
_NOUN = re.compile(rf"(?:\b|(?<=\W)|(?<=[^\x00-\x7f]))(?:{NOUN})", re.IGNORECASE)
# "examples of haiku" announces haiku: text to work on, where "of the same kind" announces examples
_OF = re.compile(
    r"\b(?:of|für|von|de|di|da|van)\b(?! (?:the same|this|that|der gleichen|dem gleichen|derselben|"
    r"la même|la misma|mismo|the kind|instructions?|prompts?|questions?|tasks?|things? to ask))",
    re.IGNORECASE,
)
_HEADING = re.compile(rf"[#*_ \t]{{1,8}}(?:new |neue )?(?:{NOUN})[*_:： \t]{{0,6}}", re.IGNORECASE)


class Lead(NamedTuple):
    """A line that announces a list. `number` is the count that it names. `material`: it may
    announce material to work on instead of examples."""

    number: int | None
    material: bool


class Mark(NamedTuple):
    """The opening of an entry: its place, its number (0: a bullet), its make and its depth. `open`
    is the emphasis that it opens and leaves for the entry to close."""

    start: int
    end: int
    number: int
    make: str
    depth: int
    open: str


def lead(text: str) -> tuple[Lead | None, str]:
    """Return the announcement that opens a text, or None, and the text behind it."""
    line, _, rest = text.lstrip().partition("\n")
    if _HEADING.fullmatch(line) and rest.strip():
        inner, after = lead(rest)
        return (inner, after) if inner else (Lead(None, False), rest)
    head, colon, tail = _colon(line)
    head = head.strip(" *_#")
    if len(head) > 200 or not (_LEAD.match(head) and _NOUN.search(head)):
        return None, text
    if not colon and (not rest.strip() or re.search(r"[.!?]\W", head)):
        return None, text
    after = f"{tail.lstrip(' *_')}\n{rest}" if tail.strip(" *_") else rest
    return Lead(_count(head), bool(_OF.search(head))), after


def _colon(line: str) -> tuple[str, str, str]:
    place = min((place for sign in ":：" if (place := line.find(sign)) >= 0), default=-1)
    return (line, "", "") if place < 0 else (line[:place], line[place], line[place + 1 :])


def _count(head: str) -> int | None:
    for word in re.findall(r"\d{1,2}|[^\W\d_]+", head.lower()):
        if word.isdigit():
            return int(word)
        if word in COUNTS:
            return COUNTS[word]
    return next((COUNTS[sign] for sign in head if sign in COUNTS), None)


def entries(text: str) -> list[str] | None:
    """Return the entries of a list that opens the text. []: there is no list. None: its entries
    cannot be told apart from the lists within them."""
    marks = [_mark(match) for match in _MARK.finditer(text)]
    if not marks or text[: marks[0].start].strip():
        return []
    first = marks[0]
    # Marks of another make, or set in deeper, belong to lists within an entry.
    like = [mark for mark in marks if mark.make == first.make and mark.depth <= first.depth + 1]
    if not first.number:
        return _bulleted(text, like)
    if first.number != 1:
        return []
    numbered: list[Mark] = []
    for mark in like:
        if mark.number == len(numbered) + 1:
            numbered.append(mark)
    # A number that stands twice belongs to a list within an entry, but to which is unclear.
    numbers = [mark.number for mark in like]
    if any(numbers.count(number) > 1 for number in range(1, min(len(numbered), 100) + 1)):
        return None
    return _inline(text) if len(numbered) == 1 else _texts_between(text, numbered)


def _bulleted(text: str, marks: list[Mark]) -> list[str] | None:
    """Return the entries of a list of bullets. None: one ends with a colon, and so may open a list
    of its own at the same depth."""
    parts = _texts_between(text, marks)
    return None if any(entry.rstrip(" *_\n").endswith((":", "：")) for entry in parts) else parts


def _inline(text: str) -> list[str] | None:
    """Return the entries of `1. one 2. two 3. three`. None: a number stands twice, and may belong
    to an entry."""
    marks = list(_INLINE.finditer(text))
    makes = [_make(mark) for mark in marks]
    like = [m for m, make in zip(marks, makes, strict=True) if make == makes[0]] if marks else []
    numbers = [int(mark["n1"] or mark["n2"] or mark["n3"]) for mark in like]
    if numbers[:2] != [1, 2] or "\n" in text.strip():
        first = [_mark(match) for match in _MARK.finditer(text)][:1]
        return _texts_between(text, first)
    if numbers != list(range(1, len(numbers) + 1)):
        return None
    ends = [*(mark.start() for mark in like[1:]), len(text)]
    parts = [text[m.end() : end].strip() for m, end in zip(like, ends, strict=True)]
    return [entry.rstrip(";,|") for entry in parts]


def _make(mark: re.Match[str]) -> str:
    return "(" if mark["paren"] else (mark["word"] or mark["sign"]).lower()


def _texts_between(text: str, marks: list[Mark]) -> list[str]:
    ends = [*(mark.start for mark in marks[1:]), len(text)]
    return [mark.open + text[mark.end : end] for mark, end in zip(marks, ends, strict=True)]


def _mark(match: re.Match[str]) -> Mark:
    number = match["n1"] or match["n2"] or match["n3"]
    letter = match["letter"]
    # `a)` has the number 1, `b)` the number 2.
    value = int(number) if number else ord(letter.lower()) - 96 if letter else 0
    make = match["word"] or match["sign"] or match["bullet"] or ("letter" if letter else "paren")
    shut = match["b1"] or match["b3"] or match["b4"]
    depth = len(match["indent"].expandtabs(4))
    spread = "" if shut else match["bold"] or ""
    return Mark(match.start(), match.end(), value, make.lower(), depth, spread)


def drop_number(text: str, place: int) -> str:
    """Take the number off a text that is numbered by its place among others: `2. Name a river.`"""
    match = _MARK.match(text.lstrip())
    if not match:
        return text
    mark = _mark(match)
    if mark.number not in (0, place):
        return text
    return mark.open + text.lstrip()[mark.end :]


def is_tidy(parts: list[str]) -> bool:
    """Say whether the last entry has no more lines than the others. A longer one may hold text that
    stands after the list."""
    if len(parts) < 2:
        return True
    heads = [split_input(entry)[0] for entry in parts]
    shapes = [(head.count("\n\n"), head.count("\n")) for head in heads]
    return all(
        last <= most
        for last, most in zip(shapes[-1], map(max, zip(*shapes[:-1], strict=True)), strict=True)
    )
