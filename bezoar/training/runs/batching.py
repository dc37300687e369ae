"""How a step's batch is worked off: rows at once, so that they fit into a GPU's memory."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bezoar.models import loading
from bezoar.params import Dpo, Sft, Training
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.training.runs import counting, launching, memory

SMALL = 8  # rows at once, at most, where there is no GPU whose memory could tell
GIB = 2**30


@dataclass(frozen=True)
class Split:
    """Rows at once in each process, and whether only the layers' inputs are kept of the forward
    pass, which is then run again for the backward pass (checkpointing)."""

    rows: int
    checkpointing: bool


def split(
    label: str,
    folder: Path,
    device: loading.Device,
    *,
    model: Path,
    kind: memory.Kind,
    how: Sft | Dpo,
    amount: Training | Dpo,
    tokens: int,
) -> Split:
    """How to work off `amount.batch_size` rows (dpo: pairs) of up to `tokens` tokens on the machine
    at hand; to be asked before `model` is loaded.

    On a GPU `auto` follows from the free memory; elsewhere it is SMALL. What a GPU was found to
    hold is kept in `folder`, and a resumed run goes on with it: other rows at once add up in
    another order. BadInput: not one row fits, or the batch is no multiple of processes and rows.
    """
    who, fixed = launching.processes(), amount.micro_batch_size
    share, over = divmod(amount.batch_size, who.count)
    if over or (fixed != "auto" and share % fixed):
        rows = "" if fixed == "auto" else f" times micro_batch_size {fixed}"
        raise BadInput(
            f"{label}: batch_size {amount.batch_size} is no multiple of {who.count} processes"
            f"{rows}; change one of them"
        )
    if device.name != "cuda":
        small = max(n for n in range(1, SMALL + 1) if share % n == 0)
        return Split(small if fixed == "auto" else fixed, False)
    kept = folder / "split.json"
    found: Any = files.read_json(kept) if who.first and kept.exists() else None
    if found := launching.gathered(found, cpu=False)[0]:
        return Split(**found)
    fits = _fitting(
        label, device, model, kind=kind, how=how, fixed=fixed, share=share, tokens=tokens
    )
    if who.first:
        files.write_json(kept, asdict(fits))
    return fits


def _fitting(
    label: str,
    device: loading.Device,
    model: Path,
    *,
    kind: memory.Kind,
    how: Sft | Dpo,
    fixed: Any,
    share: int,
    tokens: int,
) -> Split:
    """The split of `share` rows that the free memory of the GPU allows, said in a line."""
    import torch

    # the fullest of the GPUs decides for all
    free = min(launching.gathered(torch.cuda.mem_get_info(device.index)[0], cpu=False))
    try:
        shape = counting.shape(model / "config.json")
        return _counted(
            label,
            free,
            device,
            shape=shape,
            kind=kind,
            how=how,
            fixed=fixed,
            share=share,
            tokens=tokens,
        )
    except BadInput:
        if fixed == "auto":
            raise
        return Split(fixed, True)


def _counted(
    label: str,
    free: int,
    device: loading.Device,
    *,
    shape: memory.Shape,
    kind: memory.Kind,
    how: Sft | Dpo,
    fixed: Any,
    share: int,
    tokens: int,
) -> Split:
    """The split that fits into `free` bytes, by what a step of a model of `shape` takes."""
    who = launching.processes()
    known: dict[str, Any] = {
        "tokens": min(tokens, shape.positions),
        "optimizer": how.optimizer,
        "lora_r": how.lora_r,
        "target_modules": how.target_modules,
        "compute_bytes": device.bytes,
        "processes": who.count,
        "sharded": who.sharded,
        "padded": not (device.varlen and shape.rows_alone),
    }
    if fixed == "auto":
        found = memory.micro_batch(shape, kind, batch=share, free=free, **known)
    else:
        whole = memory.need(shape, kind, rows=fixed, checkpointing=False, **known)
        found = fixed, whole.total > memory.MARGIN * free
    rows, checkpointing = found or (1, True)
    wanted = memory.need(shape, kind, rows=rows, checkpointing=checkpointing, **known).total
    sums = f"{wanted / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free"
    if not found:
        raise BadInput(
            f"{label}: not one row of {known['tokens']} tokens fits the GPU ({sums}); shorten the "
            "rows, take an optimizer with less state, or shard it over several GPUs (launch: fsdp)"
        )
    if who.first:
        way = "with" if checkpointing else "without"
        print(f"{label}: {rows} rows at once, {way} checkpointing ({sums})", file=sys.stderr)
    return Split(rows, checkpointing)
