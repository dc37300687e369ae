"""`python -m bezoar.recipe`: leave parts of the recipe out, and put them back.

    without NAME ...   a scheme (orca), or a source with all that uses it (hh_rlhf, mt_bench)
    stop sft           end after SFT, without the sources for which local/ holds no file
    stop never         go on after SFT again
    whole              put everything back

The parts that are left out stay in their files as comments, so that they come back byte for byte.
DVC loops over the rest: a part that is left out is neither generated nor judged, trained or
evaluated.
"""

import argparse
import re
from collections.abc import Container, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bezoar import params
from bezoar.params import PAIRS, Params, Schemes, layout
from bezoar.params.layout import PROFILES, RECIPE, SHARED, profile_file, read_files
from bezoar.preflight import stand_ins
from bezoar.rows.files import BadInput, write

HEAD = "# Left out by `python -m bezoar.recipe`, and put back by `python -m bezoar.recipe whole`: "
OUT, INSTEAD = "# left out: ", "# instead of: "
SOURCES = ("flan", "topics", "hh_rlhf", "mt_bench", "benchmarks")
AFTER_SFT = "what comes after sft"
WEIGHTS = ("base", "start", "adapter", "second", "third")
Dotted = tuple[str | int, ...]
KEPT = ".gitkeep"


@dataclass
class Cut:
    """The changes of the files of parameters. A path in a profile begins with profiles.NAME.

    `gone`: paths that go.
    `changed`: path -> its new value.
    `emptied`: path of a map of which nothing stays -> the value in its place.
    """

    gone: set[Dotted] = field(default_factory=set)
    changed: dict[Dotted, str] = field(default_factory=dict)
    emptied: dict[Dotted, str] = field(default_factory=dict)


