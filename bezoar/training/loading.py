"""Checkpoints from folders: plain, quantised, with an adapter; and their tokenizers."""

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bezoar import chat
from bezoar.files import BadInput
from bezoar.params import Sft


@dataclass(frozen=True)
class Adapter:
    """A finished LoRA adapter and the quantised base that it was trained on."""

    base: Path
    folder: Path


def load(model: Path, base: Path, how: Sft) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint, ready to evaluate: a full model as it is; an adapter on
    `base` quantised, which is how it was trained."""
    quiet()
    where = device()
    if not is_adapter(model):
        return plain(model, where.dtype, where).eval(), tokenizer(model)
    loaded = attach(quantised(base, how, where), model, base)
    return loaded.get_base_model().eval(), tokenizer(model)


@dataclass(frozen=True)
class Device:
    """Where training runs and the type it computes in; weights that are trained stay float32."""

    name: Literal["cuda", "cpu"]
    dtype: Literal["bfloat16", "float32"]


def device() -> Device:
    """The best that this machine has: cuda in bfloat16, else one CPU thread in float32."""
    import torch

    if torch.cuda.is_available():
        return Device("cuda", "bfloat16" if torch.cuda.is_bf16_supported() else "float32")
    # more threads add up in another order, which is other bytes; tiny models gain nothing by them
    torch.set_num_threads(1)
    return Device("cpu", "float32")


def plain(folder: Path, dtype: str, device: Device) -> Any:
    """The full model at `folder` in `dtype`; BadInput where there is none."""
    from transformers import AutoModelForCausalLM

    _check_model(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": device.name}, local_files_only=True
    )


def quantised(base: Path, how: Sft, device: Device) -> Any:
    """The full model at `base` with its linear layers in 4 bits (OpenBezoar 3.3)."""
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _check_model(base)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=device.dtype,
        device_map={"": device.name},
        local_files_only=True,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=how.quantization,
            bnb_4bit_use_double_quant=how.double_quantization,
            bnb_4bit_compute_dtype=device.dtype,
        ),
    )
    # On a CPU with AVX512-BF16 bitsandbytes 0.50.2 repacks a layer's weight when it first runs in
    # eval mode, and stays there: from then on no gradient passes through the layer, and what
    # dequantize_4bit returns is garbage. Nothing reports it; only the losses stop falling.
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def tokenizer(folder: Path) -> Any:
    """The tokenizer at `folder`, with a pad token, the chat template and padding on the left;
    BadInput where there is none or it cannot end an answer."""
    from transformers import AutoTokenizer

    if not any(
        (folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise BadInput(
            f"{folder}: no tokenizer; a model folder in Hugging Face format holds tokenizer.json "
            "(or tokenizer.model) beside config.json"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.eos_token is None:
        raise BadInput(
            f"{folder}: the tokenizer has no end-of-sequence token, so no answer could end; set "
            "eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"  # generation continues the end of a row
    tokenizer.chat_template = chat.TEMPLATE
    return tokenizer


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter rather than a full model."""
    return (folder / "adapter_config.json").exists()


def _check_model(folder: Path) -> None:
    if is_adapter(folder):
        raise BadInput(f"{folder}: an adapter, where a full model is wanted; merge it first")
    if not (folder / "config.json").exists():
        raise BadInput(
            f"{folder}: no model; a model folder in Hugging Face format holds config.json, the "
            "weights (model.safetensors) and a tokenizer"
        )


def attach(model: Any, adapter: Path, base: Path, trainable: bool = False) -> Any:
    """`model` (made of `base`) with the adapter on it; BadInput where the two do not fit."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    if not is_adapter(adapter):
        raise BadInput(f"{adapter}: not an adapter; a link with `weights: adapter` makes one")
    try:
        loaded = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        if "size mismatch" not in str(error) and "not found in the base" not in str(error):
            raise
        raise BadInput(f"{adapter}: made for another base than {base}: shapes differ") from None
    # peft only warns of layers that one of the two lacks
    with safe_open(adapter / "adapter_model.safetensors", "pt") as stored:
        if set(stored.keys()) != set(get_peft_model_state_dict(loaded)):
            raise BadInput(f"{adapter}: made for another base than {base}: layers differ")
    return loaded


def quiet() -> None:
    """Silence what the libraries say of themselves; call it before they are imported."""
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    # on some CPUs bitsandbytes asks for a package of kernels that would come from a hub
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for library in ("accelerate", "peft", "torch", "transformers", "trl"):
        warnings.filterwarnings("ignore", module=library)
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
