"""The merge: adapters into the full-precision weights of their base, one matrix after the other.

The base is read and the merged model written tensor by tensor. Memory holds the adapters and what
the largest matrix takes on its way, however large the model is.
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
# From this cosine on, two weights are so nearly parallel that the sine of their angle is lost in
# rounding, and the arc between them is a line (mergekit's threshold)
PARALLEL = 0.9995


def merge(base: Path, adapters: Sequence[Path], settings: MergeStage, sft: Sft, out: Path) -> None:
    """Add `adapters` of `base`, one or several, to it and leave a plain float32 model with its
    tokenizer at `out`, in as many files as the base has.

    `how.onto` dequantized: to the 4-bit base as it was trained on (`sft` says how), brought back to
    float32: with one adapter the merged model is the trained one. reloaded: to the base as it was
    before quantisation (the usual way). Never to the 4-bit copy itself, which would quantise the
    sum a second time. `how.method` is how the adapters become one change of a matrix. BadInput: no
    full model at `base`, an adapter that is no plain LoRA or does not fit, weights not finite.
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
        skeleton.save_pretrained(unfinished, state_dict={})  # its configuration alone
        with bar(f"merge {out.name}", sum(len(part.shapes) for part in parts)) as advance:
            for part in parts:
                _write(unfinished / part.file.name, part, merged, advance)
        if len(parts) > 1:
            _index(unfinished, parts, skeleton.num_parameters())
        loading.tokenizer(base).save_pretrained(unfinished)
        work.publish(unfinished, out)
        shutil.rmtree(unfinished)


def check_names(base: Path, sft: Sft) -> None:
    """See, without reading a weight, that a merge finds the layers of `base` by name in its files;
    BadInput where not."""
    layers = _layers(_skeleton(base, dtype="float32"), _parts(base))
    _check_layers_stored(base, _quantised(base, sft, loading.device()), layers)


def _layers(skeleton: Any, parts: Sequence["_Part"]) -> dict[str, str]:
    """The layer that each tensor of the files is the weight of. Files may have older names for it,
    or leave out the part that holds all but the head, as GPT-2's do."""
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
    """The layers whose matrix is stored as [in, out]: GPT-2's, of the kind Conv1D."""
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
    """An adapter: its two factors by layer, and what their product is multiplied with."""

    folder: Path
    base: str
    factors: dict[str, Any]
    scales: dict[str, float]

    def delta(self, layer: str, like: Any) -> Any:
        """The change of the layer's matrix [out, in], zeros where the adapter leaves it alone."""
        if layer not in self.scales:
            return like.new_zeros(like.shape)
        a, b = (self.factors[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        return b.float() @ a.float() * self.scales[layer]


def _lora(folder: Path, base: Path) -> _Lora:
    """The adapter at `folder`, held against a base without weights; BadInput where it is more than
    the product of two factors, or of other shapes."""
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


# What may differ between plain LoRAs: sizes, layers, training, names
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


# --- how adapters are combined -------------------------------------------------------------------


def combine(base: Any, deltas: Sequence[Any], settings: MergeStage, name: str) -> Any:
    """A matrix [out, in] of the merged model, from the base's and the changes that adapters make to
    it, each times its own of `how.weights`.

    linear: their sum (task arithmetic, arXiv 2212.04089). ties: of each change its largest
    `density`, of these the mean of those that agree with the sign of the sum (arXiv 2306.01708).
    dare_linear, dare_ties: a random `density` of each change, larger by as much as is dropped
    (arXiv 2311.03099), as linear or ties. slerp: on the arc between base and merged weight, or
    between the merged weights of two adapters, `t` of the way.
    """
    import torch
    from peft.utils import merge_utils

    weights = settings.weights[: len(deltas)]
    if settings.method == "slerp":
        ends = [base + weight * delta for weight, delta in zip(weights, deltas, strict=True)]
        start, end = ends if len(ends) == 2 else (base, ends[0])
        return slerp(start, end, settings.t)
    # Whole changes are combined. peft's own add_weighted_adapter combines their factors, each for
    # itself, and the product of two sums is not the sum of the products.
    with torch.random.fork_rng(devices=[]):
        # by name, so that a matrix's draw is the same in whatever order and file it comes
        torch.manual_seed(int(work.fingerprint(seed=settings.seed, tensor=name), 16))
        changes = [*deltas], torch.tensor(weights)
        if settings.method == "linear":
            return base + merge_utils.task_arithmetic(*changes)
        return base + getattr(merge_utils, settings.method)(*changes, settings.density)


def slerp(start: Any, end: Any, t: float) -> Any:
    """The matrix `t` of the way from `start` to `end` on the arc between the two, taken as vectors
    (Shoemake, Animating rotation with quaternion curves, 1985; over weights, as in mergekit)."""
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
    """The model at `base` without its weights."""
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
    """The layers that quantisation replaces, by transformers' own choice."""
    from bitsandbytes.nn import Linear4bit

    loading.plain_layers()
    model = _skeleton(base, dtype=device.dtype, quantization_config=loading.four_bit(sft, device))
    return frozenset(n for n, layer in model.named_modules() if isinstance(layer, Linear4bit))


def _as_trained_on(values: Any, sft: Sft, device: loading.Device) -> Any:
    """What the 4-bit copy of a weight stands for, made as bitsandbytes makes it when a model is
    loaded, and where: a GPU may round another way."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    copy, state = quantize_4bit(
        values.to(device.place, getattr(torch, device.dtype)),
        compress_statistics=sft.double_quantization,
        quant_type=sft.quantization,
    )
    return dequantize_4bit(copy, state).cpu()


def _return_freed_memory() -> None:
    """Have a tensor's memory returned as soon as it is freed. glibc would keep blocks of up to
    32 MB for later ones, which doubles the peak where matrices are smaller than that."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 2**20)  # M_MMAP_THRESHOLD of malloc.h, in bytes


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
    names = [WEIGHTS]
    if not (base / WEIGHTS).exists():
        index: Any = files.read_json(base / INDEX)
        names = sorted({*index["weight_map"].values()})
    parts = []
    for name in names:
        with safe_open(base / name, "pt") as stored:
            slices = {name: stored.get_slice(name) for name in sorted(stored.keys())}
            # integers are buffers of old checkpoints, which transformers makes itself
            shapes = {n: s.get_shape() for n, s in slices.items() if "F" in s.get_dtype()}
        parts.append(_Part(base / name, shapes))
    return parts


def _write(
    path: Path,
    part: _Part,
    merged: Callable[[str, Any], Any],
    advance: Callable[[float], None],
) -> None:
    """A file of the merged model, tensor by tensor. safetensors' own writer wants all of them at
    once; the bytes are the same: the header's length, the header, the tensors by name."""
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
    """Of a float32 tensor."""
    return 4 * math.prod(shape)


def _index(folder: Path, parts: Sequence[_Part], parameters: int) -> None:
    """Which file holds which tensor, as transformers writes it."""
    size = sum(_bytes(shape) for part in parts for shape in part.shapes.values())
    index = {
        "metadata": {"total_parameters": parameters, "total_size": size},
        "weight_map": {name: part.file.name for part in parts for name in part.shapes},
    }
    files.write_json(folder / INDEX, index)