def without(texts: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the texts of the files of parameters, by path, without `names`, and with all that was
    left out of them before. BadInput: a name that is neither a scheme nor a source, or nothing left
    to train."""
    whole = {path: restore(text) for path, text in texts.items()}
    if not names:
        return whole
    values: dict[str, Any] = {path: yaml.safe_load(text) for path, text in whole.items()}
    document = values[SHARED] | values[RECIPE]
    document["profiles"] = {
        Path(path).stem: profile
        for path, profile in values.items()
        if path.startswith(f"{PROFILES}/")
    }
    cut = _plan_cut(document, [name for name in names if name != AFTER_SFT])
    in_recipe = values[RECIPE].keys()
    for path, text in whole.items():
        whole[path] = _render(path, text, _part_of(cut, path, in_recipe))
    whole[RECIPE] = f"{HEAD}{', '.join(names)}\n{whole[RECIPE]}"
    return whole


def _part_of(cut: Cut, file: str, in_recipe: Container[str]) -> Cut:
    """Return the changes of one file, by their paths in it."""

    def place(path: Dotted) -> tuple[str, Dotted]:
        if path[0] == "profiles":
            return profile_file(str(path[1])), path[2:]
        return (RECIPE if path[0] in in_recipe else SHARED), path

    return Cut(
        {place(path)[1] for path in cut.gone if place(path)[0] == file},
        {place(path)[1]: new for path, new in cut.changed.items() if place(path)[0] == file},
        {place(path)[1]: new for path, new in cut.emptied.items() if place(path)[0] == file},
    )


def left_out(texts: Mapping[str, str]) -> list[str]:
    """Return the names that are left out of the recipe."""
    head = texts[RECIPE].partition("\n")[0]
    return head.removeprefix(HEAD).split(", ") if head.startswith(HEAD) else []


def restore(text: str) -> str:
    """Return the text of a file with everything put back."""
    lines = text.splitlines(keepends=True)
    if lines and lines[0].startswith(HEAD):
        lines = lines[1:]
    back: list[str] = []
    replaced = False
    for line in lines:
        indent, mark, rest = _split_mark(line)
        if mark:
            back.append(indent + rest)
        # The line behind "instead of" is the replacement, which goes again.
        elif not replaced:
            back.append(line)
        replaced = mark == INSTEAD
    return "".join(back)


def _split_mark(line: str) -> tuple[str, str, str]:
    """Return (indent, mark, the text behind the mark) of a line that this module wrote, "" for
    others."""
    marks = re.match(rf"( *)({re.escape(OUT)}|{re.escape(INSTEAD)})(.*\n?)", line)
    return (marks[1], marks[2], marks[3]) if marks else ("", "", "")


# --- what goes -----------------------------------------------------------------------------------


def _plan_cut(document: dict[str, Any], names: Sequence[str]) -> Cut:
    """Work out all that goes with `names`, and the values that take its place."""
    cut = Cut()
    schemes = [name for name in Schemes.model_fields if name in document["schemes"]]
    for name in names:
        if name not in (*Schemes.model_fields, *SOURCES):
            have = ", ".join([*schemes, *SOURCES])
            raise BadInput(f"{name}: neither a scheme nor a source of this recipe; have {have}")
    dropped = [s for s in schemes if s in names or document["schemes"][s]["seeds"] in names]
    cut.gone |= {("schemes", name) for name in dropped}
    copies = document["filter"].get("copies", [])
    cut.gone |= {
        ("filter", "copies", index) for index, name in enumerate(copies) if name in dropped
    }
    if "topics" in names and "lamini" in schemes and "lamini" not in dropped:
        cut.changed["schemes", "lamini", "topic_guided"] = "0.0"
    sets = {f"filter/{name}" for name in dropped} | ({PAIRS} if "hh_rlhf" in names else set())
    links = _cut_links(document["chain"], sets, cut)
    if "hh_rlhf" in names:
        cut.gone |= {("aligned", name) for name in document["aligned"]}
    if "mt_bench" in names:
        cut.gone |= {("checkpoints", name) for name in document["checkpoints"]}
    if "benchmarks" in names:
        cut.gone |= {("evaluated", name) for name in document["evaluated"]}
    _cut_weights(document, links, cut)
    _cut_unread_sources(document, [name for name in schemes if name not in dropped], names, cut)
    return cut


def _cut_unread_sources(
    document: dict[str, Any], schemes: Sequence[str], names: Sequence[str], cut: Cut
) -> None:
    """Let no profile download a source that no scheme reads any more. DVC's stages are the same for
    all profiles, and the later ones want a folder there. So one row of the world stands in it."""
    read = {document["schemes"][name]["seeds"] for name in schemes}
    if "lamini" in schemes and "topics" not in names:
        read.add("topics")
    for profile, scale in document["profiles"].items():
        for source in {"flan", "topics"} - read:
            entry = scale["fetch"][source]
            if entry["source"] not in ("world", "local"):
                path = ("profiles", profile, "fetch", source)
                cut.gone |= {(*path, key) for key in entry}
                cut.emptied[path] = "{source: world, rows: 1}"


def _cut_links(chain: Mapping[str, Any], sets: set[str], cut: Cut) -> dict[str, str]:
    """Take `sets` out of the links. Return the links that have no other set, with their start."""
    gone = {}
    for name, link in chain.items():
        data = [link["data"]] if isinstance(link["data"], str) else link["data"]
        left = [path for path in data if path not in sets]
        if not left:
            gone[name] = link["start"]
            cut.gone.add(("chain", name))
        elif left != data:
            cut.gone |= {
                ("chain", name, "data", index) for index, path in enumerate(data) if path in sets
            }
    if len(gone) == len(chain):
        raise BadInput(
            "chain: no link would be left to train; leave a scheme in, or train on your own rows "
            "(docs/seeds.md)"
        )
    return gone


def _cut_weights(document: dict[str, Any], links: dict[str, str], cut: Cut) -> None:
    """Let the weights that started from a lost link start from that link's own start. Leave out the
    evaluations of weights that nothing makes any more."""
    lost = {f"sft/{name}" for name in links}
    lost |= {f"dpo/{path[1]}" for path in cut.gone if path[0] == "aligned"}
    for section in ("chain", "merges", "aligned"):
        for name, entry in document[section].items():
            for key in WEIGHTS:
                if (section, name) not in cut.gone and entry.get(key) in lost:
                    cut.changed[section, name, key] = _before(entry[key], links)
    for name, merge in document["merges"].items():
        if _before(merge["adapter"], links) == merge["base"]:
            raise BadInput(
                f"merges.{name}: no adapter would be left to merge; leave a scheme in, or train on "
                "your own rows (docs/seeds.md)"
            )
    for section in ("evaluated", "checkpoints"):
        for name, entry in document[section].items():
            if entry["model"] in lost:
                cut.gone.add((section, name))
    answering = [name for name in document["checkpoints"] if ("checkpoints", name) not in cut.gone]
    for name, pair in document["compared"].items():
        if not {pair["model"], pair["baseline"]} <= {*answering}:
            cut.gone.add(("compared", name))


def _before(weights: str, links: Mapping[str, str]) -> str:
    name = weights.removeprefix("sft/")
    # The link before may go too, so this goes on until one that stays.
    return _before(links[name], links) if weights != name and name in links else weights


# --- how it is written ---------------------------------------------------------------------------


def _render(file: str, text: str, cut: Cut) -> str:
    """Return the text of a file with the changes of `cut`, and what goes as comments."""
    lines = text.splitlines(keepends=True)
    tree = yaml.compose(text, yaml.SafeLoader)
    _shorten(tree, cut)
    emptied = dict(_find_emptied(tree, cut.gone)) | cut.emptied
    # Line -> the column of the entry that goes, behind which the mark is put.
    out: dict[int, int] = {}
    for path in cut.gone:
        key, value = _node(tree, path)
        if (
            key.start_mark.line == _node(tree, path[:-1])[1].start_mark.line
            and "{" in lines[key.start_mark.line].split("#")[0][: key.start_mark.column]
        ):
            raise BadInput(
                f"{file}: {'.'.join(map(str, path[:-1]))}: stands on one line; write an entry "
                "a line, so that one can be left out"
            )
        # The dash of a list's item stands before the node, so the column is the line's own indent.
        column = len(lines[key.start_mark.line]) - len(lines[key.start_mark.line].lstrip())
        out |= dict.fromkeys(range(key.start_mark.line, _last(value) + 1), column)
    instead = {_node(tree, path)[0].start_mark.line: empty for path, empty in emptied.items()}
    spans = [(_node(tree, path)[1], new) for path, new in cut.changed.items()]
    changed: dict[int, str] = {}
    # From the right, so that the columns of those further left on a line stay true.
    for node, new in sorted(spans, key=lambda span: -span[0].start_mark.column):
        number = node.start_mark.line
        line = changed.get(number, lines[number])
        changed[number] = line[: node.start_mark.column] + new + line[node.end_mark.column :]
    written = []
    for number, line in enumerate(lines):
        indent = " " * (len(line) - len(line.lstrip()))
        if number in out:
            written.append(" " * out[number] + OUT + line[out[number] :])
        elif number in instead or number in changed:
            written.append(indent + INSTEAD + line.lstrip())
            if number in changed:
                written.append(changed[number])
            else:
                written.append(f"{indent}{line.strip().partition(':')[0]}: {instead[number]}\n")
        else:
            written.append(line)
    return "".join(written)


def _shorten(tree: Any, cut: Cut) -> None:
    """Let a list on one line lose its items by being written anew."""
    for above in {path[:-1] for path in cut.gone}:
        node = _node(tree, above)[1]
        if isinstance(node, yaml.SequenceNode) and node.flow_style:
            items = [item.value for item in node.value]
            stay = [item for index, item in enumerate(items) if (*above, index) not in cut.gone]
            cut.gone -= {(*above, index) for index in range(len(items))}
            cut.changed[above] = f"[{', '.join(stay)}]"


def _find_emptied(tree: Any, gone: set[Dotted]) -> Iterator[tuple[Dotted, str]]:
    """Yield the maps and lists of which nothing stays, with the text of an empty one."""
    for above in {entry[:-1] for entry in gone}:
        node = _node(tree, above)[1]
        if len(node.value) == sum(entry[:-1] == above for entry in gone):
            yield above, "{}" if isinstance(node, yaml.MappingNode) else "[]"


def _node(tree: Any, path: Dotted) -> tuple[Any, Any]:
    """Return (key, value) of a path. For an item of a list, return the item twice."""
    key = value = tree
    for part in path:
        if isinstance(part, int):
            key = value = value.value[part]
        else:
            key, value = next((k, v) for k, v in value.value if k.value == part)
    return key, value


def _last(node: Any) -> int:
    """Return the last line of a node, without the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.line)
    inner = node.value[-1]
    return _last(inner[1] if isinstance(inner, tuple) else inner)


