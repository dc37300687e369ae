"""Batches without padding: the padded batch's numbers, and rows that do not see each other."""

import math
from itertools import pairwise
from typing import Any

import pytest

from bezoar.models import loading
from bezoar.training import sft
from bezoar.training.runs import padding_free

pytestmark = pytest.mark.slow

ROWS = [(23, 9), (5, 2), (31, 17), (2, 1), (12, 3)]  # (tokens of a row, of which its prompt)
SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "attn_implementation": "sdpa",
}
CPU = loading.Device("cpu", "float32")


def tokens(rows: list[tuple[int, int]]) -> list[dict[str, list[int]]]:
    """Rows of made-up token ids with their labels."""
    import random

    rng = random.Random(1)
    made = []
    for length, prompt in rows:
        ids = [rng.randrange(3, 100) for _ in range(length)]
        made.append({"input_ids": ids, "labels": [sft.IGNORED] * prompt + ids[prompt:]})
    return made


def model(family: str, **change: Any) -> Any:
    """A decoder with TRL's head, and random weights that are large enough to attend unevenly."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **(SIZES | {"initializer_range": 0.2} | change))
    made = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(made, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    return made


def batch(rows: list[tuple[int, int]]) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = padding_free.collator(DataCollatorForLanguageModeling(pad_token_id=0))
    made: dict[str, Any] = collate(tokens(rows))
    return made


def passed(net: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What comes out, and the gradients of the loss."""
    net.zero_grad()
    out = net(**given, fused_lm_head=True)
    (-out.log_probs.sum() / out.label_mask.sum()).backward()
    return out, {name: p.grad.clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize("family", padding_free.FAMILIES)
def test_all_numbers_are_those_of_the_padded_batch(family: str) -> None:
    change = {"sliding_window": None} if family == "mistral" else {}
    net = model(family, **change)
    assert padding_free.possible(net.config, CPU)
    given = batch(ROWS)
    flat = given.pop("flat")
    out, gradients = passed(net, given)
    padding_free.attach(net)
    padding_free.attach(net)  # a second time changes nothing
    ours, same = passed(net, given | {"flat": flat})
    for name in ("log_probs", "entropy", "mean_logits"):
        assert getattr(ours, name).detach().numpy() == pytest.approx(
            getattr(out, name).detach().numpy(), abs=1e-4
        ), name
    assert ours.is_top1.equal(out.is_top1) and ours.label_mask.equal(out.label_mask)
    for name, gradient in gradients.items():
        assert float((same[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-8, name


def test_a_row_does_not_see_its_neighbours() -> None:
    net = model("llama")
    padding_free.attach(net)
    alone = passed(net, batch(ROWS[:1]))[0].log_probs
    together = passed(net, batch(ROWS))[0].log_probs[:1, : alone.shape[1]]
    assert together.detach().numpy() == pytest.approx(alone.detach().numpy(), abs=1e-5)


def test_the_head_scores_what_counts_alone() -> None:
    net = model("llama")
    padding_free.attach(net)
    seen = []
    net.base_model.register_forward_hook(lambda *a: seen.append(a[-1].last_hidden_state.shape))
    passed(net, batch(ROWS))
    assert seen == [(1, sum(length - prompt for length, prompt in ROWS), SIZES["hidden_size"])]


@pytest.mark.parametrize(
    ("family", "change", "device"),
    [
        ("gemma", {}, CPU),  # not tried
        ("mistral", {"sliding_window": 16}, CPU),  # sees a window alone
        ("llama", {"attention_dropout": 0.1}, CPU),  # the kernels have none
        ("llama", {}, loading.Device("cuda", "float16", varlen=False)),
    ],
)
def test_what_stays_padded(family: str, change: dict[str, Any], device: loading.Device) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **change)
    assert not padding_free.possible(config, device)
    assert padding_free.possible(AutoConfig.for_model("llama"), CPU)


def test_heads_of_any_width_reach_the_kernel_as_it_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no GPU here: a stand-in for torch's kernel checks what it is given, row by row."""
    import torch
    from torch.nn.attention import varlen

    def kernel(
        q: Any, k: Any, v: Any, starts: Any, _: Any, longest: int, __: int, **how: Any
    ) -> Any:
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16 and q.shape[-1] % 8 == 0
        assert starts.dtype == torch.int32 and longest == 31 and how["window_size"] == (-1, 0)
        rows = [slice(*pair) for pair in pairwise(starts.tolist())]
        parts = [[each[row].transpose(0, 1) for each in (q, k, v)] for row in rows]
        found = [
            torch.nn.functional.scaled_dot_product_attention(
                *part, is_causal=True, scale=how["scale"], enable_gqa=how["enable_gqa"]
            )
            for part in parts
        ]
        return torch.cat([row.transpose(0, 1) for row in found])

    torch.manual_seed(1)
    lengths = [length for length, _ in ROWS]
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    query, key, value = (torch.randn(1, heads, sum(lengths), 100) for heads in (8, 4, 4))
    given = {"cu_seq_lens_q": starts, "max_length_q": 31, "scaling": 0.1}
    ours, _ = padding_free.attention(None, query, key, value, None, **given)
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    theirs = padding_free._on_cuda(query, key, value, starts, 31, scale=0.1)
    assert theirs.shape == ours.shape == (1, sum(lengths), 8, 100)
    assert theirs.float().numpy() == pytest.approx(ours.numpy(), abs=0.05)


def test_noise_is_as_large_as_its_row_is_long() -> None:
    """NEFTune's alpha / sqrt(L d), whether rows are padded or end to end; none in evaluation."""
    net, seen = model("llama"), []
    sft._neftune(net, 10.0)
    net.base_model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    given = batch(ROWS)
    flat = given.pop("flat")
    plain = net.get_input_embeddings()(given["input_ids"])
    net.eval()
    net(**given, fused_lm_head=True)
    assert seen.pop().equal(plain)
    net.train()
    net(**given, fused_lm_head=True)
    noise = [(seen[0] - plain)[i, :n] for i, (n, _) in enumerate(ROWS)]
    padding_free.attach(net)
    net(**given, flat=flat, fused_lm_head=True)
    real = plain.flatten(0, 1)[flat["real"]]
    ends = (seen[1][0] - real).split([n for n, _ in ROWS])
    for rows in (noise, ends):
        for (length, _), row in zip(ROWS, rows, strict=True):
            most = 10 / math.sqrt(length * SIZES["hidden_size"])  # type: ignore[operator]
            assert 0.9 * most < float(row.detach().abs().max()) <= most * 1.0001
