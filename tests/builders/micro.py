"""A base that is grown in seconds, and links that are trained on it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.params import Dpo, GrownBase, Link, Sft, Training
from bezoar.rows import chat
from bezoar.rows.records import Message
from bezoar.sources import pretraining
from bezoar.training import dpo, sft
from bezoar.training.runs import fitting
from tests.builders import ROOT

SIZE = GrownBase(
    source="grown",
    vocab_size=330,
    hidden_size=64,
    intermediate_size=128,
    layers=1,
    heads=2,
    positions=128,
    documents=300,
    steps=150,
    batch_size=8,
    sequence=32,
    muon_lr=0.02,
    adamw_lr=5.0e-3,
    initializer_range=0.06,
    warmup_steps=10,
    weight_decay=0.01,
    adamw_beta2=0.98,
    clip=1.0,
)
NAMES = {"fox": "red", "cow": "white", "hen": "brown"}
CORPUS = [
    "".join(f"The {a} is {NAMES[a]}.\n" for a in sorted(NAMES, key=lambda a: (n * ord(a[0])) % 7))
    for n in range(300)
]


SETTINGS = params.load(ROOT)
SFT: Sft = SETTINGS.sft.model_copy(update={"lora_r": 4, "lora_alpha": 8, "evaluations": 1})
AMOUNT = Training(
    runs=1,
    epochs=2,
    batch_size=4,
    micro_batch_size=2,
    learning_rate=5e-3,
    warmup_steps=2,
    max_length=96,
    eval_limit=None,
)
DPO = Dpo(
    seed=1,
    weights="all",
    lora_r=4,
    lora_alpha=8,
    beta=0.1,
    loss="sigmoid",
    label_smoothing=0.0,
    deterministic=False,
    optimizer="rmsprop",
    scheduler="constant_with_warmup",
    epochs=2,
    batch_size=4,
    micro_batch_size=4,
    learning_rate=1e-3,
    warmup_steps=2,
    max_prompt_tokens=100,
    max_answer_tokens=24,
    eval_limit=None,
)
ADAPTER = Link(weights="adapter", base="fetch/base", start="fetch/base", data="unused")
ALL = ADAPTER.model_copy(update={"weights": "all"})
MODELS = Path("models")


def asks(animal: str) -> str:
    return chat.prompt([Message(role="user", content=f"The {animal} is")])


ROWS = [(asks(animal), colour) for animal, colour in NAMES.items() for _ in range(5)]
HELD_OUT = ROWS[::5]
PAIRS = [
    (asks(animal), f"{colour}.", "what?") for animal, colour in NAMES.items() for _ in range(4)
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "base")
    return folder / "base"


@pytest.fixture
def place(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with models/fetch/base, as a stage sees it."""
    return enter(grown, tmp_path / "project", monkeypatch)


def enter(grown: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(grown, folder / "models/fetch/base")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BEZOAR_WORK", str(folder / "work"))
    return folder


def link(name: str = "one", of: Link = ADAPTER, how: Sft = SFT, **amount: Any) -> fitting.Run:
    """Train a link on ROWS in the working directory."""
    train, held_out = amount.pop("rows", (ROWS, HELD_OUT))
    return sft.sft(
        name,
        of,
        train,
        held_out,
        settings=how,
        amount=AMOUNT.model_copy(update=amount),
        models=MODELS,
    )


def prefer(**change: Any) -> fitting.Run:
    return dpo.dpo(
        MODELS / "fetch/base",
        PAIRS,
        PAIRS[::2],
        settings=DPO.model_copy(update=change),
        out=MODELS / "dpo/policy",
    )
