"""The rehearsal of a base, from outside: a small copy of its kind goes through all later stages.

preflight/trial.py does that in a process of its own, so that a kind of model which breaks something
breaks it there. The files that the trial reads are no dependency of the stage that starts it,
because it changes no result.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.params import HubBase, Params
from bezoar.preflight.data import Looked
from bezoar.preflight.findings import Finding
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.sources import hub, local, weights

# Seconds that a rehearsal may take, on a machine that does much else.
SECONDS = 600
# Characters of a library's error that are shown.
CHARACTERS = 160
ANOTHER = "choose another base (docs/base.md names kinds that pass)"


def rehearse(folder: Path, subject: str, profile: str | None = None) -> list[str]:
    """Rehearse the base at `folder`, and return notes on it, a line each.

    config.json and a tokenizer are enough. Weights that lie there too must fit the configuration. A
    rehearsal that passed once is not repeated. BadInput, on `subject`: the reason why the base
    cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        report = Path(scratch, "report.json")
        process = _run_trial(
            [str(folder.absolute()), str(report), str(work.home())], profile, scratch
        )
        if not report.exists():
            lines = process.stderr.strip().splitlines() or ["no word"]
            ended = f"signal {-process.returncode}" if process.returncode < 0 else lines[-1]
            ended = ended.removeprefix("error: ")[:CHARACTERS]
            raise BadInput(f"{subject}: its rehearsal broke off ({ended}); {ANOTHER}")
        outcome: Any = files.read_json(report)
    if outcome["refused"]:
        raise BadInput(f"{subject}: {outcome['refused']}")
    return list(outcome["notes"])


def findings(p: Params, looked: Looked | None) -> list[Finding]:
    """Return the findings of the rehearsal of a profile's base, [] where its configuration cannot
    be had. It is read where it was fetched, in local/base, or on the hub, from where the tokenizer
    is fetched."""
    if looked is None or looked.config is None or looked.finding.level == "stop":
        return []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = _folder(p, looked.config, Path(scratch))
            notes = rehearse(folder, "base", p.profile)
    except BadInput as error:
        return [Finding.from_error("base", error)]
    well = Finding("ok", "base", "rehearsed: a small copy of it went through every later stage")
    return [well, *(Finding("warning", "base", note) for note in notes)]


def _folder(p: Params, config: Path, scratch: Path) -> Path:
    """Return the folder of the base's files, checked as fetch checks them."""
    base = p.fetch.base
    if config.parent == Path("models/fetch/base"):
        return config.parent
    if isinstance(base, HubBase):
        # All but the weights, which may be there in part.
        for path in hub.small_files(base).iterdir():
            if path.is_file() and path.suffix != ".safetensors":
                shutil.copyfile(path, scratch / path.name)
        return scratch
    folder = weights.only_model(local.list_files("base"), "local/base")
    weights.model_files(folder)
    return folder


def _run_trial(
    arguments: list[str], profile: str | None, scratch: str
) -> "subprocess.CompletedProcess[str]":
    # The trial is a process of its own, and not the stage that starts it.
    env = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    env |= {"BEZOAR_DEVICE": "cpu", "BEZOAR_WORK": scratch, "HF_HUB_OFFLINE": "1"}
    code = [str(Path(__file__).parents[2]), *filter(None, [env.get("PYTHONPATH")])]
    # So that the trial finds this code, wherever it is started from.
    env["PYTHONPATH"] = os.pathsep.join(code)
    command = [sys.executable, "-m", "bezoar.preflight.trial", *arguments]
    command += [profile] if profile else []
    try:
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"nothing for {SECONDS} s")
