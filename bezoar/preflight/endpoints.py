"""Models behind HTTP: is the key there, does each address answer, does it serve the model. Only the
list of models is asked for, which costs nothing. A server that is free is also put one short
question, in the form that the stages will use, so that what it does not know is found here."""

import http.client
import urllib.error
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bezoar.llm import client, ledger
from bezoar.llm.mask import Mask
from bezoar.llm.room import Room
from bezoar.llm.wire import value_at
from bezoar.params import (
    Anthropic,
    Embedded,
    Endpoint,
    Endpoints,
    Further,
    FurtherServed,
    InProcess,
    OpenAI,
)
from bezoar.preflight import rehearsal, web
from bezoar.preflight.findings import SECONDS, Finding, together
from bezoar.rows.files import BadInput

SHOWN = 4  # names of models in a message
LISTED = 1000  # models that Anthropic lists at once: its most


def check(llm: Endpoints, models: Mapping[str, Further]) -> list[Finding]:
    """A finding for each key, each address and each model folder that the endpoints name, those of
    the further `models` among them."""
    asked: dict[str, Endpoint] = {
        f"llm.{name}": endpoint
        for who in Endpoints.model_fields
        for name, endpoint in llm.by_name(who).items()
    }
    for name, model in models.items():
        if isinstance(model, FurtherServed):
            asked[f"models.{name}"] = model.endpoint
    users: dict[tuple[object, ...], list[str]] = {}
    for who, endpoint in asked.items():
        users.setdefault(_place(endpoint), []).append(who)
    checks = {
        whose: partial(_rehearsed, _named(whose), asked[whose[0]], [asked[who] for who in whose])
        for whose in map(tuple, users.values())
    }
    here = {whose for whose in checks if isinstance(asked[whose[0]], InProcess)}
    waiting = {whose: check for whose, check in checks.items() if whose not in here}
    late = rehearsal.SECONDS + 2 * SECONDS
    found = together(waiting, lambda whose: [_silent(whose[0], "no answer", "its server")], late)
    # loading a tokenizer takes as long as it takes, and waits for nobody
    found |= {whose: checks[whose]() for whose in here}
    found = {whose: found[whose] for whose in checks}
    return [finding for findings in found.values() for finding in findings]


def stage(who: str, endpoint: Endpoint, stage: str, label: str) -> list[Finding]:
    """The findings of one endpoint, for a stage that is about to ask it. Where the ledger holds
    answers to this stage, nothing stops: it may want no more than those, or resume."""
    found = _endpoint(who, endpoint)
    if any(f.level == "stop" for f in found):
        bill = (stage, label, endpoint.model.replace("/", "_"))  # as a bill is written
        bills = ledger.Ledger().spent
        if any((b.stage, b.label, b.model) == bill for b in bills):
            return [Finding("warning", f.where, f.what, f.do) for f in found if f.level != "ok"]
    return found


def _rehearsed(who: str, endpoint: Endpoint, as_used: Sequence[Endpoint]) -> list[Finding]:
    """The findings of one endpoint, and of a short question put as each of its users will."""
    found = _endpoint(who, endpoint)
    if all(finding.level == "ok" for finding in found):
        forms = {one.structured: one for one in as_used if isinstance(one, OpenAI)}
        for one in forms.values():
            found += _without(client.secret_of(one), rehearsal.findings(who, one))
    return list(dict.fromkeys(found))


def _named(whose: Sequence[str]) -> str:
    """Keys of params.yaml, what they begin with told once: llm.teacher, judge."""
    start = whose[0].partition(".")[0] + "."
    return ", ".join([whose[0], *(name.removeprefix(start) for name in whose[1:])])


def _place(endpoint: Endpoint) -> tuple[object, ...]:
    if isinstance(endpoint, OpenAI | Anthropic):
        named = endpoint.api_key_env, endpoint.tokenizer
        return endpoint.provider, endpoint.model, *endpoint.addresses, *named
    if isinstance(endpoint, InProcess):
        return (endpoint.model_dump_json(),)
    return endpoint.provider, endpoint.model


