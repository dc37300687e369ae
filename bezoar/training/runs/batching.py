"""Splits a step's batch, so that the rows that are computed at once fit into a GPU's memory."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bezoar.models import loading
from bezoar.params import Dpo, Sft, Training
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.training.runs import counting, launching, memory

# Rows at once, at most, where there is no GPU whose memory could decide.
SMALL = 8
GIB = 2**30


@dataclass(frozen=True)
class Split:
    """Rows at once in each process, with or without checkpointing.

    Checkpointing keeps the inputs of the layers alone from the forward pass, and runs the layers
    again for the backward pass.
    """

    rows: int
    checkpointing: bool


def split(
    label: str,
    folder: Path,
    device: loading.Device,
    *,
    model: Path,
    kind: memory.Kind,
    settings: Sft | Dpo,
    amount: Training | Dpo,
    tokens: int,
) -> Split:
    """Return how to work off `amount.batch_size` rows (DPO: pairs) of up to `tokens` tokens.

    Call it before `model` is loaded. On a GPU `auto` follows from the free memory, elsewhere it is
    SMALL. The result for a GPU is stored in `folder`, and a resumed run uses it again. Another
    number of rows at once would add up in another order.

    BadInput: not one row fits, or the batch is no multiple of processes and rows.
    """
    processes, fixed = launching.processes(), amount.micro_batch_size
    share, over = divmod(amount.batch_size, processes.count)
    if over or (fixed != "auto" and share % fixed):
        rows = "" if fixed == "auto" else f" times micro_batch_size {fixed}"
        raise BadInput(
            f"{label}: batch_size {amount.batch_size} is no multiple of {processes.count} processes"
            f"{rows}; change one of them"
        )
    if device.name != "cuda":
        small = max(n for n in range(1, SMALL + 1) if share % n == 0)
        return Split(small if fixed == "auto" else fixed, False)
    record = folder / "split.json"
    stored: Any = files.read_json(record) if processes.first and record.exists() else None
    if stored := launching.gathered(stored, cpu=False)[0]:
        return Split(**stored)
    fits = _split_on_gpu(
        label, device, model, kind=kind, settings=settings, fixed=fixed, share=share, tokens=tokens
    )
    if processes.first:
        files.write_json(record, asdict(fits))
    return fits


def _split_on_gpu(
    label: str,
    device: loading.Device,
    model: Path,
    *,
    kind: memory.Kind,
    settings: Sft | Dpo,
    fixed: Any,
    share: int,
    tokens: int,
) -> Split:
    """Return the split of `share` rows that the free memory of the GPU allows, and print it."""
    import torch

    # The fullest GPU decides for all, because every process takes as many rows as the others.
    free = min(launching.gathered(torch.cuda.mem_get_info(device.index)[0], cpu=False))
    try:
        shape = counting.shape(model / "config.json")
        return _split_by_need(
            label,
            free,
            device,
            shape=shape,
            kind=kind,
            settings=settings,
            fixed=fixed,
            share=share,
            tokens=tokens,
        )
    except BadInput:
        # A number that the user wrote is used even where the memory of this kind of model cannot
        # be counted. Checkpointing is then on, which takes the least memory.
        if fixed == "auto":
            raise
        return Split(fixed, True)


def _split_by_need(
    label: str,
    free: int,
    device: loading.Device,
    *,
    shape: memory.Shape,
    kind: memory.Kind,
    settings: Sft | Dpo,
    fixed: Any,
    share: int,
    tokens: int,
) -> Split:
    """Return the split that fits into `free` bytes, by the need of a model of `shape`."""
    processes = launching.processes()
    sizes: dict[str, Any] = {
        "tokens": min(tokens, shape.positions),
        "optimizer": settings.optimizer,
        "lora_r": settings.lora_r,
        "target_modules": settings.target_modules,
        "compute_bytes": device.bytes,
        "processes": processes.count,
        "sharded": processes.sharded,
        "padded": not (device.varlen and shape.rows_alone),
    }
    if fixed == "auto":
        choice = memory.micro_batch(shape, kind, batch=share, free=free, **sizes)
    else:
        without_checkpointing = memory.need(shape, kind, rows=fixed, checkpointing=False, **sizes)
        choice = fixed, without_checkpointing.total > memory.MARGIN * free
    rows, checkpointing = choice or (1, True)
    needed = memory.need(shape, kind, rows=rows, checkpointing=checkpointing, **sizes).total
    sums = f"{needed / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free"
    if not choice:
        raise BadInput(
            f"{label}: not one row of {sizes['tokens']} tokens fits the GPU ({sums}); shorten the "
            "rows, take an optimizer with less state, or shard it over several GPUs (launch: fsdp)"
        )
    if processes.first:
        with_or_without = "with" if checkpointing else "without"
        print(
            f"{label}: {rows} rows at once, {with_or_without} checkpointing ({sums})",
            file=sys.stderr,
        )
    return Split(rows, checkpointing)
