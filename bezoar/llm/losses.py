"""The cost of requests that brought no usable reply.

A provider bills each reply that it wrote, whether it arrives or not. These are charged:
- a connection that ended after the request was sent,
- an attempt that ran out of time,
- a reply that is cut or garbled.

A request is not billed if the provider refused it (400, 429), if it failed (5xx), or if it never
arrived.
"""

from typing import Any

from bezoar.llm import budget
from bezoar.llm.wire import count
from bezoar.params import Price

LATE = (504, 524)  # a gateway gave up on a server that goes on writing


def may_have_arrived(error: Exception) -> bool:
    """Say whether the server may have got the request before the connection failed with `error`."""
    import aiohttp

    never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
    return not isinstance(error, never)


def may_be_billed(status: int, document: Any) -> bool:
    """Say whether an answer that is no reply may be billed. A 200 and a gateway's timeout may be,
    an error that the server states may not."""
    if isinstance(document, dict) and document.get("error"):
        return False
    return status == 200 or status in LATE


def cost(document: Any, price: Price, batch: bool, most: float) -> float:
    """Return the dollars for a reply that is of no use: by its own count of tokens, or `most` where
    it has none."""
    # OpenAI's count of tokens, else Anthropic's, whose input_tokens leave out those of the cache
    plain = count(document, "usage", "prompt_tokens")
    cached = count(document, "usage", "prompt_tokens_details", "cached_tokens") or 0
    if plain is None and (plain := count(document, "usage", "input_tokens")) is not None:
        cached = count(document, "usage", "cache_read_input_tokens") or 0
        plain += cached + (count(document, "usage", "cache_creation_input_tokens") or 0)
    out = count(document, "usage", "completion_tokens")
    if out is None:
        out = count(document, "usage", "output_tokens")
    if plain is None or out is None:
        return most
    return budget.cost(price, plain, min(cached, plain), out, batch)
