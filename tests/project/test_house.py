"""The rules of the house: what CONTRIBUTING.md promises about the shape of the repository."""

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import params, schemes
from bezoar.rows.prompts import Prompt
from tests.builders import parameters
from tests.conftest import ROOT, from_yaml

DVC: dict[str, Any] = from_yaml((ROOT / "dvc.yaml").read_text())
PARAMS: dict[str, Any] = parameters.read()
LOOPS: dict[str, Any] = {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}
# the second loop of a stage, over `others`, which DVC wants a name of its own for
SECOND = {name: loop for name, loop in LOOPS.items() if name.endswith("_others")}
OWN = "filter_own"  # the user's own rows, which no model wrote or judged
STAGES = {name: loop for name, loop in LOOPS.items() if name not in (OWN, *SECOND)}
PYTHON = sorted([*(ROOT / "bezoar").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
# folders of tests/ that mirror no room of bezoar/: tests of stages/ and dvc.yaml, of all that is no
# code of the library, what tests build on, and what processes that tests start run
BESIDE_ROOMS = {"stages", "project", "builders", "audit", "bits", "halt"}
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "lm_eval",
    "datasets",
    "matplotlib",
)


def outs(stage: dict[str, Any]) -> list[str]:
    listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in listed]
    return (
        [source["out"] for source in DVC["vars"][1]["sources"].values()]
        if (paths == ["${item.out}"])
        else paths
    )


