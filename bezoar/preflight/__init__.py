"""A look at everything that would stop a run, before it starts: nothing is run, nothing is bought.

`python -m bezoar.preflight [PROFILE]` (`make preflight PROFILE=paper`) looks at everything a
profile wants: keys, endpoints, the GPU, disks, the hub, the budget. It says what time and money to
expect. A server that costs nothing is put one short question. `stage` looks at what one stage
wants, as that stage starts. It changes no result.
"""

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bezoar import params
from bezoar.params import Embedded, Endpoint, GrownBase, Local, Params
from bezoar.rows.files import BadInput

if TYPE_CHECKING:
    from bezoar.preflight.findings import Finding

ASKS = {
    "generate": "teacher",
    "judge": "judge",
    "mt_grade": "grader",
    "mt_compare": "grader",
    "agreement": "grader",
}


def stage(stage: str, label: str = "") -> None:
    """Look at everything that the stage `stage` (of the scheme, link or checkpoint `label`) cannot
    do without. BadInput says what is missing, and warnings go to standard error.

    It looks for nothing where models are embedded and the base is grown here.
    """
    p = params.load()
    _check_stand_ins(p)
    # Imported late, because the embedded profile needs none of it.
    if role := ASKS.get(stage):
        by_key = p.llm.by_name(role)
        if all(isinstance(endpoint, Embedded) for endpoint in by_key.values()):
            return
        from bezoar.preflight import endpoints

        findings = [
            finding
            for name, endpoint in by_key.items()
            for finding in endpoints.stage(f"llm.{name}", endpoint, stage, label)
        ]
    else:
        # In a process that training was spread over there is nothing to do: the one that started it
        # has looked.
        if isinstance(p.fetch.base, GrownBase) or "LOCAL_RANK" in os.environ:
            return
        from bezoar.preflight import holding

        findings = holding.stage(p, stage, label)
    _report(findings)


def _check_stand_ins(p: Params) -> None:
    """Stop where invented rows would stand in for the user's own beside a real model."""
    if any(isinstance(getattr(p.fetch, name), Local) for name in p.sources):
        from bezoar.preflight import stand_ins

        stand_ins.check(p)


def free_checks(source: str) -> None:
    """Warn on standard error where the free checks of the rows would drop many of these seeds."""
    from bezoar.preflight import seeds

    finding = seeds.look(params.load(), source)
    _report([finding] if finding else [])


def stage_endpoint(key: str, endpoint: Endpoint, stage: str, label: str) -> None:
    """Look, as `stage` does, at an endpoint that the parameters have at `key`, elsewhere than below
    `llm`."""
    from bezoar.preflight import endpoints

    _report(endpoints.stage(key, endpoint, stage, label))


def _report(findings: "Iterable[Finding]") -> None:
    for finding in findings:
        if finding.level == "stop":
            raise BadInput(finding.text)
        if finding.level == "warning":
            print(f"warning: {finding.text}", file=sys.stderr)
