"""The examples in a teacher's reply (LaMini), each with its instruction and its input."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any, NamedTuple

from bezoar.reading import lists, markup
from bezoar.reading.markup import INPUT

_TAG = re.compile(
    r"[<\[＜][ \t]{0,2}(?P<slash>/?)[ \t]{0,2}"
    r"(?:example|beispiel|exemple|ejemplo|esempio|exemplo|voorbeeld|пример|示例|例子)"
    r"(?:[ \t_#-]{0,2}\d{1,3}|[ \t][^<>\[\]\n]{0,80})?[ \t]{0,2}[>\]＞]",
    re.IGNORECASE,
)
_PART = re.compile(
    r"<(?P<slash>/?)(?P<name>instruction|question|prompt|input|context|output|response|answer)>",
    re.IGNORECASE,
)
_NUMBERED = markup.label(lists.NOUN)
_INSTRUCTION = markup.label(
    r"(?:the )?(?:instruction|instruktion|question|prompt|task|query|request|anweisung|"
    r"aufgabe|frage|"
    r"consigne|instrucción|pregunta|istruzione|instrução|指令|问题|инструкция|задание)"
)
# A teacher that writes the example as a talk names the speakers instead.
_USER = markup.label(r"(?:user|human)", numbered=False)
_ASSISTANT = markup.label(r"(?:assistant|ai|bot|chatbot)", numbered=False)
_ASIDE = markup.label(r"(?:category|topic|type|title|kategorie|thema|catégorie|categoría|类别)")
_CATEGORY = re.compile(
    r"\A\s*[*_#]{0,4}category[*_]{0,2}:[*_ \t]{0,4}[a-z_]+[*_]{0,4}\n\s*", re.IGNORECASE
)
_RESPONSE = markup.label(
    r"(?:(?:expected|sample|ideal|correct|possible|example|model) )?(?:output|response|answer)|"
    r"ausgabe|antwort|réponse|sortie|respuesta|salida|resposta|risposta|输出|回答|答案|ответ",
    numbered=False,
)
_ASKED = re.compile(r"Q\d{0,3}[:.][ \t]")
_ANSWERED = re.compile(r"^A\d{0,3}[:.][ \t]", re.MULTILINE)
_SHAPE = re.compile(
    r"example|format|such as|like this|as follows|template|e\.g\.|z\. ?b\.|beispiel|exemple|"
    r"ejemplo",
    re.IGNORECASE,
)
_NONE = re.compile(
    r"[\W_]*(?:none|n/?a|not (?:applicable|needed|required)|no ?input(?: (?:is )?"
    r"(?:needed|required|necessary|given|provided))?|keine?|aucune?|ninguna|无)?[\W_]*",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(?:example|instruction|question|prompt|task|item)?[ _#-]?\d{1,3}", re.IGNORECASE
)
ASKS = ("instruction", "question", "prompt", "task", "query", "request", "example", "text")
GIVES = ("input", "context", "passage")
ANSWERS = ("output", "response", "answer", "expected_output", "completion")


class Item(NamedTuple):
    """One example. `fault` says why it is none: `unclosed_example`, `unread_example` (several
    readings), `empty_instruction`. `answered`: a response was written with it, and taken off."""

    instruction: str
    context: str = ""
    fault: str = ""
    repaired: bool = False
    answered: bool = False


def examples(reply: str, cut: bool = False) -> list[Item]:
    """Return the examples in a reply, in their order. `cut`: the reply did not end by itself.

    The prompt asks for a pair of tags around each example. Three other forms are taken apart too:
    one pair of tags around a list, a list without tags, and JSON. Some 53 results of the paper had
    the first of these (3.1.1)."""
    text = markup.clean(reply)
    # Some replies write their tags as entities: `&lt;example&gt;`.
    text = text if _TAG.search(text) else unescape(text)
    if (from_json := _read_json(text)) and (text.lstrip()[:1] in "[{`" or not _tags(text)):
        return from_json
    blocks = list(_blocks(text, cut))
    if not blocks:
        return _read_untagged(text, cut)
    items: list[Item] = []
    for block, closed in blocks:
        items += _read_tagged(block, closed, alone=len(blocks) == 1, place=len(items) + 1)
    return items


def _blocks(text: str, cut: bool) -> Iterator[tuple[str, bool]]:
    """Yield the text behind each opening tag, and whether it is whole.

    A closing tag ends it. If a reply closes no tag at all, the next opening tag ends it."""
    tags = _tags(text)
    never_closed = not any(tag["slash"] for tag in tags)
    start = None
    for tag in tags:
        if start is not None:
            block = text[start : tag.start()]
            if tag["slash"] or block.strip():
                yield block, bool(tag["slash"]) or never_closed
        start = None if tag["slash"] else tag.end()
    if start is not None and text[start:].strip():
        last = markup.drop_closing(text[start:])
        yield last, not cut and _is_short(last)


def _tags(text: str) -> list[re.Match[str]]:
    """Return the tags of a reply. Square brackets count only without any angled tag, and at the
    start of a line or as a closing tag. Within a line they only speak of an example."""
    # A tag in ticks or quotes is only spoken of.
    tags = [tag for tag in _TAG.finditer(text) if not _is_quoted(text, tag)]
    angled = [tag for tag in tags if tag[0].startswith("<")]
    return angled or [
        t for t in tags if t["slash"] or text[t.start() - 1 : t.start()] in ("", "\n")
    ]


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    before, after = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
    return (before, after) in (("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"))


def _is_short(text: str) -> bool:
    """Say whether nothing but one instruction, and perhaps its input, can stand here."""
    instruction, context = markup.split_input(text.strip())
    return "\n" not in instruction and "\n\n" not in context


def _read_tagged(block: str, closed: bool, alone: bool, place: int) -> list[Item]:
    block = markup.drop_fence(block)
    if block.lstrip()[:1] in ("{", "[") and (from_json := _read_json(block)):
        return from_json
    texts = _split(block, closed, alone)
    if texts is None:
        return [Item(block.strip(), fault="unread_example", repaired=True)]
    if texts == [block]:
        return [_read_item(lists.drop_number(block, place), closed)]
    return [_read_item(t, closed or n < len(texts), True) for n, t in enumerate(texts, 1)]


def _split(block: str, closed: bool, alone: bool) -> list[str] | None:
    """Return the entries of a list of examples in one pair of tags, else the block itself.

    None: it may be either, as an instruction may hold a list to work on."""
    lead, rest = lists.lead(block)
    if (records := _records(rest)) or markup.RULE.search(markup.drop_rules(rest)):
        return records or None
    if lead is None:
        entries = lists.entries(block) if alone else []
        if entries and len(entries) == 1:
            return [block]
        # One or two entries may be a list within an instruction. Three that look alike are
        # examples.
        few = entries is None or 0 < len(entries) < 3
        return None if few or not lists.is_tidy(entries or []) else entries or [block]
    entries = lists.entries(rest)
    if not entries:
        return None if entries is None else [block] if rest.strip() else []
    if lead.material and not lists.is_tidy(entries):
        return [block]
    counted = lead.number == len(entries) or not closed
    sure = counted if lead.material else lists.is_tidy(entries) or not closed
    return entries if sure else None


def _read_untagged(text: str, cut: bool) -> list[Item]:
    """Return the entries of a list that is the whole reply: an announced list, or one of at least
    two entries."""
    body = markup.drop_opening(
        markup.drop_closing(re.sub(r"\A\s*#{2,3} ?RESPONSE:", "", text).strip())
    )
    body = markup.drop_opening(markup.drop_fence(body))
    lead, rest = lists.lead(body)
    rest = markup.drop_fence(rest.strip())
    entries = lists.entries(rest) or _records(rest)
    if entries == [] and lead and lead.number:
        entries = _split_counted(rest, lead.number)
    if not entries or len(entries) < (1 if lead else 2):
        return []
    bullets = rest.lstrip()[:1] in "-*•–+·" and not rest.lstrip().startswith("**")
    if (bullets and not lead and len(entries) < 3) or (lead and lead.material and not lead.number):
        return []
    ends = [True] * (len(entries) - 1) + [not cut]
    items = [_read_item(t, complete, True) for t, complete in zip(entries, ends, strict=True)]
    # An untidy last entry may hold text that stands after the list.
    if not lists.is_tidy(entries) and not cut:
        items[-1] = items[-1]._replace(fault="unread_example")
    return items


def _records(text: str) -> list[str]:
    """Return instructions that follow each other under the same label, without a number, else
    []."""
    starts = [match.start() for match in _INSTRUCTION.finditer(text)]
    if len(starts) < 2 or text[: starts[0]].strip():
        return []
    labels = {_INSTRUCTION.match(text[start : start + 80])[0].strip() for start in starts}  # type: ignore[index]
    ends = [*starts[1:], len(text)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    return parts if len(labels) == 1 else []


def _split_counted(text: str, count: int) -> list[str]:
    """Split a text into as many paragraphs, or lines, as were announced. [] if the count is not
    right."""
    for mark in ("\n---\n", "\n\n", "\n"):
        parts = [part.strip() for part in text.strip().split(mark) if part.strip()]
        if len(parts) == count > 1 and not any(INPUT.match(part) for part in parts):
            return parts
    return []


def _read_item(text: str, complete: bool, repaired: bool = False) -> Item:
    """Take an example apart by its labels. Not `complete`: the reply breaks off within it."""
    text = markup.drop_rules(text)
    text = _label_parts(markup.drop_dress(text.strip(" \t\n*" if text.count("**") % 2 else None)))
    # If the instruction's label is in lower case, the input's may be so too.
    lower = text[:1].islower() and bool(_INSTRUCTION.match(text))
    if (heading := _NUMBERED.match(text)) and text[heading.end() :].strip():
        text = text[heading.end() :]
    aside, label, rest = _split_at(_INSTRUCTION, text)
    if label and all(_ASIDE.match(line) or not line.strip() for line in aside.split("\n")):
        text = rest
    elif label and rest.strip() and _is_input(aside):
        text = f"{rest.strip()}\n{aside.strip()}"
    text = _read_talk(_CATEGORY.sub("", text, count=1))
    head, response, tail = _split_at(_RESPONSE, text)
    # `Q: ...` is a label only together with `A: ...`.
    if question := _ASKED.match(text):
        head, response, tail = _split_at(_ANSWERED, text[question.end() :])
    instruction, context = markup.split_input(head, lower=lower)
    instruction, context = markup.drop_dress(instruction), markup.drop_fence(context)
    context = "" if _NONE.fullmatch(context) else context
    fault = ""
    if not complete:
        fault = "unclosed_example"
    elif not any(character.isalnum() for character in instruction):
        fault, instruction = "empty_instruction", ""
    elif response and tail.strip() and not _is_response(head, tail):
        fault, instruction, context = "unread_example", text.strip(), ""
    answered = bool(response and tail.strip())
    return Item(instruction, context, fault, repaired, answered)


def _is_input(aside: str) -> bool:
    """Say whether nothing but an input stands before the label of the instruction."""
    instruction, context = markup.split_input(aside)
    return bool(context) and not instruction


def _read_talk(text: str) -> str:
    """Write an example in the form of a talk with the labels that were asked for."""
    user = _USER.match(text)
    if user is None or len(_USER.findall(text)) > 1:
        return text
    return _ASSISTANT.sub("Response: ", text[user.end() :], count=1).strip()


def _is_response(head: str, tail: str) -> bool:
    """Say whether the text behind a label is the response. It may be part of the task instead: a
    shape to answer in, or one of several worked examples."""
    before = head.rstrip().rpartition("\n")[2] if not INPUT.search(head) else ""
    before = before or INPUT.split(head)[0].rstrip().rpartition("\n")[2]
    is_shape = bool(_SHAPE.search(before)) or before.rstrip(" *").endswith((":", "："))
    is_repeated = any(label.search(tail) for label in (_RESPONSE, INPUT, _INSTRUCTION))
    return not is_shape and not is_repeated


def _split_at(label: re.Pattern[str], text: str) -> tuple[str, bool, str]:
    """Return the text before the first such label, whether there is one, and the text behind. A
    label in lower case within a text does not count, as it may be code."""
    for match in label.finditer(text):
        if not (match.start() and match[0].strip()[0].islower()):
            return text[: match.start()], True, text[match.end() :]
    return text, False, ""


def _label_parts(text: str) -> str:
    """Write tags inside of an example (`<instruction>`, `<input>`) as the labels that were asked
    for."""
    if not text.startswith("<"):
        return text
    return _PART.sub(
        lambda tag: "\n" if tag["slash"] else f"\n{tag['name'].title()}: ", text
    ).strip()


def _read_json(text: str) -> list[Item]:
    """Return the examples of all JSON values that a text consists of."""
    return [item for value in markup.values(text) for item in _read_json_value(value)]


def _read_json_value(value: Any) -> list[Item]:
    """Return the examples of a JSON value: a string, an object of one, or an object of many."""
    if isinstance(value, str):
        return [_read_item(value, True, True)]
    return _read_json_object(value) if isinstance(value, dict) else []


def _read_json_object(value: dict[str, Any]) -> list[Item]:
    many = [inner for inner in value.values() if isinstance(inner, list)]
    if len(value) == len(many) == 1:
        return [item for inner in many[0] for item in _read_json_value(inner)]
    if len(value) > 1 and all(_KEY.fullmatch(key) for key in value):
        return [item for inner in value.values() for item in _read_json_value(inner)]
    fields = {key.strip().lower().replace(" ", "_"): inner for key, inner in value.items()}
    instructions, contexts, responses = (
        [fields[name] for name in names if name in fields] for names in (ASKS, GIVES, ANSWERS)
    )
    if len(instructions) == 1 and isinstance(instructions[0], dict):
        return _read_json_value(instructions[0])
    texts = [*instructions, *contexts]
    if len(instructions) != 1 or not all(isinstance(text, str) or text is None for text in texts):
        return []
    item = _read_item(str(instructions[0] or ""), True, True)
    context = (
        ""
        if not contexts or contexts[0] is None or _NONE.fullmatch(contexts[0])
        else contexts[0].strip()
    )
    return [
        item._replace(context=context or item.context, answered=bool(responses) or item.answered)
    ]
