"""A small copy of a model's kind: its configuration with few layers, small widths, short windows.

All that decides how a kind of model behaves stays: every sort of layer that it has, heads that
share keys, experts, biases, dropouts, tied embeddings, positions. Later stages are tried on the
copy in seconds, where the model itself would take hours.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bezoar.models import loading

WINDOW = 8  # tokens that a window of the copy spans; a trial on longer texts passes it
# Layers of the copy. It has more, up to MOST_LAYERS, where LAYERS do not show every kind of layer.
LAYERS = 4
MOST_LAYERS = 12
# Parameters beside the embeddings. A model of fewer than TINY keeps its widths. A copy of more than
# LARGE is not small.
TINY = 3_000_000
LARGE = 40_000_000
# The standard deviation of the copy's weights, so large that each token's past shows in the logits.
SPREAD = 0.1


def _sized(names: Mapping[int, str]) -> dict[str, int]:
    return {name: size for size, several in names.items() for name in several.split()}


# New sizes by the names that transformers' configurations have for them
_WIDTHS = _sized(
    {
        64: "hidden_size n_embd d_model dim model_dim embed_dim dim_model word_embed_proj_dim"
        " embedding_size lru_width attention_hidden_size",
        128: "intermediate_size n_inner ffn_hidden_size d_ff dim_ff d_inner ffn_dim"
        " decoder_ffn_dim encoder_ffn_dim mamba_d_ssm",
        32: "q_lora_rank kv_lora_rank o_lora_rank dt_rank",
        16: "mamba_d_state state_size ssm_state_size hidden_size_per_layer_input",
        4: "time_step_rank mamba_dt_rank adapter_rank",
    }
)
_COUNTS = _sized(  # of heads, of groups of them, of experts
    {
        4: "num_attention_heads n_head n_heads num_heads index_n_heads decoder_attention_heads"
        " encoder_attention_heads swa_num_attention_heads linear_num_value_heads linear_num_heads"
        " mamba_n_heads mamba_num_heads n_mamba_heads"
        " num_experts num_local_experts n_routed_experts moe_num_experts",
        2: "linear_num_key_heads n_groups mamba_n_groups mamba_ngroups num_experts_per_tok"
        " num_experts_per_token moe_topk moe_top_k moe_k top_k top_k_experts num_selected_experts",
        1: "n_group num_expert_group topk_group n_shared_experts num_shared_experts"
        " moe_num_shared_experts",
    }
)
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_SHARED = (
    *("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "num_heads_kv"),
    *("swa_num_key_value_heads", "num_global_key_value_heads"),
)
_HEAD = (
    *("head_dim", "kv_channels", "v_head_dim", "qk_nope_head_dim", "swa_head_dim", "d_head"),
    *("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "index_head_dim"),
    *("global_head_dim", "qk_head_dim", "attention_head_dim"),
)
_MAMBA_HEAD = ("mamba_d_head", "mamba_head_dim", "mamba_headdim")
_ROTARY = ("rotary_dim", "qk_rope_head_dim")
_WINDOWS = (
    *("sliding_window", "sliding_window_size", "attention_window_size", "window_size"),
    *("attention_chunk_size", "local_attention", "local_window_size", "attention_window"),
    *("mamba_chunk_size", "chunk_size", "block_size", "index_topk", "index_block_size"),
)
_DEPTHS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    *("decoder_layers", "encoder_layers"),
)
# _PERIODS: every so many layers one is of another kind. _OFFSETS: the place of the first of these.
_PERIODS = (
    *("attn_layer_period", "expert_layer_period", "interleave_moe_layer_step"),
    *("full_attention_interval", "sliding_window_pattern", "decoder_sparse_step"),
    *("no_rope_layer_interval", "global_attn_every_n_layers", "moe_layer_interval"),
)
_OFFSETS = (
    *("attn_layer_offset", "expert_layer_offset", "first_k_dense_replace", "num_dense_layers"),
    "moe_layer_start_index",
)


def shrink(config: Any, vocabulary: int | None = None) -> Any:
    """Return the configuration of a small copy of a model of `config`, which may be of any size.

    With `vocabulary` the copy has so many tokens. ValueError: the result is no configuration, or is
    not small.
    """
    import torch

    original = config.to_dict()
    tiny = _parameters(config) <= TINY
    tries = (
        [_shrink(original, widths=False)]
        if tiny
        else [_shrink(original), _shrink(original, widths=False)]
    )
    error: Exception | None = None
    for values in tries:
        if vocabulary:
            _fewer_tokens(values, vocabulary)
        try:
            small_config = type(config).from_dict(values)
            if _parameters(small_config) > LARGE:
                raise ValueError("a copy of few layers is not small")
            model = build(small_config)
            with torch.inference_mode():
                ids = torch.arange(3 * WINDOW)[None] % min(3 * WINDOW, _rows(small_config)) + 0
                if not model(input_ids=ids, use_cache=False).logits.isfinite().all():
                    raise ValueError("the logits of a small copy are not finite")
            return small_config
        except Exception as caught:  # whatever a kind of model stumbles over
            error = error or caught
    raise ValueError(str(error).strip().partition("\n")[0] or type(error).__name__)


def build(config: Any) -> Any:
    """Build a model of `config` in float32 on the CPU, with weights drawn by a seed of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            config, dtype="float32", attn_implementation=loading.attention(config)
        ).eval()


