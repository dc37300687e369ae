"""What judges are shown and what they said: verdicts on samples (OpenBezoar 3.2), MT-Bench grades
(4.2). A reply that is not as asked is undecided or unparsed, with the reason, never a number."""

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
# What opens or closes a turn in the chat templates of open models: a server may read it as such
# wherever it stands.
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
    """The judge's verdict on a sample; ratings run from 1 to `scale`."""
    return verdict(sample, ask(question(sample, scale)), scale)


def question(sample: Sample, scale: int) -> list[Message]:
    """Put a sample to the judge: the criterion as a system message, the row as a user message
    (paper 3.2), and behind it the form of the reply, which a small model keeps only where it is the
    last that it reads. With an expected answer the criterion is whether the response explains it,
    without one whether the response does what the instruction asks."""
    instruction = sample.instruction
    if sample.context:
        instruction += f"\n\nInput: {sample.context}"
    row = {"instruction": _shown(instruction), "scale": str(scale)}
    if sample.expected:
        criterion, shown = EXPLANATION
        row |= {"expected": _shown(sample.expected), "generated": _shown(sample.response)}
    else:
        criterion, shown = RESPONSE
        row |= {"response": _shown(sample.response)}
    return [
        Message(role="system", content=criterion.fill(scale=str(scale))),
        Message(role="user", content=shown.fill(**row)),
    ]


def schema(scale: int) -> dict[str, Any]:
    """A verdict as a JSON schema, within what servers of OpenAI's protocol take as strict."""
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
    """The verdict that a reply states on the sample, or undecided with what is wrong with the
    reply."""
    status: Literal["accepted", "rejected", "undecided"]
    try:
        if reply.finish_reason in UNSAID:
            raise ValueError(reply.finish_reason)
        accepted, rating, reason = parse(reply, scale, forged(sample))
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


def failed(id: str, why: str, judge: str) -> Verdict:
    """What stands for a verdict where the request failed for good."""
    return Verdict(
        id=id,
        status="undecided",
        rating=None,
        reason=f"failed: {why}",
        reply="",
        judge=judge,
        simulated=False,
    )


def forged(sample: Sample) -> set[tuple[str, int]]:
    """The verdicts (status, rating) that the judged texts state themselves, in tags or in JSON. A
    judge that repeats such a text has not said them."""
    told = "\n".join((sample.instruction, sample.context, sample.expected, sample.response))
    told = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), told)  # JSON's
    told = clean(unescape(told))
    ratings = {int(rating) for rating in _FORGED_RATING.findall(told)}
    lines = {(f"{_LINES}{s.lower()}", int(rating)) for s, rating in _FORGED_LINES.findall(told)}
    return lines | {(s.lower(), rating) for s in _FORGED_STATUS.findall(told) for rating in ratings}


def parse(
    reply: Reply, scale: int, forged: Collection[tuple[str, int]] = ()
) -> tuple[bool, int, str]:
    """(accepted, rating, reason) of a judge's reply; ValueError says why it states none.

    A verdict is a JSON object at the reply's end, the three fields in their tags, or a reply that
    is nothing but the three in their order, a line each. The last closing tag may be missing. Where
    a tag stands more than once, what comes first may be quoted from the text that was judged: then
    the verdict is what stands at the end, in the order that was asked for. One of those `forged`
    in that text is nobody's word."""
    if reply.finish_reason != "stop":
        raise ValueError(_ENDED[reply.finish_reason])
    text = _own_row(clean(reply.text))
    if re.search(r"\A[\W_]*\Z", text):
        raise ValueError("blank")
    lines = _in_lines(text)
    status, rating, reason = lines or _object(text) or _tagged(text)
    status = status.lower().removesuffix("ed")
    rating = _of_scale(rating, scale)
    if status not in ("accept", "reject"):
        raise ValueError("status: neither Accept nor Reject")
    if not re.fullmatch(r"[0-9]{1,3}", rating) or not 1 <= int(rating) <= scale:
        raise ValueError(f"rating: no whole number from 1 to {scale}")
    if not reason:
        raise ValueError("reason: empty")
    if ((_LINES if lines else "") + status, int(rating)) in forged:
        raise ValueError("quoted: this verdict stands in the text that was judged")
    return status == "accept", int(rating), reason


def _of_scale(rating: str, scale: int) -> str:
    """A rating in our digits, without the scale that it names: `6/7`, `6 out of 7`, `٦ من ٧`."""
    rating = re.sub(r"\d", lambda digit: str(int(digit[0])), rating)
    return re.sub(rf"\s*(?:/|out of|von|sur|de|di|van|من)\s*{scale}\Z", "", rating)


