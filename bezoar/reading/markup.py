"""Removes the markup that models put around their text: fences, bold, quotes, labels, JSON."""

import json
import re
from typing import Any

# Languages of a fence that holds text; a fence of any other holds code, which belongs to the text.
PLAIN = ("", "text", "txt", "plain", "plaintext", "markdown", "md", "xml", "html", "json", "none")
QUOTES = ('""', "“”", "„“", "„”", "«»", "‹›", "「」", "『』", "``", "‘’", "''")
CLOSING = re.compile(
    r"(?:i hope|hope (?:this|these)|let me know|feel free|please let|if you (?:need|want|would)|"
    r"do you want|would you like|these (?:new )?(?:examples|instructions)|"
    r"each (?:of these|example|instruction)|all (?:of these|examples)|ich hoffe|"
    r"j'espère|espero que|spero che)\b",
    re.IGNORECASE,
)
OPENING = re.compile(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|gladly|okay|ok|no problem|alright|"
    r"natürlich|gerne?|bien sûr|claro|por supuesto|certo|当然|好的)\b"
    r"(?:[ ,]{0,2}(?:i can (?:help|do) (?:with )?that|thing))?[!.,:;。！，]{1,3}[ \t]{0,3}",
    re.IGNORECASE,
)

RULE = re.compile(r"(?m)^[ \t]{0,3}(?:-{3,80}|\*{3,80}|={3,80}|_{3,80})[ \t]{0,3}$")


def clean(text: str) -> str:
    """Write a reply with plain line ends and spaces, and without invisible characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ")
    return re.sub("[\u200b\u2060\ufeff]", "", text)


def drop_rules(text: str) -> str:
    """Drop the rules (`---`) that stand before and behind a text."""
    text = text.strip()
    while (rule := RULE.match(text)) and rule.end() < len(text):
        text = text[rule.end() :].strip()
    while (line := text.rpartition("\n")[2]) and "\n" in text and RULE.fullmatch(line):
        text = text.rpartition("\n")[0].strip()
    return text


def drop_dress(text: str) -> str:
    """Take off what encloses all of a text: fences, bold, quotes, and arrows before each line."""
    # Some replies are enclosed several times over, as in a fence around quotes around bold.
    for _ in range(4):
        inner = drop_quotes(drop_emphasis(drop_fence(drop_arrows(text.strip())))).strip()
        if inner == text:
            break
        text = inner
    return text


def drop_arrows(text: str) -> str:
    """Take off the arrows that quote each line of a text: `> Name a river.`"""
    lines = text.split("\n")
    if not all(line.startswith(">") for line in lines):
        return text
    return "\n".join(line[1:].removeprefix(" ") for line in lines)


def drop_fence(text: str) -> str:
    """Take off the fence that encloses all of a text, unless it says that it holds code."""
    text = text.strip()
    mark = text[:3]
    if mark not in ("```", "~~~") or not text.endswith(mark) or text.count(mark) != 2:
        return text
    if "\n" not in text:
        return text[3:-3]
    language, _, inside = text[3:-3].partition("\n")
    return inside.strip("\n") if language.strip().lower() in PLAIN else text


def drop_emphasis(text: str) -> str:
    """Take off the emphasis that encloses all of a text."""
    for mark in ("***", "**", "__", "*", "_"):
        inner = text[len(mark) : -len(mark)]
        if text.startswith(mark) and text.endswith(mark) and inner.strip(mark[0]) == inner != "":
            return inner if mark[0] not in inner else text
    return text


def drop_quotes(text: str) -> str:
    """Take off the quotation marks that enclose all of a text."""
    for opening, closing in map(tuple, QUOTES):
        inner = text[1:-1]
        quoted = len(text) > 2 and text[0] == opening and text[-1] == closing
        if quoted and opening not in inner and closing not in inner:
            return inner
    return text


def label(names: str, numbered: bool = True) -> re.Pattern[str]:
    """Return a pattern of a label that opens a line: `Input:`, `**Input:**`, `### Input`,
    `[Input]`.

    Without a colon the label stands alone on its line, as a heading or in bold or brackets. `names`
    are alternatives of a regular expression. `numbered` labels may have a number behind them."""
    number = r"(?:[ \t]?[#№]?\d{1,3})?" if numbered else ""
    name = rf"(?:{names}){number}"
    tag, end = r"(?:<(?:b|strong|h[1-6])>)?", r"(?:</(?:b|strong|h[1-6])>)?"
    dress = r"[#*_\]`]"
    return re.compile(
        rf"^(?:[#>*_\-\[` \t]{{0,8}}{tag}{name}{dress}{{0,4}}{end}"
        rf"[ \t]?[:：]{dress}{{0,4}}{end}[ \t]*"
        rf"|[ \t]{{0,3}}(?=[#*_\[`<])[#*_\[` \t]{{0,8}}{tag}{name}{dress}{{0,5}}{end}[ \t]*$"
        rf"|[ \t]{{0,3}}#{{1,6}}[ \t]{{1,3}}{name}(?:[ \t]?#{{1,6}})?[ \t]*$)",
        re.IGNORECASE | re.MULTILINE,
    )


INPUT = label(r"(?:input|eingabe|entrée|entrada|输入|ввод)", numbered=False)


def split_input(text: str, lower: bool = False) -> tuple[str, str]:
    """Return (instruction, context). The context opens with the first line that is labelled
    `Input:`. `lower`: a line with `input:`, which may be code, counts too."""
    text = text.strip()
    for match in INPUT.finditer(text):
        if lower or not match[0].strip().startswith("input"):
            return text[: match.start()].strip(), text[match.end() :].strip()
    return text, ""


def drop_closing(text: str) -> str:
    """Cut the last paragraph off where it speaks to the reader ("I hope these help!")."""
    head, _, last = text.rstrip().rpartition("\n\n")
    return head.rstrip() if head and CLOSING.match(last.lstrip(" *_-\n")) else text


def drop_opening(text: str) -> str:
    """Take off a first word to the reader ("Sure!") that more text follows."""
    text = text.strip()
    rest = OPENING.sub("", text, count=1) if OPENING.match(text) else text
    return rest.strip() or text


def values(text: str) -> list[Any]:
    """Return the JSON values of a reply that is an array or a row of objects, else [].

    An array that is cut off gives its whole values. Words before it and a fence around it are
    passed over."""
    body = text.strip()
    if "```" in body:
        inside = body.split("```")
        body = inside[1].removeprefix("json").strip() if len(inside) in (2, 3) else body
    if body[:1] not in ("[", "{"):
        lead, _, body = body.partition("\n")
        body = body.strip() if lead.rstrip(" *").endswith((":", "：")) else ""
    return _decode_values(body[1:] if body[:1] == "[" else body, body[:1] == "[")


def _decode_values(body: str, in_array: bool) -> list[Any]:
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_reject_repeated_keys)
    decoded: list[Any] = []
    place = 0
    while True:
        while place < len(body) and body[place] in " \t\r\n,":
            place += 1
        if place >= len(body) or (in_array and body[place] == "]"):
            return decoded
        if body[place] not in ('"{' if in_array else "{"):
            return [] if in_array else decoded
        try:
            value, place = decoder.raw_decode(body, place)
        except (ValueError, RecursionError):
            return decoded
        decoded.append(value)


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of two equal keys and reports nothing. Such an object is not read here.
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands twice")
    return mapping
