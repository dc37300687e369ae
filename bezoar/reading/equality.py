"""Says whether a reply calls two prompts equal.

Only a plain statement counts, and no other word of the reply may leave a doubt: a prompt that is
called equal is thrown away."""

import re
from itertools import pairwise
from typing import Any, Literal

from bezoar.reading import markup

Equality = Literal["equal", "not equal", "undecided"]

_SAME = r"(?:equal|the same|identical|equivalent)"
_UNLIKE = r"(?:un|in|non[- ]?)equal|different|differ(?:s|ing)?|distinct|not[-_]equal|dissimilar"
# The things that equal prompts share, as the question names them
_SHARED = (
    r"(?:in |with (?:the )?)?(?:(?:both|all|every|each|terms of|their|the|same|respects?|regards?|"
    r"aspects?|ways?|of|"
    r"constraints?|requirements?|depths?|breadths?|and|as well as|to each other|"
    r"with each other|what is asked)[ ,]{0,3})*"
)
_SUBJECT = (
    r"(?:(?:the |these |those |both )?(?:two |given |first and second |2 )*prompts?|they|both|it|"
    r"(?:the )?(?:first|second) (?:prompt )?and (?:the )?(?:first|second)(?: prompt)?|"
    r"the first prompt and the second prompt)"
)
_BEFORE = (
    r"(?:(?:yes|sure|so|thus|hence|therefore|overall|indeed|okay|ok|well|i would say|i'd say|"
    r"i think|"
    r"i believe|in conclusion|in short|in summary|based on (?:this|that|the above|the comparison)|"
    r"my answer is|the answer is|answer|verdict|result|conclusion|comparison|output|response|"
    r"final answer|"
    r"status|equality|the result is|#?the two prompts are#?|that|say)[ ,:=\-]{1,3})*"
)
_PLAINLY = (
    r"(?:(?:both|all|indeed|exactly|completely|entirely|fully|perfectly|essentially|therefore|"
    r"thus|absolutely) )*"
)
_COPULA = (
    r"(?:are|is|be|were|can be considered|should be considered|are considered|are found to be)"
)
_WHY = r"(?:[, ]{0,2}(?:(?:because|as|since|in that|both|they|this means)\b|[:–-]).*)?"
_PLAIN = re.compile(
    rf"{_BEFORE}(?:{_SUBJECT} )?(?:{_COPULA} )?{_PLAINLY}{_SAME}[ ,]{{0,2}}{_SHARED}{_WHY}"
)
_PLAIN_UNLIKE = re.compile(
    rf"{_BEFORE}(?:{_SUBJECT} )?(?:{_COPULA} |do )?{_PLAINLY}(?:very |quite |"
    rf"clearly )?(?:{_UNLIKE})(?: prompts| things| questions| tasks)?[ ,]{{0,2}}"
    rf"(?:from each other |from one another )?{_SHARED}{_WHY}"
)
_SAYING = re.compile(r"(?:so |thus |therefore )?(?:i would|i'd|i) say (?:that )?")
_WANTED = re.compile(r"\b(?:constraint|requirement)s?\b")
_SIZE = re.compile(r"\b(?:depth|breadth)s?\b")
_NO = (
    r"not|no|never|neither|hardly|barely|scarcely|nor|without|nothing|none|far from|anything but|"
    r"no longer|nowhere near|rather than|instead of|cannot|can not|less than"
)
# A negation at most four words before "equal", with nothing but words between
_DENIED = re.compile(
    rf"\b(?:{_NO})\b(?P<between>(?:[ -][a-z'\"*]+){{0,4}}?)[ -][\"'*_]{{0,2}}(?:equals?|same|"
    rf"identical|equivalent|equality)\b"
)
_NEGATION = re.compile(rf"\b(?:{_NO})\b|\b(?:un|in|non[- ]?)equal\b")
_UNSURE = re.compile(
    r"\b(?:if|whether|unless|would|could|might|may|when|suppose|or|clear|sure|certain|only)\b"
)
_ASIDE = re.compile(
    r"\b(?:word(?:s|ing|ed)?|phras\w+|styles?|formats?|lengths?|tones?|spell\w+|order|"
    r"language|in meaning)\b"
)
_DOUBT = re.compile(
    rf"\b(?:but|however|except|although|though|yet|while|whereas|unless|more|deeper|adds?|"
    rf"added|additional\w*|extra|"
    rf"partly|partially|almost|nearly|mostly|roughly|similar|further|less|fewer|longer|"
    rf"{_NO})\b|{_UNLIKE}"
)
_FIRST, _SECOND = re.compile(r"\bfirst\b"), re.compile(r"\b(?:second|latter)\b")
_HARMLESS = re.compile(r"\b(?:no|without(?: any)?) (?:[a-z]+ )?differences?\b")
_SHORT = re.compile(r"(?<=[a-z])n't\b")
_ARE = re.compile(r"(?<=[a-z])'re\b")
_ANSWERED = re.compile(r"\s*(yes|no)\b")


