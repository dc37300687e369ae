"""params.yaml with a fault in it: found before anything runs, told in one line, by its line."""

import contextlib
import io
import re
import shutil
import sys
from pathlib import Path
from typing import get_args

import pytest

from bezoar import params
from bezoar.params import harness_names, loading
from bezoar.params.__main__ import main as check_params
from bezoar.rows.files import BadInput
from tests.conftest import ROOT, from_yaml

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
MISTAKES = from_yaml((ROOT / "tests/params/mistakes.yaml").read_text(encoding="utf-8"))


def told(text: str | bytes) -> str:
    """What a check says of a file."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadInput) as error:
        loading.check(data, "params.yaml", ROOT)
    return str(error.value).removeprefix("error: ")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["line"][:40])
def test_one_mistake_is_one_line(mistake: dict[str, str]) -> None:
    right, wrong, line = mistake.values()
    assert right in TEXT
    changed = TEXT.replace(right, wrong, 1)
    where, _, rest = told(changed).partition(": ")
    # other lines of the file may have come or gone
    assert re.sub(r"lines [\d, ]+", "lines N", rest) == line and "; " in line
    file, _, number = where.partition(":")
    assert file == "params.yaml" and 1 <= int(number) <= len(changed.splitlines())


def test_the_line_is_that_of_the_mistake() -> None:
    for right, wrong in (("copy_ratio: 0.6", "copy_ratio: x"), ("calls: 301", "cals: 301")):
        changed = TEXT.replace(right, wrong, 1)
        number = changed[: changed.index(wrong)].count("\n") + 1
        assert told(changed).startswith(f"params.yaml:{number}: ")


def test_mistakes_that_have_nothing_to_do_with_each_other_are_told_together() -> None:
    changed = TEXT.replace("  copy_ratio: 0.6", "  copy_ration: 0.6").replace(
        "calls: 30}", "calls: 0}"
    )
    lines = told(changed.replace("start: sft/lamini", "start: sft/lamina")).splitlines()
    assert lines[0] == "params.yaml has 2 faults, nothing was run:"
    assert [line.split(": ")[1] for line in lines[1:]] == [
        "filter.copy_ration",
        "profiles.small.schemes.lamini.calls",
    ]


def test_a_recipe_without_a_section_is_one_line() -> None:
    start, end = TEXT.index("\ndpo:\n"), TEXT.index("\nlm_eval:\n")
    assert re.fullmatch(
        r"params.yaml:\d+: dpo: has no seed, .*, beta, .*; the recipe or each profile must have .*",
        told(TEXT[:start] + TEXT[end:]),
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "params.yaml: is empty; a mapping of sections is expected"),
        (b"# nothing\n", "params.yaml: is empty; a mapping of sections is expected"),
        (b"- a\n- b\n", "params.yaml: holds a list of 2; a mapping of sections is expected"),
        (b"embedded", "params.yaml: holds 'embedded'; a mapping of sections is expected"),
        (b"a: 1\nb: caf\xe9\n", "params.yaml:2: not UTF-8 (invalid continuation byte); save"),
        ("a: 1".encode("utf-16"), "params.yaml:1: not UTF-8 (invalid start byte); save the file"),
        (b"a: &a [*a]\n", "params.yaml:1: its anchors come to more than 100,000 values; write"),
        (b"a: !!python/name:os.system\n", "params.yaml:1: not YAML (could not determine a"),
        (b"a: 1\n---\nb: 1\n", "params.yaml:2: not YAML (but found another document); mend"),
        (b"1: a\nprofile: b\n", "params.yaml:1: 1: the key 1 is no word; write it in quotes"),
        (b"a: 2026-13-45\n", "params.yaml: not YAML (month must be in 1..12); write such a value"),
        (b"profile: a\n", "params.yaml:1: profiles: missing, or not a mapping; it holds one mapp"),
        (b"profile: a\nprofiles: {}\n", "params.yaml:2: profiles: holds none; it holds one"),
        (b"profile: a\nprofiles: {a: 3}\n", "params.yaml:2: profiles.a: 3 is not usable; a map"),
    ],
)
def test_a_file_that_is_no_params_at_all(data: bytes, said: str) -> None:
    line = told(data)
    assert line.startswith(said) and "\n" not in line, line


def test_anchors_that_multiply_are_refused_in_no_time() -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "its anchors come to more than" in told("\n".join(rows))


def test_anchors_and_powers_without_a_dot_are_as_people_mean_them() -> None:
    block = re.search(r"      duplicates: \{action: drop\}\n", TEXT)
    assert block
    changed = TEXT.replace("{action: drop}", "&drop {action: drop}", 1).replace(
        "markers: {action: drop}", "markers: *drop"
    )
    changed = changed.replace("learning_rate: 5.0e-7", "learning_rate: 5e-7")
    changed = changed.replace("documents: 10000", "documents: 10_000")
    changed = changed.replace("link: false", "link: no").replace("link: true", "link: yes")
    active, checked = loading.check(changed.encode(), "params.yaml", ROOT)
    assert checked["paper"].dpo.learning_rate == 5e-7
    assert active.filter.markers.action == "drop"
    assert active == params.load(ROOT / "params.yaml", "embedded")


def test_the_names_of_lm_evals_tasks_are_those_of_its_files() -> None:
    names = harness_names.names()
    wanted = {"arc_easy", "mmlu", "truthfulqa_mc1", "winogrande", "mmlu_anatomy", "leaderboard"}
    assert wanted <= names and 10_000 < len(names) < 30_000
    assert "arc_esy" not in names


@pytest.mark.slow
def test_every_scheduler_is_one_that_transformers_makes_of_steps_alone() -> None:
    import torch
    import transformers

    for name in get_args(params.Scheduler):
        step = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        assert transformers.get_scheduler(name, step, num_warmup_steps=2, num_training_steps=9)


# --- python -m bezoar.params ---------------------------------------------------------------------


def command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """What `python -m bezoar.params` returns and prints, in this process: it starts in no time."""
    out, code = io.StringIO(), 0
    error = ""
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        pytest.MonkeyPatch.context() as m,
    ):
        m.setattr(sys, "argv", ["params", *arguments])
        try:
            check_params()
        except SystemExit as stop:
            code, error = 1, f"{stop.code}\n"
    return code, out.getvalue(), error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path / "params.yaml"


def test_a_check_says_in_one_line_that_all_is_well(file: Path) -> None:
    profiles = "the active profile is embedded (checked with it: local, paper, small)"
    said = f"params.yaml is valid; {profiles}\n"
    assert command(file.parent) == (0, said, "")
    assert file.read_text() == TEXT


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_switch_changes_one_word(file: Path, ends: str) -> None:
    before = TEXT.replace("profile: embedded\n", "profile:  'embedded'   # mine\n", 1).replace(
        "\n", ends
    )
    file.write_bytes(before.encode())
    code, said, _ = command(file.parent, "small")
    assert code == 0 and said.startswith("params.yaml is valid; the active profile is small (")
    after = before.replace("profile:  'embedded'   # mine", "profile:  small   # mine", 1)
    assert file.read_bytes() == after.encode()


def test_a_switch_mends_a_profile_that_is_not_there(file: Path) -> None:
    file.write_text(TEXT.replace("profile: embedded", "profile: smal", 1))
    assert command(file.parent, "embedded")[0] == 0
    assert file.read_text() == TEXT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "arguments", "said"),
    [
        ("", "", ["smal"], "profile: there is no profile 'smal'; did you mean 'small'? have"),
        ("beta: 0.1", "beta: -1", ["small"], "dpo.beta: -1 is not usable; a number above 0"),
        ("- arc_easy", "- arc_esy", ["paper"], "'arc_esy' is no task of lm_eval; did you mean"),
    ],
)
def test_a_switch_that_fails_changes_nothing(
    file: Path, right: str, wrong: str, arguments: list[str], said: str
) -> None:
    before = TEXT.replace(right, wrong) if right else TEXT
    file.write_text(before)
    code, output, error = command(file.parent, *arguments)
    assert code == 1 and not output
    assert error.startswith("error: params.yaml:") and said in error and error.count("\n") <= 4
    assert file.read_text() == before
    assert [path.name for path in file.parent.glob(".*.part")] == []
