"""The rows that the world invents in place of files that a user did not give, beside a real model.

Rows about invented animals do no harm in a run that is simulated throughout. A real base would be
trained on them, and a real teacher, judge or grader would be paid to read them.
"""

from bezoar.params import Embedded, HubBase, Local, LocalBase, Params
from bezoar.preflight.findings import Finding
from bezoar.rows.files import BadInput
from bezoar.sources import local

WAYS = (
    "put your own there (local/README.md); or end after SFT, with what you have: `make local "
    "DATA=folder STOP=sft`, or `python -m bezoar.recipe stop sft`; or leave out what uses them: "
    "`python -m bezoar.recipe without {names}`; or, for a trial, `stand_ins: allow` in params.yaml"
)


def absent(p: Params) -> list[str]:
    """Return the sources that this recipe uses and whose folder below local/ holds no file."""
    return [
        name
        for name in p.sources
        if isinstance(source := getattr(p.fetch, name), Local)
        and source.otherwise is not None
        and not local.list_files(name)
    ]


def real(p: Params) -> list[str]:
    """Return the names of the real models in this run: the base, and those that it asks."""
    base = p.fetch.base
    base_is_real = isinstance(base, HubBase) or (
        isinstance(base, LocalBase) and bool(local.list_files("base"))
    )
    users = {"teacher": p.schemes.by_name, "judge": p.schemes.by_name, "grader": p.checkpoints}
    return (["base"] if base_is_real else []) + [
        role
        for role, instances in users.items()
        if instances and any(not isinstance(e, Embedded) for e in p.llm.by_name(role).values())
    ]


def findings(p: Params) -> list[Finding]:
    """Return a finding where something stands in beside a real model."""
    names, beside = absent(p), real(p)
    if not names or not beside:
        return []
    folders = ", ".join(f"local/{name}" for name in names)
    message = (
        f"{'hold' if len(names) > 1 else 'holds'} no file, and rows that this project invents "
        f"would stand in, beside a real {' and '.join(beside)}"
    )
    ways = WAYS.format(names=" ".join(names))
    return [Finding("stop" if p.stand_ins == "stop" else "warning", folders, message, ways)]


def check(p: Params) -> None:
    """Stop where something invented would stand in beside a real model. BadInput says the ways
    out."""
    for finding in findings(p):
        if finding.level == "stop":
            raise BadInput(finding.text)