def equality(reply: str) -> Equality:
    """Read what a reply says of the two prompts.

    It is undecided where the reply says both or neither. It is undecided too where the reply speaks
    of a part, in doubt, or of something else."""
    # Behind this mark the model writes the user's next turn.
    text = markup.clean(reply).partition("<human>:")[0].strip()
    values = markup.values(text)
    if len(values) == 1 and isinstance(values[0], dict):
        return _read_json(values[0])
    clauses = _clauses(_simplify(text))
    # Each clause is read with the next one, which may answer it: "Are they equal? Yes."
    readings = {_read_clause(*pair) for pair in pairwise([*clauses, ""])}
    if "equal" in readings:
        doubt = "not equal" in readings or _DOUBT.search(_HARMLESS.sub("", " ".join(clauses)))
        # A clause about one prompt alone states a difference, in whatever words.
        differ = any(bool(_FIRST.search(c)) != bool(_SECOND.search(c)) for c in clauses)
        # A numbered list of one entry compares the first of two things, and the other may differ.
        is_partial = len(re.findall(r"^\s{0,3}\d[.)]", text, re.MULTILINE)) == 1
        return "undecided" if doubt or differ or is_partial else "equal"
    return "not equal" if "not equal" in readings else "undecided"


def _read_json(value: dict[str, Any]) -> Equality:
    flags = [
        item for key, item in value.items() if isinstance(item, bool) and _plain_key(key) == "equal"
    ]
    if len(flags) == 1 and len(value) == 1:
        return "equal" if flags[0] else "not equal"
    texts = [item for item in value.values() if isinstance(item, str)]
    return equality(texts[0]) if len(texts) == len(value) == 1 else "undecided"


def _plain_key(key: str) -> str:
    return re.sub(r"\A(?:is|are)[ _]", "", key.strip().lower())


def _simplify(text: str) -> str:
    """Write a text in lower case, without emphasis, long quotations and short forms."""
    text = re.sub(
        r"[\"“„«]([^\"“”„«»\n]{1,400})[\"”“»]", _short_quotation, text.lower().replace("’", "'")
    )
    text = re.sub(r"</?[a-z]{1,12}>|\\boxed|[*`#{}\[\]()]", " ", text.replace("≠", "not equal"))
    text = re.sub(r"!=", "not equal", text).replace("_", " ")
    text = re.sub(r"\bnot[ \t]{0,3}\n[ \t]{0,3}", "not ", text)
    return _ARE.sub(" are", _SHORT.sub(" not", text))


def _short_quotation(match: re.Match[str]) -> str:
    """Keep a short quotation, which may be the verdict. A longer one is from the prompts."""
    return match[1] if len(match[1].split()) <= 3 else "…"


def _clauses(text: str) -> list[str]:
    parts = re.split(r"(?<=[?])|[.;!\n。！；—]|(?<=equal):", text)
    return [" ".join(part.split()).strip("\"' -:,") for part in parts if part.strip("\"' -:,\t")]


def _read_clause(clause: str, after: str) -> Equality:
    clause = _SAYING.sub("", clause)
    if clause.endswith("?"):
        return _answered_question(clause, after)
    if _PLAIN.fullmatch(clause):
        return "undecided" if _is_partial(clause) else "equal"
    if _ASIDE.search(clause) or _UNSURE.search(_drop_reason(clause)):
        return "undecided"
    if _PLAIN_UNLIKE.fullmatch(clause):
        return "not equal"
    clause = clause.removeprefix("no, ")
    # One negation denies. Two cancel each other: "not unequal".
    denied = _DENIED.search(clause)
    if denied and len(_NEGATION.findall(clause[: denied.end("between")])) == 1:
        parted = re.search(r"\b(?:and|but|only)\b", denied["between"])
        return "undecided" if parted else "not equal"
    partly = re.search(r"\bequal\b.{0,100}\bbut not\b", clause)
    return "not equal" if partly and len(_NEGATION.findall(clause)) == 1 else "undecided"


def _is_partial(clause: str) -> bool:
    """Say whether one of the two things that equal prompts share is named without the other."""
    return bool(_WANTED.search(clause)) != bool(_SIZE.search(clause))


def _drop_reason(clause: str) -> str:
    """Cut a clause where it gives its reason."""
    return re.split(r"\b(?:because|as|since|so|which)\b|,", clause, maxsplit=1)[0]


def _answered_question(question: str, after: str) -> Equality:
    """Read a question that the model puts to itself and answers by yes or no."""
    answer = _ANSWERED.match(after)
    plain = question.rstrip("? ")
    alike = re.fullmatch(rf"(?:(?:are|is) )?(?:{_SUBJECT} )?{_SAME}", plain)
    unlike = re.fullmatch(rf"(?:(?:are|is|do) )?(?:{_SUBJECT} )?(?:{_UNLIKE})", plain)
    if not answer or not (alike or unlike):
        return "undecided"
    return "equal" if bool(alike) == (answer[1] == "yes") else "not equal"
