"""The models that stages ask, their prices, and the caps on what may be spent."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from bezoar.params.fields import KEY_FIELD, Count, Name, Section, Share, _check_url

LOCAL_FOLDER = "local/llm"  # models that are run in this process, each a folder


def _check_urls(urls: str | list[str]) -> str | list[str]:
    if isinstance(urls, str):
        return _check_url(urls)
    if not urls:
        raise ValueError("names no address; give one, or several")
    return [_check_url(url) for url in urls]


def _check_variable(name: str) -> str:
    # People paste the key itself here. It must not become a fingerprint, a lock file or a message.
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise ValueError("not the name of an environment variable; OPENAI_API_KEY is one, say")
    return name


def _check_request_params(params: dict[str, Any]) -> dict[str, Any]:
    for name in params:
        if name in ("trust_remote_code", "custom_generate"):
            raise ValueError(f"{name!r} would have a model run code of its own; leave it out")
        if name in ("model", "messages", "prompt", "system", "stream", "n"):
            raise ValueError(f"{name!r} is set by the client, one reply a request; leave it out")
        if re.search(r"api.?key|authori[sz]ation|secret|password", name, re.IGNORECASE):
            raise ValueError(f"a key has no place in params; name its variable in {KEY_FIELD}")
    return params


def _check_terms(terms: str) -> str:
    # "Apache License, Version 2.0" is one licence, in spite of its comma.
    if "," in re.sub(r",(?=\s*v(ersion)?\b)", "", terms.lower()) or not terms.strip():
        raise ValueError("not one licence; one set of terms, such as Apache-2.0 or OpenAI-terms")
    return terms


# The terms under which a model's output may be used: an SPDX id, or PROVIDER-terms
# (filtering/licences.py).
Terms = Annotated[str, AfterValidator(_check_terms)]


class Embedded(Section):
    """A simulated model in this process, free."""

    provider: Literal["embedded"]
    model: str
    terms: Terms
    concurrency: Count


class Price(Section):
    """US dollars per million tokens. `batch` is the share of them that batch mode pays."""

    input: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    batch: Share


class Remote(Section):
    """A model behind HTTP.

    `base_url`: an address, or several that serve the same model. Requests are spread over them.
    `params`: go into each request as they are (null leaves one out).
    `again`: replaces some of `params` where a request is made a second time, because its reply said
        nothing usable. At temperature 0 nothing else would change the reply, so without `again`
        there is no second request.
    `context_tokens`: tokens that a request and its reply may have together (null: not known, and
        every request is sent).
    `tokenizer`: a tokenizer.json, or a folder with one, to count these tokens with (null: by a
        stated estimate).
    `timeout`: seconds for one attempt.
    `patience`: seconds for one request with its retries.
    `max_failed`: share of the jobs. Above it the stage fails.
    `reply_tokens`: tokens of a reply, as the forecast estimates them.
    """

    model: str
    terms: Terms
    # Both halves are checked by one function. pydantic would report the other half of a union too,
    # with the address, in which a user may have written a key.
    base_url: Annotated[str | list[str], AfterValidator(_check_urls)]
    api_key_env: Annotated[str, AfterValidator(_check_variable)] | None
    params: Annotated[dict[str, Any], AfterValidator(_check_request_params)]
    # Keys that came later have a default, so that a params.yaml written before them stays valid.
    again: Annotated[dict[str, Any], AfterValidator(_check_request_params)] = {}
    context_tokens: Count | None = None
    tokenizer: str | None = None
    mode: Literal["live", "batch"]
    concurrency: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout: Annotated[float, Field(gt=0)]
    patience: Annotated[float, Field(ge=0)]
    max_failed: Share
    reply_tokens: Count
    price: Price

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of the model. Answers are remembered under the first, so that
        servers may come and go after it."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @model_validator(mode="after")
    def _batches_go_to_one_address(self) -> "Remote":
        if self.mode == "batch" and len(self.addresses) > 1:
            raise ValueError("mode: batch goes to one address; give one base_url, or mode: live")
        if len({*self.addresses}) < len(self.addresses):
            raise ValueError("base_url: an address stands there twice; keep one of them")
        return self


class OpenAI(Remote):
    """Any server that speaks OpenAI's protocol.

    `base_url` ends with /v1.
    `style`: completion sends the prompt as raw text.
    `structured`: a judge's verdict is asked for by a JSON schema, to which the server holds the
        reply. It is false for a server that knows no `response_format`.
    `system_role`: false where the server's chat template refuses a system message, which then opens
        the first user message.
    """

    provider: Literal["openai"]
    style: Literal["chat", "completion"]
    structured: bool
    system_role: bool = True

    @model_validator(mode="after")
    def _schema_wants_chat(self) -> "OpenAI":
        if self.structured and self.style == "completion":
            raise ValueError("structured: a schema goes with style: chat alone; write false")
        return self


class Anthropic(Remote):
    """Anthropic's Messages API. Its `base_url` ends without /v1."""

    provider: Literal["anthropic"]
    api_version: str


# Names for the most tokens of a reply of a model in this process, which takes one of the two.
LOCAL_MAXIMA = ("max_new_tokens", "max_tokens")
# Params that people give other samplers, and the advice for each here.
ELSEWHERE = {
    "do_sample": "temperature alone decides; 0 takes the likeliest token",
    "seed": "what is drawn follows from the request and its sample number",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens, which counts the reply alone",
    **dict.fromkeys(
        ("top_p", "top_k", "min_p", "typical_p"),
        "tokens are drawn from all, by temperature alone; leave it out",
    ),
}


