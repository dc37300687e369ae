"""The prompt in a teacher's reply to Evol-Instruct's questions, without the text around it."""

import re
from typing import Any

from bezoar.reading import markup

_NEW = (
    r"rewritten|created|new|brand-new|evolved|revised|modified|updated|improved|complex|"
    r"complicated|"
    r"rewrite|rewording|rarer|enhanced|refined|overhauled|umgeschriebene[rs]?|neue[rs]?|"
    r"überarbeitete[rs]?|réécrite?|"
    r"nouveau|nouvelle|reescrit[oa]|nuev[oa]|riscritto|nuovo|novo|重写|改写|新"
)
_THING = (
    r"prompt|version|variant|question|instruction|task|request|fassung|frage|aufforderung|consigne|"
    r"pregunta|versión|versione|versão|invite|提示|版本|问题"
)
_GIVEN = markup.label(r"#?(?:the )?(?:given|original|initial|old) prompt#?")
# With this label the model goes on to another round of the question.
_NEXT = markup.label(r"#?given prompt#?")
_OPERATION = r"(?:[ \t]?\([^()\n]{1,40}\))?"  # "Rewritten prompt (deepen):"
_NAMED_FIELD = markup.label(
    rf"#?(?:your |the |my |final )?(?:(?:{_NEW})[ _-])(?:(?:{_NEW}) )?(?:{_THING})#?{_OPERATION}"
    r"|rewritten|created",
    numbered=False,
)
# A field that has its marks (#Rewritten Prompt#) needs no colon. A dash is as good as a colon.
_FIELD = re.compile(
    rf"{_NAMED_FIELD.pattern}|^[#*_`> \t]{{0,6}}#(?:rewritten|"
    rf"created) prompt#[*_`]{{0,3}}[ \t]?:?[ \t]*"
    r"|^[*_]{0,2}(?:rewritten|created) prompt[*_]{0,2}[ \t]?[-–—][ \t]",
    re.IGNORECASE | re.MULTILINE,
)
_TITLE = re.compile(
    r"\A[*_]{0,2}(?:final |<)?(?:(?:rewritten|created)[ _])?(?:prompt|instruction|question|user)"
    r"(?:>|[*_]{0,2}(?::| ->)[*_]{0,2}[ \t\n])[ \t\n]{0,3}",
    re.IGNORECASE,
)
_TAG_END = re.compile(
    r"</(?:(?:rewritten|created)[ _])?(?:prompt|instruction|question)>\s{0,9}\Z", re.IGNORECASE
)
# Words that hand the prompt over without naming it
_HANDED = re.compile(
    r"[*_ \t]{0,4}(?:here (?:you go|it is)|here(?:'s|’s| is) (?:one|my (?:attempt|version|try)"
    r"(?: (?:at|of) [^:\n]{1,60})?)|try this(?: one)?|how about(?: this(?: one)?)?|"
    r"an? (?:more complex|harder|rarer|rewritten|new) (?:version|prompt|one) "
    r"(?:would|could|might) be)"
    r"[*_ \t]{0,4}[:：][*_ \t]{0,4}",
    re.IGNORECASE,
)
_TWO = re.compile(
    r"^[*_ \t]{0,4}(?:alternatively|or|another (?:option|version))\b[,:*_ \t]",
    re.IGNORECASE | re.MULTILINE,
)
_CHOICES = markup.label(
    rf"#?(?:option|version|variant|alternative|(?:(?:{_NEW}) )?(?:{_THING}))#? ?#?(?:[1-9]|[ABC])",
    numbered=False,
)
_LEAD = re.compile(
    r"[*_#\"' \t]{0,4}(?:here(?:'s|’s| is| are)|below is|this is|the following is|hier (?:ist|"
    r"kommt)|voici|aquí (?:está|tienes)|"
    r"ecco|aqui está|以下是|这是|下面是)",
    re.IGNORECASE,
)
_IS = re.compile(
    rf"[*_#\"' \t]{{0,4}}(?:the|my|your|"
    rf"a) (?:{_NEW}) (?:(?:{_NEW}) )?(?:{_THING})(?: of the [^:]{{0,40}})?"
    r" (?:is|would be|could be|might be|reads|becomes|now reads)(?: as follows)?[*_ ]{0,3}",
    re.IGNORECASE,
)
_MANY = re.compile(
    r"\b(?:prompts|versions|variants|options|alternatives|rewrites)\b", re.IGNORECASE
)
_FRESH = re.compile(rf"\b(?:{_NEW})\b|重写|改写|新的", re.IGNORECASE)
_NAMED = re.compile(rf"(?:{_THING}|it\b)", re.IGNORECASE)
_BOT = re.compile(
    r"^[ \t]{0,3}(?:<bot>|<assistant>|assistant|bot|ai)[ \t]?:[ \t]*", re.IGNORECASE | re.MULTILINE
)
_ASIDE = markup.label(
    r"(?:(?:brief )?explanation|changes?(?: made)?|what changed|rationale|reason(?:ing)?|comment|"
    r"modifications?|added constraints?|word count|words added|operation|erklärung|"
    r"explication|explicación|说明)",
    numbered=False,
)
_NOTE = markup.label(r"(?:note|notes|hinweis|remarque|nota|注)", numbered=False)
_OWN = re.compile(
    r"\b(?:i|i've|i’ve|we|original|rewritten|added|adds|prompt|version|words)\b", re.IGNORECASE
)
_ABOUT = re.compile(
    r"(?:this (?:new |rewritten )?|the (?:new |rewritten |revised |created ))"
    r"(?:version|prompt|rewrite|"
    r"revision)\b[^\n]{0,80}"
    r"\b(?:adds?|keeps?|asks?|includes?|introduces?|requires?|maintains?|makes?|is more|now)\b",
    re.IGNORECASE,
)
_I_DID = re.compile(r"I(?:'ve|’ve)? (?:have |also )?(?:added|made|kept|rewrote|changed|tried)\b")
_GAP = re.compile(r"\n[ \t]{0,99}\n")
# "(20 words added)", "[Added 10 words]"; "(at most 50 words)" belongs to what is asked
_COUNTED = re.compile(
    r"[(\[][^()\[\]\n]{0,40}\b(?:added|adding|word count|(?:rewritten|original) prompt)\b"
    r"[^()\[\]\n]{0,80}[)\]]\.?",
    re.IGNORECASE,
)
_EFFECT = re.compile(
    r"in this version,? (?:i|we|the)\b|the added (?:constraint|requirement|words)\b|"
    r"by (?:adding|asking|requiring|including) [^.\n]{1,80}, (?:the|this) (?:\w+ )?"
    r"(?:prompt|version)\b",
    re.IGNORECASE,
)
_ANSWER = markup.label(
    r"(?:(?:sample|possible|expected) )?(?:response|answer|output|solution|antwort|réponse|"
    r"respuesta|回答)",
    numbered=False,
)
_KEY = re.compile(rf"(?:(?:{_NEW})[ _-]?)?(?:{_THING})", re.IGNORECASE)


