"""Puts samples (OpenBezoar 3.2) and MT-Bench answers (4.2) to judges, and reads their replies. A
reply that is not in the form asked for is undecided or unparsed, with the reason. It is never taken
for a number."""

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import unescape
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from bezoar.judging.differences import bootstrap
from bezoar.reading import unread
from bezoar.reading.closing import CHOICE, RATING, Form, read_value
from bezoar.reading.markup import clean, drop_fence
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt, fence
from bezoar.rows.records import (
    UNSAID,
    Answers,
    Ask,
    Comparison,
    Exchange,
    Grade,
    Message,
    Question,
    Referenced,
    Reply,
    Sample,
    Verdict,
)

R = TypeVar("R")

RESPONSE, EXPLANATION = (
    (Prompt(f"judge/{criterion}_system", "scale"), Prompt(f"judge/{criterion}", "scale"))
    for criterion in ("response", "explanation")
)
SYSTEM = Prompt("mt_bench/system")
FIELDS = ("status", "rating", "reason")
SHOWN = ("instruction", "response", "expected", "generated")
TAGS = tuple(f"<{slash}{name}>" for name in SHOWN + FIELDS for slash in ("", "/"))
# These marks open or close a turn in the chat templates of open models. A server may read them as
# such wherever they stand.
TURNS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>", "<s>", "</s>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
)
SECTIONS = tuple(
    f"[{slash}{name}{number}]"
    for name in ("Question", "Answer", "Answer A", "Answer B", "Reference answer")
    for number in ("", " 1", " 2")
    for slash in ("", "/")
)


# --- samples -------------------------------------------------------------------------------------


def judge(sample: Sample, scale: int, ask: Ask) -> Verdict:
    """Ask a judge for its verdict on a sample. Ratings run from 1 to `scale`."""
    return verdict(sample, ask(question(sample, scale)), scale)


def question(sample: Sample, scale: int) -> list[Message]:
    """Put a sample to the judge: the criterion as a system message, the row as a user message
    (paper 3.2). The form of the reply stands last, because a small model keeps to it only there.

    With an expected answer the criterion is whether the response explains it. Without one it is
    whether the response does what the instruction asks."""
    instruction = chat.with_input(sample.instruction, sample.context)
    row = {"instruction": _fenced(instruction), "scale": str(scale)}
    if sample.expected:
        criterion, form = EXPLANATION
        row |= {"expected": _fenced(sample.expected), "generated": _fenced(sample.response)}
    else:
        criterion, form = RESPONSE
        row |= {"response": _fenced(sample.response)}
    return [
        Message(role="system", content=criterion.fill(scale=str(scale))),
        Message(role="user", content=form.fill(**row)),
    ]


def schema(scale: int) -> dict[str, Any]:
    """Return the JSON schema of a verdict, such as servers of OpenAI's protocol take as strict."""
    return {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["Accept", "Reject"]},
            "rating": {"type": "integer", "enum": list(range(1, scale + 1))},
            "reason": {"type": "string"},
        },
        "required": list(FIELDS),
        "additionalProperties": False,
    }


def verdict(sample: Sample, reply: Reply, scale: int) -> Verdict:
    """Return the verdict that a reply states on the sample, or undecided with the fault of the
    reply."""
    status: Literal["accepted", "rejected", "undecided"]
    try:
        if reply.finish_reason in UNSAID:
            raise ValueError(reply.finish_reason)
        accepted, rating, reason = parse(reply, scale, forged_verdicts(sample))
    except ValueError as error:
        status, stars, reason = "undecided", None, str(error)
    else:
        status, stars = "accepted" if accepted else "rejected", rating
    return Verdict(
        id=sample.id,
        status=status,
        rating=stars,
        reason=reason,
        reply=reply.text,
        judge=reply.model,
        simulated=reply.simulated,
    )


def failed_verdict(id: str, why: str, judge: str) -> Verdict:
    """Return an undecided verdict for a request that failed for good."""
    return Verdict(
        id=id,
        status="undecided",
        rating=None,
        reason=f"failed: {why}",
        reply="",
        judge=judge,
        simulated=False,
    )


