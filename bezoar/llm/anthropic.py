"""Anthropic's Messages API."""

from collections.abc import Sequence
from typing import Any

from bezoar.llm.wire import (
    Doubt,
    Finish,
    Parsed,
    Unusable,
    count,
    read_finish,
    sample_params,
    value_at,
)
from bezoar.params import Anthropic
from bezoar.rows.records import Message

# tool_use and pause_turn are left out: they do not end an answer
FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


class Wire:
    """The protocol of Anthropic's Messages API.

    System messages go beside the conversation. The text blocks of a reply are its text.
    """

    def __init__(self, endpoint: Anthropic, key: str | None) -> None:
        self.path = "/v1/messages"
        self.url = endpoint.addresses[0] + self.path
        self.version = endpoint.api_version
        self.headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "anthropic-version": endpoint.api_version,
        }
        if key:
            self.headers["Authorization"] = f"Bearer {key}"  # as the anthropic package 2.x does
        self._endpoint = endpoint

    def body(self, messages: Sequence[Message], sample: int = 0) -> dict[str, Any]:
        """Return the request: the turns, and all system messages joined into one."""
        endpoint = self._endpoint
        static = {"model": endpoint.model, **sample_params(endpoint.params, endpoint.again, sample)}
        turns = [{"role": m.role, "content": m.content} for m in messages if m.role != "system"]
        system = "\n\n".join(m.content for m in messages if m.role == "system")
        return {**static, "messages": turns, **({"system": system} if system else {})}

    def parse(self, document: Any) -> Parsed:
        """Read all text blocks. Thinking blocks, which may come before them, are its thoughts."""
        content = value_at(document, "content")
        if value_at(document, "type") != "message" or not isinstance(content, list):
            raise Unusable("a reply without content")
        texts = [value_at(b, "text") for b in content if value_at(b, "type") == "text"]
        if not all(isinstance(text, str) for text in texts):
            raise Unusable("a text block without a text")
        finish = read_finish(FINISH, "stop_reason", value_at(document, "stop_reason"))
        thinking = [value_at(b, "thinking") for b in content if value_at(b, "type") == "thinking"]
        cached = count(document, "usage", "cache_read_input_tokens") or 0
        written = count(document, "usage", "cache_creation_input_tokens") or 0
        plain = count(document, "usage", "input_tokens")
        return Parsed(
            text="".join(texts),
            thoughts="\n\n".join(words for words in thinking if isinstance(words, str)),
            finish=finish,
            # input_tokens leaves out what was read from the cache and what was written to it
            tokens_in=None if plain is None else plain + written + cached,
            tokens_cached=cached,
            tokens_out=count(document, "usage", "output_tokens"),
            model=str(value_at(document, "model") or self._endpoint.model),
        )

    def hopeless(self, document: Any) -> bool:
        """Return False: Anthropic gives what never passes a status of its own, which is no 429."""
        return False

    def doubts(self, body: dict[str, Any]) -> list[Doubt]:
        """Return none: the system message has a field of its own, and no schema is sent."""
        return []
