"""Batches without padding: the rows of a micro-batch end to end, each seeing itself alone.

A step still takes the same rows, and its loss is that of the padded batch. So the recipe does not
change, but nothing is computed for padding. Packing would change which rows a batch holds.

TRL's own padding-free batches serve SFT alone and want the flash-attn package. These serve SFT and
DPO, on any device. TRL's trainers still see a padded batch, which is flattened on its way into the
model.

An example: rows of 3 and 2 tokens, whose answers are "b c" and "e" (see `collator`).

    padded       a b c        flattened  a b c d e
                 d e .        position_ids  0 1 2 0 1
    cu_seq_lens  0 3 5        scored  0 1 3     targets  0 1 2
"""

import functools
import types
from typing import Any

from bezoar.models import loading

NAME = "rows"  # of the attention, in transformers' registry
# Decoders whose tokens meet in causal attention alone. A test holds each against its padded batch.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def possible(config: Any, device: loading.Device) -> bool:
    """Say whether a model of this config can go without padding on `device`.

    If it cannot, rows of like length are padded together.
    """
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    plain = config.model_type in FAMILIES and not windowed and not config.attention_dropout
    return plain and device.varlen


def collator(padded: Any) -> Any:
    """Return `padded`, a collator of TRL's, whose batches also tell how they are flattened.

    A batch has B rows of at most L tokens. T of its tokens are real, and K of them count and follow
    another token. Its `flat` has

    real [T]: the places of the real tokens among the B*L.

    scored [K]: the places, among the T, of the tokens after which one that counts is predicted.

    targets [K]: the places of these predictions among the B*(L-1) of the padded batch.

    position_ids [1, T], cu_seq_lens [B + 1] (where rows begin, and the end), longest (the tokens of
    the longest row).
    """

    def collate(examples: list[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = padded(examples)
        counts = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"] == 1
        return {**batch, "flat": _flat(batch["attention_mask"] == 1, counts)}

    return collate


def _flat(real: Any, counts: Any) -> dict[str, Any]:
    """Return how a batch is flattened whose real and counting tokens are marked in bools [B, L]."""
    import torch

    lengths = real.sum(1)
    # A token is predicted at the place of the one before it. A row's first token has none.
    predicts = counts[:, 1:]
    # Running count of the real tokens: each one's place among them.
    within = real.flatten().cumsum(0).view_as(real) - 1
    return {
        "real": real.flatten().nonzero().flatten(),
        "scored": within[:, :-1][predicts],
        "targets": predicts.flatten().nonzero().flatten(),
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "cu_seq_lens": torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
        "longest": int(lengths.max()),
    }


def attach(model: Any) -> None:
    """Make `model`, to which TRL has given its fused head, take flattened batches.

    Its log-probabilities come back at the places where the padded batch has them. A model that
    takes such batches already stays as it is.
    """
    from peft import PeftModel
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.config._attn_implementation == NAME:
        return
    AttentionInterface.register(NAME, attention)
    # This builds no mask where there is no padding.
    AttentionMaskInterface.register(NAME, flash_attention_mask)
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
        # TRL reads what stands at each prediction [1, K] from the padded batch [B, L-1]: put each
        # number at its target, and zeros elsewhere.
        for name, values in outputs.items():
            if values is not None and values.shape == labels[None].shape:
                padded = values.new_zeros(rows * (width - 1))
                padded = padded.index_copy(0, flat["targets"], values.flatten())
                setattr(outputs, name, padded.view(rows, width - 1))
        return outputs

    causal.forward = types.MethodType(forward, causal)


def _scored_alone(_: Any, __: Any, kwargs: dict[str, Any], outputs: Any) -> Any:
    """Keep of the last layer's output only the tokens that the head is to score.

    In an instruction's row they are those from which the answer is predicted.
    """
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
    """Compute causal attention within each row, for transformers' registry.

    `query` is [1, heads, T, width], `key` and `value` have as many heads or fewer. Returns [1, T,
    heads, width], and no weights.
    """
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
    """Compute `attention` by the FlashAttention kernel that torch brings.

    It wants 16-bit numbers, and heads whose width is a multiple of 8. Those of OpenLLaMA 3B are 100
    wide, so they are padded with zeros, which change no score and no result.
    """
    import torch
    from torch.nn.attention.varlen import varlen_attn

    width = query.shape[-1]
    # Rotary embeddings give float32 even under autocast, which the kernel does not take.
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
