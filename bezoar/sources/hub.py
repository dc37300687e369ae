"""Finds, downloads and reads repositories of the Hugging Face Hub, each at one commit.

Downloads lie in huggingface_hub's own cache ($HF_HOME). Each is fetched once, and is then read
without a network. No code of a repository runs. No file is downloaded that runs code when it is
loaded.
"""

import errno
import glob
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.params import FurtherHub, Hub, HubBase, Repository
from bezoar.rows.files import BadInput
from bezoar.sources import readers, tokenizer, weights
from bezoar.sources.readers import File
from bezoar.sources.tables import Source
from bezoar.work import progress

# Files that run code: pickles when they are loaded, programs when they are imported.
REFUSED = (*weights.PICKLES, "*.pkl", "*.pickle", "*.joblib", "*.py")
SHOWN = 12  # file names in a message
MIB = 2**20


def read(name: str, settings: Hub, seed: int) -> Source:
    """Return the records of one fetch out of the files of `settings.parts`. BadInput: the Hub is
    out of reach, a file is not there, or the readers refuse it."""
    files, parts = [], []
    for part in settings.parts:
        commit = resolve(part)
        names = select(part, commit, part.files)
        folder = download(part, commit, names)
        files += [File(folder / path, title(part, commit, path), part.licence) for path in names]
        parts.append(account(part, commit, names))
    source = readers.read(name, files, settings.limit, seed, f"fetch.{name}", settings=settings)
    return Source(source.tables, {"source": "hub", "parts": parts, **source.account})


def base(
    settings: HubBase, out: Path, rehearse: Callable[[Path], object] = lambda folder: None
) -> dict[str, object]:
    """Put the base model at `out`, whole or not at all. Return the account of it.

    The tokenizer is proven, and `rehearse` is called with a folder of the small files, before the
    weights are downloaded. BadInput: as for `read`, or the weights are pickled only, or
    weights.model_files, tokenizer.account or `rehearse` refuses the model.
    """
    commit = resolve(settings)
    names, tensors = _model_names(settings, commit)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch)
        # Copied, not linked: `mend` and the tokenizer's proof may write these files anew.
        cached = download(settings, commit, [n for n in names if n not in tensors])
        for name in names:
            if name not in tensors:
                shutil.copyfile(cached / name, model / Path(name).name)
        try:
            weights.refuse_code(model)
            mended = weights.mend(model)
            token_account = tokenizer.account(
                model, settings.repository, isinstance(settings, FurtherHub)
            )
            rehearse(model)
            cached = download(settings, commit, tensors)
            for name in tensors:
                (model / Path(name).name).symlink_to((cached / name).resolve())
            chosen = weights.model_files(model)
        except BadInput as error:
            # The scratch folder is gone when the message is read, so it names the repository.
            message = str(error).removeprefix("error: ")
            raise BadInput(
                message.replace(scratch, f"{settings.repository}@{commit[:12]}")
            ) from None
        for path in set(model.iterdir()) - set(chosen):
            path.unlink()
        work.publish(model, out, link=True)
    return {
        "source": "hub",
        "parts": [account(settings, commit, names)],
        "files": [path.name for path in chosen],
        **({"mended": mended} if mended else {}),
        **token_account,
    }


def small_files(settings: HubBase) -> Path:
    """Return the folder of all files of a base but its weights. Files that are not in the cache are
    fetched. BadInput: as for `base`, as far as can be told without the weights."""
    commit = resolve(settings)
    names, tensors = _model_names(settings, commit)
    folder = download(settings, commit, [name for name in names if name not in tensors])
    try:
        weights.refuse_code(folder)
    except BadInput as error:
        message = str(error).removeprefix("error: ")
        raise BadInput(
            message.replace(str(folder), f"{settings.repository}@{commit[:12]}")
        ) from None
    return folder


