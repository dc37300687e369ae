"""What the pages tell a reader to type exists, is understood, and is run by a test; or says what it
needs that a test has not: `dvc repro  # needs a GPU`, or so of a whole block, ```bash needs a GPU.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import params
from bezoar.params import layout
from bezoar.rows.files import BadInput
from tests.builders import parameters
from tests.builders.pages import FENCE, PAGES, joined
from tests.conftest import ROOT, environment, from_yaml

NEEDS = re.compile(r"\bneeds ((?:an?|two|the|Ollama)\b.*)")
# what may open a block that says no language: all else in such a block is something's output
OURS = ("make", "dvc", "python", "pytest", "git")
PROGRAMS = (*OURS, "source", "export", "vllm", "ollama", "transformers", "sbatch", "sky")
SHELL = ("source", "export", "test", "cd")

# What a page may tell to type, below the file of the test that runs it. `make` is looked up by the
# commands that it runs; what a line or its block says it needs is not looked up.
RUN = {
    "tests/preflight/test_forecast.py": {
        r"dvc repro( --quiet)?( \w+@\w+)*|python -m bezoar\.forecast": (
            "test_make_forecast_fetches_the_seeds_and_prints_the_table"
        ),
    },
    "tests/stages/test_pipeline.py": {
        r"dvc status": "test_a_second_repro_does_nothing_and_status_is_clean",
        r"dvc exp run -S .*": "test_an_experiment_changes_one_number_and_runs_what_follows",
    },
    "tests/project/test_diff.py": {
        r"dvc (params|metrics|plots) diff.*|dvc exp show.*": (
            "test_what_the_page_compares_runs_and_shows_the_change"
        ),
    },
    "tests/project/test_experiments.py": {
        r"dvc exp run --temp( -S .*)?": "test_a_temporary_run_shares_what_was_bought",
        r"dvc exp run --queue .*|dvc queue status": "test_a_grid_is_queued_and_told",
        r"git add": "lab",
    },
    "tests/project/test_remote.py": {
        r"dvc remote (add|modify) .*": "test_the_page_s_commands_make_a_verified_default_remote",
        r"dvc (push|pull)( .*)?|dvc repro .*--allow-missing.*|dvc exp run --pull .*": (
            "test_a_run_goes_to_s3_and_comes_back"
        ),
        r"python -m demos\.s3": "test_a_run_goes_to_s3_and_comes_back",
    },
    "tests/project/test_faults.py": {
        r"git checkout dvc\.lock": "test_dvc_killed_in_the_middle_of_its_lock_file",
        r"dvc checkout( --force)?": "test_an_out_that_was_changed",
    },
    "tests/project/test_docs.py": {
        r"dvc exp (diff|apply) .*|dvc queue start": (
            "test_experiments_are_queued_compared_and_taken_over"
        ),
        r"dvc commit -f \w+|dvc config --local .*": (
            "test_an_edit_that_changes_no_result_is_committed"
        ),
        r"git apply": "test_the_scheme_of_the_page_makes_a_set",
        r"python -m bezoar\.params( \w+)?": "test_the_profile_is_switched",
    },
    "tests/project/test_recipe.py": {
        r"python -m bezoar\.recipe without .*|python -m bezoar\.recipe whole": (
            "test_leaving_out_adds_up_and_is_undone_in_any_order"
        ),
        r"python -m bezoar\.recipe stop .*": (
            "test_stopping_after_sft_leaves_out_what_nobody_gave"
        ),
        r"dvc stage list": "test_dvc_knows_no_stage_of_what_is_left_out",
    },
    "tests/project/test_readme.py": {
        r"python -m bezoar\.ledger .*": "test_the_ledger_commands_run_on_an_empty_machine",
    },
    "tests/report/test_report.py": {
        r"python -m bezoar\.report": "test_the_page_is_written_by_the_stage",
    },
    "tests/project/test_lanes.py": {
        r"python -m demos\.lanes": "test_other_stages_or_a_finished_run_are_left_to_dvc",
    },
    "tests/sources/test_link.py": {
        r"python -m bezoar\.sources\.link.*": "test_files_are_told_by_their_content_alone",
    },
    "tests/preflight/test_preflight.py": {
        r"python -m bezoar\.preflight.*": (
            "test_the_command_ends_with_1_where_something_would_stop_the_run"
        ),
    },
    "tests/talk/test_talk.py": {
        r"(echo .* \| )?python -m bezoar\.talk.*": (
            "test_a_question_in_a_pipe_gets_its_answer_on_standard_output"
        ),
        r"echo .*": "test_a_question_in_a_pipe_gets_its_answer_on_standard_output",
    },
    "tests/llm/test_serving.py": {
        r"transformers serve .*": "served",
    },
    "tests/report/test_publish.py": {
        r"python -m bezoar\.publish.*": "test_nothing_is_sent_unless_asked",
    },
    "tests/report/test_lineage.py": {
        r"python -m bezoar\.lineage \S+": "test_the_command_prints_text_or_json",
    },
    "tests/project/test_benchmarks.py": {
        r"python -m benchmarks\.NAME": "test_a_run_ends_with_every_kind_s_numbers",
        r"python -m benchmarks\.arithmetic": "test_what_equal_bits_cost_is_told",
    },
    ".ci/run": {
        r"make install|ruff (check|format).*|mypy|lint-imports": "make lint",
        r"pytest.*": "make test",
    },
}

ROWS = {row for rows in RUN.values() for row in rows}


@dataclass(frozen=True)
class Command:
    """A command as words, where it stands, and what it needs that a test has not ("": nothing)."""

    page: str
    words: tuple[str, ...]
    needs: str

    def __str__(self) -> str:
        return " ".join(self.words)


@cache
def commands() -> list[Command]:
    """Every command line of the pages' blocks and of their running text."""
    found = []
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
        for info, block in FENCE.findall(text):
            found += [Command(name, words, needs) for words, needs in _typed(info, block)]
        for line in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
            words = _words(line)
            if words and words[0] in OURS and len(words) > 1:
                yours = next((word for word in words if re.fullmatch(r"[A-Z]{4,}", word)), "")
                found.append(Command(name, words, f"your {yours}" if yours else ""))
    return found


