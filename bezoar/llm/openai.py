"""OpenAI's protocol, as OpenAI, vLLM, SGLang, TGI, Ollama, llama.cpp and transformers speak it."""

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
from bezoar.params import OpenAI
from bezoar.rows.records import Message

# The words of the servers above, of Mistral's (model_length), Cohere's, Together's and Gemini's
# OpenAI-compatible addresses, and of the proxies that pass another protocol's words on. Left out
# are abort, error, tool_calls, null and all else that does not end an answer.
FINISH: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("token_limit", "error_limit", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("content_filter", "safety", "refusal", "recitation"), "refused"),
    **dict.fromkeys(("content_filtered", "guardrail_intervened", "error_toxic"), "refused"),
    **dict.fromkeys(("blocklist", "prohibited_content", "spii", "sensitive"), "refused"),
}
BROKE = ("insufficient_quota", "billing_hard_limit_reached")
# The fields of thoughts, where a server parts them itself: that of DeepSeek, vLLM, SGLang and
# llama.cpp, that of OpenRouter and newer vLLM, and that of Ollama.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
MAXIMA = {"max_tokens", "max_completion_tokens"}


class Wire:
    """The protocol of chat completions, or with `style: completion` of text completions.

    Text completions get the bare prompt. For an endpoint that is `structured` each request asks for
    a JSON object of `schema`.
    """

    def __init__(
        self, endpoint: OpenAI, key: str | None, schema: dict[str, Any] | None = None
    ) -> None:
        self.chat = endpoint.style == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self.url = endpoint.addresses[0] + self.path
        self.version = ""
        self.headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self._endpoint = endpoint
        self._static: dict[str, Any] = {"model": endpoint.model}
        if schema and endpoint.structured:
            form = {"name": "reply", "strict": True, "schema": schema}
            self._static["response_format"] = {"type": "json_schema", "json_schema": form}
        self._first = {**self._static, **sample_params(endpoint.params, endpoint.again, 0)}

    def body(self, messages: Sequence[Message], sample: int = 0) -> dict[str, Any]:
        """Return the request: `messages` as turns, or their texts as one prompt.

        A server that knows no system role gets turns without one. A prompt has a blank line between
        the texts.
        """
        endpoint, static = self._endpoint, self._first
        if sample:
            static = {**self._static, **sample_params(endpoint.params, endpoint.again, sample)}
        if not self.chat:
            return {**static, "prompt": "\n\n".join(m.content for m in messages)}
        turns = [{"role": m.role, "content": m.content} for m in messages]
        return {**static, "messages": turns if endpoint.system_role else fold_system(turns)}

    def parse(self, document: Any) -> Parsed:
        """Read the first choice."""
        choice = value_at(document, "choices", 0)
        if not isinstance(choice, dict):
            raise Unusable("a reply without choices")
        finish = read_finish(FINISH, "finish_reason", choice.get("finish_reason"))
        message = value_at(choice, "message") if self.chat else choice
        text = value_at(message, "content") if self.chat else value_at(choice, "text")
        text, thoughts = _parts(text) if isinstance(text, list) else (text, "")
        refusal = value_at(message, "refusal")
        if refusal := refusal if isinstance(refusal, str) else _refusal(message):
            text, finish = text or refusal, "refused"
        if text is None and (finish == "refused" or (self.chat and isinstance(message, dict))):
            # all tokens went into thinking, or a filter took the text away
            text = ""
        if not isinstance(text, str):
            raise Unusable("a reply without a text")
        separate = next(
            (t for n in THOUGHTS if isinstance(t := value_at(message, n), str) and t), ""
        )
        return Parsed(
            text=text,
            thoughts=thoughts or separate,
            finish=finish,
            tokens_in=count(document, "usage", "prompt_tokens"),
            tokens_cached=count(document, "usage", "prompt_tokens_details", "cached_tokens") or 0,
            tokens_out=count(document, "usage", "completion_tokens"),
            model=str(value_at(document, "model") or self._endpoint.model),
        )

    def hopeless(self, document: Any) -> bool:
        """Say whether no credit is left, which OpenAI says with a 429."""
        return (
            value_at(document, "error", "code") in BROKE
            or value_at(document, "error", "type") in BROKE
        )

    def doubts(self, body: dict[str, Any]) -> list[Doubt]:
        """Return the features of a request that a server may not know: a schema, a system role."""
        doubts = []
        if "response_format" in body:
            plain = {name: value for name, value in body.items() if name != "response_format"}
            doubts.append(Doubt("structured: false", plain))
        turns = body.get("messages", [])
        if any(turn["role"] == "system" for turn in turns):
            doubts.append(Doubt("system_role: false", {**body, "messages": fold_system(turns)}))
        return doubts


def fold_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the turns with the system messages put before the text of the first user message."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    talk = [turn for turn in turns if turn["role"] != "system"]
    if not system:
        return talk
    if not talk or talk[0]["role"] != "user":
        return [{"role": "user", "content": system}, *talk]
    head = {"role": "user", "content": f"{system}\n\n{talk[0]['content']}"}
    return [head, *talk[1:]]


def _refusal(message: Any) -> str:
    """Return the refusals in a content that is a list of parts, "" where there are none."""
    content = value_at(message, "content")
    parts = content if isinstance(content, list) else []
    refusals = [value_at(part, "refusal") for part in parts]
    return "".join(words for words in refusals if isinstance(words, str))


def _parts(content: list[Any]) -> tuple[str | None, str]:
    """Return (text, thoughts) of a content that is a list of parts, as Mistral's reasoning models
    give it."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = value_at(part, "type")
        words = (
            part if isinstance(part, str) else value_at(part, "text") or value_at(part, "thinking")
        )
        if isinstance(words, list):
            words = "".join(str(value_at(piece, "text") or "") for piece in words)
        if isinstance(words, str):
            (thoughts if kind in ("thinking", "reasoning") else texts).append(words)
    return ("".join(texts) if texts or thoughts else None), "\n\n".join(thoughts)