def forged_verdicts(sample: Sample) -> set[tuple[str, int]]:
    """Return the verdicts (status, rating) that the judged texts state themselves, in tags, in JSON
    or in lines. A judge that repeats such a text has not stated them."""
    text = "\n".join((sample.instruction, sample.context, sample.expected, sample.response))
    # JSON may spell any character as an escape.
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), text)
    text = clean(unescape(text))
    ratings = {int(rating) for rating in _FORGED_RATING.findall(text)}
    lines = {(f"{_LINES}{s.lower()}", int(rating)) for s, rating in _FORGED_LINES.findall(text)}
    return lines | {(s.lower(), rating) for s in _FORGED_STATUS.findall(text) for rating in ratings}


def parse(
    reply: Reply, scale: int, forged: Collection[tuple[str, int]] = ()
) -> tuple[bool, int, str]:
    """Return (accepted, rating, reason) of a judge's reply. ValueError: it states no verdict, with
    the reason.

    A verdict is a JSON object at the reply's end, or the three fields in their tags. It may also be
    a reply of three lines alone, one for each field in their order. The last closing tag may be
    missing. If a tag stands more than once, the earlier ones may be quoted from the text that was
    judged. Then the verdict is the one at the end, in the order that was asked for. A verdict among
    those `forged` in that text does not count."""
    if reply.finish_reason != "stop":
        raise ValueError(_ENDED[reply.finish_reason])
    text = _before_own_row(clean(reply.text))
    if re.search(r"\A[\W_]*\Z", text):
        raise ValueError("blank")
    lines = _in_lines(text)
    status, rating, reason = lines or _object(text) or _tagged(text)
    # "Accepted" and "Rejected" are read as Accept and Reject.
    status = status.lower().removesuffix("ed")
    rating = _without_scale(rating, scale)
    if status not in ("accept", "reject"):
        raise ValueError("status: neither Accept nor Reject")
    if not re.fullmatch(r"[0-9]{1,3}", rating) or not 1 <= int(rating) <= scale:
        raise ValueError(f"rating: no whole number from 1 to {scale}")
    if not reason:
        raise ValueError("reason: empty")
    if ((_LINES if lines else "") + status, int(rating)) in forged:
        raise ValueError("quoted: this verdict stands in the text that was judged")
    return status == "accept", int(rating), reason


def _without_scale(rating: str, scale: int) -> str:
    """Return a rating in ASCII digits, without the scale that it names: `6/7`, `6 out of 7`, `٦ من
    ٧`."""
    rating = re.sub(r"\d", lambda digit: str(int(digit[0])), rating)
    return re.sub(rf"\s*(?:/|out of|von|sur|de|di|van|من)\s*{scale}\Z", "", rating)


