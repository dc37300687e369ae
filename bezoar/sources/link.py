"""`python -m bezoar.sources.link FOLDER`: find the files in FOLDER that the pipeline can read,
whatever their layout and names. Link them into local/, below linked/ of each kind. Earlier links
are removed.

Files are linked one by one. DVC hashes through a link to a file. It takes a link to a folder for an
empty one, and would miss every change in it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bezoar import params
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.sources import names, weights
from bezoar.sources.choices import BENCHMARKS, gives_answers
from bezoar.sources.local import LINKED, LOCAL, is_notice, list_files, stated_licence
from bezoar.sources.shapes import (
    Maps,
    Recognised,
    absent_columns,
    describe_unread,
    is_rows,
    recognise,
    split_parts,
)

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
    "category (as databricks-dolly-15k.jsonl has), or another form that local/README.md lists; "
    "columns of other names want a mapping of ours to yours at fetch.dolly in "
    "profiles/local.yaml, such as `fields: {instruction: Question text, response: Reply}`"
)
MAPPING = (
    "Rows of yours that are not used because their fields have other names want a mapping: "
    "`fields` at fetch in profiles/local.yaml (docs/own-data.md, step 2)"
)
UNREAD = LOCAL / "unread.txt"  # every file that is not used, with the reason
PICTURES = (".png", ".jpg", ".jpeg", ".gif")
SHOWN = 12  # unrecognised files named
FOLDED = 3  # more files of one kind in one folder are one line
# ours: a file of more bytes without a line break near its start is no list of rows
HUGE = 2**28


class Unused(NamedTuple):
    """A file that is not linked, and the reason. A low `rank` means that it was likely meant."""

    path: Path
    why: str
    rank: int


@dataclass
class Finds:
    """The files of a folder. `used` has (file, its kind, the path of its link below local/)."""

    used: list[tuple[Path, str, Path]] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)

    def leave(self, path: Path, why: str, rank: int = 1) -> None:
        """List a file that is not linked."""
        self.unused.append(Unused(path, why, rank))


def find(top: Path, maps: Maps | None = None) -> Finds:
    """Look at every file below `top`, in order of their paths. `maps` has the user's own names of
    fields. Left out are hidden files, this project's own links, and files that were seen before
    under another path. BadInput: base models of which none can be used."""
    finds, listed = Finds(), list(_walk(top))
    models = weights.folders(listed)
    _take_base(models, finds)
    items: dict[Path, Recognised] = {}
    for path in listed:
        if path.parent in models:
            continue
        if not path.is_file():
            annex = "annex" in str(path.readlink())
            finds.leave(
                path,
                "a git-annex link without its data; run `git annex get` on it"
                if annex
                else "a link to a file that is gone",
            )
            continue
        if is_notice(path):
            finds.leave(path, "tells of other files", rank=3)
            continue
        recognised = _recognise(path, maps, finds)
        if recognised and recognised.shape.source == "benchmarks":
            items[path] = recognised
        elif recognised:
            finds.used.append(
                (path, recognised.shape.name, _place(top, path, recognised.shape.source))
            )
    _take_tasks(top, items, finds)
    _take_notices(top, listed, finds)
    # Answers, votes and grades of MT-Bench mean nothing without the questions that they are about.
    if not any(name == "questions" for _, name, _ in finds.used):
        orphans = [use for use in finds.used if use[2].parts[0] == "mt_bench"]
        finds.used = [use for use in finds.used if use not in orphans]
        for path, name, _ in orphans:
            finds.leave(path, f"{name}, but no questions", rank=0)
    return finds


def _take_base(models: list[Path], finds: Finds) -> None:
    """Take the first usable base model. BadInput: there are models, and none can be used."""
    refused = ""
    chosen: Path | None = None
    for model in models:
        try:
            parts = weights.model_files(model)
        except BadInput as error:
            refused = refused or str(error).removeprefix("error: ")
            finds.leave(model, str(error).removeprefix("error: "), rank=0)
            continue
        if chosen:
            finds.leave(model, f"a second base model; {chosen} is used", rank=0)
            continue
        chosen = model
        into = Path("base", LINKED, model.resolve().name)
        finds.used += [(path, "base model", into / path.name) for path in parts]
    if refused and not chosen:
        raise BadInput(refused)


def _recognise(path: Path, maps: Maps | None, finds: Finds) -> Recognised | None:
    """Recognise a file. If it cannot be read, `finds` gets the reason and the result is None."""
    try:
        if _is_one_huge_line(path):
            finds.leave(path, f"one line of more than {HUGE // 2**20} MiB: no list of rows")
            return None
        if recognised := recognise(path, maps):
            return recognised
        why = describe_unread(path) + absent_columns(path, maps or {})
        finds.leave(path, why, rank=2 if is_rows(path) else 3)
    except BadInput as error:
        why = str(error).removeprefix(f"error: {path}").strip(": ").removeprefix("is ")
        finds.leave(path, why, rank=3 if path.suffix.lower() in PICTURES else 1)
    return None


def _take_tasks(top: Path, items: Mapping[Path, Recognised], finds: Finds) -> None:
    """Take the split of each benchmark that is evaluated. List the other files with the reason."""
    placed = {_place(top, path, "benchmarks").as_posix(): path for path in items}
    groups: dict[tuple[str, str], list[tuple[Path, str, Recognised]]] = {}
    for title, name in names.distinct(list(placed)).items():
        path = placed[title]
        group = groups.setdefault((name.task, items[path].shape.name), [])
        try:
            parts = split_parts(items[path], name.split)
        except BadInput:
            # The file is linked all the same: fetch reads it again, and names the bad line.
            parts = [(name.split, items[path])]
        group += [(path, split, part) for split, part in parts]
    for (task, shape), group in groups.items():
        used, taken = "", set[Path]()
        left: dict[Path, tuple[str, int]] = {}
        for split in names.EVALUATED:
            for path, part in [
                (path, part) for path, part_split, part in group if part_split == split
            ]:
                if used and used != (split or "no split named"):
                    left[path] = (f"another split of {task} is used ({used})", 3)
                elif not _has_answers(part, shape):
                    left[path] = (f"{shape} without its answers, as a hidden test set", 1)
                else:
                    used = split or "no split named"
                    taken.add(path)
        left |= {
            path: (names.TRAINING, 1) for path, part_split, _ in group if part_split == "train"
        }
        for path in dict.fromkeys(path for path, _, _ in group):
            if path in taken:
                finds.used.append((path, shape, _place(top, path, "benchmarks")))
            else:
                finds.leave(path, *left[path])


def _has_answers(part: Recognised, shape: str) -> bool:
    try:
        return gives_answers(part.rows(), BENCHMARKS[shape])
    except BadInput:
        return True  # fetch names the line


def _take_notices(top: Path, listed: list[Path], finds: Finds) -> None:
    """Link the READMEs beside the files that are used, if they state a licence."""
    cards = {
        path.parent: path
        for path in listed
        if path.name.lower() == "readme.md" and stated_licence(path)
    }
    places: dict[Path, Path] = {}
    for path, _, into in finds.used:
        for folder in path.parents if into.parts[0] != "base" else ():
            if folder in cards:
                inner = folder.relative_to(top)
                places[Path(into.parts[0], LINKED, inner, "README.md")] = cards[folder]
            if folder == top:
                break
    finds.used += [(card, "what it says of its licence", place) for place, card in places.items()]
    finds.unused = [file for file in finds.unused if file.path not in {*places.values()}]


def _place(top: Path, path: Path, source: str) -> Path:
    inner = path.relative_to(top)
    if source in ("benchmarks", "flan") and names.parse_path(inner.as_posix()).task == "task":
        inner = Path(top.resolve().name) / inner  # else nothing names the task
    return Path(source, LINKED, names.printable(inner.as_posix()))


def link(finds: Finds, local: Path = LOCAL) -> None:
    """Replace the links below `local` by those of `finds`. The user's own files are kept."""
    clear(local)
    for path, _, into in finds.used:
        target = local / into
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())