def _check_local_params(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse params that a model in this process lacks: it takes a maximum of a reply, and a
    temperature."""
    keys = (*LOCAL_MAXIMA, "temperature")
    for name, value in _check_request_params(params).items():
        if name not in keys:
            close = difflib.get_close_matches(name, keys, 1)
            instead = ELSEWHERE.get(name) or (
                f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(keys)}"
            )
            raise ValueError(f"{name!r} is not known to a model in this process; {instead}")
        # By its type, for a boolean is an int to Python.
        number = type(value) in (int, float)
        if name == "temperature" and not (value is None or (number and 0 <= value <= 2)):
            raise ValueError(f"temperature: {value!r}; from 0, the likeliest token, to 2")
        if name in LOCAL_MAXIMA and not (value is None or (type(value) is int and value > 0)):
            raise ValueError(f"{name}: {value!r}; tokens of a reply, 1 or more")
    if len(_reply_maxima(params)) > 1:
        raise ValueError(f"{' and '.join(LOCAL_MAXIMA)} say the same; leave one out")
    return params


def _reply_maxima(params: dict[str, Any]) -> list[int]:
    """Return the maxima of a reply that are set, one or none where the params are checked."""
    return [value for name, value in params.items() if name in LOCAL_MAXIMA and value is not None]


def _require_maximum(params: dict[str, Any]) -> dict[str, Any]:
    if not _reply_maxima(params):
        raise ValueError(f"sets no maximum of a reply; {LOCAL_MAXIMA[0]}: 512, say")
    return params


LocalParams = Annotated[dict[str, Any], AfterValidator(_check_local_params)]


class InProcess(Section):
    """A transformers model folder below local/llm/, run in this process.

    `params`: max_new_tokens, the tokens that a reply may have, and temperature. At 0, or without
        one, the likeliest token is taken.
    `again`, `system_role`: as of Remote and OpenAI.
    `batch_size`: requests that are continued together, at most.

    The context of the model is in its config.json.
    """

    provider: Literal["local"]
    model: str
    terms: Terms
    style: Literal["chat", "completion"]
    params: Annotated[LocalParams, AfterValidator(_require_maximum)]
    again: LocalParams = {}
    system_role: bool = True
    concurrency: Count
    batch_size: Count

    def most(self, sample: int = 0) -> int:
        """Return the tokens of the longest reply to the first request (`sample` 0) or to a repeated
        one."""
        return max(_reply_maxima({**self.params, **(self.again if sample else {})}))


Endpoint = Annotated[Embedded | OpenAI | Anthropic | InProcess, Field(discriminator="provider")]


class Budget(Section):
    """US dollars that one stage, and all stages together, may spend (null: no cap).

    A cap counts everything that was bought and lost under the profile and this `name`, by any
    variant of the recipe. Another name begins from zero.
    """

    name: Name = "first"
    stage: Annotated[float, Field(ge=0)] | None
    run: Annotated[float, Field(ge=0)] | None


def _check_panel(panel: list[Endpoint]) -> list[Endpoint]:
    models = [member.model for member in panel]
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise ValueError(f"{twice[0]} stands there twice; a second opinion is another model's")
    return panel


Panel = Annotated[list[Endpoint], Field(min_length=1), AfterValidator(_check_panel)]


def _below(path: str, folder: str) -> bool:
    """Say whether a path, as it is written, is a folder right below another."""
    # The parent of `local/llm/..` is local/llm too, though it does not lie in there.
    return Path(path).parent.as_posix() == folder and Path(path).name != ".."


class Endpoints(Section):
    """The models that the stages ask. `judge` is one endpoint, or several: a panel."""

    teacher: Endpoint
    # The discriminator picks the half before pydantic checks it. A plain union would report one
    # fault under both halves.
    judge: Annotated[
        Annotated[Endpoint, Tag("one")] | Annotated[Panel, Tag("panel")],
        Discriminator(lambda value: "panel" if isinstance(value, list) else "one"),
    ]
    grader: Endpoint

    @property
    def judges(self) -> list[Endpoint]:
        """Return the panel's members in their order, or the one judge where there is no panel."""
        return self.judge if isinstance(self.judge, list) else [self.judge]

    def by_name(self, role: str) -> dict[str, Endpoint]:
        """Return the endpoints of a role (teacher, judge, grader), each by its path below `llm`:
        judge, or judge.0 and so on."""
        entry: Endpoint | list[Endpoint] = getattr(self, role)
        if isinstance(entry, list):
            return {f"{role}.{number}": endpoint for number, endpoint in enumerate(entry)}
        return {role: entry}

    @model_validator(mode="after")
    def _local_models_lie_where_dvc_looks(self) -> "Endpoints":
        for role in type(self).model_fields:
            for name, endpoint in self.by_name(role).items():
                if isinstance(endpoint, InProcess) and not _below(endpoint.model, LOCAL_FOLDER):
                    raise ValueError(
                        f"{name}.model: {endpoint.model}: lies outside of {LOCAL_FOLDER}/, where "
                        "DVC sees that a model has changed; bring it there with cp -r (cp -al "
                        f"links instead of copying), and name it {LOCAL_FOLDER}/NAME"
                    )
        return self

    @model_validator(mode="after")
    def _only_verdicts_have_a_schema(self) -> "Endpoints":
        for role in ("teacher", "grader"):
            if getattr(getattr(self, role), "structured", False):
                raise ValueError(
                    f"{role}.structured: only a judge's verdict has a schema; write false"
                )
        return self
