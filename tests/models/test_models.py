"""Further models beside ours, for real: one in a folder, one behind an endpoint, one of a hub,
through the stages of a finished run; how each is spoken to; and what params.yaml refuses."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bezoar import params, work
from bezoar.evaluating import talks
from bezoar.models import generation, loading
from bezoar.preflight import data, endpoints, expected, forecast
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Message, Question, Reply
from tests.builders import parameters, warm
from tests.builders.hub import Hub, Repo, serve
from tests.builders.servers import serving
from tests.conftest import ROOT, Run

COMMIT = "a" * 40
SERVED: dict[str, Any] = {
    "provider": "openai",
    "style": "chat",
    "structured": False,
    "model": "m",
    "terms": "MIT",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key_env": None,
    "params": {"max_tokens": 64},
    "mode": "live",
    "concurrency": 4,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "timeout": 10,
    "patience": 10,
    "max_failed": 0.0,
    "reply_tokens": 30,
    "price": {"input": 1.0, "cached": 1.0, "output": 1.0, "batch": 1.0},
}
PUBLISHED: dict[str, Any] = {
    "source": "hub",
    "repository": "someone/Phi-2",
    "kind": "model",
    "revision": COMMIT,
    "ref": None,
    "licence": "MIT",
    "files": ["config.json", "*.safetensors", "tokenizer*"],
    "chat_template": "{% for m in messages %}Q: {{ m.content }}\nA: {% endfor %}",
}


def with_models(folder: Path, models: dict[str, Any]) -> None:
    """Have `models` stand beside our checkpoints in the params.yaml of `folder`."""
    document = parameters.read(folder)
    document["models"], document["others"] = models, list(models)
    parameters.write(folder, document)


def answers(folder: Path, name: str) -> list[dict[str, Any]]:
    with open(folder / f"data/mt_answer/{name}/answers.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# --- through the stages --------------------------------------------------------------------------


@pytest.mark.slow
def test_further_models_stand_beside_ours(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    ours = folder / "models/sft/hh_rlhf"
    shutil.copytree(ours, folder / "local/models/mine")
    files = {path.name: path.read_bytes() for path in ours.iterdir()}
    hub = Hub({("model", "someone/Phi-2"): Repo({COMMIT: files})})
    with serving() as (model, url), serve(hub):
        endpoint = {**SERVED, "base_url": f"{url}/v1"}
        models: dict[str, Any] = {
            "mine": {"source": "local", "chat_template": None},
            "theirs": PUBLISHED,
            "served": {"source": "served", "endpoint": endpoint},
        }
        with_models(folder, models)
        more = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        env = {**finished.env, "BEZOAR_WORK": str(tmp_path / "work")}
        Run(folder, env | more, "").dvc("repro", "models@theirs")
        run = Run(folder, env | {"PATH": warm.path()}, "")
        done = run.dvc("repro", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Running stage 'sft@" not in done.stdout + done.stderr
        assert "Running stage 'mt_answer@sft'" not in done.stdout + done.stderr
    # the same weights under another name, put to them in the same template: the same everything
    expected = [row | {"model": "mine"} for row in answers(folder, "hh_rlhf")]
    assert answers(folder, "mine") == expected
    items = [folder / f"data/lm_eval/{name}/items.jsonl" for name in ("mine", "hh_rlhf")]
    assert items[0].read_bytes() == items[1].read_bytes()
    # another template: other answers
    assert [row["turns"] for row in answers(folder, "theirs")] != [r["turns"] for r in expected]
    template = folder / "models/models/theirs/chat_template.jinja"
    assert template.read_text() == PUBLISHED["chat_template"]
    # two turns of every question, each bought once; some of the world's questions are the same
    said = answers(folder, "served")
    assert len(said) == len(expected) and all(row["finish"] == ["stop"] * 2 for row in said)
    assert set(model.paid.values()) == {1}
    spent = json.loads((folder / "data/mt_answer/served/spending.json").read_text())
    assert len(model.paid) <= spent["calls"] <= 2 * len(said) and spent["usd"] > 0
    # all of them in the tables, compared with our last
    summary = json.loads((folder / "metrics/report/summary.json").read_text())
    assert set(summary["mt_bench"]) >= {"mine", "theirs", "served"}
    assert set(summary["lm_eval"]) >= {"mine", "theirs"} and "served" not in summary["lm_eval"]
    assert set(summary["mt_bench_differences"]["mine"]) == {"dpo"}
    assert set(summary["lm_eval_differences"]["theirs"]) == {"dpo", "base"}
    assert summary["spending"]["mt_answer"]["served"]["usd"] == spent["usd"]
    page = (folder / "metrics/report/report.html").read_text()
    for shown in ("someone/Phi-2", "local/models/mine", "an endpoint", "answers/served.html"):
        assert shown in page
    # the paper has grades of a model of this name: 3.72
    row = re.search(r"<tr>[^\n]*theirs.*?</tr>", page[page.index('id="mt-bench"') :], re.DOTALL)
    assert row and "3.72" in row[0]
    assert not (folder / "metrics/report/cards/mine.md").exists()


# --- how they are spoken to ----------------------------------------------------------------------


class Tokenizer:
    """Ids are characters; `chat_template` is other people's."""

    chat_template = "theirs"

    def apply_chat_template(self, talk: list[dict[str, str]], **how: bool) -> str:
        assert how == {"tokenize": False, "add_generation_prompt": True}
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in talk)

    def __call__(self, texts: list[str], **how: bool) -> dict[str, list[list[int]]]:
        assert how == {"add_special_tokens": False}
        return {"input_ids": [list(map(ord, text)) for text in texts]}


