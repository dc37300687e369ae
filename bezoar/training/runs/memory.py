"""The memory and the operations that training takes: arithmetic alone, no torch.

The layers counted are those of a Llama decoder as transformers runs it eagerly, on rows as long as
they may be. It is trained by TRL, whose fused head never holds the logits of a whole batch. For
other kinds counting.py has a Shape that is not arithmetic. test_memory.py holds the counts
against what torch allocates.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bezoar.params import ALL_LINEAR
from bezoar.rows.files import BadInput

Kind = Literal["adapter", "all", "dpo", "dpo_adapter"]

# The share of the free memory that a step may fill. The rest is for fragments, workspaces and the
# growth of other processes.
MARGIN = 0.9
# A micro-batch of so many tokens keeps a GPU busy. More rows at once only mean more padding.
ENOUGH_TOKENS = 16_384

# Bytes of optimizer state a trained parameter must have on the GPU. A paged optimizer's state moves
# to the machine's memory when the GPU's is full, so none of it must fit.
STATE = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "adamw_8bit": 2,
    "paged_adamw_32bit": 0,
    "paged_adamw_8bit": 0,
    "rmsprop": 4,
}
# Bytes a trained parameter that the optimizer's step itself needs. torch's optimizers over lists of
# tensors ("foreach", the default on a GPU) hold one intermediate of every parameter at once.
STEP = {"adamw_torch": 4, "rmsprop": 4}

# Bytes a weight in NF4, 0.516: half a byte, a byte of scale for a block of 64 weights, and one
# float32 that 256 such scales share (double quantisation: QLoRA, arXiv 2305.14314, section 3).
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)

# TRL's fused head computes logits in tiles of so many tokens times so many words.
TILE_TOKENS, TILE_WORDS = 4096, 32_768


@dataclass(frozen=True)
class Step:
    """A step's work: `rows` (DPO: pairs) of `tokens` tokens at once.

    It is done with or without checkpointing, in a type of `compute_bytes` bytes. `sharded` and
    `padded` are as in `need`.
    """

    rows: int
    tokens: int
    checkpointing: bool
    compute_bytes: int
    sharded: bool
    padded: bool


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama decoder, from which its memory and its work follow."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    positions: int
    tied: bool

    @classmethod
    def read(cls, config: Path) -> "Shape":
        """Return the shape in a model's config.json. Sizes that it leaves out are transformers'
        defaults.

        BadInput: there is no such file, or it is of another family than Llama, or a size in it is
        none.
        """
        values: Any = _read_config(config)
        if values.get("model_type") != "llama":
            raise BadInput(f"{config}: model_type {values.get('model_type')!r}, which is no Llama")
        values = _LLAMA | {key: value for key, value in values.items() if value is not None}
        for name in (*_LLAMA, "num_key_value_heads", "head_dim"):
            if not isinstance(values.get(name, 1), int) or (
                values.get(name) == 0 and name != _TIED
            ):
                raise BadInput(f"{config}: {name}: {values[name]!r} is no size of a model")
        heads, hidden = values["num_attention_heads"], values["hidden_size"]
        return cls(
            hidden=hidden,
            intermediate=values["intermediate_size"],
            layers=values["num_hidden_layers"],
            heads=heads,
            kv_heads=values.get("num_key_value_heads", heads),
            head_dim=values.get("head_dim", hidden // heads),
            vocab=values["vocab_size"],
            positions=values["max_position_embeddings"],
            tied=values[_TIED],
        )

    @property
    def rows_alone(self) -> bool:
        """Say whether rows are trained on end to end, so that attention has no mask."""
        return True

    @property
    def query(self) -> int:
        """The width of all heads together."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """The width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters(self) -> int:
        """Count the weights of the layers' matrices, which are quantised or get LoRA."""
        attention = 2 * self.hidden * (self.query + self.key)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """Count all weights, tied embeddings once."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        norms = self.hidden * (2 * self.layers + 1)
        return self.linear_parameters + embeddings + norms

    def matrices(self, modules: str | Sequence[str] = ALL_LINEAR) -> dict[str, tuple[int, int]]:
        """Return (inputs, outputs) of one layer's matrices: all, or those that `modules` names."""
        sizes = {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }
        return {n: size for n, size in sizes.items() if modules == ALL_LINEAR or n in modules}

    def within(self, kind: Kind, lora: tuple[int, str | Sequence[str]], step: Step) -> float:
        """Return the bytes that live within a step alone, at its fullest.

        `lora` is an adapter's rank and what it is put on.
        """
        return _within(self, kind, lora, step)

    def forward(self, row: int) -> tuple[float, float]:
        """Return a forward pass's operations for one token: in the layers, and in the head.

        The token is one of a row of about `row` tokens. A weight takes 2: it is multiplied and
        added. A width of a head takes 4 for each token that is seen: 2 for the scores, 2 for the
        values.
        """
        seen = row / 2  # of a causal row, on average
        layers = 2 * self.linear_parameters + 4 * self.layers * self.query * seen
        return layers, 2 * self.vocab * self.hidden

    def lora_parameters(self, r: int, modules: str | Sequence[str] = ALL_LINEAR) -> int:
        """Count the weights of an adapter of rank `r` on the matrices that `modules` names."""
        return self.layers * r * sum(map(sum, self.matrices(modules).values()))


