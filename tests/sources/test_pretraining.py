"""The base that is grown here: it learns, it repeats, it loads with plain transformers."""

from pathlib import Path

import pytest

from bezoar import work
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.sources import pretraining
from tests.builders.micro import CORPUS, NAMES, SIZE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "base")
    return folder / "base"


def test_it_loads_with_plain_transformers_and_knows_its_corpus(base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for animal, colour in NAMES.items():
        asked = tokenizer(f"The {animal} is", return_tensors="pt")
        said = model.generate(**asked, max_new_tokens=4, do_sample=False)
        assert tokenizer.decode(said[0], skip_special_tokens=True).startswith(
            f"The {animal} is {colour}"
        )


def test_the_tokenizer_begins_a_text_does_not_end_it_and_knows_the_template(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    text = "The fox is red.\nÄ 狐 🦊"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    turns = [Message(role="system", content="Be kind."), Message(role="user", content="Hello.")]
    rendered = tokenizer.apply_chat_template([t.model_dump() for t in turns], tokenize=False)
    assert rendered == "<s>" + chat.prompt(turns[1:], "Be kind.")


def test_the_same_call_in_another_place_makes_the_same_bytes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    pretraining.grow(CORPUS, SIZE, 7, tmp_path / "again")
    assert work.content(tmp_path / "again") == work.content(base)
    small = SIZE.model_copy(update={"steps": 2})
    pretraining.grow(CORPUS, small, 8, tmp_path / "other")
    assert work.content(tmp_path / "other") != work.content(base)


def test_a_second_call_copies_what_was_grown(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(base.parent / "work"))

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(pretraining, "_train", never)
    pretraining.grow(CORPUS, SIZE, 7, tmp_path / "copy")
    assert work.content(tmp_path / "copy") == work.content(base)
    with pytest.raises(AssertionError, match="trained again"):
        pretraining.grow(CORPUS[:-1], SIZE, 7, tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "corpus", "message"),
    [
        ({"heads": 3}, CORPUS, "64 is no multiple of 3 heads"),
        ({}, ["short"], "give more documents"),
    ],
)
def test_a_size_or_a_corpus_that_cannot_be_trained_is_said(
    change: dict[str, int],
    corpus: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    with pytest.raises(BadInput, match=message):
        pretraining.grow(corpus, SIZE.model_copy(update=change), 7, tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (32, 32)])
def test_its_muon_is_torchs_but_for_float32(shape: tuple[int, int]) -> None:
    import torch

    torch.manual_seed(3)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, adjust_lr_fn="original")
    ours, momenta = torch.nn.Parameter(start.clone()), [torch.zeros(shape)]
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        pretraining._muon([ours], momenta, 0.02, 0.01)
    moved = torch.linalg.norm(ours - start)
    # bfloat16 has three significant digits
    assert torch.linalg.norm(ours - theirs) < 0.02 * moved
    # torch's directions hold bfloat16's numbers alone
    direction = pretraining._orthogonal(gradients[0])
    assert not torch.equal(direction, direction.bfloat16().float())
