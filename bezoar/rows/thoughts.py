"""Parts a model's thoughts from its answer, before anything reads either.

Reasoning models write their thoughts into the reply, in marks of their own. A mark is a pair of
tags, a channel, or a closing tag alone where the chat template opened the first. `part` knows the
marks of the open models there are. Text in a block of code or between backticks is quoted, not
thought. An answer may speak of such a tag."""

import re
from html import unescape
from typing import NamedTuple

# Tags that stand for thoughts wherever a line or a sentence of the reply begins with them
PLAIN = (
    *("think", "thinking", "thought", "thoughts", "seed:think", "longcat_think"),
    *("antthinking", "ant_thinking", "思考"),
)
# Tags that a text may have uses of its own for: thoughts only where the reply begins with them
COMMON = (
    *("reasoning", "reflection", "analysis", "scratchpad", "rationale", "inner_monologue"),
    *("internal_monologue", "inner_thoughts", "chain_of_thought", "cot", "reasoning_process"),
    *("thought_process", "thinking_process"),
)
# Marks that are tokens of a model's own, which no text has by chance: (opens, closes)
TOKENS = (
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|THINK_START|>", "<|THINK_END|>"),  # Step
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ("<|begin_of_thinking|>", "<|end_of_thinking|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|thinking_start|>", "<|thinking_end|>"),
    ("<START_THINKING>", "<END_THINKING>"),
    ("[THINKING]", "[/THINKING]"),
    ("<|think|>", "<|/think|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("<|channel>thought", "<channel|>"),  # Gemma 4
)
# What wraps the answer behind the thoughts, and goes with them
WRAPS = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
    ("<answer>", "</answer>"),
    ("<output>", "</output>"),
    ("<response>", "</response>"),
    ("<final_answer>", "</final_answer>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM, within <answer>
)
# Sentences that part thoughts from the answer: (opens the reply, opens the answer)
SENTENCES = (
    ("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    ("Here's my thought process:", "Here's my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    ("Thinking...", "...done thinking."),  # Ollama's own client
)

# One of these stands in every reply that holds a mark
SIGNS = ("<", "[", "◁", "Here", "Thinking...", "&lt;", "assistantfinal")


class Parted(NamedTuple):
    """The answer of a reply (`text`) and the thoughts before it. Not `closed`: the thoughts have no
    end, and no answer came."""

    text: str
    thoughts: str
    closed: bool


def part(reply: str) -> Parted:
    """Part the thoughts of `reply` from its text. The text ends where a server let its model go on
    with a turn that is not its own."""
    parted = _part_thoughts(reply)
    text = _cut_turn(parted.text)
    return parted if text == parted.text else parted._replace(text=text)


def _part_thoughts(reply: str) -> Parted:
    # Most replies have none of these signs, and a search costs more than all else here.
    if not any(sign in reply for sign in SIGNS) or not _HINT.search(reply):
        return Parted(reply, "", True)
    reply = _unhide(reply)
    for reader in (_part_channels, _part_sentences, _part_marks):
        parted = reader(reply)
        if parted is not None:
            return parted
    return Parted(reply, "", True)


def leftover_mark(text: str) -> str | None:
    """Return the first mark of thoughts that stands in `text`, neither in code nor quoted. None:
    there is none. Tags that a text may have uses of its own for do not count."""
    mark = next((mark for mark in _find_marks(text) if mark.kind not in COMMON), None)
    return text[mark.start : mark.end] if mark else None


# --- marks ---------------------------------------------------------------------------------------


def _tag(slash: str, names: tuple[str, ...]) -> str:
    # One model writes thought_process, another thought-process.
    listed = "|".join(re.escape(name).replace("_", "[-_ ]?") for name in names)
    # A tag may have an attribute or two (`<think time="3">`), but no line end. `<think/>` opens
    # nothing.
    return rf"<\s?{slash}\s?(?:{listed})(?:\s[^<>\n]{{0,80}})?\s?(?<!/)>"


def _alternatives(marks: list[str]) -> str:
    return "|".join(map(re.escape, marks))


_OPENS, _CLOSES = (_alternatives(list(marks)) for marks in zip(*TOKENS, strict=True))
_MARK = re.compile(
    rf"(?P<opens>{_tag('', PLAIN)}|{_OPENS})|(?P<closes>{_tag('/', PLAIN)}|{_CLOSES})"
    rf"|(?P<opens_common>{_tag('', COMMON)})|(?P<closes_common>{_tag('/', COMMON)})",
    re.IGNORECASE,
)
_HINT = re.compile(
    rf"{_MARK.pattern}|<\|channel\|>|{_alternatives([opens for opens, _ in SENTENCES])}"
    r"|&lt;|<details|<think ?/>|assistantfinal",
    re.IGNORECASE,
)
# Some servers hand thoughts on escaped, or folded away, or with an empty tag in front.
_ESCAPED = re.compile(r"\s*&lt;(?:think|thinking|thought|reasoning)&gt;", re.IGNORECASE)
_FOLDED = re.compile(
    r"\A\s*<details type=\"reasoning\"[^>]{0,200}>(.*?)</details>", re.DOTALL | re.IGNORECASE
)
_EMPTY = re.compile(r"\A\s*<think ?/>", re.IGNORECASE)


def _unhide(reply: str) -> str:
    """Write the thoughts of a reply between marks that `_part_marks` knows."""
    reply = reply.lstrip("\ufeff\u200b\u2060")
    reply = unescape(reply) if _ESCAPED.match(reply) else reply
    return _EMPTY.sub("", _FOLDED.sub(r"<think>\1</think>", reply))


_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
_OPEN_QUOTES, _CLOSE_QUOTES = "\"'“‘«„(", "\"'”’»“)"
_SENTENCE_ENDS = ".!?:;>)*_"

# Words before and behind a closing mark that show that a sentence only speaks of it
_SPEAKS_OF = re.compile(
    r"\b(?:the|an?|and|or|with|of|by|to|its?|this|that|mark|tag|token|closing|use|write|"
    r"between) \Z",
    re.IGNORECASE,
)
_OF_IT = re.compile(
    r" (?:tags?|tokens?|marks?|elements?|is|are|ends?|closes|means|and|or|stands)\b"
)


class _Mark(NamedTuple):
    start: int
    end: int
    opens: bool
    # A mark that opens is closed by a mark of the same kind.
    kind: str


def _kind(mark: re.Match[str]) -> str:
    text = mark[0].casefold()
    for opens, closes in TOKENS:
        if text in (opens.casefold(), closes.casefold()):
            return opens
    common = mark["opens_common"] or mark["closes_common"]
    # `<think>` is closed by `</thinking>` too, as some models do
    return re.sub(r"[^a-z_]", "", text.split()[0]) if common else "think"


def _find_marks(reply: str) -> list[_Mark]:
    """Return the marks in `reply` that are neither code nor quoted, in their order."""
    plain = _blank_code(reply)
    marks = []
    for match in _MARK.finditer(plain):
        start, end = match.span()
        quoted = start > 0 and end < len(plain)
        quoted = quoted and plain[start - 1] in _OPEN_QUOTES and plain[end] in _CLOSE_QUOTES
        if not quoted:
            opens = (match["opens"] or match["opens_common"]) is not None
            marks.append(_Mark(start, end, opens, _kind(match)))
    return marks


def _blank_code(text: str) -> str:
    """Blank out the code in `text`, and leave every other character in its place."""
    return _CODE.sub(lambda code: code[0] if _is_plain_text(code[0]) else " " * len(code[0]), text)


def _is_plain_text(code: str) -> bool:
    """Say whether a match of _CODE is plain text. A fence that was left open inside of thoughts
    pairs with one behind them, and would hide their end."""
    if not code.startswith(("```", "~~~")):
        return False
    marks = list(_MARK.finditer(code))
    return bool(marks) and not (marks[0]["opens"] or marks[0]["opens_common"])


def _part_marks(reply: str) -> Parted | None:
    """Part thoughts that stand between marks. A closing mark that nothing opened ends thoughts too:
    the chat template had opened them. None: there are no marks."""
    text: list[str] = []
    thoughts: list[str] = []
    start, opened = 0, ""
    # Kinds of marks that stand amidst a sentence and opened nothing. Their closing marks end
    # nothing.
    spoken_of: set[str] = set()
    for mark in _find_marks(reply):
        if opened:
            if not mark.opens and mark.kind == opened:
                thoughts.append(reply[start : mark.start])
                start, opened = mark.end, ""
        elif mark.opens:
            if _opens_thoughts(mark, reply, start, bool("".join(text).strip())):
                text.append(reply[start : mark.start])
                start, opened = mark.end, mark.kind
            else:
                spoken_of.add(mark.kind)
        elif mark.kind not in spoken_of and _ends_thoughts(mark, reply):
            thoughts += [*text, reply[start : mark.start]]
            text, start = [], mark.end
    if not thoughts and not opened:
        return None
    (thoughts if opened else text).append(reply[start:])
    return _make_parted(text, thoughts, closed=not opened)


def _opens_thoughts(mark: _Mark, reply: str, start: int, spoke: bool) -> bool:
    """Say whether an opening mark does open thoughts. `spoke`: there is text before `start`."""
    if not spoke and not reply[start : mark.start].strip():
        return True
    if mark.kind in COMMON:
        return False
    line = reply[max(start, reply.rfind("\n", 0, mark.start) + 1) : mark.start].rstrip()
    # A mark behind a sentence opens ("Sure. <think>"). One amidst a sentence is only spoken of.
    return not line or line[-1] in _SENTENCE_ENDS


def _ends_thoughts(mark: _Mark, reply: str) -> bool:
    """Say whether a closing mark that nothing opened ends thoughts, and is not only spoken of."""
    before, after = reply[max(0, mark.start - 30) : mark.start], reply[mark.end : mark.end + 30]
    if mark.kind in COMMON:
        return before[-1:] in ("", "\n") and after[:1] in ("", "\n")
    # "They differ. </think> not equal" ends thoughts, "the </think> tag" does not
    return not (before[-1:] == " " and (_SPEAKS_OF.search(before) or _OF_IT.match(after)))


def _make_parted(text: list[str], thoughts: list[str], closed: bool) -> Parted:
    answer = "".join(text).strip()
    # Wraps may be nested, as GLM's box within <answer> is.
    for opens, closes in WRAPS:
        low = answer.lower()
        if low.startswith(opens.lower()) and closes.lower() not in low.removesuffix(closes.lower()):
            end = len(answer) - len(closes) * low.endswith(closes.lower())
            answer = answer[len(opens) : end].strip()
    return Parted(answer, "\n\n".join(t.strip() for t in thoughts if t.strip()), closed)


# --- turns ---------------------------------------------------------------------------------------

# Marks that chat templates write around turns. A server that does not know the end of a turn passes
# them on as text, with all that its model makes up behind them.
_OWN_OPENS = re.compile(
    r"\A\s*(?:<\|start_header_id\|>assistant<\|end_header_id\|>|<\|im_start\|>assistant\b|"
    r"<start_of_turn>model\b|<\|assistant\|>)\s*"
)
_TURN_ENDS = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|end_of_turn|im_start|start_header_id|user|"
    r"assistant|system)\|>|<(?:start|end)_of_turn>|<｜(?:end▁of▁sentence|User|Assistant)｜>|<eos>|"
    r"</s>(?=\s*(?:\Z|<s>|\[INST\]|<\|))|"
    r"\[INST\]"
)
_BEHIND = re.compile(
    r"[ \t]*(?:\Z|\n|<[|｜s/]|<start_of_turn>|\[INST\])|(?:user|assistant|system|model|human)\b"
)
_STOPS = tuple(".!?…。")
# "Paris. [INST] And of Italy? [/INST]" goes on, "[INST] opens a turn" speaks of the mark
_ASKS_ON = re.compile(
    r" (?!(?:opens|marks?|is|are|and|or|tags?|tokens?|begins|starts|closes|ends)\b)"
)


def _cut_turn(text: str) -> str:
    """Cut a text at the mark that ends its turn. A mark in code, in quotes or amidst a sentence
    ends none."""
    if not any(sign in text for sign in ("<|", "_of_turn>", "<｜", "</s>", "<eos>", "[INST]")):
        return text
    text = _OWN_OPENS.sub("", text)
    plain = _blank_code(text)
    end = next((mark for mark in _TURN_ENDS.finditer(plain) if _ends_turn(mark, plain)), None)
    return text[: end.start()].rstrip() if end else text


def _ends_turn(mark: re.Match[str], text: str) -> bool:
    """Say whether a mark ends the turn before it, and is not only spoken of."""
    before = text[: mark.start()]
    if not before.strip() or not text[mark.end() :].strip():
        return True
    if not before.endswith((" ", *_OPEN_QUOTES)) and _BEHIND.match(text, mark.end()):
        return True
    if mark[0] == "[INST]":
        return before.rstrip().endswith(_STOPS) and bool(_ASKS_ON.match(text, mark.end()))
    return before.endswith(_STOPS)


# --- channels and sentences -----------------------------------------------------------------------


_TURN = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>\s*(\w+)[^<]{0,80}?"
    r"(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"
)
# A server that takes the marks of channels out leaves `analysis ... assistantfinal ...`.
_BARE, _BARE_FINAL = re.compile(r"\s{0,9}analysis(?=[A-Z\s\"'(])"), "assistantfinal"
_ENDS = re.compile(r"<\|(?:end|return|call)\|>\s*\Z")


