"""Evaluation: harness scores against a count by hand, free answers, two-turn conversations."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import params, work
from bezoar.evaluating import benchmarks, harness, lm_harness, talks
from bezoar.evaluating.probes import probe, shares
from bezoar.models import generation, loading
from bezoar.models.generation import Continuation, Draw
from bezoar.params import LmEval
from bezoar.rows import chat, files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Attempt, Item, Message, Probe, Question, Scored
from bezoar.sources import pretraining
from stages import mt_answer
from tests.builders import parameters
from tests.builders.micro import CORPUS, NAMES, SIZE
from tests.conftest import ROOT, from_yaml

pytestmark = pytest.mark.slow

SFT = params.load(ROOT).sft
PLAIN = LmEval(num_fewshot=0, chat_template=False, tasks=None, limit=None, batch_size=4)
COLOURS = ["red", "white", "brown", "grey"]
ITEMS = [
    Item(id=animal, question=f"The {animal} is", choices=COLOURS, label=COLOURS.index(colour))
    for animal, colour in NAMES.items()
]
TALK = params.load(ROOT).mt_answer.model_copy(update={"max_new_tokens": 6, "batch_size": 2})


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
    scores, items, cut, _ = harness.run(*loaded, {"animals": ITEMS}, how)
    right = normed = 0
    for item in ITEMS:
        prompt, choices = f"Question: {item.question}\nAnswer:", [f" {c}" for c in item.choices]
        if template:
            prompt = chat.prompt([Message(role="user", content=item.question)])
            choices = item.choices
        sums = by_hand(*loaded, prompt, choices)
        per_character = [s / len(c) for s, c in zip(sums, item.choices, strict=True)]
        acc = sums.index(max(sums)) == item.label
        acc_norm = per_character.index(max(per_character)) == item.label
        assert Scored(task="animals", item=item.id, acc=acc, acc_norm=acc_norm) in items
        right, normed = right + acc, normed + acc_norm
    assert scores["animals"]["acc"] == pytest.approx(right / 3, abs=1e-5)
    assert scores["animals"]["acc_norm"] == pytest.approx(normed / 3, abs=1e-5)
    assert scores["animals"]["n"] == len(items) == 3 and cut == 0
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
    harness.run(*loaded, {"animals": ITEMS}, how)
    asked = chat.prompt([Message(role="user", content=ITEMS[0].question)])
    assert seen == [f"<s>{asked}{choice}" for choice in COLOURS]


def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contexts that the harness puts to the model from now on."""
    from lm_eval.models.huggingface import HFLM

    seen: list[str] = []
    score = HFLM._loglikelihood_tokens

    def note(self: Any, requests: Any, *args: Any, **more: Any) -> Any:
        seen.extend(self.tokenizer.decode(context) for _, context, _ in requests)
        return score(self, requests, *args, **more)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", note)
    return seen


def plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ").strip()


@pytest.mark.parametrize("template", [False, True])
def test_no_example_shows_the_item_that_is_asked(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, template: bool
) -> None:
    seen = requests(monkeypatch)
    twice = [
        Item(id="again", question=ITEMS[0].question, choices=COLOURS, label=ITEMS[0].label),
        Item(id="louder", question=f"{ITEMS[1].question.upper()}?", choices=COLOURS, label=1),
        Item(id="turned", question=ITEMS[2].question, choices=COLOURS[::-1], label=0),
    ]
    how = PLAIN.model_copy(update={"num_fewshot": 2, "chat_template": template})
    found = harness.run(*loaded, {"animals": [*ITEMS, *twice]}, how)
    assert len(seen) == 4 * 6
    for context in seen:
        asked = [plain(item.question) for item in ITEMS]
        shown = plain(context)
        assert sum(shown.count(one) for one in asked) == 3, "two examples and the item"
        last = max(asked, key=shown.rfind)
        assert shown.count(last) == 1
    assert any("never the item that is asked" in line for line in found.warnings)


