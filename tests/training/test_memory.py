"""What training takes: counted against what torch holds, and against the paper's model."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.rows.files import BadInput
from bezoar.training.runs import counting, memory
from bezoar.training.runs.memory import Shape
from bezoar.training.runs.storages import peak_of, storage_bytes
from tests.builders import ROOT
from tests.builders.machines import OPENLLAMA_3B

GIB = 2**30
SETTINGS = params.load(ROOT)
SMALL = Shape(256, 704, 4, 8, 4, 32, 2000, 512, tied=False)


def need(kind: memory.Kind, rows: int = 1, **change: Any) -> memory.Need:
    how: dict[str, Any] = {
        "tokens": 1536,
        "checkpointing": True,
        "optimizer": "adamw_torch_fused",
        "lora_r": 8,
        "compute_bytes": 2,
    }
    return memory.need(change.pop("shape", OPENLLAMA_3B), kind, rows=rows, **(how | change))


def micro_batch(kind: memory.Kind, free: float, **change: Any) -> tuple[int, bool] | None:
    how: dict[str, Any] = {
        "batch": 64,
        "tokens": 1536,
        "optimizer": "adamw_torch_fused",
        "lora_r": 8,
        "compute_bytes": 2,
    }
    return memory.micro_batch(OPENLLAMA_3B, kind, free=round(free * GIB), **(how | change))


# --- shapes --------------------------------------------------------------------------------------


def write(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_the_shape_of_a_config(tmp_path: Path) -> None:
    told = write(
        tmp_path,
        model_type="llama",
        vocab_size=49_152,
        hidden_size=960,
        intermediate_size=2560,
        num_hidden_layers=32,
        num_attention_heads=15,
        num_key_value_heads=5,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    shape = Shape.read(told)
    assert shape == Shape(960, 2560, 32, 15, 5, 64, 49_152, 8192, tied=True)
    assert shape.parameters == 361_821_120  # SmolLM2-360M, as its weights' file counts


def test_what_a_config_leaves_out_is_as_transformers_has_it(tmp_path: Path) -> None:
    told = write(tmp_path, model_type="llama", num_key_value_heads=None, head_dim=None)
    assert Shape.read(told) == Shape(4096, 11_008, 32, 32, 32, 128, 32_000, 2048, tied=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there is no such file"),
        ("{", "not JSON"),
        ("[]", "model_type None"),
        ('{"model_type": "gpt2"}', "model_type 'gpt2', which is no Llama"),
        ('{"model_type": "llama", "hidden_size": "big"}', "hidden_size: 'big'"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "num_attention_heads: 0"),
    ],
)
def test_a_config_that_tells_no_shape(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=reason):
        Shape.read(tmp_path / "config.json")


# --- the paper's model ---------------------------------------------------------------------------


def test_the_parameters_of_openllama_3b() -> None:
    assert OPENLLAMA_3B.parameters == 3_426_473_600  # as its weights' file counts
    assert OPENLLAMA_3B.linear_parameters == 3_221_504_000
    r16 = 16 * 26 * (4 * 6400 + 3 * 11_840)
    assert OPENLLAMA_3B.lora_parameters(16) == r16


def test_what_the_paper_profile_holds() -> None:
    adapter, full, dpo = need("adapter"), need("all"), need("dpo", optimizer="rmsprop")
    # NF4 with double quantisation takes 4.127 bits a weight (QLoRA, section 3)
    nf4 = 3_221_504_000 * 4.127 / 8
    assert adapter.weights == pytest.approx(nf4 + 2 * 204_969_600, rel=0.03)
    assert full.weights == full.gradients == 4 * 3_426_473_600
    assert full.optimizer == 2 * full.weights and dpo.optimizer == dpo.weights
    assert adapter.total < 4 * GIB and 55 * GIB < full.total < 66 * GIB
    assert dpo.activations >= 4 * 3_426_473_600  # RMSprop's square roots, all at once


def test_state_that_is_paged_need_not_fit() -> None:
    assert need("all", optimizer="paged_adamw_8bit").optimizer == 0
    assert need("all", optimizer="adamw_8bit").optimizer == 2 * 3_426_473_600


def test_processes_that_share_hold_a_part_and_those_that_do_not_hold_buckets_too() -> None:
    alone = need("all")
    ddp, fsdp = need("all", processes=8), need("all", processes=8, sharded=True)
    assert ddp.gradients == 2 * alone.gradients and ddp.weights == alone.weights
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(fsdp, part) == getattr(alone, part) / 8


@pytest.mark.parametrize(
    ("kind", "optimizer", "free", "found"),
    [
        ("adapter", "adamw_torch_fused", 79, (8, False)),
        ("adapter", "adamw_torch_fused", 15, (8, True)),
        ("adapter", "adamw_torch_fused", 2, None),
        ("all", "adamw_torch_fused", 79, (8, True)),
        ("all", "adamw_torch_fused", 139, (8, False)),
        ("all", "adamw_torch_fused", 39, None),
        ("all", "paged_adamw_8bit", 39, (4, True)),
        ("dpo", "rmsprop", 79, (4, True)),
    ],
)
def test_rows_at_once_for_a_gpu(
    kind: memory.Kind, optimizer: str, free: float, found: tuple[int, bool] | None
) -> None:
    assert micro_batch(kind, free, optimizer=optimizer) == found


def test_rows_at_once_divide_the_batch_and_fit() -> None:
    for batch in (1, 6, 7, 60):
        for free in (3, 4, 6, 10, 40):
            found = micro_batch("adapter", free, batch=batch)
            if found is None:
                assert need("adapter").total > memory.MARGIN * free * GIB
                continue
            rows, checkpointing = found
            assert batch % rows == 0
            wanted = need("adapter", rows, checkpointing=checkpointing)
            assert wanted.total <= memory.MARGIN * free * GIB


def test_work_per_token() -> None:
    def gigaflops(kind: memory.Kind, checkpointing: bool) -> float:
        return memory.flops(OPENLLAMA_3B, kind, 1, checkpointing) / 1e9

    # 6.65 for the forward pass, and 0.17 a thousand tokens of context (half of them are seen);
    # 0.2 of it are the head's, which TRL computes once more for the backward pass
    assert gigaflops("adapter", False) == pytest.approx(2 * 6.65 + 0.2, rel=0.02)
    assert gigaflops("adapter", True) == pytest.approx(3 * 6.65, rel=0.02)
    assert gigaflops("all", False) == pytest.approx(3 * 6.65 + 0.2, rel=0.02)
    assert gigaflops("all", True) == pytest.approx(4 * 6.65, rel=0.02)
    assert gigaflops("dpo", False) == pytest.approx(4 * 6.65 + 0.2, rel=0.02)
    assert memory.flops(OPENLLAMA_3B, "all", 10, False, row=2048) > 10e9 * gigaflops("all", False)


def test_scoring_and_answering() -> None:
    scoring = memory.inference(OPENLLAMA_3B, bytes_per_weight=2, rows=16, tokens=2048)
    assert scoring.weights == 2 * 3_426_473_600 and scoring.gradients == scoring.optimizer == 0
    cache = 2 * 26 * 3200 * 2 * 16 * 2048
    logits = 2 * 32_000 * 2 * 16 * 2048
    assert cache + logits < scoring.activations < 1.2 * (cache + logits)


# --- against torch -------------------------------------------------------------------------------


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What differs on a CPU and takes memory: a dropout that keeps numbers for a mask, an adapter
    that does not see autocast, a head whose tiles are worked on in copies (here: small ones)."""
    import torch
    from trl.trainer import utils

    dropout, autocast = torch.native_dropout, torch.is_autocast_enabled
    monkeypatch.setattr(
        torch.nn.functional,
        "dropout",
        lambda x, p=0.5, training=True, inplace=False: (
            dropout(x, p, training)[0] if training and p else x
        ),
    )
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: autocast(*(kind or ("cpu",))))
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 32)
    monkeypatch.setattr(memory, "TILE_WORDS", 32)
    with fast_bfloat16():
        yield


