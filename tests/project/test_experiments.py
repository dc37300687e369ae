"""Experiments: what each of docs/experiments.md costs, counted in the requests that a server behind
`llm.teacher` and `llm.judge` is paid for."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.builders import parameters, warm
from tests.builders.paid import point, speak
from tests.builders.servers import Model, serving
from tests.conftest import Run, copy, environment

pytestmark = pytest.mark.slow

RAN = re.compile(r"Running stage '([^']+)'")


@dataclass
class Lab:
    """A project whose teacher and judge are behind HTTP, with its sets made once."""

    run: Run
    model: Model

    def dvc(self, *arguments: str) -> tuple[set[str], int]:
        """(stages that a dvc command ran, requests that it paid for)."""
        before = sum(self.model.paid.values())
        done = self.run.dvc(*arguments, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return set(RAN.findall(done.stdout)), sum(self.model.paid.values()) - before


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    base = tmp_path_factory.mktemp("lab")
    folder = copy(base / "project")
    (folder / "dvc.lock").unlink()
    with serving(speak=speak) as (model, url):
        point(folder, url)
        document = parameters.read(folder)
        profile = document["profiles"]["embedded"]
        # the base is there for its tokenizer alone
        profile["fetch"]["base"] |= {"documents": 300, "steps": 1, "warmup_steps": 1}
        profile["schemes"] = {
            "lamini": {"calls": 4},
            "evol_instruct": {"per_category": 2},
            "orca": {"per_task": 1, "flan2021": 4},
        }
        parameters.write(folder, document)
        run = Run(folder, environment(base / "work", PATH=warm.path()), "")
        made = Lab(run, model)
        ran, paid = made.dvc("repro", "filter")
        assert {f"generate@{s}" for s in profile["schemes"]} <= ran and paid > 30
        subprocess.run(["git", "add", "-A"], cwd=folder, check=True, env=run.env)
        subprocess.run(["git", "commit", "-qm", "run"], cwd=folder, check=True, env=run.env)
        yield made
        assert set(model.paid.values()) == {1}, "an answer was bought twice"


def test_a_threshold_of_the_filter_asks_no_model(lab: Lab) -> None:
    ran, paid = lab.dvc("exp", "run", "-S", "filter.min_rating=5", "filter")
    assert ran == {"filter@lamini", "filter@evol_instruct", "filter@orca"}
    assert paid == 0


def test_a_prompt_asks_its_own_scheme_again(lab: Lab) -> None:
    prompt = lab.run.folder / "prompts/lamini/response.txt"
    text = prompt.read_text()
    prompt.write_text(text.replace("correct and complete", "complete and correct"))
    assert prompt.read_text() != text
    try:
        ran, paid = lab.dvc("repro", "judge")
    finally:
        prompt.write_text(text)
    assert {stage for stage in ran if stage.startswith("generate@")} == {"generate@lamini"}
    assert ran <= {"generate@lamini", "judge@lamini"} and paid > 0
    # and back: DVC's run cache has the sets, the ledger would have the answers
    ran, paid = lab.dvc("repro", "filter")
    assert "generate@lamini" not in ran and paid == 0


def test_a_temporary_run_shares_what_was_bought(lab: Lab) -> None:
    more, before = "profiles/embedded.yaml:schemes.lamini.calls=6", bought(lab)
    ran, paid = lab.dvc("exp", "run", "--temp", "-S", more, "judge@lamini")
    assert {"generate@lamini", "judge@lamini"} <= ran
    # the same in the working tree: restored by DVC, or found in the ledger
    _, again = lab.dvc("exp", "run", "-S", more, "judge@lamini")
    assert again == 0
    # two further calls, and what came of them: nothing that had been asked before
    new = bought(lab) - before
    assert before < bought(lab) and paid == len(new)


def bought(lab: Lab) -> set[str]:
    """The ledger's keys of all that lamini's samples and their verdicts cost."""
    keys = set()
    for stage in ("generate", "judge"):
        with open(lab.run.folder / f"data/{stage}/lamini/replies.jsonl", encoding="utf-8") as lines:
            keys |= {json.loads(line)["reply"]["key"] for line in lines}
    return keys


def test_a_grid_is_queued_and_told(lab: Lab) -> None:
    lab.dvc("exp", "run", "--queue", "-S", "filter.min_rating=3,4", "-S", "dpo.beta=0.1,0.3")
    told = lab.run.dvc("queue", "status").stdout
    assert told.count("Queued") == 4
    lab.run.dvc("queue", "remove", "--all")
    assert "Queued" not in lab.run.dvc("queue", "status").stdout
