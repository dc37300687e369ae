"""Leaving schemes, sources and what comes after SFT out of a run, and putting them back."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bezoar import params, recipe
from bezoar.params import Params
from bezoar.preflight import seeds, stand_ins
from bezoar.rows.files import BadInput
from bezoar.talk import places
from tests.builders import parameters
from tests.conftest import BIN, ROOT, environment, from_yaml

TEXTS = parameters.texts()
Texts = dict[str, str]
SCHEMES = ("lamini", "evol_instruct", "orca")
NAMES = [*SCHEMES, *recipe.SOURCES]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and empty folders for files of one's own."""
    parameters.copy(tmp_path)
    for name in (*recipe.SOURCES, "dolly", "base"):
        (tmp_path / "local" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    params.forget()
    return tmp_path


def put(folder: Path, texts: Texts) -> None:
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
    params.forget()


def load(folder: Path, texts: Texts, profile: str = "embedded") -> Params:
    put(folder, texts)
    return params.load(folder, profile)


def swap(old: str, new: str, texts: Texts = TEXTS) -> Texts:
    """The files with a text replaced once."""
    path = next(path for path, text in texts.items() if old in text)
    return texts | {path: texts[path].replace(old, new, 1)}


def restored(texts: Texts) -> Texts:
    return {path: recipe.restore(text) for path, text in texts.items()}


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    recipe.main()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_what_is_left_out_is_valid_under_every_profile_and_comes_back(
    here: Path, number: int
) -> None:
    tried = 0
    for names in itertools.combinations(NAMES, number):
        if {*names} == {"lamini", "evol_instruct"} | {"flan"}:
            continue
        text = recipe.without(TEXTS, names)
        settings = load(here, text)
        assert not {*names} & {*settings.schemes.by_name, *settings.sources}, names
        assert recipe.left_out(text) == [*names]
        assert restored(text) == TEXTS, names
        tried += 1
    assert tried == {1: 8, 2: 28}[number]


@pytest.mark.slow
def test_a_scheme_goes_with_its_link_and_the_next_starts_where_it_did(here: Path) -> None:
    settings = load(here, recipe.without(TEXTS, ["orca"]))
    assert [*settings.schemes.by_name] == ["lamini", "evol_instruct"]
    assert [*settings.chain] == ["lamini", "evol_instruct", "hh_rlhf"]
    assert settings.chain["evol_instruct"].start == "sft/lamini"
    assert "orca" not in settings.evaluated
    last = load(here, recipe.without(TEXTS, ["evol_instruct", "lamini"]))
    assert last.chain["orca"].start == "fetch/base"
    assert last.merges["sft"].adapters == ["sft/orca"]
    assert last.filter.copies == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "unread"),
    [(["orca"], {"flan"}), (["lamini"], {"topics"}), (["flan", "topics"], {"flan", "topics"})],
)
def test_what_no_scheme_reads_is_not_downloaded(
    here: Path, names: list[str], unread: set[str]
) -> None:
    text = recipe.without(TEXTS, names)
    for profile in ("paper", "small"):
        fetch = load(here, text, profile).fetch
        whole = load(here, TEXTS, profile).fetch
        for source in ("flan", "topics"):
            read = getattr(fetch, source)
            if source in unread:
                assert (read.source, read.rows) == ("world", 1)
            else:
                assert read == getattr(whole, source)
        assert fetch.dolly == whole.dolly and fetch.hh_rlhf == whole.hh_rlhf
        assert not unread & {*load(here, text, profile).sources}, "it is no stand-in"
    assert load(here, text, "local").fetch == load(here, TEXTS, "local").fetch
    assert restored(text) == TEXTS


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("  flan: {source: world, rows: 1600}\n", "", "embedded.yaml:21: fetch.flan: missing"),
        ("\nchain:", "\nchian:", "openbezoar.yaml:6: chian: no such parameter"),
        ("\nmerges:", "\nmerges:\nmergers:", "mergers: no such parameter; did you mean"),
    ],
)
def test_a_file_that_lacks_what_goes_is_a_fault_of_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str, said: str
) -> None:
    texts = swap(right, wrong)
    put(here, texts)
    with pytest.raises(BadInput, match=re.escape(said)):
        run("without", "orca", monkeypatch=monkeypatch)
    assert parameters.texts(here) == texts


