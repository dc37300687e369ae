"""The merge: an adapter into full-precision weights."""

import shutil
from pathlib import Path
from typing import Any, Literal

from bezoar import work
from bezoar.params import Sft
from bezoar.training import fitting, loading


def merge(
    adapter: loading.Adapter, how: Sft, method: Literal["dequantized", "reloaded"], out: Path
) -> None:
    """Add the adapter to its base in float32 and leave a plain model and tokenizer at `out`.

    dequantized: to the 4-bit base as it was trained on, brought back to float32: the merged model
    is the trained one. reloaded: to the base as it was before quantisation (the usual way). Never
    to the 4-bit copy itself, which would quantise the sum a second time.
    """
    loading.quiet()
    device = loading.device()
    key = fitting.key(
        __file__, merge=[method, work.content(adapter.base), work.content(adapter.folder), out.name]
    )
    if method == "dequantized":
        model = _dequantised(adapter.base, how, device)
    else:
        model = loading.plain(adapter.base, "float32", device)
    model = loading.attach(model, adapter.folder, adapter.base).merge_and_unload(safe_merge=True)
    with work.scratch("merge", key) as folder:
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        model.save_pretrained(part)
        loading.tokenizer(adapter.base).save_pretrained(part)
        work.publish(part, out)
        shutil.rmtree(part)


def _dequantised(base: Path, how: Sft, device: "loading.Device") -> Any:
    """The base with the values that its 4-bit copy stands for, as a plain float32 model."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    model, quantised = loading.plain(base, "float32", device), loading.quantised(base, how, device)
    with torch.no_grad():
        for name, layer in quantised.named_modules():
            if isinstance(layer, Linear4bit):
                values = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                model.get_submodule(name).weight.copy_(values)
    return model
