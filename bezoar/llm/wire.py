"""What the client wants to know of a protocol, and nothing of how bytes travel."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from bezoar.rows.records import Message

# Raise it when the meaning of a stored answer changes: nothing bought before is found then.
KEY_VERSION = 1

Finish = Literal["stop", "length", "refused"]


class Parsed(NamedTuple):
    """A reply as the server gave it; `tokens_cached` of `tokens_in` were read from its cache. Token
    counts are None where the server did not say. `thoughts` are those that the protocol itself
    keeps apart from the text."""

    text: str
    thoughts: str
    finish: Finish
    tokens_in: int | None
    tokens_cached: int
    tokens_out: int | None
    model: str


class Unusable(ValueError):
    """A document that is not the reply it should be; str(self) says how."""


class Problem(NamedTuple):
    """An error that a server states: the HTTP status that it stands for (None: not known), the
    server's words, and the names that it gives the error ("" for none)."""

    status: int | None
    words: str
    names: str = ""


class Doubt(NamedTuple):
    """A feature of a request that some servers do not know: the parameter that turns it off, and
    the request without it."""

    parameter: str
    body: dict[str, Any]


class Wire(Protocol):
    """One protocol: its address, its headers (with the key), its bodies and its replies."""

    url: str  # of the first server: the one that names the model in request keys
    path: str  # the end of `url` that the protocol adds to base_url
    headers: dict[str, str]
    version: str  # header values that change what comes back; part of the request key

    def body(self, messages: Sequence[Message], sample: int = 0) -> dict[str, Any]:
        """The request as it is sent; `sample` above 0 asks for another answer."""
        ...

    def parse(self, document: Any) -> Parsed:
        """The reply in a decoded 200 response; Unusable when there is none."""
        ...

    def hopeless(self, document: Any) -> bool:
        """Whether an error that looks passing (a 429) never will pass."""
        ...

    def doubts(self, body: dict[str, Any]) -> list[Doubt]:
        """What of this request a server may not know."""
        ...


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def encode(body: dict[str, Any]) -> bytes:
    """The bytes on the wire: canonical, so that the order of keys in params.yaml buys nothing."""
    return _JSON.encode(body).encode("utf-8", "backslashreplace")


