"""Loads checkpoints from folders: plain, quantised, with an adapter, and their tokenizers."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bezoar import arithmetic
from bezoar.params import Optimizer, Sft
from bezoar.rows import chat
from bezoar.rows.files import BadInput


def load(model: Path, base: Path, settings: Sft, further: bool = False) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a checkpoint, ready to evaluate.

    A full model is loaded as it is, an adapter on `base` quantised, which is how it was trained. A
    `further` model keeps its own chat template.
    """
    quiet()
    machine = device()
    if not is_adapter(model):
        return plain(model, machine.dtype, machine).eval(), tokenizer(model, further)
    loaded = attach(quantised(base, settings, machine), model, base)
    return loaded.get_base_model().eval(), tokenizer(model)


@dataclass(frozen=True)
class Device:
    """The device that models run on, and the type they compute in.

    Weights that are trained stay float32. All that differs between kinds of machine follows from
    here.
    """

    name: Literal["cuda", "mps", "cpu"]
    dtype: Literal["bfloat16", "float16", "float32"]
    index: int = 0  # of the GPU, where a machine has several
    varlen: bool = True  # torch has attention here within rows of several lengths, end to end

    @property
    def place(self) -> str:
        """The device's name in torch."""
        return f"cuda:{self.index}" if self.name == "cuda" else self.name

    @property
    def bytes(self) -> int:
        """The bytes of a number in `dtype`."""
        return 4 if self.dtype == "float32" else 2

    def optimizer(self, requested: Optimizer) -> Optimizer:
        """Return `requested`, or torch's AdamW where bitsandbytes' kinds of it lack a GPU.

        That is the fused one, whose square roots are rounded alike by every CPU.
        """
        if self.name == "cuda" or requested in ("adamw_torch", "adamw_torch_fused", "rmsprop"):
            return requested
        print(
            f"{requested} wants a GPU; on {self.name} adamw_torch_fused stands in", file=sys.stderr
        )
        return "adamw_torch_fused"


def device() -> Device:
    """Return the best device that this machine has, or the one that $BEZOAR_DEVICE names.

    The names are cuda, mps and cpu. cuda computes in bfloat16, or in float16 where the GPU lacks it
    (before Ampere), mps and cpu in float32. BadInput: $BEZOAR_DEVICE names no device, or one that
    this machine does not have.
    """
    import torch

    requested = os.environ.get("BEZOAR_DEVICE")
    if requested not in (None, "cuda", "mps", "cpu"):
        raise BadInput(f"$BEZOAR_DEVICE: {requested!r} is no kind of device; cuda, mps or cpu")
    if requested in (None, "cuda") and torch.cuda.is_available():
        # Each of the processes that launching.py starts takes the GPU of its number.
        index = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(index)
        # torch counts a bfloat16 that is emulated as supported. It is ten times slower.
        dtype: Any = "float16"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = "bfloat16"
        # torch's kernel for attention within rows (`varlen`) wants Ampere or newer.
        return Device("cuda", dtype, index, torch.cuda.get_device_capability(index)[0] >= 8)
    if requested in (None, "mps") and torch.backends.mps.is_available():
        return Device("mps", "float32")
    if requested not in (None, "cpu"):
        raise BadInput(f"$BEZOAR_DEVICE: this machine has no {requested}; leave it unset, or cpu")
    # More threads would add up in another order, which gives other bytes. Tiny models gain nothing
    # by them.
    torch.set_num_threads(1)
    arithmetic.products()
    return Device("cpu", "float32")


def plain(folder: Path, dtype: str, device: Device) -> Any:
    """Load the full model at `folder` in `dtype`. BadInput: there is none."""
    return _load(folder, dtype, device)


