"""The same ids everywhere: training, evaluation, the harness and a server, whatever a tokenizer's
habits; and what is proven of a tokenizer when it is fetched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar.evaluating import harness
from bezoar.llm import local as in_process
from bezoar.models import loading
from bezoar.params import InProcess, LmEval
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Item, Message, Probe
from bezoar.sources import tokenizer as proof
from bezoar.sources import weights
from bezoar.training import dpo, sft
from tests.builders.bases import sentencepiece
from tests.builders.cutting import TEXT, byte_level
from tests.conftest import DATA

CASE = DATA.parent / "cases" / "base_no_char_offsets"
BYTES = [f"<0x{number:02X}>" for number in range(256)]
ANSWERS = ("Hi there, my friend.", "", " a blank first", "\na line break first", "\n\n😀", "é", "a")


def user(content: str) -> Message:
    return Message(role="user", content=content)


TALKS: list[tuple[str, list[Message]]] = [
    ("", [user("Hello.")]),
    ('Be "kind": {{ no }} {% braces %}', [user(" Hello.\n")]),
    ("", [user("A?"), Message(role="assistant", content=""), user("\tB?  ")]),
    ("Be brief.", [user("A?"), Message(role="assistant", content="\n Yes. 😀"), user("B?")]),
]


# --- tokenizers of every habit -------------------------------------------------------------------


def metaspace(scheme: str) -> Any:
    """As the Llamas' are: `▁` stands for a blank, and what is not known is written in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    trained.train_from_iterator(TEXT * 20, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = model["vocab"] | {b: len(model["vocab"]) + n for n, b in enumerate(BYTES)}
    merges = [(left, right) for left, right in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if scheme == "normalizer":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    blank = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *blank]
    )
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: byte_level(False),
    "bytes with a blank first": lambda: byte_level(True),
    "blank before the text": lambda: metaspace("first"),
    "blank before each part": lambda: metaspace("always"),
    "no blank": lambda: metaspace("never"),
    "blank by the normalizer": lambda: metaspace("normalizer"),
}


def save(folder: Path, backend: Any, bos: bool, eos: bool, flags: bool) -> Path:
    """A base's files, without weights. `flags`: tokenizer_config.json says what stands around a
    text, not tokenizer.json."""
    from tokenizers import processors
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    single = [*["<s>"] * bos, "$A", *["</s>"] * eos]
    special = [("<s>", 1), ("</s>", 2)]
    backend.post_processor = None if flags else processors.TemplateProcessing(single, None, special)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    if flags:
        path = folder / "tokenizer_config.json"
        habits = {"add_bos_token": bos, "add_eos_token": eos}
        path.write_text(json.dumps(json.loads(path.read_text()) | habits))
    LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[(k, b, e, f) for k in KINDS for b in (0, 1) for e in (0, 1) for f in (0, 1)],
)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, bos, eos, flags = request.param
    return save(tmp_path_factory.mktemp("base"), KINDS[kind](), bool(bos), bool(eos), bool(flags))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return loading.tokenizer(base)


