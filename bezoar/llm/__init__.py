"""Language models as functions: `connect` returns an `Ask`, and `run_jobs` does many jobs with it.

Each protocol has a module of its own. A stage asks through llm/asker.py:

    asker = Asker(params, "generate", scheme, params.llm.teacher)
    run = asker.run(work, jobs, name=str)
    asker.write(run)
"""

import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bezoar.llm.run import Run, run_jobs
from bezoar.params import Anthropic, Embedded, Endpoint, InProcess, Params
from bezoar.rows.files import read_json
from bezoar.rows.records import Ask

__all__ = ["ENDPOINT", "Run", "connect", "endpoint_of", "run_jobs"]

ENDPOINT = "endpoint.json"  # in the folder of a model that is served elsewhere


def endpoint_of(folder: Path) -> Endpoint | None:
    """Return the endpoint that serves the model at `folder`, None where its weights lie there."""
    if not (folder / ENDPOINT).exists():
        return None
    endpoint: Endpoint = TypeAdapter(Endpoint).validate_python(read_json(folder / ENDPOINT))
    return endpoint


def connect(
    endpoint: Endpoint,
    params: Params | None = None,
    stage: str = "",
    label: str = "",
    schema: dict[str, Any] | None = None,
) -> Ask:
    """Connect to the model that `endpoint` names, with the ledger in between.

    Its dollars are charged to `stage` and `label` (a scheme or checkpoint) of the run that `params`
    name. The budget_usd of `params` caps them, and without `params` there is no cap. `schema` is
    the JSON schema of every reply, for an endpoint that is `structured`. BadInput: the key's
    variable is not set, or a cap could not be kept.
    """
    if isinstance(endpoint, Embedded):
        from bezoar.llm import embedded

        return embedded.connect(endpoint.model)
    from bezoar.llm import budget
    from bezoar.llm.ledger import Bill, Ledger

    ledger = Ledger()
    bill = Bill(budget.run_id(params) if params else "", stage, label, endpoint.model)
    caps = (params.budget_usd.stage, params.budget_usd.run) if params else (None, None)
    purse = budget.Purse(ledger, bill, *caps)
    budget.check(endpoint, purse)
    if isinstance(endpoint, InProcess):
        from bezoar.llm import local

        return local.Client(endpoint, ledger, purse)
    from bezoar.llm import anthropic, batch, client, openai

    secret = client.secret_of(endpoint)
    wire = (
        anthropic.Wire(endpoint, secret)
        if isinstance(endpoint, Anthropic)
        else openai.Wire(endpoint, secret, schema)
    )
    if endpoint.mode == "live" and (left := batch.count_unread(wire)):
        print(
            f"warning: llm: {endpoint.model}: {left} requests are in a batch of another run; where "
            "that has ended mode: live pays them again, and mode: batch takes them up",
            file=sys.stderr,
        )
    make = batch.Client if endpoint.mode == "batch" else client.Client
    return make(endpoint, wire, ledger, purse, secret)
