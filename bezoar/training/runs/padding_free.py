"""Batches without padding: the rows of a micro-batch end to end, each seeing itself alone.

A step still takes the same rows, and the loss is the padded batch's, so the recipe does not change;
only nothing is computed for padding. Packing would change what a batch is. TRL's own padding-free
batches are for SFT alone and want the flash-attn package; these serve SFT and DPO, on any device:
what TRL's trainers see stays a padded batch, it is flattened on its way into the model.
"""

import functools
import types
from typing import Any

from bezoar.models import loading

NAME = "rows"  # of the attention, in transformers' registry
# Decoders whose tokens meet in causal attention alone; a test holds each against its padded batch
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def possible(config: Any, device: loading.Device) -> bool:
    """Whether a model of this config can go without padding on `device`. Where not, rows
    of like length are padded together."""
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    plain = config.model_type in FAMILIES and not windowed and not config.attention_dropout
    return plain and device.varlen


def collator(padded: Any) -> Any:
    """`padded` (a collator of TRL's), whose batches also tell how they are flattened.

    Of B rows of at most L tokens let T be real, and K followed by one that counts. `flat` has real
    [T], the places of the first among B*L; scored [K], of the second among T; targets [K], among
    the B*(L-1) predictions; position_ids [1, T]; cu_seq_lens [B + 1]; longest.
    """

    def collate(examples: list[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = padded(examples)
        counts = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"] == 1
        return {**batch, "flat": _flat(batch["attention_mask"] == 1, counts)}

    return collate


def _flat(real: Any, counts: Any) -> dict[str, Any]:
    """How a batch is flattened whose real and counting tokens are given as [B, L] of bool."""
    import torch

    lengths = real.sum(1)
    # a prediction stands where its token's predecessor does, which a row's first token lacks
    predicts = counts[:, 1:]
    within = real.flatten().cumsum(0).view_as(real) - 1  # a token's place among the real ones
    return {
        "real": real.flatten().nonzero().flatten(),
        "scored": within[:, :-1][predicts],
        "targets": predicts.flatten().nonzero().flatten(),
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "cu_seq_lens": torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
        "longest": int(lengths.max()),
    }


def attach(model: Any) -> None:
    """Make `model`, to which TRL has given its fused head, take such batches: (log-)probabilities
    come back where the padded batch has them. A model that does already stays as it is."""
    from peft import PeftModel
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.config._attn_implementation == NAME:
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)  # none, where no padding is
    causal.set_attn_implementation(NAME)
    causal.base_model.register_forward_hook(_scored_alone, with_kwargs=True)
    fused = causal.forward

    @functools.wraps(type(causal).forward)
    def forward(
        self: Any, input_ids: Any, attention_mask: Any, labels: Any, flat: Any, **more: Any
    ) -> Any:
        rows, width = input_ids.shape
        labels = labels[:, 1:].flatten()[flat["targets"]]
        outputs = fused(
            input_ids=input_ids.flatten()[flat["real"]][None],
            position_ids=flat["position_ids"],
            shift_labels=labels[None],
            scored=flat["scored"],
            cu_seq_lens_q=flat["cu_seq_lens"],
            cu_seq_lens_k=flat["cu_seq_lens"],
            max_length_q=flat["longest"],
            max_length_k=flat["longest"],
            **more,
        )
        for name, values in outputs.items():
            if values is not None and values.shape == labels[None].shape:  # one a prediction
                padded = values.new_zeros(rows * (width - 1))
                padded = padded.index_copy(0, flat["targets"], values.flatten())
                setattr(outputs, name, padded.view(rows, width - 1))
        return outputs

    causal.forward = types.MethodType(forward, causal)


def _scored_alone(_: Any, __: Any, kwargs: dict[str, Any], outputs: Any) -> Any:
    """Of the last layer only what the head is to score: of an instruction's row, the answer."""
    if "scored" in kwargs:
        outputs.last_hidden_state = outputs.last_hidden_state[:, kwargs["scored"]]
    return outputs


def attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cu_seq_lens_q: Any,
    max_length_q: int,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Causal attention within each row, for transformers' registry: query [1, heads, T, width], key
    and value with as many heads or fewer; returns [1, T, heads, width]."""
    import torch

    if query.is_cuda:
        return _on_cuda(query, key, value, cu_seq_lens_q, max_length_q, scale=scaling), None
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    shared = key.shape[1] < query.shape[1]
    alone = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=shared
        )
        for q, k, v in rows
    ]
    return torch.cat(alone, dim=2).transpose(1, 2).contiguous(), None


def _on_cuda(query: Any, key: Any, value: Any, starts: Any, longest: int, *, scale: Any) -> Any:
    """By the FlashAttention kernel that torch brings, which wants 16-bit numbers and heads whose
    width is a multiple of 8 (OpenLLaMA 3B's have 100): zeros change no score and no result."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    width = query.shape[-1]
    # rotary embeddings give float32 under autocast
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype

    def tokens(part: Any) -> Any:
        return torch.nn.functional.pad(part[0].transpose(0, 1).to(dtype), (0, -width % 8))

    result: Any = varlen_attn(
        tokens(query),
        tokens(key),
        tokens(value),
        starts,
        starts,
        longest,
        longest,
        scale=scale or width**-0.5,
        window_size=(-1, 0),
        enable_gqa=key.shape[1] < query.shape[1],
    )
    return result[None, ..., :width].contiguous()