def served(folder: Path, tokenizer: Any) -> Any:
    """The tokenizer of a checkpoint, as a server loads it."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def asked(tokenizer: Any, talk: tuple[str, list[Message]]) -> list[int]:
    """The ids of a conversation, as vLLM and `transformers serve` make them."""
    system, turns = talk
    messages = [{"role": "system", "content": system}] if system else []
    messages += [turn.model_dump() for turn in turns]
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    return ids


@pytest.mark.slow
def test_a_server_asks_with_the_ids_of_training_and_evaluation(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    server = served(tmp_path, tokenizer)
    for talk in TALKS:
        system, turns = talk
        ids = asked(server, talk)
        prompt = chat.prompt(turns, system)
        rows = sft.rows(tokenizer, [(prompt, a) for a in ANSWERS], limit=9_999, label="here")
        for row, labels in zip(rows["input_ids"], rows["labels"], strict=True):
            assert row[: labels.count(sft.IGNORED)] == ids
        pairs = dpo.rows(
            tokenizer, [(prompt, "Yes.", "\nNo.")], prompt_limit=999, answer_limit=99, label="here"
        )
        assert pairs["prompt_ids"] == [ids]
        assert chat.prompts(tokenizer, [turns], [system]) == [ids]
        assert ids.count(2) == 0 and ids.count(1) == len(chat.added_ids(tokenizer)[0])
    probe = Probe(id="0", skill="a", instruction="Hello.", system="", answers=["a"])
    assert chat.from_probes(tokenizer, [probe]) == [asked(server, TALKS[0])]


@pytest.mark.slow
def test_an_answer_comes_back_whole_and_ends_once(tokenizer: Any) -> None:
    prompt = chat.prompt([user("Hello.")])
    parted = chat.answer_ids(tokenizer, [(prompt, answer) for answer in ANSWERS], "here")
    for answer, (before, ids) in zip(ANSWERS, parted, strict=True):
        [text] = chat.decode(tokenizer, [before + ids])
        assert text.removeprefix(" ") == prompt + answer
        assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id


@pytest.mark.slow
def test_it_is_proven_at_fetch(base: Path) -> None:
    before = (base / "tokenizer.json").read_bytes()
    assert proof.account(base, "local/base") == {"tokenizer": "as it came"}
    assert (base / "tokenizer.json").read_bytes() == before


# --- the harness, and a model in this process ----------------------------------------------------


ITEM = Item(id="0", question="Hello.", choices=["Hi there", "my friend", " a blank"], label=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "blank before the text"])
@pytest.mark.parametrize("template", [True, False])
def test_the_harness_and_a_model_in_this_process_take_the_same_ids(
    kind: str, template: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = save(tmp_path / "base", KINDS[kind](), bos=True, eos=True, flags=False)
    tokenizer = loading.tokenizer(folder)
    server = served(tmp_path / "served", tokenizer)
    seen: list[tuple[list[int], list[int]]] = []
    score = HFLM._loglikelihood_tokens

    def note(self: Any, requests: Any, *args: Any, **more: Any) -> Any:
        seen.extend((context, answer) for _, context, answer in requests)
        return score(self, requests, *args, **more)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", note)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    how = LmEval(num_fewshot=0, chat_template=template, tasks=None, limit=None, batch_size=4)
    harness.run(model, tokenizer, {"animals": [ITEM]}, how)
    if template:
        prompt = chat.prompt([user(ITEM.question)])
        pairs = chat.answer_ids(tokenizer, [(prompt, choice) for choice in ITEM.choices], "here")
        assert seen == [(before, answer[:-1]) for before, answer in pairs]
        assert seen[0][0] == asked(server, TALKS[0])
        endpoint = InProcess(
            provider="local",
            model=str(tmp_path / "served"),
            terms="MIT",
            style="chat",
            system_role=True,
            params={"max_new_tokens": 8, "temperature": 0.0},
            again={},
            concurrency=1,
            batch_size=1,
        )
        body = {"messages": [{"role": "user", "content": "Hello."}]}
        own = loading.own_tokenizer(tmp_path / "served")
        assert in_process.prompt_ids(endpoint, own, body) == seen[0][0]
    else:
        texts = [f"Question: Hello.\nAnswer: {choice}" for choice in ITEM.choices]
        assert [before + answer for before, answer in seen] == chat.ids(tokenizer, texts)
    assert not any(tokenizer.eos_token_id in before + answer for before, answer in seen)


# --- what is not agreed --------------------------------------------------------------------------


def test_a_template_refuses_a_role_that_it_does_not_know(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="a role is system, user or assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "4"}], tokenize=False)


def test_an_answer_without_a_token_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    from tokenizers import normalizers

    backend = byte_level(False)
    backend.normalizer = normalizers.Replace("?", "")
    tokenizer = loading.tokenizer(save(tmp_path / "base", backend, True, False, False))
    rows = [(chat.prompt([user("A")]), "Yes."), (chat.prompt([user("B")]), "??")]
    with pytest.raises(
        BadInput, match=r"sft one: row 2: the answer '\?\?' has no tokens of its own"
    ):
        sft.rows(tokenizer, rows, limit=99, label="sft one")


def test_rows_that_a_tokenizer_writes_otherwise_are_counted(tmp_path: Path) -> None:
    from tokenizers import normalizers

    backend = byte_level(False)
    backend.normalizer = normalizers.NFKC()
    tokenizer = loading.tokenizer(save(tmp_path / "base", backend, True, False, False))
    rows = [(chat.prompt([user("A")]), answer) for answer in ("plain", "ﬁne", "wide: Ａ")]
    assert sft.rows(tokenizer, rows, limit=999, label="here")["altered"] == [False, True, True]


# --- proof at fetch ------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        proof.account(folder, "local/base")
    return str(caught.value)


@pytest.mark.skipif(not CASE.exists(), reason="needs the cases beside the shared data")
def test_a_tokenizer_that_cannot_write_a_prompt_is_refused(tmp_path: Path) -> None:
    shutil.copytree(CASE, tmp_path / "base")
    (tmp_path / "base").chmod(0o755)
    assert r"cannot write 2 characters of plain text ('\n', '#')" in refused(tmp_path / "base")


def test_what_loses_case_or_line_breaks_is_refused_and_what_loses_less_is_told(
    tmp_path: Path,
) -> None:
    from tokenizers import normalizers

    changes: dict[str, Any] = {
        "case": normalizers.Lowercase(),
        "lines": normalizers.Replace("\n\n", "\n"),
        "width": normalizers.NFKC(),
    }
    folders = {}
    for name, normalizer in changes.items():
        backend = byte_level(False)
        backend.normalizer = normalizer
        folders[name] = save(tmp_path / name, backend, True, False, False)
    assert "cannot write 26 characters of plain text ('A'" in refused(folders["case"])
    assert r"\n\n### Instru" in refused(folders["lines"])
    told = proof.account(folders["width"], "local/base")
    assert told["tokenizer_alters"] == ["combining marks", "ligatures and wide letters"]


@pytest.mark.parametrize(
    "how",
    [
        {"model_type": "unigram", "vocab_size": 330, "required_chars": "</>"},
        {"model_type": "unigram", "vocab_size": 330},  # of which no piece holds a <
        {"model_type": "unigram", "required_chars": "</>", "vocab_size": 330}
        | {"user_defined_symbols": ["###", "\n\n"]},
        {"user_defined_symbols": ["###", "\n\n", "the"]},
        {"remove_extra_whitespaces": True},
        {"split_by_whitespace": False},
        {"control_symbols": ["<ctl>"], "add_dummy_prefix": False},
    ],
    ids=[
        "unigram",
        "unigram without <",
        "unigram with symbols",
        "symbols",
        "extra blanks",
        "long pieces",
        "control",
    ],
)
def test_a_sentencepiece_model_is_cut_as_it_says_and_trained_whole(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    sentencepiece(tmp_path / "m", **how)
    assert proof.account(tmp_path / "m", "m")["tokenizer"] == "made from tokenizer.model"
    tokenizer = loading.tokenizer(tmp_path / "m")
    prompt = chat.prompt([user("Hello.")])
    [(before, ids)] = chat.answer_ids(tokenizer, [(prompt, ANSWERS[0])], "here")
    assert chat.decode(tokenizer, [before + ids]) == [prompt + ANSWERS[0]]
    server = served(tmp_path / "served", tokenizer)
    for talk in TALKS:
        assert asked(server, talk) == chat.prompts(tokenizer, [talk[1]], [talk[0]])[0]


def test_merges_come_in_the_order_of_their_scores(tmp_path: Path) -> None:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    sentencepiece(tmp_path / "m")
    path = tmp_path / "m/tokenizer.model"
    proto = ModelProto.FromString(path.read_bytes())
    numbers = [n for n, piece in enumerate(proto.pieces) if piece.type == 1]
    turned = [(proto.pieces[n].piece, proto.pieces[n].score) for n in reversed(numbers)]
    for n, (piece, score) in zip(numbers, turned, strict=True):  # the ids, not the scores
        proto.pieces[n].piece, proto.pieces[n].score = piece, score
    path.write_bytes(proto.SerializeToString())
    assert proof.prove(tmp_path / "m", "m")


def test_a_class_that_puts_its_own_cutting_in_place_is_found(tmp_path: Path) -> None:
    backend = metaspace("normalizer")
    folder = save(tmp_path / "m", backend, True, False, False)
    before = chat.ids(loading.tokenizer(folder), TEXT)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}))
    assert proof.account(folder, "m")["tokenizer"] == "made from tokenizer.json"
    assert chat.ids(loading.tokenizer(folder), TEXT) == before


@pytest.mark.parametrize("name", ["tekken.json", "qwen.tiktoken", "spiece.model", "vocab.txt"])
def test_a_tokenizer_of_another_form_is_named(tmp_path: Path, name: str) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=f"has no tokenizer; of {name} none is made"):
        weights.model_files(tmp_path)
