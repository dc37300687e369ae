"""The two reference answers in a grader's reply, each under a heading of its own."""

import re
from typing import Any

from bezoar.reading import markup

# `[Reference answer 2]` wherever it stands in its line, other spellings alone on their line
_ASKED = r"\\?\[(?P<shut>/)?[ \t]?reference answers?[ \t]?(?P<n1>[12])[ \t]?\\?\]"
_OTHER = (
    r"^[ \t]{0,3}(?P<dress>[#*_\[ \t]{1,6})?(?:the )?(?:(?:reference |correct )?answer|"
    r"reference|referenzantwort|réponse de référence|"
    r"respuesta de referencia|参考答案)[ \t]?(?:to (?:the )?question |#|"
    r"no\. ?|to the )?(?P<n2>[12]|(?:first|"
    r"second)(?= question\b))(?: question)?[*_\]]{0,4}[ \t]?(?P<colon>[:：])?[*_\]]{0,4}"
)
_HEADING = re.compile(
    rf"[#*_]{{0,4}}[ \t]?(?:{_ASKED})[*_]{{0,4}}[ \t]?:?[*_]{{0,4}}|{_OTHER}",
    re.IGNORECASE | re.MULTILINE,
)
_QUESTION = re.compile(
    r"\[Question [12]\](?:(?!\[/?Question).){0,20000}\[/Question [12]\]", re.I | re.S
)
# where a model goes on with turns that nobody asked for
_MORE = re.compile(r"\n[*_#]{0,4}\[(?:Question|Reference answer) [3-9]\]", re.IGNORECASE)
_BEFORE = re.compile(
    r"(?:sure|certainly|of course|okay|here (?:are|is)|below|hier sind|voici|aquí)\b[^\n]{0,200}",
    re.IGNORECASE,
)


def references_in(reply: str) -> list[str] | None:
    """Both answers; None where they are not two, or cannot be told apart."""
    if (values := markup.values(reply)) and len(values) == 1:
        return _of_json(values[0])
    text = _QUESTION.sub("", markup.unfenced(markup.clean(reply))).strip()
    text = _MORE.split(text, maxsplit=1)[0].rstrip()
    headings = [found for found in _HEADING.finditer(text) if _heads(text, found)]
    opening = [found for found in headings if not found["shut"]]
    numbers = [_number(found) for found in opening]
    if numbers not in (["2"], ["1", "2"]):
        return None
    before = text[: opening[0].start()].strip()
    if numbers == ["1", "2"] and before and not _BEFORE.fullmatch(before):
        return None
    at = (
        [0, *(found.end() for found in opening)] if numbers == ["2"] else [f.end() for f in opening]
    )
    ends = [opening[-1].start(), len(text)]
    answers = [
        _answer(text[start:end], headings, start) for start, end in zip(at, ends, strict=True)
    ]
    return answers if all(answers) else None


def _number(heading: re.Match[str]) -> str:
    number: str = heading["n1"] or heading["n2"]
    return {"first": "1", "second": "2"}.get(number.lower(), number)


def _heads(text: str, found: re.Match[str]) -> bool:
    """Whether this is a heading: the one that was asked for, or one that is dressed as such."""
    if found["n1"]:
        return True
    rest = text[found.end() :].partition("\n")[0]
    return bool(found["colon"] or (found["dress"] and not rest.strip()))


def _answer(part: str, headings: list[re.Match[str]], start: int) -> str:
    """An answer up to the closing of its section; "" where more stands behind it."""
    shut = [
        found for found in headings if found["shut"] and start <= found.start() < start + len(part)
    ]
    if not shut:
        return markup.closed(markup.unruled(part))
    if part[shut[-1].end() - start :].strip(" \n*_#`"):
        return ""
    return part[: shut[0].start() - start].strip()


def _of_json(value: Any) -> list[str] | None:
    if not isinstance(value, dict) or len(value) != 2:
        return None
    found = {key.strip()[-1:]: text for key, text in value.items() if isinstance(text, str)}
    return [found["1"].strip(), found["2"].strip()] if found.keys() == {"1", "2"} else None
