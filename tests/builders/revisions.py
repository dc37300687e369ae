"""A repository that holds two revisions of a made-up run."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import params, report
from bezoar.rows import files
from tests.builders import parameters
from tests.builders.runs import edit, grow, table
from tests.conftest import BIN, ROOT, environment, from_yaml

SETTINGS = params.load(ROOT)


def declared() -> dict[str, Any]:
    """dvc.yaml with curves, grades and the report's numbers as the only outs, made of nothing."""
    document: dict[str, Any] = from_yaml((ROOT / "dvc.yaml").read_text())
    for name, each in document["stages"].items():
        stage = each.get("do", each)
        stage |= {"cmd": "true", "deps": [], "params": []}
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
        kept = name in ("mt_grade", "report")
        stage["outs"] = [
            out
            for out, path in zip(stage["outs"], outs, strict=True)
            if kept and path.endswith((".json", ".csv"))
        ]
    return document


def tell() -> None:
    """Write what stages/report.py writes to be compared."""
    run = report.read(SETTINGS)
    files.write_json("metrics/report/summary.json", report.summary(run))
    files.write_json("metrics/report/headline.json", report.headline(run))
    files.write("metrics/report/checkpoints.csv", report.checkpoints(run))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run on `main` and the experiment `beta-0.3` in the working tree: DPO's
    parameter, margin and grade differ."""
    folder = grow(tmp_path_factory.mktemp("diff"))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(declared(), sort_keys=False))
    parameters.copy(folder)
    shutil.copy(ROOT / "metrics/.gitignore", folder / "metrics")
    for scheme in type(SETTINGS.schemes).model_fields:
        csv = folder / f"metrics/filter/{scheme}"
        table(csv.with_name(f"{scheme}_tasks.csv"), ["task", "after"], [["chat", 1]])
        table(csv.with_name(f"{scheme}_lengths.csv"), ["share", "response"], [[0, 1], [1, 9]])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        called("git", "init", "-q", "-b", "main")
        called("dvc", "init", "-q")
        tell()
        called("dvc", "commit", "--force", "--quiet")
        called("git", "add", "-A")
        called("git", "commit", "-q", "-m", "run")
        edit("metrics/dpo/dpo.json", lambda v: v.update(margin=0.93))
        edit("metrics/mt_grade/dpo.json", lambda v: v.update(average=9.25, average_high=9.5))
        beta = Path("params.yaml").read_text().replace("beta: 0.1", "beta: 0.3")
        Path("params.yaml").write_text(beta)
        tell()
        called("dvc", "commit", "--force", "--quiet")
        called("dvc", "exp", "save", "--quiet", "--name", "beta-0.3")
    return folder


def called(program: str, *words: str) -> str:
    """What a command prints; it must succeed."""
    path = str(BIN / program) if program == "dvc" else program
    env = environment(Path("work"), COLUMNS="200")
    done = subprocess.run([path, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def inside(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
