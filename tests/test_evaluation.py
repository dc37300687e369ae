"""Evaluation: harness scores against a count by hand, free answers, two-turn conversations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import chat, evaluation, params, pretraining
from bezoar.evaluation import Continuation
from bezoar.files import BadInput
from bezoar.params import LmEval, MtAnswer
from bezoar.records import Attempt, Item, Message, Probe, Question
from bezoar.training import loading
from tests.test_pretraining import CORPUS, NAMES, SIZE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SFT = params.load(ROOT / "params.yaml").sft
PLAIN = LmEval(num_fewshot=0, chat_template=False, tasks=None, limit=None, batch_size=4)
COLOURS = ["red", "white", "brown", "grey"]
ITEMS = [
    Item(id=animal, question=f"The {animal} is", choices=COLOURS, label=COLOURS.index(colour))
    for animal, colour in NAMES.items()
]
TALK = MtAnswer(temperature=0.0, max_new_tokens=6, batch_size=2, limit=None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "base")
    return loading.load(folder / "base", folder / "base", SFT)


# --- harness -------------------------------------------------------------------------------------


def by_hand(model: Any, tokenizer: Any, prompt: str, choices: Sequence[str]) -> list[float]:
    """log p(choice | prompt) of each choice."""
    import torch

    found = []
    for choice in choices:
        ids = tokenizer(prompt + choice)["input_ids"]
        at = len(tokenizer(prompt)["input_ids"])
        with torch.inference_mode():
            scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(scores[i - 1, ids[i]]) for i in range(at, len(ids))))
    return found


@pytest.mark.parametrize("template", [False, True])
def test_the_harness_counts_as_a_count_by_hand(loaded: tuple[Any, Any], template: bool) -> None:
    how = PLAIN.model_copy(update={"chat_template": template})
    scores, cut = evaluation.harness(*loaded, {"animals": ITEMS}, how)
    right = normed = 0
    for item in ITEMS:
        prompt, choices = f"Question: {item.question}\nAnswer:", [f" {c}" for c in item.choices]
        if template:
            prompt = chat.prompt([Message(role="user", content=item.question)])
            choices = item.choices
        sums = by_hand(*loaded, prompt, choices)
        per_character = [s / len(c) for s, c in zip(sums, item.choices, strict=True)]
        right += sums.index(max(sums)) == item.label
        normed += per_character.index(max(per_character)) == item.label
    assert scores["animals"]["acc"] == pytest.approx(right / 3, abs=1e-5)
    assert scores["animals"]["acc_norm"] == pytest.approx(normed / 3, abs=1e-5)
    assert scores["animals"]["n"] == 3 and cut == 0
    assert set(scores["animals"]) == {"acc", "acc_norm", "acc_stderr", "acc_norm_stderr", "n"}


def test_a_question_stands_in_the_template_of_training(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    seen: list[str] = []
    score = HFLM._loglikelihood_tokens

    def note(self: Any, requests: Any, *args: Any, **more: Any) -> Any:
        seen.extend(self.tokenizer.decode(context + answer) for _, context, answer in requests)
        return score(self, requests, *args, **more)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", note)
    how = PLAIN.model_copy(update={"chat_template": True, "limit": 1})
    evaluation.harness(*loaded, {"animals": ITEMS}, how)
    asked = chat.prompt([Message(role="user", content=ITEMS[0].question)])
    assert seen == [f"<s>{asked}{choice}" for choice in COLOURS]


def test_new_items_under_an_old_name_are_the_ones_that_count(loaded: tuple[Any, Any]) -> None:
    wrong = [item.model_copy(update={"label": (item.label + 1) % 4}) for item in ITEMS]
    how = PLAIN.model_copy(update={"chat_template": True})
    sure = [Item(id="0", question="The fox is", choices=["red", "zqzqzq"], label=0)]
    assert evaluation.harness(*loaded, {"animals": sure}, how)[0]["animals"]["acc"] == 1
    unsure = [sure[0].model_copy(update={"label": 1})]
    assert evaluation.harness(*loaded, {"animals": unsure}, how)[0]["animals"]["acc"] == 0
    assert evaluation.harness(*loaded, {"animals": wrong}, how)[0]["animals"]["n"] == 3


def test_requests_that_do_not_fit_are_counted(loaded: tuple[Any, Any]) -> None:
    long = Item(id="long", question="fox " * 200, choices=["red", "white"], label=0)
    _, cut = evaluation.harness(*loaded, {"animals": [*ITEMS, long]}, PLAIN)
    assert cut == 2


def test_tasks_are_chosen_by_name_and_an_unknown_one_is_said(loaded: tuple[Any, Any]) -> None:
    own = {"one": ITEMS, "two": ITEMS}
    how = PLAIN.model_copy(update={"tasks": ["two"], "limit": 2})
    assert evaluation.harness(*loaded, own, how)[0].keys() == {"two"}
    assert evaluation.harness(*loaded, own, how)[0]["two"]["n"] == 2
    assert evaluation.harness(*loaded, own, PLAIN)[0].keys() == {"one", "two"}


def test_a_task_that_nobody_has(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    class Empty(lm_eval.tasks.TaskManager):
        """Without the scan of the tasks that lm_eval brings, which takes 8 s."""

        def __init__(self, include_defaults: bool) -> None:
            assert include_defaults, "names of the user's own are looked up in lm_eval too"
            super().__init__(include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", Empty)
    how = PLAIN.model_copy(update={"tasks": ["animals", "arc_esay"]})
    with pytest.raises(BadInput, match=r"lm_eval\.tasks: arc_esay: neither .* \(have animals\)"):
        evaluation.harness(*loaded, {"animals": ITEMS}, how)


# --- free answers --------------------------------------------------------------------------------


def test_a_probe_is_right_when_the_model_ends_a_right_answer(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [("red", "stop"), (" red\n", "stop"), ("red", "length"), ("red!", "stop"), ("", "stop")]

    def scripted(*_: Any, **more: Any) -> list[Continuation]:
        # one token more than the longest right answer: enough to see it end, no more
        assert more["max_new_tokens"] == len(loaded[1]("white")["input_ids"]) + 1
        return [Continuation(*each) for each in said]

    monkeypatch.setattr(evaluation, "_generate", scripted)
    probes = [
        Probe(id=str(n), skill="ab"[n % 2], system="", instruction="?", answers=["red", "white"])
        for n in range(5)
    ]
    attempts = evaluation.probe(*loaded, probes, 2)
    assert [a.right for a in attempts] == [True, True, False, False, False]
    assert evaluation.shares(attempts) == {
        "a": {"share": 0.333333, "n": 3},
        "b": {"share": 0.5, "n": 2},
    }


def test_no_probes_no_shares(loaded: tuple[Any, Any]) -> None:
    assert evaluation.probe(*loaded, [], 4) == [] and evaluation.shares([]) == {}


def test_shares_name_every_skill_once() -> None:
    rows = [Attempt(id=str(n), skill="one", answer="", right=n < 2) for n in range(4)]
    assert evaluation.shares(rows) == {"one": {"share": 0.5, "n": 4}}


# --- generation ----------------------------------------------------------------------------------


def generate(loaded: tuple[Any, Any], prompts: Sequence[str], **more: Any) -> list[Continuation]:
    how = {"max_new_tokens": 5, "batch_size": 8, **more}
    return evaluation._generate(*loaded, chat.ids(loaded[1], prompts), **how)


def test_a_batch_says_what_each_prompt_alone_would(loaded: tuple[Any, Any]) -> None:
    prompts = ["The fox is red.\nThe cow is", "The hen is", "The fox is", "The cow"]
    together = generate(loaded, prompts)
    assert together == [generate(loaded, [prompt])[0] for prompt in prompts]
    assert together[1].text.startswith(" brown")


def test_an_answer_stops_at_any_end_token_or_runs_to_its_length(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    (text, finish), *_ = generate(loaded, ["The fox is"])
    assert finish == "length" and len(tokenizer(text)["input_ids"]) > 3
    full_stop = tokenizer(".")["input_ids"][-1]
    # a base may end its text with another token than the tokenizer's, or with the next text's first
    ends, begins = model.generation_config.eos_token_id, tokenizer.bos_token
    try:
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, full_stop]
        assert generate(loaded, ["The fox is"]) == [Continuation(" red", "stop")]
        model.generation_config.eos_token_id, tokenizer.bos_token = ends, "."
        assert generate(loaded, ["The fox is"]) == [Continuation(" red", "stop")]
    finally:
        model.generation_config.eos_token_id, tokenizer.bos_token = ends, begins


def test_sampling_repeats_and_differs_from_greedy(loaded: tuple[Any, Any]) -> None:
    hot = [generate(loaded, ["The", "A", "Is"], temperature=2.0, max_new_tokens=9)] * 2
    assert hot[0] == generate(loaded, ["The", "A", "Is"], temperature=2.0, max_new_tokens=9)
    assert hot[0] != generate(loaded, ["The", "A", "Is"], max_new_tokens=9)


def test_a_prompt_near_the_end_of_the_context_gets_what_room_there_is(
    loaded: tuple[Any, Any],
) -> None:
    model, tokenizer = loaded
    bos, *fox = chat.ids(tokenizer, ["The fox is"])[0]
    ids = [bos, *(fox * 50)[-(SIZE.positions - 3) :]]
    found = evaluation._generate(model, tokenizer, [ids], max_new_tokens=9, batch_size=1)
    assert found == [Continuation(" red.", "length")]


# --- two turns -----------------------------------------------------------------------------------


def question(number: int, first: str, second: str) -> Question:
    return Question(question_id=number, category="x", turns=[first, second], reference=[])


def test_the_second_turn_sees_the_first_answer(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[str]] = []

    def scripted(model: Any, tokenizer: Any, given: Any, **_: Any) -> list[Continuation]:
        prompts.append([tokenizer.decode(ids, skip_special_tokens=True) for ids in given])
        return [Continuation(f"answer {len(prompts)}", "stop") for _ in given]

    monkeypatch.setattr(evaluation, "_generate", scripted)
    answers = evaluation.converse(*loaded, [question(81, "A?", "B?")], "dpo", TALK)
    assert prompts == [
        [chat.prompt([Message(role="user", content="A?")])],
        [
            chat.prompt(
                [
                    Message(role="user", content="A?"),
                    Message(role="assistant", content="answer 1"),
                    Message(role="user", content="B?"),
                ]
            )
        ],
    ]
    assert answers[0].model_dump() == {
        "question_id": 81,
        "model": "dpo",
        "turns": ["answer 1", "answer 2"],
        "finish": ["stop", "stop"],
    }


def test_a_conversation_loses_its_beginning_never_its_question(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    asked: list[list[list[int]]] = []
    generate = evaluation._generate

    def note(model: Any, tokenizer: Any, given: Any, **more: Any) -> list[Continuation]:
        asked.append(list(given))
        return generate(model, tokenizer, given, **more)

    monkeypatch.setattr(evaluation, "_generate", note)
    long = "fox " * 40
    rows = [question(1, long, long), question(2, "fox " * 90, "hen"), question(3, "A?", "B?")]
    answers = evaluation.converse(model, tokenizer, rows, "base", TALK)
    limit = SIZE.positions - TALK.max_new_tokens
    assert [len(given) for given in asked] == [2, 3]
    cut = asked[1][0]
    assert len(cut) == limit and cut[0] == tokenizer.bos_token_id
    assert tokenizer.decode(cut).endswith(f"### Instruction:\n{long}\n\n### Response:\n")
    assert answers[1].turns[0] == "" and answers[1].finish[0] == "no_room"
    assert [finish for a in answers for finish in a.finish].count("no_room") == 1


def test_a_limit_takes_questions_from_everywhere() -> None:
    rows = [question(n, "A?", "B?") for n in range(80)]
    assert [q.question_id for q in evaluation.some(rows, 8)] == list(range(0, 80, 10))
    assert evaluation.some(rows, None) == evaluation.some(rows, 99) == rows


# --- what the harness needs from an adapter ------------------------------------------------------


def test_an_adapter_is_evaluated_on_its_quantised_base(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model

    model, tokenizer = loaded
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    tuned = loading.quantised(base, SFT, loading.device())
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(tuned, config).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    trained, _ = loading.load(adapter, base, SFT)
    assert any(isinstance(layer, Linear4bit) for layer in trained.modules())
    scores, _ = evaluation.harness(trained, tokenizer, {"animals": ITEMS}, PLAIN)
    assert scores["animals"]["n"] == 3
    prompts = chat.ids(tokenizer, ["The fox is"])
    how = {"max_new_tokens": 9, "batch_size": 1}
    assert evaluation._generate(trained, tokenizer, prompts, **how) != evaluation._generate(
        model, tokenizer, prompts, **how
    ), "the adapter had no effect"
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