def _parameters(config: Any) -> int:
    """Count the parameters of a model of `config`, its embeddings left out."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            config, attn_implementation=loading.attention(config)
        )
    tables = {id(p): p for p in (_weight(model, "in"), _weight(model, "out")) if p is not None}
    return int(sum(p.numel() for p in model.parameters() if id(p) not in tables))


def _weight(model: Any, side: str) -> Any:
    get = model.get_input_embeddings if side == "in" else model.get_output_embeddings
    return getattr(get(), "weight", None)


def _rows(config: Any) -> int:
    return int(config.get_text_config().vocab_size)


def _fewer_tokens(values: dict[str, Any], vocabulary: int) -> None:
    """Cut the vocabulary of a configuration, its parts' too, and the ids that lie beyond."""
    for key, value in values.items():
        if key.endswith("config") and isinstance(value, dict):
            _fewer_tokens(value, vocabulary)
        elif key.startswith("vocab_size") and isinstance(value, int):
            values[key] = min(value, vocabulary)
        elif key.endswith("_token_id") or key.endswith("_token_index"):
            last = vocabulary - 1  # which no trial puts into a text
            if isinstance(value, list):
                values[key] = [min(token, last) for token in value]
            elif isinstance(value, int):
                values[key] = min(value, last)


def _shrink(original: Mapping[str, Any], widths: bool = True) -> dict[str, Any]:
    """Return the values of a configuration, and of its parts (text_config, ...), made small."""
    values = copy.deepcopy(dict(original))
    layers = _layers(values)
    for key, value in values.items():
        if isinstance(value, dict) and key.endswith("config"):
            values[key] = _shrink(value, widths)
        elif isinstance(value, list) and layers:
            values[key] = _of_layers(value, layers, values)
    values |= _by_layer(values, layers)
    if widths:
        _narrow(values)
    for key in ("initializer_range", "init_std"):
        if isinstance(values.get(key), float):
            values[key] = SPREAD
    _at_most(values, _WINDOWS, WINDOW)
    if layers:
        _at_most(values, _PERIODS, 2)
        _at_most(values, _OFFSETS, 1)
        _at_most(values, _DEPTHS, len(layers))
    return values


def _at_most(values: dict[str, Any], keys: Sequence[str], most: int) -> None:
    """Lower the counts that `values` has under `keys`. -1 and booleans are no counts."""
    for key in keys:
        value = values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            values[key] = min(value, most)


