"""A YAML file as people write it, read closed: with the line of every key.

Some things YAML takes in silence though nobody means them. They are faults here: a key that stands
twice, and words, dates or octal numbers that YAML 1.1 and YAML 1.2 read differently. DVC reads
params.yaml by 1.2, PyYAML by 1.1.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

# libyaml's parser is ten times as fast. A PyYAML that was built without it has none.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# 3e-4 is a number to YAML 1.2 alone. PyYAML takes it for a word, since it has no point.
_POWER = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+")
_TAG = "tag:yaml.org,2002:"
MOST = 100_000  # values that a file may come to where its anchors are repeated


class NotYaml(Exception):
    """The reason why a file cannot be read at all, and the line, 0 where none is known."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class Document:
    """The values of a file, its faults by path, and the tree of nodes that knows the lines of its
    keys."""

    values: Any
    faults: list[tuple[Path, str]] = field(default_factory=list)
    root: Any = None

    def line(self, path: Path) -> int:
        """Return the line of a key or a list's entry, or of the nearest that is there above it."""
        node, line = self.root, 1
        for part in path:
            entry = _entry(node, part)
            if entry is None:
                break
            key, node = entry
            line = key.start_mark.line + 1
        return int(line)

    def written(self, path: Path) -> str:
        """Return a scalar as its file has it, "" where there is none."""
        node = self.root
        for part in path:
            entry = _entry(node, part)
            if entry is None:
                return ""
            node = entry[1]
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _entry(node: Any, part: str | int) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        entries = [(key, value) for key, value in node.value if key.value == str(part)]
        return entries[-1] if entries else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def read(data: bytes) -> Document:
    """Read a file's content. NotYaml: nothing in it can be read."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise NotYaml(line, f"not UTF-8 ({error.reason}); save the file as UTF-8") from None
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document(None)
        document = Document(None, root=root)
        # Before the values are constructed: `_misread` also gives nodes the types that DVC reads.
        document.faults = list(_faults(root, (), set()))
        # Counted before it is built, since a few lines of nested anchors come to billions of
        # values.
        if _size(root, {}) > MOST:
            raise NotYaml(1, f"its anchors come to more than {MOST:,} values; write them out")
        document.values = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise _unreadable(error, text) from None
    except (TypeError, ValueError, RecursionError) as error:  # of a value, as 2026-13-45
        raise NotYaml(0, f"not YAML ({error}); write such a value in quotes") from None
    finally:
        loader.dispose()
    return document


def _unreadable(error: yaml.YAMLError, text: str) -> NotYaml:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 0
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    lines = text.split("\n")
    if line and re.match(r"[ ]*\t", lines[min(line, len(lines)) - 1]):
        return NotYaml(line, "a tab at the start of the line; indent by spaces")
    return NotYaml(line, f"not YAML ({reason}); mend this line, or the one before it")


def _size(node: Any, sizes: dict[int, int]) -> int:
    """Count the values that a node comes to, an anchor's as often as it is named."""
    if id(node) not in sizes:
        # Too many until it is counted: an anchor that holds itself has no end.
        sizes[id(node)] = MOST + 1
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in _inner(node))
    return min(sizes[id(node)], MOST + 1)


def _inner(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _faults(node: Any, path: Path, seen: set[int]) -> Iterator[tuple[Path, str]]:
    """Yield everything below a node that nobody means, each once, by path."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if reason := _misread(node):
            yield path, reason
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _faults(child, (*path, index), seen)
    else:
        yield from _repeated(node, path)
        for key, value in node.value:
            key_path = (*path, str(key.value))
            # In `{rows: 1,000}` YAML takes 000 for a key without a value.
            if re.fullmatch(r"[\d ]+", str(key.value)) and value.value == "" and node.flow_style:
                yield path, f"{key.value} behind a comma is a key; write numbers without commas"
                continue
            if isinstance(key, yaml.ScalarNode) and (reason := _misread(key)):
                yield key_path, f"the key {reason}"
            yield from _faults(value, key_path, seen)


def _repeated(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for name, times in Counter(key.value for key in keys).items():
        # `<<` merges another mapping, and several may be merged.
        if times > 1 and name != "<<":
            lines = [str(key.start_mark.line + 1) for key in keys if key.value == name]
            yield (
                (*path, name),
                f"stands there {'twice' if times == 2 else f'{times} times'} "
                f"(lines {', '.join(lines)}); keep one of them",
            )


def _misread(node: Any) -> str:
    """Return the reason why a scalar without quotes is misleading, "" where it is not. Scalars that
    DVC reads otherwise than PyYAML get the type that DVC gives them."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if node.style not in (None, ""):
        return ""
    if kind == "str" and _POWER.fullmatch(text):
        node.tag = f"{_TAG}float"  # as YAML 1.2 and DVC have it
    elif kind == "bool" and text.lower() not in ("true", "false"):
        # `no` and `on` are words to YAML 1.2 and to DVC. Where true or false is wanted, pydantic
        # knows them.
        node.tag = f"{_TAG}str"
    elif kind == "int" and re.fullmatch(r"[-+]?0\d+", text):
        return f"{text} is octal to some readers; write it without the zero, or in quotes"
    elif kind in ("int", "float") and ":" in text:
        return f"{text} is a number of base 60 to some readers; write it in quotes"
    elif kind == "timestamp":
        return f"{text} is a date to YAML; write it in quotes"
    return ""
