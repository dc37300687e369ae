"""Two revisions side by side: the commands of docs/experiments.md say what changed, in few lines.
They run on a repository with dvc.yaml's own declarations and the numbers of a made-up run."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar import report
from tests.builders.revisions import SETTINGS, called, inside, repository
from tests.builders.runs import edit, grow
from tests.conftest import ROOT

__all__ = ["inside", "repository"]  # fixtures


PAGE = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Two runs side by side\n")[2].partition("\n## ")[0]
COMMANDS, SHOWN = re.findall(r"^```\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)

Dvc = Callable[..., str]


def rows(printed: str) -> list[list[str]]:
    """A table of DVC's as cells."""
    return [line.split() for line in printed.strip().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS.splitlines() if "exp run" not in c])
def test_what_the_page_compares_runs_and_shows_the_change(inside: None, command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    printed = called(program, *words)
    if words[0] == "plots":
        assert Path(printed.strip().removeprefix("file://")).is_file()
    else:
        assert re.search(r"dpo\S*(margin|average|beta)|average_high", printed), printed


@pytest.mark.slow
def test_a_metrics_diff_names_each_score_that_changed_once(inside: None) -> None:
    head, *changed = rows(called("dvc", "metrics", "diff", "main", "beta-0.3"))
    assert head == rows(SHOWN)[0]
    assert [(row[1], row[3]) for row in changed] == [
        ("dpo.margin", "0.93"),
        ("mt_bench.dpo.grade", "9.25"),
        ("mt_bench.dpo.high", "9.5"),
    ]
    assert {row[0] for row in changed} == {"metrics/report/headline.json"}


@pytest.mark.slow
def test_a_diff_of_everything_fits_on_a_screen(inside: None) -> None:
    printed = called("dvc", "metrics", "diff", "--all", "main", "beta-0.3").strip().splitlines()
    assert 20 < len(printed) <= 50
    assert max(map(len, printed)) <= 100


@pytest.mark.slow
def test_every_plot_has_both_revisions_and_a_title_of_its_own(inside: None) -> None:
    page = json.loads(called("dvc", "plots", "diff", "--json", "main", "beta-0.3"))
    assert "errors" not in page
    plots = [plot for found in page["data"].values() for plot in found]
    assert all(set(plot["revisions"]) == {"main", "beta-0.3"} for plot in plots)
    titles = [_title(plot) for plot in plots]
    assert len(set(titles)) == len(titles) >= 16
    assert {"mean MT-Bench grade", "orca: held-out loss", "dpo: training loss"} <= set(titles)


def _title(plot: dict[str, Any]) -> str:
    content = plot["content"]
    found = (json.loads(content) if isinstance(content, str) else content)["title"]
    return found if isinstance(found, str) else found["text"]


def test_the_headline_says_what_was_measured_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grow(tmp_path))
    edit("metrics/mt_grade/sft.json", lambda v: v.update(average=None))
    run = report.read(SETTINGS)
    told = report.headline(run)
    assert told["dpo"] == {"accuracy": 0.9123, "margin": 0.41}
    assert told["kept"]["orca"] == run.funnels["orca"].kept
    assert "grade" not in told["mt_bench"]["sft"] and "grade" in told["mt_bench"]["dpo"]
    assert report.checkpoints(run)[2].endswith(",\n")
    last = run.links["orca"].metrics
    kept_last = SETTINGS.model_copy(
        update={"sft": SETTINGS.sft.model_copy(update={"keep": "last"})}
    )
    assert report.headline(report.read(kept_last))["loss"]["orca"] == round(last.eval_loss_end, 4)
