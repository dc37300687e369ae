"""The user's own base model: a folder in Hugging Face form, checked before anything is trained."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.files import BadInput
from bezoar.sources import tokenizer

# What belongs to a model; whatever else lies in the folder stays there.
PATTERNS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# Tokenizers whose way of cutting text stands in code, or whose ids do
OTHERS = ("tekken.json", "*.tiktoken", "spiece.model", "sentencepiece*.model", "vocab.txt", "*.spm")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def folders(paths: list[Path]) -> list[Path]:
    """The folders of `paths` that hold a language model, by config.json and weights of any kind."""
    tops = sorted({path.parent for path in paths if path.name == "config.json"})
    return [top for top in tops if _writes_text(top) and _any(top, "*.safetensors", *PICKLES)]


def _writes_text(folder: Path) -> bool:
    try:
        config = _json(folder / "config.json")
    except BadInput:
        return False  # another program's
    named = config.get("architectures") or ["LlamaForCausalLM"]
    return "model_type" in config and any(
        str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in named
    )


def model_files(folder: Path) -> list[Path]:
    """The files of a model, in order. BadInput: no safetensors (pickled weights run code when they
    are loaded), code of its own, a missing shard, a torn file, no tokenizer."""
    refuse_code(folder)
    if not _any(folder, "*.safetensors"):
        raise BadInput(
            f"{folder}: pickled weights only, which can run code when they are loaded; "
            "save the model with safe_serialization=True (model.safetensors)"
        )
    index = folder / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.exists() else set()
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise BadInput(f"{folder / shard}: missing, though {index.name} names it")
    if not _any(folder, "tokenizer.json", "tokenizer.model") and not (
        _any(folder, "vocab.json") and _any(folder, "merges.txt")
    ):
        others = sorted(path.name for pattern in OTHERS for path in folder.glob(pattern))
        have = f"; of {', '.join(others)} none is made" if others else ""
        raise BadInput(
            f"{folder}: has no tokenizer{have}; put tokenizer.json or tokenizer.model beside "
            "config.json (save_pretrained of the loaded tokenizer writes it)"
        )
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    for path in files:
        if path.suffix == ".safetensors":
            _whole(path)
    return files


def refuse_code(folder: Path) -> None:
    """BadInput where a model or its tokenizer wants code of its own to be run."""
    for path in (folder / "config.json", *folder.glob("tokenizer_config.json")):
        if "auto_map" in _json(path):
            raise BadInput(
                f"{folder}: brings its own code ({path.name}: auto_map), which is not run; give a "
                "model without it"
            )


def copy(paths: list[Path], out: Path, where: str, further: bool = False) -> dict[str, object]:
    """Copy the one model among the user's files, those of `where`, to `out`, whole or not at all,
    its tokenizer proven; returns the account of it. BadInput: none, more than one, or what
    model_files or tokenizer.account refuses."""
    models = folders(paths)
    if len(models) != 1:
        have = ", ".join(map(str, models)) or "none"
        raise BadInput(
            f"{where}: one language model is expected (config.json of a ...ForCausalLM, "
            f"model.safetensors, a tokenizer), have {have}"
        )
    chosen = model_files(models[0])
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            # what may be written anew is copied: a link would lead into the user's own files
            place = shutil.copyfile if path.suffix != ".safetensors" else os.symlink
            place(path.resolve(), Path(folder) / path.name)
        proven = tokenizer.account(Path(folder), where, further)
        work.publish(Path(folder), out)
    return {"source": "local", "files": [path.name for path in chosen], **proven}


def _any(folder: Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: a JSON object is expected")
    return value


def _whole(path: Path) -> None:
    """A download that was cut, or a Git LFS pointer, shows in the header: its length as eight
    bytes, then JSON that says where each tensor ends."""
    with path.open("rb") as data:
        size = int.from_bytes(data.read(8), "little")
        try:
            header = json.loads(data.read(size) if size < 2**27 else b"")
            ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise BadInput(f"{path}: is no safetensors file; fetch it again") from None
    have = path.stat().st_size - 8 - size
    if max(ends, default=0) != have:
        raise BadInput(
            f"{path}: holds {have} bytes of tensors, its header says {max(ends, default=0)}; "
            "the file is cut: fetch it again"
        )
