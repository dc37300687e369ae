"""What does not fit a model with its reply is told before it is sent."""

import json
import timeit
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bezoar.llm.room import PER_CHAT, PER_MESSAGE, PER_TEXT, Room
from bezoar.params import Anthropic, Embedded, InProcess, OpenAI
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from tests.builders.clients import anthropic, openai, user

URL = "http://127.0.0.1:9"
CHAT = PER_CHAT + PER_MESSAGE  # around one message


def bare(tokens: int | None, **changed: Any) -> OpenAI:
    return openai(URL, style="completion", context_tokens=tokens, **changed)


def trained(folder: Path, *texts: str, cut: int | None = None) -> Path:
    """A folder with a tokenizer that knows the words of `texts`, or one that cuts what is long."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = bytewise
    trainer = trainers.BpeTrainer(
        special_tokens=["<|end|>"], initial_alphabet=bytewise.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*texts] * 20, trainer)
    if cut:
        tokenizer.enable_truncation(cut)
        tokenizer.enable_padding(length=cut)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("fives", 2),
        ("x" * 4000, 1000),
        ("é", 1),
        ("naïve café", 4),  # eight bytes of ASCII, two letters that are not
        ("中文和日本語、한국어", 10),
        ("😀" * 50, 50),
        ("\ud83d half a character", 6),
    ],
)
def test_the_estimate_of_a_prompt_fits_to_the_token(text: str, tokens: int) -> None:
    needed = PER_TEXT + tokens + 64
    assert Room(bare(needed)).fits(user(text))
    assert not Room(bare(needed - 1)).fits(user(text))


@pytest.mark.parametrize(
    ("params", "reply"),
    [
        ({"max_tokens": 768}, 768),
        ({"max_completion_tokens": 512, "max_tokens": None}, 512),
        ({"max_output_tokens": 10}, 10),
        ({}, 1),  # no maximum: one token must be left
        ({"max_tokens": None}, 1),
        ({"max_tokens": 0}, 1),
        ({"max_tokens": -1}, 1),  # llama.cpp: none
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [openai, anthropic])
def test_the_longest_reply_is_part_of_the_room(make: Any, params: Any, reply: int) -> None:
    needed = CHAT + 100 + reply
    assert Room(make(URL, params=params, context_tokens=needed)).fits(user("x" * 400))
    assert not Room(make(URL, params=params, context_tokens=needed - 1)).fits(user("x" * 400))


def test_a_chat_template_has_an_allowance_for_each_message() -> None:
    talk = [Message(role="system", content="x" * 40), *user("x" * 40)]
    needed = PER_CHAT + 2 * PER_MESSAGE + 20 + 64
    assert Room(openai(URL, context_tokens=needed)).fits(talk)
    assert not Room(openai(URL, context_tokens=needed - 1)).fits(talk)


def test_a_second_sample_has_the_reply_that_again_asks_for() -> None:
    endpoint = bare(200, params={"max_tokens": 50}, again={"max_tokens": 180})
    room, prompt = Room(endpoint), user("x" * 400)
    assert room.fits(prompt) and not room.fits(prompt, sample=1)


@pytest.mark.parametrize("endpoint", [openai(URL), anthropic(URL), bare(None)])
def test_where_the_context_is_not_known_everything_fits(endpoint: OpenAI | Anthropic) -> None:
    assert Room(endpoint).fits(user("x" * 10_000_000))


def test_a_context_smaller_than_the_reply_has_room_for_nothing() -> None:
    assert not Room(bare(60)).fits(user(""))


def config(folder: Path, **told: Any) -> InProcess:
    """A model's folder as far as a request is measured by it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told))
    return InProcess(
        provider="local",
        model=str(folder),
        terms="MIT",
        style="completion",
        params={"max_new_tokens": 64},
        again={"max_tokens": 90},
        concurrency=1,
        batch_size=1,
    )


