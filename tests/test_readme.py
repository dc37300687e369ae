"""What the README tells a reader to type exists and does what it says."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import params
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = ("make", "dvc", "python", "source", "export")


def commands() -> list[list[str]]:
    """Every command line of the code blocks and of the running text, as words."""
    lines = [line for _, block in BLOCKS for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S))
    split = [_words(line) for line in lines]
    return [words for words in split if words and words[0] in PROGRAMS and len(words) > 1]


def _words(line: str) -> list[str]:
    """As a shell would split them; prose with an apostrophe in it is no command."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def of(program: str) -> list[list[str]]:
    found = [words for words in commands() if words[0] == program]
    assert found, f"the README names no {program} command: the test is empty"
    return found


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for _, target, *more in of("make"):
        assert target in targets, target
        for assignment in more:
            name = assignment.split("=")[0]
            assert f"$({name})" in (ROOT / "Makefile").read_text(), assignment


def test_every_module_exists_and_knows_its_command() -> None:
    for words in of("python"):
        assert words[1] == "-m", words
        assert importlib.util.find_spec(words[2]), words
        if words[2] == "bezoar.ledger":
            ledger = importlib.import_module("bezoar.ledger")
            usage = re.findall(r"bezoar\.ledger (\w+)", ledger.__doc__ or "")
            assert words[3] in usage, words


def test_dvc_understands_its_commands_and_what_they_set_is_a_parameter() -> None:
    from dvc.cli import parse_args

    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for _, *words in of("dvc"):
        parsed = parse_args(words)
        for assignment in getattr(parsed, "set_param", None) or []:
            inside: Any = document
            for key in assignment.split("=")[0].removeprefix("~").split("."):
                assert key in inside, assignment
                inside = inside[key]
        for target in getattr(parsed, "targets", None) or []:
            name = target.split("@")[0].removeprefix("metrics/").partition("/")[0]
            assert name in stages, target


def test_a_block_of_params_is_valid_in_a_profile(tmp_path: Path) -> None:
    blocks = [yaml.safe_load(block) for language, block in BLOCKS if language == "yaml"]
    assert blocks, "the README shows no block of params.yaml: the test is empty"
    for number, block in enumerate(blocks):
        document = yaml.safe_load((ROOT / "params.yaml").read_text())
        for section, told in block.items():
            recipe = section in document
            inside = document if recipe else document["profiles"]["embedded"]
            inside[section] = {**inside[section], **told} if recipe else told
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        loaded = params.load(path)
        assert loaded.models if "models" in block else loaded.llm.teacher.provider == "openai"


@pytest.mark.parametrize("command", ["stats", "verify", "export FILE", "import data", "prune 30"])
def test_the_ledger_commands_run_on_an_empty_machine(tmp_path: Path, command: str) -> None:
    assert re.search(rf"\b{command.split(maxsplit=1)[0]}\b", README)
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
