"""Proof, when a model is fetched, that its tokenizer does what all later stages rely on.

`prove`: transformers cuts text as the tokenizer's own file says. OpenLLaMA brings sentencepiece's
file alone, and its authors warn of the tokenizer that transformers converts it to. transformers 5
also puts a class's own preparation in place of the one in tokenizer.json.

`fits`: a base's tokenizer gives a text back, an answer has tokens of its own behind its prompt, and
a checkpoint that was saved with it asks as it was trained.
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
# What no prompt and no answer may lose
PLAIN = (
    "Hi there, my friend.",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789",
    '1. (One) line: "it\'s" - so!\n2. Another; is it?\n\nA paragraph.',
)
# What is told where a tokenizer writes it in another form
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
UNIGRAM = 1  # a type of sentencepiece model; the others merge
NORMAL, CONTROL, SYMBOL, BYTE = 1, 3, 4, 6  # types of a sentencepiece model's pieces
TEXT_TYPES = (NORMAL, SYMBOL)  # those that a text is cut into
LEAST = -1e4  # a score that no text's best pieces have
AT_ONCE = 8  # of them in a text
SHOWN = 12  # characters in a message
CHARACTERS = 160  # of a library's error that is shown


def prove(folder: Path, name: str) -> bool:
    """See that the tokenizer that transformers loads from `folder` cuts TEXTS, and pieces of its
    own vocabulary, as its file says: tokenizer.model where there is one, else tokenizer.json.
    Where it does not, write one that does (tokenizer.json, and tokenizer_config.json to go with
    it) and prove that. Returns whether it was written. BadInput, on `name`: neither does."""
    if (folder / SPM).is_file():
        file, (right, texts, rebuilt) = SPM, _sentencepiece(folder, name)
    else:
        fast(folder, name)
        file, (right, texts, rebuilt) = FAST, _as_it_stands(folder, name)
    loaded = _loaded(folder, name)
    if _difference(loaded, right, texts) is None:
        fast(folder, name)
        return False
    _write(folder, loaded, rebuilt())
    different = _difference(_loaded(folder, name), right, texts)
    if different is not None:
        raise BadInput(
            f"{name}: transformers cuts {different[:80]!r} otherwise than {file} does, and so does "
            "a tokenizer made after it; put the model with a right tokenizer.json into local/base "
            "(profile local)"
        )
    return True


def fits(folder: Path, name: str) -> list[str]:
    """See that the recipe can be trained with the tokenizer at `folder`. It gives plain text back,
    parts every answer from its prompt, and is the same once it was saved and loaded anew. Returns
    the kinds of text (KINDS) that it writes in another form. BadInput, on `name`: it cannot."""
    try:
        tokenizer = loading.tokenizer(folder)
        _refuse_lossy(tokenizer, name)
        _refuse_changed(tokenizer, name)
        kinds = [*KINDS]
        return [kinds[n] for n in _altered(tokenizer, name, [*KINDS.values()])]
    except BadInput as error:
        raise BadInput(str(error).removeprefix("error: ").replace(str(folder), name)) from None


def account(folder: Path, name: str, further: bool = False) -> dict[str, object]:
    """Prove the tokenizer at `folder`, and that it fits the recipe where the model is no `further`
    one. Returns what source.json says of it. BadInput, on `name`: as of `prove` and `fits`."""
    file = SPM if (folder / SPM).is_file() else FAST
    made = f"made from {file}" if prove(folder, name) else "as it came"
    altered = [] if further else fits(folder, name)
    return {"tokenizer": made, **({"tokenizer_alters": altered} if altered else {})}


def fast(folder: Path, name: str) -> None:
    """See that `folder` holds tokenizer.json, by which data are measured without transformers;
    where it does not, save what transformers makes of the files that are there. BadInput, on
    `name`: it makes none."""
    if (folder / FAST).is_file():
        return
    loaded = _loaded(folder, name)
    if not loaded.is_fast:
        raise BadInput(
            f"{name}: has no tokenizer.json and transformers makes none of its other files; save "
            "the tokenizer in its fast form (use_fast=True) beside the weights"
        )
    loaded.backend_tokenizer.save(str(folder / FAST))


def _loaded(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises no narrower one
        why = " ".join(str(error).split())[:CHARACTERS]
        raise BadInput(
            f"{name}: transformers cannot load its tokenizer ({why}); name another revision"
        ) from None


# --- how text is cut -----------------------------------------------------------------------------

Cut = Callable[[str], list[int]]
Right = tuple[Cut, list[str], Callable[[], Any]]


def _sentencepiece(folder: Path, name: str) -> Right:
    """Return how tokenizer.model cuts a text, texts to prove it on, and a maker of its like."""
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    data = (folder / SPM).read_bytes()
    try:
        processor = SentencePieceProcessor(model_proto=data)
        proto = ModelProto.FromString(data)
    except Exception:  # the two raise classes of their own
        raise BadInput(f"{name}: {SPM} is no sentencepiece model; name another revision") from None
    texts = [piece.piece for piece in proto.pieces if piece.type in TEXT_TYPES]
    return processor.encode, [*TEXTS, *_sampled(texts)], lambda: _rebuilt(proto, processor)


def _as_it_stands(folder: Path, name: str) -> Right:
    """Return how tokenizer.json cuts a text, texts to prove it on, and a maker of its like."""
    from tokenizers import Tokenizer

    def made() -> Any:
        backend = Tokenizer.from_file(str(folder / FAST))
        if getattr(backend.model, "dropout", None):
            backend.model.dropout = None  # it would cut a text another way each time
        backend.no_truncation()
        backend.no_padding()
        return backend

    try:
        backend = made()
    except Exception as error:  # tokenizers raises no narrower one
        why = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"{name}: {FAST} cannot be read ({why}); save it with this project's tokenizers, or "
            "name another revision"
        ) from None
    backend.encode_special_tokens = True

    def right(text: str) -> list[int]:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    vocabulary = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    pieces = [backend.decode([number]) for _, number in _spread(vocabulary)]
    return right, [*TEXTS, *_sampled(pieces)], made


def _spread(things: Sequence[Any]) -> list[Any]:
    """Take about SAMPLED of them, evenly spread."""
    step = max(1, len(things) // SAMPLED)
    return list(things[::step])


def _sampled(pieces: Sequence[str]) -> list[str]:
    """Make texts of some of a vocabulary's pieces, side by side and with blanks between."""
    some = [piece.replace("▁", " ") for piece in _spread(pieces)]
    groups = [some[n : n + AT_ONCE] for n in range(0, len(some), AT_ONCE)]
    return [mark.join(group) for group in groups for mark in ("", " ")]


