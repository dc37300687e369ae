"""Short questions to a server over HTTP, without the client that a run uses."""

import http.client
import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from bezoar.preflight.findings import SECONDS

# The errors of a connection. A timeout among them is a TimeoutError where the server was reached.
BROKEN = (OSError, ValueError, http.client.HTTPException)


class _Stay(urllib.request.HTTPRedirectHandler):
    """A handler that follows no redirect, which would carry the key to a host that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


def get(
    url: str, headers: Mapping[str, str], body: bytes | None = None, seconds: float = SECONDS
) -> Any:
    """Return the JSON document at `url`, or its answer to `body`. Raise one of BROKEN where there
    is none, TimeoutError where the server took the connection and says nothing."""
    request = urllib.request.Request(url, body, headers={**headers, "User-Agent": "bezoar"})
    with urllib.request.build_opener(_Stay).open(request, timeout=seconds) as answer:
        return json.loads(answer.read())


def answers(
    url: str, headers: Mapping[str, str], body: bytes | None = None, seconds: float = SECONDS
) -> bool:
    """Say whether there is a JSON document."""
    try:
        get(url, headers, body, seconds)
    except BROKEN:
        return False
    return True


def busy(url: str) -> tuple[str, str]:
    """Return (message, remedy) for a server that is there and says nothing."""
    message = f"{url} is there and did not answer in time"
    return message, "it may be busy or loading: a run waits and retries"