def _part_channels(reply: str) -> Parted | None:
    """Part the channels of gpt-oss: `<|channel|>analysis<|message|>...<|end|>`, and the answer in
    the channel `final`."""
    turns = list(_TURN.finditer(reply))
    if not turns:
        thought, final, answer = reply.partition(_BARE_FINAL)
        bare = final and _BARE.match(reply)
        return _make_parted([answer], [thought], closed=True) if bare else None
    thoughts, answers = [reply[: turns[0].start()]], list[str]()
    for turn, after in zip(turns, [*turns[1:], None], strict=True):
        body = _ENDS.sub("", reply[turn.end() : after.start() if after else len(reply)])
        (answers if turn[1] == "final" else thoughts).append(body)
    return _make_parted(answers, thoughts, closed=bool(answers))


def _part_sentences(reply: str) -> Parted | None:
    """Part thoughts that one sentence announces and another sentence ends."""
    for opens, closes in SENTENCES:
        start = reply.lstrip()
        # Without its second sentence the first one may belong to an answer.
        if start.startswith(opens) and closes in start:
            thoughts, _, answer = start[len(opens) :].partition(closes)
            answer = answer.strip().removesuffix("[END FINAL RESPONSE]")
            return _make_parted([answer], [thoughts], closed=True)
    return None
