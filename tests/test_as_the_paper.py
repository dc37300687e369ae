"""launch/as-the-paper.txt: the one line by which a run is as near to OpenBezoar as can be."""

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides  # what `dvc exp run -S` calls

from bezoar import params
from bezoar.params import Params

ROOT = Path(__file__).parent.parent
FILE = ROOT / "launch/as-the-paper.txt"
OVERRIDES = [line.removeprefix("-S ") for line in FILE.read_text().splitlines()]


@pytest.fixture
def overridden(tmp_path: Path) -> Params:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(tmp_path / "params.yaml", OVERRIDES)
    return params.load(tmp_path / "params.yaml")


def test_what_is_ours_in_the_recipe_becomes_the_papers(overridden: Params) -> None:
    p = overridden
    assert p.profile == "paper"
    assert (p.sft.keep, p.sft.scheduler, p.merge.onto) == ("last", "linear", "reloaded")
    assert not p.schemes.lamini.fewer_examples
    assert p.known is None
    assert p.filter.copies == ["lamini"]
    assert p.dpo.eval_limit is None
    assert all(amount.eval_limit is None for amount in p.sft.links.values())


def test_the_papers_numbers_stand_in_the_recipe(overridden: Params) -> None:
    sft, rows = overridden.sft, overridden.filter
    assert (sft.lora_r, sft.lora_alpha, sft.lora_dropout) == (16, 16, 0.05)
    assert set(sft.target_modules) == {"q_proj", "v_proj", "k_proj"}
    checks = (rows.duplicates, rows.markers, rows.near_duplicates, rows.contamination, rows.gates)
    assert {check.action for check in checks} == {"report"}


@pytest.mark.parametrize("override", OVERRIDES)
def test_every_line_changes_something(override: str) -> None:
    key, _, value = override.partition("=")
    present = yaml.safe_load((ROOT / "params.yaml").read_text())
    for part in key.split("."):
        present = present[part]
    assert present != yaml.safe_load(value)


def test_the_pages_name_the_command() -> None:
    command = "dvc exp run $(cat launch/as-the-paper.txt)"
    assert command in (ROOT / "docs/training.md").read_text()
    assert command in (ROOT / "DEVIATIONS.md").read_text()
