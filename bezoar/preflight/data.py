"""The sources that a run starts from: fetched, cached or within reach, and their size. The hub is
asked for a repository's card and the base's config.json alone."""

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bezoar.params import (
    FurtherHub,
    FurtherLocal,
    Harness,
    Hub,
    HubBase,
    HubFlan,
    Local,
    LocalBase,
    Params,
    Repository,
    Wikipedia,
)
from bezoar.params.faults import value_at
from bezoar.params.layout import SHARED, expand, profile_file
from bezoar.preflight.findings import SECONDS, Finding, together
from bezoar.rows.files import BadInput
from bezoar.sources import hub, local

FETCHED = Path("data/fetch")
CONFIG = "config.json"


@dataclass(frozen=True)
class Part:
    """One repository as a fetch wants it. `files` are patterns. `downloaded`: whole, not
    streamed."""

    repository: Repository
    files: Sequence[str]
    downloaded: bool = True


@dataclass(frozen=True)
class Looked:
    """The outcome of a look at one source.

    `size`: bytes.
    `fetch`: those of them that are still to come.
    `config`: the base's config.json, where it could be had.
    """

    finding: Finding
    size: int = 0
    fetch: int = 0
    config: Path | None = None


def look(p: Params) -> dict[str, Looked]:
    """Look at every source that comes from elsewhere. Return the outcomes by source, as "dolly",
    "mt_bench 2" or "models/NAME"."""
    checks = {}
    for name in type(p.fetch).model_fields:
        source = getattr(p.fetch, name)
        if fetched(p, name):
            checks[name] = partial(_already_fetched, name)
        elif isinstance(source, Local) and name not in p.sources:
            checks[name] = partial(_unused, name)
        elif isinstance(source, Local | LocalBase):
            checks[name] = partial(_local, name, source)
        elif isinstance(source, Wikipedia):
            checks[name] = partial(_wikipedia, name, source)
        elif isinstance(source, Harness):
            checks[name] = partial(_harness, name, p)
        parts = _parts(source)
        for number, part in enumerate([] if name in checks else parts, 1):
            key = f"{name} {number}" if len(parts) > 1 else name
            checks[key] = partial(_hub, key, part)
    for name, model in p.models.items():
        key = f"models/{name}"
        if is_current(p, f"models@{name}", f"models.{name}", Path("models", key, "source.json")):
            checks[key] = partial(_already_fetched, key)
        elif isinstance(model, FurtherHub):
            checks[key] = partial(_hub, key, Part(model, model.files))
        elif isinstance(model, FurtherLocal):
            checks[key] = partial(_local, key, model)

    def late(name: str) -> Looked:
        return Looked(Finding("stop", name, "no answer from its host", "check the network"))

    return together(checks, late)


def fetched(p: Params, name: str) -> bool:
    """Say whether a source lies there as this profile wants it."""
    folder = Path("models/fetch") if name == "base" else FETCHED
    return is_current(p, f"fetch@{name}", f"fetch.{name}", folder / name / "source.json")


def is_current(p: Params, stage: str, section: str, out: Path) -> bool:
    """Say whether `out` is there, and whether dvc.lock records that `stage` last ran with exactly
    this profile's `section` (as "fetch.dolly")."""
    value: Any = p
    for key in section.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    recorded = _lock(Path("dvc.lock").absolute()).get("stages", {}).get(stage, {}).get("params", {})
    # A section of a profile stands in its file, one of the recipe (`models`) in params.yaml. DVC
    # records each key with its dots, and a profile names its endpoints apart from the roles.
    values: dict[str, Any] = {}
    for dotted, entry in recorded.get(profile_file(p.profile), {}).items():
        above, _, key = dotted.rpartition(".")
        (values.setdefault(above, {}) if above else values)[key] = entry
    expanded = value_at(expand(values)[0], tuple(section.split(".")))
    entries = [recorded.get(SHARED, {}).get(section), expanded]
    return out.exists() and any(_same(entry, value) for entry in entries)


def _same(recorded: Any, section: BaseModel) -> bool:
    """Say whether a section of dvc.lock is equal to one of the parameters, defaults left out or
    not."""
    try:
        return type(section).model_validate(recorded) == section
    except ValidationError:
        return False


@cache
def _lock(lock: Path) -> Any:
    # libyaml's parser, where there is one, because dvc.lock has thousands of lines.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(lock.read_text(encoding="utf-8"), loader) if lock.exists() else {}


def _parts(source: object) -> list[Part]:
    if isinstance(source, Hub):
        return [Part(part, part.files) for part in source.parts]
    if isinstance(source, HubFlan):
        patterns = [file for files in source.mixtures.model_dump().values() for file in files]
        return [Part(source, patterns, downloaded=False)]
    return [Part(source, source.files)] if isinstance(source, HubBase) else []