def test_items_that_only_ask_alike_may_show_one_another(loaded: tuple[Any, Any]) -> None:
    one = Item(id="1", question="Which is a colour?", choices=["red", "dog"], label=0)
    other = Item(id="2", question="Which is a colour?", choices=["blue", "cow"], label=0)
    how = PLAIN.model_copy(update={"num_fewshot": 1})
    assert harness.run(*loaded, {"which": [one, other]}, how).scores["which"]["n"] == 2
    same = other.model_copy(update={"choices": ["cow", "red"], "label": 1})
    with pytest.raises(BadInput, match=r"num_fewshot: 1 examples are wanted, and which has 0 that"):
        harness.run(*loaded, {"which": [one, same]}, how)


@pytest.mark.parametrize(
    ("config", "shots"),
    [
        ({"test_split": "test"}, 2),  # as RACE: there is no other split
        ({"validation_split": "test"}, 2),
        ({"test_split": "test", "fewshot_split": "test"}, 2),
        ({"test_split": "test", "fewshot_config": {"sampler": "first_n"}}, 2),
        ({"test_split": "test", "training_split": "train"}, 2),
        ({"test_split": "test", "num_fewshot": 0}, 0),  # as TruthfulQA
        ({"test_split": "test", "num_fewshot": 1}, 2),
    ],
)
def test_tasks_of_lm_eval_show_no_item_to_itself_either(config: dict[str, Any], shots: int) -> None:
    from datasets import Dataset, DatasetDict
    from lm_eval.tasks import TaskManager

    def load(**_: Any) -> Any:
        def rows(word: str) -> Any:
            return Dataset.from_list(
                [{"q": f"How {word} is {n}?", "choices": ["no", "so"], "label": 1} for n in "abcd"]
            )

        return DatasetDict({"test": rows("big"), "train": rows("small")})

    task = {
        **{"task": "sizes", "custom_dataset": load, "output_type": "multiple_choice"},
        **{"doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}", "doc_to_target": "label"},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    with lm_harness.collect_warnings():
        manager = TaskManager(include_defaults=False)
        sizes = manager.load([{**task, **config}])["tasks"]["sizes"]
        told = lm_harness.set_shots([sizes], 2)
    for doc in sizes.eval_docs:
        context = sizes.fewshot_context(doc, sizes.config.num_fewshot)
        assert context.count("How") == shots + 1 and context.count(doc["q"]) == 1
        assert ("small" in context) is ("training_split" in config)
    assert any("sizes: num_fewshot" in line for line in told) is ("num_fewshot" in config)


def test_what_the_harness_warns_of_is_said_once_and_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import logging

    logger = logging.getLogger("lm_eval.models.huggingface")
    with lm_harness.collect_warnings() as warnings:
        for size in (600, 700):
            logger.warning(f"Left truncation applied. Original sequence length was {size}")
        logger.warning("`pretrained` model kwarg is not of type `str`. Many other ...")
        logger.warning("Label index was not in within range,Sample:\n\n{'q': 'a whole item'}")
        logger.info("Building contexts")
    assert warnings.lines() == [
        "lm_eval: Left truncation applied. Original sequence length was 600 (2 times)",
        "lm_eval: Label index was not in within range",
    ]
    said = capsys.readouterr().err
    assert said.count("Left truncation") == 1 and "pretrained" not in said


def test_new_items_under_an_old_name_are_the_ones_that_count(loaded: tuple[Any, Any]) -> None:
    wrong = [item.model_copy(update={"label": (item.label + 1) % 4}) for item in ITEMS]
    how = PLAIN.model_copy(update={"chat_template": True})
    sure = [Item(id="0", question="The fox is", choices=["red", "zqzqzq"], label=0)]
    assert harness.run(*loaded, {"animals": sure}, how)[0]["animals"]["acc"] == 1
    unsure = [sure[0].model_copy(update={"label": 1})]
    assert harness.run(*loaded, {"animals": unsure}, how)[0]["animals"]["acc"] == 0
    assert harness.run(*loaded, {"animals": wrong}, how)[0]["animals"]["n"] == 3


def test_new_content_under_an_old_time_gives_new_rows(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache by path and time of change would give the rows of another run."""
    monkeypatch.chdir(tmp_path)
    path = benchmarks.FETCHED / "tasks" / "animals.jsonl"
    found = []
    for label in (0, 1):
        item = Item(id="0", question="The fox is", choices=["red", "zqzqzq"], label=label)
        files.write_jsonl(path, [item])
        os.utime(path, (1_000_000_000, 1_000_000_000))
        found.append(harness.run(*loaded, benchmarks.items(), PLAIN).items[0].acc)
    assert found == [1.0, 0.0]


def test_scores_repeat_whatever_the_batch(loaded: tuple[Any, Any]) -> None:
    longer = [
        Item(
            id=f"longer {n}",
            question=f"{'The hen is brown. ' * n}The {animal} is",
            choices=["red as a fox", *COLOURS],
            label=1 + COLOURS.index(colour),
        )
        for n, (animal, colour) in enumerate(NAMES.items())
    ]
    own = {"animals": ITEMS, "longer": longer}
    found = [
        harness.run(*loaded, own, PLAIN.model_copy(update={"batch_size": size}))
        for size in (4, 4, 1, 16)
    ]
    assert all(again == found[0] for again in found)
    assert len({row.item for row in found[0].items}) == 2 * len(NAMES)


def test_a_groups_items_stand_under_its_name(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.tasks

    rows = [item.model_dump() for item in ITEMS]
    (tmp_path / "rows.py").write_text(
        "from datasets import Dataset, DatasetDict\n"
        f"def law(**_): return DatasetDict({{'test': Dataset.from_list({rows[:1]})}})\n"
        f"def art(**_): return DatasetDict({{'test': Dataset.from_list({rows[1:]})}})\n"
    )
    for name in ("law", "art"):
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\ncustom_dataset: !function rows.{name}\ntest_split: test\n"
            "output_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
            "doc_to_choice: '{{choices}}'\ndoc_to_target: label\n"
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        )
    (tmp_path / "school.yaml").write_text(
        "group: school\ntask: [law, art]\naggregate_metric_list: [{metric: acc}]\n"
    )

    class Theirs(lm_eval.tasks.TaskManager):
        """Brings a group made as mmlu is, whose data wants no hub."""

        def __init__(self, include_defaults: bool) -> None:
            super().__init__(include_defaults=False, include_path=str(tmp_path))

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", Theirs)
    how = PLAIN.model_copy(update={"tasks": ["school"]})
    scores, items, *_ = harness.run(*loaded, {}, how)
    assert scores.keys() == {"school"} and scores["school"]["n"] == 3
    assert [(row.task, row.item, row.acc_norm) for row in items] == [
        ("school", item, None) for item in ("art/0", "art/1", "law/0")
    ]
    mean = sum(row.acc or 0 for row in items) / 3
    assert scores["school"]["acc"] == pytest.approx(mean, abs=1e-5)


def test_items_without_an_accuracy_are_left_out() -> None:
    sample = {"doc_id": 7, "filter": "none", "acc": True}
    other = {"doc_id": 8, "filter": "flexible", "acc": True}
    told = {"doc_id": 9, "filter": "none", "bleu_max": 12.5}
    assert harness._scored("mmlu", "mmlu_law", None, [sample, other, told]) == [
        Scored(task="mmlu", item="mmlu_law/7", acc=1.0)
    ]


def test_requests_that_do_not_fit_are_counted(loaded: tuple[Any, Any]) -> None:
    long = Item(id="long", question="fox " * 200, choices=["red", "white"], label=0)
    found = harness.run(*loaded, {"animals": [*ITEMS, long]}, PLAIN)
    assert found.cut == 2
    (told,) = found.warnings
    assert told == "2 requests were longer than the model's 128 tokens and lost their beginning"


def test_tasks_are_chosen_by_name_and_an_unknown_one_is_said(loaded: tuple[Any, Any]) -> None:
    own = {"one": ITEMS, "two": ITEMS}
    how = PLAIN.model_copy(update={"tasks": ["two"], "limit": 2})
    found = harness.run(*loaded, own, how)
    assert found.scores.keys() == {"two"} and found.scores["two"]["n"] == 2
    assert found.warnings == ["two: 2 of 3 items asked (lm_eval.limit); not to be published"]
    assert [(row.task, row.item) for row in found.items] == [("two", i.id) for i in ITEMS[:2]]
    assert harness.run(*loaded, own, PLAIN)[0].keys() == {"one", "two"}


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
        harness.run(*loaded, {"animals": ITEMS}, how)


# --- free answers --------------------------------------------------------------------------------


def test_a_probe_is_right_when_the_model_ends_a_right_answer(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [("red", "stop"), (" red\n", "stop"), ("red", "length"), ("red!", "stop"), ("", "stop")]

    def scripted(*_: Any, **more: Any) -> list[Continuation]:
        # one token more than the longest right answer: enough to see it end, no more
        assert more["max_new_tokens"] == len(loaded[1]("white")["input_ids"]) + 1
        return [Continuation(*each) for each in said]

    monkeypatch.setattr(generation, "generate", scripted)
    probes = [
        Probe(id=str(n), skill="ab"[n % 2], system="", instruction="?", answers=["red", "white"])
        for n in range(5)
    ]
    attempts = probe(*loaded, probes, 2)
    assert [a.right for a in attempts] == [True, True, False, False, False]
    assert shares(attempts) == {
        "a": {"share": 0.333333, "n": 3},
        "b": {"share": 0.5, "n": 2},
    }


def test_no_probes_no_shares(loaded: tuple[Any, Any]) -> None:
    assert probe(*loaded, [], 4) == [] and shares([]) == {}


def test_shares_name_every_skill_once() -> None:
    rows = [Attempt(id=str(n), skill="one", answer="", right=n < 2) for n in range(4)]
    assert shares(rows) == {"one": {"share": 0.5, "n": 4}}


# --- generation ----------------------------------------------------------------------------------


def generate(loaded: tuple[Any, Any], prompts: Sequence[str], **more: Any) -> list[Continuation]:
    how = {"max_new_tokens": 5, "batch_size": 8, **more}
    return generation.generate(*loaded, chat.ids(loaded[1], prompts), **how)


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


def test_a_row_takes_the_place_of_one_that_has_ended(loaded: tuple[Any, Any]) -> None:
    """Rows of many lengths, with and without a common beginning, end at different times."""
    model, tokenizer = loaded
    texts = ["The fox is", "Is the hen white", "The cow", "A", "The fox is red.\nThe cow is", "Red"]
    lots = [texts, [f"The fox is red.\n{text}" for text in texts]]
    ends, full_stop = model.generation_config.eos_token_id, tokenizer(".")["input_ids"][-1]
    try:
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, full_stop]
        for prompts in lots:
            alone = [generate(loaded, [text], max_new_tokens=30)[0] for text in prompts]
            assert len({len(each.text) for each in alone}) > 2
            for size in (2, 3, 6):
                assert generate(loaded, prompts, max_new_tokens=30, batch_size=size) == alone
    finally:
        model.generation_config.eos_token_id = ends


def test_prompts_are_read_in_parts(loaded: tuple[Any, Any], monkeypatch: Any) -> None:
    prompts = ["The fox is red.\nThe cow is", "The hen is", "The fox is", "The cow"]
    whole = generate(loaded, prompts)
    monkeypatch.setattr(generation, "READ", 8)
    assert generate(loaded, prompts) == whole


def test_what_is_drawn_depends_on_its_seed_alone(loaded: tuple[Any, Any]) -> None:
    prompts = ["The", "A", "Is", "The fox is"]
    draws = [Draw(2.0, "a"), Draw(1.0, "b"), Draw(0.0, "c"), Draw(2.0, "d")]
    hot = generate(loaded, prompts, draws=draws)
    greedy = generate(loaded, prompts)
    assert hot[2] == greedy[2] and hot[0] != greedy[0]
    for size in (1, 3):
        turned = generate(loaded, prompts[::-1], draws=draws[::-1], batch_size=size)
        assert turned == hot[::-1]
    assert generate(loaded, ["The"], draws=[Draw(2.0, "other")]) != hot[:1]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    logits = torch.tensor([[1.0, 3.0, 2.0]]).repeat(1000, 1)
    likeliest = logits.argmax(-1)
    for temperature in (0.5, 1.0):
        at = [(temperature, (n + 0.5) / 1000) for n in range(1000)]
        counts = generation._draw_tokens(logits, likeliest, at).bincount(minlength=3) / 1000
        torch.testing.assert_close(counts, (logits[0] / temperature).softmax(-1), atol=2e-3, rtol=0)
    assert generation._draw_tokens(logits[:1], likeliest[:1], [(1.0, 1 - 2**-53)]).tolist() == [2]


def test_a_prompt_near_the_end_of_the_context_gets_what_room_there_is(
    loaded: tuple[Any, Any],
) -> None:
    model, tokenizer = loaded
    bos, *fox = chat.ids(tokenizer, ["The fox is"])[0]
    ids = [bos, *(fox * 50)[-(SIZE.positions - 3) :]]
    found = generation.generate(model, tokenizer, [ids], max_new_tokens=9, batch_size=1)
    room = SIZE.positions - len(ids)
    assert found == generation.generate(model, tokenizer, [ids], max_new_tokens=room, batch_size=1)
    assert 0 < room < 9 and found[0].finish == "length" and found[0].text


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

    monkeypatch.setattr(generation, "generate", scripted)
    answers = talks.converse(*loaded, [question(81, "A?", "B?")], "dpo", TALK)
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
        "raw": [],
    }


def test_the_thoughts_of_a_checkpoint_are_no_answer(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter(["<think>a</think>Paris.", "<think>b"])
    monkeypatch.setattr(
        generation, "generate", lambda *_, **__: [Continuation(next(texts), "stop")]
    )
    (answers,) = talks.converse(*loaded, [question(81, "A?", "B?")], "dpo", TALK)
    assert (answers.turns, answers.finish) == (["Paris.", ""], ["stop", "length"])
    assert answers.raw == ["<think>a</think>Paris.", "<think>b"]


def test_a_conversation_loses_its_beginning_never_its_question(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    asked: list[list[list[int]]] = []
    generate = generation.generate

    def note(model: Any, tokenizer: Any, given: Any, **more: Any) -> list[Continuation]:
        asked.append(list(given))
        return generate(model, tokenizer, given, **more)

    monkeypatch.setattr(generation, "generate", note)
    long = "fox " * 40
    rows = [question(1, long, long), question(2, "fox " * 90, "hen"), question(3, "A?", "B?")]
    answers = talks.converse(model, tokenizer, rows, "base", TALK)
    limit = SIZE.positions - TALK.max_new_tokens
    assert [len(given) for given in asked] == [2, 3]
    cut = asked[1][0]
    assert len(cut) == limit and cut[0] == tokenizer.bos_token_id
    assert tokenizer.decode(cut).endswith(f"### Instruction:\n{long}\n\n### Response:\n")
    assert answers[1].turns[0] == "" and answers[1].finish[0] == "no_room"
    assert [finish for a in answers for finish in a.finish].count("no_room") == 1


BY_CATEGORY = params.Temperatures(
    **dict.fromkeys(("writing", "roleplay"), 2.0),
    **dict.fromkeys(("stem", "humanities"), 1.0),
    **dict.fromkeys(("reasoning", "math", "coding", "extraction"), 0.0),
)


def test_answers_are_drawn_by_category_whoever_stands_beside(loaded: tuple[Any, Any]) -> None:
    hot, cold = (TALK.model_copy(update={"temperature": t}) for t in (BY_CATEGORY, 0.0))
    rows = [
        question(n, "The fox", "The cow").model_copy(update={"category": category})
        for n, category in enumerate(["writing", "writing", "math", "stem"])
    ]
    drawn = talks.converse(*loaded, rows, "base", hot)
    greedy = talks.converse(*loaded, rows, "base", cold)
    assert drawn[2] == greedy[2]  # math
    assert drawn[0].turns != greedy[0].turns and drawn[3].turns != greedy[3].turns
    assert drawn[0].turns != drawn[1].turns, "two questions are drawn alike"
    wide = hot.model_copy(update={"batch_size": 8})
    assert talks.converse(*loaded, rows[::-1], "base", wide) == drawn[::-1]
    assert talks.converse(*loaded, rows[:1], "base", hot) == drawn[:1]
    reseeded = hot.model_copy(update={"seed": hot.seed + 1})
    assert talks.converse(*loaded, rows, "base", reseeded)[0] != drawn[0]


def test_the_temperatures_of_fastchat_that_params_yaml_tells_are_taken() -> None:
    comment = (ROOT / "params.yaml").read_text().split("as FastChat: ")[1].split("}")[0]
    told = from_yaml(comment.replace("#", "") + "}")
    how = params.MtAnswer.model_validate(TALK.model_dump() | {"temperature": told})
    assert isinstance(how.temperature, params.Temperatures)
    assert how.temperature.writing == 0.7 and how.temperature.stem == 0.1
    with pytest.raises(ValueError, match="poetry"):
        params.MtAnswer.model_validate(TALK.model_dump() | {"temperature": told | {"poetry": 1.0}})


def test_a_category_without_a_temperature_is_said(loaded: tuple[Any, Any]) -> None:
    how = TALK.model_copy(update={"temperature": BY_CATEGORY})
    with pytest.raises(BadInput, match=r"mt_answer\.temperature: none for 'x', .* question 5; one"):
        talks.converse(*loaded, [question(5, "A?", "B?")], "base", how)


def test_how_turns_ended_is_counted(loaded: tuple[Any, Any]) -> None:
    said: list[tuple[list[str], list[Any]]] = [
        (["The fox is red.", ""], ["stop", "stop"]),
        (["again and " * 20, " "], ["length", "no_room"]),
        (["again and again", "fox"], ["length", "stop"]),
    ]
    rows = [
        Answers(question_id=n, model="base", turns=turns, finish=finish)
        for n, (turns, finish) in enumerate(said)
    ]
    found = talks.counts(rows, talks.lengths(rows, loaded[1]), TALK)
    texts = [text for row in rows for text in row.turns]
    tokens = [len(chat.ids(loaded[1], [text])[0]) - 1 for text in texts]  # without BOS
    assert found == {
        "turns": 6,
        "stopped": 3,
        "stopped_share": 0.5,
        "cut": 2,
        "no_room": 1,
        "refused": 0,
        "empty": 2,
        "loops": 1,
        "tokens": pytest.approx(sum(tokens) / 6, rel=1e-5),
    }


def test_the_stage_writes_answers_and_their_counts(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "die_with_parent", lambda: None)
    parameters.copy(tmp_path)
    for part in loaded:
        part.save_pretrained("models/fetch/base")
    files.write_jsonl("data/fetch/mt_bench/questions.jsonl", [question(81, "A?", "B?")])
    mt_answer.main("base")
    [said] = files.read_jsonl("data/mt_answer/base/answers.jsonl", Answers)
    counts = files.read_json("metrics/mt_answer/base.json")
    assert counts["turns"] == 2 and counts["stopped"] == said.finish.count("stop")
    assert counts["no_room"] == said.finish.count("no_room")


def test_a_limit_takes_questions_from_everywhere() -> None:
    rows = [question(n, "A?", "B?") for n in range(80)]
    assert [q.question_id for q in talks.some(rows, 8)] == list(range(0, 80, 10))
    assert talks.some(rows, None) == talks.some(rows, 99) == rows


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
    measured = harness.run(trained, tokenizer, {"animals": ITEMS}, PLAIN)
    assert measured.scores["animals"]["n"] == 3
    prompts = chat.ids(tokenizer, ["The fox is"])
    how = {"max_new_tokens": 9, "batch_size": 1}
    assert generation.generate(trained, tokenizer, prompts, **how) != generation.generate(
        model, tokenizer, prompts, **how
    ), "the adapter had no effect"
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