def test_a_template_of_other_people_is_used_without_our_system_message() -> None:
    talk = [Message(role="user", content="Hello.")]
    found = chat.prompts(Tokenizer(), [talk, talk], ["", "Be brief."])
    shown = ["".join(map(chr, ids)) for ids in found]
    assert shown == ["<user>Hello.", "<system>Be brief.<user>Hello."]


def question(number: int) -> Question:
    return Question(question_id=number, category="math", turns=["One?", "Two?"], reference=[])


def test_turns_that_were_cut_before_they_said_anything_are_counted() -> None:
    ends: list[tuple[str, str]] = [("", "length"), ("Hm", "length"), ("", "stop"), (" ", "length")]
    answers = [
        Answers.model_validate(
            {"question_id": 1, "model": "m", "turns": [text, "x"], "finish": [finish, "stop"]}
        )
        for text, finish in ends
    ]
    assert talks.unsaid(answers) == 2


def test_an_endpoint_hears_its_own_first_answer_before_the_second_turn() -> None:
    heard: list[list[tuple[str, str]]] = []

    def ask(messages: Any, sample: int = 0) -> Reply:
        heard.append([(m.role, m.content) for m in messages])
        text = "first" if len(heard) == 1 else ""
        finish: Any = "stop" if text else "refused"
        return Reply(
            text=text, finish_reason=finish, tokens_in=1, tokens_out=1, model="m", simulated=False
        )

    given = talks.interview(question(1), "served", ask)
    first = [("user", "One?")]
    assert heard == [first, [*first, ("assistant", "first"), ("user", "Two?")]]
    assert (given.turns, given.finish) == (["first", ""], ["stop", "refused"])
    # providers refuse an empty message, and two of the user in a row
    heard.append([])
    talks.interview(question(2), "served", ask)
    assert heard[-1] == [*first, ("assistant", "(no answer)"), ("user", "Two?")]


def test_a_model_behind_an_endpoint_has_no_scores_and_the_stage_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import lm_eval

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "begin", lambda: None)
    parameters.copy(tmp_path)
    with_models(tmp_path, {"served": {"source": "served", "endpoint": SERVED}})
    lm_eval.main("served")
    assert "served is behind an endpoint, which gives no log-prob" in capsys.readouterr().out
    results = json.loads(Path("data/lm_eval/served/results.json").read_text())
    assert results == {"tasks": {}, "skills": {}, "truncated": 0}
    assert Path("metrics/lm_eval/served.json").exists()


# --- before a run --------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_they_cost_and_want_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    parameters.copy(tmp_path)
    models: dict[str, Any] = {
        "mine": {"source": "local", "chat_template": None},
        "theirs": PUBLISHED,
        "served": {"source": "served", "endpoint": SERVED},
    }
    with_models(tmp_path, models)
    p = params.load()
    asked = forecast.estimate(p)
    [row] = [row for row in asked if row.stage == "mt_answer served"]
    assert row.calls == 2 * 80 and row.usd > 0
    assert {f"mt_grade {name}" for name in models} <= {row.stage for row in asked}
    [waits] = [each for each in expected.asking(p, asked) if each.stage == "models/served"]
    assert waits.seconds > 0
    looked = {key: found.finding for key, found in data.look(p).items()}
    assert (
        looked["models/mine"].level == "stop"
        and "local/models/mine" in looked["models/mine"].message
    )
    assert looked["models/theirs"].level == "stop"
    [silent] = [f for f in endpoints.check(p.llm, p.models) if f.where == "models.served"]
    assert silent.level == "stop" and "does not answer" in silent.message


