"""Training on a micro model: right gradients, right labels, the same bytes after any kill."""

import json
import math
import os
import shutil
import signal
import subprocess
import typing
from pathlib import Path
from typing import Any

import pytest

from bezoar import params, work
from bezoar.models import loading
from bezoar.params import Preference, Sft
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.sources import pretraining
from bezoar.training import dpo, sft
from bezoar.training.runs import fitting
from tests.builders import ROOT, parameters, warm
from tests.builders.micro import (
    ADAPTER,
    ALL,
    CORPUS,
    DPO,
    HELD_OUT,
    MODELS,
    NAMES,
    PAIRS,
    ROWS,
    SFT,
    SIZE,
    asks,
    enter,
    grown,
    link,
    place,
    prefer,
)
from tests.conftest import environment

__all__ = ["grown", "place"]  # fixtures


pytestmark = pytest.mark.slow


# --- the gradient fault of bitsandbytes on CPUs with AVX512-BF16 ---------------------------------


def gradients(model: Any, tokens: Any) -> dict[str, Any]:
    model.train()
    model.zero_grad()
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def quantised(base: Path, fault: bool) -> tuple[Any, Any]:
    """The 4-bit base with an adapter whose gradients reach through every layer, and tokens."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model

    model = loading.quantised(base, SFT, loading.device())
    for layer in model.modules():
        if isinstance(layer, Linear4bit) and fault:
            layer.support_avx512bf16_for_cpu = True
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config), torch.randint(3, 300, (2, 16))


def changed_by_an_evaluation(base: Path, fault: bool) -> float:
    """The largest relative change of a gradient when an evaluation runs before it."""
    import torch

    model, tokens = quantised(base, fault)
    before = gradients(model, tokens)
    model.eval()
    with torch.no_grad():
        model(input_ids=tokens)
    after = gradients(model, tokens)
    assert before.keys() == after.keys()
    return max(float((after[n] - g).norm() / g.norm()) for n, g in before.items())


def test_an_evaluation_changes_no_gradient(grown: Path) -> None:
    assert changed_by_an_evaluation(grown, fault=False) == 0


def test_the_fast_path_that_loses_gradients_is_off_in_every_layer(grown: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    model = loading.quantised(grown, SFT, loading.device())
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 7 and not any(m.support_avx512bf16_for_cpu for m in layers)


def test_the_fault_is_still_there_to_be_closed(grown: Path) -> None:
    """When this fails, bitsandbytes has mended it: loading.quantised can forget about it."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16")
    assert changed_by_an_evaluation(grown, fault=True) > 0.1


# --- text to labels ------------------------------------------------------------------------------


