"""The grade or the choice that a grader's reply states: `Rating: [[7]]`, `Verdict: [[A]]`."""

import re
from typing import NamedTuple

from bezoar.reading import markup

_OPEN = r"\\?\[ ?\\?\["
_SHUT = r"\\?\] ?\\?\]"
# Statements that are looked at, from the reply's end
LAST = 200
_WIDE = str.maketrans("０１２３４５６７８９／ＡＢＣ．：［］【】", "0123456789/ABC.:[][]")
# A label opens its sentence. "Depth rating:" is the grade of a part, and does not count.
_OWN = (
    r"(?:^|(?<=[.!?:;,\n>#*_\"“(\[—–-])|(?<=[。！？；，：]))[ \t]{0,3}[*_#\"“\[ \t]{0,6}"
    r"(?:(?:so|thus|therefore|hence|in conclusion|overall|finally|and|my|the|our|final|"
    r"total|general)[,:]?[ \t]{1,2}){0,3}"
)
_GRADES = (
    r"(?:rating|score|grade|mark|overall|bewertung|punktzahl|puntuación|calificación|التقييم|الدرجة|评分|评级|得分|"
    r"分数)"
)
_CHOICES = r"(?:verdict|winner|decision|judge?ment|urteil|veredicto|判决|结论|裁决)"
_IS = (
    r"[ \t]{0,2}[*_]{0,3}(?:[ \t]{0,2}(?:[:：=]|is|are|would be|"
    r"of)(?![^\W\d_]))[ \t]{0,2}[*_:\"“]{0,4}[ \t]{0,2}"
)
_NOT = re.compile(
    r"\b(?:(?:not|no|never|neither|nor|than|over)\s(?:an? )?|(?:worse|weaker|inferior|poorer|worst|"
    r"weakest|loser)(?: (?:one|answer|response|reply|assistant))?(?: is)?[:：]?\s)[*_]{0,2}\Z",
    re.IGNORECASE,
)
# Words behind a value in double brackets that change it: another scale, or a loser
_UNMEANT = re.compile(
    r"\d|[ \t]?[%％]|[ \t]?(?:/|out of)[ \t]?(?!10\b)\d|[ \t(,]{0,3}(?:on )?(?:an? |the )?scale "
    r"(?:of |from )?[01] ?(?:-|–|to) ?(?!10\b)\d|[*_\s]{0,3}or (?:a |it is a )?tie\b"
    r"|(?:['’]s answer)? ?(?:is|was) (?:the |a )?(?:not|worse|weaker|inferior|poorer|worst|loser)\b"
    r"|(?:['’]s answer)? (?:loses|lost|lacks|fails|falls short)\b",
    re.IGNORECASE,
)
# "it would have been [[9]]", "if it had sources: [[9]]": no grade of this answer
_IF_ONLY = re.compile(
    r"\b(?:if|unless|had (?:it|the|this)|(?:would|could|might) have|(?:it|that|this|which) "
    r"(?:would|could|might) be|(?:it|that)['’]d be)\b",
    re.IGNORECASE,
)
_CHOOSING = re.compile(
    r"\b(?:g[ia]ve[ns]?|giving|rat(?:e[ds]?|ing)|scor(?:e[ds]?|ing)|grad(?:e[ds]?|ing)|marks?|"
    r"settle|deserve[sd]?|assign|award|choose|chose|pick|prefer|vote|verdict|winner|wins?|decide|"
    r"decision|judge?ment|better|worse|best|conclu\w+|overall|go with|calls?|longer|worth|tie|"
    r"final|total|bewertung|note|urteil|vergebe|besser|gewinner)\b",
    re.IGNORECASE,
)
# The head of a sheet such as graders are shown
_SHEET = re.compile(
    r"^\[(?:Question|Reference answer|Answer)(?: [AB])?(?: [12])?\]|^Grade the assistant",
    re.MULTILINE,
)
_NUMBER = r"-?\d{1,3}(?:\.\d{0,9})?"  # digits of any script: `[[٨]]`
_TEN = r"(?:[ \t]{0,2}(?:/|out of|von|sur|de)[ \t]{0,2}10(?!\d))?"
_BEFORE = r"(?:\$?\\boxed\{|\\?[\[(*_]{1,3})?[ \t]{0,2}"  # what may enclose a value: `[7]`, `**7**`
_BEHIND = r"[ \t]{0,2}(?:\\?[\])*_}\"”$]{1,4})?"
# The end of a line, perhaps after words in parentheses
_END = r"(?:[ \t]{0,2}\((?:[^()\d\n]|10){0,60}\))?[.!。]?[ \t*_\"”)\]]{0,4}[.!。]?[ \t*_]{0,3}$"


