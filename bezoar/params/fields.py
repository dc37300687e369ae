"""The kinds of values that sections of the files of parameters share."""

import re
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A mapping in a file of parameters. A key that its class does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Share = Annotated[float, Field(ge=0, le=1)]


def _reject_boolean(value: object) -> object:
    # To Python a boolean is an int, and pydantic would read true as 1.
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted; true and false are none")
    return value


Count = Annotated[int, BeforeValidator(_reject_boolean), Field(gt=0)]
Number = Annotated[int, BeforeValidator(_reject_boolean), Field(ge=0)]
# numpy's generators take no other seeds.
Seed = Annotated[int, BeforeValidator(_reject_boolean), Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, lt=1)]
L = TypeVar("L", bound=list[Any])


def reject_repeats(values: L) -> L:
    """Return a list of different values. ValueError: one of them stands there twice."""
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} stands there twice; keep one of them")
    return values


Names = Annotated[list[str], Field(min_length=1), AfterValidator(reject_repeats)]
KEY_FIELD = "api_key_env"


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address; write one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"a key has no place in an address; name its variable in {KEY_FIELD}")
    url = url.rstrip("/")
    if end := re.search(r"/(?:chat/completions|completions|messages|models|responses)\Z", url):
        raise ValueError(f"{end[0]} is added by the client; let the address end before it")
    return url


Url = Annotated[str, AfterValidator(_check_url)]


def _check_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError("not usable as a name; one is made of letters, digits, _ and -")
    return name


# A part of a path and of a stage's name.
Name = Annotated[str, AfterValidator(_check_name)]