def _endpoint(who: str, endpoint: Endpoint) -> list[Finding]:
    if isinstance(endpoint, Embedded):
        return [Finding("ok", who, f"{endpoint.model}, simulated in this process")]
    if isinstance(endpoint, InProcess):
        from bezoar.llm import local

        try:
            local.prove(endpoint)
        except BadInput as error:
            return [Finding.of(who, error)]
        return [Finding("ok", who, f"{endpoint.model}, run in this process")]
    try:
        Room(endpoint).prove()
    except BadInput as error:
        return [Finding.of(who, error)]
    try:
        secret = client.secret_of(endpoint)
    except BadInput:
        what = f"${endpoint.api_key_env} is not set, the key for {endpoint.model}"
        do = f"export {endpoint.api_key_env}=..., or api_key_env: null where no key is wanted"
        return [Finding("stop", who, what, do)]
    asks = {url: partial(_serves, who, endpoint, url, secret) for url in endpoint.addresses}
    return _without(secret, together(asks, partial(_silent, who, "no answer")).values())


def _without(secret: str, findings: Iterable[Finding]) -> list[Finding]:
    """The findings without the key, which a server may have repeated."""
    mask = Mask(secret)
    return [replace(finding, what=mask.text(finding.what)) for finding in findings]


def _serves(who: str, endpoint: OpenAI | Anthropic, url: str, secret: str) -> Finding:
    """Whether the server at `url` has the model."""
    if isinstance(endpoint, Anthropic):
        models = f"{url}/v1/models"
        headers = {"anthropic-version": endpoint.api_version}
    else:
        models, headers = f"{url}/models", {}
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    listed = f"{models}?limit={LISTED}" if isinstance(endpoint, Anthropic) else models
    try:
        served = _names(web.get(listed, headers))
        alias = f"{models}/{urllib.parse.quote(endpoint.model, safe='')}"
        if endpoint.model not in served and not _known(alias, headers):
            return _others(who, endpoint, url, served)
    except urllib.error.HTTPError as error:
        return _refused(who, endpoint, url, error.code, headers)
    except TimeoutError:
        return Finding("warning", who, *web.busy(url))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError) and _here(url):
            # nothing listens: refused at once; what is full of connections lets one more wait
            return Finding("warning", who, *web.busy(url))
        return _silent(who, " ".join(str(reason).split()) or type(error).__name__, url)
    return Finding("ok", who, f"{url} serves {endpoint.model}")


def _here(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urllib.parse.urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _known(url: str, headers: dict[str, str]) -> bool:
    """Whether a model that is not listed is there: an alias is known by its name alone."""
    try:
        web.get(url, headers)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise
        return False
    return True


def _others(who: str, endpoint: OpenAI | Anthropic, url: str, served: list[str]) -> Finding:
    shown = ", ".join(served[:SHOWN]) + (f" and {len(served) - SHOWN} more" * (len(served) > SHOWN))
    what = f"{url} serves {shown or 'no model'}; wanted {endpoint.model}"
    return Finding("stop", who, what, "serve that one, or name one that is served in `model`")


def _refused(
    who: str, endpoint: OpenAI | Anthropic, url: str, status: int, headers: dict[str, str]
) -> Finding:
    versioned = f"{url}/v1"
    if (
        status == 404
        and isinstance(endpoint, OpenAI)
        and web.answers(f"{versioned}/models", headers)
    ):
        what = f"{url} knows no /models, and {versioned} does"
        return Finding("stop", who, what, f"base_url: {versioned}")
    if status in (404, 405, 501):
        what = f"{url} answers, and lists no models (HTTP {status})"
        do = f"see for yourself that it serves {endpoint.model}"
        return Finding("warning", who, what, do)
    if status in (401, 403):
        if endpoint.api_key_env is None:
            do = "name the variable that holds the key in api_key_env"
            return Finding("stop", who, f"{url} wants a key (HTTP {status})", do)
        what = f"{url} refuses the key in ${endpoint.api_key_env} (HTTP {status})"
        return Finding("stop", who, what, f"export a key for {endpoint.model} that is valid")
    what = f"{url} answers HTTP {status}"
    if status == 429 or status >= 500:
        return Finding("warning", who, what, "it may be busy or starting: a run waits and retries")
    return Finding("stop", who, what, "mend base_url")


def _silent(who: str, why: str, url: str) -> Finding:
    do = "start the server, mend base_url, or check the network"
    return Finding("stop", who, f"{url} does not answer ({why})", do)


def _names(document: Any) -> list[str]:
    rows = value_at(document, "data")
    if not isinstance(rows, list):
        raise ValueError("its list of models is none")
    return [str(value_at(row, "id")) for row in rows]
