"""Every command prints its help, and takes nothing that it does not know."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = [
    path
    for top in ("bezoar", "stages", "benchmarks", "demos")
    for path in (ROOT / top).rglob("*.py")
]
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in FILES
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
# these import torch
SLOW = ("benchmarks.train", "benchmarks.answers", "benchmarks.local", "benchmarks.client")


def run(module: str, *arguments: str) -> int:
    """What a command returns, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        patch.delitem(sys.modules, module, raising=False)
        with pytest.raises(SystemExit) as stop:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert isinstance(stop.value.code, int), stop.value.code
    return stop.value.code


@pytest.mark.parametrize(
    "module",
    [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in COMMANDS],
)
def test_a_command_prints_its_help_and_refuses_what_it_does_not_know(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(module, "--help") == 0
    told = capsys.readouterr()
    assert told.out.startswith("usage: ") and len(told.out.splitlines()) > 3 and not told.err
    assert run(module, "--no-such-option") == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: ") and "error: " in error
    assert list(tmp_path.iterdir()) == []


def test_all_commands_are_looked_at() -> None:
    assert {"bezoar.params", "bezoar.preflight", "stages.fetch", "demos.s3"} <= {*COMMANDS}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("stages.sft", ()),
        ("stages.sft", ("lamini", "orca")),
        ("stages.report", ("dpo",)),
        ("bezoar.params", ("paper", "small")),
        ("bezoar.sources.link", ("one", "two")),
    ],
)
def test_too_few_or_too_many_arguments_are_an_error(
    module: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(module, *arguments) == 2
    assert "error: " in capsys.readouterr().err