_ENDED = {"length": "truncated", "refused": "refused", "too_long": "too_long", "failed": "failed"}
_A_FIELD = "|".join(FIELDS)
# The three fields in their order, with nothing between them and nothing of theirs behind them.
_LAST = re.compile(
    r"<status>([^<>]*)</status>\s*<rating>([^<>]*)</rating>\s*"
    rf"<reason>((?:(?!</?(?:{_A_FIELD})>).)*)(?:</reason>[\s`*]*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
# A field's tag as models also write it: `< status >`, `</ status>`, `**<status>**`.
_TAG = re.compile(
    rf"(?:\*\*)?<\s{{0,2}}(/?)\s{{0,2}}({_A_FIELD})\s{{0,2}}>(?:\*\*)?", re.IGNORECASE
)
_THREE = re.compile(
    r"\A[\s*#-]{0,4}(?:status[*\s]{0,3}:[*\s]{0,4})?((?:accept|"
    r"reject)(?:ed)?)[.,;*]{0,3}[ \t]{0,3}\n[\s*#-]{0,4}"
    r"(?:rating[*\s]{0,3}:[*\s]{0,4})?(\d{1,3}(?:\s?(?:/|out of)\s?\d{1,3})?)[.,;*]{0,3}"
    r"[ \t]{0,3}\n[\s*#-]{0,4}(?:reason[*\s]{0,3}:[*\s]{0,4})?(?!status|rating|reason)(\S[^<>]*)\Z",
    re.IGNORECASE,
)
# This marks a forged verdict that stands in lines, not in tags or JSON.
_LINES = "in lines: "
_FORGED_STATUS = re.compile(
    r"""(?:<\s{0,2}status\s{0,2}>|"status"\s*:\s*")[\s*`"'.]{0,4}(accept|reject)(?:ed)?\b""",
    re.IGNORECASE,
)
_FORGED_RATING = re.compile(
    r"""(?:<\s{0,2}rating\s{0,2}>|"rating"\s*:)[\s*`"'.]{0,4}(\d{1,3})\b""", re.IGNORECASE
)
_FORGED_LINES = re.compile(
    r"\b(accept|reject)(?:ed)?\b[\W_]{0,12}(?:rating[\W_]{0,8})?\b(\d{1,3})\b", re.IGNORECASE
)
# So many opening braces are tried for a verdict, from the reply's end.
OBJECTS = 100


def _fenced(text: str) -> str:
    return fence(text, *TAGS, *TURNS)


def _before_own_row(text: str) -> str:
    """Return a reply up to where its model goes on with a row of its own making, which it judges
    too."""
    before, row, _ = text.partition("\n<instruction>")
    low = before.lower()
    return before if row and "<status>" in low and "<reason>" in low else text


def _object(text: str) -> tuple[str, str, str] | None:
    """Return (status, rating, reason) of the JSON object that ends a reply, or None without one."""
    text = text.rstrip("`* \n\r\t")
    if not text.endswith("}"):
        return None
    start = len(text)
    for _ in range(OBJECTS):
        # The search goes from the end, so only objects inside of the last one are tried before it.
        if (start := text.rfind("{", 0, start)) < 0:
            return None
        try:
            parsed: dict[str, Any] = json.loads(text[start:], object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError):
            continue
        fields = {str(key).lower(): value for key, value in parsed.items()}
        if len(fields) == len(parsed) and fields.keys() == set(FIELDS):
            status, rating, reason = (fields[name] for name in FIELDS)
            # In Python a bool is an int as well: `"rating": true` is no rating.
            is_integer = isinstance(rating, int) and not isinstance(rating, bool)
            return str(status).strip(), str(rating) if is_integer else "", str(reason).strip()
    return None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict. ValueError: a key stands twice."""
    unique = dict(pairs)
    # Without this json.loads would keep the last of two equal keys without a word.
    if len(unique) < len(pairs):
        raise ValueError("a key stands twice")
    return unique


def _in_lines(text: str) -> tuple[str, str, str] | None:
    """Return (status, rating, reason) of a reply of exactly these three lines, or None."""
    match = _THREE.match(drop_fence(text))
    if not match or re.search(
        rf"^\W{{0,6}}(?:accept|reject|{_A_FIELD})\b\W*:?", match[3], re.I | re.M
    ):
        return None
    status, rating, reason = (part.strip() for part in match.groups())
    return status, rating, reason


def _tagged(text: str) -> tuple[str, str, str]:
    text = _TAG.sub(r"<\1\2>", text if _TAG.search(text) else unescape(text))
    tags = re.findall(rf"</?(?:{_A_FIELD})>", text, re.IGNORECASE)
    if len(tags) >= 2 * len(FIELDS) and (last := _LAST.search(text)):
        status, rating, reason = (part.strip() for part in last.groups())
    else:
        status, rating, reason = (_field(text, name) for name in FIELDS)
    return status.strip("*`\"'. \n"), rating.strip("*`\"' \n"), reason


def _field(text: str, name: str) -> str:
    """Return the text in a field's tags. The last field of a reply may lack its closing tag. So may
    the status and the rating before the next opening tag, since they hold only their value.
    ValueError: the field does not stand in its tags exactly once."""
    opens = [m.end() for m in re.finditer(f"<{name}>", text, re.IGNORECASE)]
    closes = [m.start() for m in re.finditer(f"</{name}>", text, re.IGNORECASE)]
    if len(opens) == 1 and not closes:
        rest = text[opens[0] :]
        after = re.search(rf"<(/?)(?:{_A_FIELD})>", rest, re.IGNORECASE)
        if after is None:
            return rest.strip().strip("`").strip()
        if name != "reason" and not after[1]:
            return rest[: after.start()].strip()
    if len(opens) != 1 or len(closes) != 1 or opens[0] > closes[0]:
        raise ValueError(f"{name}: does not stand in its tags exactly once")
    return text[opens[0] : closes[0]].strip()


# --- MT-Bench ------------------------------------------------------------------------------------

# `mt_grade.references` may name these, whether any question at hand is of them or not.
CATEGORIES = (
    *("writing", "roleplay", "reasoning", "math"),
    *("coding", "extraction", "stem", "humanities"),
)


def referenced_ids(
    questions: Iterable[Question], selection: Literal["all"] | Sequence[str]
) -> frozenset[int]:
    """Return the ids of the questions that are judged beside a reference answer. They are all
    questions, as in the paper (4.2), or those of some categories. BadInput: an unknown category."""
    category_of = {question.question_id: question.category for question in questions}
    if selection == "all":
        return frozenset(category_of)
    categories = {*CATEGORIES, *category_of.values()}
    if unknown := [category for category in selection if category not in categories]:
        raise BadInput(
            f"mt_grade.references: {', '.join(unknown)}: no category of the questions; have "
            f"{', '.join(sorted(categories))}, or `all`"
        )
    return frozenset(id for id, category in category_of.items() if category in selection)


def grade_answers(
    answers: Answers, questions: Mapping[int, Question], with_reference: Collection[int], ask: Ask
) -> list[Grade]:
    """Return the two grades of a model's answers, 1-10, turn 1 then turn 2.

    The questions `with_reference` (ids) are graded beside reference answers. The judge itself is
    asked for them where none are given (paper 4.2). An empty answer is graded 1 without asking,
    because leaving the grade out would raise the mean. BadInput: answers to an unknown question."""

    question = find_question(questions, answers)
    judged = [turn for turn in _TURNS if answers.turns[turn - 1].strip()]
    reference_answers = References()
    if question.question_id in with_reference and judged:
        reference_answers = references(question, ask, judged[-1])
    return [_grade(question, answers, reference_answers, turn, ask) for turn in _TURNS]


def find_question(questions: Mapping[int, Question], answers: Answers) -> Question:
    """Return the question that `answers` are to. BadInput: there is none."""
    if (question := questions.get(answers.question_id)) is None:
        raise BadInput(
            f"{answers.model}: answers question {answers.question_id}, which is not among the "
            "questions of data/fetch/mt_bench; fetch@mt_bench writes both"
        )
    return question


_TURNS: tuple[Literal[1], Literal[2]] = (1, 2)


class References(NamedTuple):
    """A question's reference answers, as far as there are any, and where they came from."""

    texts: list[str] = []  # noqa: RUF012 - nobody writes to it
    come: Referenced = "not_wanted"

    def up_to(self, turn: int) -> list[str]:
        """Return the reference answers for the sheet of a turn: those of all turns up to it, or
        none."""
        return self.texts[:turn] if len(self.texts) >= turn else []

    def origin(self, turn: int) -> Referenced:
        """Say where the reference of a turn came from."""
        return self.come if self.up_to(turn) or self.come == "not_wanted" else "missing"


def references(question: Question, ask: Ask, last: int = 2) -> References:
    """Return the question's reference answers up to turn `last`: those given, or else the judge's
    own.

    The judge answers like any model: the second turn follows the first and the judge's answer to
    it. Each answer may have all the tokens that a reply may have. A turn has no reference if two
    replies to it give no whole answer, and then the turn after it has none either."""
    if len(question.reference) == 2 and all(text.strip() for text in question.reference):
        return References(question.reference, "given")
    texts: list[str] = []
    talk: list[Message] = []
    for turn in question.turns[:last]:
        talk.append(Message(role="user", content=fence(turn, *SECTIONS, *TURNS)))
        text, _, _ = ask_and_read(ask, talk, _complete_answer)
        if text is None:
            break
        texts.append(text)
        talk.append(Message(role="assistant", content=text))
    return References(texts, "asked")


def _complete_answer(reply: Reply) -> tuple[str | None, str]:
    """Return (a text, "ok"), or None and the reason: a reply that was cut is no reference."""
    if reply.finish_reason != "stop":
        return None, _ENDED[reply.finish_reason]
    return (reply.text.strip(), "ok") if reply.text.strip() else (None, "unparsed")


def _grade(
    question: Question,
    answers: Answers,
    reference_answers: References,
    turn: Literal[1, 2],
    ask: Ask,
) -> Grade:
    base = {"question_id": question.question_id, "model": answers.model, "turn": turn}
    if not answers.turns[turn - 1].strip():
        by_rule = {"score": 1, "status": "empty_answer", "reply": "", "judge": "rule"}
        return Grade.model_validate({**base, **by_rule, "simulated": False})
    text = sheet(question, answers, reference_answers.up_to(turn), turn)
    score, status, reply = ask_and_read(ask, judge_messages(SYSTEM.fill(), text), rating)
    reply_fields = {"reply": reply.text, "judge": reply.model, "simulated": reply.simulated}
    origin = {"reference": reference_answers.origin(turn)}
    return Grade.model_validate(
        {**base, **reply_fields, **origin, "score": score, "status": status}
    )


def sheet(question: Question, answers: Answers, reference: list[str], turn: int) -> str:
    """Return the grader's sheet: turn 1 alone, or both turns with the second to be graded."""
    name = "mt_bench/one_turn" if turn == 1 else "mt_bench/two_turns"
    sections = {"question": question.turns, "answer": answers.turns, "reference": reference}
    return Prompt(f"{name}_reference" if reference else name).fill(
        **{
            f"{kind}_{number}": fence(text, *SECTIONS, *TURNS)
            for kind, texts in sections.items()
            for number, text in enumerate(texts[:turn], 1)
        }
    )


# A judge is asked again after these. A refusal is an answer: asking again would press for another.
AGAIN = ("unparsed", "truncated")


def judge_messages(system: str, text: str) -> list[Message]:
    """Return the messages to a judge: its instruction, and the text that it is to judge."""
    return [Message(role="system", content=system), Message(role="user", content=text)]


def ask_and_read(
    ask: Ask, messages: Sequence[Message], read: Callable[[Reply], tuple[R | None, str]]
) -> tuple[R | None, str, Reply]:
    """Return the value that `read` finds in the reply to `messages`, its status, and the reply.

    A reply that states nothing is asked for once more, with another sample index. For that index
    the ledger buys another answer where the endpoint can give one."""
    reply = ask(messages)
    value, status = _read(reply, read)
    if status in AGAIN:
        reply = ask(messages, 1)
        value, status = _read(reply, read)
    return value, status, reply


def _read(reply: Reply, read: Callable[[Reply], tuple[R | None, str]]) -> tuple[R | None, str]:
    """Return the value that `read` finds in a reply, or None and the reason where no reply was
    given."""
    return (None, reply.finish_reason) if reply.finish_reason in UNSAID else read(reply)


def retries(exchanges: Sequence[Exchange], read: Callable[[Reply], tuple[Any, str]]) -> int:
    """Count the requests of a stage that `ask_and_read` made once more, those for references
    included.

    Such a request's reply states nothing to `read`, and the next exchange of the job has the same
    messages and another reply. The messages alone do not tell, since two equal answers make equal
    sheets in both orders. An endpoint that has no other text to give returns the first reply again.
    """
    return sum(
        (before.job, before.messages) == (after.job, after.messages)
        and (not before.reply.key or before.reply.key != after.reply.key)
        and _read(before.reply, read)[1] in AGAIN
        for before, after in pairwise(exchanges)
    )


def check_read(
    label: str,
    statuses: Sequence[str],
    exchanges: Sequence[Exchange],
    read: Callable[[Reply], tuple[Any, str]],
) -> None:
    """Check that enough replies of a grader could be read. BadInput: none could. It prints a
    warning where few could. `statuses` are those of its grades or comparisons."""
    judged = [status for status in statuses if status != "empty_answer"]
    # A request without a system message asks for a reference, and not for a grade.
    replies = [e.reply for e in exchanges if e.messages[0].role == "system"]
    unread.check(
        label,
        "llm.grader",
        judged.count("ok"),
        [status for status in judged if status != "ok"],
        [reply for reply in replies if _read(reply, read)[1] not in ("ok", *UNSAID)],
    )


def unreferenced_questions(judged: Sequence[Grade | Comparison]) -> list[int]:
    """Return the questions of which a turn was judged without the reference answer it should have
    had."""
    return sorted({verdict.question_id for verdict in judged if verdict.reference == "missing"})


def reference_metrics(judged: Sequence[Grade | Comparison]) -> dict[str, float | int | None]:
    """Return `reference_coverage` and `without_reference`, of the turns that should be judged
    beside a reference answer. These are the share that were (None where none should be), and the
    number that were not."""
    has_reference = [
        verdict.reference != "missing" for verdict in judged if verdict.reference != "not_wanted"
    ]
    return {
        "reference_coverage": sum(has_reference) / len(has_reference) if has_reference else None,
        "without_reference": has_reference.count(False),
    }


def tell_unreferenced(label: str, judged: Sequence[Grade | Comparison]) -> None:
    """Name on stderr the questions that were judged without the reference they should have had."""
    if questions := unreferenced_questions(judged):
        print(
            f"warning: {label}: question {', '.join(map(str, questions))}: judged without the "
            "reference answer that mt_grade.references wants; two replies to the question held no "
            "whole answer. Raise max_tokens of llm.grader where they were cut (replies.jsonl)",
            file=sys.stderr,
        )


def measure(grades: Sequence[Grade], answered: int, seed: int) -> dict[str, float | int | None]:
    """Return the mean of the grades by turn and over both. Each has a 95 % bootstrap interval over
    questions (None where there are too few).

    `coverage` is the share of the turns of `answered` questions that have a grade. `read` is the
    share of replies that could be read. The rest is `reference_metrics`, and the number of turns
    with each status of records.Grade."""
    measured: dict[str, float | int | None] = {}
    for name, turns in (("turn_1", (1,)), ("turn_2", (2,)), ("average", _TURNS)):
        scores = [
            (grade.question_id, grade.score)
            for grade in grades
            if grade.turn in turns and grade.score is not None
        ]
        low, high = bootstrap(scores, seed) or (None, None)
        measured[name] = sum(score for _, score in scores) / len(scores) if scores else None
        measured[f"{name}_low"], measured[f"{name}_high"] = low, high
    scored = sum(grade.score is not None for grade in grades)
    statuses = [grade.status for grade in grades]
    return {
        **measured,
        "coverage": scored / (len(_TURNS) * answered) if answered else None,
        "read": share_read(statuses),
        **reference_metrics(grades),
        **{s: statuses.count(s) for s in get_args(Grade.model_fields["status"].annotation)},
    }


def share_read(statuses: Sequence[str]) -> float | None:
    """Return the share of a grader's replies that could be read, of those it was asked for."""
    judged = [status for status in statuses if status != "empty_answer"]
    return judged.count("ok") / len(judged) if judged else None


def rating(reply: Reply) -> tuple[float | None, str]:
    """Return (grade 1-10, "ok"), or None and the reason: refused, truncated, unparsed.

    The last number in double brackets behind a label counts, because one before it may be quoted
    from the answer. Without brackets a labelled number counts that ends its line, or "n/10" in the
    last sentence."""
    value, status = _stated(RATING, reply)
    if value is None:
        return None, status
    return (float(value), status) if 1 <= float(value) <= 10 else (None, _silent(reply))


def choice(reply: Reply) -> tuple[str | None, str]:
    """Return (A, B or C for a tie, "ok"), or None and the reason, as `rating` does."""
    value, status = _stated(CHOICE, reply)
    return (None if value is None else "C" if value.lower() == "tie" else value.upper()), status


def _stated(form: Form, reply: Reply) -> tuple[str | None, str]:
    if reply.finish_reason in ("refused", "too_long", "failed"):
        return None, reply.finish_reason
    value = read_value(form, reply.text, cut=reply.finish_reason != "stop")
    return (None, _silent(reply)) if value is None else (value, "ok")


def _silent(reply: Reply) -> str:
    return "unparsed" if reply.finish_reason == "stop" else "truncated"