def prompt(reply: str) -> str | None:
    """Return the new prompt that a reply holds, with its input.

    "": the prompt is empty. None: it cannot be told from the text around it."""
    text = markup.drop_rules(turn(markup.clean(reply)))
    if _drop_announcement(text)[:1] in ("{", "[", "`") and (
        values := markup.values(_drop_announcement(text))
    ):
        return _read_json(values)
    text = markup.drop_fence(text)
    bot = _BOT.match(text)
    text = markup.drop_opening(text[bot.end() :] if bot else text)
    line = text.partition("\n")[0]
    # The teacher offers several prompts to choose from.
    if len(_CHOICES.findall(text)) > 1 or (_LEAD.match(line) and _MANY.search(line)):
        return None
    if (_ANSWER.match(text) and not _FIELD.match(text)) or _offers_another(text):
        return None
    field = _field(text)
    return None if field is None else _drop_comments(field)


def _offers_another(text: str) -> bool:
    """Say whether a paragraph offers another prompt instead."""
    return any(
        len(part.split("\n")[0]) < 40 or part.lower().startswith("alternatively")
        for part in text.split("\n\n")[1:]
        if _TWO.match(part + " ")
    )


def turn(reply: str) -> str:
    """Cut a reply where the model goes on to write the user's next turn."""
    return reply.partition("<human>:")[0].strip()


