"""What a run starts from: is each source fetched, cached, or where it can be reached; and how large
it is. Of the hub only a repository's card and the base's config.json are asked for."""

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
from bezoar.preflight.findings import SECONDS, Finding, together
from bezoar.rows.files import BadInput
from bezoar.sources import hub, local

FETCHED = Path("data/fetch")
CONFIG = "config.json"


@dataclass(frozen=True)
class Part:
    """One repository as a fetch wants it: its files, as patterns; `kept`: they are downloaded
    whole, not streamed."""

    repository: Repository
    files: Sequence[str]
    kept: bool = True


@dataclass(frozen=True)
class Looked:
    """What became of looking for one source: `size` in bytes, `fetch` of them still to come;
    `config`: the base's config.json, where it could be had."""

    finding: Finding
    size: int = 0
    fetch: int = 0
    config: Path | None = None


def look(p: Params) -> dict[str, Looked]:
    """By source, as "dolly", "mt_bench 2" or "models/NAME": every one that comes from elsewhere."""
    checks = {}
    for name in type(p.fetch).model_fields:
        wanted = getattr(p.fetch, name)
        if fetched(p, name):
            checks[name] = partial(_made, name)
        elif isinstance(wanted, Local) and name not in p.sources:
            checks[name] = partial(_unused, name)
        elif isinstance(wanted, Local | LocalBase):
            checks[name] = partial(_local, name, wanted)
        elif isinstance(wanted, Wikipedia):
            checks[name] = partial(_wikipedia, name, wanted)
        elif isinstance(wanted, Harness):
            checks[name] = partial(_harness, name, p)
        parts = _parts(wanted)
        for number, part in enumerate([] if name in checks else parts, 1):
            key = f"{name} {number}" if len(parts) > 1 else name
            checks[key] = partial(_hub, key, part)
    for name, model in p.models.items():
        key = f"models/{name}"
        if made(p, f"models@{name}", f"models.{name}", Path("models", key, "source.json")):
            checks[key] = partial(_made, key)
        elif isinstance(model, FurtherHub):
            checks[key] = partial(_hub, key, Part(model, model.files))
        elif isinstance(model, FurtherLocal):
            checks[key] = partial(_local, key, model)

    def late(name: str) -> Looked:
        return Looked(Finding("stop", name, "no answer from its host", "check the network"))

    return together(checks, late)


def fetched(p: Params, name: str) -> bool:
    """Whether a source lies there as this profile wants it."""
    folder = Path("models/fetch") if name == "base" else FETCHED
    return made(p, f"fetch@{name}", f"fetch.{name}", folder / name / "source.json")


def made(p: Params, stage: str, section: str, out: Path) -> bool:
    """Whether `out` is there and dvc.lock records that `stage` last ran with this profile's very
    `section` ("fetch.dolly")."""
    wanted: Any = p
    for key in section.split("."):
        wanted = wanted[key] if isinstance(wanted, dict) else getattr(wanted, key)
    recorded = (
        _lock(Path("dvc.lock").absolute())
        .get("stages", {})
        .get(stage, {})
        .get("params", {})
        .get("params.yaml", {})
    )
    sections = [recorded.get(key) for key in (f"profiles.{p.profile}.{section}", section)]
    return out.exists() and any(_same(each, wanted) for each in sections)


def _same(recorded: Any, wanted: BaseModel) -> bool:
    """Return whether a section of dvc.lock says what is wanted, its defaults left out or not."""
    try:
        return type(wanted).model_validate(recorded) == wanted
    except ValidationError:
        return False