def _layers(values: Mapping[str, Any]) -> list[int]:
    """Return the places of the model's layers that the copy has.

    They include layers of every kind that the lists of `values` tell apart, and are LAYERS at least
    where there are so many. A part of a model without layers gives [].
    """
    depth = next((values[key] for key in _DEPTHS if isinstance(values.get(key), int)), 0)
    lists = [value for value in values.values() if isinstance(value, list)]
    per_layer = [value for value in lists if len(value) == depth and depth > 1]
    seen: Counter[str] = Counter()
    first: list[int] = []
    for n in range(depth):
        kind = repr([value[n] for value in per_layer])
        seen[kind] += 1
        # Two of a kind are taken, because layers may share weights with the first of their kind.
        if seen[kind] <= 2 and len(first) < MOST_LAYERS:
            first.append(n)
    rest = [n for n in range(depth) if n not in first]
    return sorted([*first, *rest[: max(0, LAYERS - len(first))]])


def _by_layer(values: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Return what a configuration says of single layers, by their place, for those that stay."""
    by_place = values.get("per_layer_config")
    if not isinstance(by_place, dict):
        return {}
    chosen = {
        str(n): by_place.get(str(layer), by_place.get(layer)) for n, layer in enumerate(layers)
    }
    return {"per_layer_config": {n: value for n, value in chosen.items() if value is not None}}


def _of_layers(value: list[Any], layers: Sequence[int], values: Mapping[str, Any]) -> list[Any]:
    """Return a list with one entry a layer for the layers that stay, any other list as it is."""
    depth = next(values[key] for key in _DEPTHS if isinstance(values.get(key), int))
    if len(value) == depth and depth > 1:
        return [value[n] for n in layers]
    places = all(isinstance(entry, int) and 0 <= entry < depth for entry in value)
    if value and places and depth > len(layers):
        return [n for n, layer in enumerate(layers) if layer in value] or [len(layers) - 1]
    return value


def _narrow(values: dict[str, Any]) -> None:
    """Put small widths into the values of one part."""

    def sized(key: str) -> int | None:
        value = values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    hidden = next(
        (n for key in ("hidden_size", "n_embd", "d_model", "dim") if (n := sized(key))), 0
    )
    heads = next((n for key in _HEADS if (n := sized(key))), 0)
    # Attention by latent vectors may call the rotated part of a head `head_dim`.
    rotary = sized("qk_rope_head_dim")
    rotary_alone = rotary is not None and sized("head_dim") == rotary
    for key in list(values):
        value = sized(key)
        if not value or value < 0:
            continue
        if key in _WIDTHS or key.endswith("intermediate_size"):
            small = _WIDTHS.get(key, 128)
            # A width that is a multiple of the model's own stays one.
            if small >= 64 and hidden and value % hidden == 0:
                small = 64 * value // hidden
            values[key] = min(value, small)
        elif key in _COUNTS:
            values[key] = min(value, _COUNTS[key])
        elif key in _SHARED:
            values[key] = 4 if value == heads else min(value, 2)
        elif key in _ROTARY:
            values[key] = min(value, 8)
        elif key in _MAMBA_HEAD:
            values[key] = min(value, 64 * int(values.get("mamba_expand", 2)) // 4)
        elif key in _HEAD:
            values[key] = min(value, _head(value, heads, hidden))
    if "mamba_d_ssm" in values:
        values["mamba_d_ssm"] = values["mamba_n_heads"] * values["mamba_d_head"]
    if rotary_alone:
        values["head_dim"] = values["qk_rope_head_dim"]
    if sized("qk_head_dim"):
        values["qk_head_dim"] = (sized("qk_nope_head_dim") or 0) + (sized("qk_rope_head_dim") or 0)
    _short_rope(values)


def _head(value: int, heads: int, hidden: int) -> int:
    """Return a head's width in the copy. Heads that are together wider than the model stay so."""
    if heads and hidden and value * heads > hidden:
        return 32
    return 16 if value % 8 == 0 else 20


def _short_rope(values: dict[str, Any]) -> None:
    """Cut the factors that a rotary embedding has for each pair of a head's numbers."""
    rope = values.get("rope_parameters") or values.get("rope_scaling")
    if not isinstance(rope, dict):
        return
    heads = next((values[key] for key in _HEADS if isinstance(values.get(key), int)), 1)
    width = values.get("head_dim") or values.get("hidden_size", 64) // heads
    share = rope.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0
    pairs = math.floor(width * share) // 2
    for key, value in rope.items():
        if isinstance(value, list) and len(value) > pairs:
            rope[key] = value[:pairs]
