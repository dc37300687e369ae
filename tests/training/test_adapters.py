"""Which layers an adapter is put on: the names that are asked for, in families that name them
otherwise."""

from typing import Any

import pytest

from bezoar.params import ALL_LINEAR
from bezoar.rows.files import BadInput
from bezoar.training.runs import adapters

pytestmark = pytest.mark.slow  # transformers is imported

PAPER = ["q_proj", "v_proj", "k_proj"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


def model(family: str, **sizes: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | sizes)))


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("llama", PAPER),
        ("opt", PAPER),
        ("gpt2", ["c_attn"]),
        ("gpt_neox", ["query_key_value"]),
        ("phi3", ["qkv_proj"]),
        ("mpt", ["Wqkv"]),
        ("ctrl", ["Wq", "Wk", "Wv"]),
        ("deepseek_v3", ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"]),
    ],
)
def test_the_papers_layers_in_other_families(family: str, layers: list[str]) -> None:
    sizes = {"pad_token_id": 0} if family == "phi3" else {}
    assert adapters.layers(model(family, **sizes), PAPER) == layers


def test_all_linear_is_peft_s_word() -> None:
    assert adapters.layers(model("llama"), ALL_LINEAR) == ALL_LINEAR


@pytest.mark.parametrize(
    ("family", "wanted", "named"), [("mamba", PAPER, "in_proj"), ("llama", ["c_attn"], "q_proj")]
)
def test_a_layer_that_a_model_lacks_is_named(family: str, wanted: list[str], named: str) -> None:
    with pytest.raises(BadInput, match=f"target_modules: .*no such layer.*{named}.*all-linear"):
        adapters.layers(model(family), wanted)