def quantised(base: Path, settings: Sft, device: Device) -> Any:
    """Load the full model at `base` with its linear layers in 4 bits (OpenBezoar 3.3)."""
    from bitsandbytes.nn import Linear4bit

    plain_layers()
    model = _load(base, device.dtype, device, quantization_config=four_bit(settings, device))
    # On a CPU with AVX512-BF16 bitsandbytes 0.50.2 repacks a layer's weight when it first runs in
    # eval mode, and stays there: from then on no gradient passes through the layer, and what
    # dequantize_4bit returns is garbage. Nothing reports it; only the losses stop falling.
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def plain_layers() -> None:
    """Have Falcon's linear layers be plain ones.

    They are a class of their own, which computes the same and which transformers does not quantise.
    QLoRA would silently be plain LoRA.
    """
    import torch
    from transformers.models.falcon import modeling_falcon

    modeling_falcon.FalconLinear = torch.nn.Linear


def four_bit(settings: Sft, device: Device) -> Any:
    """Return how the base is quantised, as transformers takes it."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantization,
        bnb_4bit_use_double_quant=settings.double_quantization,
        bnb_4bit_compute_dtype=device.dtype,
    )


def _load(folder: Path, dtype: str, device: Device, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_model(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        # Weights that FSDP shares out stay on the CPU. It moves a part of them to each GPU itself.
        device_map={"": "cpu" if "ACCELERATE_USE_FSDP" in os.environ else device.place},
        attn_implementation=attention(
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    if device.name == "cuda":
        pad_heads(model)
    return model


def attention(config: Any) -> str:
    """Return the attention that a kind of model has, as transformers names it.

    It is torch's own, or one in plain steps where torch cannot compute it: Gemma 2 caps its scores.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if kind is None or kind._supports_sdpa else "eager"


def pad_heads(model: Any) -> None:
    """Let `model`'s attention run on heads padded to a multiple of 8, where theirs are not.

    CUDA's memory-efficient attention takes no others. The heads of OpenLLaMA 3B are 100 wide, for
    which SDPA would fall back to an attention that holds every score of every head. Zeros change no
    score and no result.
    """
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def padded(module: Any, query: Any, key: Any, value: Any, mask: Any, **more: Any) -> Any:
        width = query.shape[-1]
        room = (0, -width % 8)
        heads = (torch.nn.functional.pad(part, room) for part in (query, key, value))
        result, weights = sdpa_attention_forward(module, *heads, mask, **more)
        return result[..., :width], weights

    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width % 8:
        AttentionInterface.register("sdpa_padded", padded)
        AttentionMaskInterface.register("sdpa_padded", sdpa_mask)
        model.set_attn_implementation("sdpa_padded")


def tokenizer(folder: Path, further: bool = False) -> Any:
    """Load the tokenizer at `folder`, with a pad token, a chat template, and padding on the left.

    The chat template is ours, or that of a `further` model that has one. BadInput: there is no
    tokenizer, or it cannot end an answer.
    """
    tokenizer = own_tokenizer(folder)
    if not (further and tokenizer.chat_template):
        try:
            tokenizer.chat_template = chat.template(tokenizer)
        except BadInput as error:
            raise BadInput(f"{folder}: {str(error).removeprefix('error: ')}") from None
    return tokenizer


def own_tokenizer(folder: Path) -> Any:
    """Load the tokenizer at `folder` as `tokenizer` does, with its own chat template, if any."""
    from transformers import AutoTokenizer

    if not any(
        (folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise BadInput(
            f"{folder}: no tokenizer; a model folder in Hugging Face format holds tokenizer.json "
            "(or tokenizer.model) beside config.json"
        )
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.eos_token is None:
        raise BadInput(
            f"{folder}: the tokenizer has no end-of-sequence token, so no answer could end; set "
            "eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    # Generation continues the end of a row, so the padding stands at its beginning.
    tokenizer.padding_side = "left"
    _end_open(tokenizer, folder)
    return tokenizer


def _end_open(tokenizer: Any, folder: Path) -> None:
    """Have the tokenizer add nothing behind a text.

    An EOS there would end a prompt before its answer. Training puts one behind each answer itself.
    BadInput: it adds one, and has no fast form in which that could be turned off.
    """
    before, behind = chat.added_ids(tokenizer)
    if not behind:
        return
    if not tokenizer.is_fast:
        raise BadInput(
            f"{folder}: its tokenizer adds {tokenizer.convert_ids_to_tokens(behind)} behind every "
            "text, and has no fast form in which that could be turned off; save it without"
        )
    from tokenizers import processors

    tokens = tokenizer.convert_ids_to_tokens(before)
    # With this on, transformers would put EOS back by its own processor.
    tokenizer.add_eos_token = False
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*tokens, "$A"],
        pair=[*tokens, "$A", "$B"],
        special_tokens=[*zip(tokens, before, strict=True)],
    )


def positions(folder: Path) -> int:
    """Return how many tokens the full model at `folder` takes at once."""
    from transformers import AutoConfig

    _check_model(folder)
    return context(
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )


# The names that configurations have for the tokens that a model takes at once. DBRX and MPT say
# max_seq_len.
CONTEXTS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("max_sequence_length", "model_max_length", "context_length"),
)
UNBOUNDED = 2**20  # tokens; what has no positions (Mamba, ALiBi) takes as many as memory holds