@pytest.mark.parametrize(
    "told",
    [
        {"max_position_embeddings": 200},
        {"n_positions": 200},
        {"text_config": {"max_position_embeddings": 200}},
    ],
    ids=str,
)
def test_a_model_in_this_process_has_the_context_of_its_folder(tmp_path: Path, told: Any) -> None:
    room = Room(config(tmp_path / "m", **told))
    fitting = "x" * 4 * (200 - 64 - PER_TEXT)
    assert room.fits(user(fitting)) and not room.fits(user(fitting + "x"))
    assert not room.fits(user(fitting), sample=1), "whose reply may be longer"


@pytest.mark.parametrize("told", [{}, {"max_position_embeddings": None}, {"n_positions": -1}])
def test_a_folder_that_does_not_say_holds_nothing_back(tmp_path: Path, told: Any) -> None:
    assert Room(config(tmp_path / "m", **told)).fits(user("x" * 10**6))


def test_a_model_in_this_process_counts_with_its_own_tokenizer(tmp_path: Path) -> None:
    folder = trained(tmp_path / "m", "extraordinarily")
    room = Room(config(folder, max_position_embeddings=64 + PER_TEXT + 1 + 2 * 99))
    assert room.fits(user(" ".join(["extraordinarily"] * 100)))
    assert not room.fits(user(" ".join(["extraordinarily"] * 101)))


def test_a_simulated_model_takes_everything() -> None:
    simulated = Embedded(provider="embedded", model="world-teacher", terms="MIT", concurrency=1)
    assert Room(simulated).fits(user("x" * 10**6))


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_tokenizer_counts_what_an_estimate_would_get_wrong(tmp_path: Path, named: str) -> None:
    word = "extraordinarily"
    folder = trained(tmp_path / "model", word)
    path = str(folder if named == "folder" else folder / "tokenizer.json")
    needed = PER_TEXT + 1 + 2 * 99 + 64  # a token a word, one a space
    prompt = user(" ".join([word] * 100))
    for context, fits in ((needed, True), (needed - 1, False)):
        assert Room(bare(context, tokenizer=path)).fits(prompt) is fits
    assert not Room(bare(needed)).fits(prompt), "by the estimate it has twice as many"


def test_a_tokenizer_that_cuts_its_texts_does_not_make_everything_fit(tmp_path: Path) -> None:
    path = str(trained(tmp_path / "model", "word", cut=16))
    room = Room(bare(1000, tokenizer=path))
    assert room.fits(user("word " * 10)) and not room.fits(user("word " * 1000))
    # what is short is not padded to sixteen
    assert Room(bare(PER_TEXT + 1 + 64, tokenizer=path)).fits(user("word"))


@pytest.mark.parametrize(
    "text", ["\ud83d", "<|end|>", "a\x00b", "中文" * 9, "e\u0301 \u200b\ufeff"]
)
def test_a_tokenizer_takes_whatever_a_row_holds(tmp_path: Path, text: str) -> None:
    path = str(trained(tmp_path / "model", "word"))
    assert not Room(bare(80, tokenizer=path)).fits(user(text * 99))
    assert Room(bare(80, tokenizer=path)).fits(user("w"))


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"\x00\xff\x80", json.dumps({"model": {"type": "none such"}}).encode()],
    ids=["absent", "empty", "no tokenizer", "binary", "of another kind"],
)
@pytest.mark.parametrize("named", ["model", "model/tokenizer.json"])
def test_a_tokenizer_that_is_none_is_told_in_plain_words(
    tmp_path: Path, content: bytes | None, named: str
) -> None:
    (tmp_path / "model").mkdir()
    if content is not None:
        (tmp_path / "model/tokenizer.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"llm: m: tokenizer: .*tokenizer(\.json)?.*or null"):
        Room(bare(100, tokenizer=str(tmp_path / named))).fits(user("x" * 1000))


def test_measuring_takes_microseconds(tmp_path: Path) -> None:
    prompt = user("x" * 2000)
    path = str(trained(tmp_path / "model", "word"))
    for room in (Room(openai(URL, context_tokens=8192)), Room(bare(8192, tokenizer=path))):
        took = min(timeit.repeat(partial(room.fits, prompt), number=100, repeat=5)) / 100
        assert took < 50e-6