@contextlib.contextmanager
def fast_bfloat16() -> Iterator[None]:
    """Multiply bfloat16 matrices in float32. A CPU without bfloat16 takes up to 15 times as long
    for its own way, and what is made below an operation is not seen by `peak_of`."""
    import torch

    def product(left: Any, right: Any) -> Any:
        if left.dtype is torch.bfloat16:
            return torch.mm(left.float(), right.float()).bfloat16()
        return torch.ops.aten.mm.out(left, right, out=left.new_empty(0))

    def sum_and_product(term: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        if left.dtype is torch.bfloat16:
            return torch.add(torch.mm(left, right) * alpha, term, alpha=beta)
        new = left.new_empty(0)
        return torch.ops.aten.addmm.out(term, left, right, beta=beta, alpha=alpha, out=new)

    make: Any = torch.library.Library
    library = make("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operation of torch is replaced
        library.impl("mm", product, "CPU")
        library.impl("addmm", sum_and_product, "CPU")
    try:
        yield
    finally:
        library._destroy()


def ready(
    folder: Path, kind: memory.Kind, *, compute: int, padded: bool, how: Any = SETTINGS.sft
) -> Any:
    """The model at `folder` as a stage gives it to its trainer, with TRL's head."""
    from trl.trainer.utils import add_fused_lm_head

    from bezoar.models import loading
    from bezoar.training import dpo, sft
    from bezoar.training.runs import padding_free
    from tests.builders.micro import ADAPTER

    device = loading.Device("cpu", "bfloat16" if compute == 2 else "float32")
    adapter = kind.endswith("adapter")
    if kind.startswith("dpo"):
        weights = {"weights": "adapter" if adapter else "all"}
        model = dpo.starting_model(folder, SETTINGS.dpo.model_copy(update=weights), device)
    elif adapter:
        model = sft.starting_model(ADAPTER, folder, folder, how, device)
    else:
        model = loading.plain(folder, "float32", device)
    add_fused_lm_head(model.get_base_model() if adapter else model)
    if not padded:
        padding_free.attach(model)
    return model


def measured(
    folder: Path, kind: memory.Kind, *, compute: int, checkpointing: bool, padded: bool
) -> memory.Need:
    """Weights, gradients, optimizer state and the peak of a step that adds to gradients, of four
    rows of 256 tokens through the model at `folder`."""
    import torch

    from bezoar.training.runs import padding_free

    model = ready(folder, kind, compute=compute, padded=padded)
    pairs = kind.startswith("dpo")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: Any = (
        torch.optim.RMSprop(trained, foreach=True)
        if pairs
        else torch.optim.AdamW(trained, fused=True)
    )
    rows, tokens = 4, 256
    ids = torch.randint(3, SMALL.vocab, (rows * 2 if pairs else rows, tokens))
    mask = torch.ones_like(ids)
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "labels": ids}
    if padded:
        mask[0, tokens // 2 :] = 0
    else:
        batch["flat"] = padding_free._flat(mask == 1, mask == 1)
    autocast = torch.autocast("cpu", torch.bfloat16) if compute == 2 else contextlib.nullcontext()

    def step() -> None:
        with autocast:
            out = model(**batch, fused_lm_head=True)
        out.log_probs.float().mean().backward()

    step()
    optimizer.step()
    with peak_of() as forward_and_backward:
        step()
    with peak_of() as update:
        optimizer.step()
    states = [m.weight.quant_state for m in model.modules() if hasattr(m, "quant_state")]
    scales = [t for s in states for t in (s.absmax, s.state2.absmax)]
    return memory.Need(
        weights=storage_bytes([*model.parameters(), *scales]),
        gradients=storage_bytes(p.grad for p in trained),
        optimizer=storage_bytes(
            t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)
        ),
        activations=max(forward_and_backward.peak, update.peak),
    )


def as_measured(shape: Shape, kind: memory.Kind, **how: Any) -> memory.Need:
    """What is counted of the step that `measured` takes."""
    settings: Any = SETTINGS.dpo if kind.startswith("dpo") else SETTINGS.sft
    return need(
        kind,
        4,
        shape=shape,
        tokens=256,
        lora_r=settings.lora_r,
        target_modules=settings.target_modules,
        optimizer="rmsprop" if kind.startswith("dpo") else "adamw_torch_fused",
        **how,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["whole", "checkpointing"])
@pytest.mark.parametrize("compute", [4, 2], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["adapter", "all", "dpo", "dpo_adapter"])
@pytest.mark.parametrize("padded", [False, True], ids=["rows", "padded"])
def test_what_is_counted_is_what_torch_holds(
    tmp_path: Path, *, kind: memory.Kind, compute: int, checkpointing: bool, padded: bool
) -> None:
    """By arithmetic, and by a walk, which comes closer."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    config = llama()
    plain = LlamaForCausalLM(config)
    assert sum(p.numel() for p in plain.parameters()) == SMALL.parameters
    plain.save_pretrained(tmp_path)
    assert Shape.read(tmp_path / "config.json") == SMALL
    how: dict[str, Any] = {"checkpointing": checkpointing, "padded": padded}
    torch_holds = measured(tmp_path, kind, compute=compute, **how)
    arithmetic = as_measured(SMALL, kind, compute_bytes=compute, **how)
    total, within = (0.12, 0.2) if kind == "dpo_adapter" else (0.08, 0.15)
    near(arithmetic, torch_holds, total, within)
    walked = as_measured(counting.counted(config, "llama"), kind, compute_bytes=compute, **how)
    near(walked, torch_holds, 0.15, 0.2)


def near(counted: memory.Need, torch_holds: memory.Need, total: float, within: float) -> None:
    assert counted.total == pytest.approx(torch_holds.total, rel=total)
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(counted, part) == pytest.approx(getattr(torch_holds, part), rel=0.01), part
    assert counted.activations == pytest.approx(torch_holds.activations, rel=within)


def llama() -> Any:
    """SMALL, as transformers has it."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=SMALL.vocab,
        hidden_size=SMALL.hidden,
        intermediate_size=SMALL.intermediate,
        num_hidden_layers=SMALL.layers,
        num_attention_heads=SMALL.heads,
        num_key_value_heads=SMALL.kv_heads,
        max_position_embeddings=SMALL.positions,
    )


