"""Reads dialogues of several forms, as one exchange or as the messages of a preference pair.

Turns are a list of `{role, content}` (chat messages), a list of `{from, value}` (ShareGPT), a list
of texts by turns (UltraChat), or one text with `Human:` and `Assistant:` (HH-RLHF).
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from bezoar.rows.records import Message
from bezoar.sources.rows import Fields, Row

ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",  # as OpenAI's newer models call it
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
MARKED = re.compile(r"###\s*(Human|Assistant|User|System):")  # as openassistant-guanaco
# fields of a row in which exports put its turns
TURN_FIELDS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "data")
TOOLS = "a dialogue with tools"


class Skipped(Exception):
    """A row is well-formed but of no use. str(self) is the reason, by which it is counted."""


class Exchange(NamedTuple):
    """The first question of a dialogue and its answer. `unused` names the parts of it that are not
    used."""

    question: str
    answer: str
    unused: list[str]


def is_dialogue(value: object) -> bool:
    """Say whether a value is a list of turns, by the first three."""
    if not isinstance(value, list) or not value:
        return False
    return all(
        isinstance(turn, dict)
        and _key(turn, ("role", "from")) is not None
        and ("content" in turn or "value" in turn or _uses_tools(turn))
        for turn in value[:3]
    )


def turns_of(fields: Fields) -> Any:
    """Return the list of turns that a row holds, None where it holds none."""
    inner = next(
        (turns for part in _inner_objects(fields) if (turns := _find_turns(part)) is not None), None
    )
    # Turns that stand in the row itself are preferred to those inside one of its objects.
    turns = _find_turns(fields)
    if turns is not None or inner is not None:
        return inner if turns is None else turns
    text = fields.get("text")
    if isinstance(text, str) and {"Human", "Assistant"} <= {*MARKED.findall(text)}:
        _, *parts = MARKED.split(text)
        return [
            {"role": "user" if speaker == "Human" else speaker.lower(), "content": words}
            for speaker, words in zip(parts[::2], parts[1::2], strict=True)
        ]
    return None


def _inner_objects(fields: Fields) -> list[Fields]:
    """Return the objects of a row in which a dialogue may stand, as in
    `{"conversation": {"messages": ...}}`."""
    return [value for key in TURN_FIELDS if isinstance(value := fields.get(key), dict)]


def _find_turns(fields: Fields) -> Any:
    for key in TURN_FIELDS:
        value: Any = fields.get(key)
        if is_dialogue(value):
            return value
        by_turns = isinstance(value, list) and all(isinstance(turn, str) for turn in value)
        # UltraChat and LIMA list plain texts. The user speaks first.
        if by_turns and len(value) > 1:
            return [
                {"role": "assistant" if n % 2 else "user", "content": turn}
                for n, turn in enumerate(value)
            ]
    return None


def offers_tools(fields: Fields) -> bool:
    """Say whether a row offers tools or its turns use some."""
    for place in (fields, *_inner_objects(fields)):
        offered = place.get("tools") or place.get("functions")
        # Some exports write an empty list of tools as text.
        if offered and str(offered).strip() not in ("[]", "{}"):
            return True
    turns = turns_of(fields) or []
    return any(isinstance(turn, dict) and _uses_tools(turn) for turn in turns)


def is_exchange(fields: Fields) -> bool:
    """Say whether a row holds a dialogue in which a model answers a user, without tools."""
    turns = turns_of(fields)
    if turns is None or offers_tools(fields):
        return False
    roles = [_role(turn) for turn in turns if isinstance(turn, dict)]
    return "user" in roles and "assistant" in roles[roles.index("user") :]


def exchange(row: Row) -> Exchange:
    """Return the first exchange of a row's dialogue. Skipped: tools, no answer, content that is no
    text."""
    if offers_tools(row.fields):
        raise Skipped(TOOLS)
    turns = messages(row, turns_of(row.fields))
    unused = ["a system message is not used"] if row.fields.get("system") else []
    if turns and turns[0].role == "system":
        unused, turns = ["a system message is not used"], turns[1:]
    if turns and turns[0].role == "assistant":
        unused.append("what the model says before the first question is not used")
        turns = turns[next((n for n, t in enumerate(turns) if t.role != "assistant"), 0) :]
    if len(turns) < 2 or (turns[0].role, turns[1].role) != ("user", "assistant"):
        raise Skipped("a dialogue that does not begin with a question and its answer")
    if len(turns) > 2:
        unused.append("turns after the first exchange are not used")
    return Exchange(turns[0].content, turns[1].content, unused)


def messages(row: Row, turns: Any) -> list[Message]:
    """Read turns as messages. An empty system message is left out. Skipped: another empty turn, an
    unknown role, content that is no text."""
    if not isinstance(turns, list):
        raise Skipped("no dialogue")
    spoken = [turn for turn in turns if not _is_empty_system(turn)]
    return [Message(role=role, content=text) for role, text in (_turn(row, t) for t in spoken)]


def _is_empty_system(turn: Any) -> bool:
    if not isinstance(turn, dict) or _role(turn) != "system":
        return False
    content = turn.get("content", turn.get("value"))
    return content is None or (isinstance(content, str) and not content.strip())


def marked_turns(text: str) -> list[Message]:
    """Read a text of `Human:` and `Assistant:` turns, as HH-RLHF writes it, as messages. Skipped:
    turns that do not alternate or are empty."""
    before, *parts = SPEAKER.split(text)
    speakers, words = parts[::2], [part.strip() for part in parts[1::2]]
    alternating = ["Human" if n % 2 == 0 else "Assistant" for n in range(len(speakers))]
    if before.strip() or speakers != alternating:
        raise Skipped("turns do not alternate")
    if not all(words):
        raise Skipped("empty turn")
    return [
        Message(role="user" if n % 2 == 0 else "assistant", content=text)
        for n, text in enumerate(words)
    ]


def prompt(system: str, before: Sequence[Message]) -> list[Message]:
    """Return the messages `before` an answer as a prompt, which ends with the user's turn. The text
    of a system message is put before the first question. Skipped: turns that do not alternate."""
    turns = list(before)
    if turns and turns[0].role == "system":
        system, turns = turns[0].content, turns[1:]
    roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(turns))]
    if [turn.role for turn in turns] != roles or len(turns) % 2 == 0:
        raise Skipped("turns do not alternate")
    if system.strip():
        turns[0] = turns[0].model_copy(
            update={"content": f"{system.strip()}\n\n{turns[0].content}"}
        )
    return turns


def _turn(row: Row, turn: Any) -> tuple[Literal["system", "user", "assistant"], str]:
    if not isinstance(turn, dict):
        raise Skipped("a turn that is no message")
    if _uses_tools(turn):
        raise Skipped(TOOLS)
    role = _role(turn)
    if role is None:
        raise Skipped(f"a turn of {_key(turn, ('role', 'from'))!s:.20}")
    content = turn.get("content", turn.get("value"))
    text = _text(row, content).strip()
    if not text:
        raise Skipped("empty turn")
    return role, text


def _text(row: Row, content: Any) -> str:
    # A list holds parts: texts, and a model's reasoning, which is no part of its answer.
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if any(part.get("type", "text") not in ("text", "reasoning") for part in parts):
            raise Skipped("content that is not text")
        texts = [p.get("text", p.get("value")) for p in parts if p.get("type", "text") == "text"]
        return "\n".join(row.check_text("content", text) for text in texts)
    if content is None:
        raise Skipped("empty turn")
    return row.check_text("content", content)


def _role(turn: Fields) -> Literal["system", "user", "assistant"] | None:
    return ROLES.get(str(_key(turn, ("role", "from"))).lower())


def _key(turn: Fields, names: Sequence[str]) -> Any:
    return next((turn[name] for name in names if isinstance(turn.get(name), str)), None)


def _uses_tools(turn: Fields) -> bool:
    role = str(_key(turn, ("role", "from"))).lower()
    used = role in (
        "tool",
        "function",
        "observation",
        "function_call",
        "function_response",
        "ipython",
    )
    parts = turn.get("content", turn.get("value"))
    calls = isinstance(parts, list) and any(
        isinstance(part, dict) and "tool" in str(part.get("type")) for part in parts
    )
    return used or calls or bool(turn.get("tool_calls") or turn.get("function_call"))
