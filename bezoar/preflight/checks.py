"""All checks of one profile, side by side where they wait for others."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bezoar.params import FURTHER, GrownBase, LocalBase, Params, unknown_tasks
from bezoar.preflight import (
    bases,
    data,
    disk,
    endpoints,
    expected,
    forecast,
    gpu,
    machine,
    prompts,
    seeds,
    stand_ins,
)
from bezoar.preflight.data import Looked
from bezoar.preflight.expected import Duration
from bezoar.preflight.findings import Finding
from bezoar.preflight.forecast import Row
from bezoar.preflight.gpu import Fit
from bezoar.preflight.machine import Machine
from bezoar.rows.files import BadInput
from bezoar.training.runs import counting
from bezoar.training.runs.counting import Uncounted
from bezoar.training.runs.memory import Shape

FORECAST_SOURCES = ("dolly", "flan", "topics", "mt_bench")  # the sources that the forecast reads
# Bytes a weight of a base whose files' size is not known. Most are published so.
FLOAT16 = 2


@dataclass(frozen=True)
class Preflight:
    """The findings of a profile, by heading, and the figures behind them.

    `forecast_rows`: [] where the calls could not be planned.
    `estimated`: the forecast is made before its seeds are fetched.
    `fits`, `training`: [] where the base is small, or its shape is not known.
    """

    profile: str
    findings: dict[str, list[Finding]]
    machine: Machine
    forecast_rows: Sequence[Row]
    estimated: bool
    fits: Sequence[Fit]
    asking: Sequence[Duration]
    training: Sequence[Duration]
    answering: Sequence[Duration]

    def count(self, level: str) -> int:
        """Count the findings of a level."""
        return sum(f.level == level for group in self.findings.values() for f in group)


def preflight(p: Params, host: Machine | None = None) -> Preflight:
    """Look at everything that the profile of `p` wants, on `host` (None: this machine). It takes
    seconds. Nothing is run, nothing is bought."""
    first = [Finding("ok", "parameters", "valid, under every profile")]
    first += [Finding("stop", f.where, *f.message.split("; ", 1)) for f in unknown_tasks(p)]
    if p.launch and not (launch := Path("launch", f"{p.launch}.yaml")).exists():
        first.append(Finding("stop", "launch", f"there is no {launch}", "name a file of launch/"))
        # The checks below go on as if training ran in one process.
        p = p.model_copy(update={"launch": None})
    with ThreadPoolExecutor() as pool:
        # Both wait for servers, while this thread looks at the machine and plans the calls.
        serving, looking = pool.submit(endpoints.check, p.llm, p.models), pool.submit(data.look, p)
        host = host or machine.look()
        estimated = not all(data.fetched(p, name) for name in FORECAST_SOURCES)
        try:
            forecast_rows = (
                forecast.estimate(p) if estimated else forecast.forecast(p, data.FETCHED)
            )
            budget = [*expected.money(p, forecast_rows), *expected.too_long(p, forecast_rows)]
        except BadInput as error:
            forecast_rows, budget = [], [Finding.from_error("forecast", error)]
        sources = looking.result()
        first += [*serving.result(), *prompts.findings()]
    base = sources.get("base")
    rehearsed = bases.findings(p, base)
    fits: list[Fit] = []
    try:
        shape = _base_shape(p, base)
    except BadInput as error:
        message = f"what it needs is not known yet ({str(error).removeprefix('error: ')})"
        memory = [Finding("warning", "base", message)]
        if base and base.config:
            memory = [_uncounted_finding(p, host, error)]
        room = []
    else:
        try:
            needs = gpu.fits(p, shape, host)
            memory = gpu.check(shape, host, needs)
        # The memory is not known then. The disks can be checked all the same.
        except Uncounted as error:
            needs, memory = [], [_uncounted_finding(p, host, error)]
        if shape.parameters > gpu.SMALL:
            fits = needs
        size = (base.size if base else 0) or FLOAT16 * shape.parameters
        cache = machine.cache(Path())
        downloads = sum(looked.fetch for looked in sources.values())
        room = [Finding("ok", "DVC", f"{cache.folder}: files get into the tree by {cache.link}")]
        size += _other_bytes(sources)
        room += disk.check(disk.rooms(p, shape, size, downloads, cache), cache)
    return Preflight(
        profile=p.profile,
        findings={
            "Params, and models that are asked": first,
            "Sources": [
                *(looked.finding for looked in sources.values()),
                *stand_ins.findings(p),
                *seeds.findings(p),
                *rehearsed,
            ],
            "Memory": memory,
            "Disks": room,
            "Budget": budget,
        },
        machine=host,
        forecast_rows=forecast_rows,
        estimated=estimated,
        fits=fits,
        asking=expected.asking(p, forecast_rows),
        training=expected.training(p, shape, host, fits, forecast_rows)
        if fits and forecast_rows
        else [],
        answering=expected.answering(p) if fits else [],
    )


def _other_bytes(sources: Mapping[str, Looked]) -> int:
    """Return the bytes of the models that stand beside ours. A model that lies there already counts
    with its size on the disk."""
    further = {name: looked for name, looked in sources.items() if name.startswith(FURTHER)}
    return sum(
        looked.size or machine.size(Path("models", name)) for name, looked in further.items()
    )


def _any_auto(p: Params) -> bool:
    """Say whether some training is to find out by itself how many rows fit."""
    links = [link.micro_batch_size for link in p.sft.links.values()]
    return "auto" in (*links, p.dpo.micro_batch_size)


def _uncounted_finding(p: Params, host: machine.Machine, error: BadInput) -> Finding:
    """Return the finding of a base whose memory cannot be counted. It is a stop where training on a
    GPU is to find out how many rows fit, since it would count in the same way."""
    finding = Finding.from_error("base", error)
    return finding if host.gpu and _any_auto(p) else replace(finding, level="warning")


def _base_shape(p: Params, base: Looked | None) -> Shape:
    """Return the base's shape, as far as it can be had. BadInput says why it cannot."""
    if base and base.config:
        return counting.shape(base.config)
    settings = p.fetch.base
    grown = settings.otherwise if isinstance(settings, LocalBase) else settings
    if not isinstance(grown, GrownBase) or (base and base.finding.level != "ok"):
        raise BadInput("its config.json could not be had")
    return Shape(
        hidden=grown.hidden_size,
        intermediate=grown.intermediate_size,
        layers=grown.layers,
        heads=grown.heads,
        kv_heads=grown.heads,
        head_dim=grown.hidden_size // grown.heads,
        vocab=grown.vocab_size,
        positions=grown.positions,
        tied=True,  # as bezoar/sources/pretraining.py grows it
    )