def _already_fetched(name: str) -> Looked:
    config = Path("models/fetch/base", CONFIG) if name == "base" else None
    return Looked(Finding("ok", name, "fetched"), config=config)


def _local(name: str, source: Local | LocalBase | FurtherLocal) -> Looked:
    try:
        paths = local.list_files(name)
    except BadInput as error:
        return Looked(Finding.from_error(name, error))
    if paths:
        size = sum(path.stat().st_size for path in paths) if name == "base" else 0
        config = next((path for path in paths if path.name == CONFIG), None)
        return Looked(Finding("ok", name, f"{len(paths)} files in local/{name}"), size, 0, config)
    if getattr(source, "otherwise", None) is None:
        do = "put yours there (local/README.md) or run `make local DATA=folder`"
        return Looked(Finding("stop", name, f"local/{name} holds no file", do))
    return Looked(Finding("ok", name, f"local/{name} is empty: the project's own stands in"))


def _unused(name: str) -> Looked:
    return Looked(Finding("ok", name, "not used by this recipe"))


def _wikipedia(name: str, source: Wikipedia) -> Looked:
    request = urllib.request.Request(source.url, method="HEAD", headers={"User-Agent": "bezoar"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        message = f"{source.url} cannot be reached ({reason})"
        return Looked(
            Finding("stop", name, message, "check the network, or name another fetch.url")
        )
    return Looked(Finding("ok", name, f"{source.url} is there ({_megabytes(size)})"))


def _harness(name: str, p: Params) -> Looked:
    from huggingface_hub import constants

    tasks = f"{len(p.lm_eval.tasks or [])} tasks, whose data lm_eval fetches from the hub"
    if constants.is_offline_mode():
        return Looked(Finding("warning", name, f"{tasks}, and HF_HUB_OFFLINE is set", "unset it"))
    return Looked(Finding("ok", name, tasks))


def _hub(name: str, part: Part) -> Looked:
    from huggingface_hub import HfApi, hf_hub_download

    repository, cached_files = part.repository, cached(part)
    address = f"{repository.repository}@{repository.revision[:12]}"
    if cached_files and part.downloaded:
        size = sum(file.stat().st_size for file in cached_files)
        config = next((path for path in cached_files if path.name == CONFIG), None)
        return Looked(Finding("ok", name, f"{address} is in the cache"), size, 0, config)
    try:
        with hub.explain_errors(repository):
            info: Any = HfApi().repo_info(
                repository.repository,
                repo_type=repository.kind,
                # The branch is asked for its tip, to see that this is still the commit.
                revision=repository.ref or repository.revision,
                timeout=SECONDS,
                files_metadata=True,
            )
        if not str(info.sha).startswith(repository.revision):
            message = f"{repository.repository}: {repository.ref} has moved to {info.sha}"
            return Looked(
                Finding("stop", name, message, "look at what changed, then name its commit")
            )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings}
        size = sum(size for file, size in sizes.items() if _fits(file, part.files))
        if not size:
            message = f"{address} holds none of {', '.join(part.files)}"
            return Looked(Finding("stop", name, message, "mend the names of its files"))
        config = None
        if isinstance(repository, HubBase):
            with hub.explain_errors(repository):
                config_file = hf_hub_download(
                    repository.repository, CONFIG, revision=info.sha, etag_timeout=SECONDS
                )
            config = Path(config_file)
    except BadInput as error:
        return Looked(Finding.from_error(name, error))
    state = f"is there ({_megabytes(size)}{'' if part.downloaded else ', streamed'})"
    return Looked(
        Finding("ok", name, f"{address} {state}"), size, size if part.downloaded else 0, config
    )


def cached(part: Part) -> list[Path]:
    """Return the files of a repository that lie in the hub's cache, [] where some are missing. A
    base must have its weights there, and rows every file."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = part.repository
    folder = repo_folder_name(repo_id=repository.repository, repo_type=repository.kind)
    complete: list[Path] = []
    for snapshot in Path(constants.HF_HUB_CACHE, folder, "snapshots").glob(
        f"{repository.revision}*"
    ):
        groups = [sorted(snapshot.glob(pattern)) for pattern in part.files]
        files = [path for group in groups for path in group]
        if any(f.suffix == ".safetensors" for f in files) or (
            all(groups) and not isinstance(repository, HubBase)
        ):
            complete = files
    return complete


def _fits(name: str, patterns: Sequence[str]) -> bool:
    # A star stays inside its folder, as it does on the hub.
    return any(name.count("/") == p.count("/") and fnmatchcase(name, p) for p in patterns)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "of unknown size"