def _model_names(settings: HubBase, commit: str) -> tuple[list[str], list[str]]:
    """Return the names of the files of a base, and of those that are weights. BadInput: pickled
    weights only, or none."""
    listed = listing(settings, commit)
    names = sorted(
        n for n in listed if any(_fits(n, p) for p in settings.files) and not _is_refused(n)
    )
    tensors = [n for n in names if n.endswith(".safetensors")]
    if not tensors:
        pickles = [n for n in listed if any(_fits(n, p) for p in weights.PICKLES)]
        fault = (
            f"only pickled weights ({', '.join(pickles[:SHOWN])}), which can run code when they "
            "are loaded and are not downloaded"
            if pickles
            else "no weights (*.safetensors) among the files that are wanted"
        )
        raise BadInput(
            f"{settings.repository}@{commit[:12]}: {fault}; name a revision that holds "
            "model.safetensors (a pull request that converts them has a commit of its own), or "
            "convert them yourself and put the model into local/base (profile local)"
        )
    return names, tensors


def account(part: Repository, commit: str, names: Sequence[str]) -> dict[str, object]:
    """Return the account of one repository, as source.json has it in `parts`."""
    return {
        "repository": part.repository,
        "kind": part.kind,
        "revision": commit,
        "licence": part.licence,
        "files": list(names),
    }


def title(part: Repository, commit: str, name: str) -> str:
    """Return a file's title, by which records name it."""
    return f"{part.repository}@{commit[:12]}: {name}"


def resolve(part: Repository) -> str:
    """Return the whole commit of which `part.revision` is the beginning. BadInput: the tip of
    `part.ref` is another commit."""
    if len(part.revision) == 40:
        return part.revision
    from huggingface_hub import HfApi

    _quiet()
    with explain_errors(part):
        tip = HfApi().resolve_revision(part.repository, repo_type=part.kind, revision=part.ref)
    commit = str(tip.resolved)
    if not commit.startswith(part.revision):
        raise BadInput(
            f"{part.repository}: {part.ref} has moved: its tip is {commit}, not "
            f"{part.revision}...; look at what changed, then name the commit that you want in "
            "`revision`, whole"
        )
    return commit


