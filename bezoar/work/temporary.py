"""The copy of the project in which `dvc exp run --temp` and the queue run an experiment.

DVC makes it from the files that git tracks, so local/ is empty there. The first stage that runs in
it links the user's files, and DVC hashes them with the stages that follow."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from bezoar.rows.files import BadInput

LOCAL = Path("local")
# The field of source.json that names local/NAME, if its folder was empty when the source was read
STANDS_IN = "stands_in_for"


def bring_own_files(stage: str) -> None:
    """Link the user's files into a temporary copy that lacks them. Elsewhere do nothing.

    BadInput: DVC took a source from its cache for which the user's files should have been read."""
    root = _original()
    if root is None:
        return
    for path in _files(root / LOCAL):
        link = path.relative_to(root)
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    for account in _stand_ins():
        _refuse_if_needed(account, stage)


def _original() -> Path | None:
    """Return the project of which the current folder is a temporary copy. None: it is no copy."""
    # A temporary copy lies below .dvc of the project that DVC_ROOT names.
    folder = Path.cwd().resolve()
    root = Path(os.environ.get("DVC_ROOT") or folder).resolve()
    return root if root / ".dvc" in folder.parents else None


def _files(local: Path) -> Iterator[Path]:
    """Yield the user's files below local/, and links to folders, which a stage refuses by name."""
    for top, folders, names in os.walk(local):
        links = [name for name in folders if Path(top, name).is_symlink()]
        yield from (Path(top, name) for name in sorted([*links, *names]) if name[0] != ".")


def _stand_ins() -> Iterator[Path]:
    """Yield the folders of local/ that hold files, though DVC has data that stood in for them."""
    accounts = [*Path("data/fetch").glob("*/source.json"), Path("models/fetch/base/source.json")]
    for account in filter(Path.exists, accounts):
        folder = json.loads(account.read_text(encoding="utf-8")).get(STANDS_IN)
        if folder and any(_files(Path(folder))):
            yield Path(folder)


def _refuse_if_needed(folder: Path, stage: str) -> None:
    """Raise BadInput if `stage` follows the fetch of `folder`. Else DVC has yet to come to it."""
    import networkx  # type: ignore[import-untyped]
    from dvc.repo import Repo

    graph = Repo().index.graph
    before = (node for node in graph if node.addressing == stage)
    fetch = f"fetch@{folder.name}"
    if any(
        dependency.addressing == fetch
        for node in before
        for dependency in networkx.descendants(graph, node)
    ):
        raise BadInput(
            f"{folder}: holds files of yours, but this temporary copy was given what stood in "
            "for them; run `dvc repro fetch` in the project itself, then the experiment again"
        )
