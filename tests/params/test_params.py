"""Files of parameters with a fault in them: found before anything runs, told in one line, by its
place."""

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
from tests.builders import parameters
from tests.conftest import ROOT, from_yaml

TEXTS = parameters.texts()
TEXT = TEXTS["params.yaml"]
MISTAKES = from_yaml((ROOT / "tests/params/mistakes.yaml").read_text(encoding="utf-8"))


def encoded(texts: dict[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in texts.items()}


def fault_of(texts: dict[str, str]) -> str:
    """What a check says of the files."""
    with pytest.raises(BadInput) as error:
        loading.check(encoded(texts), ROOT)
    return str(error.value).removeprefix("error: ")


def told(text: str | bytes) -> str:
    """What a check says of params.yaml."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadInput) as error:
        loading.check(encoded(TEXTS) | {"params.yaml": data}, ROOT)
    return str(error.value).removeprefix("error: ")


def swap(right: str, wrong: str, texts: dict[str, str] = TEXTS) -> tuple[str, dict[str, str]]:
    """The files with a text replaced once, and the one in which it stood."""
    path = next(path for path, text in texts.items() if right in text)
    return path, texts | {path: texts[path].replace(right, wrong, 1)}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["line"][:40])
def test_one_mistake_is_one_line(mistake: dict[str, str]) -> None:
    right, wrong, line = mistake.values()
    path, changed = swap(right, wrong)
    where, _, rest = fault_of(changed).partition(": ")
    # other lines of the file may have come or gone
    assert re.sub(r"lines [\d, ]+", "lines N", rest) == line and "; " in line
    file, _, number = where.partition(":")
    # a key that stands in two files is reported at the shared one
    path = "params.yaml" if "set here and by" in line else path
    assert file == path and 1 <= int(number) <= len(changed[path].splitlines())


def test_the_line_is_that_of_the_mistake() -> None:
    for right, wrong in (("copy_ratio: 0.6", "copy_ratio: x"), ("calls: 301", "cals: 301")):
        path, changed = swap(right, wrong)
        number = changed[path][: changed[path].index(wrong)].count("\n") + 1
        assert fault_of(changed).startswith(f"{path}:{number}: ")


def test_mistakes_that_have_nothing_to_do_with_each_other_are_told_together() -> None:
    _, changed = swap("  copy_ratio: 0.6", "  copy_ration: 0.6")
    _, changed = swap("calls: 30}", "calls: 0}", changed)
    _, changed = swap("start: sft/lamini", "start: sft/lamina", changed)
    lines = fault_of(changed).splitlines()
    assert lines[0] == "the parameters have 2 faults, nothing was run:"
    assert [re.sub(r":\d+", "", line).split(": ")[:2] for line in lines[1:]] == [
        ["  params.yaml", "filter.copy_ration"],
        ["  profiles/small.yaml", "schemes.lamini.calls"],
    ]


def test_a_mistake_of_several_profiles_is_one_line() -> None:
    _, changed = swap("  lamini: {calls: 30}", "  lamini: {cals: 30}")
    _, changed = swap("  lamini: {calls: 301}", "  lamini: {cals: 301}", changed)
    line = fault_of(changed)
    assert line.startswith("profiles/paper.yaml:") and "\n" not in line
    assert line.endswith("did you mean 'calls'? (also in profiles/small.yaml)")


def test_a_recipe_without_a_section_is_one_line() -> None:
    start, end = TEXT.index("\ndpo:\n"), TEXT.index("\nlm_eval:\n")
    assert re.fullmatch(
        r"params.yaml:\d+: dpo: has no seed, .*, beta, .*; params.yaml, the recipe or each prof.*",
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
        (b"own: []\n", "params.yaml:1: profile: missing, or not a name; `profile: embedded`, say"),
        (b"profile: a\nprofiles: {}\n", "params.yaml:2: profiles: a profile is a file now: prof"),
        (
            b"profile: a\n",
            "params.yaml:1: profile: there is no profile 'a' (no profiles/a.yaml); have",
        ),
    ],
)
def test_a_file_that_is_no_params_at_all(data: bytes, said: str) -> None:
    line = told(data)
    assert line.startswith(said) and "\n" not in line, line


@pytest.mark.parametrize(
    ("file", "data", "line"),
    [
        ("profiles/mine.yaml", b"[]", "profiles/mine.yaml: holds an empty list; a mapping of sec"),
        ("profiles/paper.yaml", b"", "profiles/paper.yaml: is empty; a mapping of sections is"),
        ("recipes/openbezoar.yaml", b"a: [", "recipes/openbezoar.yaml:2: not YAML ("),
        ("recipes/openbezoar.yaml", b"chain: {}", "the parameters have "),
    ],
)
def test_another_file_that_is_none(file: str, data: bytes, line: str) -> None:
    with pytest.raises(BadInput) as error:
        loading.check(encoded(TEXTS) | {file: data}, ROOT)
    assert str(error.value).removeprefix("error: ").startswith(line)


def test_a_profile_is_a_copy_of_a_file(file: Path) -> None:
    profiles = file.parent / "profiles"
    shutil.copy(profiles / "small.yaml", profiles / "mine.yaml")
    shutil.copy(profiles / "small.yaml", profiles / ".mine.yaml.swp.yaml")  # an editor's
    assert command(file.parent, "mine")[0] == 0
    assert params.load(file.parent).llm == params.load(file.parent, "small").llm
    (profiles / "mine.yaml").unlink()
    code, _, error = command(file.parent)
    assert code == 1 and "there is no profile 'mine' (no profiles/mine.yaml)" in error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.yml", "profiles/mine.yml: the file of a profile ends in .yaml; rename it"),
        ("my own.yaml", "profiles/my own.yaml: 'my own' is no name of a profile; rename the file"),
        ("my.own.yaml", "profiles/my.own.yaml: 'my.own' is no name of a profile; rename the file"),
        ("7.yaml", "profiles/7.yaml: '7' is no name of a profile; rename the file"),
        ("true.yaml", "profiles/true.yaml: 'true' is no name of a profile; rename the file"),
    ],
)
def test_a_file_with_an_odd_name_is_no_profile(file: Path, name: str, said: str) -> None:
    shutil.copy(file.parent / "profiles/small.yaml", file.parent / "profiles" / name)
    code, _, error = command(file.parent)
    assert code == 1 and error.startswith(f"error: {said}") and error.count("\n") == 1


def test_a_profile_that_cannot_be_read_says_so(file: Path) -> None:
    mine = file.parent / "profiles/mine.yaml"
    mine.mkdir()
    why = "cannot be read (Is a directory); move it elsewhere"
    assert command(file.parent)[2] == f"error: profiles/mine.yaml: {why}\n"
    mine.rmdir()
    mine.symlink_to("elsewhere.yaml")
    assert "mine.yaml: links to a file that is not there; remove it" in command(file.parent)[2]
    mine.unlink()
    mine.symlink_to("small.yaml")
    assert command(file.parent, "mine")[0] == 0


@pytest.mark.parametrize("name", ["", "small # x", "../small", "small\nown: [dolly]"])
def test_a_switch_writes_names_of_profiles_alone(file: Path, name: str) -> None:
    code, _, error = command(file.parent, name)
    assert code == 1 and "params.yaml:6: profile: there is no profile " in error
    assert file.read_text() == TEXT


def test_what_a_profile_says_once_is_written_out() -> None:
    small = params.load(ROOT, "small")
    assert small.llm.judge == small.llm.grader
    teacher = small.llm.teacher.model_dump() | {"params": {"max_tokens": 768, "temperature": 0}}
    again = {"again": {"temperature": 0.7}, "reply_tokens": 150}
    assert teacher | again == small.llm.grader.model_dump()
    links = small.sft.links
    assert links["orca"] == links["lamini"] and links["hh_rlhf"].batch_size == 32
    assert links["hh_rlhf"].runs == links["lamini"].runs


def test_a_panel_names_endpoints_and_a_fault_of_one_stands_where_it_is_written() -> None:
    panel = "  judge:\n  - qwen\n  - endpoint: qwen\n    model: another\n"
    _, changed = swap("  judge: qwen\n", panel)
    judges = loading.check(encoded(changed), ROOT)[1]["small"].llm.judges
    assert [judge.model for judge in judges] == ["Qwen/Qwen2.5-7B-Instruct", "another"]
    _, wrong = swap(
        "timeout: 600", "timeout: 0", {"profiles/small.yaml": changed["profiles/small.yaml"]}
    )
    lines = fault_of(changed | wrong)
    assert re.fullmatch(r"profiles/small.yaml:\d+: llm.endpoints.qwen.timeout: 0 is not .*", lines)
    _, wrong = swap("model: another", "modell: another", changed)
    assert "llm.judge.1.modell: no such parameter; did you mean 'model'?" in fault_of(wrong)


def test_anchors_that_multiply_are_refused_in_no_time() -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "its anchors come to more than" in told("\n".join(rows))


def test_anchors_and_powers_without_a_dot_are_as_people_mean_them() -> None:
    _, changed = swap("duplicates: {action: drop}", "duplicates: &drop {action: drop}")
    _, changed = swap("markers: {action: drop}", "markers: *drop", changed)
    _, changed = swap("learning_rate: 5.0e-7", "learning_rate: 5e-7", changed)
    _, changed = swap("documents: 10000", "documents: 10_000", changed)
    _, changed = swap("link: false", "link: no", changed)
    _, changed = swap("link: true", "link: yes", changed)
    active, checked = loading.check(encoded(changed), ROOT)
    assert checked["paper"].dpo.learning_rate == 5e-7
    assert active.filter.markers.action == "drop"
    assert active == params.load(ROOT, "embedded")


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
    parameters.copy(tmp_path)
    return tmp_path / "params.yaml"


def test_a_check_says_in_one_line_that_all_is_well(file: Path) -> None:
    profiles = "the active profile is embedded (checked with it: local, paper, small)"
    said = f"the parameters are valid; {profiles}\n"
    assert command(file.parent) == (0, said, "")
    assert file.read_text() == TEXT


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_switch_changes_one_word(file: Path, ends: str) -> None:
    before = TEXT.replace("profile: embedded\n", "profile:  'embedded'   # mine\n", 1).replace(
        "\n", ends
    )
    file.write_bytes(before.encode())
    code, said, _ = command(file.parent, "small")
    assert code == 0 and said.startswith("the parameters are valid; the active profile is small (")
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
    path, before = swap(right, wrong) if right else ("params.yaml", TEXTS)
    (file.parent / path).write_text(before[path])
    code, output, error = command(file.parent, *arguments)
    assert code == 1 and not output
    assert re.search(rf"(error:|  ) ?{path}:\d+: ", error)
    assert said in error.replace(" (no profiles/smal.yaml)", "")
    assert error.count("\n") <= 4
    assert parameters.texts(file.parent) == before
    assert [path.name for path in file.parent.glob(".*.part")] == []
