"""Whether a run equals the recorded one: dvc.lock here beside dvc.lock of the last commit.

Both hold the hash of every file that a stage read and wrote, and every parameter it used. The first
stage, in the order of the DAG, that wrote other bytes says why the rest differs too.
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
# Those whose release can change the bits of a weight or the text of a row
LIBRARIES = ["torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "tokenizers"]
LIBRARIES += ["safetensors", "numpy", "scipy", "lm_eval"]
SHOWN = 3  # reasons, of a stage that has more


def line() -> str:
    """Say in a line whether this run equals the recorded one, and if not since which stage."""
    current = _stages(_read(Path(LOCK)))
    if current is None:
        return f"Recorded run: not compared, {LOCK} here cannot be read."
    recorded = _stages(_committed())
    if recorded is None:
        return f"Recorded run: none to compare with, git has no readable {LOCK} for this folder."
    if not _summary_is_of(current):
        return f"Recorded run: not compared, {SUMMARY.as_posix()} is of another run than {LOCK}."
    for name in order({**recorded, **current}):
        if reason := _difference(name, recorded, current):
            return f"Recorded run: this one differs since {name}: {reason}"
    return f"Recorded run: this one equals it, byte for byte, in all {len(current)} stages."


def order(stages: Stages) -> list[str]:
    """The names of `stages`, each behind those whose files it reads."""
    depths: dict[str, int] = {}
    writers = {path: name for name, stage in stages.items() for path in _hashes(stage, "outs")}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 0  # a circle, which no run of DVC writes, ends here
            depths[name] = 1 + max((depth(writer) for writer in before(name)), default=0)
        return depths[name]

    def before(name: str) -> set[str]:
        reads = _hashes(stages[name], "deps")
        return {writer for path in reads for out, writer in writers.items() if _overlap(path, out)}

    return sorted(stages, key=depth)


def _overlap(path: str, other_path: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    return f"{path}/".startswith(f"{other_path}/") or f"{other_path}/".startswith(f"{path}/")


def _difference(name: str, recorded: Stages, current: Stages) -> str:
    """Why stage `name` wrote other bytes than recorded; nothing where it did not."""
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
    if libraries := [*_libraries()]:
        return f"the same inputs, and other libraries: {', '.join(libraries)}."
    return (
        "the same inputs gave other bytes, so another kind of CPU or system than recorded. "
        f"{_machine()} docs/training.md says what holds."
    )


def _parameters(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The parameters that differ, `name old -> new`; of another profile its name alone."""
    old, new = _values(before), _values(now)
    profiles = [
        {key.split(".")[1] for key in parameters if key.startswith("profiles.")}
        for parameters in (old, new)
    ]
    if all(profiles) and profiles[0] != profiles[1]:
        yield f"profile {', '.join(sorted(profiles[0]))} -> {', '.join(sorted(profiles[1]))}"
        return
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield f"{key} {_shorten(old.get(key))} -> {_shorten(new.get(key))}"


def _files(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The code, prompts and files of the user's that differ. What other stages wrote is equal."""
    old, new = _hashes(before, "deps"), _hashes(now, "deps")
    for path in dict.fromkeys([*new, *old]):
        if old.get(path) != new.get(path):
            yield f"{path} is another one"
    if before.get("cmd") != now.get("cmd"):
        yield "it is another command"


def _libraries() -> Iterator[str]:
    """The libraries that are not those of requirements.lock, which the recorded run had."""
    pinned = _read(Path("requirements.lock")) or ""
    versions = dict(
        requirement.split("==", 1) for requirement in pinned.split() if "==" in requirement
    )
    for name in LIBRARIES:
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "none"
        if installed != versions.get(name, installed):
            yield f"{name} {installed} instead of {versions[name]}"


def _machine() -> str:
    """This CPU in the words that decide what it computes."""
    flags = arithmetic.flags()
    if not flags:
        return f"This CPU: {arithmetic.model()} ({platform.system()}, {platform.machine()})."
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
    return f"This CPU: {arithmetic.model()} ({', '.join(sets) or 'without avx2'})."


def _summary_is_of(stages: Stages) -> bool:
    """Whether the numbers that are shown are of the run that `stages` record."""
    hashes = [_hashes(stage, "outs").get(SUMMARY.as_posix()) for stage in stages.values()]
    expected = next(filter(None, hashes), None)
    if expected is None or not SUMMARY.exists():
        return False
    return hashlib.md5(SUMMARY.read_bytes()).hexdigest() == expected


def _hashes(stage: Mapping[str, Any], kind: str) -> dict[str, str]:
    """The files of a stage, `deps` or `outs`, with their hashes."""
    entries = stage.get(kind) or []
    return {entry["path"]: str(entry.get("md5")) for entry in entries if "path" in entry}


def _values(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stage by their dotted names."""
    return {
        key: value
        for file in (stage.get("params") or {}).values()
        for key, value in _flat(file or {}, "")
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
    """dvc.lock as git has it in the commit that this folder stands on."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
    except OSError:  # no git
        return None
    return None if done.returncode else done.stdout.decode(errors="replace")


def _stages(text: str | None) -> Stages | None:
    """What a dvc.lock says of each stage; None where it is none, or in the midst of a merge."""
    try:
        stages = yaml.load(text or "", getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    except (yaml.YAMLError, TypeError, KeyError):
        return None
    if not isinstance(stages, dict) or not all(
        isinstance(stage, dict) for stage in stages.values()
    ):
        return None
    return stages
