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
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bezoar import params, work
from bezoar.params import arguments
from bezoar.preflight.bases import rehearse
from bezoar.sources import bases, collect, local

BASE = Path("models/fetch/base")


def main(name: str) -> None:
    work.begin()
    p = params.load()
    is_base = name == "base"
    account = bases.bring(p.fetch, BASE, rehearse) if is_base else rows(name, p.fetch)
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


if __name__ == "__main__":
    main(arguments.label("stages.fetch", __doc__))