@cache
def _lock(lock: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # thousands of lines
    return yaml.load(lock.read_text(encoding="utf-8"), loader) if lock.exists() else {}


def _parts(wanted: object) -> list[Part]:
    if isinstance(wanted, Hub):
        return [Part(part, part.files) for part in wanted.parts]
    if isinstance(wanted, HubFlan):
        patterns = [file for files in wanted.mixtures.model_dump().values() for file in files]
        return [Part(wanted, patterns, kept=False)]
    return [Part(wanted, wanted.files)] if isinstance(wanted, HubBase) else []


def _made(name: str) -> Looked:
    config = Path("models/fetch/base", CONFIG) if name == "base" else None
    return Looked(Finding("ok", name, "fetched"), config=config)


def _local(name: str, wanted: Local | LocalBase | FurtherLocal) -> Looked:
    try:
        paths = local.list_files(name)
    except BadInput as error:
        return Looked(Finding.of(name, error))
    if paths:
        size = sum(path.stat().st_size for path in paths) if name == "base" else 0
        config = next((path for path in paths if path.name == CONFIG), None)
        return Looked(Finding("ok", name, f"{len(paths)} files in local/{name}"), size, 0, config)
    if getattr(wanted, "otherwise", None) is None:
        do = "put yours there (local/README.md) or run `make local DATA=folder`"
        return Looked(Finding("stop", name, f"local/{name} holds no file", do))
    return Looked(Finding("ok", name, f"local/{name} is empty: the project's own stands in"))


def _unused(name: str) -> Looked:
    return Looked(Finding("ok", name, "not used by this recipe"))


def _wikipedia(name: str, wanted: Wikipedia) -> Looked:
    request = urllib.request.Request(wanted.url, method="HEAD", headers={"User-Agent": "bezoar"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        what = f"{wanted.url} cannot be reached ({reason})"
        return Looked(Finding("stop", name, what, "check the network, or name another fetch.url"))
    return Looked(Finding("ok", name, f"{wanted.url} is there ({_megabytes(size)})"))


def _harness(name: str, p: Params) -> Looked:
    from huggingface_hub import constants

    tasks = f"{len(p.lm_eval.tasks or [])} tasks, whose data lm_eval fetches from the hub"
    if constants.is_offline_mode():
        return Looked(Finding("warning", name, f"{tasks}, and HF_HUB_OFFLINE is set", "unset it"))
    return Looked(Finding("ok", name, tasks))


def _hub(name: str, part: Part) -> Looked:
    from huggingface_hub import HfApi, hf_hub_download

    wanted, there = part.repository, cached(part)
    where = f"{wanted.repository}@{wanted.revision[:12]}"
    if there and part.kept:
        size = sum(file.stat().st_size for file in there)
        config = next((path for path in there if path.name == CONFIG), None)
        return Looked(Finding("ok", name, f"{where} is in the cache"), size, 0, config)
    try:
        with hub.explain_errors(wanted):
            info: Any = HfApi().repo_info(
                wanted.repository,
                repo_type=wanted.kind,
                revision=wanted.ref or wanted.revision,
                timeout=SECONDS,
                files_metadata=True,
            )
        if not str(info.sha).startswith(wanted.revision):
            what = f"{wanted.repository}: {wanted.ref} has moved to {info.sha}"
            return Looked(Finding("stop", name, what, "look at what changed, then name its commit"))
        sizes = {file.rfilename: file.size or 0 for file in info.siblings}
        size = sum(size for file, size in sizes.items() if _fits(file, part.files))
        if not size:
            what = f"{where} holds none of {', '.join(part.files)}"
            return Looked(Finding("stop", name, what, "mend the names of its files"))
        config = None
        if isinstance(wanted, HubBase):
            with hub.explain_errors(wanted):
                told = hf_hub_download(
                    wanted.repository, CONFIG, revision=info.sha, etag_timeout=SECONDS
                )
            config = Path(told)
    except BadInput as error:
        return Looked(Finding.of(name, error))
    how = f"is there ({_megabytes(size)}{'' if part.kept else ', streamed'})"
    return Looked(Finding("ok", name, f"{where} {how}"), size, size if part.kept else 0, config)


def cached(part: Part) -> list[Path]:
    """The files of a repository that lie in the hub's cache; [] where some are missing: of a base
    the weights, of rows any."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    wanted = part.repository
    folder = repo_folder_name(repo_id=wanted.repository, repo_type=wanted.kind)
    found: list[Path] = []
    for snapshot in Path(constants.HF_HUB_CACHE, folder, "snapshots").glob(f"{wanted.revision}*"):
        groups = [sorted(snapshot.glob(pattern)) for pattern in part.files]
        files = [path for group in groups for path in group]
        if any(f.suffix == ".safetensors" for f in files) or (
            all(groups) and not isinstance(wanted, HubBase)
        ):
            found = files
    return found


def _fits(name: str, patterns: Sequence[str]) -> bool:
    # a star stays inside its folder
    return any(name.count("/") == p.count("/") and fnmatchcase(name, p) for p in patterns)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "of unknown size"
