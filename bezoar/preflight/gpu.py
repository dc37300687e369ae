"""The memory that each stage needs, beside the memory of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bezoar.params import Dpo, Params, Training
from bezoar.preflight.findings import Finding
from bezoar.preflight.machine import Machine
from bezoar.training.runs import memory
from bezoar.training.runs.memory import MARGIN, Need, Shape

GIB = 2**30
# Parameters. A smaller model fits anywhere and trains on any CPU in minutes.
SMALL = 50e6
# Parameters. Above, an epoch on a CPU takes days.
ON_A_CPU = 0.5e9
ROWS_ON_A_CPU = 8  # at once, where `auto` has no GPU's memory to go by (training/fitting.py)
# Tokens of the longest texts that the harness scores: RACE's passages have some 500 words.
LONGEST = 1024
QUESTION = 128  # tokens of an MT-Bench question, a turn
# Bytes that training/merge.py holds for a number of the matrix at hand, as (once, for each
# adapter). They are measured. peft's TIES sorts each change with its indices, and counts signs in
# 64 bits.
MERGING = {
    "linear": (8, 12),
    "ties": (17, 21),
    "dare_linear": (8, 12),
    "dare_ties": (17, 21),
    "slerp": (16, 8),
}


@dataclass(frozen=True)
class Fit:
    """A stage's need for `rows` at once, the most that fit, or one row where not one does.

    `have`: bytes that it may have, of the GPU's memory (a merge: of the machine's). None where
        there is no GPU for it.
    """

    stage: str
    need: Need
    rows: int
    have: int | None
    checkpointing: bool = False

    @property
    def fits(self) -> bool:
        """Say whether it does, or would if the GPU were large enough."""
        return self.have is None or self.need.total <= MARGIN * self.have


def fits(p: Params, shape: Shape, machine: Machine) -> list[Fit]:
    """Return a fit for each stage that holds a model, in the order of the recipe."""
    links = [f"sft {name}" for name in p.chain]
    merges = [f"merge {name}" for name in p.merges]
    instances_of = {"dpo": p.aligned, "lm_eval": p.evaluated, "mt_answer": p.checkpoints}
    others = [stage for stage, instances in instances_of.items() if instances]
    return [fit(p, stage, shape, machine) for stage in [*links, *merges, *others]]


def fit(p: Params, stage: str, shape: Shape, machine: Machine) -> Fit:
    """Return the fit of one stage, as "sft lamini", "merge sft", "dpo", "lm_eval" or
    "mt_answer"."""
    kind, _, name = stage.partition(" ")
    if kind in ("sft", "dpo"):
        return _training_fit(p, name, shape, machine)
    have, c = _memory_to_use(shape, machine)
    if kind == "merge":
        adapters, (per_number, per_adapter) = len(p.merges[name].adapters), MERGING[p.merge.method]
        matrix = (per_number + per_adapter * adapters) * shape.hidden * shape.intermediate
        embeddings = 4 * shape.vocab * shape.hidden
        adapter_bytes = 4 * shape.lora_parameters(p.sft.lora_r, p.sft.target_modules) * adapters
        return Fit(stage, Need(adapter_bytes, 0, 0, max(matrix, embeddings)), 1, machine.ram)
    if kind == "lm_eval":
        rows, tokens = p.lm_eval.batch_size, min(LONGEST, shape.positions)
        need = memory.inference(shape, bytes_per_weight=c, rows=rows, tokens=tokens)
    else:
        rows = p.mt_answer.batch_size
        tokens = min(2 * (p.mt_answer.max_new_tokens + QUESTION), shape.positions)
        need = memory.inference(shape, bytes_per_weight=c, rows=rows, tokens=tokens)
        # Generation computes the logits of the last token alone.
        logits = 2 * shape.vocab * c * rows * tokens
        need = Need(need.weights, 0, 0, need.activations - logits)
    return Fit(stage, need, rows, have)


def _training_fit(p: Params, link: str, shape: Shape, machine: Machine) -> Fit:
    """Return the fit of a link of the chain, or of dpo ("")."""
    amount: Training | Dpo = p.sft.links[link] if link else p.dpo
    kind: memory.Kind = p.chain[link].weights if link else "dpo"
    processes, sharded = spread(p, machine)
    have, c = _memory_to_use(shape, machine)
    common: dict[str, Any] = {
        "tokens": min(tokens(amount), shape.positions),
        "optimizer": p.sft.optimizer if link else p.dpo.optimizer,
        "lora_r": p.sft.lora_r,
        "target_modules": p.sft.target_modules,
        "compute_bytes": c,
        "processes": processes,
        "sharded": sharded and kind != "adapter",
        "padded": not shape.rows_alone,
    }

    def split(rows: int, checkpointing: bool) -> Fit:
        need = memory.need(shape, kind, rows=rows, checkpointing=checkpointing, **common)
        return Fit(f"sft {link}" if link else "dpo", need, rows, have, checkpointing)

    share, fixed = max(1, amount.batch_size // processes), amount.micro_batch_size
    # One row, with checkpointing, is the least that a step can do with.
    least = split(1, True)
    if have is None or not least.fits:
        return least
    if fixed != "auto":
        # Checkpointing computes activations twice, so it is only used where the rows do not fit
        # without it.
        plain, checkpointed = split(fixed, False), split(fixed, True)
        return plain if plain.fits else checkpointed
    if machine.gpu:
        best = memory.micro_batch(shape, kind, batch=share, free=have, **common)
        return split(*best) if best else least
    return split(max(n for n in range(1, ROWS_ON_A_CPU + 1) if share % n == 0), False)


def tokens(amount: Training | Dpo) -> int:
    """Return the most tokens that a row of training holds."""
    if isinstance(amount, Dpo):
        return amount.max_prompt_tokens + amount.max_answer_tokens
    return amount.max_length


def _memory_to_use(shape: Shape, machine: Machine) -> tuple[int | None, int]:
    """Return (bytes that a stage may have, bytes of the type that it computes in). The first is
    None where there is no GPU and a CPU will not do, and the second is then a GPU's."""
    if machine.gpu:
        return machine.gpu.free, 2
    return (None, 2) if shape.parameters > ON_A_CPU else (machine.ram, 4)


