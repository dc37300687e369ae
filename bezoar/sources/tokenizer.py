"""Proof that transformers cuts text as the sentencepiece model beside the weights does.

OpenLLaMA brings sentencepiece's file alone, and its authors warn of the tokenizer that transformers
converts it to. transformers 5 still differs from it where a text opens with a space, and where
sentencepiece normalises.
"""

from pathlib import Path
from typing import Any

from bezoar.files import BadInput

SPM = "tokenizer.model"
TEXTS = (
    "",
    "thermal",  # the word by which the fault was found in 2023
    "Name a river, and say where it ends.",
    "### System:\nBe brief.\n\n### Instruction:\nWhat is 3 x 4?\n\n### Response:\n",
    " one space first",
    "    four spaces first",
    " ",
    "two  three   four    spaces, and at the end   ",
    "a line\nanother\n\n\nfour\n",
    "\ttab\t\ttwo tabs\r\nan end of line as Windows has it",
    "0 12 345 6789 3.14159 1,000,000 2024-04-18 -7 1e-5",
    "naïve café, Ångström, e\u0301, Łódź, Ελλάδα, Москва",
    "中文和日本語、한국어",
    "😀🎉 👩‍👩‍👧 ∑∫√ ½ ﬁ Ａ \u00a0\u200b\ufeff",
    "def f(x):\n    if x > 0:  # ok\n        return {'a': [x, -x]}\n",
    "<s> and </s> and <unk> in a text are text",
    "http://example.org/a_b?c=d&e=%20f",
    "UPPER lower CamelCase snake_case kebab-case",
)


def prove(folder: Path, name: str) -> bool:
    """See that the tokenizer that transformers loads from `folder` gives sentencepiece's own ids
    for TEXTS; where it does not, write one that does (tokenizer.json, and tokenizer_config.json to
    go with it) and prove that. Returns whether it was written. A folder without tokenizer.model
    has nothing to prove. BadInput, on `name`: neither does."""
    if not (folder / SPM).is_file():
        return False
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_file=str(folder / SPM))
    except (OSError, RuntimeError):
        raise BadInput(f"{name}: {SPM} is no sentencepiece model; name another revision") from None
    loaded = _loaded(folder, name)
    if _difference(loaded, pieces) is None:
        return False
    _rewrite(folder, loaded, pieces)
    different = _difference(_loaded(folder, name), pieces)
    if different is not None:
        raise BadInput(
            f"{name}: transformers cuts {different!r} otherwise than {SPM} does, and so does a "
            "tokenizer made after it; put the model with a right tokenizer.json into local/base "
            "(profile local)"
        )
    return True


def fast(folder: Path, name: str) -> None:
    """See that `folder` holds tokenizer.json, by which data are measured without transformers;
    where it does not, save what transformers makes of the files that are there. BadInput, on
    `name`: it makes none."""
    if (folder / "tokenizer.json").is_file():
        return
    loaded = _loaded(folder, name)
    if not loaded.is_fast:
        raise BadInput(
            f"{name}: has no tokenizer.json and transformers makes none of its other files; save "
            "the tokenizer in its fast form (use_fast=True) beside the weights"
        )
    loaded.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _loaded(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises no narrower one
        why = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"{name}: transformers cannot load its tokenizer ({why}); name another revision"
        ) from None


def _difference(loaded: Any, pieces: Any) -> str | None:
    """The first of TEXTS that the two cut into different ids."""
    for text in TEXTS:
        ids = loaded(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ids != pieces.encode(text):
            return text
    return None


def _rewrite(folder: Path, loaded: Any, pieces: Any) -> None:
    """Save `loaded` so that a text is prepared as sentencepiece prepares it before it is cut."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast

    spec = ModelProto.FromString((folder / SPM).read_bytes()).normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        if "\r" not in pieces.normalize("\r"):
            # Precompiled takes CR LF for one character and would map its first half alone
            steps.append(normalizers.Replace("\r\n", "\r\r"))
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" +"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    backend = loaded.backend_tokenizer
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    # LlamaTokenizer would put its own preparation in place of this one when it loads the file
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=loaded.model_max_length,
        clean_up_tokenization_spaces=False,
        **loaded.special_tokens_map,
    ).save_pretrained(folder)
