"""A finished run to an S3 bucket and back, as `make s3-demo` plays it: what is fetched, what runs,
and that nothing is asked of a model."""

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest

from bezoar.rows.files import BadInput
from demos.s3 import clone_again, copy_run, pull, push
from tests.builders.s3 import S3, key_of, s3
from tests.conftest import BIN, ROOT, Run, from_yaml

pytestmark = pytest.mark.slow

PAGES = ("README.md", "docs/bucket.md")
REMOTE = r"^dvc (remote .*?)(?:  .*)?$"
GITS = ("metrics/report/summary.json", "metrics/report/headline.json")


def keys(run: Run, *stages: str, below: str = "") -> set[str]:
    """Keys of the outs of `stages` (names or groups) under `below`, with the files in folders."""
    found = set()
    lock = from_yaml((run.folder / "dvc.lock").read_text())["stages"]
    for stage, entry in lock.items():
        for out in entry["outs"] if {stage, stage.partition("@")[0]} & {*stages} else []:
            if out["path"].startswith(below) and out["path"] not in GITS:
                found.add(key_of(out["md5"]))
                if out["md5"].endswith(".dir"):
                    listed = (run.folder / ".dvc/cache" / key_of(out["md5"])).read_text()
                    found |= {key_of(each["md5"]) for each in json.loads(listed)}
    return found


def content(fetched: dict[str, int]) -> set[str]:
    """Without the entries of the run cache."""
    return {key for key in fetched if not key.startswith("runs/")}


def test_a_run_goes_to_s3_and_comes_back(finished: Run, tmp_path: Path) -> None:
    run = finished
    everything = keys(run, *from_yaml((run.folder / "dvc.yaml").read_text())["stages"])
    with s3() as server:
        one = copy_run(run.folder, tmp_path, server)
        variant, pushed = push(one)
        assert variant.ran == ["mt_compare@sft", "mt_compare@dpo", "report"]
        assert everything < content(pushed.stored), "all of the run, and the variant's"
        cache = one.folder / ".dvc/cache"
        entries = {path.relative_to(cache).as_posix() for path in cache.glob("runs/*/*/*")}
        assert len(entries) > 40 and entries == pushed.stored.keys() - content(pushed.stored)

        other = clone_again(one)
        few, missing, evaluated, rest, whole, variant = pulled = list(pull(other))
        assert content(few.fetched) == keys(run, "dpo", below="models/") | keys(run, "report")
        for nothing in (missing, whole):
            assert "up to date" in nothing.output
            assert nothing.ran == nothing.restored == [] and nothing.fetched == {}
        # the model and what it is measured with; not what led to it
        assert evaluated.ran == ["lm_eval@lamini"] and evaluated.restored == []
        model = keys(run, "fetch@base", "sft@lamini", below="models/")
        assert model <= content(evaluated.fetched) | content(few.fetched)
        assert content(evaluated.fetched) <= model | keys(run, "fetch@benchmarks")
        assert content(rest.fetched) <= everything and rest.ran == []
        # a metric that git keeps is in no run cache: the report alone is written again
        assert variant.restored == ["mt_compare@sft", "mt_compare@dpo"]
        assert variant.ran == ["report"]
        assert other.replies == 0 and [step.asking for step in pulled] == [[]] * len(pulled)


def test_the_page_s_commands_make_a_verified_default_remote(tmp_path: Path) -> None:
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in PAGES)
    commands = re.findall(REMOTE, page, re.MULTILINE)
    assert re.findall(REMOTE, readme, re.MULTILINE) == commands
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([BIN / "dvc", "init", "-q"], cwd=tmp_path, check=True)
    for command in commands:
        subprocess.run([BIN / "dvc", *command.split()], cwd=tmp_path, check=True)
    told = read_config(tmp_path / ".dvc/config")
    S3(9).be_remote_of(tmp_path)
    ours = read_config(tmp_path / ".dvc/config.local")
    assert told["core"]["remote"] == ours["core"]["remote"] == "storage"
    remote = "'remote \"storage\"'"
    assert dict(told[remote]) == {"url": "s3://your-bucket/bezoar", "verify": "true"}
    assert {**told[remote], "url": "s3://bezoar", "endpointurl": S3(9).endpoint} == ours[remote]


@pytest.mark.parametrize("profile", [None, "local"])
def test_without_a_finished_embedded_run_the_demo_says_so(
    project: Path, tmp_path: Path, profile: str | None
) -> None:
    lock = project / "dvc.lock"
    if profile is None:
        lock.unlink()
    else:
        lock.write_text(lock.read_text().replace("profile: embedded", f"profile: {profile}"))
    with pytest.raises(BadInput, match="run `make demo` first"):
        copy_run(project, tmp_path, S3(9))


def test_a_run_whose_data_is_gone_is_not_finished(project: Path, tmp_path: Path) -> None:
    (project / ".dvc/cache").mkdir()
    with pytest.raises(BadInput, match="run `make demo` first"):
        copy_run(project, tmp_path, S3(9))


def read_config(path: Path) -> configparser.ConfigParser:
    """A configuration of DVC."""
    config = configparser.ConfigParser()
    config.read(path)
    return config