def clear(local: Path = LOCAL) -> None:
    """Remove the links below `local`, and the folders that this leaves empty."""
    for kind in KINDS:
        # From the bottom up: a folder can be empty only once those inside it are gone.
        for folder, _, inside in os.walk(local / kind / LINKED, topdown=False):
            for path in (Path(folder, name) for name in inside):
                if path.is_symlink():
                    path.unlink()
            if not any(Path(folder).iterdir()):
                Path(folder).rmdir()


def _walk(top: Path) -> Iterator[Path]:
    # Links are followed, so that a link back up would never end without the paths seen.
    seen: set[Path] = set()
    linked = {(LOCAL / kind / LINKED).resolve() for kind in KINDS}
    for folder, inner, inside in os.walk(top, followlinks=True):
        resolved = Path(folder).resolve()
        if resolved in seen or resolved in linked:
            inner.clear()
            continue
        seen.add(resolved)
        # The Hub's download cache keeps its files by hash in blobs/, and links to them by name in
        # snapshots/. The names tell more.
        store = {"blobs"} if "snapshots" in inner else set()
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n not in store)
        for path in (Path(folder, name) for name in sorted(inside)):
            odd = not path.is_file() and not path.is_symlink()  # a socket, a pipe
            if path.name.startswith(".") or odd or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            yield path


