"""Models behind HTTP: is the key there, does each address answer, does it serve the model.

Only the list of models is asked for, which costs nothing. A server that is free is also put one
short question in the form that the stages will use. A feature that it lacks is found here.
"""

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
    """Return a finding for each key, each address and each model folder that the endpoints name,
    those of the further `models` among them."""
    by_key: dict[str, Endpoint] = {
        f"llm.{name}": endpoint
        for role in Endpoints.model_fields
        for name, endpoint in llm.by_name(role).items()
    }
    for name, model in models.items():
        if isinstance(model, FurtherServed):
            by_key[f"models.{name}"] = model.endpoint
    users: dict[tuple[object, ...], list[str]] = {}
    for key, endpoint in by_key.items():
        users.setdefault(_identity(endpoint), []).append(key)
    checks = {
        keys: partial(_rehearse, _join_keys(keys), by_key[keys[0]], [by_key[key] for key in keys])
        for keys in map(tuple, users.values())
    }
    in_process = {keys for keys in checks if isinstance(by_key[keys[0]], InProcess)}
    waiting = {keys: check for keys, check in checks.items() if keys not in in_process}
    late = rehearsal.SECONDS + 2 * SECONDS
    results = together(waiting, lambda keys: [_silent(keys[0], "no answer", "its server")], late)
    # A model in this process is looked at here, without a limit: loading a tokenizer takes as long
    # as it takes.
    results |= {keys: checks[keys]() for keys in in_process}
    results = {keys: results[keys] for keys in checks}
    return [finding for findings in results.values() for finding in findings]


def stage(key: str, endpoint: Endpoint, stage: str, label: str) -> list[Finding]:
    """Return the findings of one endpoint, for a stage that is about to ask it. Nothing stops if
    the ledger holds answers to this stage: it may want no more than those, or resume."""
    findings = _look(key, endpoint)
    if any(f.level == "stop" for f in findings):
        # The ledger writes the names of models so.
        bill = (stage, label, endpoint.model.replace("/", "_"))
        bills = ledger.Ledger().spent
        if any((b.stage, b.label, b.model) == bill for b in bills):
            return [
                Finding("warning", f.where, f.message, f.do) for f in findings if f.level != "ok"
            ]
    return findings


def _rehearse(key: str, endpoint: Endpoint, as_used: Sequence[Endpoint]) -> list[Finding]:
    """Return the findings of one endpoint, and of a short question put as each of its users
    will."""
    findings = _look(key, endpoint)
    if all(finding.level == "ok" for finding in findings):
        # Roles with the same form of request share one question.
        forms = {form.structured: form for form in as_used if isinstance(form, OpenAI)}
        for form in forms.values():
            findings += _without(client.secret_of(form), rehearsal.findings(key, form))
    return list(dict.fromkeys(findings))


def _join_keys(keys: Sequence[str]) -> str:
    """Return keys of a profile with their first part written once: llm.teacher, judge."""
    start = keys[0].partition(".")[0] + "."
    return ", ".join([keys[0], *(name.removeprefix(start) for name in keys[1:])])


def _identity(endpoint: Endpoint) -> tuple[object, ...]:
    if isinstance(endpoint, OpenAI | Anthropic):
        settings = endpoint.api_key_env, endpoint.tokenizer
        return endpoint.provider, endpoint.model, *endpoint.addresses, *settings
    if isinstance(endpoint, InProcess):
        return (endpoint.model_dump_json(),)
    return endpoint.provider, endpoint.model


