"""The merge: adapters into the full-precision weights of their base, one matrix after the other.

The base is read and the merged model written tensor by tensor. However large the model is, memory
holds the adapters and what the largest matrix takes while it is changed.
"""

import ctypes
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.models import loading
from bezoar.params import MergeStage, Sft
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.training.runs import fitting
from bezoar.work.progress import bar

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# From this cosine on two weights are nearly parallel. The sine of their angle is then lost in
# rounding, and the arc between them is taken as a line (mergekit's threshold).
PARALLEL = 0.9995


def merge(base: Path, adapters: Sequence[Path], settings: MergeStage, sft: Sft, out: Path) -> None:
    """Add one or several `adapters` of `base` to it, and leave the merged model at `out`.

    The merged model is a plain float32 model with its tokenizer, in as many files as the base has.
    `settings.method` says how the adapters become one change of a matrix (see `combine`).

    `settings.onto` is "dequantized" to add to the 4-bit base that the adapters were trained on
    (`sft` says how it is quantised), brought back to float32. With one adapter the merged model is
    then the trained one. "reloaded" adds to the base as it was before quantisation, which is the
    usual way. The sum is never quantised a second time, as adding to the 4-bit copy itself would
    do.

    BadInput: no full model at `base`, an adapter that is no plain LoRA or does not fit, weights
    that are not finite.
    """
    loading.quiet()
    _return_freed_memory()
    device = loading.device()
    parts = _parts(base)
    skeleton = _skeleton(base, dtype="float32")
    loras = [_lora(folder, base) for folder in adapters]
    _check_same_base(loras)
    quantised = _quantised(base, sft, device) if settings.onto == "dequantized" else frozenset()
    layers = _layers(skeleton, parts)
    _check_layers_stored(base, quantised.union(*(lora.scales for lora in loras)), layers)
    transposed = _transposed(skeleton)

    def merged(name: str, values: Any) -> Any:
        layer = layers[name]
        if layer in transposed:
            return changed(name, layer, values.T.contiguous()).T
        return changed(name, layer, values)

    def changed(name: str, layer: str, values: Any) -> Any:
        if layer in quantised:
            values = _as_trained_on(values, sft, device)
        values = values.float()
        if not any(layer in lora.scales for lora in loras):
            return values
        deltas = [lora.delta(layer, values) for lora in loras]
        return _check_finite(name, combine(values, deltas, settings, name), adapters)

    key = fitting.key(
        __file__,
        merge=[settings.model_dump(), sft.quantization, sft.double_quantization, out.name],
        device=device,
        weights=[work.content(base), *map(work.content, adapters)],
    )
    with work.scratch("merge", key) as folder:
        unfinished = folder / "part"
        shutil.rmtree(unfinished, ignore_errors=True)
        # Without weights this writes the configuration alone.
        skeleton.save_pretrained(unfinished, state_dict={})
        with bar(f"merge {out.name}", sum(len(part.shapes) for part in parts)) as advance:
            for part in parts:
                _write(unfinished / part.file.name, part, merged, advance)
        if len(parts) > 1:
            _index(unfinished, parts, skeleton.num_parameters())
        loading.tokenizer(base).save_pretrained(unfinished)
        work.publish(unfinished, out)
        shutil.rmtree(unfinished)


def check_names(base: Path, sft: Sft) -> None:
    """Check that a merge will find the layers of `base` by name in its files. Reads no weight.

    BadInput: the files name a layer otherwise than transformers does.
    """
    layers = _layers(_skeleton(base, dtype="float32"), _parts(base))
    _check_layers_stored(base, _quantised(base, sft, loading.device()), layers)


def _layers(skeleton: Any, parts: Sequence["_Part"]) -> dict[str, str]:
    """Return for each tensor in the files the name of the layer that it is the weight of.

    Files may use older names than transformers does now. They may also leave out the name of the
    part that holds all but the head: GPT-2's `h.0.attn.c_attn.weight` is the weight of
    `transformer.h.0.attn.c_attn`.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    steps = get_model_conversion_mapping(skeleton)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    prefix, state = skeleton.base_model_prefix, skeleton.state_dict()
    stored = [name for part in parts for name in part.shapes]
    return {
        name: rename_source_key(name, renamings, converters, prefix, state)[0].removesuffix(
            ".weight"
        )
        for name in stored
    }


def _transposed(skeleton: Any) -> set[str]:
    """Return the layers whose matrix is stored as [in, out]: GPT-2's, of the kind Conv1D."""
    from transformers.pytorch_utils import Conv1D

    return {name for name, layer in skeleton.named_modules() if isinstance(layer, Conv1D)}