# --- params.yaml ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"a b": {"source": "local", "chat_template": None}}, "models.a b"),
        ({"a": {"source": "hub"}}, "models.a: has no repository, kind, revision, "),
        ({"a": {**PUBLISHED, "revision": "main"}}, "models.a.revision: a branch can move"),
        (
            {"a": {**PUBLISHED, "stop": [""]}},
            "models.a.stop.0: '' is not usable; a word that is not empty is wanted",
        ),
        (
            {"a": {"source": "served", "endpoint": {**SERVED, "structured": True}}},
            "models.a.endpoint.structured: only a judge's verdict",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    tmp_path: Path, models: dict[str, Any], said: str
) -> None:
    parameters.copy(tmp_path)
    with_models(tmp_path, models)
    with pytest.raises(BadInput, match=re.escape(said)):
        params.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"others": ["phi2"]}, "others: 'phi2' is none of `models`; did you mean 'phi_2'?"),
        ({"others": ["phi_2", "phi_2"]}, "others: 'phi_2' stands there twice"),
        (
            {"others": ["dpo"], "models": {"dpo": PUBLISHED}},
            "others: 'dpo' is a checkpoint of this recipe; rename it in `models`",
        ),
        (
            {"checkpoints": {"phi_2": {"model": "models/phi_2"}}},
            "checkpoints.phi_2: models/phi_2 is not made by this recipe; leave the line out, and "
            "name phi_2 in `others`",
        ),
    ],
)
def test_which_models_stand_beside_ours_is_checked(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    parameters.copy(tmp_path)
    document = parameters.read()
    for key, value in change.items():
        document[key] = {**document[key], **value} if isinstance(value, dict) else value
    parameters.write(tmp_path, document)
    with pytest.raises(BadInput, match=re.escape(said)):
        params.load(tmp_path)


# --- the models of the paper's Table 8 -----------------------------------------------------------

TABLE_8 = ("redpajama", "minichat", "phi_2")


@pytest.fixture
def with_table_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    """The paper's profile after `dvc exp run -S 'others=[...]'`."""
    monkeypatch.chdir(tmp_path)
    parameters.copy(tmp_path)
    parameters.override(Path(), f"others=[{','.join(TABLE_8)}]", "profile=paper")
    return params.load()


@pytest.mark.slow
def test_one_parameter_has_the_models_of_table_8_stand_beside_ours(
    with_table_8: params.Params,
) -> None:
    off, on = params.load(ROOT, "paper"), with_table_8
    assert not off.models and not {*TABLE_8} & {*off.checkpoints, *off.evaluated}
    assert list(on.models) == list(TABLE_8)
    assert list(on.checkpoints)[-3:] == list(on.evaluated)[-3:] == list(TABLE_8)
    assert all(on.further(on.checkpoints[name]) is on.models[name] for name in TABLE_8)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("redpajama", "<human>: One?\n<bot>: Two.\n<human>: Three?\n<bot>:"),
        ("minichat", "<s>[|User|] One?</s>[|Assistant|] Two.</s>[|User|] Three?</s>[|Assistant|]"),
        ("phi_2", "Instruct: One?\nOutput: Two.\nInstruct: Three?\nOutput:"),
    ],
)
@pytest.mark.slow
def test_a_conversation_is_put_to_a_model_of_table_8_as_its_card_asks(
    with_table_8: params.Params, name: str, asked: str
) -> None:
    from transformers import PreTrainedTokenizerFast

    model = with_table_8.models[name]
    assert isinstance(model, params.FurtherHub) and model.chat_template
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=small_tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = model.chat_template
    talk = [Message(role="user", content="One?"), Message(role="assistant", content=" Two.")]
    talk.append(Message(role="user", content="Three?"))
    [ids] = chat.prompts(tokenizer, [talk])
    assert tokenizer.decode(ids) == asked
    assert chat.prompts(tokenizer, [talk[-1:]], ["Be brief."])  # a system message is taken too


def small_tokenizer() -> Any:
    """Bytes, and the two marks of a text's ends."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: n for n, letter in enumerate(sorted(alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark) for mark in ("<s>", "</s>")])
    return tokenizer


def test_what_a_model_writes_behind_its_turn_is_no_part_of_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ["A lion. \n<human>: And the owl?\n<bot>: Dusk.", "No mark."]
    written = [generation.Continuation(text, "length") for text in said]
    monkeypatch.setattr(generation, "generate", lambda *_, **__: written)
    settings = params.load(ROOT).mt_answer
    monkeypatch.setattr(loading, "context", lambda config: 512)
    model: Any = SimpleNamespace(config=None)
    found = talks.converse(
        model, Tokenizer(), [question(1), question(2)], "m", settings, stop=["<human>:"]
    )
    assert [row.turns for row in found] == [["A lion."] * 2, ["No mark."] * 2]
    assert [row.finish for row in found] == [["stop"] * 2, ["length"] * 2]
    assert found[0].raw == [said[0]] * 2 and not found[1].raw