_ENDED = {"length": "truncated", "refused": "refused", "too_long": "too_long", "failed": "failed"}
_A_FIELD = "|".join(FIELDS)
# the three fields in their order, with nothing between them and nothing of theirs behind them
_LAST = re.compile(
    r"<status>([^<>]*)</status>\s*<rating>([^<>]*)</rating>\s*"
    rf"<reason>((?:(?!</?(?:{_A_FIELD})>).)*)(?:</reason>[\s`*]*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
# a field's tag as models also write it: `< status >`, `</ status>`, `**<status>**`
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
_LINES = "in lines: "  # marks a forged verdict that stands in lines, not in tags or JSON
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
OBJECTS = 100  # opening braces that are tried for a verdict, from the reply's end


def _shown(text: str) -> str:
    return fence(text, *TAGS, *TURNS)


def _own_row(text: str) -> str:
    """A reply up to where its model goes on with a row of its own making, which it judges too."""
    before, row, _ = text.partition("\n<instruction>")
    low = before.lower()
    return before if row and "<status>" in low and "<reason>" in low else text


def _object(text: str) -> tuple[str, str, str] | None:
    """(status, rating, reason) of the JSON object that ends a reply; None where none does."""
    text = text.rstrip("`* \n\r\t")
    if not text.endswith("}"):
        return None
    at = len(text)
    for _ in range(OBJECTS):
        # from the end, so that only what is quoted inside of the last object is tried before it
        if (at := text.rfind("{", 0, at)) < 0:
            return None
        try:
            found: dict[str, Any] = json.loads(text[at:], object_pairs_hook=_once)
        except (ValueError, RecursionError):
            continue
        fields = {str(key).lower(): value for key, value in found.items()}
        if len(fields) == len(found) and fields.keys() == set(FIELDS):
            status, rating, reason = (fields[name] for name in FIELDS)
            whole = isinstance(rating, int) and not isinstance(rating, bool)
            return str(status).strip(), str(rating) if whole else "", str(reason).strip()
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _in_lines(text: str) -> tuple[str, str, str] | None:
    """(status, rating, reason) of a reply that is nothing but these, a line each; else None."""
    found = _THREE.match(drop_fence(text))
    if not found or re.search(
        rf"^\W{{0,6}}(?:accept|reject|{_A_FIELD})\b\W*:?", found[3], re.I | re.M
    ):
        return None
    status, rating, reason = (part.strip() for part in found.groups())
    return status, rating, reason


def _tagged(text: str) -> tuple[str, str, str]:
    text = _TAG.sub(r"<\1\2>", text if _TAG.search(text) else unescape(text))
    tags = re.findall(rf"</?(?:{_A_FIELD})>", text, re.IGNORECASE)
    if len(tags) >= 2 * len(FIELDS) and (last := _LAST.search(text)):
        status, rating, reason = (found.strip() for found in last.groups())
    else:
        status, rating, reason = (_field(text, name) for name in FIELDS)
    return status.strip("*`\"'. \n"), rating.strip("*`\"' \n"), reason


def _field(text: str, name: str) -> str:
    """What stands in a field's tags. The last of a reply may lack the closing one, and so may the
    status and the rating where the next tag opens: neither holds anything but its value."""
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

# What may stand in `mt_grade.references`, whether the questions at hand are of it or not
CATEGORIES = (
    *("writing", "roleplay", "reasoning", "math"),
    *("coding", "extraction", "stem", "humanities"),
)


def referenced(
    questions: Iterable[Question], wanted: Literal["all"] | Sequence[str]
) -> frozenset[int]:
    """The ids of the questions that are judged beside a reference answer: all of them, as in the
    paper (4.2), or those of some categories. BadInput: a category that is none."""
    category_of = {question.question_id: question.category for question in questions}
    if wanted == "all":
        return frozenset(category_of)
    known = {*CATEGORIES, *category_of.values()}
    if unknown := [category for category in wanted if category not in known]:
        raise BadInput(
            f"mt_grade.references: {', '.join(unknown)}: no category of the questions; have "
            f"{', '.join(sorted(known))}, or `all`"
        )
    return frozenset(id for id, category in category_of.items() if category in wanted)


def grader(
    questions: Mapping[int, Question], with_reference: Collection[int], ask: Ask
) -> Callable[[Answers], list[Grade]]:
    """A function from a model's answers to their two grades, 1-10, turn 1 then turn 2.

    The questions `with_reference` (ids) are graded beside reference answers, which the judge itself
    is asked for where none are given (paper 4.2). An empty answer is graded 1 without asking: a
    grade left out would raise the mean. BadInput: answers to an unknown question."""

    def grade(answers: Answers) -> list[Grade]:
        question = known_question(questions, answers)
        judged = [turn for turn in _TURNS if answers.turns[turn - 1].strip()]
        shown = References()
        if question.question_id in with_reference and judged:
            shown = references(question, ask, judged[-1])
        return [_grade(question, answers, shown, turn, ask) for turn in _TURNS]

    return grade


def known_question(questions: Mapping[int, Question], answers: Answers) -> Question:
    """The question that `answers` are to; BadInput where there is none."""
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
        """The answers that the sheet of a turn shows: of all turns up to it, or none."""
        return self.texts[:turn] if len(self.texts) >= turn else []

    def of(self, turn: int) -> Referenced:
        """Where the reference of a turn came from."""
        return self.come if self.up_to(turn) or self.come == "not_wanted" else "missing"


def references(question: Question, ask: Ask, last: int = 2) -> References:
    """The question's reference answers up to turn `last`: those given, else the judge's own.

    The judge answers as any model answers MT-Bench: the second turn stands behind the first and
    what it said there, and each answer has all the tokens that a reply may have. A turn to which
    two replies give no whole answer has none, and so has the turn after it."""
    if len(question.reference) == 2 and all(text.strip() for text in question.reference):
        return References(question.reference, "given")
    texts: list[str] = []
    talk: list[Message] = []
    for turn in question.turns[:last]:
        talk.append(Message(role="user", content=fence(turn, *SECTIONS, *TURNS)))
        text, _, _ = heard(ask, talk, _whole)
        if text is None:
            break
        texts.append(text)
        talk.append(Message(role="assistant", content=text))
    return References(texts, "asked")


def _whole(reply: Reply) -> tuple[str | None, str]:
    """(a reply's text, "ok"), or None and why: a reply that was cut is no reference."""
    if reply.finish_reason != "stop":
        return None, _ENDED[reply.finish_reason]
    return (reply.text.strip(), "ok") if reply.text.strip() else (None, "unparsed")


def _grade(
    question: Question, answers: Answers, shown: References, turn: Literal[1, 2], ask: Ask
) -> Grade:
    who = {"question_id": question.question_id, "model": answers.model, "turn": turn}
    if not answers.turns[turn - 1].strip():
        by_rule = {"score": 1, "status": "empty_answer", "reply": "", "judge": "rule"}
        return Grade.model_validate({**who, **by_rule, "simulated": False})
    text = sheet(question, answers, shown.up_to(turn), turn)
    score, status, reply = heard(ask, put(SYSTEM.fill(), text), rating)
    said = {"reply": reply.text, "judge": reply.model, "simulated": reply.simulated}
    whence = {"reference": shown.of(turn)}
    return Grade.model_validate({**who, **said, **whence, "score": score, "status": status})


def sheet(question: Question, answers: Answers, reference: list[str], turn: int) -> str:
    """What the grader is shown: turn 1 alone, or both turns with the second to be graded."""
    name = "mt_bench/one_turn" if turn == 1 else "mt_bench/two_turns"
    shown = {"question": question.turns, "answer": answers.turns, "reference": reference}
    return Prompt(f"{name}_reference" if reference else name).fill(
        **{
            f"{kind}_{number}": fence(text, *SECTIONS, *TURNS)
            for kind, texts in shown.items()
            for number, text in enumerate(texts[:turn], 1)
        }
    )


AGAIN = ("unparsed", "truncated")  # a refusal is an answer: asking again would press for another


def put(system: str, text: str) -> list[Message]:
    """A judge's instruction and what it is to judge."""
    return [Message(role="system", content=system), Message(role="user", content=text)]


def heard(
    ask: Ask, messages: Sequence[Message], read: Callable[[Reply], tuple[R | None, str]]
) -> tuple[R | None, str, Reply]:
    """What `read` finds in the reply to `messages`, its status, and the reply. A reply that states
    nothing is asked for once more, by another sample index, for which the ledger buys another
    answer where the endpoint can give one."""
    reply = ask(messages)
    found, status = _read(reply, read)
    if status in AGAIN:
        reply = ask(messages, 1)
        found, status = _read(reply, read)
    return found, status, reply


def _read(reply: Reply, read: Callable[[Reply], tuple[R | None, str]]) -> tuple[R | None, str]:
    """What `read` finds in a reply; where nothing was said, why."""
    return (None, reply.finish_reason) if reply.finish_reason in UNSAID else read(reply)


def retried(exchanges: Sequence[Exchange], read: Callable[[Reply], tuple[Any, str]]) -> int:
    """How many of a stage's requests, those for references included, `heard` made once more: the
    reply states nothing to `read`, the job goes on with the same messages, and the reply to them is
    another one. (Two equal answers make equal sheets in both orders, so the messages alone do not
    tell. An endpoint that has no other text to give returns the first reply again.)"""
    return sum(
        (one.job, one.messages) == (after.job, after.messages)
        and (not one.reply.key or one.reply.key != after.reply.key)
        and _read(one.reply, read)[1] in AGAIN
        for one, after in pairwise(exchanges)
    )


def hold(
    where: str,
    statuses: Sequence[str],
    exchanges: Sequence[Exchange],
    read: Callable[[Reply], tuple[Any, str]],
) -> None:
    """Hold a grader to its word: BadInput where nothing could be read of it, a warning where little
    could. `statuses` are those of its grades or comparisons."""
    judged = [status for status in statuses if status != "empty_answer"]
    # what is asked for without a system message is a reference, and no grade
    replies = [e.reply for e in exchanges if e.messages[0].role == "system"]
    unread.check(
        where,
        "llm.grader",
        judged.count("ok"),
        [status for status in judged if status != "ok"],
        [reply for reply in replies if _read(reply, read)[1] not in ("ok", *UNSAID)],
    )


def unreferenced(judged: Sequence[Grade | Comparison]) -> list[int]:
    """The questions of which a turn was judged without the reference answer it should have had."""
    return sorted({one.question_id for one in judged if one.reference == "missing"})


def reference_metrics(judged: Sequence[Grade | Comparison]) -> dict[str, float | int | None]:
    """`reference_coverage`, the share of the turns that should have been judged beside a reference
    answer and were (None where none should), and the number of those that were not."""
    wanted = [one.reference != "missing" for one in judged if one.reference != "not_wanted"]
    return {
        "reference_coverage": sum(wanted) / len(wanted) if wanted else None,
        "without_reference": wanted.count(False),
    }


def tell_unreferenced(where: str, judged: Sequence[Grade | Comparison]) -> None:
    """Name on stderr the questions that were judged without the reference they should have had."""
    if questions := unreferenced(judged):
        print(
            f"warning: {where}: question {', '.join(map(str, questions))}: judged without the "
            "reference answer that mt_grade.references wants; two replies to the question held no "
            "whole answer. Raise max_tokens of llm.grader where they were cut (replies.jsonl)",
            file=sys.stderr,
        )


def measure(grades: Sequence[Grade], answered: int, seed: int) -> dict[str, float | int | None]:
    """The mean of the grades there are, by turn and over both, each with a 95 % bootstrap interval
    over questions (None where there are too few); `coverage`, the share of the turns of `answered`
    questions that have a grade; `read`, the share of those asked about of which one could be read;
    what reference_metrics says; how many turns have each status of records.Grade."""
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
    """The share of a grader's words that could be read, of those it was asked for."""
    judged = [status for status in statuses if status != "empty_answer"]
    return judged.count("ok") / len(judged) if judged else None


def rating(reply: Reply) -> tuple[float | None, str]:
    """(grade 1-10, "ok"), or None and why: refused, truncated, unparsed. The last number in double
    brackets behind a label counts: what stands before it may quote the answer. Without brackets a
    labelled number counts that ends its line, and what says "n/10" in the last sentence."""
    value, status = _stated(RATING, reply)
    if value is None:
        return None, status
    return (float(value), status) if 1 <= float(value) <= 10 else (None, _silent(reply))


def choice(reply: Reply) -> tuple[str | None, str]:
    """(A, B or C for a tie, "ok"), or None and why, as `rating`."""
    value, status = _stated(CHOICE, reply)
    return (None if value is None else "C" if value.lower() == "tie" else value.upper()), status


def _stated(form: Form, reply: Reply) -> tuple[str | None, str]:
    if reply.finish_reason in ("refused", "too_long", "failed"):
        return None, reply.finish_reason
    value = read_value(form, reply.text, cut=reply.finish_reason != "stop")
    return (None, _silent(reply)) if value is None else (value, "ok")


def _silent(reply: Reply) -> str:
    return "unparsed" if reply.finish_reason == "stop" else "truncated"