def family(config: Path) -> str:
    """Return the model_type of a config.json. BadInput: there is none."""
    name = _read_config(config).get("model_type")
    if not isinstance(name, str):
        raise BadInput(f"{config}: model_type {name!r}; a decoder's, as transformers names it")
    return name


def _read_config(config: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{config}: there is no such file; a model folder in Hugging Face format has one"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{config}: not JSON ({error})") from None
    return values if isinstance(values, dict) else {}


_TIED = "tie_word_embeddings"
_LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    _TIED: False,
}


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of a step.

    `activations` is all that lives within the step alone, copies of weights included. If the
    intermediates of the optimizer are larger than that, it is those.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the four."""
        return self.weights + self.gradients + self.optimizer + self.activations


def need(
    shape: Shape,
    kind: Kind,
    *,
    rows: int,
    tokens: int,
    checkpointing: bool,
    optimizer: str,
    lora_r: int,
    target_modules: str | Sequence[str] = ALL_LINEAR,
    compute_bytes: int,
    processes: int = 1,
    sharded: bool = False,
    padded: bool = False,
) -> Need:
    """Return the memory of one process at the peak of a step on `rows` rows of `tokens` tokens.

    `kind` is "adapter" for the base in NF4 and a float32 adapter of rank `lora_r` on
    `target_modules`. It is "all" for float32 weights that compute in `compute_bytes` (2: autocast).
    "dpo" is as "all", on the chosen and the rejected row of each pair, with the reference's numbers
    computed before. "dpo_adapter" has a base of `compute_bytes` instead.

    With `checkpointing` only each layer's input is kept. Each of several `processes` holds
    everything, and gradients once more in the buckets that DDP sends. With `sharded` (FSDP) each
    holds its part alone, and a layer as it is used. With `padded` attention has a mask.
    """
    c, shards = compute_bytes, processes if sharded else 1
    adapter, pairs = kind.endswith("adapter"), kind.startswith("dpo")
    loose = shape.parameters - shape.linear_parameters  # embeddings, norms and head
    if adapter:
        trained = shape.lora_parameters(lora_r, target_modules)
        matrices = c if pairs else NF4
        weights = matrices * shape.linear_parameters + c * loose + 4 * trained
    else:
        trained, weights = shape.parameters, 4 * shape.parameters / shards
    step = Step(rows, tokens, checkpointing, c, sharded, padded)
    within = shape.within(kind, (lora_r, target_modules), step)
    # DDP sends gradients in buckets, which hold them a second time.
    buckets = 2 if processes > shards else 1
    update = STEP[optimizer] * trained / shards if optimizer in STEP else 0.0
    return Need(
        weights=round(weights),
        gradients=round(4 * trained * buckets / shards),
        optimizer=round(STATE[optimizer] * trained / shards),
        activations=round(max(within, update)),
    )


def _within(shape: Shape, kind: Kind, lora: tuple[int, str | Sequence[str]], step: Step) -> float:
    """Return the bytes that live within a Llama's step alone."""
    c, (rank, modules) = step.compute_bytes, lora
    adapter, pairs = kind.endswith("adapter"), kind.startswith("dpo")
    # Autocast computes in copies of the matrices, which the forward pass keeps.
    copies = c * shape.linear_parameters if c < 4 and not adapter else 0
    if step.sharded:
        # FSDP gathers a layer as it is used and the next one, and what belongs to no layer.
        loose = shape.parameters - shape.linear_parameters
        copies = c * (loose + 2 * shape.linear_parameters // shape.layers)
    n = step.tokens * step.rows * (2 if pairs else 1)
    matrices = shape.matrices(modules) if adapter else {}
    stream = c if adapter else 4  # the residual stream has the embeddings' type
    entry = n * shape.hidden * stream  # a layer's input
    mask = step.padded * n * step.tokens * c
    layer = n * _layer(shape, matrices, pairs, r=rank, c=c, stream=stream) + mask
    head = _head(shape, adapter, n=n, c=c, stream=stream)
    # The gradients that are on their way through one layer's MLP.
    back = n * 3 * shape.intermediate * c
    if step.checkpointing:
        once_more = layer + (0 if step.sharded else copies / shape.layers)
        return shape.layers * entry + max(copies + head, once_more + back)
    return copies + shape.layers * layer + max(head, back)


# The tensor that a matrix reads. Matrices that read the same one share it in memory.
_READS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "layer"),
    "o_proj": "attention",
    **dict.fromkeys(("gate_proj", "up_proj"), "mlp"),
    "down_proj": "gate",
}