def request_key(wire: Wire, body: bytes, sample: int) -> str:
    """64 hex digits of the final request: address, version, sample index and body."""
    digest = hashlib.sha256(f"{KEY_VERSION} POST {wire.url} {wire.version} {sample}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def without_nulls(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params that go into the body: null leaves one out."""
    return {name: value for name, value in params.items() if value is not None}


def sample_params(
    params: Mapping[str, Any], again: Mapping[str, Any], sample: int
) -> dict[str, Any]:
    """Params of the request for the answer number `sample`: above 0 with `again` in the place of
    some of them, and another seed where one is set."""
    if not sample:
        return without_nulls(params)
    changed = without_nulls({**params, **again})
    if isinstance(seed := changed.get("seed"), int) and "seed" not in again:
        changed["seed"] = seed + sample
    return changed


def is_greedy(body: Mapping[str, Any]) -> bool:
    """Whether a server takes the likeliest token each time: equal requests get equal answers."""
    return body.get("temperature") == 0 or body.get("top_k") == 1


def value_at(document: Any, *path: str | int) -> Any:
    """What lies at `path` of a decoded document, None where the path breaks off."""
    for step in path:
        # asked of every reply, a dozen times: an exception would cost more than the look
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def count(document: Any, *path: str | int) -> int | None:
    """The token count at `path`, None where there is none."""
    number = value_at(document, *path)
    return number if isinstance(number, int) and number >= 0 else None


def read_finish(finishes: Mapping[str, Finish], name: str, reason: Any) -> Finish:
    """How a reply ended; Unusable where its server's word for that (`name`) is missing, or not one
    that is known: half a sentence must not pass for an answer."""
    if not isinstance(reason, str) or not reason:
        raise Unusable(f"a reply without a {name}")
    # Gemini says why behind a colon: "content_filter: PROHIBITED_CONTENT"
    if (finish := finishes.get(reason.casefold().partition(":")[0])) is None:
        raise Unusable(f"a reply that ended with {name} {reason[:60]!r}, which is no known ending")
    return finish


# --- errors ---------------------------------------------------------------------------------------

# The names that OpenAI, Anthropic, vLLM, SGLang, TGI and llama.cpp give their errors
STATUS_OF = {
    "bad_request": 400, "badrequesterror": 400, "invalid_request_error": 400, "validation": 400,
    "invalid_argument": 400, "context_length_exceeded": 400, "exceed_context_size_error": 400,
    "content_filter": 400, "invalid_prompt": 400, "string_above_max_length": 400,
    "authentication_error": 401, "invalid_api_key": 401, "unauthenticated": 401,
    "billing_error": 402, "permission_error": 403, "permission_denied": 403,
    "not_found_error": 404, "notfounderror": 404, "model_not_found": 404,
    "request_too_large": 413, "unprocessable_entity": 422,
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "ratelimiterror": 429,
    "too_many_requests": 429, "resource_exhausted": 429, "insufficient_quota": 429,
    "billing_hard_limit_reached": 429, "tokens": 429, "requests": 429,
    "api_error": 500, "server_error": 500, "internal_server_error": 500, "internalservererror": 500,
    "internal_error": 500, "generation": 500, "upstream_error": 502, "bad_gateway": 502,
    "overloaded": 529, "overloaded_error": 529, "unavailable_error": 503, "unavailable": 503,
    "service_unavailable": 503, "serviceunavailableerror": 503, "engine_overloaded": 503,
    "timeout_error": 504, "timeout": 504, "deadline_exceeded": 504,
}  # fmt: skip


def problem(document: Any) -> Problem | None:
    """The error in a decoded document, of whatever HTTP status it came with; None where it holds
    none. A choice may be one too (OpenRouter)."""
    if isinstance(document, list) and len(document) == 1:
        (document,) = document  # Gemini
    stated = [value_at(document, "error"), value_at(document, "choices", 0, "error")]
    if "error" in (value_at(document, "type"), value_at(document, "object")):
        stated.append(document)
    error = next((candidate for candidate in stated if candidate), None)
    if error is None:
        return None
    names = [value_at(error, name) for name in ("code", "type", "status")]
    return Problem(
        _status(error) or _status(document),
        words_of(error),
        " ".join(name for name in names if isinstance(name, str)),
    )


def _status(error: Any) -> int | None:
    for name in ("code", "status", "status_code", "http_status", "http_status_code", "type"):
        value = value_at(error, name)
        if isinstance(value, str):
            value = int(value) if value.isdecimal() else STATUS_OF.get(value.casefold())
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def words_of(error: Any) -> str:
    """What an error says: its message, or all of it."""
    for path in (("message",), ("error", "message"), ("error",), ("detail",), ("msg",)):
        words = value_at(error, *path)
        if isinstance(words, str) and words.strip():
            inner = value_at(error, "metadata", "raw")  # OpenRouter: what the provider said
            return f"{words}: {inner}" if isinstance(inner, str) and inner.strip() else words
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


# Words by which servers say that a request does not fit: OpenAI and vLLM, Anthropic, llama.cpp and
# its Python server, TGI, SGLang, Ollama
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|(?:max(?:imum)?|model's) "
    r"(?:model|context|sequence|input) len|context ?(?:window|size|length)|prompt is too long|"
    r"(?:input|prompt)(?: is|'s)? (?:too long|longer than)|too many (?:input )?tokens|"
    r"inputs?\W{0,2} tokens? \+ |tokens? exceeds?|exceeds? the (?:available |maximum |model)|"
    r"must have less than \d+ tokens|input is too large to process",
    re.IGNORECASE,
)
# a limit of so many tokens a minute has the same words, and passes
_RATE = re.compile(r"please wait|per (?:min|day|hour)|\btpm\b|rate.?limit", re.IGNORECASE)
_FILTERED = re.compile(
    r"content[_ ]?(?:filter|policy|management)|responsible ?ai|safety (?:system|polic|filter)|"
    r"content.?policy|moderation|flagged (?:as|for|by)|(?:input|prompt|content) was flagged|"
    r"usage (?:polic|guideline)|"
    r"considered high risk|inappropriate content|data_inspection_failed|responsibleaipolicy",
    re.IGNORECASE,
)


def no_room(status: int | None, words: str) -> bool:
    """Whether a server refuses a request because it is too long for the model."""
    fits = not _TOO_LONG.search(words) or _RATE.search(words)
    return status in (400, 413, 422, 500) and not fits


_ACCOUNT = re.compile(
    r"\b(?:account|organi[sz]ation|project|api key|user) (?:has been|was|is)\b", re.I
)


def is_filtered(status: int | None, words: str) -> bool:
    """Whether a filter of the provider's refuses what a request says: that is an answer to it. What
    is said of the account holds for every request, and is none."""
    says = _FILTERED.search(words) and not _ACCOUNT.search(words)
    return status in (400, 403, 422) and bool(says)