def _look(key: str, endpoint: Endpoint) -> list[Finding]:
    if isinstance(endpoint, Embedded):
        return [Finding("ok", key, f"{endpoint.model}, simulated in this process")]
    if isinstance(endpoint, InProcess):
        from bezoar.llm import local

        try:
            local.prove(endpoint)
        except BadInput as error:
            return [Finding.from_error(key, error)]
        return [Finding("ok", key, f"{endpoint.model}, run in this process")]
    try:
        Room(endpoint).prove()
    except BadInput as error:
        return [Finding.from_error(key, error)]
    try:
        secret = client.secret_of(endpoint)
    except BadInput:
        message = f"${endpoint.api_key_env} is not set, the key for {endpoint.model}"
        do = f"export {endpoint.api_key_env}=..., or api_key_env: null where no key is wanted"
        return [Finding("stop", key, message, do)]
    asks = {url: partial(_ask_for_models, key, endpoint, url, secret) for url in endpoint.addresses}
    return _without(secret, together(asks, partial(_silent, key, "no answer")).values())


def _without(secret: str, findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without the key, which a server may have repeated."""
    mask = Mask(secret)
    return [replace(finding, message=mask.text(finding.message)) for finding in findings]


def _ask_for_models(key: str, endpoint: OpenAI | Anthropic, url: str, secret: str) -> Finding:
    """Return the finding on whether the server at `url` has the model."""
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
        if endpoint.model not in served and not _is_served(alias, headers):
            return _not_served(key, endpoint, url, served)
    except urllib.error.HTTPError as error:
        return _refused(key, endpoint, url, error.code, headers)
    except TimeoutError:
        return Finding("warning", key, *web.busy(url))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError) and _is_local(url):
            # A port on which nothing listens refuses at once. A timeout says that the server is
            # there, with all of its connections taken.
            return Finding("warning", key, *web.busy(url))
        return _silent(key, " ".join(str(reason).split()) or type(error).__name__, url)
    return Finding("ok", key, f"{url} serves {endpoint.model}")


def _is_local(url: str) -> bool:
    """Say whether an address is this machine's own."""
    host = urllib.parse.urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _is_served(url: str, headers: dict[str, str]) -> bool:
    """Say whether a model that is not listed is there: a server knows an alias by its name
    alone."""
    try:
        web.get(url, headers)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise
        return False
    return True


def _not_served(key: str, endpoint: OpenAI | Anthropic, url: str, served: list[str]) -> Finding:
    names = ", ".join(served[:SHOWN]) + (f" and {len(served) - SHOWN} more" * (len(served) > SHOWN))
    message = f"{url} serves {names or 'no model'}; wanted {endpoint.model}"
    return Finding("stop", key, message, "serve that one, or name one that is served in `model`")


def _refused(
    key: str, endpoint: OpenAI | Anthropic, url: str, status: int, headers: dict[str, str]
) -> Finding:
    versioned = f"{url}/v1"
    if (
        status == 404
        and isinstance(endpoint, OpenAI)
        and web.answers(f"{versioned}/models", headers)
    ):
        message = f"{url} knows no /models, and {versioned} does"
        return Finding("stop", key, message, f"base_url: {versioned}")
    if status in (404, 405, 501):
        message = f"{url} answers, and lists no models (HTTP {status})"
        do = f"see for yourself that it serves {endpoint.model}"
        return Finding("warning", key, message, do)
    if status in (401, 403):
        if endpoint.api_key_env is None:
            do = "name the variable that holds the key in api_key_env"
            return Finding("stop", key, f"{url} wants a key (HTTP {status})", do)
        message = f"{url} refuses the key in ${endpoint.api_key_env} (HTTP {status})"
        return Finding("stop", key, message, f"export a key for {endpoint.model} that is valid")
    message = f"{url} answers HTTP {status}"
    if status == 429 or status >= 500:
        return Finding(
            "warning", key, message, "it may be busy or starting: a run waits and retries"
        )
    return Finding("stop", key, message, "mend base_url")


def _silent(key: str, why: str, url: str) -> Finding:
    do = "start the server, mend base_url, or check the network"
    return Finding("stop", key, f"{url} does not answer ({why})", do)


def _names(document: Any) -> list[str]:
    rows = value_at(document, "data")
    if not isinstance(rows, list):
        raise ValueError("its list of models is none")
    return [str(value_at(row, "id")) for row in rows]
