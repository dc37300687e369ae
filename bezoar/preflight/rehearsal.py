"""One short question to a free server, put as the stages will put theirs.

It has a system message, and a schema where the endpoint is structured. A feature that the server
lacks is found here.
"""

import urllib.error
from typing import Any

from bezoar.llm import client, openai
from bezoar.llm.wire import Unusable, encode
from bezoar.params import OpenAI
from bezoar.preflight import web
from bezoar.preflight.findings import Finding
from bezoar.rows.records import Message, Reply

# Seconds that a free server has for a short question: it may be a model on a CPU.
SECONDS = 30.0
TOKENS = 16  # of the reply at most
QUESTION = (
    Message(role="system", content="You answer in one word."),
    Message(role="user", content="Which colour has the clear sky at noon?"),
)
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}


def findings(key: str, endpoint: OpenAI) -> list[Finding]:
    """Return a finding for each address that answers for nothing. A paid one is asked by its
    stages."""
    if endpoint.style != "chat" or endpoint.price.input or endpoint.price.output:
        return []
    wire = openai.Wire(endpoint, client.secret_of(endpoint), SCHEMA)
    short = dict.fromkeys(openai.MAXIMA & endpoint.params.keys(), TOKENS)
    body = {**wire.body(QUESTION), **short}
    return [_finding(key, wire, url, body) for url in endpoint.addresses]


def _finding(key: str, wire: openai.Wire, url: str, body: dict[str, Any]) -> Finding:
    try:
        reply = _ask(wire, url, body)
    except urllib.error.HTTPError as error:
        return _refused(key, wire, url, body, f"HTTP {error.code}: {client.words_in(error.read())}")
    except Unusable as error:
        do = "its stages would ask again and fail; look at the server"
        return Finding("stop", key, f"{url} gives {error}", do)
    except TimeoutError:
        return Finding("warning", key, *web.busy(url))
    except web.BROKEN as error:
        return Finding("warning", key, f"{url} broke off a short question ({error})")
    thinks = ", with thoughts before it, which count against its maximum of tokens"
    return Finding("ok", key, f"{url} answers a short question" + thinks * bool(reply.thoughts))


def _ask(wire: openai.Wire, url: str, body: dict[str, Any]) -> Reply:
    return client.read_reply(wire, web.get(url + wire.path, wire.headers, encode(body), SECONDS))


def _refused(key: str, wire: openai.Wire, url: str, body: dict[str, Any], reason: str) -> Finding:
    """Find the part of a question that a server refuses, by its answers when that part is left
    out."""
    for doubt in wire.doubts(body):
        if web.answers(url + wire.path, wire.headers, encode(doubt.body), SECONDS):
            # The same question again. A server that only stumbled once is not one that lacks a
            # feature.
            if web.answers(url + wire.path, wire.headers, encode(body), SECONDS):
                message = f"{url} refuses a short question at first ({reason}), and answers it then"
                return Finding("warning", key, message, "a run tries again; see what its log says")
            message = (
                f"{url} refuses a short question ({reason}), and answers with {doubt.parameter}"
            )
            return Finding("stop", key, message, f"set {doubt.parameter}")
    message = f"{url} refuses a short question ({reason})"
    return Finding("warning", key, message, "see what its log says")