class Form(NamedTuple):
    """The patterns of one kind of closing statement."""

    # A value in double brackets, and perhaps a label within
    bracketed: re.Pattern[str]
    # The label right before a value in double brackets
    labelled: re.Pattern[str]
    # A labelled value without double brackets, as a whole line or sentence
    plain: re.Pattern[str]
    # A sentence that states the value in words
    spoken: re.Pattern[str]


RATING = Form(
    bracketed=re.compile(
        rf"{_OPEN}[\s*_]{{0,3}}(?:{_GRADES}[ \t]?[:：=][\s*_]{{0,3}})?"
        rf"(?P<value>{_NUMBER}){_TEN}[\s*_]{{0,3}}{_SHUT}",
        re.IGNORECASE,
    ),
    labelled=re.compile(rf"{_OWN}{_GRADES}{_IS}\Z", re.IGNORECASE | re.MULTILINE),
    plain=re.compile(
        rf"{_OWN}{_GRADES}{_IS}{_BEFORE}(?P<value>{_NUMBER}){_TEN}{_BEHIND}{_TEN}{_END}",
        re.IGNORECASE | re.MULTILINE,
    ),
    spoken=re.compile(
        r"(?:(?:so|overall|therefore|thus|in conclusion|in total|based on this|all in all|"
        r"for these reasons),? )?"
        r"(?:i(?:'d|’d| would|'ll|’ll| will| can)? (?:therefore |thus )?(?:give|rate|score|"
        r"grade|mark) "
        r"(?:it|this|(?:this|the)(?: assistant's| assistant’s| ai's)? (?:answer|response|"
        r"reply)|the assistant)"
        r"(?: with)? (?:an? )?(?:(?:score|rating|grade|mark) )?(?:(?:of|as|at) (?:an? )?)?"
        r"|(?:this|the|it|my|final|overall) ?(?:answer|response|reply|rating|score|grade)? "
        r"(?:deserves|gets|receives|earns|is worth|is|would be)(?: an?)?(?: (?:score|rating|"
        r"grade) of)? )?"
        r"\**(?P<value>[0-9]{1,2}(?:\.[0-9]{0,9})?)(?:[ ]?/[ ]?|[ ]out of[ ])10\**",
        re.IGNORECASE,
    ),
)
CHOICE = Form(
    bracketed=re.compile(
        rf"{_OPEN}[\s*_]{{0,3}}(?:(?:verdict|choice|winner)[ \t]?[:：=][\s*_]{{0,3}})?"
        rf"(?:(?:assistant|answer|model)[ \t])?(?P<value>[ABC]|tie)[\s*_]{{0,3}}{_SHUT}",
        re.IGNORECASE,
    ),
    labelled=re.compile(rf"{_OWN}{_CHOICES}{_IS}\Z", re.IGNORECASE | re.MULTILINE),
    plain=re.compile(
        rf"(?i:{_OWN}{_CHOICES}{_IS}){_BEFORE}(?i:(?:assistant|model|answer|option|response)[ \t])?"
        rf"(?P<value>[ABC]|[Tt]ie|TIE){_BEHIND}(?: is (?:the )?better(?: answer| one)?)?{_END}",
        re.MULTILINE,
    ),
    # A choice is not read from words alone: this pattern matches nothing.
    spoken=re.compile(r"(?!)"),
)


def read_value(form: Form, reply: str, cut: bool = False) -> str | None:
    """Return the value that a reply states. None: it states none, or several.

    Text in quotes belongs to the answer that is graded. `cut`: the reply was cut off, and only a
    value in double brackets is sure to be whole."""
    # Full-width digits and brackets, as Chinese replies have them, are read as ASCII ones.
    text = markup.drop_dress(markup.clean(reply)).translate(_WIDE)
    text = _cut_own_sheet(form, text)
    bracketed = _bracketed_value(form, text)
    if bracketed or cut:
        return bracketed
    plain = list(form.plain.finditer(text))[-LAST:]
    values = [match["value"] for match in plain if not _in_quotes(text, match.start("value"))]
    # A value in double brackets that does not count makes a plain one doubtful, unless the former
    # only stands amidst prose.
    if form.bracketed.search(text) and not (values and _all_in_prose(form, text)):
        return None
    return _agreed_value(values) if values else _spoken_value(form, text)


def _cut_own_sheet(form: Form, text: str) -> str:
    """Cut a reply where its model goes on with a sheet of its own making, which it grades too."""
    sheet = next((match for match in _SHEET.finditer(text) if match.start()), None)
    if sheet is None:
        return text
    before = text[: sheet.start()]
    return before if form.bracketed.search(before) or form.plain.search(before) else text