# --- as a command --------------------------------------------------------------------------------


def _read() -> dict[str, str]:
    """Return the texts of the files of parameters. BadInput: one is no UTF-8, or no YAML."""
    files = read_files(Path())
    layout.read(files)
    return {path: data.decode("utf-8") for path, data in files.items()}


def _write(names: Sequence[str]) -> Params:
    """Write the files of parameters without `names`. Files that would not be valid are not
    written."""
    before = _read()
    try:
        after = without(before, list(dict.fromkeys(names)))
    except (AttributeError, KeyError, TypeError):
        # A file lacks what every recipe has. The check says so by its place.
        params.load()
        raise
    # `load` checks files, so they are written first, and put back where they are not valid.
    _put(after)
    try:
        settings = params.load()
    except BaseException:
        _put(before)
        raise
    _keep_folders(settings)
    return settings


def _put(texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        if Path(path).read_bytes() != text.encode():
            write(Path(path), [text])
    params.forget()


def _instances(settings: Params) -> dict[str, Sized]:
    """Return the folders that several stages of dvc.yaml fill, and for each the names that its
    stages run for."""
    schemes, checkpoints = settings.schemes.by_name, settings.checkpoints
    return {
        "data/filter": {*schemes, *settings.own},
        "data/lm_eval": settings.evaluated,
        "data/mt_answer": checkpoints,
        "data/mt_grade": checkpoints,
        "metrics/generate": schemes,
        "metrics/judge": schemes,
        "metrics/mix": settings.chain,
        "metrics/sft": settings.chain,
        "metrics/dpo": settings.aligned,
        "metrics/mt_answer": checkpoints,
        "metrics/mt_grade": checkpoints,
        "metrics/mt_compare": settings.compared,
    }


def _keep_folders(settings: Params) -> None:
    """Have the folders that no stage fills exist, and in git, for DVC stops at one that is missing.

    The others hold no such mark: DVC would take an empty folder for one that changed, where
    `--allow-missing` lets it pass over a missing one.
    """
    for name, entries in _instances(settings).items():
        mark = Path(name) / KEPT
        if not entries:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        elif mark.exists():
            mark.unlink()
            if not any(mark.parent.iterdir()):
                mark.parent.rmdir()


def _stop(names: Sequence[str], end: str) -> None:
    """End after SFT, or go on. BadInput: something would stand in beside a real model."""
    settings = _write(names)
    if end == "sft":
        _write([*names, AFTER_SFT, "hh_rlhf", *stand_ins.absent(settings)])
    else:
        stand_ins.check(settings)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bezoar.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    leave = commands.add_parser("without", help="leave schemes or sources out")
    leave.add_argument("names", nargs="+", metavar="NAME")
    stop = commands.add_parser("stop", help="end after SFT, or go on after it again")
    stop.add_argument("where", choices=["sft", "never"])
    commands.add_parser("whole", help="put everything back")
    arguments = parser.parse_args()
    before = left_out(_read())
    # `stop sft` adds its names at the end, behind AFTER_SFT. The names before it are those of
    # `without`.
    position = before.index(AFTER_SFT) if AFTER_SFT in before else len(before)
    if arguments.command == "stop":
        _stop(before[:position], arguments.where)
    elif arguments.command == "whole":
        _write([])
    else:
        _write([*before[:position], *arguments.names, *before[position:]])
    if (after := left_out(_read())) != before:
        words = f"left out: {', '.join(after)}" if after else "nothing is left out any more"
        print(f"{RECIPE}: {words}")


if __name__ == "__main__":
    main()