def spread(p: Params, machine: Machine) -> tuple[int, bool]:
    """Return (processes, whether they cut up the weights between them), as launch/`launch`.yaml
    says."""
    if p.launch is None:
        return 1, False
    file = Path("launch", f"{p.launch}.yaml")
    chosen = yaml.safe_load(file.read_text(encoding="utf-8"))
    # What the file leaves open the launcher takes from the machine.
    processes = chosen.get("num_processes", machine.gpu.count if machine.gpu else 1)
    return processes, chosen["distributed_type"] == "FSDP"


def check(shape: Shape, machine: Machine, stage_fits: Sequence[Fit]) -> list[Finding]:
    """Return a finding for the machine, and one for each stage that does not fit."""
    billions = f"{shape.parameters / 1e9:.2g} billion parameters"
    largest = max(stage_fits, key=lambda fit: fit.need.total)
    most = largest.need.total
    if machine.gpu is None:
        if any(fit.have is None for fit in stage_fits):
            do = f"use a GPU of about {most / MARGIN / GIB:.0f} GiB, or a smaller fetch.base"
            none = f"none here ({machine.why})" if machine.why else "none here"
            return [Finding("stop", "GPU", f"{none}, and the base has {billions}", do)]
        if most > MARGIN * machine.ram:
            message = f"{machine.ram / GIB:.0f} GiB, and {largest.stage} needs {most / GIB:.0f}"
            do = "use a GPU or a machine with more, fewer rows at once, or a smaller base"
            return [Finding("stop", "memory", message, do)]
        if shape.parameters > SMALL and not largest.stage.startswith("merge"):
            message = f"none here; {billions} train on a CPU, slowly"
            return [Finding("warning", "GPU", message, "a GPU is some hundred times as fast")]
        return [Finding("ok", "GPU", "none here, none wanted: the base is small")]
    gpu = machine.gpu
    several = f"{gpu.count} x " if gpu.count > 1 else ""
    summary = f"{several}{gpu.name}, {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB free"
    findings = [Finding("ok", "GPU", summary)]
    for fit in stage_fits:
        if fit.have is not None and not fit.fits:
            findings.append(_finding(fit, fit.have))
    return findings


def _finding(fit: Fit, free: int) -> Finding:
    if fit.stage.startswith("merge"):
        message = f"needs {fit.need.total / GIB:.1f} GiB, and the machine has {free / GIB:.1f}"
        return Finding("stop", fit.stage, message, "use a machine with more memory")
    batch = f"{fit.rows} row{'s' * (fit.rows > 1)} at once"
    message = f"needs {fit.need.total / GIB:.1f} GiB for {batch}, and {free / GIB:.1f} are free"
    kind, _, name = fit.stage.partition(" ")
    if kind in ("lm_eval", "mt_answer"):
        # The longest texts are a guess, and many are shorter.
        return Finding("warning", fit.stage, message, f"lower {kind}.batch_size")
    do = f"use a GPU of about {fit.need.total / MARGIN / GIB:.0f} GiB"
    # A number that the user set. Training tries it.
    if fit.rows > 1:
        key = f"sft.links.{name}" if name else "dpo"
        return Finding("warning", fit.stage, message, f"set {key}.micro_batch_size: auto")
    return Finding(
        "stop",
        fit.stage,
        message,
        f"{do}, shorter rows, {kind}.optimizer: paged_adamw_8bit, or launch: fsdp on several GPUs",
    )
