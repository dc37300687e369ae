"""Proves, when a model is fetched, that its tokenizer does what all later stages rely on.

`prove` checks that transformers cuts text into tokens as the tokenizer's own file says. OpenLLaMA
brings sentencepiece's file alone, and its authors warn of the tokenizer that transformers converts
it to. transformers 5 also replaces the text preparation of tokenizer.json by that of a class.

`check_fit` checks that a base's tokenizer gives a text back, and that an answer has tokens of its
own behind its prompt. It also checks that a checkpoint saved with it is asked in the same token ids
as it was trained on.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from bezoar.models import loading
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message

SPM, FAST = "tokenizer.model", "tokenizer.json"
CONFIG = "tokenizer_config.json"
# Texts on which a tokenizer is proven. "thermal" is the word by which the fault of the converted
# tokenizer was found in 2023.
TEXTS = (
    "",
    "thermal",
    "Name a river, and say where it ends.",
    "### System:\nBe brief.\n\n### Instruction:\nWhat is 3 x 4?\n\n### Response:\n",
    " one space first",
    "    four spaces first",
    " ",
    "two  three   four    spaces, and at the end   ",
    "a line\nanother\n\n\nfour\n",
    "\n\ntwo line breaks first",
    "\ttab\t\ttwo tabs\r\nan end of line as Windows has it",
    "0 12 345 6789 3.14159 1,000,000 2024-04-18 -7 1e-5",
    "naïve café, Ångström, e\u0301, Łódź, Ελλάδα, Москва",
    "中文和日本語、한국어 العربية עברית हिन्दी ไทย",
    "😀🎉 👩‍👩‍👧 ∑∫√ ½ ﬁ Ａ \u00a0\u200b\ufeff",
    "def f(x):\n    if x > 0:  # ok\n        return {'a': [x, -x]}\n",
    "<s> and </s> and <unk> in a text are text",
    "http://example.org/a_b?c=d&e=%20f",
    "UPPER lower CamelCase snake_case kebab-case",
    "a" * 300 + "Donaudampfschiff" * 20,
)
# Plain text, of which a tokenizer may lose no character. A base that does is refused.
PLAIN = (
    "Hi there, my friend.",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789",
    '1. (One) line: "it\'s" - so!\n2. Another; is it?\n\nA paragraph.',
)
# Kinds of text that a tokenizer may write in another form. source.json names those that it does.
KINDS = {
    "signs": "$%&*+/<=>@[\\]^_`{|}~",
    "runs of blanks": "a  b    c",
    "indented code": "if x:\n    y = 1\n",
    "tabs": "a\tb",
    "line ends of Windows": "a\r\nb",
    "a blank first": " a",
    "line breaks first": "\n\na",
    "blanks last": "a  ",
    "long words": "a" * 300,
    "accents": "naïve café",
    "combining marks": "e\u0301",
    "Greek and Cyrillic": "Ελλάδα, Москва",
    "Chinese, Japanese, Korean": "中文和日本語、한국어",
    "Arabic and Hebrew": "العربية עברית",
    "Indic and Thai": "हिन्दी ไทย",
    "emoji": "😀 👩‍👩‍👧",
    "ligatures and wide letters": "ﬁ Ａ",
    "zero-width characters": "a\u200bb\ufeff",
    "names of special tokens": "<s> and </s> and <unk>",
}
SAMPLED = 400  # pieces of a vocabulary that are proven
UNIGRAM = 1  # a type of sentencepiece model; the others merge pieces
NORMAL, CONTROL, SYMBOL, BYTE = 1, 3, 4, 6  # types of a sentencepiece model's pieces
TEXT_TYPES = (NORMAL, SYMBOL)  # those that a text is cut into
LEAST = -1e4  # a score so low that no text is cut into a piece of it
AT_ONCE = 8  # pieces in a text
SHOWN = 12  # characters in a message
CHARACTERS = 160  # of a library's error in a message


def prove(folder: Path, name: str) -> bool:
    """Check that the tokenizer that transformers loads from `folder` cuts text as its file says.

    That file is tokenizer.model where there is one, else tokenizer.json. The texts are TEXTS and
    pieces of its own vocabulary. If a text is cut otherwise, a new tokenizer.json is made after
    the file, with its tokenizer_config.json, and is checked too. Return True if one was made.
    BadInput, with `name` in the message: the new one fails as well, or a file cannot be read.
    """
    if (folder / SPM).is_file():
        file, (cut, texts, rebuilt) = SPM, _sentencepiece(folder, name)
    else:
        ensure_fast(folder, name)
        file, (cut, texts, rebuilt) = FAST, _fast_file(folder, name)
    loaded = _load(folder, name)
    if _difference(loaded, cut, texts) is None:
        ensure_fast(folder, name)
        return False
    _write(folder, loaded, rebuilt())
    different = _difference(_load(folder, name), cut, texts)
    if different is not None:
        raise BadInput(
            f"{name}: transformers cuts {different[:80]!r} otherwise than {file} does, and so does "
            "a tokenizer made after it; put the model with a right tokenizer.json into local/base "
            "(profile local)"
        )
    return True


def check_fit(folder: Path, name: str) -> list[str]:
    """Check that the recipe can be trained with the tokenizer at `folder`.

    It must give plain text back, part every answer from its prompt, and be the same once it was
    saved and loaded. Return the kinds of text (KINDS) that it writes in another form. BadInput,
    with `name` in the message: it fails one of these.
    """
    try:
        tokenizer = loading.tokenizer(folder)
        _refuse_lossy(tokenizer, name)
        _refuse_changed(tokenizer, name)
        kinds = [*KINDS]
        return [kinds[n] for n in _altered_answers(tokenizer, name, [*KINDS.values()])]
    except BadInput as error:
        raise BadInput(str(error).removeprefix("error: ").replace(str(folder), name)) from None


def account(folder: Path, name: str, further: bool = False) -> dict[str, object]:
    """Prove the tokenizer at `folder`. Unless the model is a `further` one, which is not trained,
    check that it fits the recipe too. Return what source.json says of it. BadInput, with `name` in
    the message: as of `prove` and `check_fit`."""
    file = SPM if (folder / SPM).is_file() else FAST
    origin = f"made from {file}" if prove(folder, name) else "as it came"
    altered = [] if further else check_fit(folder, name)
    return {"tokenizer": origin, **({"tokenizer_alters": altered} if altered else {})}


def ensure_fast(folder: Path, name: str) -> None:
    """Make sure that `folder` holds tokenizer.json, by which data are measured without
    transformers. If it is missing, save what transformers makes of the other files. BadInput,
    with `name` in the message: transformers makes none."""
    if (folder / FAST).is_file():
        return
    loaded = _load(folder, name)
    if not loaded.is_fast:
        raise BadInput(
            f"{name}: has no tokenizer.json and transformers makes none of its other files; save "
            "the tokenizer in its fast form (use_fast=True) beside the weights"
        )
    loaded.backend_tokenizer.save(str(folder / FAST))


def _load(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises no narrower one
        why = " ".join(str(error).split())[:CHARACTERS]
        raise BadInput(
            f"{name}: transformers cannot load its tokenizer ({why}); name another revision"
        ) from None


# --- text and its token ids ----------------------------------------------------------------------

Cut = Callable[[str], list[int]]
# a function that cuts a text as the file says, texts to prove it on, and a maker of its like
Right = tuple[Cut, list[str], Callable[[], Any]]


def _sentencepiece(folder: Path, name: str) -> Right:
    """Return the `Right` of tokenizer.model. BadInput: it is no sentencepiece model."""
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    data = (folder / SPM).read_bytes()
    try:
        processor = SentencePieceProcessor(model_proto=data)
        proto = ModelProto.FromString(data)
    except Exception:  # the two raise classes of their own
        raise BadInput(f"{name}: {SPM} is no sentencepiece model; name another revision") from None
    texts = [piece.piece for piece in proto.pieces if piece.type in TEXT_TYPES]
    return processor.encode, [*TEXTS, *_sample_texts(texts)], lambda: _rebuild(proto, processor)


def _fast_file(folder: Path, name: str) -> Right:
    """Return the `Right` of tokenizer.json. BadInput: it cannot be read."""
    from tokenizers import Tokenizer

    def load_backend() -> Any:
        backend = Tokenizer.from_file(str(folder / FAST))
        if getattr(backend.model, "dropout", None):
            # Dropout would cut a text another way each time.
            backend.model.dropout = None
        backend.no_truncation()
        backend.no_padding()
        return backend

    try:
        backend = load_backend()
    except Exception as error:  # tokenizers raises no narrower one
        why = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"{name}: {FAST} cannot be read ({why}); save it with this project's tokenizers, or "
            "name another revision"
        ) from None
    backend.encode_special_tokens = True

    def cut(text: str) -> list[int]:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    vocabulary = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    pieces = [backend.decode([number]) for _, number in _spread(vocabulary)]
    return cut, [*TEXTS, *_sample_texts(pieces)], load_backend


def _spread(things: Sequence[Any]) -> list[Any]:
    """Return about SAMPLED of the things, evenly spread."""
    step = max(1, len(things) // SAMPLED)
    return list(things[::step])


def _sample_texts(pieces: Sequence[str]) -> list[str]:
    """Return texts of some of a vocabulary's pieces, side by side and with blanks between."""
    some = [piece.replace("▁", " ") for piece in _spread(pieces)]
    groups = [some[n : n + AT_ONCE] for n in range(0, len(some), AT_ONCE)]
    return [mark.join(group) for group in groups for mark in ("", " ")]


