"""The names of the tasks that the installed LM Evaluation Harness brings.

lm_eval's own index takes a minute of CPU, because it loads each of its 14,000 files with all that
these include. Here the names alone are read, in a second.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# A task, a group of tasks or a tag, with the list below it where it has one
_NAMING = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)
_NAME = re.compile(rb"^[ \t]*-?[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


@cache
def names() -> frozenset[str]:
    """Return all names that its files give, none where it is not installed."""
    # This finds the package and does not import it.
    package = importlib.util.find_spec("lm_eval")
    folders = package.submodule_search_locations if package else None
    if not folders:
        return frozenset()
    return frozenset(
        name.decode(errors="replace")
        for file in _files(Path(folders[0], "tasks"))
        for naming in _NAMING.finditer(file.read_bytes())
        for name in _NAME.findall(naming[1])
    )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files below a folder. Those that others include have no suffix, only "yaml" in
    their names."""
    for top, _, files in os.walk(folder):
        yield from (Path(top, file) for file in files if "yaml" in file)