def context(config: Any) -> int:
    """Return how many tokens a model of this configuration takes at once."""
    for part in (config, config.get_text_config()):
        for name in CONTEXTS:
            tokens = getattr(part, name, None)
            if isinstance(tokens, int) and tokens > 0:
                return tokens
    return UNBOUNDED


def is_adapter(folder: Path) -> bool:
    """Say whether `folder` holds an adapter rather than a full model."""
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
    """Return `model` (made of `base`) with the adapter on it. BadInput: the two do not fit."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    if not is_adapter(adapter):
        raise BadInput(f"{adapter}: not an adapter; a link with `weights: adapter` makes one")
    weights = adapter / "adapter_model.safetensors"
    # peft would load a pickle instead.
    if not weights.exists():
        raise BadInput(f"{adapter}: has no {weights.name}; train the link again")
    try:
        with _linear_layers_alone():
            loaded = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        if "size mismatch" not in str(error) and "not found in the base" not in str(error):
            raise
        raise BadInput(f"{adapter}: made for another base than {base}: shapes differ") from None
    # peft only warns of layers that one of the two lacks.
    with safe_open(weights, "pt") as stored:
        if set(stored.keys()) != set(get_peft_model_state_dict(loaded)):
            raise BadInput(f"{adapter}: made for another base than {base}: layers differ")
    return loaded


def with_lora(model: Any, lora: Any) -> Any:
    """Return `model` with a new adapter on the layers that can have one.

    `lora` is peft's LoraConfig. The layers that cannot are added to what it excludes.
    """
    from peft import get_peft_model

    if unfit := _unfit(model):
        lora.exclude_modules = sorted({*(lora.exclude_modules or ()), *unfit})
    with _linear_layers_alone():
        return get_peft_model(model, lora)


def _unfit(model: Any) -> list[str]:
    """Return the linear layers that can have no adapter.

    They are routers, whose class is their own, and the layers whose weights a Mamba's kernels read
    directly (peft refuses them).
    """
    import torch
    from bitsandbytes.nn import Linear4bit

    plain = (torch.nn.Linear, Linear4bit)
    # The kinds that peft.tuners.tuners_utils._check_lora_target_modules_mamba lists.
    mamba = model.config.model_type in (
        "falcon_h1",
        "mamba",
        "mamba2",
        "falcon_mamba",
        "nemotron_h",
    )
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and (type(layer) not in plain or (mamba and name.endswith("out_proj")))
    ]


@contextmanager
def _linear_layers_alone() -> Iterator[None]:
    """Keep peft from adapting experts that transformers holds in one tensor.

    It does so wherever a linear layer has the name that an expert's once had. It then refuses
    dropout. And its change of a linear layer is no product of two factors, so that no merge could
    add it.
    """
    from peft.utils import transformers_weight_conversion as conversion

    original = conversion._convert_peft_config_moe
    conversion._convert_peft_config_moe = lambda config, model: None
    try:
        yield
    finally:
        conversion._convert_peft_config_moe = original


def quiet() -> None:
    """Silence the libraries' messages about themselves. Call it before they are imported."""
    os.environ |= {
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    # On some CPUs bitsandbytes asks for a package of kernels, which would come from a hub.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for library in ("accelerate", "peft", "torch", "transformers", "trl"):
        warnings.filterwarnings("ignore", module=library)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
