"""A source becomes records, or the base model is brought, where later stages look for it.

reads   local/NAME/ (the user's own files), the Hugging Face Hub or a dump of Wikipedia's, as the
        profile says (downloads are kept outside of the project)
writes  data/fetch/NAME/: dolly seeds.jsonl, flan queries.jsonl, topics topics.jsonl, hh_rlhf
        train.jsonl and test.jsonl, mt_bench questions.jsonl, answers.jsonl, votes.jsonl,
        grades.jsonl and votes.json, benchmarks tasks/TASK.jsonl (of lm_eval: texts/TASK.jsonl)
        and probes.jsonl; models/fetch/base for base; source.json in each: where the rows come
        from, which were left out and why
metrics none
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bezoar import params, work, world
from bezoar.params import arguments
from bezoar.preflight import bases
from bezoar.rows import files
from bezoar.sources import collect, hub, local, pretraining, tokenizer, weights

BASE = Path("models/fetch/base")


def main(name: str) -> None:
    work.begin()
    p = params.load()
    fetch = p.fetch
    account = base(fetch) if name == "base" else rows(name, fetch)
    summary = {key: value for key, value in account.items() if key not in ("parts", "files")}
    print(f"fetch {name}: {json.dumps(summary, ensure_ascii=False)}")
    if "stands_in_for" in account and name in ("base", *p.sources):
        print(f"  {account['stands_in_for']} is empty: the project's own stands in for your files")
    if account["source"] == "local" and "categories" in account:
        print(f"  {local.describe_draws(account, p.schemes)}")


def rows(name: str, fetch: params.Fetch) -> Mapping[str, object]:
    """Write the records of one source, all files or none."""
    source = collect(name, getattr(fetch, name), fetch.seed)
    with tempfile.TemporaryDirectory() as folder:
        source.write(Path(folder))
        work.publish(Path(folder), f"data/fetch/{name}")
    return source.account


def base(fetch: params.Fetch) -> Mapping[str, Any]:
    """Download the base model, copy the user's, or grow a tiny one. A base that is not ours is
    rehearsed, and one that is refused does not stay."""
    account = _put(fetch)
    notes = list(account.get("mended", []))
    try:
        # A grown base is always the same small Llama, and the tests rehearse that one.
        if account["source"] != "grown":
            notes += bases.rehearse(BASE, str(BASE))
        for note in notes:
            print(f"fetch base: {note}")
    except BaseException:
        shutil.rmtree(BASE, ignore_errors=True)
        raise
    files.write_json(BASE / "source.json", account)
    return account


def _put(fetch: params.Fetch) -> Mapping[str, Any]:
    """Put the base model where stages look for it, repaired and its tokenizer proven."""
    choice = fetch.base
    account: dict[str, Any] = {}
    if isinstance(choice, params.HubBase):
        name = f"{choice.repository}@{choice.revision[:12]}"
        account = hub.base(choice, BASE, lambda folder: bases.rehearse(folder, name))
    if isinstance(choice, params.LocalBase):
        if paths := local.list_files("base"):
            account = weights.copy(paths, BASE, "local/base")
        else:
            account, choice = {"stands_in_for": "local/base"}, choice.otherwise
    if isinstance(choice, params.GrownBase):
        pretraining.grow(world.corpus(choice.documents, fetch.seed), choice, fetch.seed, BASE)
        account = {"source": "grown", **account, **tokenizer.account(BASE, "fetch base (grown)")}
    return account


if __name__ == "__main__":
    main(arguments.label("stages.fetch", __doc__))
