"""The comparison of a run with the recorded one: dvc.lock here with dvc.lock of the last commit.

Both hold the hash of every file that a stage read and wrote, and every parameter it used. The first
stage, in the order of the DAG, that wrote other bytes explains why the rest differs too.
"""

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from bezoar import arithmetic

Stages = Mapping[str, Mapping[str, Any]]
LOCK = "dvc.lock"
SUMMARY = Path("metrics/report/summary.json")
# The libraries whose release can change the bits of a weight or the text of a row.
LIBRARIES = ["torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "tokenizers"]
LIBRARIES += ["safetensors", "numpy", "scipy", "lm_eval"]
# The most reasons that are listed of one stage; the others are counted.
SHOWN = 3


def line() -> str:
    """Return a line that says whether this run equals the recorded one, and if not since which
    stage and why."""
    current = _stages(_read(Path(LOCK)))
    if current is None:
        return f"Recorded run: not compared, {LOCK} here cannot be read."
    recorded = _stages(_committed())
    if recorded is None:
        return f"Recorded run: none to compare with, git has no readable {LOCK} for this folder."
    if not _summary_is_of(current):
        return f"Recorded run: not compared, {SUMMARY.as_posix()} is of another run than {LOCK}."
    # the stages that read what this one wrote differ too, so only the first is named
    for name in order({**recorded, **current}):
        if reason := _difference(name, recorded, current):
            return f"Recorded run: this one differs since {name}: {reason}"
    return f"Recorded run: this one equals it, byte for byte, in all {len(current)} stages."


def order(stages: Stages) -> list[str]:
    """Return the names of `stages`, each behind those whose files it reads."""
    # a stage's depth is the longest way to it, counted in stages: a fetch has 1
    depths: dict[str, int] = {}
    writers = {path: name for name, stage in stages.items() for path in _hashes(stage, "outs")}

    def depth(name: str) -> int:
        if name not in depths:
            # a circle of stages, which no run of DVC writes, would otherwise never end
            depths[name] = 0
            depths[name] = 1 + max((depth(writer) for writer in before(name)), default=0)
        return depths[name]

    def before(name: str) -> set[str]:
        reads = _hashes(stages[name], "deps")
        return {writer for path in reads for out, writer in writers.items() if _overlap(path, out)}

    return sorted(stages, key=depth)


def _overlap(path: str, other_path: str) -> bool:
    """Say whether two paths are the same, or one lies in the other."""
    # the slash keeps data/mix from meeting data/mixture
    return f"{path}/".startswith(f"{other_path}/") or f"{other_path}/".startswith(f"{path}/")


def _difference(name: str, recorded: Stages, current: Stages) -> str:
    """Return why stage `name` wrote other bytes than recorded. "" where it wrote the same."""
    if name not in current:
        return "it is recorded, and this run has none. Other parameters or code: no fault."
    if name not in recorded:
        return "it is not recorded. Other parameters or code: no fault."
    before, now = recorded[name], current[name]
    if _hashes(before, "outs") == _hashes(now, "outs"):
        return ""
    if reasons := [*_parameters(before, now), *_files(before, now)]:
        more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        return f"{'; '.join(reasons[:SHOWN])}{more}. That is no fault."
    # the same parameters, code and files: only what the lock file does not record is left
    if libraries := [*_libraries()]:
        return f"the same inputs, and other libraries: {', '.join(libraries)}."
    return (
        "the same inputs gave other bytes, so another kind of CPU or system than recorded. "
        f"{_machine()} docs/training.md says what holds."
    )


def _parameters(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parameters that differ, as `name old -> new`. If the profile is another, that
    alone is named."""
    old, new = _values(before), _values(now)
    profiles = [
        {Path(file).stem for file in stage.get("params") or {} if file.startswith("profiles/")}
        for stage in (before, now)
    ]
    # a profile's parameters stand in its own file, so under another profile every one differs
    if all(profiles) and profiles[0] != profiles[1]:
        yield f"profile {', '.join(sorted(profiles[0]))} -> {', '.join(sorted(profiles[1]))}"
        return
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield f"{key} {_shorten(old.get(key))} -> {_shorten(new.get(key))}"


def _files(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the code, prompts and user's files that differ. Files of earlier stages are equal, for
    the first stage that differs is looked at."""
    old, new = _hashes(before, "deps"), _hashes(now, "deps")
    for path in dict.fromkeys([*new, *old]):
        if old.get(path) != new.get(path):
            yield f"{path} is another one"
    if before.get("cmd") != now.get("cmd"):
        yield "it is another command"


def _libraries() -> Iterator[str]:
    """Yield the libraries whose release is not that of requirements.lock, which the recorded run
    had."""
    pinned = _read(Path("requirements.lock")) or ""
    versions = dict(
        requirement.split("==", 1) for requirement in pinned.split() if "==" in requirement
    )
    for name in LIBRARIES:
        try:
            # torch adds its build to the number: 2.13.0+cpu
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "none"
        if installed != versions.get(name, installed):
            yield f"{name} {installed} instead of {versions[name]}"


def _machine() -> str:
    """Return a sentence on this CPU, with the instruction sets that decide its results."""
    flags = arithmetic.flags()
    if not flags:
        return f"This CPU: {arithmetic.model()} ({platform.system()}, {platform.machine()})."
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
    return f"This CPU: {arithmetic.model()} ({', '.join(sets) or 'without avx2'})."


def _summary_is_of(stages: Stages) -> bool:
    """Say whether summary.json, whose numbers are shown, is of the run that `stages` record."""
    hashes = [_hashes(stage, "outs").get(SUMMARY.as_posix()) for stage in stages.values()]
    expected = next(filter(None, hashes), None)
    if expected is None or not SUMMARY.exists():
        return False
    # DVC records a file by its md5
    return hashlib.md5(SUMMARY.read_bytes()).hexdigest() == expected


def _hashes(stage: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return path -> hash of a stage's files of one `kind`, "deps" or "outs"."""
    entries = stage.get(kind) or []
    return {entry["path"]: str(entry.get("md5")) for entry in entries if "path" in entry}


def _values(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's parameters by their dotted names, which `dvc exp run -S` takes: those of
    another file than params.yaml behind its name and a colon."""
    return {
        key if file == "params.yaml" else f"{file}:{key}": value
        for file, parameters in (stage.get("params") or {}).items()
        for key, value in _flat(parameters or {}, "")
    }


def _flat(values: Any, above: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        yield above, values
        return
    for key, value in values.items():
        yield from _flat(value, f"{above}.{key}" if above else str(key))


def _shorten(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _committed() -> str | None:
    """Return dvc.lock as git has it in the commit that this folder stands on. None where git has
    none."""
    try:
        # "./" is this folder, which may lie below the top of its git repository
        done = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
    except OSError:  # no git
        return None
    return None if done.returncode else done.stdout.decode(errors="replace")


def _stages(text: str | None) -> Stages | None:
    """Return the stages that the text of a dvc.lock records. None where it is no dvc.lock, or in
    the midst of a merge."""
    try:
        # the loader in C is faster, and not every build of PyYAML has it
        stages = yaml.load(text or "", getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    except (yaml.YAMLError, TypeError, KeyError):
        return None
    if not isinstance(stages, dict) or not all(
        isinstance(stage, dict) for stage in stages.values()
    ):
        return None
    return stages