def _all_in_prose(form: Form, text: str) -> bool:
    """Say whether all values in double brackets stand amidst prose, as numbers of an answer do."""
    return not any(
        _has_label(form, text, match) or _stands_alone(text, match) or _is_denied(text, match)
        for match in form.bracketed.finditer(text)
    )


def _bracketed_value(form: Form, text: str) -> str | None:
    """Return the last labelled value in double brackets.

    Without labels, return the value that stands alone in the last line, or the one that all the
    others agree with."""
    matches = [match for match in form.bracketed.finditer(text) if not _is_denied(text, match)][
        -LAST:
    ]
    unquoted = [match for match in matches if not _in_quotes(text, match.start())]
    if labelled := [match for match in unquoted if _has_label(form, text, match)]:
        last = labelled[-1]
        return last["value"] if not _has_rival(form, text, last) else None
    if matches and _stands_alone(text, matches[-1]):
        return matches[-1]["value"]
    if not all(_opens_line(text, match) or _is_chosen(form, text, match) for match in unquoted):
        return None
    return _agreed_value([match["value"] for match in unquoted])


def _is_denied(text: str, match: re.Match[str]) -> bool:
    """Say whether a value is not meant: taken back, or "if it had sources: [[9]]"."""
    return _is_taken_back(text, match) or bool(
        _IF_ONLY.search(_sentence_before(text, match.start()))
    )


def _is_taken_back(text: str, match: re.Match[str]) -> bool:
    """Say whether the words around a value deny it: "not [[7]]", "the worse is [[A]]",
    "[[4]]/5"."""
    start, end = match.span()
    return bool(_NOT.search(text, max(0, start - 40), start) or _UNMEANT.match(text, end))


def _sentence_before(text: str, place: int) -> str:
    """Return the part of a sentence before a place, at most 200 characters."""
    return re.split(r"[.!?](?=\s)|\n", text[max(0, place - 200) : place])[-1]


def _opens_line(text: str, match: re.Match[str]) -> bool:
    """Say whether a value opens its line, or is a sentence of its own."""
    before = _sentence_before(text, match.start()).strip(" *_>#\"'`([-")
    return not before


def _is_chosen(form: Form, text: str, match: re.Match[str]) -> bool:
    """Say whether the sentence around a value speaks of a grade or a choice, and of nothing
    else."""
    after = re.split(r"[.!?](?:\s|$)|\n", text[match.end() : match.end() + 200], maxsplit=1)[0]
    return bool(_CHOOSING.search(_sentence_before(text, match.start()) + " " + after))


def _has_rival(form: Form, text: str, match: re.Match[str]) -> bool:
    """Say whether the same sentence states another value behind this one."""
    line = text[match.end() :].partition("\n")[0]
    rest = re.split(r"[.!?](?:\s|$)", line, maxsplit=1)[0]
    others = [
        later["value"] for later in form.bracketed.finditer(rest) if not _is_taken_back(rest, later)
    ]
    return bool({*others} - {match["value"]})


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Say whether a value is all that stands in its line, with nothing behind that line."""
    before = text[: match.start()].rpartition("\n")[2]
    return not (before + text[match.end() :]).strip(" *_>#\"'`.()[]{}\n")


def _has_label(form: Form, text: str, match: re.Match[str]) -> bool:
    if any(letter in match[0] for letter in ":：="):
        return True
    return bool(form.labelled.search(text, max(0, match.start() - 80), match.start()))


def _agreed_value(values: list[str]) -> str | None:
    return values[-1] if len(set(values)) == 1 else None


def _spoken_value(form: Form, text: str) -> str | None:
    """Return the value that a last sentence, or a line of its own at the end, states in words."""
    last = text.strip().rpartition("\n")[2].strip(" *_")
    sentence = re.split(r"(?<=[.!?]) ", last)[-1].strip(" *_").removesuffix(".")
    match = form.spoken.fullmatch(sentence)
    # With a second number out of ten, one of them may be the grade of a part.
    others = re.findall(r"\d(?:[ ]?/[ ]?|[ ]out of[ ])10\b", text)
    return match["value"] if match and len(others) == 1 else None


def _in_quotes(text: str, place: int) -> bool:
    """Say whether a place stands inside of quotation marks that open and close on its line."""
    start = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    before, after = text[start:place], text[place : end if end >= 0 else len(text)]
    # After an odd number of straight quotes one of them is still open.
    straight = before.count('"') % 2 == 1 and '"' in after
    ticked = before.count("`") % 2 == 1 and "`" in after
    curly = before.rfind("“") > before.rfind("”") and "”" in after
    angled = before.rfind("«") > before.rfind("»") and "»" in after
    return straight or ticked or curly or angled
