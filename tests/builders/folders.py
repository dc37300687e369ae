"""A folder as the fetch stages leave it, what stands in it, and judges for its params.yaml."""

import json
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, params, work, world
from bezoar.rows.files import write_json, write_jsonl
from bezoar.rows.records import Answers
from tests.builders import parameters
from tests.builders.bases import write_tokenizer
from tests.builders.scripted import Line, Scripted
from tests.conftest import ROOT


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and what the fetch stages write, as the current one."""
    parameters.copy(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "die_with_parent", lambda: None)
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    questions = world.questions(16, 7)
    answers = world.model_answers(questions, 7)
    write_jsonl("data/fetch/dolly/seeds.jsonl", world.seeds(400, 7))
    write_jsonl("data/fetch/flan/queries.jsonl", world.queries(400, 7))
    for seeds in ("dolly", "flan"):
        write_json(f"data/fetch/{seeds}/source.json", {"source": "world"})
    write_jsonl("data/fetch/topics/topics.jsonl", world.topics(40, 7))
    write_jsonl("data/fetch/mt_bench/questions.jsonl", questions)
    write_jsonl("data/fetch/mt_bench/answers.jsonl", answers)
    votes = [*world.votes(questions, answers, 7), *world.pair_votes(questions, answers, 7)]
    write_jsonl("data/fetch/mt_bench/votes.jsonl", votes)
    write_jsonl("data/fetch/mt_bench/grades.jsonl", world.grades(questions, answers, 7))
    write_jsonl("data/mt_answer/base/answers.jsonl", answers[:16])
    write_jsonl("data/fetch/benchmarks/probes.jsonl", [])
    write_jsonl("data/fetch/hh_rlhf/test.jsonl", [])
    write_tokenizer(tmp_path / "models/fetch/base/tokenizer.json")
    return tmp_path


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def read(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return loaded


def says(monkeypatch: pytest.MonkeyPatch, line: Line) -> None:
    monkeypatch.setattr(llm, "connect", lambda endpoint, *_: Scripted(lambda prompt: line))


def better(answers: list[Answers]) -> list[Answers]:
    """The first half of the answers as they are, the other half as the world would answer."""
    asked = {q.question_id: q.turns for q in world.questions(16, 7)}
    return [
        a.model_copy(
            update={"model": "sft"}
            | ({"turns": [world.solve(t) or "" for t in asked[a.question_id]]} if at > 7 else {})
        )
        for at, a in enumerate(answers)
    ]


def judged_by(*judges: dict[str, Any], **more: Any) -> None:
    """Write the panel into params.yaml of the current folder; one judge stays one."""
    with parameters.changed(Path()) as document:
        panel = list(judges) if judges[1:] else judges[0]
        document["profiles"]["embedded"]["llm"]["judge"] = panel
        document["judge"] |= more


def simulated(model: str) -> dict[str, Any]:
    shape: dict[str, Any] = params.load(ROOT).llm.judges[0].model_dump()
    return {**shape, "model": model}