def test_one_file_a_stage_and_one_stage_a_file() -> None:
    assert set(STAGES) == {p.stem for p in (ROOT / "stages").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_its_own_file_and_depends_on_it(name: str) -> None:
    assert STAGES[name]["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
    assert f"stages/{name}.py" in STAGES[name]["deps"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_alone_writes_the_folders_of_its_name(name: str) -> None:
    for path in outs(STAGES[name]):
        root, owner, *_ = path.split("/")
        assert root in ("data", "models", "metrics") and owner == name, path


@pytest.mark.parametrize("name", SECOND)
def test_the_second_loop_of_a_stage_is_the_first_one_for_other_models(name: str) -> None:
    """It differs in where the model lies, and in the parameters that say so."""
    one, other = LOOPS[name.removesuffix("_others")], SECOND[name]
    assert other["cmd"] == one["cmd"] and DVC["stages"][name]["foreach"] == "${others}"
    assert [out.replace("item", "key") for out in outs(other)] == outs(one)
    for kind, apart in (("deps", "models/"), ("params", ("models.", "recipes/"))):
        shared = [
            [
                x.replace("${item}", "${key}")
                for x in (parameters.names(loop) if kind == "params" else loop[kind])
                if not x.startswith(apart)
            ]
            for loop in (one, other)
        ]
        assert shared[0] == shared[1], kind


def test_own_rows_are_filtered_by_the_same_stage_and_wait_for_no_model() -> None:
    one, own = LOOPS["filter"], LOOPS[OWN]
    assert own["cmd"] == one["cmd"] and DVC["stages"][OWN]["foreach"] == "${own}"
    assert [out.replace("item", "key") for out in outs(own)] == outs(one)
    assert not [dep for dep in own["deps"] if re.match("data/(generate|judge)|prompts/", dep)]
    own_deps = {dep.replace("${item}", "${item.seeds}") for dep in own["deps"]}
    assert own_deps <= {*one["deps"]}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_a_section_in_params_and_a_row_in_the_table(name: str) -> None:
    assert name in PARAMS
    assert re.search(rf"^\| `{name}` \|", (ROOT / "docs/stages.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_file_says_what_it_reads_and_writes_and_stays_thin(name: str) -> None:
    text = (ROOT / "stages" / f"{name}.py").read_text()
    doc = ast.get_docstring(ast.parse(text)) or ""
    assert re.search(r"^reads ", doc, re.MULTILINE) and re.search(r"^writes ", doc, re.MULTILINE)
    assert len(text.splitlines()) < 60, "a stage is a table of contents; the work is in bezoar/"


def test_every_out_lies_in_a_folder_that_git_ignores() -> None:
    for folder in ("data", "models", "metrics"):
        assert (ROOT / folder / ".gitignore").read_text().startswith("*\n!.gitignore\n")


def test_a_scheme_has_a_module_a_prompt_folder_and_a_section() -> None:
    assert set(PARAMS["schemes"]) == set(schemes.names())
    for name in schemes.names():
        assert list((ROOT / "prompts" / name).rglob("*.txt")), name


def test_profiles_run_the_same_stages_and_stand_in_no_path() -> None:
    for profile in PARAMS["profiles"]:
        for stage in STAGES.values():
            for path in [*stage["deps"], *outs(stage)]:
                # the user's own files lie in local/, under every profile
                assert f"/{profile}/" not in f"/{path.removeprefix('local/')}/", path


def test_params_yaml_is_valid_under_every_profile() -> None:
    assert params.load(ROOT).profile == "embedded"


@pytest.mark.parametrize("path", sorted((ROOT / "prompts").rglob("*.txt")), ids=lambda p: p.stem)
def test_every_prompt_opens_and_holds_words(path: Path) -> None:
    prompt = Prompt(str(path.relative_to(ROOT / "prompts").with_suffix("")))
    assert len(prompt.text) > 5


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not any(n.split(".")[0] in HEAVY for n in names), ast.unparse(node)


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if node.name in ("main", "plan", "run") and path.parent.name in ("stages", "schemes"):
                continue  # said once, in the module's or the package's docstring
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_silent_defaults_no_pickle_no_remote_code(path: Path) -> None:
    text = path.read_text()
    assert "trust_remote_code=True" not in text and "import pickle" not in text
    assert not re.search(r"\bparams\.get\(|\bcfg\.get\(", text)
    assert path.stem not in ("utils", "common", "helpers", "base")


def test_the_library_starts_without_heavy_imports() -> None:
    """Params are checked on any machine before anything heavy loads."""
    code = (
        "import sys, bezoar.params, bezoar.llm, bezoar.schemes, bezoar.training, "
        "bezoar.evaluating.harness, bezoar.evaluating.talks, bezoar.sources.pretraining, "
        "bezoar.report, bezoar.sources\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_imports_point_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout


# --- where tests lie -----------------------------------------------------------------------------


def test_tests_lie_in_folders_that_mirror_the_rooms() -> None:
    tests = ROOT / "tests"
    rooms = {path.parent.name for path in (ROOT / "bezoar").glob("*/__init__.py")}
    folders = {path.relative_to(tests).parts[0] for path in tests.glob("*/**/*.py")}
    assert BESIDE_ROOMS <= folders <= rooms | BESIDE_ROOMS
    assert not list(tests.glob("test_*.py"))
    for path in (tests / "builders").glob("*.py"):
        assert "\ndef test_" not in path.read_text(encoding="utf-8"), f"{path.name} holds a test"


def test_no_test_is_imported_by_another() -> None:
    """Not in code that a test hands to a process either: what several use is in tests/builders/."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"\btests(?:\.\w+)*(?:\.| import )(test_\w+)", text)
        assert {*named} <= {path.stem}, path


# --- what is said, and what things are called ----------------------------------------------------

# Words that name nothing. As part of a name they are fine: `rows_kept`, `found_in_seeds`.
VAGUE = """
found told made known asked given whole said shown kept each one other here there wanted held drawn
both named own at of way what who how where which
"""
BLANK_OPENINGS = re.compile(r"(What|Whether|How|Of|Who|Where|Which)\b")


@functools.cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in PYTHON]


def sentences() -> list[str]:
    """The sentences of all docstrings. A line of a list or table is one, too."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    docs = [
        ast.get_docstring(node) or ""
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]
    found = [part for doc in docs for part in re.split(r"(?<=[.!?:])\s+|\n\n", doc)]
    return [" ".join(sentence.split()) for sentence in found if sentence.strip()]


def bindings() -> list[str]:
    """The names that are given: to variables, parameters and functions."""
    names = []
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
            elif isinstance(node, ast.arg):
                names.append(node.arg)
            elif isinstance(node, ast.FunctionDef):
                names.append(node.name.lstrip("_"))
    return names


def test_a_name_says_what_it_names() -> None:
    names = bindings()
    assert len(names) > 5000
    assert sum(name in VAGUE.split() for name in names) <= 0.005 * len(names)


def test_docstrings_are_plain_sentences() -> None:
    every = sentences()
    assert len(every) > 2000
    assert [s for s in every if BLANK_OPENINGS.match(s)][3:] == []
    assert sum(";" in sentence for sentence in every) <= 0.01 * len(every)
    # lists of files and of reasons are longer
    assert sum(len(sentence.split()) > 25 for sentence in every) <= 0.015 * len(every)


def test_comments_say_why_often_enough() -> None:
    lines = [line.strip() for path in PYTHON for line in path.read_text("utf-8").splitlines()]
    written = [line for line in lines if line]
    assert sum(line.startswith("#") for line in written) >= 0.025 * len(written)


def test_every_dependency_named_in_dvc_yaml_exists() -> None:
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            if dep.startswith(("stages/", "bezoar/", "prompts/")) and "$" not in dep:
                assert (ROOT / dep).exists(), f"{name}: {dep}"


def test_the_lock_names_no_host_and_pins_everything() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert "torch==2.13.0" in lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    def plain(pin: str) -> tuple[str, str]:
        name, _, version = re.sub(r"\[.*\]", "", pin).partition("==")
        return name.lower().replace("_", "-"), version

    locked = dict(map(plain, (ROOT / "requirements.lock").read_text().splitlines()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, version = plain(wanted)
        assert locked.get(name) and version in ("", locked[name]), wanted


def test_params_have_no_anchors() -> None:
    # `dvc exp run -S` rewrites the file, and cannot read what it writes of an anchor with a comment
    for path, text in parameters.texts().items():
        events = yaml.parse(text)
        lines = [event.start_mark.line + 1 for event in events if getattr(event, "anchor", None)]
        assert not lines, path


def test_code_is_laid_out_by_ruff_alone() -> None:
    mark = "fmt: " + "skip"
    parts = ("bezoar", "stages", "tests", "demos", "benchmarks")
    marked = [
        str(path.relative_to(ROOT))
        for part in parts
        for path in (ROOT / part).rglob("*.py")
        if mark in path.read_text(encoding="utf-8")
    ]
    assert marked == []