@pytest.mark.slow
def test_a_scheme_that_is_mixed_with_others_leaves_their_link(here: Path) -> None:
    for data in ("\n    - filter/lamini\n    - filter/orca", " [filter/lamini, filter/orca]"):
        text = swap("    data: filter/lamini\n", f"    data:{data}\n")
        settings = load(here, text)
        assert settings.chain["lamini"].sets == ["filter/lamini", "filter/orca"]
        shorter = recipe.without(text, ["orca"])
        assert load(here, shorter).chain["lamini"].sets == ["filter/lamini"]
        assert restored(shorter) == text


@pytest.mark.slow
def test_leaving_out_adds_up_and_is_undone_in_any_order(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("without", "orca", monkeypatch=monkeypatch)
    without_orca = parameters.texts(here)
    run("stop", "sft", monkeypatch=monkeypatch)
    run("without", "lamini", monkeypatch=monkeypatch)
    assert [*params.load().schemes.by_name] == ["evol_instruct"] and not params.load().aligned
    run("stop", "never", monkeypatch=monkeypatch)
    assert params.load().aligned and "sft/evol_instruct" in params.load().merges["sft"].adapters
    assert parameters.texts(here) == recipe.without(TEXTS, ["orca", "lamini"])
    assert "left out: orca, lamini" in capsys.readouterr().out
    run("whole", monkeypatch=monkeypatch)
    assert parameters.texts(here) == TEXTS
    run("without", "orca", monkeypatch=monkeypatch)
    assert parameters.texts(here) == without_orca


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["orka"], "orka: neither a scheme nor a source of this recipe; have lamini, evol"),
        (SCHEMES, "no adapter would be left to merge; leave a scheme in, or train on your own"),
        ([*SCHEMES, "hh_rlhf"], "chain: no link would be left to train"),
    ],
)
def test_what_cannot_be_left_out_is_said_and_nothing_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        run("without", *names, monkeypatch=monkeypatch)
    assert parameters.texts(here) == TEXTS


def test_own_rows_alone_are_enough(here: Path) -> None:
    text = swap("own: []", "own:\n- dolly")
    lists = "data:\n    - filter/lamini\n    - filter/dolly\n"
    text = swap("data: filter/lamini\n", lists, text)
    settings = load(here, recipe.without(text, [*SCHEMES, "hh_rlhf"]))
    assert not settings.schemes.by_name and [*settings.chain] == ["lamini"]
    assert settings.chain["lamini"].sets == ["filter/dolly"]
    assert settings.merges["sft"].adapters == ["sft/lamini"]
    with pytest.raises(BadInput, match="your own rows are filtered where they are named: own"):
        load(here, swap("own:\n- dolly", "own: []", text))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["orca"], {"generate@orca", "judge@orca", "filter@orca", "mix@orca", "sft@orca"}),
        (
            [recipe.AFTER_SFT, "hh_rlhf", "mt_bench"],
            {"sft@hh_rlhf", "mix@hh_rlhf", "dpo@policy", "lm_eval@hh_rlhf", "lm_eval@dpo"},
        ),
        (["benchmarks"], {"lm_eval@base", "lm_eval@sft"}),
    ],
)
def test_dvc_knows_no_stage_of_what_is_left_out(
    project: Path, names: list[str], gone: set[str]
) -> None:
    def stages() -> set[str]:
        listed = [BIN / "dvc", "stage", "list", "--name-only"]
        env = environment(project)
        done = subprocess.run(listed, cwd=project, env=env, capture_output=True, check=True)
        return {*done.stdout.decode().split()}

    whole = stages()
    put(project, recipe.without(TEXTS, names))
    left = stages()
    assert gone <= whole - left and left < whole
    assert "report" in left and "merge@sft" in left
    if "mt_bench" in names:
        assert not [name for name in left if re.match("mt_|dpo", name)]
    if names == ["orca"]:
        assert not [name for name in left if name.endswith("@orca")]


# --- stand-ins -----------------------------------------------------------------------------------

SERVED = """
    provider: openai
    style: chat
    structured: false
    model: theirs
    terms: Apache-2.0
    base_url: http://127.0.0.1:1/v1
    api_key_env:
    params: {max_tokens: 64}
    mode: live
    concurrency: 2
    requests_per_minute:
    tokens_per_minute:
    timeout: 5
    patience: 0
    max_failed: 0.0
    reply_tokens: 20
    price: {input: 1.0, cached: 0.0, output: 1.0, batch: 1.0}
"""


def served(who: str) -> Texts:
    """The files with a real model in one part of profile `local`."""
    path = "profiles/local.yaml"
    text, number = re.subn(rf"(?m)^  {who}: world_\w+\n", f"  {who}:{SERVED}", TEXTS[path])
    assert number == 1
    return TEXTS | {path: text}


