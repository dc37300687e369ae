"""What README and the pages of docs/ claim: the picture is dvc.yaml's, the numbers are the recorded
run's, the worked example makes a set, the costs are those that are forecast, DVC answers what VS
Code's extension asks; and `make help` can be read."""

import json
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.preflight import expected, forecast, gpu
from bezoar.preflight.forecast import Row
from bezoar.preflight.machine import Gpu, Machine
from bezoar.report import __main__ as told
from tests.builders import parameters
from tests.builders.machines import GIB, H100, shape
from tests.builders.pages import FENCE, PAGES, joined
from tests.builders.revisions import (
    called,
    inside,  # noqa: F401  (a fixture)
    repository,  # noqa: F401  (a fixture)
)
from tests.conftest import ROOT, Run, environment, from_yaml

README = ROOT / "README.md"
DVC = ROOT / "dvc.yaml"
SCHEME = (ROOT / "docs/scheme.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one block of that language on the scheme's page."""
    (found,) = (text for info, text in FENCE.findall(SCHEME) if info == language)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_names_every_page() -> None:
    named = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert named == {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}


def test_the_readme_is_short_and_so_are_its_sentences() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert not [line for line in text.splitlines() if len(line) > 100]
    prose = re.sub(r"^([#|!].*|- )", "\n", FENCE.sub("\n", text), flags=re.MULTILINE)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    for sentence in re.split(r"(?<=[.])\**\s|\n\n", prose):
        assert len(sentence.split()) <= 25, sentence


def test_the_picture_of_the_report_is_small() -> None:
    picture = (ROOT / "docs/report.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) <= 200_000


def test_the_printed_numbers_are_those_of_the_recorded_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics/report").mkdir(parents=True)
    shutil.copy(ROOT / "metrics/report/summary.json", tmp_path / "metrics/report")
    parameters.copy(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    told.main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    page = (ROOT / "docs/demo.md").read_text(encoding="utf-8")
    (shown,) = (text.splitlines() for _, text in FENCE.findall(page))
    # how long it took, and whether it is the recorded one, is each run's own
    own = ("Time: ", "Recorded run: ")
    assert [line for line in shown if not line.startswith(own)] == [
        line for line in printed if not line.startswith(own)
    ]
    text = README.read_text(encoding="utf-8")
    (first,) = (block for _, block in FENCE.findall(text) if block.startswith("Held-out"))
    assert shown[: len(first.splitlines())] == first.splitlines()


# --- the picture of the stages --------------------------------------------------------------------

Edge = tuple[str, str]


def pictured() -> set[Edge]:
    """The arrows of README's picture: `a & b --> c --> d` is three of them."""
    (block,) = (text for info, text in FENCE.findall(README.read_text()) if info == "mermaid")
    lines = [line.split("-->") for line in block.splitlines()[1:]]
    steps = [step for line in lines for step in pairwise([part.split("&") for part in line])]
    return {(a.strip(), b.strip()) for step in steps for a, b in product(*step)}


def declared(folder: Path) -> set[Edge]:
    """What follows what, by stage: dvc.yaml with every loop that may be empty filled."""
    from dvc.repo import Repo

    document = parameters.read()
    filled = {**document, "others": ["phi_2"], "own": ["dolly"]}
    parameters.write(folder, filled)
    shutil.copy(ROOT / "dvc.yaml", folder)

    def name(stage: Any) -> str:
        address = stage.addressing.rpartition(":")[2].partition("@")[0]
        return re.sub("_(others|own)$", "", address)

    with Repo.init(str(folder), no_scm=True) as repo:
        return {(name(before), name(after)) for after, before in repo.index.graph.edges}


def reduced(edges: set[Edge]) -> set[Edge]:
    """The arrows that do not follow from others; both ways between two stages are told."""

    def reached(start: str, without: Edge) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            here = todo.pop()
            new = {b for a, b in edges - {without} if a == here} - seen
            seen |= new
            todo += new
        return seen

    mutual = {(a, b) for a, b in edges if (b, a) in edges}
    return {
        (a, b)
        for a, b in edges
        if a != b and ((a, b) in mutual or b not in reached(a, without=(a, b)))
    }


def test_the_picture_shows_every_stage() -> None:
    names = {re.sub("_(others|own)$", "", name) for name in from_yaml(DVC.read_text())["stages"]}
    assert {stage for edge in pictured() for stage in edge} == names


@pytest.mark.slow
def test_the_picture_shows_what_follows_what(tmp_path: Path) -> None:
    assert pictured() == reduced(declared(tmp_path))


def test_the_diff_of_the_scheme_page_applies() -> None:
    done = subprocess.run(
        ["git", "apply", "--check"],
        cwd=ROOT,
        input=block("diff"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_make_help_describes_every_target_in_80_columns() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony and [line.split()[0] for line in lines] == phony[1].split()
    for line in lines:
        assert len(line) <= 80 and re.fullmatch(r"[a-z0-9-]+ +\S.*\S", line), line


@pytest.mark.slow
def test_the_profile_is_switched(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    env = environment(tmp_path, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "bezoar.params"]
    done = subprocess.run(
        [*command, "local"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("the parameters are valid; the active profile is local (")
    before, after = (
        (f / "params.yaml").read_text(encoding="utf-8").splitlines() for f in (ROOT, tmp_path)
    )
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("profile: embedded", "profile: local")]


# --- costs ----------------------------------------------------------------------------------------


def costs(profile: str) -> dict[str, list[str]]:
    """Cells of the costs page, as `forecast` tells them: by stage, and in all."""
    rows = forecast.estimate(params.load(ROOT, profile))
    kinds = {
        "generate": ("generate ",),
        "judge": ("judge ",),
        "grade, agreement": ("mt_grade ", "agreement"),
        "total": ("",),
    }
    return {
        kind: cells(forecast.total([row for row in rows if row.stage.startswith(opening)]))
        for kind, opening in kinds.items()
    }


def cells(row: Row) -> list[str]:
    counts = (row.calls, row.tokens_in, row.tokens_out)
    return [f"{count:,}" for count in counts] + [f"{row.usd:,.2f}", f"{row.most:,.2f}"]


@pytest.mark.slow
def test_the_costs_are_those_of_the_forecast() -> None:
    page = (ROOT / "docs/costs.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| (.+) \|$", page, re.MULTILINE)
    assert [profile for profile, _, _ in told] == ["paper"] * 4 + ["small"]
    found = {profile: costs(profile) for profile in ("paper", "small")}
    for profile, kind, numbers in told:
        assert numbers.split(" | ") == found[profile][kind], (profile, kind)


SMALL = {  # of its base, SmolLM2-360M
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
}
T4 = Machine(Gpu("Tesla T4", 1, 16 * GIB, 15 * GIB), 64 * GIB)


@pytest.mark.slow
def test_the_table_of_profiles_is_what_forecast_and_preflight_compute(tmp_path: Path) -> None:
    page = (ROOT / "docs/costs.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| ([^|`]+) \| - \| - \| (.+) \|$", page, re.MULTILINE))
    table = {key: line.split(" | ") for key, line in lines.items()}
    on_first_screen = dict(re.findall(r"^\| `(\w+)` \| (.+)$", readme, re.MULTILINE))
    machines = {"small": (shape(tmp_path / "s", **SMALL), T4), "paper": (shape(tmp_path), H100)}
    for at, (name, (size, machine)) in enumerate(machines.items()):
        p = params.load(ROOT, name)
        asked = forecast.estimate(p)
        total = forecast.total(asked)
        assert table["calls"][at] == f"{total.calls:,}"
        assert table["tokens, in and out"][at] == f"{total.tokens_in + total.tokens_out:,}"
        waits = sum(duration.seconds for duration in expected.asking(p, asked)) / 3600
        assert table["hours until they have answered"][at].startswith(f"{waits:.1f}")
        durations = expected.training(p, size, machine, gpu.fits(p, size, machine), asked)
        hours = sum(duration.seconds for duration in durations) / 3600
        kind = "a T4" if name == "small" else "an H100"
        assert f"{hours:.1f} on {kind}" in page
        told = on_first_screen[name]
        assert f"{waits:.1f} h of asking, {hours:.1f} h of training on {kind}" in told
        assert f"${total.usd:,.2f}" in told
        assert not total.most or f"at most ${total.most:,.2f}" in told
        assert f"${total.usd:,.2f}" in page and expected.BATCH_HOURS == 24
    longest = sum(duration.seconds for duration in expected.answering(p)) / 3600
    assert f"{longest:.1f} hours at most in `paper`" in page
    assert (expected.SHARE, expected.STREAM) == (0.3, 20)


# --- on a finished run ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the finished embedded run, to change. test_pipeline.py experiments on the other."""
    base = tmp_path_factory.mktemp("docs")
    shutil.copytree(finished.folder, base / "project", symlinks=True)
    return Run(base / "project", environment(base / "work"), "")


def says(run: Run, *command: str, stdin: str | None = None) -> str:
    """What a command prints in the run's folder; it must succeed."""
    done = subprocess.run(
        command,
        cwd=run.folder,
        env=run.env,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_an_edit_that_changes_no_result_is_committed(run: Run) -> None:
    run.dvc("config", "--local", "cache.type", "hardlink,copy")
    with (run.folder / "stages/report.py").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    assert "stages/report.py" in run.dvc("status").stdout
    run.dvc("commit", "-f", "report")
    assert "up to date" in run.dvc("status").stdout


@pytest.mark.slow
def test_the_scheme_of_the_page_makes_a_set(run: Run) -> None:
    new = {"bezoar/schemes/verified.py": "python", "prompts/verified/response.txt": "text"}
    for name, language in new.items():
        assert f"`{name}`" in SCHEME and not (run.folder / name).exists()
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_text(block(language), encoding="utf-8")
    says(run, "git", "apply", stdin=block("diff"))
    edited = re.findall(r"^\+\+\+ b/([^/\n]+)", block("diff"), re.MULTILINE)
    assert {*edited} == {"bezoar", "profiles", "recipes"}, "a scheme needs no line in dvc.yaml"

    told = run.dvc("repro", "filter@verified").stdout
    ran = re.findall(r"^Running stage '(\S+)'", told, re.MULTILINE)
    assert ran == [f"{stage}@verified" for stage in ("generate", "judge", "filter")]
    out = run.folder / "data/filter/verified"
    funnel = json.loads((out / "funnel.json").read_text())
    assert funnel["asked"] == 100 and funnel["train"] > 50 and funnel["eval"] > 0
    assert funnel["reasons"]["another_answer"] > 0 and funnel["simulated_teacher"]
    known = {query["id"]: query["target"] for query in rows(run, "fetch/flan/queries")}
    for row in rows(run, "filter/verified/train"):
        assert known[row["seeds"][0]].lower() in row["response"].lower()
    assert "judge verified" in says(run, sys.executable, "-m", "bezoar.forecast")

    document = parameters.read(run.folder)
    document = joined(document, parameters.of_page(block("yaml")))
    for profile in document["profiles"].values():
        profile["sft"]["links"]["verified"] = {}
    parameters.write(run.folder, document)
    says(run, sys.executable, "-m", "bezoar.params")
    assert {"mix@verified", "sft@verified"} <= set(
        run.dvc("stage", "list", "--name-only").stdout.split()
    )


def rows(run: Run, name: str) -> list[dict[str, Any]]:
    lines = (run.folder / f"data/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# --- on a repository of small numbers -------------------------------------------------------------


@pytest.mark.slow
def test_the_extension_is_shown_params_metrics_and_plots(inside: None) -> None:  # noqa: F811
    workspace = json.loads(called("dvc", "exp", "show", "--json"))[0]["data"]
    assert workspace["params"]["params.yaml"]["data"]["dpo"]["beta"] == 0.3
    metrics = workspace["metrics"]["metrics/report/headline.json"]
    assert metrics["data"]["dpo"]["margin"] == 0.93

    split = ["--split", "-o", "plots", "--json"]
    plots = json.loads(called("dvc", "plots", "diff", "main", "beta-0.3", *split))
    assert "errors" not in plots
    assert {"mean harness accuracy", "metrics/dpo/train.csv"} <= plots["data"].keys()
    state = json.loads(called("dvc", "data", "status", "--granular", "--unchanged", "--json"))
    assert "metrics/dpo/train.csv" in state["unchanged"]


@pytest.mark.slow
def test_experiments_are_queued_compared_and_taken_over(
    repository: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(repository, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    called("git", "checkout", "--quiet", "--force", "main")
    assert "dpo.margin" in called("dvc", "exp", "diff", "main", "beta-0.3")
    called("dvc", "exp", "branch", "beta-0.3", "NAME")
    assert "beta: 0.3" in called("git", "show", "NAME:params.yaml")
    called("dvc", "exp", "apply", "beta-0.3")
    assert "beta: 0.3" in Path("params.yaml").read_text(encoding="utf-8")

    called("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "dpo.beta=0.2")
    try:
        called("dvc", "queue", "start")
        deadline = time.monotonic() + 120
        while "Success" not in (told := called("dvc", "queue", "status")):
            assert time.monotonic() < deadline and "Failed" not in told, told
            time.sleep(1)
    finally:
        called("dvc", "queue", "stop", "--kill")
    assert "dpo.beta" in called("dvc", "params", "diff", "main", "queued")