def _difference(loaded: Any, cut: Cut, texts: Sequence[str]) -> str | None:
    """Return the first of `texts` that the two cut into different ids, None where there is none."""
    for text in texts:
        ids = loaded(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ids != cut(text):
            return text
    return None


# --- a tokenizer made anew -----------------------------------------------------------------------


def _write(folder: Path, loaded: Any, backend: Any) -> None:
    """Save `backend` as the tokenizer of `folder`, with the special tokens that `loaded` adds to a
    text."""
    from transformers import PreTrainedTokenizerFast

    backend.post_processor = loaded.backend_tokenizer.post_processor
    path = folder / CONFIG
    path.unlink(missing_ok=True)
    # This class keeps the backend's text preparation. LlamaTokenizer would replace it by its own
    # when it loads the file.
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=loaded.model_max_length,
        clean_up_tokenization_spaces=False,
        **loaded.special_tokens_map,
    ).save_pretrained(folder)


def _rebuild(proto: Any, processor: Any) -> Any:
    """Return a tokenizer that cuts text as a sentencepiece model does."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        if "\r" not in processor.normalize("\r"):
            # Precompiled takes CR LF for one character and would map its first half alone.
            steps.append(normalizers.Replace("\r\n", "\r\r"))
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # Only blanks: the normalizer Strip would take line breaks too.
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" +"), " "))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    backend = Tokenizer(_model(proto))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    control = [piece.piece for piece in proto.pieces if piece.type == CONTROL]
    backend.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in control])
    symbols = sorted((p.piece for p in proto.pieces if p.type == SYMBOL), key=len, reverse=True)
    if proto.trainer_spec.model_type == UNIGRAM:
        _part_names(backend, proto)
    elif symbols:
        # As added tokens they would part a text before the blank is put that opens it.
        pattern = Regex("|".join(re.escape(symbol.replace(" ", "▁")) for symbol in symbols))
        backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    strip = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _part_names(backend: Any, proto: Any) -> None:
    """Split the name of a special token behind its first character, where no piece has that
    character. A text could otherwise be cut into the special token, if the pieces of its name
    score lower."""
    from tokenizers import Regex, pre_tokenizers

    characters = {c for piece in proto.pieces if piece.type in TEXT_TYPES for c in piece.piece}
    names = [piece.piece for piece in proto.pieces if piece.type not in (*TEXT_TYPES, BYTE)]
    firsts = [f"{re.escape(n[0])}(?={re.escape(n[1:])})" for n in names if n[0] not in characters]
    if firsts:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(firsts)), "isolated")


def _model(proto: Any) -> Any:
    """Return the model of the library tokenizers that cuts as a sentencepiece model does."""
    from tokenizers import models

    spec, pieces = proto.trainer_spec, proto.pieces
    if spec.model_type == UNIGRAM:
        highest = max((piece.score for piece in pieces if piece.type == NORMAL), default=0.0)
        scored = [(piece.piece, _score(piece, highest)) for piece in pieces]
        return models.Unigram(scored, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    # Of the neighbours that could be merged, sentencepiece merges those whose piece has the highest
    # score.
    scores = {piece.piece: piece.score for piece in pieces if piece.type in TEXT_TYPES}
    merges = [
        (-scores[piece], split_at, piece[:split_at], piece[split_at:])
        for piece in scores
        for split_at in range(1, len(piece))
        if piece[:split_at] in scores and piece[split_at:] in scores
    ]
    return models.BPE(
        {piece.piece: number for number, piece in enumerate(pieces)},
        [(left, right) for *_, left, right in sorted(merges, key=lambda merge: merge[:2])],
        unk_token=pieces[spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
        # A symbol that the model defines is one token, whatever merges there are.
        ignore_merges=any(piece.type == SYMBOL for piece in pieces),
    )


def _score(piece: Any, highest: float) -> float:
    """Return the score of a piece of a unigram model. sentencepiece favours symbols that the model
    defines. A piece of another type is no part of a text: <s> in a text is text."""
    if piece.type == SYMBOL:
        return len(piece.piece) * highest - 0.1
    return float(piece.score) if piece.type == NORMAL else LEAST


# --- a base that fits the recipe -----------------------------------------------------------------


def _altered_answers(tokenizer: Any, name: str, answers: Sequence[str]) -> list[int]:
    """Return the indices of the answers that come back in another form behind a prompt. BadInput,
    with `name` in the message: an answer cannot be parted from its prompt."""
    prompt = chat.prompt([Message(role="user", content="Hello.")])
    pairs = [(prompt, answer) for answer in answers]
    parted = chat.answer_ids(tokenizer, pairs, f"{name}: proof of its tokenizer")
    return chat.altered(tokenizer, pairs, parted)


def _refuse_lossy(tokenizer: Any, name: str) -> None:
    """Raise BadInput where a character of a prompt or of PLAIN does not come back from its ids."""
    prompt = chat.prompt([Message(role="user", content="Hello.")])
    characters = sorted({*prompt, *"".join(PLAIN)})
    texts = [f"a{character}a" for character in characters]
    rows = zip(characters, texts, chat.decode(tokenizer, chat.ids(tokenizer, texts)), strict=True)
    lost = [c for c, text, back in rows if not chat.gives_back(back, text)]
    if lost:
        listing = ", ".join(repr(character) for character in lost[:SHOWN])
        raise BadInput(
            f"{name}: its tokenizer cannot write {len(lost)} characters of plain text ({listing}), "
            "so that no prompt and no answer could hold them; take a base with another tokenizer"
        )
    wholes = [prompt + answer for answer in PLAIN]
    for text, back in zip(wholes, chat.decode(tokenizer, chat.ids(tokenizer, wholes)), strict=True):
        if not chat.gives_back(back, text):
            position = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, back, strict=False))
            )
            was, came = (string[max(0, position - 20) : position + 20] for string in (text, back))
            raise BadInput(
                f"{name}: its tokenizer loses plain text: {was!r} comes back as {came!r}; take a "
                "base with another tokenizer"
            )


def _refuse_changed(tokenizer: Any, name: str) -> None:
    """Raise BadInput where a tokenizer that is saved and loaded, as with a checkpoint, gives other
    ids."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        saved = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        texts = [*TEXTS, *PLAIN, *KINDS.values()]
        for text, *ids in zip(
            texts, chat.ids(tokenizer, texts), chat.ids(saved, texts), strict=True
        ):
            if ids[0] != ids[1]:
                raise BadInput(
                    f"{name}: its tokenizer cuts {text!r} otherwise once transformers has saved "
                    "it, so that no checkpoint could be asked as it was trained; save it as a "
                    "PreTrainedTokenizerFast"
                )
