"""The check of the machine that a stage which holds a model makes as it starts."""

from collections.abc import Callable
from pathlib import Path

from bezoar.params import Params
from bezoar.preflight import disk, gpu, machine
from bezoar.preflight.findings import Finding
from bezoar.rows.files import BadInput
from bezoar.training.runs import counting
from bezoar.training.runs.memory import Shape


def stage(p: Params, stage: str, label: str) -> list[Finding]:
    """Return the findings of sft, merge, dpo, lm_eval or mt_answer. A model that is small has none,
    and neither has one of unknown shape: the stage itself says what is wrong with it."""
    model_of: dict[str, Callable[[], str]] = {
        "sft": lambda: p.chain[label].base,
        "merge": lambda: p.merges[label].base,
        "dpo": lambda: p.aligned[label].start,
        "lm_eval": lambda: p.evaluated[label].base,
        "mt_answer": lambda: p.checkpoints[label].model,
    }
    try:
        shape = counting.shape(Path("models", model_of[stage](), "config.json"))
        return _findings(p, stage, label, shape)
    except BadInput:
        return []


def _findings(p: Params, stage: str, label: str, shape: Shape) -> list[Finding]:
    if shape.parameters < gpu.SMALL:
        return []
    findings = []
    if stage in ("merge", "dpo") or (stage == "sft" and p.chain[label].weights == "all"):
        out = Path("models", stage, label)
        name = "dpo" if stage == "dpo" else f"{stage} {label}"
        findings += disk.stage(p, name, out, shape, machine.cache(Path()))
    # With `launch` each process of training looks at its own GPU.
    if p.launch is None or stage not in ("sft", "dpo"):
        host = machine.look()
        name = f"{stage} {label}" if stage in ("sft", "merge") else stage
        findings += gpu.check(shape, host, [gpu.fit(p, name, shape, host)])
    return findings