def _read_json(values: list[Any]) -> str | None:
    """Return the one text under a key that says prompt. None: there is no such text, or several."""
    if len(values) != 1 or not isinstance(values[0], dict):
        return None
    texts = [text for key, text in values[0].items() if _KEY.fullmatch(key.strip(" #:"))]
    return texts[0].strip() if len(texts) == 1 and isinstance(texts[0], str) else None


def _field(text: str) -> str | None:
    """Return the text under the field's own name. None: it cannot be told.

    Before it may stand the given prompt, or a line that announces it."""
    text = _first_round(text)
    fields = list(_FIELD.finditer(text))
    if not fields:
        text = _HANDED.sub("", text, count=1) if _HANDED.match(text) else text
        text = _drop_announcement(_TAG_END.sub("", _TITLE.sub("", text, count=1)))
        return None if _GIVEN.match(text) else text
    before = text[: fields[0].start()].strip()
    if before and not _GIVEN.match(_drop_announcement(before)) and not _is_announcement(before):
        return None
    ends = [*(field.start() for field in fields[1:]), len(text)]
    parts = [text[field.end() : end].strip() for field, end in zip(fields, ends, strict=True)]
    filled = [part for part in parts if part]
    return (
        _drop_announcement(_drop_field_name(filled[0] if filled else ""))
        if len(filled) < 2
        else None
    )


def _first_round(text: str) -> str:
    """Cut a text where the model goes on with another given prompt."""
    for next_label in _NEXT.finditer(text):
        before = text[: next_label.start()].strip()
        if before and not _is_announcement(before):
            return before
    return text


def _drop_field_name(text: str) -> str:
    """Drop the field's name from a text, if it stands there a second time."""
    again = _FIELD.match(text)
    return text[again.end() :] if again else text


def _is_announcement(before: str) -> bool:
    """Say whether a text is nothing but the line that announces the prompt."""
    return _drop_announcement(before.strip() + "\n\n.") == "."


def _drop_announcement(text: str) -> str:
    """Drop the line that announces a text: "Here's the rewritten prompt:"."""
    line, _, rest = text.strip().partition("\n")
    colon = min((colon for sign in ":：" if (colon := line.find(sign)) >= 0), default=len(line))
    head, tail = line[:colon], line[colon + 1 :].strip(" *_")
    is_lead = _LEAD.match(head) and _NAMED.search(head) and _FRESH.search(head)
    is_lead = is_lead or _IS.fullmatch(head)
    if not is_lead or len(head) > 200 or not (tail or rest.strip()):
        return text.strip()
    # Without a colon, only an empty line parts the announcement from the prompt.
    if colon == len(line) and not rest.startswith("\n"):
        return text.strip()
    return markup.drop_rules(markup.drop_opening(f"{tail}\n{rest}" if tail else rest))


def _drop_comments(text: str) -> str | None:
    """Return the prompt without the model's words about it behind. None: they may be an answer, or
    an explanation that goes on."""
    next_turn = _BOT.search(text)
    text = markup.drop_rules(markup.drop_closing(text[: next_turn.start()] if next_turn else text))
    for gap in reversed(list(_GAP.finditer(text))):
        if not _is_comment(text[gap.end() :]):
            break
        text = text[: gap.start()].rstrip()
    lines = text.split("\n")
    asides = [number for number, line in enumerate(lines) if number and _is_explanation(line)]
    # An explanation in the last line is cut off. One that goes on may be part of the prompt.
    if asides and asides[0] == len(lines) - 1:
        text = "\n".join(lines[:-1])
    elif asides:
        return None
    answer = _ANSWER.search(text)
    if answer and answer.start() and text[answer.end() :].strip():
        return None
    return markup.drop_dress(text)


def _is_comment(paragraph: str) -> bool:
    """Say whether a last paragraph speaks about the prompt: an explanation, or a note in the
    model's own name. A note that is part of the task is not."""
    text = paragraph.strip(" \t*_()\n")
    if not text.strip("-="):
        return True
    if _COUNTED.fullmatch(paragraph.strip(" \t*_\n")) or _EFFECT.match(text):
        return True
    is_note = _NOTE.match(text) and _OWN.search(text)
    return bool(_is_explanation(text) or _ABOUT.match(text) or _I_DID.match(text) or is_note)


def _is_explanation(text: str) -> bool:
    """Say whether a text is labelled as an explanation. A label alone is a place for one."""
    aside = _ASIDE.match(text)
    return bool(aside and text[aside.end() :].strip())