def _is_one_huge_line(path: Path) -> bool:
    with path.open("rb") as data:
        return path.stat().st_size > HUGE and b"\n" not in data.read(2**20)


def _report(finds: Finds, top: Path) -> str:
    lines = []
    for kind, content in KINDS.items():
        groups: dict[tuple[Path, str], list[Path]] = {}
        for path, name, into in finds.used:
            if into.parts[0] == kind and not is_notice(path):
                groups.setdefault((path.parent, name), []).append(path)
        user_files = [path for path in list_files(kind) if LINKED not in path.parts]
        if groups or user_files:
            lines.append(f"local/{kind}: {content}")
        else:
            stand_in = "needed" if kind == "dolly" else "the project's own stand in"
            lines.append(f"local/{kind}: no {content} found: {stand_in}")
        lines += [f"  {path.relative_to(LOCAL / kind)} (yours)" for path in user_files]
        for (parent, name), paths in groups.items():
            if len(paths) > FOLDED:
                lines.append(f"  {_relative(parent, top)}/: {len(paths)} files ({name})")
            else:
                lines += [f"  {_relative(path, top)} ({name})" for path in paths]
    unused = sorted(finds.unused, key=lambda file: file.rank)
    lines.append(f"not used: {len(unused)} files")
    lines += [f"  {_describe(file, top)}" for file in unused[:SHOWN]]
    if len(unused) > SHOWN:
        lines.append(f"  ... and {len(unused) - SHOWN} more; {UNREAD} names them all")
    if any("no shape that is known" in file.why for file in unused):
        lines.append(MAPPING)
    return "\n".join(lines)


def _describe(unused: Unused, top: Path) -> str:
    return f"{_relative(unused.path, top)}: {names.printable(unused.why)}"


def _relative(path: Path, top: Path) -> str:
    return names.printable(str(path.relative_to(top)))  # one line, whatever it is called


def maps() -> Maps:
    """Return the user's own names of fields, by source, as profile `local` has them."""
    if not Path("params.yaml").exists():
        return {}
    fetch = params.load(profile="local").fetch
    return {name: getattr(getattr(fetch, name), "fields", {}) for name in params.FIELDS}


def main(folders: list[str]) -> None:
    """Link FOLDER, or without one remove the links."""
    if not folders:
        clear()
        return
    top = Path(folders[0])
    if not top.is_dir():
        raise BadInput(f"{top}: there is no such folder; give the one that holds your files")
    finds = find(top, maps())
    files.write(UNREAD, (f"{_describe(file, top)}\n" for file in finds.unused))
    print(_report(finds, top))
    user_files = [path for path in list_files("dolly") if LINKED not in path.parts]
    if not user_files and not any(into.parts[0] == "dolly" for _, _, into in finds.used):
        raise BadInput(f"{top}: no seeds found; {SEEDS}")
    link(finds)


if __name__ == "__main__":
    main(arguments.words("bezoar.sources.link", __doc__, 0, "FOLDER"))
