"""The files of parameters as one document, to read, change and write: {section: values, "profiles":
{name: values}}."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import parse_yaml

from bezoar import params
from bezoar.params.layout import PROFILES, RECIPE, SHARED, profile_file, read_files
from tests.builders import ROOT

Document = dict[str, Any]


def texts(folder: Path = ROOT) -> dict[str, str]:
    """Return the text of each file of parameters, by its path in the project."""
    return {path: data.decode() for path, data in read_files(folder).items()}


def read(folder: Path = ROOT) -> Document:
    """Return all parameters as DVC reads them."""
    values = {path: parse_yaml(text, path) for path, text in texts(folder).items()}
    document: Document = values[SHARED] | values[RECIPE]
    document["profiles"] = {
        Path(path).stem: profile
        for path, profile in values.items()
        if path.startswith(f"{PROFILES}/")
    }
    return document


def write(folder: Path, document: Document) -> Path:
    """Write a document's parts into the files of `folder`, and return the folder. A section stands
    in the file in which it stands in the project."""
    of_recipe = parse_yaml((ROOT / RECIPE).read_text(encoding="utf-8"), RECIPE)
    profiles = document["profiles"]
    parts: dict[str, Document] = {SHARED: {}, RECIPE: {}}
    for key, value in document.items():
        if key != "profiles":
            parts[RECIPE if key in of_recipe else SHARED][key] = value
    shutil.rmtree(folder / PROFILES, ignore_errors=True)
    parts |= {profile_file(name): values for name, values in profiles.items()}
    for path, values in parts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    params.forget()
    return folder


@contextmanager
def changed(folder: Path) -> Iterator[Document]:
    """Read the parameters of a folder, and write them again as the caller leaves them."""
    document = read(folder)
    yield document
    write(folder, document)


def copy(folder: Path) -> Path:
    """Copy the project's files of parameters, and launch/, into `folder`, and return it."""
    for path, text in texts().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    if not (folder / "launch").exists():
        (folder / "launch").symlink_to(ROOT / "launch")
    return folder


def replace(folder: Path, old: str, new: str) -> Path:
    """Replace a text once, in the file that holds it, and return that file."""
    for path, text in texts(folder).items():
        if old in text:
            (folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")
            params.forget()
            return folder / path
    raise AssertionError(f"no file of parameters holds {old!r}")


def override(folder: Path, *overrides: str) -> None:
    """Set values as `dvc exp run -S` does: KEY=VALUE of params.yaml, or FILE:KEY=VALUE."""
    by_file: dict[str, list[str]] = defaultdict(list)
    for each in overrides:
        file, key = split(each)
        by_file[file].append(key)
    for file, assignments in by_file.items():
        apply_overrides(str(folder / file), assignments)
    params.forget()


def split(override: str) -> tuple[str, str]:
    """Return the file and the assignment of an override."""
    key, equal, value = override.partition("=")
    file, colon, rest = key.rpartition(":")
    return (file if colon else SHARED), rest + equal + value


def value(override: str) -> Any:
    """Return the value that stands now where an override sets one. KeyError: there is none."""
    file, assignment = split(override)
    inside = parse_yaml((ROOT / file).read_text(encoding="utf-8"), file)
    for part in assignment.partition("=")[0].removeprefix("~").split("."):
        inside = inside[part]
    return inside


def of_page(block: str) -> Document:
    """Return a page's YAML block as a part of the document. Its first line names the file."""
    first = re.match(r"# (\S+)\n", block)
    values: Document = parse_yaml(block, "a page")
    if not first or not first[1].startswith(f"{PROFILES}/"):
        return values
    return {"profiles": {Path(first[1]).stem: values}}


def names(stage: dict[str, Any]) -> list[str]:
    """Return the parameters of a stage of dvc.yaml, those of another file than params.yaml as
    FILE:KEY."""
    return [
        name
        for entry in stage["params"]
        for name in (
            [f"{file}:{key}" for file, keys in entry.items() for key in keys]
            if isinstance(entry, dict)
            else [entry]
        )
    ]
