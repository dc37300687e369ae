"""Checks and copies the user's own base model, a folder in Hugging Face form, before training."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.sources import tokenizer

# The files of a model. Others in its folder are not copied.
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
# Files of tokenizers that need code: it has the rules by which they cut text, or their ids.
OTHERS = ("tekken.json", "*.tiktoken", "spiece.model", "sentencepiece*.model", "vocab.txt", "*.spm")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def folders(paths: list[Path]) -> list[Path]:
    """Return the folders of `paths` that hold a language model: the config.json of one, and weights
    of any kind."""
    tops = sorted({path.parent for path in paths if path.name == "config.json"})
    return [top for top in tops if _writes_text(top) and _any(top, "*.safetensors", *PICKLES)]


def _writes_text(folder: Path) -> bool:
    try:
        config = _json(folder / "config.json")
    except BadInput:
        # The config.json of some other program, which need not hold an object.
        return False
    architectures = config.get("architectures") or ["LlamaForCausalLM"]
    return "model_type" in config and any(
        str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in architectures
    )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model, in order. BadInput: no safetensors (pickled weights run code
    when they are loaded), code of its own, a missing shard, a cut file, no tokenizer."""
    refuse_code(folder)
    if not _any(folder, "model*.safetensors"):
        _refuse_adapter(folder)
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
            _refuse_torn(path)
    return files


def _refuse_adapter(folder: Path) -> None:
    """Raise BadInput where the folder holds an adapter and no whole model."""
    if (folder / "adapter_config.json").exists():
        raise BadInput(
            f"{folder}: is an adapter, where a whole model is wanted; merge it into its base "
            "(peft: merge_and_unload, then save_pretrained) and give what that writes"
        )


def refuse_code(folder: Path) -> None:
    """Raise BadInput where a model or its tokenizer needs code of its own (`auto_map`)."""
    for path in (folder / "config.json", *folder.glob("tokenizer_config.json")):
        if "auto_map" in _json(path):
            raise BadInput(
                f"{folder}: brings its own code ({path.name}: auto_map), which is not run; give a "
                "model without it"
            )


def only_model(paths: list[Path], label: str) -> Path:
    """Return the folder of the one model among the user's files. `label` names their folder in
    messages. BadInput: there is no model, or more than one."""
    models = folders(paths)
    if len(models) != 1:
        for path in [] if models else sorted(paths):
            if path.name == "config.json":
                # Raises an error where this file is why no model was found.
                _json(path)
            if path.name == "adapter_config.json":
                _refuse_adapter(path.parent)
        have = ", ".join(map(str, models)) or "none"
        raise BadInput(
            f"{label}: one language model is expected (config.json of a ...ForCausalLM, "
            f"model.safetensors, a tokenizer), have {have}"
        )
    return models[0]


def copy(paths: list[Path], out: Path, label: str, further: bool = False) -> dict[str, object]:
    """Copy the one model among the user's files to `out`, whole or not at all.

    Faults of its small files are repaired, and its tokenizer is proven. `label` names the user's
    folder in messages. Return the account of the model. BadInput: as for `only_model`, or
    model_files or tokenizer.account refuses it.
    """
    chosen = model_files(only_model(paths, label))
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            # Small files may be written anew, so they are copied. A link would lead into the user's
            # own files.
            place = shutil.copyfile if path.suffix != ".safetensors" else os.symlink
            place(path.resolve(), Path(folder) / path.name)
        try:
            mended = mend(Path(folder))
            proven = tokenizer.account(Path(folder), label, further)
        except BadInput as error:
            message = str(error).removeprefix("error: ")
            raise BadInput(message.replace(folder, str(chosen[0].parent))) from None
        work.publish(Path(folder), out)
    account = {"source": "local", "files": [path.name for path in chosen], **proven}
    return {**account, "mended": mended} if mended else account


def mend(folder: Path) -> list[str]:
    """Repair faults of a model's small files over which a later stage would fail. Return a line for
    each repair. Files are replaced, never written into, because they may be links."""
    config = _json(folder / "config.json")
    done = [*_mend_padding(folder, config), *_mend_end(folder, config)]
    return done + _mend_generation(folder)


def _mend_padding(folder: Path, config: dict[str, Any]) -> list[str]:
    """Take out a padding id for which the embedding has no row. Torch would refuse to make that
    embedding."""
    # Torch counts a negative padding id from the end: -1 is the last row.
    pad, rows = config.get("pad_token_id"), config.get("vocab_size")
    if not isinstance(pad, int) or not isinstance(rows, int) or -rows <= pad < rows:
        return []
    _write(folder / "config.json", config | {"pad_token_id": None})
    return [f"config.json: pad_token_id {pad} taken out, the embedding has {rows} rows"]


def _mend_end(folder: Path, config: dict[str, Any]) -> list[str]:
    """Give a tokenizer that lacks an end-of-sequence token the one with which the model ends."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception:
        # The proof of the tokenizer, which follows, says what is wrong with it.
        return []
    path = folder / "generation_config.json"
    ids = [(_json(path) if path.exists() else {}).get("eos_token_id"), config.get("eos_token_id")]
    candidates = [n for value in ids for n in (value if isinstance(value, list) else [value])]
    ends = [n for n in candidates if isinstance(n, int) and 0 <= n < len(tokenizer)]
    if tokenizer.eos_token is not None or not ends:
        return []
    token = tokenizer.convert_ids_to_tokens(ends[0])
    path = folder / "tokenizer_config.json"
    _write(path, (_json(path) if path.exists() else {}) | {"eos_token": token})
    return [f"tokenizer_config.json: eos_token {token!r}, the id {ends[0]} by which the model ends"]


def _mend_generation(folder: Path) -> list[str]:
    """Change a generation_config.json that transformers would refuse to save with a checkpoint."""
    path = folder / "generation_config.json"
    if not path.exists():
        return []
    settings = _json(path)
    if (why := _save_refusal(settings)) is None:
        return []
    # Most often it has numbers for sampling beside greedy search. Its author meant to sample.
    ids = {key: value for key, value in settings.items() if key.endswith("_token_id")}
    tries = {"do_sample: true": settings | {"do_sample": True}, "the ids of its tokens alone": ids}
    repair = next(name for name, values in tries.items() if _save_refusal(values) is None)
    _write(path, tries[repair])
    return [f"generation_config.json: {repair}, because transformers would not save it ({why})"]


def _save_refusal(settings: dict[str, Any]) -> str | None:
    """Return the reason why transformers refuses to save a generation_config.json, None where it
    does not."""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_dict(settings).validate(strict=True)
    except Exception as error:  # ValueError, or whatever a value of another type leads to
        lines = [line.strip(" -") for line in str(error).splitlines()]
        return next((line for line in lines[1:] if line), str(error)).partition(". ")[0][:120]
    return None


def _write(path: Path, value: dict[str, Any]) -> None:
    # Not files.write_json: transformers' own files may hold Infinity, which plain JSON lacks.
    files.write(path, [json.dumps(value, indent=2, ensure_ascii=False) + "\n"])


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


def _refuse_torn(path: Path) -> None:
    """Raise BadInput where a safetensors file is cut, or is a Git LFS pointer. The header shows it:
    its own length as eight bytes, then JSON that says where each tensor ends."""
    if not path.is_file():
        raise BadInput(f"{path}: a link to a file that is gone; fetch it again")
    with path.open("rb") as data:
        start = data.read(8)
        size = int.from_bytes(start, "little")
        if start == b"version ":
            raise BadInput(
                f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` in its "
                "repository, or download the file itself"
            )
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
