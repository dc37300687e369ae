"""The memory that training a decoder of any kind takes, counted without its weights.

The model is built of its configuration alone. A step of training runs on tensors that have sizes
and no numbers, and each storage that the step makes is counted. So no formula has to know how a
kind of model computes. One layer of each sort is walked through, and a second one tells what each
further layer adds.
"""

import copy
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bezoar.models import loading
from bezoar.params import ALL_LINEAR
from bezoar.rows.files import BadInput
from bezoar.training.runs import adapters, memory, padding_free
from bezoar.training.runs.memory import Kind, Shape
from bezoar.training.runs.storages import peak_of

# A walk stops at so many operations. A layer takes some hundred. One that goes through a text token
# by token takes too many to wait for, as Mamba does without its kernels.
OPERATIONS = 20_000
BY_HAND = "name a number in micro_batch_size instead of auto"


def shape(config: Path) -> Shape:
    """Return the sizes of the model of a config.json.

    Llama's follow from arithmetic, any other kind's from a model without weights. BadInput: there
    is no such file, or transformers cannot build a decoder of it.
    """
    if memory.family(config) == "llama":
        return Shape.read(config)
    try:
        return _read(config.absolute(), config.stat().st_mtime_ns)
    except BadInput:
        raise
    except Exception as error:  # whatever a configuration makes transformers stumble over
        raise _uncounted(str(config), error) from None


class Uncounted(BadInput):
    """The memory that a kind of model takes cannot be counted."""


def _uncounted(location: str, error: Exception) -> Uncounted:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return Uncounted(f"{location}: its memory cannot be counted ({reason[:160]}); {BY_HAND}")


@functools.lru_cache(maxsize=8)
def _read(path: Path, _: int) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
    return counted(config, str(path))


