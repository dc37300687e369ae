"""Further models beside ours, for real: one in a folder, one behind an endpoint, one of a hub,
through the stages of a finished run; how each is spoken to; and what params.yaml refuses."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import chat, evaluation, forecast, params
from bezoar.files import BadInput
from bezoar.preflight import data, endpoints, expected
from bezoar.records import Answers, Message, Question, Reply
from tests.conftest import ROOT, Run
from tests.hub import Hub, Repo, serve
from tests.servers import serving

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


def with_models(folder: Path, models: dict[str, Any], harness: list[str]) -> None:
    """Have params.yaml of `folder` look at `models`, those of `harness` by the harness too."""
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["models"] = models
    for name in models:
        document["checkpoints"][name] = {"model": f"models/{name}"}
    for name in harness:
        place = f"models/{name}"
        document["evaluated"][name] = {"model": place, "base": place, "link": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def answers(folder: Path, name: str) -> list[dict[str, Any]]:
    with open(folder / f"data/mt_answer/{name}/answers.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# --- through the stages --------------------------------------------------------------------------


@pytest.mark.slow
def test_further_models_stand_beside_ours(runs: tuple[Run, Run], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(runs[0].folder, folder, symlinks=True)
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
        with_models(folder, models, ["mine", "theirs"])
        more = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        run = Run(folder, {**runs[0].env, **more, "BEZOAR_WORK": str(tmp_path / "work")}, "")
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
    assert evaluation.unsaid(answers) == 2


def test_an_endpoint_hears_its_own_first_answer_before_the_second_turn() -> None:
    heard: list[list[tuple[str, str]]] = []

    def ask(messages: Any, sample: int = 0) -> Reply:
        heard.append([(m.role, m.content) for m in messages])
        text = "first" if len(heard) == 1 else ""
        finish: Any = "stop" if text else "refused"
        return Reply(
            text=text, finish_reason=finish, tokens_in=1, tokens_out=1, model="m", simulated=False
        )

    given = evaluation.interview(question(1), "served", ask)
    first = [("user", "One?")]
    assert heard == [first, [*first, ("assistant", "first"), ("user", "Two?")]]
    assert (given.turns, given.finish) == (["first", ""], ["stop", "refused"])
    # providers refuse an empty message, and two of the user in a row
    heard.append([])
    evaluation.interview(question(2), "served", ask)
    assert heard[-1] == [*first, ("assistant", "(no answer)"), ("user", "Two?")]


# --- before a run --------------------------------------------------------------------------------


def test_what_they_cost_and_want_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "launch", "launch")
    models: dict[str, Any] = {
        "mine": {"source": "local", "chat_template": None},
        "theirs": PUBLISHED,
        "served": {"source": "served", "endpoint": SERVED},
    }
    with_models(tmp_path, models, ["mine", "theirs"])
    p = params.load()
    asked = forecast.estimate(p)
    [row] = [row for row in asked if row.stage == "mt_answer served"]
    assert row.calls == 2 * 80 and row.usd > 0
    assert {f"mt_grade {name}" for name in models} <= {row.stage for row in asked}
    [waits] = [each for each in expected.asking(p, asked) if each.stage == "models/served"]
    assert waits.seconds > 0
    looked = {key: found.finding for key, found in data.look(p).items()}
    assert (
        looked["models/mine"].level == "stop" and "local/models/mine" in looked["models/mine"].what
    )
    assert looked["models/theirs"].level == "stop"
    [silent] = [f for f in endpoints.check(p.llm, p.models) if f.where == "models.served"]
    assert silent.level == "stop" and "does not answer" in silent.what


# --- params.yaml ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "harness", "said"),
    [
        ({"a": {"source": "served", "endpoint": SERVED}}, ["a"], "models.a: behind an endpoint"),
        ({"a b": {"source": "local", "chat_template": None}}, [], "models.a b"),
        ({"a": {"source": "hub"}}, [], "models.a.repository: missing"),
        ({"a": {**PUBLISHED, "revision": "main"}}, [], "models.a.revision: a branch can move"),
        (
            {"a": {"source": "served", "endpoint": {**SERVED, "structured": True}}},
            [],
            "models.a: endpoint.structured: only a judge's verdict",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    tmp_path: Path, models: dict[str, Any], harness: list[str], said: str
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    with_models(tmp_path, models, harness)
    with pytest.raises(BadInput, match=re.escape(said)):
        params.load(tmp_path / "params.yaml")


def test_a_model_that_nothing_looks_at_says_where_to_name_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["models"] = {"a": {"source": "local", "chat_template": None}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput, match=r"checkpoints: \{a: \{model: models/a\}\}"):
        params.load(tmp_path / "params.yaml")
