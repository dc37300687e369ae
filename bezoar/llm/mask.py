"""Masks an API key in what a server answers, however the key is written there.

A server may quote the request's headers in an error. The ledger and the messages must not pass the
key on.
"""

import base64
import html
import json
import re
import urllib.parse
from functools import cached_property

MASK = "***"
_SIGNS = re.compile(r"[\\%&]")  # every escape begins with one of these


class Mask:
    """The mask of one key. That of the key "" hides nothing."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def raw(self, body: bytes) -> bytes:
        """Return a body with the key masked where it stands literally."""
        secret = self._secret.encode()
        return body.replace(secret, MASK.encode()) if secret and secret in body else body

    def text(self, text: str) -> str:
        """Return a decoded text with the key masked.

        It is found literally, backwards, in base64, and with any of its characters written as an
        escape of JSON, of an address, or of HTML.
        """
        if not self._secret:
            return text
        for plain in self._plain:
            if plain in text:
                text = text.replace(plain, MASK)
        # the pattern of escapes is slow, and a text without their signs holds none
        return self._escaped.sub(MASK, text) if _SIGNS.search(text) else text

    @cached_property
    def _plain(self) -> list[str]:
        forms = [self._secret]
        for plain in (self._secret, f"Bearer {self._secret}"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                forms.append(encode(plain.encode()).decode().rstrip("="))
        # whoever reads the key backwards can still use it
        return [*forms, self._secret[::-1]]

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        return re.compile("".join(map(_forms, self._secret)))


def _forms(character: str) -> str:
    """Return a pattern that matches one character in every way of writing it.

    Example: for "/" it matches `/`, `\\/`, `\\u002f`, `%2F`, `%252f`, `&#47;` and `&#x2f;`.
    """
    code = ord(character)
    escapes = [
        re.escape(character),
        re.escape(urllib.parse.quote(character, safe="")),
        re.escape(html.escape(character)),
        re.escape(json.dumps(character)[1:-1]),
        rf"\\{{0,4}}{re.escape(character)}",
        rf"\\+(?i:u0{{0,4}}{code:x}|x{code:02x}|u\{{0*{code:x}\}})",
        rf"(?i:%(?:25)*{code:02x})",
        rf"(?i:&(?:amp;)*#0*{code};?|&(?:amp;)*#x0*{code:x};?)",
    ]
    return f"(?:{'|'.join(dict.fromkeys(escapes))})"
