"""`python -m bezoar.sources.link FOLDER`: find what the pipeline can read in FOLDER, whatever its
layout and names, and link it into local/, below linked/ of each kind; earlier links go.

Files are linked one by one: DVC hashes through a link to a file, but takes a link to a folder for
an empty one and would miss every change in it.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bezoar.files import BadInput
from bezoar.sources import weights
from bezoar.sources.local import LINKED, LOCAL, found
from bezoar.sources.shapes import shape_of

KINDS = {
    "dolly": "seeds",
    "flan": "queries and targets",
    "topics": "topics",
    "hh_rlhf": "preference pairs",
    "mt_bench": "two-turn questions",
    "benchmarks": "multiple-choice items",
    "base": "base model",
}
SEEDS = (
    "a seeds file is JSONL whose rows have the text fields instruction, context, response and "
    "category (as databricks-dolly-15k.jsonl has)"
)
SHOWN = 12  # unrecognised files named
FOLDED = 3  # more files of one kind in one folder are one line
HUGE = 2**28  # bytes; a file as large as this with no line break near its start is no list of rows


@dataclass
class Finds:
    """What lies in a folder: (file, what it is, where its link goes below local/), and the rest
    with a reason or ""."""

    used: list[tuple[Path, str, Path]] = field(default_factory=list)
    unused: list[tuple[Path, str]] = field(default_factory=list)


def find(top: Path) -> Finds:
    """Look at every file below `top`, in order of their paths. Hidden ones, this project's own
    links and what was seen before (a link back up, the store of a download cache) are left out."""
    finds, files, refused = Finds(), list(_walk(top)), ""
    models = weights.folders(files)
    chosen: Path | None = None
    for model in models:
        try:
            parts = weights.model_files(model)
        except BadInput as error:
            refused = refused or str(error).removeprefix("error: ")
            finds.unused.append((model, str(error).removeprefix("error: ")))
            continue
        if chosen:
            finds.unused.append((model, f"a second base model; {chosen} is used"))
            continue
        chosen = model
        into = Path("base", LINKED, model.resolve().name)
        finds.used += [(path, "base model", into / path.name) for path in parts]
    if refused and not chosen:
        raise BadInput(refused)
    for path in files:
        if path.parent in models:
            continue
        try:
            shape = None if _shapeless(path) else shape_of(path)
        except BadInput as error:
            finds.unused.append((path, str(error).removeprefix(f"error: {path}").strip(": ")))
            continue
        if shape is None:
            finds.unused.append((path, ""))
        else:
            into = Path(shape.source, LINKED, path.relative_to(top))
            finds.used.append((path, shape.name, into))
    if not any(name == "questions" for _, name, _ in finds.used):
        orphans = [use for use in finds.used if use[2].parts[0] == "mt_bench"]
        finds.used = [use for use in finds.used if use not in orphans]
        finds.unused += [(path, f"{name}, but no questions") for path, name, _ in orphans]
    return finds


def link(finds: Finds, local: Path = LOCAL) -> None:
    """Replace the links below `local` by those of `finds`; the user's own files stay."""
    clear(local)
    for path, _, into in finds.used:
        target = local / into
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())


def clear(local: Path = LOCAL) -> None:
    """Remove the links, and the folders that this leaves empty."""
    for kind in KINDS:
        for folder, _, names in os.walk(local / kind / LINKED, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path.is_symlink():
                    path.unlink()
            if not any(Path(folder).iterdir()):
                Path(folder).rmdir()


def _walk(top: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    own = {(LOCAL / kind / LINKED).resolve() for kind in KINDS}
    for folder, inner, names in os.walk(top, followlinks=True):
        here = Path(folder).resolve()
        if here in seen or here in own:
            inner.clear()
            continue
        seen.add(here)
        # a download cache keeps its files, named by hash, beside folders of links to them
        store = {"blobs"} if "snapshots" in inner else set()
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n not in store)
        for path in (Path(folder, name) for name in sorted(names)):
            if path.name.startswith(".") or not path.is_file() or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            yield path


def _shapeless(path: Path) -> bool:
    with path.open("rb") as data:
        return path.stat().st_size > HUGE and b"\n" not in data.read(2**20)


def _table(finds: Finds, top: Path) -> str:
    lines = []
    for kind, what in KINDS.items():
        groups: dict[tuple[Path, str], list[Path]] = {}
        for path, name, into in finds.used:
            if into.parts[0] == kind:
                groups.setdefault((path.parent, name), []).append(path)
        own = [path for path in found(kind) if LINKED not in path.parts]
        if groups or own:
            lines.append(f"local/{kind}: {what}")
        else:
            stand_in = "needed" if kind == "dolly" else "the project's own stand in"
            lines.append(f"local/{kind}: no {what} found: {stand_in}")
        lines += [f"  {path.relative_to(LOCAL / kind)} (yours)" for path in own]
        for (parent, name), paths in groups.items():
            if len(paths) > FOLDED:
                lines.append(f"  {parent.relative_to(top)}/: {len(paths)} files ({name})")
            else:
                lines += [f"  {path.relative_to(top)} ({name})" for path in paths]
    odd = [f"  {path.relative_to(top)}" + (f": {why}" if why else "") for path, why in finds.unused]
    odd.sort(key=lambda line: ": " not in line)  # first those with a reason: they may be meant
    shown = max(SHOWN, sum(": " in line for line in odd))
    lines.append(f"not used: {len(odd)} files")
    return "\n".join([*lines, *odd[:shown], *["  ..."][: len(odd) > shown]])


def main(arguments: list[str]) -> None:
    """Link FOLDER, or without one remove the links."""
    if not arguments:
        clear()
        return
    top = Path(arguments[0])
    if not top.is_dir():
        raise BadInput(f"{top}: there is no such folder; give the one that holds your files")
    finds = find(top)
    print(_table(finds, top))
    own = [path for path in found("dolly") if LINKED not in path.parts]
    if not own and not any(into.parts[0] == "dolly" for _, _, into in finds.used):
        raise BadInput(f"{top}: no seeds found; {SEEDS}")
    link(finds)


if __name__ == "__main__":
    main(sys.argv[1:])