def _difference(loaded: Any, right: Cut, texts: Sequence[str]) -> str | None:
    """Find the first of `texts` that the two cut into different ids."""
    for text in texts:
        ids = loaded(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ids != right(text):
            return text
    return None


# --- a tokenizer made anew -----------------------------------------------------------------------


def _write(folder: Path, loaded: Any, backend: Any) -> None:
    """Save `backend` with what `loaded` adds to a text, in a class that keeps its preparation."""
    from transformers import PreTrainedTokenizerFast

    backend.post_processor = loaded.backend_tokenizer.post_processor
    path = folder / CONFIG
    path.unlink(missing_ok=True)
    # LlamaTokenizer would put its own preparation in place of this one when it loads the file
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=loaded.model_max_length,
        clean_up_tokenization_spaces=False,
        **loaded.special_tokens_map,
    ).save_pretrained(folder)


def _rebuilt(proto: Any, processor: Any) -> Any:
    """Make a tokenizer after a sentencepiece model."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        if "\r" not in processor.normalize("\r"):
            # Precompiled takes CR LF for one character and would map its first half alone
            steps.append(normalizers.Replace("\r\n", "\r\r"))
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # blanks alone: Strip would take line breaks too
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
    """Part the name of a special token in a text behind its first character, where no piece holds
    that character. The pieces of the name could cost more than the special token otherwise."""
    from tokenizers import Regex, pre_tokenizers

    known = {c for piece in proto.pieces if piece.type in TEXT_TYPES for c in piece.piece}
    names = [piece.piece for piece in proto.pieces if piece.type not in (*TEXT_TYPES, BYTE)]
    firsts = [f"{re.escape(n[0])}(?={re.escape(n[1:])})" for n in names if n[0] not in known]
    if firsts:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(firsts)), "isolated")


def _model(proto: Any) -> Any:
    """Make the model of tokenizers that stands for a sentencepiece model. Among neighbours that
    could be merged, sentencepiece takes those whose piece has the highest score."""
    from tokenizers import models

    spec, pieces = proto.trainer_spec, proto.pieces
    if spec.model_type == UNIGRAM:
        highest = max((piece.score for piece in pieces if piece.type == NORMAL), default=0.0)
        scored = [(piece.piece, _score(piece, highest)) for piece in pieces]
        return models.Unigram(scored, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    scores = {piece.piece: piece.score for piece in pieces if piece.type in TEXT_TYPES}
    merges = [
        (-scores[piece], at, piece[:at], piece[at:])
        for piece in scores
        for at in range(1, len(piece))
        if piece[:at] in scores and piece[at:] in scores
    ]
    return models.BPE(
        {piece.piece: number for number, piece in enumerate(pieces)},
        [(left, right) for *_, left, right in sorted(merges, key=lambda merge: merge[:2])],
        unk_token=pieces[spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
        # a symbol of the model's own is one token, whatever merges there are
        ignore_merges=any(piece.type == SYMBOL for piece in pieces),
    )


def _score(piece: Any, highest: float) -> float:
    """Score a piece of a unigram model. sentencepiece favours symbols of the model's own. A piece
    of another type is no part of a text: <s> in a text is text."""
    if piece.type == SYMBOL:
        return len(piece.piece) * highest - 0.1
    return float(piece.score) if piece.type == NORMAL else LEAST


# --- what the recipe needs of a base -------------------------------------------------------------


def _altered(tokenizer: Any, name: str, answers: Sequence[str]) -> list[int]:
    """Return the places of the answers that come back in another form behind a prompt. BadInput,
    on `name`: an answer that cannot be parted from it."""
    prompt = chat.prompt([Message(role="user", content="Hello.")])
    pairs = [(prompt, answer) for answer in answers]
    parted = chat.answer_ids(tokenizer, pairs, f"{name}: proof of its tokenizer")
    return chat.altered(tokenizer, pairs, parted)


def _refuse_lossy(tokenizer: Any, name: str) -> None:
    """BadInput where a character of a prompt or of plain English does not come back."""
    prompt = chat.prompt([Message(role="user", content="Hello.")])
    characters = sorted({*prompt, *"".join(PLAIN)})
    texts = [f"a{character}a" for character in characters]
    rows = zip(characters, texts, chat.decode(tokenizer, chat.ids(tokenizer, texts)), strict=True)
    lost = [c for c, text, back in rows if not chat.gives_back(back, text)]
    if lost:
        shown = ", ".join(repr(character) for character in lost[:SHOWN])
        raise BadInput(
            f"{name}: its tokenizer cannot write {len(lost)} characters of plain text ({shown}), "
            "so that no prompt and no answer could hold them; take a base with another tokenizer"
        )
    wholes = [prompt + answer for answer in PLAIN]
    for text, back in zip(wholes, chat.decode(tokenizer, chat.ids(tokenizer, wholes)), strict=True):
        if not chat.gives_back(back, text):
            at = sum(
                1 for _ in takewhile(lambda two: two[0] == two[1], zip(text, back, strict=False))
            )
            was, came = (each[max(0, at - 20) : at + 20] for each in (text, back))
            raise BadInput(
                f"{name}: its tokenizer loses plain text: {was!r} comes back as {came!r}; take a "
                "base with another tokenizer"
            )


def _refuse_changed(tokenizer: Any, name: str) -> None:
    """BadInput where a checkpoint's tokenizer, saved and loaded anew, gives other ids."""
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
