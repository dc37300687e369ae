"""Reads the task and the split of a file out of its path, as people and the Hub name files.

Each of these paths names both: `piqa/validation.parquet`, `arc_easy_dev.jsonl`,
`ai2_arc/ARC-Challenge/test-00000-of-00001.parquet`, `ARC-Challenge/test/0000.parquet`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

SPLITS = {
    "test": "test",
    "tests": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "train": "train",
    "training": "train",
}
EVALUATED = ("test", "validation", "")  # the splits that are tasks, the better one first
TRAINING = "a training split, on which nothing is evaluated"
ENDINGS = re.compile(
    r"\.(?:gz|bz2|xz|zst|zstd|lz4|zip|jsonl?|ndjson|csv|tsv|txt|parquet|arrow|feather|ipc)$"
)
# The number of a shard: `-00000-of-00001`, `part-3`, or a whole name such as `0000`. A whole name
# that is a year (2023) is no shard.
SHARD = re.compile(
    r"(?:^|[-_.])(?:\d{3,}[-_]of[-_]\d{3,}(?:[-_][0-9a-f]{16})?|part[-_]?\d+)$"
    r"|^(?!(?:19|20)\d\d$)\d{3,}$"
)
# Words that tell nothing of a task: FILLERS at the end of a file's name, SIZES beside its split,
# PLAIN as the whole name of a folder.
FILLERS = {"data", "dataset", "questions", "split", "set"}
SIZES = {"xs", "s", "m", "l", "xl", "debiased", "rand", "random", "full", "public", "labels"}
PLAIN = {
    *FILLERS,
    *("default", "main", "plain", "plain_text", "parquet", "jsonl", "json", "csv", "raw"),
    *("snapshots", "refs", "convert", "datasets", "benchmarks", "benchmark", "tasks", "evals"),
    *("downloads", "hub", "cache", "files", "all", "shards"),
}
COMMIT = re.compile(r"[0-9a-f]{40}")


class Name(NamedTuple):
    """The task of a file, its split ("" where its path names none), and the folder of the task."""

    task: str
    split: str
    folder: PurePosixPath


def parse_path(path: str, accents: bool = False) -> Name:
    """Return the task, in [a-z0-9_], and the split of a file, by its path below a folder.

    With `accents` a letter with an accent differs from one without. Without it, "é" is "e".
    """
    place = PurePosixPath(path)
    stem = place.name.lower()
    while ending := ENDINGS.search(stem):
        stem = stem[: ending.start()]
    bare = SHARD.sub("", stem)
    sharded = bare != stem
    words, split = _without_split(_words(bare, accents))
    folders = list(place.parent.parts)
    # Skip folders that name a split. Skip those of a plain name too where the file names no task.
    while folders and (folders[-1].lower() in SPLITS or (not words and _is_plain(folders[-1]))):
        last = folders.pop().lower()
        split = split or SPLITS.get(last, "")
    task = "_".join(words)
    if not task:
        inner = [name for name in folders if not _is_plain(name)]
        config = place.parent.name if place.parent.name.lower() not in SPLITS else ""
        task = _join(inner, hub=sharded and not (config and _is_plain(config)))
    return Name(task or "task", split, PurePosixPath(*folders))


def printable(name: str) -> str:
    """Return a file's name as one line of text. A byte that is no UTF-8 and a character that cannot
    be printed are written in hexadecimal, as `%F6`."""
    # Python represents such a byte of a file's name as the character 0xDC00 + byte.
    return "".join(c if c.isprintable() else f"%{ord(c):02X}".replace("%DC", "%") for c in name)


def split_of(fields: Mapping[str, Any]) -> str:
    """Return the split that a row names in its column `split` or `partition`, "" for none."""
    value = next((fields[key] for key in ("split", "partition") if key in fields), None)
    return _without_split(_words(value))[1] if isinstance(value, str) else ""


def distinct(paths: Sequence[str]) -> dict[str, Name]:
    """Return the names of all files, by their paths. If two folders have files of the same task,
    these are two tasks, and the name of its folder is put before each."""
    names, exact = (
        {path: parse_path(path, accents) for path in paths} for accents in (False, True)
    )
    # Accents count only in a folder where two names would be one without them.
    identities = {(names[path].task, names[path].folder, exact[path].task) for path in paths}
    alike = {
        task for task, count in Counter(entry[:2] for entry in identities).items() if count > 1
    }
    names = {
        path: exact[path] if (name.task, name.folder) in alike else name
        for path, name in names.items()
    }
    folders = {(name.task, name.folder) for name in names.values()}
    repeated = {task for task, count in Counter(task for task, _ in folders).items() if count > 1}
    return {
        path: _with_folder_name(name) if name.task in repeated else name
        for path, name in names.items()
    }


def _with_folder_name(name: Name) -> Name:
    words = _words(str(name.folder))
    return name._replace(task=_overlap("_".join(words), name.task))


def _words(name: str, accents: bool = False) -> list[str]:
    """Return the words of a name in [a-z0-9].

    A letter of another script becomes its number in Unicode ("я" is "u44f"), so that two names stay
    two. So does a letter with an accent where `accents` count. Otherwise it loses the accent.
    """
    plain = unicodedata.normalize("NFC", name.casefold())
    # NFKD parts a letter from its accents, which are the characters U+0300 to U+036F.
    if not accents:
        plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", plain))
    spelt = "".join(
        f"u{ord(c):x}" if not c.isascii() and unicodedata.category(c)[0] in "LMNS" else c
        for c in plain
    )
    return re.findall(r"[a-z0-9]+", spelt)


def _without_split(words: list[str]) -> tuple[list[str], str]:
    """Return a file's words without its split and without fillers, and the split."""
    rest, split = list(words), ""
    while rest and (
        rest[-1] in SPLITS or rest[-1] in FILLERS or re.fullmatch(r"head\d+", rest[-1])
    ):
        last = rest.pop()
        split = split or SPLITS.get(last, "")
    # A split may also come first: train_xl, dev_rand_split.
    if not split and rest and rest[0] in SPLITS:
        split = SPLITS[rest.pop(0)]
        rest = [] if SIZES.issuperset(rest) else rest
    return rest, split


def _is_plain(folder: str) -> bool:
    name = folder.lower()
    return name in PLAIN or name in SPLITS or bool(COMMIT.fullmatch(name))


def _join(folders: Sequence[str], hub: bool) -> str:
    """Return the task by the names of its folders. It is the innermost one. In the Hub's layout the
    name of the data set is put before it."""
    # The Hub's cache names a repository's folder `datasets--owner--name`.
    slugs = ["_".join(_words(name.rpartition("--")[2])) for name in folders]
    if hub and len(slugs) > 1:
        return _overlap(slugs[-2], slugs[-1])
    return slugs[-1] if slugs else ""


def _overlap(first: str, second: str) -> str:
    """Join two names. Words that end the first and begin the second are written once: ai2_arc and
    arc_easy give ai2_arc_easy."""
    before, after = first.split("_"), second.split("_")
    met = next(
        (n for n in range(min(len(before), len(after)), 0, -1) if before[-n:] == after[:n]), 0
    )
    return "_".join(word for word in [*before, *after[met:]] if word)
