"""Reads the user's own files in local/NAME/ (local/README.md)."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bezoar.params import EvolInstruct, Lamini, Reading, Schemes
from bezoar.rows.files import BadInput
from bezoar.sources import names, readers
from bezoar.sources.readers import File
from bezoar.sources.shapes import NOT_STATED
from bezoar.sources.tables import Source

LOCAL = Path("local")
SHOWN = 12  # categories that a line names
LINKED = "linked"  # the folder below local/NAME/ in which link.py puts its links
NOTICES = ("readme.md", "readme", "readme.txt", "license", "license.txt", "license.md")


def list_files(name: str, folder: Path = LOCAL) -> list[Path]:
    """List the user's files below local/NAME/, in order of their paths. Hidden files and READMEs
    are left out. BadInput: a link to a folder."""
    listed: dict[Path, Path] = {}
    for top, folders, inside in os.walk(folder / name):
        folders.sort()
        for inner in (Path(top, entry) for entry in folders):
            if inner.is_symlink():
                # DVC takes such a link for an empty folder, and would miss every change in it.
                raise BadInput(
                    f"{inner}: a link to a folder, into which DVC does not look; run "
                    "`make local DATA=folder`, which links each file, or copy the files"
                )
        for entry in sorted(inside):
            path = Path(top, entry)
            if not entry.startswith(".") and not is_notice(path):
                # Two links to one file are one file.
                listed.setdefault(path.resolve(), path)
    return sorted(listed.values())


def read(
    name: str,
    limit: int | None,
    seed: int,
    folder: Path = LOCAL,
    *,
    settings: Reading | None = None,
    licence: str | None = None,
) -> Source | None:
    """Read the records of local/NAME/, at most `limit` rows (benchmarks: of a task).

    The result is None where the folder holds no file. `settings` are fetch.NAME of the profile.
    `licence` is that of all rows. If it is None, a README beside a file may state its licence.
    BadInput: as readers.read.
    """
    top = folder / name
    files = [
        File(
            path,
            names.printable(path.relative_to(top).as_posix().removeprefix(f"{LINKED}/")),
            licence or nearest_licence(path, top),
        )
        for path in list_files(name, folder)
    ]
    if not files:
        return None
    source = readers.read(name, files, limit, seed, str(top), settings=settings)
    return Source(source.tables, {"source": "local", **source.account})


def describe_draws(account: Mapping[str, Any], schemes: Schemes) -> str:
    """Return a line on the categories of the seeds: the number of seeds in each, and the categories
    that each scheme draws from."""
    counts = Counter(account.get("categories", {}))
    sizes = [f"{name} ({count})" for name, count in counts.most_common()]
    parts = [f"categories of the seeds: {_few(sizes)}"]
    for scheme in (schemes.lamini, schemes.evol_instruct):
        if scheme is not None:
            parts.append(_draws(scheme, counts))
    return "; ".join(parts)


def _draws(scheme: Lamini | EvolInstruct, counts: Counter[str]) -> str:
    least = scheme.examples if isinstance(scheme, Lamini) else 1
    name = "lamini" if isinstance(scheme, Lamini) else "evol_instruct"
    categories = scheme.categories or sorted(counts)
    categories = [category for category in categories if category not in scheme.without]
    drawable = [category for category in categories if counts[category] >= least]
    if not drawable:
        return f"{name} draws from none: it wants {least} or more of {_few(categories) or 'others'}"
    if len(drawable) == len(counts):
        return f"{name} draws from all"
    undrawable = [category for category in counts if category not in drawable]
    return f"{name} draws from {_few(drawable)}, and not from {_few(undrawable)}"


def _few(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def is_notice(path: Path) -> bool:
    """Say whether a file is a README or a licence, which holds no rows."""
    return path.name.lower() in NOTICES


def nearest_licence(path: Path, top: Path) -> str:
    """Return the licence of a file, by the nearest README up to folder `top` that states one."""
    for folder in path.parents:
        for notice in (folder / name for name in ("README.md", "readme.md")):
            if notice.is_file() and (licence := stated_licence(notice)):
                return licence
        if folder == top:
            break
    return NOT_STATED


def stated_licence(notice: Path) -> str:
    """Return the licence that the front matter of a data card names, "" where it names none."""
    import yaml

    head = notice.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
    if not head.startswith("---\n"):
        return ""
    try:
        card = yaml.safe_load(head[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return ""
    value = card.get("license") if isinstance(card, dict) else None
    names = value if isinstance(value, list) else [value]
    return ", ".join(str(name) for name in names if name)
