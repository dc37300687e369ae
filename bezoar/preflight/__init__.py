"""What would stop a run, found before it starts: nothing is run, nothing is bought.

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
    """Look at what the stage `stage` (of the scheme, link or checkpoint `label`) wants and cannot
    do without; BadInput says what is missing. What may be missing is said on standard error. Free
    where models are embedded and the base is grown here: there is nothing to look for."""
    p = params.load()
    _stand_ins(p)
    # imported late: the embedded profile wants none of it
    if who := ASKS.get(stage):
        asked = p.llm.by_name(who)
        if all(isinstance(endpoint, Embedded) for endpoint in asked.values()):
            return
        from bezoar.preflight import endpoints

        found = [
            finding
            for name, endpoint in asked.items()
            for finding in endpoints.stage(f"llm.{name}", endpoint, stage, label)
        ]
    else:
        # a process that training was spread over: the one that started it has looked
        if isinstance(p.fetch.base, GrownBase) or "LOCAL_RANK" in os.environ:
            return
        from bezoar.preflight import holding

        found = holding.stage(p, stage, label)
    _tell(found)


def _stand_ins(p: Params) -> None:
    """Stop where invented rows would stand in for the user's own beside a real model."""
    if any(isinstance(getattr(p.fetch, name), Local) for name in p.sources):
        from bezoar.preflight import stand_ins

        stand_ins.check(p)


def free_checks(source: str) -> None:
    """Warn on standard error where the free checks of the rows would drop many of these seeds."""
    from bezoar.preflight import seeds

    finding = seeds.look(params.load(), source)
    _tell([finding] if finding else [])


def asked(who: str, endpoint: Endpoint, stage: str, label: str) -> None:
    """As `stage`, of an endpoint that params.yaml has at `who`, elsewhere than below `llm`."""
    from bezoar.preflight import endpoints

    _tell(endpoints.stage(who, endpoint, stage, label))


def _tell(found: "Iterable[Finding]") -> None:
    for finding in found:
        if finding.level == "stop":
            raise BadInput(finding.text)
        if finding.level == "warning":
            print(f"warning: {finding.text}", file=sys.stderr)
