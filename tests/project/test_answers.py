"""What benchmarks.answers tells: a whole run on a few questions, and why texts differ."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import answers
from bezoar import params, world
from bezoar.models import loading
from bezoar.rows import files
from bezoar.rows.records import Message
from bezoar.sources import pretraining
from tests.builders.micro import CORPUS, SIZE
from tests.conftest import ROOT, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds two turns."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE.model_copy(update={"positions": 512}), 7, folder / "base")
    return folder / "base"


def test_a_run_ends_with_the_speedup_and_the_share_that_is_equal(
    grown: Path, tmp_path: Path
) -> None:
    files.write_jsonl(tmp_path / "questions.jsonl", world.questions(16, 7))
    files_given = ["--model", str(grown), "--questions", str(tmp_path / "questions.jsonl")]
    few = ["--limit", "8", "--max-new-tokens", "12", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.answers", *files_given, *few],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *table, last = done.stdout.splitlines()
    assert table[0].startswith("8 questions, two turns, ")
    assert [row.split()[0] for row in table[1:]] == ["one", "together"]
    found = json.loads(last)
    assert found.keys() == {"speedup", "equal"}
    assert found["equal"] == 1.0
    assert found["speedup"] > 1.5  # far more with all questions


def test_a_text_that_differs_is_told_with_the_gap_there(
    grown: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = params.load(ROOT)
    loaded = loading.load(grown, grown, settings.sft)
    how = settings.mt_answer.model_copy(update={"max_new_tokens": 4})
    questions = world.questions(8, 7)[:2]

    def other(*given: object) -> answers.Turns:
        said = answers.one_at_a_time(*loaded, questions, how)
        return [[f"x{said[0][0]}", "?"], said[1]]

    monkeypatch.setattr(answers, "together", other)
    found = answers.measure(*loaded, questions, how, 1)
    assert found["equal"] == 0.5
    told = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    # the second turn's prompt is another after it
    name = f"question {questions[0].question_id}, turn 1"
    assert len(told) == 1 and told[0].startswith(f"{name} differs at token 0, where")
    asked = [Message(role="user", content=questions[0].turns[0])]
    gap = float(answers.why(*loaded, asked, "a", "b").split()[-2])
    assert gap > 0