def counted(config: Any, location: str) -> "Counted":
    """Return the sizes of a model of transformers' `config`, which was read from `location`."""
    model = _build(config)
    text, linear = config.get_text_config(), _linear(model)
    table = model.get_input_embeddings().weight
    layers = len(_layers(model)) or 1
    matrices = sum(layer.weight.numel() for layer in linear)
    heads = _first(text, "num_attention_heads", "n_head", "n_heads", "num_heads") or 1
    width = _first(text, "head_dim") or max(1, _first(text, "hidden_size") // heads)
    largest = max((p.numel() for p in model.parameters() if p is not table), default=0)
    return Counted(
        hidden=table.shape[1],
        intermediate=-(-largest // table.shape[1]),
        layers=layers,
        heads=heads,
        kv_heads=_first(text, "num_key_value_heads", "num_kv_heads") or heads,
        head_dim=width,
        vocab=table.shape[0],
        positions=loading.context(config),
        tied=model.get_output_embeddings().weight is table,
        config=config,
        model=model,
        location=location,
        matrices_of_layers=matrices,
        weights=sum(p.numel() for p in model.parameters()),
        largest=max((layer.weight.numel() for layer in linear), default=0),
        used=matrices + _experts_used(model, text),
        attended=_attended(model, text),
    )


def _experts_used(model: Any, text: Any) -> int:
    """Return the number of weights that a token meets in experts, which stand in one tensor."""
    per_token = _first(text, "num_experts_per_tok", "moe_topk", "top_k_experts")
    stacked = [p for p in _layers(model).parameters() if p.ndim == 3]
    return sum(min(per_token, p.shape[0]) * p.shape[1] * p.shape[2] for p in stacked)


def _attended(model: Any, text: Any) -> tuple[tuple[int, int | None], ...]:
    """Return for each layer with attention (widths, window).

    Widths are those of its heads' queries and values, added up. The window is the number of tokens
    that a token sees before it, None for all of them.
    """
    heads = _first(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
    width = _first(text, "head_dim") or _first(text, "hidden_size") // max(1, heads)
    widths = heads * (_first(text, "qk_head_dim") or width)
    widths += heads * (_first(text, "v_head_dim") or width)
    window = _first(text, "sliding_window") if getattr(text, "use_sliding_window", True) else 0
    names = ("layer_types", "layers_block_type")
    kinds = next((kinds for name in names if (kinds := getattr(text, name, None))), None)
    kinds = kinds or ["sliding_attention" if window else "attention"] * len(_layers(model))
    sees = [kind for kind in kinds if "attention" in kind and "linear" not in kind]
    return tuple((widths, (window or None) if "sliding" in kind else None) for kind in sees)


def _first(config: Any, *names: str) -> int:
    """Return the first positive integer that a configuration has under `names`, or 0."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


@dataclass(frozen=True, kw_only=True)
class Counted(Shape):
    """The sizes of a decoder of any kind.

    `intermediate` is chosen so that the largest matrix has `hidden` times as many numbers.
    """

    config: Any
    model: Any  # without numbers
    location: str
    matrices_of_layers: int
    weights: int
    largest: int  # of the matrices that are quantised
    used: int  # weights of matrices that a token meets: of all experts, those chosen for it
    attended: tuple[tuple[int, int | None], ...]

    def __hash__(self) -> int:
        return id(self.config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and self.config is other.config

    @property
    def rows_alone(self) -> bool:
        """Say whether rows are trained on end to end, so that attention has no mask."""
        # Device.varlen says what the GPU at hand can do. Here the kind of model alone decides.
        newest = loading.Device("cuda", "bfloat16")
        return padding_free.possible(self.config, newest)

    @property
    def linear_parameters(self) -> int:
        """Count the weights of the layers' matrices that are quantised. Fused experts are not."""
        return self.matrices_of_layers

    @property
    def parameters(self) -> int:
        """Count all weights, tied embeddings once."""
        return self.weights

    def forward(self, row: int) -> tuple[float, float]:
        """Return a forward pass's operations for one token: in the layers, and in the head.

        The token is one of a row of about `row` tokens.
        """
        seen = [(widths, min(row / 2, window or row)) for widths, window in self.attended]
        attention = sum(2 * widths * tokens for widths, tokens in seen)
        return 2 * self.used + attention, 2 * self.vocab * self.hidden

    def lora_parameters(self, r: int, modules: str | Sequence[str] = ALL_LINEAR) -> int:
        """Count the weights of an adapter of rank `r` on the layers that stand for `modules`."""
        names = modules if isinstance(modules, str) else tuple(modules)
        try:
            return _adapter_size(self, r, names)
        except BadInput:
            raise
        except Exception as error:
            raise _uncounted(self.location, error) from None

    def within(self, kind: Kind, lora: tuple[int, str | Sequence[str]], step: memory.Step) -> float:
        """Return the bytes that live within a step alone, at its fullest.

        `lora` is an adapter's rank and what it is put on.
        """
        rank, modules = lora
        names = modules if isinstance(modules, str) else tuple(modules)
        try:
            bytes_within = _bytes_of_step(self, kind, (rank, names), step)
        except BadInput:
            raise
        except Exception as error:  # whatever a kind of model stumbles over
            raise _uncounted(self.location, error) from None
        c = step.compute_bytes
        if step.sharded:
            # FSDP gathers a layer as it is used and the next one, and what belongs to no layer.
            loose = self.parameters - self.linear_parameters
            return bytes_within + c * (loose + 2 * self.linear_parameters // self.layers)
        # A matrix in 4 bits is used as a copy in the type that is computed in, one at a time.
        return bytes_within + (c * self.largest if kind == "adapter" else 0)


def _build(config: Any) -> Any:
    """Build a model of `config` on torch's meta device: tensors with sizes and no numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    loading.plain_layers()
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype="float32", attn_implementation=loading.attention(config)
        )


def _linear(model: Any) -> list[Any]:
    """Return the layers that transformers quantises."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, Linear | Conv1D) and m is not head]


def _layers(model: Any) -> Any:
    """Return the decoder's layers: of all lists of modules, the one with most weights."""
    import torch

    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    empty = torch.nn.ModuleList()
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=empty)


@functools.lru_cache(maxsize=64)
def _adapter_size(shape: Counted, r: int, modules: str | tuple[str, ...]) -> int:
    model = _with_adapter(copy.deepcopy(shape.model), r, modules, dropout=0.0)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _with_adapter(model: Any, r: int, modules: str | tuple[str, ...], dropout: float) -> Any:
    import torch

    targets = modules if isinstance(modules, str) else list(modules)
    settings: Any = SimpleNamespace(lora_r=r, lora_alpha=r, target_modules=targets, seed=0)
    with torch.random.fork_rng(devices=[]):
        return adapters.new(model, settings, dropout)


# --- a step of training ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _bytes_of_step(
    shape: Counted, kind: Kind, lora: tuple[int, str | tuple[str, ...]], step: memory.Step
) -> float:
    """Return the bytes that a step makes, from a walk through one layer of each sort.

    A further walk for each sort, with two layers of it, tells what each more layer of that sort
    adds. Two sorts with 3 and 5 layers take three walks: one of [a, b], one of [a, a, b], one of
    [a, b, b].
    """

    def walk(places: list[int] | None) -> Walk:
        return _step(shape, kind, lora, step, places)

    sorts = _sorts(_layers(shape.model), shape.config)
    count, first = Counter(sorts), {sort: n for n, sort in reversed([*enumerate(sorts)])}
    if len(sorts) == len(count):
        return walk(None).most
    try:
        once, forward, backward = walk(sorted(first.values())), 0, 0
        for sort, place in first.items():
            if count[sort] > 1:
                second = walk(sorted([*first.values(), sorts.index(sort, place + 1)]))
                forward += (count[sort] - 1) * (second.computing - once.computing)
                backward += (count[sort] - 1) * (second.after_forward - once.after_forward)
    except (IndexError, KeyError, ValueError, AttributeError):
        # This kind of model cannot do with fewer layers: walk through them all.
        return walk(None).most
    return max(once.forward + forward, once.backward + backward, once.after)


@dataclass
class Walk:
    """Bytes that a step has made.

    `forward`, `backward` and `after` are the fullest moments of the forward pass, of the layers'
    backward pass, and of what comes after it. At the end of the forward pass there are `computing`
    while autocast still holds its copies of weights, and `after_forward` once it does not.
    """

    forward: int = 0
    backward: int = 0
    after: int = 0
    computing: int = 0
    after_forward: int = 0

    @property
    def most(self) -> int:
        """The bytes at the fullest moment of all."""
        return max(self.forward, self.backward, self.after)


def _sorts(layers: Any, config: Any) -> list[str]:
    """Return for each layer its sort: what it is built of, and its name in the configuration."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or [""] * len(layers)
    return [
        repr([kind, repr(layer), [(n, tuple(p.shape)) for n, p in layer.named_parameters()]])
        for layer, kind in zip(layers, kinds, strict=False)
    ]


def _step(
    shape: Counted,
    kind: Kind,
    lora: tuple[int, str | tuple[str, ...]],
    step: memory.Step,
    places: list[int] | None,
) -> Walk:
    """Walk through a step with the layers at `places`, or with all where that is None."""
    import torch

    adapter, pairs = kind.endswith("adapter"), kind.startswith("dpo")
    compute = torch.bfloat16 if step.compute_bytes == 2 else torch.float32
    rows = step.rows * (2 if pairs else 1)
    model = _part(shape.model, places).to(compute if adapter else torch.float32)
    if step.sharded:
        # FSDP gives each layer its weights in the type that is computed in.
        for layer in _linear(model):
            layer.to(compute)
    if adapter:
        model = _with_adapter(model, *lora, dropout=0.0 if pairs else 0.05)
    with _as_on_a_gpu(compute, step.padded):
        _give_storages(model)
        model.train()
        if step.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        causal = model.get_base_model() if adapter else model
        ids = torch.zeros(rows, step.tokens, dtype=torch.long)
        walk = Walk()
        with peak_of(OPERATIONS) as counter:
            # The gradient reaches the lowest layer's input when the layers' backward pass is over.
            # From there on the peak is counted anew, for what follows.
            def layers_done(_: Any) -> None:
                walk.backward, counter.peak = counter.peak, counter.live

            def entered(_: Any, args: Any, kwargs: Any) -> None:
                entry = args[0] if args else kwargs.get("hidden_states")
                if torch.is_grad_enabled() and entry is not None and entry.requires_grad:
                    entry.register_hook(layers_done)

            lowest = next(iter(_layers(causal)), causal)
            hook = lowest.register_forward_pre_hook(entered, with_kwargs=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=step.compute_bytes == 2):
                hidden = causal.base_model(input_ids=ids, use_cache=False)[0]
                hook.remove()  # checkpointing enters the layer once more
                head = causal.get_output_embeddings()
                scores = _head().apply(hidden, head.weight, compute)
                del hidden
                walk.forward, walk.computing = counter.peak, counter.live
            walk.after_forward = counter.peak = counter.live
            scores.mean().backward()
            if walk.backward:
                walk.after = counter.peak
            else:  # nothing is trained below the layers
                walk.backward = counter.peak
    if step.padded:
        # The mask itself takes a byte for each two tokens of a row.
        mask = rows * step.tokens**2
        walk.forward, walk.backward = walk.forward + mask, walk.backward + mask
    return walk


def _part(model: Any, places: list[int] | None) -> Any:
    """Return a copy of `model` with the layers at `places`, or with all where that is None."""
    layers = _layers(model)
    if places is None:
        return copy.deepcopy(model)
    every = layers._modules
    try:
        layers._modules = {str(n): layers[place] for n, place in enumerate(places)}
        return copy.deepcopy(model)
    finally:
        layers._modules = every


def _give_storages(model: Any) -> None:
    """Replace a model's tensors on the meta device by ones of the CPU. Shared ones stay shared."""
    import torch

    seen: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is None:
                    continue
                if id(old) not in seen:
                    # `seen` holds the old tensor too: if it were freed, its id could come again
                    new = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    seen[id(old)] = old, new
                tensors[name] = seen[id(old)][1]


@contextmanager
def _as_on_a_gpu(compute: Any, padded: bool) -> Iterator[None]:
    """Run on sizes alone, and keep for the backward pass what kernels of a GPU keep.

    Dropout keeps a byte a number. Layer norm computes in float32. Attention keeps its inputs and
    its result, not its scores. peft asks whether autocast is on, and means a GPU's.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    functional, autocast = torch.nn.functional, torch.is_autocast_enabled
    norm, attention = functional.layer_norm, _attention(compute, padded)
    in_steps = functional.scaled_dot_product_attention

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    def layer_norm(x: Any, *more: Any, **kwargs: Any) -> Any:
        weight: list[Any] = [None if tensor is None else tensor.float() for tensor in more[1:3]]
        return norm(x.float(), more[0], *weight, *more[3:], **kwargs)

    def scaled(query: Any, key: Any, value: Any, *more: Any, **kwargs: Any) -> Any:
        shared = query.shape[1] != key.shape[1]
        if shared and not kwargs.get("enable_gqa"):
            # No kernel shares heads of keys among those of queries unless `enable_gqa` asks for it.
            # Falcon does not ask, so torch computes in plain steps and keeps its scores.
            return in_steps(query, key, value, *more, **kwargs)
        return attention.apply(query, key, value, shared)

    changes: dict[str, Any] = {
        "dropout": dropout,
        "scaled_dot_product_attention": scaled,
        "grouped_mm": lambda x, weight, **_: _experts().apply(x, weight),
    }
    if compute is torch.bfloat16:
        changes["layer_norm"] = layer_norm
    with (
        _replaced(functional, **changes),
        _replaced(torch, is_autocast_enabled=lambda *kind: autocast(*(kind or ("cpu",)))),
        FakeTensorMode(),
    ):
        yield


@contextmanager
def _replaced(place: Any, **functions: Any) -> Iterator[None]:
    originals = {name: getattr(place, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(place, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(place, name, function)


def _attention(compute: Any, padded: bool) -> Any:
    """Return attention as a GPU's kernels have it, by what they keep for the backward pass."""
    import torch
    from transformers.integrations.sdpa_attention import repeat_kv

    class Attention(torch.autograd.Function):
        """Keeps queries, keys and values, the result and the scores' normaliser."""

        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, shared: bool) -> Any:
            rows, heads, tokens = query.shape[:3]
            ctx.sizes = [(part.shape, part.dtype) for part in (query, key, value)]
            if shared and padded:
                # Where there is a mask, transformers copies the keys for every head of queries.
                key, value = (repeat_kv(part, heads // part.shape[1]) for part in (key, value))
            query, key, value = map(entering, (query, key, value))
            result = torch.empty(rows, heads, tokens, value.shape[3], dtype=compute)
            mask = torch.empty(rows, tokens, tokens, dtype=compute) if padded else None
            normaliser = torch.empty(rows, heads, tokens)
            ctx.save_for_backward(query, key, value, result, normaliser, mask)
            return result[..., : ctx.sizes[2][0][3]]

        @staticmethod
        def backward(ctx: Any, _: Any) -> Any:
            return *(torch.empty(size, dtype=dtype) for size, dtype in ctx.sizes), None

    def entering(part: Any) -> Any:
        """Return `part` as a kernel takes it: in its type, and heads padded to a multiple of 8."""
        room = -part.shape[3] % 8
        return torch.constant_pad_nd(part.to(compute), (0, room)) if room else part.to(compute)

    return Attention


def _experts() -> Any:
    """Return the product of tokens with the matrices of their experts, by what it keeps."""
    import torch

    class Experts(torch.autograd.Function):
        """Keeps the tokens, each as often as it has experts, where the experts are trained."""

        @staticmethod
        def forward(ctx: Any, tokens: Any, weight: Any) -> Any:
            ctx.save_for_backward(tokens if ctx.needs_input_grad[1] else None, weight)
            ctx.size = tokens.shape
            return tokens.new_empty(tokens.shape[0], weight.shape[-1])

        @staticmethod
        def backward(ctx: Any, _: Any) -> Any:
            weight = ctx.saved_tensors[1]
            sizes = zip((ctx.size, weight.shape), ctx.needs_input_grad, strict=True)
            return tuple(weight.new_empty(size) if needed else None for size, needed in sizes)

    return Experts


def _head() -> Any:
    """Return TRL's fused head, by the tensors that it makes on a GPU."""
    import torch

    class Head(torch.autograd.Function):
        """Scores tokens in tiles, which the backward pass computes again."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, compute: Any) -> Any:
            flat = hidden.reshape(-1, hidden.shape[-1]).clone()
            ctx.save_for_backward(flat, weight)
            ctx.compute, ctx.size = compute, hidden.shape
            Head.tile(flat, compute)
            return torch.empty(flat.shape[0])

        @staticmethod
        def backward(ctx: Any, _: Any) -> Any:
            flat, weight = ctx.saved_tensors
            hidden_gradient = torch.empty(flat.shape)
            weight_gradient = torch.empty(weight.shape) if ctx.needs_input_grad[1] else None
            Head.tile(flat, ctx.compute)
            return hidden_gradient.to(flat.dtype).reshape(ctx.size), weight_gradient, None

        @staticmethod
        def tile(flat: Any, compute: Any) -> None:
            tokens = min(flat.shape[0], memory.TILE_TOKENS)
            torch.empty(tokens, memory.TILE_WORDS, dtype=compute)

    return Head
