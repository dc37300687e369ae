"""Small tokenizers, trained on a prompt of the recipe."""

from pathlib import Path
from typing import Any

from bezoar.rows import chat
from bezoar.rows.records import Message

TEXT = [chat.prompt([Message(role="user", content="Hello. Why?")]) + "Hi there, my friend.\n\n"]


def byte_level(prefix: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    return tokenizer


def beside(folder: Path) -> Path:
    """Put a whole tokenizer into a folder."""
    from transformers import PreTrainedTokenizerFast

    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=byte_level(False), **names).save_pretrained(folder)
    return folder
