"""The parts of a protocol that a client needs: bodies, replies, errors and request keys.

The client sends the bytes (client.py).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from bezoar.rows.records import Message

# Part of every request key. Raise it when the meaning of a stored answer changes: no answer that
# was bought before is found then.
KEY_VERSION = 1

Finish = Literal["stop", "length", "refused"]


class Parsed(NamedTuple):
    """A reply as the server gave it.

    `tokens_cached` of `tokens_in` were read from the server's cache. Token counts are None where
    the server did not say. `thoughts` are those that the protocol itself keeps apart from the text.
    """

    text: str
    thoughts: str
    finish: Finish
    tokens_in: int | None
    tokens_cached: int
    tokens_out: int | None
    model: str


class Unusable(ValueError):
    """A document that is not the reply it should be. str(self) says in what way."""


class Problem(NamedTuple):
    """An error that a server states.

    `status` is the HTTP status that it stands for, None where that is not known. `names` are the
    names that the server gives it, "" for none.
    """

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
        """Return the request as it is sent. `sample` above 0 asks for another answer."""
        ...

    def parse(self, document: Any) -> Parsed:
        """Read the reply in a decoded 200 response. Unusable: there is none."""
        ...

    def hopeless(self, document: Any) -> bool:
        """Say whether an error that looks as if it may pass (a 429) never will."""
        ...

    def doubts(self, body: dict[str, Any]) -> list[Doubt]:
        """Return the features of this request that a server may not know."""
        ...


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def encode(body: dict[str, Any]) -> bytes:
    """Return the bytes that are sent. Keys are sorted, so that another order of them in params.yaml
    makes the same request and buys nothing anew."""
    return _JSON.encode(body).encode("utf-8", "backslashreplace")


def request_key(wire: Wire, body: bytes, sample: int) -> str:
    """Return the key of the final request: 64 hex digits of address, version, sample index and
    body."""
    digest = hashlib.sha256(f"{KEY_VERSION} POST {wire.url} {wire.version} {sample}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def without_nulls(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that go into the body. One that is null is left out."""
    return {name: value for name, value in params.items() if value is not None}


def sample_params(
    params: Mapping[str, Any], again: Mapping[str, Any], sample: int
) -> dict[str, Any]:
    """Return the params of the request for answer number `sample`, counted from 0.

    Above 0 `again` replaces some of them, and `sample` is added to the seed where one is set.
    """
    if not sample:
        return without_nulls(params)
    changed = without_nulls({**params, **again})
    if isinstance(seed := changed.get("seed"), int) and "seed" not in again:
        changed["seed"] = seed + sample
    return changed


def is_greedy(body: Mapping[str, Any]) -> bool:
    """Say whether a server takes the likeliest token each time, so that equal requests get equal
    answers."""
    return body.get("temperature") == 0 or body.get("top_k") == 1


def value_at(document: Any, *path: str | int) -> Any:
    """Return the value at `path` of a decoded document, None where the path breaks off."""
    for step in path:
        # called a dozen times for every reply: an exception would cost more than these tests
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def count(document: Any, *path: str | int) -> int | None:
    """Return the token count at `path`, None where there is none."""
    number = value_at(document, *path)
    return number if isinstance(number, int) and number >= 0 else None


def read_finish(finishes: Mapping[str, Finish], name: str, reason: Any) -> Finish:
    """Translate the server's word for the end of a reply (`reason`, in the field `name`).

    Unusable: it is missing, or is none of `finishes`. Half a sentence must not pass for an answer.
    """
    if not isinstance(reason, str) or not reason:
        raise Unusable(f"a reply without a {name}")
    # Gemini says why behind a colon: "content_filter: PROHIBITED_CONTENT"
    if (finish := finishes.get(reason.casefold().partition(":")[0])) is None:
        raise Unusable(f"a reply that ended with {name} {reason[:60]!r}, which is no known ending")
    return finish


# --- errors ---------------------------------------------------------------------------------------

# The names that OpenAI, Anthropic, vLLM, SGLang, TGI and llama.cpp give their errors, by status
_NAMES_OF = {
    400: (
        "bad_request badrequesterror invalid_request_error validation invalid_argument "
        "context_length_exceeded exceed_context_size_error content_filter invalid_prompt "
        "string_above_max_length"
    ),
    401: "authentication_error invalid_api_key unauthenticated",
    402: "billing_error",
    403: "permission_error permission_denied",
    404: "not_found_error notfounderror model_not_found",
    413: "request_too_large",
    422: "unprocessable_entity",
    429: (
        "rate_limit_error rate_limit_exceeded ratelimiterror too_many_requests "
        "resource_exhausted insufficient_quota billing_hard_limit_reached tokens requests"
    ),
    500: (
        "api_error server_error internal_server_error internalservererror internal_error generation"
    ),
    502: "upstream_error bad_gateway",
    503: (
        "unavailable_error unavailable service_unavailable serviceunavailableerror "
        "engine_overloaded"
    ),
    504: "timeout_error timeout deadline_exceeded",
    529: "overloaded overloaded_error",
}
STATUS_OF = {name: status for status, names in _NAMES_OF.items() for name in names.split()}


def problem(document: Any) -> Problem | None:
    """Return the error in a decoded document, whatever HTTP status it came with. None where there
    is none. A choice may hold one too (OpenRouter)."""
    if isinstance(document, list) and len(document) == 1:
        (document,) = document  # Gemini puts its errors into a list
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
    """Return the words of an error: its message, or all of it as JSON."""
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
    """Say whether a server refuses a request because it is too long for the model."""
    fits = not _TOO_LONG.search(words) or _RATE.search(words)
    return status in (400, 413, 422, 500) and not fits


_ACCOUNT = re.compile(
    r"\b(?:account|organi[sz]ation|project|api key|user) (?:has been|was|is)\b", re.I
)


def is_filtered(status: int | None, words: str) -> bool:
    """Say whether a provider's filter refuses the content of a request, which is an answer to it.

    Words about the account are no such answer: they hold for every request.
    """
    says = _FILTERED.search(words) and not _ACCOUNT.search(words)
    return status in (400, 403, 422) and bool(says)