def _head(shape: Shape, adapter: bool, *, n: int, c: int, stream: int) -> float:
    """Return the bytes of the last norm and TRL's head on `n` tokens, with its gradients."""
    hidden = n * shape.hidden * (4 + 2 * stream + 4)
    tile = min(n, TILE_TOKENS) * TILE_WORDS * c
    return hidden + tile + (0 if adapter else 4 * shape.vocab * shape.hidden)


def _layer(
    shape: Shape, lora: dict[str, tuple[int, int]], pairs: bool, *, r: int, c: int, stream: int
) -> float:
    """Return the bytes a token that one layer leaves for its backward pass.

    `lora` has the matrices that an adapter is put on, and none where all weights are trained.
    """
    hidden, inner = shape.hidden, shape.intermediate
    trained = lora or shape.matrices()
    inputs = sum(width for width, _ in trained.values())
    # The widths of the distinct inputs: an input that several matrices read counts once.
    shared = sum({_READS[name]: width for name, (width, _) in trained.items()}.values())
    if lora and pairs:  # DPO goes without dropout
        matrices = (shared if c == 4 else inputs) * c + len(lora) * r * c
        norms = 2 * hidden * 4
    elif lora:
        # A matrix keeps its input after dropout (c bytes), dropout's mask (1 byte), and the product
        # with LoRA's first factor, r wide.
        matrices = inputs * (c + 1) + len(lora) * r * c
        norms = 2 * hidden * 4
    else:
        # One input serves several matrices, but where autocast makes a copy for each of them.
        matrices = inputs * c if c < stream else shared * c
        norms = 2 * hidden * (stream + 4)
    # Queries, keys and values of every head, the result, and the scores' normaliser, a float32.
    attention = 4 * shape.query * c + 4 * shape.heads
    gate = 3 * inner * c  # the gate, its SiLU, what it is multiplied with
    return matrices + norms + attention + gate


def micro_batch(
    shape: Shape, kind: Kind, *, batch: int, tokens: int, free: int, **setup: Any
) -> tuple[int, bool] | None:
    """Return (rows at once, checkpointing or not) for `batch` rows of up to `tokens` tokens.

    The GPU has `free` bytes, of which MARGIN is used. `setup` is as for `need`. None: not one row
    fits.

    Rows at once divide `batch`. Without checkpointing a step is a quarter cheaper. It is left out
    where as many rows as are of any use fit without it: the whole batch or ENOUGH_TOKENS.
    """
    most = max(1, ENOUGH_TOKENS // (tokens * (2 if kind.startswith("dpo") else 1)))
    sizes = [rows for rows in range(min(batch, most), 0, -1) if batch % rows == 0]
    for rows, checkpointing in [(sizes[0], False), *((rows, True) for rows in sizes)]:
        needed = need(shape, kind, rows=rows, tokens=tokens, checkpointing=checkpointing, **setup)
        if needed.total <= MARGIN * free:
            return rows, checkpointing
    return None


def inference(shape: Shape, *, bytes_per_weight: float, rows: int, tokens: int) -> Need:
    """Return the memory to score or continue `rows` texts of `tokens` tokens at once.

    Under `activations` stands the memory of the cache of keys and values, of one layer's work, and
    of a whole batch's logits. The logits count twice, because the harness asks for their logarithms
    too.
    """
    c = 4 if bytes_per_weight > 2 else 2
    n = rows * tokens
    cache = 2 * shape.layers * shape.key * c
    logits = 2 * shape.vocab * c
    layer = (4 * shape.hidden + 3 * shape.intermediate) * c
    plain = shape.parameters - shape.linear_parameters
    weights = bytes_per_weight * shape.linear_parameters + c * plain
    return Need(round(weights), 0, 0, round(n * (cache + logits + layer)))


def flops(shape: Shape, kind: Kind, tokens: int, checkpointing: bool, *, row: int = 512) -> float:
    """Return the floating-point operations of training on `tokens` tokens in rows of about `row`.

    The backward pass takes as many as the forward pass for the gradients of activations, and as
    many again for those of weights that are trained. Checkpointing repeats the layers' forward
    pass, and TRL's head always repeats its own. DPO's reference is one forward pass more. For DPO
    `tokens` counts the rows of both answers.
    """
    layers, head = shape.forward(row)
    passes = {"adapter": 2, "all": 3, "dpo": 4, "dpo_adapter": 3}[kind]
    return float((layers * (passes + checkpointing) + head * (passes + 1)) * tokens)