def test_the_loss_is_on_the_answer_and_its_end(grown: Path) -> None:
    tokenizer = loading.tokenizer(grown)
    rows = sft.rows(tokenizer, [(asks("fox"), "red</s> ### System:")], limit=128, label="here")
    labels = [token for token in rows["labels"][0] if token != sft.IGNORED]
    assert labels[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(labels[:-1]) == "red</s> ### System:"
    # the text </s> inside the answer is text, not the end
    assert labels.count(tokenizer.eos_token_id) == 1
    assert rows["input_ids"][0][: -len(labels)] == tokenizer(asks("fox"))["input_ids"]


def test_long_rows_are_cut_and_hopeless_ones_dropped_and_both_are_counted(grown: Path) -> None:
    tokenizer = loading.tokenizer(grown)
    room = len(tokenizer(asks("fox"))["input_ids"]) + 3
    long = asks("fox " * 40)
    rows = [(asks("fox"), "red"), (asks("fox"), "red " * 20), (long, "red")]
    cut = sft.rows(tokenizer, rows, limit=room, label="here")
    assert cut["truncated"] == [False, True]  # the third is dropped
    assert max(map(len, cut["input_ids"])) == room
    assert cut["labels"][1][-1] not in (tokenizer.eos_token_id, sft.IGNORED)


def test_a_pair_keeps_the_end_of_its_prompt_and_the_start_of_its_answers(grown: Path) -> None:
    tokenizer = loading.tokenizer(grown)
    words = asks("fox")
    triples = [(words, "red " * 9, "no"), ("A", "b", "c")]
    pairs = dpo.rows(tokenizer, triples, prompt_limit=10, answer_limit=5, label="here")
    prompts, chosen, rejected = pairs["prompt_ids"], pairs["chosen_ids"], pairs["rejected_ids"]
    assert pairs["truncated"] == [True, False]
    assert len(prompts[0]) == 10 and prompts[0][0] == tokenizer.bos_token_id
    assert words.endswith(tokenizer.decode(prompts[0][1:]))
    assert len(chosen[0]) == 5 and tokenizer.decode(chosen[0]).startswith("red")
    assert rejected[0][-1] == tokenizer.eos_token_id
    assert rejected[1] == [*tokenizer("c")["input_ids"][1:], tokenizer.eos_token_id]


# --- links ---------------------------------------------------------------------------------------


def end_probability(folder: Path) -> float:
    """The least p(EOS | prompt and answer) of any row."""
    import torch

    model, tokenizer = loading.load(folder, folder, SFT)
    found = []
    for prompt, answer in chat.answer_ids(tokenizer, HELD_OUT, "here"):
        with torch.inference_mode():
            scores = model(torch.tensor([prompt + answer])).logits[0].softmax(-1)
        found.append(float(scores[-2, tokenizer.eos_token_id]))
    return min(found)


def test_a_link_learns_to_answer_and_to_end_its_answer(place: Path) -> None:
    run = link(of=ALL, epochs=8, learning_rate=1e-2)
    assert run.metrics["eval_loss_end"] < 1 < run.metrics["eval_loss_start"]
    assert end_probability(MODELS / "fetch/base") < 0.5
    assert end_probability(MODELS / "sft/one") > 0.9


def test_an_adapter_is_carried_on_exactly(place: Path) -> None:
    """The second link starts where the first ended, to the digit: nothing was rounded."""
    first = link(epochs=1)
    second = link("two", ADAPTER.model_copy(update={"start": "sft/one"}), epochs=1)
    assert second.metrics["eval_loss_start"] == first.metrics["eval_loss_end"]
    assert second.metrics["eval_loss_end"] < first.metrics["eval_loss_end"]


def test_metrics_and_curves_say_what_was_trained(place: Path) -> None:
    run = link(rows=([*ROWS, (asks("fox " * 60), "red")], HELD_OUT))
    assert run.metrics["train_rows"] == 15 and run.metrics["dropped_rows"] == 1
    assert run.metrics["epochs"] == 2 and run.metrics["truncated_share"] == 0
    assert run.train[0] == "run,step,epoch,loss,learning_rate\n" and len(run.train) == 1 + 2 * 4
    assert run.evaluation[0] == "run,epoch,loss\n" and len(run.evaluation) == 1 + 3
    assert run.evaluation[1] == f"1,0,{run.metrics['eval_loss_start']}\n"


def test_some_of_the_held_out_rows_are_evaluated_spread_over_all(place: Path) -> None:
    wrong = [(prompt, "grey") for prompt, _ in ROWS]
    rows = [row for pair in zip(ROWS, wrong, strict=True) for row in pair]
    few = link(rows=(ROWS, rows), epochs=1, eval_limit=15)
    assert few.metrics["eval_rows"] == 15
    shutil.rmtree("work")
    same = link(rows=(ROWS, ROWS), epochs=1)  # every second row
    assert few.metrics["eval_loss_start"] == same.metrics["eval_loss_start"]
    assert fitting.some(list(range(10)), 3) == [0, 3, 6]
    assert fitting.some([1, 2], 3) == fitting.some([1, 2], None) == [1, 2]


def test_some_of_the_held_out_pairs_are_evaluated(place: Path) -> None:
    run = prefer(eval_limit=3, epochs=1)
    assert run.metrics["eval_rows"] == 3 and run.metrics["train_rows"] == len(PAIRS)


def test_outs_hold_nothing_that_varies(place: Path) -> None:
    link(epochs=1)
    adapter = MODELS / "sft/one"
    assert {p.name for p in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/fetch/base"
    assert config["target_modules"] == sorted(config["target_modules"])
    for file in adapter.iterdir():
        assert str(place) not in file.read_text(errors="replace"), file
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask(), file


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_the_best_epoch_is_kept_and_patience_ends_a_run_that_gets_worse(place: Path) -> None:
    # what is asked contradicts what is taught: the longer the training, the worse
    wrong = [(asks(animal), "grey and green") for animal in NAMES]
    run = {"of": ALL, "rows": (ROWS, wrong), "epochs": 8, "learning_rate": 1e-2}
    best = link("best", how=with_keep("best", patience=2), **run)
    kept = work.content(MODELS / "sft/best")
    assert best.metrics["kept_epoch"] + 2 == best.metrics["epochs"] < 8
    assert best.metrics["eval_loss_best"] < best.metrics["eval_loss_end"]
    last = link("last", how=with_keep("last", patience=2), **run)
    assert last.metrics["kept_epoch"] == last.metrics["epochs"] == 8
    assert work.content(MODELS / "sft/last") != kept


def with_keep(keep: str, patience: int) -> Sft:
    return SFT.model_copy(update={"keep": keep, "patience": patience})


def test_all_parameters_are_trained_in_full_precision(place: Path) -> None:
    from safetensors.torch import load_file

    link("full", ALL, epochs=1)
    before = load_file(MODELS / "fetch/base/model.safetensors")
    after = load_file(MODELS / "sft/full/model.safetensors")
    assert before.keys() == after.keys()
    assert all(str(t.dtype) == "torch.float32" for t in after.values())
    assert all(not t.equal(before[name]) for name, t in after.items())
    config = json.loads((MODELS / "sft/full/config.json").read_text())
    assert config["use_cache"] is True


# --- runs, noise, and what else is there by parameter ---------------------------------------------


def test_a_link_runs_again_while_its_losses_have_not_diverged(place: Path) -> None:
    run = link(runs=2, epochs=2)
    first, second = run.metrics["runs"]["1"], run.metrics["runs"]["2"]
    assert first["epochs"] == second["epochs"] == 2 and run.metrics["epochs"] == 4
    # the second run goes on from the first, with a schedule of its own: warmed up from nothing
    assert second["eval_loss_start"] == first["eval_loss_end"] > second["eval_loss_end"]
    assert run.metrics["eval_loss_start"] == first["eval_loss_start"]
    rows = [line.strip().split(",") for line in run.train[1:]]
    assert [int(row[1]) for row in rows] == list(range(1, 1 + 4 * 4))
    assert [row[0] for row in rows] == ["1"] * 8 + ["2"] * 8
    rates = [float(row[4]) for row in rows]
    assert rates[0] == rates[8] == 0 and rates[:8] == rates[8:]
    assert [line.split(",")[:2] for line in run.evaluation[1:]] == [
        *(["1", str(epoch)] for epoch in (0, 1, 2)),
        *(["2", str(epoch)] for epoch in (2, 3, 4)),
    ]


def test_a_run_that_diverged_is_the_last(place: Path) -> None:
    wrong = [(asks(animal), "grey and green") for animal in NAMES]
    run = link(of=ALL, rows=(ROWS, wrong), runs=3, epochs=8, learning_rate=1e-2)
    assert list(run.metrics["runs"]) == ["1"]
    assert run.metrics["eval_loss_end"] > run.metrics["eval_loss_best"] * (1 + SFT.divergence)
    never = SFT.model_copy(update={"divergence": 100.0, "keep": "last"})
    again = link("two", of=ALL, how=never, rows=(ROWS, wrong), runs=3, epochs=1, learning_rate=1e-2)
    assert list(again.metrics["runs"]) == ["1", "2", "3"] and again.metrics["kept_epoch"] == 3


def test_noise_on_the_embeddings_changes_training_alone(place: Path) -> None:
    plain = link(epochs=1)
    noisy = link("two", how=SFT.model_copy(update={"neftune_alpha": 5.0}), epochs=1)
    assert noisy.metrics["eval_loss_start"] == plain.metrics["eval_loss_start"]
    assert noisy.train[1] != plain.train[1]


def test_deterministic_kernels_change_no_bit_on_a_cpu(place: Path) -> None:
    import torch

    runs = []
    try:
        for name, exact in (("one", False), ("two", True)):
            runs.append(link(name, how=SFT.model_copy(update={"deterministic": exact}), epochs=1))
            assert torch.are_deterministic_algorithms_enabled() == exact
    finally:
        torch.use_deterministic_algorithms(False)
    assert runs[0] == runs[1]
    assert work.content(MODELS / "sft/one") == work.content(MODELS / "sft/two")


def test_where_rows_must_be_padded_the_numbers_are_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU before Ampere."""
    from torch.utils.data import RandomSampler
    from transformers import Trainer
    from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

    from bezoar.training.runs import padding_free

    how = SFT.model_copy(update={"lora_dropout": 0.0})
    runs = link(how=how), prefer(epochs=1)
    monkeypatch.setattr(padding_free, "possible", lambda *_: False)
    monkeypatch.setattr(padding_free, "attach", None)
    chosen, made = Trainer._get_train_sampler, []

    def sampler(self: Any, rows: Any) -> Any:
        made.append(chosen(self, rows))
        return RandomSampler(rows)  # the order of batches without padding

    monkeypatch.setattr(Trainer, "_get_train_sampler", sampler)
    shutil.rmtree("work")
    padded = link(how=how), prefer(epochs=1)
    # left to itself, rows of like length would be at once: of a step's rows, or of many steps'
    assert [type(each) for each in made] == [BatchRebalanceSampler, LengthGroupedSampler]
    for run, other in zip(runs, padded, strict=True):
        for name in ("eval_loss_start", "eval_loss_end"):
            assert run.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4)


# --- kills ---------------------------------------------------------------------------------------

CHILD = """
import contextlib, os, signal, sys
sys.path.insert(0, {root!r})
import transformers
from tests.training import test_training as t

at, kind, run = int(sys.argv[1]), sys.argv[2], sys.argv[3]
steps = 0

@contextlib.contextmanager
def bar(label, total, done=0):
    def advance(more):
        global steps
        steps += more * (not label.startswith("dpo: reference"))
        if kind == "step" and steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
    yield advance

def torn(self, folder):
    # the weights and the optimizer are written, the state that makes a checkpoint whole is not
    if kind == "save" and steps == at:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, folder)

t.fitting.bar = bar
save, transformers.Trainer._save_rng_state = transformers.Trainer._save_rng_state, torn
t.RUNS[run]()
"""


def killed(place: Path, at: int, kind: str, run: str) -> None:
    """Start a run in a process of its own that kills itself."""
    done = subprocess.run(
        [warm.python(settled=False), "-c", CHILD.format(root=str(ROOT)), str(at), kind, run],
        cwd=place,
        env=environment(place / "work"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("run", "out", "kills"),
    [
        # before the first checkpoint, between two, while the second is written
        ("adapter", "sft/one", [(2, "step"), (6, "step"), (8, "save")]),
        ("all", "sft/one", [(6, "step")]),
        ("dpo", "dpo/policy", [(4, "step")]),
        ("dpo_adapter", "dpo/policy", [(4, "step")]),
        # in the second of two runs, and while its first checkpoint is written
        ("runs", "sft/one", [(10, "step"), (4, "save")]),
    ],
)
def test_a_killed_run_ends_with_the_same_bytes(
    place: Path, grown: Path, monkeypatch: pytest.MonkeyPatch, *, run: str, out: str, kills: Any
) -> None:
    for at, kind in kills:
        killed(place, at, kind, run)
        assert not (MODELS / out).exists()
    assert list((place / "work").rglob("trainer_state.json")), "nothing to resume from"
    resumed = RUNS[run]()
    content = work.content(MODELS / out)
    enter(grown, place / "another place", monkeypatch)
    assert RUNS[run]() == resumed
    assert work.content(MODELS / out) == content


def test_a_finished_run_is_not_trained_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = link(epochs=1)
    content = work.content(MODELS / "sft/one")
    shutil.rmtree(MODELS / "sft/one")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(fitting, "fit", never)
    assert link(epochs=1) == first
    assert work.content(MODELS / "sft/one") == content
    with pytest.raises(AssertionError, match="trained again"):
        link(epochs=1, learning_rate=4e-3)


def test_saving_in_the_middle_of_an_epoch_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = link(epochs=1)
    content = work.content(MODELS / "sft/one")
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    shutil.rmtree("work")
    assert link(epochs=1) == plain and work.content(MODELS / "sft/one") == content


@pytest.mark.parametrize(
    ("steps", "times", "after"),
    [(35, 5, {7, 14, 21, 28}), (4, 3, {1, 2}), (10, 1, set()), (2, 5, {1}), (1, 5, set())],
)
def test_evaluations_within_an_epoch_are_spread_evenly(
    steps: int, times: int, after: set[int]
) -> None:
    assert fitting.evaluation_steps(steps, times) == after


def test_looking_at_a_run_more_often_changes_no_weight(place: Path) -> None:
    """Adapters have dropout, so that a random number drawn by an evaluation would show."""
    once = link(epochs=2)
    content = work.content(MODELS / "sft/one")
    often = link(epochs=2, how=SFT.model_copy(update={"evaluations": 8}))
    assert work.content(MODELS / "sft/one") == content and often.train == once.train
    held = {line.split(",")[1]: line for line in often.evaluation[1:]}
    assert list(held) == ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"]
    assert [held[epoch] for epoch in ("0", "1", "2")] == once.evaluation[1:]
    assert often.metrics == once.metrics


def test_patience_and_choice_look_at_the_ends_of_epochs_alone(place: Path) -> None:
    log = [
        {"step": n, "epoch": n / 4, "eval_loss": loss}
        for n, loss in enumerate([0.1, 0.2, 0.1, 0.9, 0.1, 0.1, 0.1, 0.8], 1)
    ]
    run = fitting.History(Path("run"), {"eval_loss": 2.0}, [*log, {"step": 8, "loss": 0.0}])
    assert run.losses == [0.9, 0.8] and len(run.evaluated) == 8
    assert fitting.choose_checkpoint([run], "best") == (Path("run/checkpoints/checkpoint-8"), 2)


# --- preferences ---------------------------------------------------------------------------------


def answer_log_probability(folder: Path, prompt: str, answer: str) -> float:
    """By hand: the sum of log p(token | what is before it) over the answer and its end."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer(prompt)["input_ids"]
    ids = [*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id]
    with torch.inference_mode():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(scores[i - 1, ids[i]]) for i in range(len(before), len(ids)))


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_dpo_prefers_and_its_numbers_are_those_of_the_saved_policy(place: Path, loss: str) -> None:
    run = prefer(loss=loss)
    base, policy = MODELS / "fetch/base", MODELS / "dpo/policy"
    margins, ranked, before = [], [], []
    for pair in PAIRS[::4]:  # each animal once, as each stands equally often among the held-out
        old = [answer_log_probability(base, pair[0], answer) for answer in pair[1:]]
        new = [answer_log_probability(policy, pair[0], answer) for answer in pair[1:]]
        margins.append(DPO.beta * ((new[0] - old[0]) - (new[1] - old[1])))
        ranked.append(new[0] > new[1])
        before.append(old[0] > old[1])
    n = len(margins)
    assert run.metrics["margin"] == pytest.approx(sum(margins) / n, rel=1e-3)
    assert run.metrics["accuracy"] == pytest.approx(sum(ranked) / n, abs=1e-6)
    assert run.metrics["accuracy_before"] == pytest.approx(sum(before) / n, abs=1e-6)
    assert run.metrics["margin"] > 0 and run.metrics["reward_accuracy"] == 1
    assert run.evaluation[0] == "step,loss,margin,accuracy,chosen,rejected\n"
    assert len(run.train) == 1 + 2 * 3 and len(run.evaluation) == 1 + 1 + 2
    if loss == "sigmoid":
        content = work.content(policy)
        often = prefer(evaluations=6)  # three an epoch of three steps
        assert [line.split(",")[0] for line in often.evaluation[1:]] == [*"0123456"]
        assert often.evaluation[4::3] == run.evaluation[2:] and often.metrics == run.metrics
        assert work.content(policy) == content and often.train == run.train
        # the policy starts at its reference: -log sigmoid(0)
        assert run.metrics["eval_loss_start"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("loss", [*typing.get_args(Preference)])
def test_every_loss_prefers(place: Path, loss: str) -> None:
    smoothed = 0.1 if loss in params.NEVER_UNSMOOTHED else 0.0
    run = prefer(loss=loss, label_smoothing=smoothed, learning_rate=1e-4)
    assert run.metrics["eval_loss_end"] < run.metrics["eval_loss_start"]
    assert run.metrics["margin"] > 0


def test_an_adapter_learns_to_prefer_and_leaves_a_full_model(place: Path) -> None:
    run = prefer(weights="adapter", learning_rate=1e-2)
    policy = MODELS / "dpo/policy"
    names = {file.name for file in policy.iterdir()}
    assert "model.safetensors" in names and not any("adapter" in name for name in names)
    margins = []
    for prompt, chosen, rejected in PAIRS[::4]:
        new = [answer_log_probability(policy, prompt, answer) for answer in (chosen, rejected)]
        old = [
            answer_log_probability(MODELS / "fetch/base", prompt, answer)
            for answer in (chosen, rejected)
        ]
        margins.append(DPO.beta * ((new[0] - old[0]) - (new[1] - old[1])))
    assert run.metrics["margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-3) != 0
    assert run.metrics["eval_loss_start"] == pytest.approx(math.log(2), abs=1e-6)
    everything = prefer(learning_rate=1e-2)
    assert everything.metrics["margin"] != run.metrics["margin"]


def test_what_the_reference_says_is_kept_for_other_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DPOTrainer

    asked = []
    compute = DPOTrainer.compute_ref_log_probs

    def counted(self: Any, *args: Any) -> Any:
        asked.append(1)
        return compute(self, *args)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", counted)
    prefer()
    first = len(asked)
    assert first
    again = prefer(beta=0.5, learning_rate=1e-4, loss="ipo")
    assert len(asked) == first
    shutil.rmtree("work")
    assert prefer(beta=0.5, learning_rate=1e-4, loss="ipo") == again and len(asked) > first
    before = len(asked)
    prefer(max_answer_tokens=2)  # other rows
    assert len(asked) > before


# what CHILD can start
RUNS = {
    "adapter": lambda: link(epochs=3),
    "runs": lambda: link(runs=2),
    "dpo_adapter": lambda: prefer(weights="adapter"),
    "all": lambda: link(of=ALL, epochs=3),
    "dpo": lambda: prefer(evaluations=6),
}


# --- what a user can get wrong -------------------------------------------------------------------


def test_a_base_without_a_tokenizer(place: Path) -> None:
    (MODELS / "fetch/base/tokenizer.json").unlink()
    with pytest.raises(BadInput, match="models/fetch/base: no tokenizer"):
        link()


def test_a_base_without_a_model(place: Path) -> None:
    (MODELS / "fetch/base/config.json").unlink()
    with pytest.raises(BadInput, match="models/fetch/base: no model"):
        link()


def test_a_tokenizer_without_a_padding_token_pads_with_what_it_has(place: Path) -> None:
    path = MODELS / "fetch/base/tokenizer_config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}
    path.write_text(json.dumps(config))
    assert loading.tokenizer(path.parent).pad_token == "</s>"
    path.write_text(json.dumps({**config, "unk_token": "<pad>"}))
    assert loading.tokenizer(path.parent).pad_token == "<pad>"
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token"}))
    with pytest.raises(BadInput, match="no end-of-sequence token"):
        loading.tokenizer(path.parent)


def test_a_start_that_is_not_what_the_link_needs(place: Path) -> None:
    with pytest.raises(BadInput, match="models/sft/none: not an adapter"):
        link("two", ADAPTER.model_copy(update={"start": "sft/none"}))
    link(epochs=1)
    with pytest.raises(BadInput, match="models/sft/one: an adapter, where a full model is wanted"):
        link("two", ALL.model_copy(update={"start": "sft/one"}))


@pytest.mark.parametrize(
    ("change", "what"), [({"hidden_size": 128}, "shapes differ"), ({"layers": 1}, "layers differ")]
)
def test_an_adapter_of_another_base(place: Path, change: dict[str, int], what: str) -> None:
    for size in ({"layers": 2}, change):
        grown = SIZE.model_copy(update={"steps": 1, **size})
        pretraining.grow(CORPUS, grown, 7, MODELS / "fetch/base")
        if size != change:
            link(epochs=1)
    with pytest.raises(BadInput, match=f"models/sft/one: made for another base .*{what}"):
        loading.load(MODELS / "sft/one", MODELS / "fetch/base", SFT)


def test_rows_that_leave_no_room_for_an_answer(place: Path) -> None:
    with pytest.raises(
        BadInput, match=r"none of the 15 training rows .* raise sft\.links\.one\.max_length"
    ):
        link(max_length=8)


def test_a_loss_that_is_lost_stops_the_run_with_a_reason(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    compute = SFTTrainer.compute_loss

    def lost(self: Any, *args: Any, **more: Any) -> Any:
        loss = compute(self, *args, **more)
        return loss * math.nan if self.model.training and self.state.global_step >= 5 else loss

    monkeypatch.setattr(SFTTrainer, "compute_loss", lost)
    with pytest.raises(BadInput, match="sft one: loss is nan at step 6; lower the learning rate"):
        link()
    assert [p.name for p in (place / "work").rglob("checkpoint-*")] == ["checkpoint-4"]


def test_a_loss_that_runs_away_stops_the_run_with_a_reason(place: Path) -> None:
    with pytest.raises(
        BadInput, match=r"training loss is \d.* times what it began with, at step \d+; lower"
    ):
        link(of=ALL, how=with_keep("last", patience=2), epochs=20, learning_rate=0.99)
    assert list((place / "work").rglob("checkpoint-*"))


def test_a_full_gpu_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from trl import SFTTrainer

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")

    monkeypatch.setattr(SFTTrainer, "training_step", full)
    with pytest.raises(BadInput, match=r"memory is full with 2 rows .*2 GiB.\); write a smaller"):
        link()


def test_a_start_that_is_broken_is_said_before_training(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = MODELS / "fetch/base/model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][:] = math.nan
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(BadInput, match="sft one: the loss is nan before the first step"):
        link(of=ALL)


def test_a_full_disk_is_said_and_the_run_goes_on_from_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    with monkeypatch.context() as patch:
        save = torch.save
        left = [2]

        def full(*args: Any, **more: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                # torch's own words on a full tmpfs
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576")
            save(*args, **more)

        patch.setattr(torch, "save", full)
        with pytest.raises(BadInput, match=r"the disk is full .*run the same command again"):
            link()
    resumed = link()
    shutil.rmtree("work")
    assert link() == resumed


def test_a_batch_is_whole_micro_batches(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    parameters.replace(tmp_path, "micro_batch_size: 16", "micro_batch_size: 5")
    with pytest.raises(BadInput, match="5 does not divide batch_size; name a part of 16, or auto"):
        params.load(tmp_path)


def test_its_rmsprop_is_torchs_but_for_the_last_bits_of_a_root() -> None:
    import torch

    torch.manual_seed(3)
    start, gradients = torch.randn(33, 7), torch.randn(4, 33, 7)
    gradients[:, 0] = 0.0  # a root of nothing
    theirs, ours = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = torch.optim.RMSprop([theirs], lr=0.01), fitting.rmsprop()([ours], lr=0.01)
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal(ours[0], start[0])
    saved = [optimizer.state_dict() for optimizer in optimizers]
    assert saved[0]["state"][0].keys() == saved[1]["state"][0].keys()