def listing(part: Repository, commit: str) -> list[str]:
    """Return the names of all files at a commit, in order. BadInput: one that leads out of the
    folder."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    _quiet()
    try:
        tree = get_cached_repo_tree(part.repository, repo_type=part.kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        with explain_errors(part):
            names = HfApi().list_repo_files(part.repository, repo_type=part.kind, revision=commit)
    else:
        names = [entry.path for entry in tree]
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise BadInput(
                f"{part.repository}@{commit[:12]}: a file called {name!r} would lie outside of its "
                "folder, so nothing is downloaded; name another revision"
            )
    return sorted(names)


def select(part: Repository, commit: str, patterns: Sequence[str]) -> list[str]:
    """Return the names of the files at a commit that fit `patterns`, in the order of the patterns.
    Those of one pattern are in order of their names. BadInput: a pattern that fits none, or a file
    that runs code."""
    listed = listing(part, commit)
    chosen: list[str] = []
    for pattern in patterns:
        fitting = [name for name in listed if _fits(name, pattern)]
        if not fitting:
            listing_text = ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
            raise BadInput(
                f"{part.repository}@{commit[:12]}: no file is called {pattern}; there are "
                f"{listing_text or 'none'}"
            )
        chosen += [name for name in fitting if name not in chosen]
    for name in filter(_is_refused, chosen):
        raise BadInput(
            f"{part.repository}@{commit[:12]}: {name} can run code when it is loaded, and is not "
            "downloaded; name a file of plain data (parquet, JSON lines)"
        )
    return chosen


def download(part: Repository, commit: str, names: Sequence[str]) -> Path:
    """Fetch files into the Hub's cache. Return the folder below which they lie. A file that is
    there already is not fetched again, and needs no network."""
    from huggingface_hub import snapshot_download

    _quiet()
    with explain_errors(part):
        folder = snapshot_download(
            part.repository,
            repo_type=part.kind,
            revision=commit,
            # These are patterns to the library: a name such as `a[1].json` must fit itself alone.
            allow_patterns=[glob.escape(name) for name in names],
            tqdm_class=None if sys.stderr.isatty() else _lines(f"fetch {part.repository}: MiB"),
        )
    return Path(folder)


def _lines(label: str) -> type[Any]:
    """Return a class of progress bars that write lines, for where there is no terminal.

    huggingface_hub makes three bars for a download: one of files and two of bytes. Only the one
    that counts the bytes on the disk writes lines.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class Written(tqdm):
        """A bar that shows nothing itself. Its total grows as files are begun."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]
            counts = str(kwargs.get("desc")).startswith("Reconstructing")
            self.lines = progress.Lines(label, 0) if counts else None

        def update(self, n: float | None = 1) -> bool | None:
            if self.lines and n:
                self.lines.total = (self.total or 0) / MIB
                self.lines.advance(n / MIB)
            return None

    return Written


@contextmanager
def explain_errors(part: Repository) -> Iterator[None]:
    """Turn errors of the library and of the network into a BadInput that says what to do."""
    import httpx2  # huggingface_hub's client
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    prepare_client()
    page = "/".join(
        [constants.ENDPOINT, *([f"{part.kind}s"] if part.kind != "model" else []), part.repository]
    )
    try:
        yield
    except GatedRepoError:
        raise BadInput(
            f"{part.repository}: its owner wants terms accepted first; read and accept them at "
            f"{page}, then run `hf auth login` and the same command again"
        ) from None
    except RevisionNotFoundError:
        raise BadInput(
            f"{part.repository}: there is no revision {part.ref or part.revision}; choose one of "
            f"{page}/commits/main"
        ) from None
    except RepositoryNotFoundError:
        raise BadInput(
            f"{part.repository}: no such {part.kind} at {page}, or it is private; mend the name, "
            "or run `hf auth login` with an account that may read it"
        ) from None
    except (RevisionResolutionError, httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise BadInput(
                f"{constants.HF_HUB_CACHE}: cannot be written, the disk is full; free some space "
                "or point HF_HOME elsewhere, then run the same command again: it continues"
            ) from None
        causes: list[BaseException] = [error]
        while cause := causes[-1].__cause__:
            causes.append(cause)
        if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
            raise BadInput(
                f"{part.repository}: not in the cache ({constants.HF_HUB_CACHE}), and "
                "HF_HUB_OFFLINE forbids to fetch it; run once with HF_HUB_OFFLINE=0"
            ) from None
        refused = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
        why = f"HTTP {refused.response.status_code}" if refused else type(causes[-1]).__name__
        raise BadInput(
            f"{part.repository}: {page} cannot be read ({why}); check the network (behind a "
            "mirror set HF_ENDPOINT), then run the same command again: what was fetched is kept"
        ) from None


@cache
def prepare_client() -> None:
    """Have huggingface_hub give up on a server that does not answer, and fetch by plain HTTP.

    Without a timeout its client waits for ever. So does Xet where a mirror announces it and cannot
    serve it. The user may set HF_HUB_DOWNLOAD_TIMEOUT (seconds) and HF_HUB_DISABLE_XET=0.
    """
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: httpx2.Request) -> None:
        # Most calls of the library set their timeouts to None, which would override a default of
        # the client. So each request that lacks a limit gets one here.
        timeouts = request.extensions.get("timeout") or {}
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        request.extensions["timeout"] = {
            step: timeouts.get(step) or seconds for step in ("connect", "read", "write", "pool")
        }

    def client() -> httpx2.Client:
        http_client = default_client_factory()
        http_client.event_hooks["request"].append(limit)
        return http_client

    set_client_factory(client)
    if "HF_HUB_DISABLE_XET" not in os.environ:
        constants.HF_HUB_DISABLE_XET = True


def _quiet() -> None:
    """Silence the library's own messages, and its bars where there is no terminal."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()


def _fits(name: str, pattern: str) -> bool:
    # fnmatch alone would let a star match a slash. With equal depths it stays inside its folder.
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _is_refused(name: str) -> bool:
    return any(fnmatchcase(Path(name).name, pattern) for pattern in REFUSED)