def _check_layers_stored(base: Path, changed: frozenset[str], layers: Mapping[str, str]) -> None:
    weights = {layer for name, layer in layers.items() if name.endswith(".weight")}
    if missing := sorted(changed - weights):
        raise BadInput(
            f"{base}: holds no {missing[0]}.weight; its files name the weights otherwise than "
            "transformers: load it there and save it anew"
        )


# --- what is merged ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lora:
    """An adapter: its two factors by layer, and by layer the scale of their product."""

    folder: Path
    base: str
    factors: dict[str, Any]
    scales: dict[str, float]

    def delta(self, layer: str, like: Any) -> Any:
        """Return the change of the layer's matrix, [out, in]: scale * B A (LoRA, arXiv 2106.09685).

        It is zeros, shaped like `like`, where the adapter leaves the layer alone.
        """
        if layer not in self.scales:
            return like.new_zeros(like.shape)
        a, b = (self.factors[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        return b.float() @ a.float() * self.scales[layer]


def _lora(folder: Path, base: Path) -> _Lora:
    """Read the adapter at `folder`, and check it against a base without weights.

    BadInput: it is more than the product of two factors, or its shapes are not those of the base.
    """
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    if loading.is_adapter(folder):
        _refuse_more_than_lora(folder)
    attached = loading.attach(_skeleton(base, dtype="float32"), folder, base)
    scales = {
        name: layer.scaling["default"]
        for name, layer in attached.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
    }
    factors = load_file(folder / "adapter_model.safetensors")
    return _Lora(folder, attached.peft_config["default"].base_model_name_or_path, factors, scales)


# The fields of peft's LoraConfig in which plain LoRAs may differ: sizes, layers, training, names.
_PLAIN = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("task_type", "inference_mode", "auto_mapping", "revision", "peft_version"),
    "base_model_name_or_path",
}


def _refuse_more_than_lora(folder: Path) -> None:
    from peft import LoraConfig, PeftConfig

    plain = vars(LoraConfig())
    for name, value in vars(PeftConfig.from_pretrained(folder)).items():
        if name not in _PLAIN and (name not in plain or value != plain[name]):
            raise BadInput(
                f"{folder}/adapter_config.json: {name}: {value!r}: no plain LoRA, and more than "
                "the product of its factors would have to be added; train one without it"
            )


def _check_same_base(loras: Sequence[_Lora]) -> None:
    first = loras[0]
    for lora in loras[1:]:
        if lora.base != first.base:
            raise BadInput(
                f"{lora.folder}: trained on {lora.base}, and {first.folder} on {first.base}; "
                "adapters of one base can be merged"
            )


# --- adapters combined into one change -----------------------------------------------------------


def combine(base: Any, deltas: Sequence[Any], settings: MergeStage, name: str) -> Any:
    """Return a matrix [out, in] of the merged model.

    It is made of the base's matrix and of the changes that adapters make to it, each multiplied by
    its own number in `settings.weights`. `settings.method` is one of:

    linear: the sum of the changes (task arithmetic, arXiv 2212.04089).

    ties: the largest `density` of each change, and of these the mean of those that agree with the
    sign of the sum (arXiv 2306.01708).

    dare_linear, dare_ties: a random `density` of each change, scaled up by as much as is dropped
    (arXiv 2311.03099), then as linear or ties.

    slerp: the weight `t` of the way on the arc between base and merged weight, or between the
    merged weights of two adapters.
    """
    import torch
    from peft.utils import merge_utils

    weights = settings.weights[: len(deltas)]
    if settings.method == "slerp":
        ends = [base + weight * delta for weight, delta in zip(weights, deltas, strict=True)]
        start, end = ends if len(ends) == 2 else (base, ends[0])
        return slerp(start, end, settings.t)
    # Whole changes are combined. peft's own add_weighted_adapter combines the factors A and B
    # separately, and (B1 + B2)(A1 + A2) is not B1 A1 + B2 A2.
    with torch.random.fork_rng(devices=[]):
        # The seed follows from the matrix's name, so that its random numbers (DARE) do not depend
        # on the order of the matrices, nor on the file that holds them.
        torch.manual_seed(int(work.fingerprint(seed=settings.seed, tensor=name), 16))
        changes = [*deltas], torch.tensor(weights)
        if settings.method == "linear":
            return base + merge_utils.task_arithmetic(*changes)
        return base + getattr(merge_utils, settings.method)(*changes, settings.density)


def slerp(start: Any, end: Any, t: float) -> Any:
    """Return the matrix `t` of the way from `start` to `end` on the arc between the two.

    Both are taken as vectors (Shoemake, Animating rotation with quaternion curves, 1985, and for
    weights mergekit).
    """
    import torch

    cosine = torch.cosine_similarity(start.flatten(), end.flatten(), dim=0)
    if cosine.abs() > PARALLEL:
        return (1 - t) * start + t * end
    angle = torch.acos(cosine)
    start_share, end_share = (torch.sin(share * angle) / torch.sin(angle) for share in (1 - t, t))
    return start_share * start + end_share * end


def _check_finite(name: str, values: Any, adapters: Sequence[Path]) -> Any:
    if not values.isfinite().all():
        folders = ", ".join(map(str, adapters))
        raise BadInput(f"{folders}: {name} is not finite once merged; train with a lower rate")
    return values


# --- the base ------------------------------------------------------------------------------------


def _skeleton(base: Path, **options: Any) -> Any:
    """Build the model at `base` without its weights."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base,
        device_map={"": "meta"},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )


def _quantised(base: Path, sft: Sft, device: loading.Device) -> frozenset[str]:
    """Return the names of the layers that quantisation replaces, as transformers chooses them."""
    from bitsandbytes.nn import Linear4bit

    loading.plain_layers()
    model = _skeleton(base, dtype=device.dtype, quantization_config=loading.four_bit(sft, device))
    return frozenset(n for n, layer in model.named_modules() if isinstance(layer, Linear4bit))


def _as_trained_on(values: Any, sft: Sft, device: loading.Device) -> Any:
    """Return the numbers that the 4-bit copy of a weight stands for.

    They are computed as bitsandbytes computes them when a model is loaded, and on the same device,
    because a GPU may round another way.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    copy, state = quantize_4bit(
        values.to(device.place, getattr(torch, device.dtype)),
        compress_statistics=sft.double_quantization,
        quant_type=sft.quantization,
    )
    return dequantize_4bit(copy, state).cpu()


def _return_freed_memory() -> None:
    """Have a tensor's memory returned to the system as soon as it is freed.

    Otherwise glibc keeps blocks of up to 32 MB for later use, which doubles the peak where matrices
    are smaller than that.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        # -3 is M_MMAP_THRESHOLD of malloc.h, in bytes. Larger blocks go back when they are freed.
        libc.mallopt(-3, 2**20)


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A file of the base and the shapes of its tensors."""

    file: Path
    shapes: dict[str, list[int]]


def _parts(base: Path) -> list[_Part]:
    from safetensors import safe_open

    if not (base / "config.json").exists() or not any(
        (base / n).exists() for n in (WEIGHTS, INDEX)
    ):
        raise BadInput(
            f"{base}: no full model, which has config.json and its weights in {WEIGHTS}, or in "
            f"several files beside {INDEX}; an adapter is merged before others are merged into it"
        )
    # `base` was checked to hold one of the two: a single file, or an index of several.
    names = [WEIGHTS]
    if not (base / WEIGHTS).exists():
        index: Any = files.read_json(base / INDEX)
        names = sorted({*index["weight_map"].values()})
    parts = []
    for name in names:
        with safe_open(base / name, "pt") as stored:
            slices = {name: stored.get_slice(name) for name in sorted(stored.keys())}
            # Integer tensors are buffers of old checkpoints, which transformers makes itself.
            shapes = {n: s.get_shape() for n, s in slices.items() if "F" in s.get_dtype()}
        parts.append(_Part(base / name, shapes))
    return parts


def _write(
    path: Path,
    part: _Part,
    merged: Callable[[str, Any], Any],
    advance: Callable[[float], None],
) -> None:
    """Write a file of the merged model, tensor by tensor.

    safetensors' own writer wants all tensors at once. The bytes are the same: the header's length,
    the header, the tensors in the order of their names.
    """
    from safetensors import safe_open

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in part.shapes.items():
        start, end = end, end + _bytes(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with path.open("wb") as to, safe_open(part.file, "pt") as stored:
        to.write(len(text).to_bytes(8, "little") + text)
        for name in part.shapes:
            to.write(merged(name, stored.get_tensor(name)).contiguous().numpy().data)
            advance(1)


def _bytes(shape: Sequence[int]) -> int:
    """Return the bytes of a float32 tensor of this shape."""
    return 4 * math.prod(shape)


def _index(folder: Path, parts: Sequence[_Part], parameters: int) -> None:
    """Write the index that says which file holds which tensor, as transformers writes it."""
    size = sum(_bytes(shape) for part in parts for shape in part.shapes.values())
    index = {
        "metadata": {"total_parameters": parameters, "total_size": size},
        "weight_map": {name: part.file.name for part in parts for name in part.shapes},
    }
    files.write_json(folder / INDEX, index)
