"""A base is rehearsed: kinds of models through all that stages do, those that are refused and by
which words, what is repaired, and batches that change no answer."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.models import generation, loading, small
from bezoar.preflight import bases, trial
from bezoar.rows.files import BadInput
from bezoar.sources import weights
from bezoar.sources.bases import bring
from tests.builders import warm
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TOKENS = 400
SIZES: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}


def config(kind: str, **changed: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **{**SIZES, **changed})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of TOKENS ids: <pad>, <s>, </s>, bytes, and pieces of English."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([(ROOT / "README.md").read_text("utf-8")], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def base(tokenizer: Path, tmp_path: Path) -> Path:
    """A small Llama with weights, and its tokenizer, to be changed."""
    folder = tmp_path / "base"
    shutil.copytree(tokenizer, folder)
    small.build(config("llama")).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("BEZOAR_DEVICE", "cpu")
    warm.trials(monkeypatch)
    yield


def change(file: Path, **changed: Any) -> None:
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**told, **changed}))


def rehearsed(folder: Path, scratch: Path) -> list[str]:
    scratch.mkdir()
    loading.quiet()
    return trial.Rehearsal(folder, scratch, params.load(ROOT)).notes()


# --- kinds ---------------------------------------------------------------------------------------

KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}, ""),  # Conv1D
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, ""),  # a linear layer's own
    ("gemma2", {"sliding_window": 8, "head_dim": 16}, ""),  # no SDPA, a window, capped scores
    ("bloom", {"n_layer": 2, "n_head": 4}, ""),  # no positions
    ("mixtral", {"num_local_experts": 4, "attention_dropout": 0.1}, "experts"),
    (
        "jamba",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_dt_rank": 4},
        "in batches of equal length",
    ),
]


@pytest.mark.parametrize(("kind", "changed", "note"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_a_kind_of_model_goes_through_all_that_stages_do(
    tokenizer: Path, tmp_path: Path, kind: str, changed: dict[str, Any], note: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tokenizer, folder)
    config(kind, **changed).save_pretrained(folder)
    notes = rehearsed(folder, tmp_path / "scratch")
    assert any(note in each for each in notes) if note else not notes


def test_a_large_model_is_made_small_and_keeps_its_sorts_of_layers() -> None:
    large = config(
        "gemma3_text",
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        sliding_window=512,
        vocab_size=5000,
        query_pre_attn_scalar=256,
    )
    copy = small.shrink(large)
    assert set(copy.layer_types) == {"sliding_attention", "full_attention"}
    assert copy.sliding_window == small.WINDOW and copy.vocab_size == 5000
    assert copy.num_attention_heads > copy.num_key_value_heads > 1  # heads share keys
    assert copy.num_attention_heads * copy.head_dim == copy.hidden_size
    assert sum(p.numel() for p in small.build(copy).parameters()) < 1e6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            r"quantised \(gptq\), .*; choose the unquantised model",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "head gives no tokens; choose"),
        ({"model_type": "t5"}, "has an encoder and a decoder, .*; choose another base"),
        ({"model_type": "vit"}, "no causal language model .*; choose another base"),
        ({"model_type": "bert"}, "what stands later in a text changes .*; choose another base"),
        ({"model_type": "newest"}, "cannot read its config.json, model_type 'newest'"),
        ({"vocab_size": 390}, r"400 ids and its embedding 390 rows, none for .*; load the model"),
        ({"max_position_embeddings": 64}, r"takes 64 tokens at once, .*; choose a base with"),
        ({"hidden_size": 65}, r"cannot read its config.json, .* is not a multiple of"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    base: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    change(base / "config.json", **changed)
    with pytest.raises(BadInput, match=words) as refused:
        rehearsed(base, tmp_path / "scratch")
    assert "\n" not in str(refused.value)


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_weights_that_do_not_fit_the_configuration_are_refused(
    base: Path, tmp_path: Path, fault: str
) -> None:
    from safetensors.torch import save_file

    held = tensors(base)
    if fault == "missing":
        del held["model.layers.1.mlp.up_proj.weight"]
    else:
        held["model.norm.weight"] = held["model.norm.weight"][:60].clone()
    save_file(held, base / "model.safetensors", {"format": "pt"})
    name = {"missing": r"hold no model\.layers\.1\.mlp\.up_proj", "shape": r"\[60\].*\[64\]"}
    with pytest.raises(BadInput, match=name[fault]):
        trial.fit(base, params.load(ROOT))


def test_the_rehearsal_refuses_a_tokenizer_as_fetch_does(base: Path, tmp_path: Path) -> None:
    change(base / "tokenizer.json", normalizer={"type": "Lowercase"})
    with pytest.raises(BadInput) as fetched:
        weights.copy([*base.iterdir()], tmp_path / "out", "the base")
    with pytest.raises(BadInput) as told:
        bases.rehearse(base, "the base")
    assert str(told.value) == str(fetched.value)
    assert "its tokenizer cannot write 26 characters" in str(told.value)


def test_a_base_whose_copy_is_narrower_passes_with_its_weights(
    tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tokenizer, folder)
    large = config("llama", hidden_size=512, intermediate_size=1024, num_hidden_layers=5)
    assert small.shrink(large).hidden_size < 512
    small.build(large).to(torch_type("bfloat16")).save_pretrained(folder, max_shard_size="5MB")
    assert bases.rehearse(folder, "the base") == []
    change(folder / "config.json", num_hidden_layers=4)
    assert bases.rehearse(folder, "the base") == [
        "its files hold 9 tensors that are not used, as model.layers.4.input_layernorm.weight"
    ]


def torch_type(name: str) -> Any:
    import torch

    return getattr(torch, name)


@pytest.mark.parametrize("config_too", [True, False])
def test_an_adapter_is_no_base(base: Path, config_too: bool) -> None:
    change(base / "adapter_config.json", peft_type="LORA", base_model_name_or_path="x")
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")
    if not config_too:
        (base / "config.json").unlink()
    with pytest.raises(BadInput, match=f"{base}: is an adapter, .*; merge it into its base"):
        weights.copy([*base.iterdir()], base.parent / "out", "local/base")


def test_a_config_that_is_not_json_is_named(base: Path) -> None:
    (base / "config.json").write_text("{'model_type': 'llama'}")
    with pytest.raises(BadInput, match=f"{base}/config.json: cannot be read as JSON"):
        weights.copy([*base.iterdir()], base.parent / "out", "local/base")


def test_a_broken_small_file_is_named_where_it_lies(base: Path, tmp_path: Path) -> None:
    (base / "generation_config.json").write_text("{,")
    with pytest.raises(BadInput, match=f"^error: {base}/generation_config.json: cannot be read"):
        weights.copy([*base.iterdir()], tmp_path / "out", "local/base")


@pytest.mark.parametrize(
    ("wanted", "notes"),
    [
        (
            ["q_proj", "v_proj", "k_proj"],
            ["of a model of kind lfm2, linear layers have no adapter"],
        ),
        ("all-linear", []),
    ],
)
def test_layers_that_go_without_an_adapter_are_told(
    tokenizer: Path, tmp_path: Path, wanted: Any, notes: list[str]
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tokenizer, folder)
    config("lfm2", layer_types=["conv", "full_attention"]).save_pretrained(folder)
    (tmp_path / "scratch").mkdir()
    loading.quiet()
    p = params.load(ROOT)
    p = p.model_copy(update={"sft": p.sft.model_copy(update={"target_modules": wanted})})
    trying = trial.Rehearsal(folder, tmp_path / "scratch", p)
    trying.copy()
    trying.quantise()
    assert [note.partition(":")[0] for note in trying.note_lines] == notes


def test_files_that_leave_out_a_prefix_are_merged(base: Path) -> None:
    from safetensors.torch import save_file

    bare = {name.removeprefix("model."): tensor for name, tensor in tensors(base).items()}
    save_file(bare, base / "model.safetensors", {"format": "pt"})
    trial.fit(base, params.load(ROOT))


# --- repairs -------------------------------------------------------------------------------------


def test_a_generation_config_that_cannot_be_saved_is_repaired(base: Path) -> None:
    from transformers import GenerationConfig

    change(base / "generation_config.json", temperature=0.6, top_p=0.9)
    (note,) = weights.mend(base)
    assert "do_sample: true" in note
    GenerationConfig.from_pretrained(base).validate(strict=True)
    change(base / "generation_config.json", num_beams=0, do_sample=False, early_stopping="soon")
    (note,) = weights.mend(base)
    assert "the ids of its tokens alone" in note
    assert set(json.loads((base / "generation_config.json").read_text())) <= {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }
    assert weights.mend(base) == []


def test_a_padding_id_beyond_the_embedding_is_taken_out(base: Path) -> None:
    change(base / "config.json", pad_token_id=TOKENS)
    (note,) = weights.mend(base)
    assert f"pad_token_id {TOKENS} taken out" in note
    loading.plain(base, "float32", loading.device())


def test_a_tokenizer_without_an_end_gets_the_models(base: Path) -> None:
    told = json.loads((base / "tokenizer_config.json").read_text())
    del told["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(told))
    (note,) = weights.mend(base)
    assert "eos_token '</s>', the id 2" in note
    assert loading.tokenizer(base).eos_token_id == 2


# --- from outside --------------------------------------------------------------------------------


def test_fetch_refuses_in_a_line_and_leaves_no_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "recipes", "profiles", "launch", "prompts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "local/base")
    change(Path("local/base/config.json"), vocab_size=390)
    with pytest.raises(BadInput, match=r"^error: models/fetch/base: .* 390 rows, none for"):
        bring(params.load(profile="local").fetch, Path("models/fetch/base"), bases.rehearse)
    assert not Path("models/fetch/base").exists()


def test_what_passed_is_not_rehearsed_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert bases.rehearse(base, "base", "local") == []
    kept = sorted((base.parent / "work/rehearsals").iterdir())
    assert len(kept) == 2  # the trial, and the weights that fit
    before = [path.stat().st_mtime_ns for path in kept]
    assert bases.rehearse(base, "base", "local") == []
    assert before == [path.stat().st_mtime_ns for path in kept]


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "way"),
    [
        ("llama", {}, "shared"),
        ("mistral", {"sliding_window": 64}, "padded"),  # wider than what is tried
        ("gemma3_text", {"sliding_window": 64, "head_dim": 16}, "padded"),
        ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}, "padded"),
        ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}, "padded"),
        ("mamba", {"state_size": 8}, "alike"),
        ("recurrent_gemma", {"block_types": ["recurrent", "attention"]}, "alike"),
    ],
)
def test_prompts_are_continued_so_that_none_depends_on_others(
    kind: str, changed: dict[str, Any], way: str
) -> None:
    assert generation.fastest(small.build(config(kind, **changed))) == way


@pytest.mark.parametrize("kind", ["mistral", "mamba"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_do_not_depend_on_their_neighbours(
    base: Path, kind: str, temperature: float
) -> None:
    model = small.build(config(kind, sliding_window=8, state_size=8))
    tokenizer = loading.tokenizer(base)
    opening = "All of them begin with this sentence. "
    texts = [opening + "One two three four five. " * n + f"And {n}?" for n in (0, 3, 1, 3, 2)]
    prompts = tokenizer(texts)["input_ids"]
    draws = [generation.Draw(temperature, str(n)) for n in range(len(texts))]
    many = generation.generate(
        model, tokenizer, prompts, max_new_tokens=12, batch_size=3, draws=draws
    )
    alone = [
        generation.generate(
            model, tokenizer, [prompt], max_new_tokens=12, batch_size=1, draws=[draw]
        )[0]
        for prompt, draw in zip(prompts, draws, strict=True)
    ]
    assert many == alone
