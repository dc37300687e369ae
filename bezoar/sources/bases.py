"""Brings the base model: from the Hub, from local/base, or grown here."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bezoar import world
from bezoar.params import Fetch, GrownBase, HubBase, LocalBase
from bezoar.rows import files
from bezoar.sources import hub, local, pretraining, tokenizer, weights

# Takes the folder of a base and what messages call it, and returns notes on it.
Rehearse = Callable[[Path, str], list[str]]


def bring(fetch: Fetch, folder: Path, rehearse: Rehearse) -> Mapping[str, Any]:
    """Download the base model to `folder`, copy the user's, or grow a tiny one. Print the notes on
    it, and return its account, which is source.json beside the weights.

    A base that is not ours is rehearsed, and one that is refused does not stay. BadInput: it is
    refused, or cannot be had."""
    account = _put(fetch, folder, rehearse)
    notes = list(account.get("mended", []))
    try:
        # A grown base is always the same small Llama, and the tests rehearse that one.
        if account["source"] != "grown":
            notes += rehearse(folder, str(folder))
        for note in notes:
            print(f"fetch base: {note}")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    files.write_json(folder / "source.json", account)
    return account


def _put(fetch: Fetch, folder: Path, rehearse: Rehearse) -> Mapping[str, Any]:
    """Put the base model into `folder`, repaired and its tokenizer proven."""
    choice = fetch.base
    account: dict[str, Any] = {}
    if isinstance(choice, HubBase):
        name = f"{choice.repository}@{choice.revision[:12]}"
        account = hub.base(choice, folder, lambda downloaded: rehearse(downloaded, name))
    if isinstance(choice, LocalBase):
        if paths := local.list_files("base"):
            account = weights.copy(paths, folder, "local/base")
        else:
            account, choice = {"stands_in_for": "local/base"}, choice.otherwise
    if isinstance(choice, GrownBase):
        pretraining.grow(world.corpus(choice.documents, fetch.seed), choice, fetch.seed, folder)
        account = {"source": "grown", **account, **tokenizer.account(folder, "fetch base (grown)")}
    return account
