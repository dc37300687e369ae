"""The layout of the files of parameters: `dvc exp run -S key=value` changes that key's line alone.

DVC writes the whole file anew, by the function called here. It writes every list as a block,
without the comments, blank lines and null marks within and behind it.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from tests.builders import parameters
from tests.conftest import from_yaml

TEXTS = parameters.texts()
FILES = sorted(TEXTS)
ADVICE = (
    "DVC would write these lines otherwise: write lists as blocks, their comments "
    "on lines above the key, and neither a blank line nor a comment right behind a list"
)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) of all that -S can name: scalars and whole lists."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            if "*" not in str(key):
                yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


def scalars(node: Any) -> int:
    """How many scalars a value holds."""
    inner = node.values() if isinstance(node, dict) else node
    return sum(map(scalars, inner)) if isinstance(node, dict | list) else 1


def changed(tmp_path: Path, file: str, *overrides: str) -> list[tuple[str, str]]:
    """The lines of a file that these overrides change, before and after. The number of lines must
    stay."""
    parameters.copy(tmp_path)
    apply_overrides(str(tmp_path / file), list(overrides))
    text = (tmp_path / file).read_text(encoding="utf-8")
    before, after = TEXTS[file].splitlines(), text.splitlines()
    pairs = [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]
    assert len(before) == len(after), f"{ADVICE}: {pairs[:4]}"
    return pairs


def another(value: Any) -> Any:
    """A different value that takes as many lines."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [another(each) for each in value]
    if isinstance(value, dict):
        return {key: another(each) for key, each in value.items()}
    return "x" * len(value) if value else 5


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_value_that_stays_changes_no_line(tmp_path: Path, file: str) -> None:
    key, there = next((k, v) for k, v in leaves(from_yaml(TEXTS[file])) if isinstance(v, str))
    assert changed(tmp_path, file, f"{key}={there}") == [], ADVICE


KINDS: list[Callable[[Any], Any]] = [another, lambda value: None]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("give", KINDS, ids=["another value", "null"])
def test_every_key_is_a_line_of_its_own(
    tmp_path: Path, file: str, give: Callable[[Any], Any]
) -> None:
    """All keys of a file at once, so that it takes no time."""
    values = {
        key: give(value)
        for key, value in leaves(from_yaml(TEXTS[file]))
        if not isinstance(value, list | dict)
        and not (give(value) is None and len(str(value)) > 60)
        and "\n" not in str(value)  # a chat template has lines of its own
    }
    assert len(values) > 50
    changed(tmp_path, file, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    written = dict(leaves(from_yaml((tmp_path / file).read_text(encoding="utf-8"))))
    assert {key: written[key] for key in values} == values
    lists = {k: v for k, v in leaves(from_yaml(TEXTS[file])) if isinstance(v, list)}
    assert {key: written[key] for key in lists} == lists


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_list_changes_its_own_lines(tmp_path: Path, file: str) -> None:
    lists = {k: v for k, v in leaves(from_yaml(TEXTS[file])) if isinstance(v, list)}
    # Hydra's grammar has no quotes around keys
    texts = {key: re.sub(r'"(\w+)":', r"\1:", json.dumps(another(v))) for key, v in lists.items()}
    count = sum(map(scalars, lists.values()))
    assert len(changed(tmp_path, file, *(f"{k}={v}" for k, v in texts.items()))) == count


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("profile=paper", "profile: paper"),
        ("recipes/openbezoar.yaml:chain.orca.start=fetch/base", "    start: fetch/base"),
        ("recipes/openbezoar.yaml:evaluated.lamini.link=false", "  lamini: {model: sft/lamini, "),
        ("filter.licences.allow=[MIT]", "  licences: {allow: [MIT]} # ours: nothing is refused"),
        ("profiles/paper.yaml:lm_eval.limit=5", "  limit: 5 # null"),
        ("profiles/small.yaml:sft.every_link.learning_rate=1e-5", "    learning_rate: 1e-05"),
        ("profiles/embedded.yaml:fetch.dolly.rows=9", "  dolly: {source: world, rows: 9}"),
        ("profiles/embedded.yaml:llm.judge=mine", "  judge: mine"),
    ],
)
@pytest.mark.slow
def test_one_override_is_one_line(tmp_path: Path, override: str, line: str) -> None:
    ((_, after),) = changed(tmp_path, *parameters.split(override))
    assert after.startswith(line)


@pytest.mark.slow
def test_a_clone_has_the_same_bytes_whatever_autocrlf_says(project: Path) -> None:
    clone = project.with_name("clone")
    command = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(project), str(clone)]
    subprocess.run(command, check=True)
    for name in (
        "params.yaml",
        "dvc.yaml",
        "dvc.lock",
        "stages/fetch.py",
        "prompts/chat/system.txt",
    ):
        assert (clone / name).read_bytes() == (project / name).read_bytes(), name
