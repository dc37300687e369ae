"""Bases as folders and repositories hold them: small, and with nothing learned."""

import json
from pathlib import Path
from typing import Any

from tests.builders.files import put

LLAMA_3B = {  # openlm-research/open_llama_3b_v2
    "model_type": "llama",
    "hidden_size": 3200,
    "intermediate_size": 8640,
    "vocab_size": 32000,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}


def config(folder: Path, **changed: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA_3B, **changed}), encoding="utf-8")
    return folder / "config.json"


def of_bytes() -> bytes:
    """A tokenizer.json whose tokens are bytes, and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["</s>"])
    return made.to_str().encode()


BASE_FILES = {
    "config.json": json.dumps(LLAMA_3B).encode(),
    "tokenizer.json": of_bytes(),
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}',
    "model.safetensors": b"w" * 1000,
    "pytorch_model.bin": b"p" * 5000,
}


def model(folder: Path, **config: Any) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    told = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **config}
    put(folder / "config.json", told)
    put(folder / "tokenizer.json", {})
    put(folder / "pytorch_model.bin", text="not copied")
    weight = folder / "model.safetensors"
    weight.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    return folder


def llama(folder: Path, words: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=words,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).half().save_pretrained(folder)


TEXT = (
    "The thermal spring lies where the river ends, and 12 people walk there every day.\n"
    "Write a poem about tides. Name three rivers of Europe! What is 3 x 4? Say why.\n"
    "def f(x): return x + 1  # a function of one argument\n"
    "### System: ### Instruction: ### Response: a b c d e f g h i j k l m n o p q r s t u v w\n"
)


def sentencepiece(folder: Path, **how: Any) -> None:
    """tokenizer.model, trained as the Llamas' are, and what OpenLLaMA has beside it."""
    from sentencepiece import SentencePieceTrainer

    folder.mkdir(exist_ok=True)
    put(folder / "text.txt", text=TEXT * 20)
    defaults: dict[str, Any] = {
        "vocab_size": 400,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), **defaults | how
    )
    special = {
        f"{name}_token": {
            "__type": "AddedToken",
            "content": content,
            "lstrip": False,
            "normalized": True,
            "rstrip": False,
            "single_word": False,
        }
        for name, content in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"))
    }
    put(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "pad_token": None,
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
        },
    )
    for name in ("text.txt", "tokenizer.vocab"):
        (folder / name).unlink()


def write_tokenizer(path: Path) -> Path:
    """A tokenizer.json of whole words that puts <s> first, cuts after three tokens and pads."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"<unk>": 0, "<s>": 1, "a": 2, "s": 3, "<": 4, ">": 5}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path