# --- other kinds ---------------------------------------------------------------------------------

SIZES = {"vocab_size": 2000, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8}
GATED = SIZES | {"intermediate_size": 704, "num_key_value_heads": 2}
# Without dropout of attention, for which torch keeps every score on a CPU, and not on a GPU.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": GATED,
    "qwen3": GATED | {"head_dim": 64, "tie_word_embeddings": True},
    "mistral": GATED | {"sliding_window": 64},
    # many words, one head of keys that all heads share, heads wider than the model
    "gemma": GATED | {"vocab_size": 20_000, "num_key_value_heads": 1, "head_dim": 64},
    "gemma2": GATED | {"head_dim": 64, "sliding_window": 64},  # every score is kept
    "gpt2": {"vocab_size": 2000, "n_embd": 256, "n_layer": 4, "n_head": 8, "attn_pdrop": 0.0},
    "gpt_neox": SIZES | {"intermediate_size": 1024},
    "falcon": SIZES,
    "opt": SIZES | {"ffn_dim": 1024, "word_embed_proj_dim": 128, "do_layer_norm_before": False},
    "phi": SIZES | {"intermediate_size": 1024},
    "phi3": GATED | {"pad_token_id": 0},
    "mixtral": GATED | {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def config_of(family: str, **change: Any) -> Any:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[family](**FAMILIES[family], **change)


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("kind", ["adapter", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_decoder_is_counted_as_torch_holds_it(
    tmp_path: Path, *, family: str, kind: memory.Kind
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config_of(family)).save_pretrained(tmp_path)
    shape = counting.shape(tmp_path / "config.json")
    for checkpointing in (False, True):
        how: dict[str, Any] = {"checkpointing": checkpointing, "padded": not shape.rows_alone}
        # in float32: a CPU without bfloat16 takes minutes for it
        torch_holds = measured(tmp_path, kind, compute=4, **how)
        near(as_measured(shape, kind, compute_bytes=4, **how), torch_holds, 0.15, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adapter", "all"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "gpt2", "falcon", "opt", "mixtral"])
def test_the_work_of_any_decoder_is_what_torch_counts(family: str, kind: memory.Kind) -> None:
    """On full weights, for torch does not count products with a matrix in 4 bits. Adapters have
    rank 1: their own work is not counted, and is large beside a small model's."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from bezoar.training.runs import adapters

    config = llama() if family == "llama" else config_of(family)
    shape = counting.counted(config, family)
    how = SETTINGS.sft.model_copy(update={"lora_r": 1})
    # TRL's head adds products up in place, which torch does not count
    in_place: Any = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    rows, tokens = 2, 256
    ids = torch.randint(3, SMALL.vocab, (rows, tokens))
    for checkpointing in (False, True):
        # experts one by one, whose products torch counts
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
        add_fused_lm_head(model)
        if kind == "adapter":
            model = adapters.new(model, how, dropout=0.0)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        # torch's plain steps, which it counts, also compute what a causal row does not see
        with (
            FlopCounterMode(display=False, custom_mapping=in_place) as counter,
            sdpa_kernel(SDPBackend.MATH),
        ):
            model(input_ids=ids, labels=ids, fused_lm_head=True).loss.backward()
        work = memory.flops(shape, kind, rows * tokens, checkpointing, row=2 * tokens)
        assert work == pytest.approx(counter.get_total_flops(), rel=0.15)


@pytest.mark.slow
def test_what_no_walk_can_count_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "num_attention_heads": 0}')
    with pytest.raises(counting.Uncounted, match="name a number in micro_batch_size") as error:
        counting.shape(tmp_path / "config.json")
    assert "\n" not in str(error.value)