def test_a_run_that_is_simulated_throughout_takes_the_stand_ins(here: Path) -> None:
    settings = load(here, TEXTS, "local")
    assert stand_ins.absent(settings) == [*recipe.SOURCES]
    assert stand_ins.real(settings) == [] and stand_ins.findings(settings) == []
    assert stand_ins.findings(load(here, TEXTS)) == []


@pytest.mark.parametrize("who", ["base", "teacher", "judge", "grader"])
def test_a_stand_in_beside_what_is_real_stops_with_the_ways_out(here: Path, who: str) -> None:
    text = TEXTS if who == "base" else served(who)
    if who == "base":
        (here / "local/base/config.json").write_text("{}")
    settings = load(here, text, "local")
    assert stand_ins.real(settings) == [who]
    with pytest.raises(BadInput) as caught:
        stand_ins.check(settings)
    told = str(caught.value)
    assert "local/flan, local/topics, local/hh_rlhf, local/mt_bench, local/benchmarks: hold" in told
    assert f"beside a real {who}" in told and "make local DATA=folder STOP=sft" in told
    assert "python -m bezoar.recipe without flan topics hh_rlhf" in told
    for name in recipe.SOURCES:
        (here / f"local/{name}/mine.jsonl").write_text("{}\n")
        if name != "benchmarks":
            assert f"local/{name}" not in stand_ins.findings(settings)[0].where
    stand_ins.check(settings)


def test_a_trial_may_allow_stand_ins_and_is_warned(here: Path) -> None:
    (here / "local/base/config.json").write_text("{}")
    settings = load(here, swap("stand_ins: stop", "stand_ins: allow"), "local")
    stand_ins.check(settings)
    assert [finding.level for finding in stand_ins.findings(settings)] == ["warning"]


@pytest.mark.slow
def test_the_last_weights_are_found_where_nothing_measures_them(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("without", "mt_bench", "benchmarks", monkeypatch=monkeypatch)
    assert params.load().final_model == "dpo/policy"
    assert [*params.load().unmeasured] == ["sft", "hh_rlhf", "policy"]
    run("stop", "sft", monkeypatch=monkeypatch)
    settings = params.load()
    assert settings.final_model == "merge/sft" and [*settings.unmeasured] == ["sft"]
    assert seeds.findings(settings) == []  # a scheme that is left out has no seeds
    assert places.all_places(settings)[settings.final].folder == Path("models/merge/sft")


@pytest.mark.slow
def test_stopping_after_sft_leaves_out_what_nobody_gave(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, swap("profile: embedded", "profile: local", served("teacher")))
    (here / "local/mt_bench/questions.jsonl").write_text("{}\n")
    (here / "local/hh_rlhf/pairs.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match="local/flan, local/topics, local/benchmarks: hold no file"):
        run("stop", "never", monkeypatch=monkeypatch)
    run("stop", "sft", monkeypatch=monkeypatch)
    settings = params.load()
    assert settings.sources == ["dolly", "mt_bench"]
    assert [*settings.checkpoints] == ["base", "sft"] and [*settings.compared] == ["sft"]
    assert not settings.evaluated and not settings.aligned and not settings.schemes.orca
    assert settings.schemes.lamini and settings.schemes.lamini.topic_guided == 0
    stand_ins.check(settings)


@pytest.mark.slow
def test_a_folder_that_no_stage_fills_is_there_and_goes_when_one_does(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = from_yaml((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    depended = [name for stage in stages.values() for name in stage.get("do", stage)["deps"]]
    assert set(recipe._instances(params.load(here, "embedded"))) <= {*depended}
    run("without", "hh_rlhf", "mt_bench", monkeypatch=monkeypatch)
    marks = sorted(map(str, Path().glob("*/*/.gitkeep")))
    assert "metrics/dpo/.gitkeep" in marks and "data/mt_answer/.gitkeep" in marks
    assert "metrics/sft/.gitkeep" not in marks and "data/filter/.gitkeep" not in marks
    (here / "metrics/mt_grade/sft.json").touch()
    run("whole", monkeypatch=monkeypatch)
    assert [*Path().glob("*/*/.gitkeep")] == []
    assert not Path("metrics/dpo").exists() and Path("metrics/mt_grade/sft.json").exists()


def test_git_sees_the_mark_of_an_empty_folder_and_no_other_file() -> None:
    names = ["metrics/dpo/.gitkeep", "data/filter/.gitkeep", "data/filter/x/rows.jsonl"]
    command = ["git", "check-ignore", "--no-index", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["data/filter/x/rows.jsonl"]