def _typed(info: str, block: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The commands of one block, each with what it needs."""
    language = info.partition(" ")[0]
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    if language not in ("", "bash") or not lines:
        return
    typed = [words for line in lines if (words := _words(line))]
    if not language and typed[0][0] not in PROGRAMS:
        return  # what a command prints
    opening = lines[0] if lines[0].startswith("#") else ""
    whole = NEEDS.search(info) or NEEDS.search(opening)
    for line in lines:
        if words := _words(line):
            needs = whole or NEEDS.search(line.rpartition("#")[2])
            yield words, needs[1] if needs else ""


def _words(line: str) -> tuple[str, ...]:
    """As a shell would split them, without variables before; prose with an apostrophe is none."""
    line = re.sub(r"\$\(cat (\S+)\)", lambda file: (ROOT / file[1]).read_text().strip(), line)
    line = line.replace("\n", " ")
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return ()
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return tuple(words)


def of(program: str) -> list[Command]:
    found = [command for command in commands() if command.words[0] == program]
    assert found, f"no page names a {program} command: the test is empty"
    return found


def made(command: Command) -> list[tuple[str, ...]]:
    """What `make` runs for a command, `install` left out."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "--old-file=install", *command.words[1:]],
        cwd=ROOT,
        env=environment(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stderr)
    return [words for line in done.stdout.splitlines() if (words := _words(line))]


@pytest.mark.slow
def test_every_command_is_run_by_a_test_or_says_what_it_needs() -> None:
    used, unknown = set(), []
    for command in commands():
        if command.needs:
            continue
        steps = [command.words]
        if command.words[0] == "make" and command.words[1] != "install":
            steps = made(command)
        for words in steps:
            if words[0] in SHELL:
                continue
            rows = [row for row in ROWS if re.fullmatch(row, " ".join(words))]
            used |= set(rows)
            unknown += [] if rows else [f"{command.page}: {' '.join(words)}"]
    assert not unknown, "neither in RUN nor marked `# needs ...`"
    assert not ROWS - used, "no page tells to type these any more"


@pytest.mark.parametrize("file", RUN)
def test_what_runs_them_is_there(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for name in RUN[file].values():
        assert f"def {name}(" in text or name in text.splitlines(), name


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)
    for command in of("make"):
        _, target, *more = command.words
        assert target in targets, command
        for assignment in more:
            assert re.search(rf"\$[({{$]?{assignment.split('=')[0]}\b", makefile), command


def test_every_module_exists_and_knows_its_command() -> None:
    for command in of("python"):
        words = command.words
        assert words[1] == "-m", command
        if words[2].isupper() or words[2].endswith(".NAME"):
            continue
        assert importlib.util.find_spec(words[2]), command
        if words[2] == "bezoar.ledger":
            ledger = importlib.import_module("bezoar.llm.ledger")
            usage = re.findall(r"bezoar\.ledger (\w+)", ledger.__doc__ or "")
            assert words[3] in usage, command


def test_every_test_file_exists() -> None:
    for command in of("pytest"):
        for word in command.words[1:]:
            assert not word.endswith(".py") or (ROOT / word).is_file(), command


def test_dvc_understands_its_commands_and_what_they_set_is_a_parameter() -> None:
    from dvc.cli import parse_args

    stages = {*from_yaml((ROOT / "dvc.yaml").read_text())["stages"], "STAGE"}
    for command in of("dvc"):
        parsed = parse_args(list(command.words[1:]))
        for assignment in getattr(parsed, "set_param", None) or []:
            parameters.value(assignment)
        added = {"openings"} if command.page == "docs/stage.md" else set()
        for target in {*(getattr(parsed, "targets", None) or [])} - {"dvc.yaml"}:
            name = re.sub("^(data|models|metrics)/", "", target.split("@")[0]).partition("/")[0]
            assert name in stages | added, command


@pytest.mark.slow
def test_what_an_experiment_sets_is_a_valid_params_yaml(tmp_path: Path) -> None:
    from dvc.cli import parse_args
    from dvc.utils.hydra import get_hydra_sweeps

    told = [parse_args(list(command.words[1:])) for command in of("dvc")]
    sets = {tuple(parsed.set_param) for parsed in told if getattr(parsed, "set_param", None)}
    assert len(sets) >= 8
    for number, overrides in enumerate(sorted(sets)):
        folder = parameters.copy(tmp_path / str(number))
        by_file: dict[str, list[str]] = defaultdict(list)
        for file, assignment in map(parameters.split, overrides):
            by_file[file].append(assignment)
        first, *_ = get_hydra_sweeps(by_file)
        for file, assignments in first.items():
            parameters.override(folder, *(f"{file}:{each}" for each in assignments))
        params.load(folder)


def blocks_of(page: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The YAML blocks of a page by number. One that follows another at once goes with it."""
    text, end, above = page.read_text(encoding="utf-8"), -1, dict[str, Any]()
    for number, fence in enumerate(FENCE.finditer(text)):
        # a task of SkyPilot's is no file of parameters
        if fence[1] == "yaml" and "workdir:" not in fence[2]:
            block = parameters.of_page(fence[2])
            above = joined(above, block) if text[end : fence.start()].strip() == "" else block
            yield number, above
            end = fence.end()


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    # two pages add what their block names (test_docs.py, test_source.py)
    if page.name not in ("scheme.md", "source.md")
    for number, block in blocks_of(page)
]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_params_is_valid(block: dict[str, Any], tmp_path: Path) -> None:
    document = parameters.read()
    document = joined(document, block)
    folder = parameters.write(parameters.copy(tmp_path), document)
    assert not re.search(r"[&*]\w", yaml.safe_dump(block)), "an anchor cannot be rewritten by -S"
    profile = next(iter(block.get("profiles", {"embedded": None})))
    loaded = params.load(folder, profile).model_dump(mode="json")
    inner = block.get("profiles", {}).get(profile, block)
    # roles that name an endpoint, and links, as they are written out
    expanded = layout.expand(document["profiles"][profile])[0]
    inner = {key: expanded[key] if key in ("llm", "sft") else inner[key] for key in inner}
    assert _holds(loaded, inner), "the parameters do not take what the page tells to write"


def _holds(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _holds(whole[key], value) for key, value in part.items())
    return bool(whole == part)


def test_a_block_with_a_mistake_is_refused(tmp_path: Path) -> None:
    document = parameters.read()
    told = {"profiles": {"small": {"llm": {"endpoints": {"qwen": {"modell": "m"}}}}}}
    parameters.write(tmp_path, joined(document, told))
    with pytest.raises(BadInput, match="did you mean 'model'"):
        params.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stats", "verify", "export FILE", "import data", "prune 30"])
def test_the_ledger_commands_run_on_an_empty_machine(tmp_path: Path, command: str) -> None:
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{command.split(maxsplit=1)[0]}\b", page)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/replies.jsonl").write_text("")
    found = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "bezoar.ledger", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": found, "BEZOAR_WORK": str(tmp_path / "work")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout and not done.stderr
