"""The LoRA adapter (arXiv 2106.09685) of a model: its layers, and its first weights."""

from collections.abc import Sequence
from typing import Any

from bezoar.models import loading
from bezoar.params import ALL_LINEAR, Dpo, Sft
from bezoar.rows.files import BadInput

# Layers that compute queries, keys or values under other names than the paper's. Most compute all
# three at once. The family behind a line names them so.
FUSED = (
    "query_key_value",  # GPT-NeoX, Falcon, BLOOM
    "c_attn",  # GPT-2
    "qkv_proj",  # Phi-3, CodeGen
    "Wqkv",  # MPT
    *("Wq", "Wk", "Wv"),  # CTRL
    *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),  # DeepSeek
)
SHOWN = 12  # names in a message


def new(model: Any, settings: Sft | Dpo, dropout: float = 0.0) -> Any:
    """Put a new trainable adapter on `model`, of the rank, alpha and layers that `settings` names.

    The weights are drawn from `settings.seed`. BadInput: as for `layers`.
    """
    from peft import LoraConfig
    from transformers import set_seed

    config = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=dropout,
        target_modules=layers(model, settings.target_modules),
        task_type="CAUSAL_LM",
    )
    set_seed(settings.seed)
    return loading.with_lora(model, config)


def layers(model: Any, modules: str | Sequence[str]) -> str | list[str]:
    """Return the names of the layers in `model` that stand for `modules`, as peft takes them.

    The layers of FUSED that the model has stand for one that it lacks. BadInput: it has neither.
    """
    if isinstance(modules, str):
        return modules
    available = linear_layers(model)
    fused = [name for name in FUSED if name in available]
    present = [name for name in modules if name in available]
    missing = [name for name in modules if name not in available]
    if missing and not (fused and all(name in _FUSIBLE for name in missing)):
        others = ", ".join(available[:SHOWN]) + (", ..." if len(available) > SHOWN else "")
        raise BadInput(
            f"target_modules: {', '.join(missing)}: {type(model).__name__} has no such layer; name "
            f"layers that it has ({others or 'none'}), or {ALL_LINEAR}"
        )
    return [*present, *(fused if missing else [])]


# Missing layers for which FUSED ones may stand: the queries, keys and values of the paper's Llama.
_FUSIBLE = ("q_proj", "k_proj", "v_proj")


def linear_layers(model: Any) -> list[str]:
    """Return the last parts of the names of the layers that can have LoRA, the head left out.

    For Llama they are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = (
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if isinstance(layer, Linear | Conv1D) and layer is not head
    )
    return list(dict.fromkeys(names))
