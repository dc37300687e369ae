"""The teacher writes samples by one scheme.

reads   the scheme's seeds (data/fetch/dolly or data/fetch/flan), data/fetch/topics
writes  data/generate/SCHEME/: samples.jsonl, rejected.jsonl, replies.jsonl (every exchange, as
        bought), failures.jsonl (jobs whose request failed for good), summary.json (counts of what
        was asked for and what came back), also where nothing passes, which is an error
metrics metrics/generate/SCHEME_spending.json: model, calls, tokens_in, tokens_out, usd of replies
"""

import sys
from random import Random

from bezoar import params, preflight, schemes, work
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.reading import unread
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Query, Seed, Seeds, Topic


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("generate", name)
    scheme = schemes.load(name)
    section = p.schemes.by_name[name]
    jobs = scheme.plan(read_seeds(section.seeds), section, Random(f"{p.generate.seed}/{name}"))
    if not jobs:
        raise BadInput(
            f"generate@{name}: no calls can be planned; data/fetch/{section.seeds} has no seeds "
            f"that schemes.{name} asks for in params.yaml (its categories, with so many seeds each "
            "as a call shows, or its tasks); its source.json counts them"
        )
    preflight.free_checks(section.seeds)
    asker = Asker(p, "generate", name, p.llm.teacher)
    run = asker.run(lambda job, ask: schemes.attempt(name, job, ask), jobs, lambda job: job.id)
    asker.write(run)
    done = [outcome for _, outcome in run.done]
    samples = [sample for outcome in done for sample in outcome.samples]
    out = f"data/generate/{name}"
    write_jsonl(f"{out}/samples.jsonl", samples)
    write_jsonl(f"{out}/rejected.jsonl", (row for outcome in done for row in outcome.rejected))
    summary = schemes.summarise(jobs, done, calls=len(run.exchanges))
    write_json(f"{out}/summary.json", summary.model_dump())
    if (short := schemes.shortfall(summary)) or not samples:
        short = short or "nothing of what the teacher wrote could be used"
        print(f"warning: {asker.label}: {short}", file=sys.stderr)
        for reply in schemes.replies_to_show(done)[: unread.SHOWN]:
            print(f"{asker.label}: a reply: {unread.format_reply(reply)}", file=sys.stderr)
    if not samples:
        raise BadInput(
            f"{asker.label}: passes nothing of {len(jobs)} jobs ({schemes.list_reasons(done)}); "
            f"{schemes.advise(name, done)}"
        )


def read_seeds(source: str) -> Seeds:
    """Read what schemes may plan from. BadInput: the scheme's own source is empty."""
    topics = list(read_jsonl("data/fetch/topics/topics.jsonl", Topic))
    if source == "dolly":
        seeds = Seeds(dolly=list(read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)), topics=topics)
    elif source == "flan":
        seeds = Seeds(flan=list(read_jsonl("data/fetch/flan/queries.jsonl", Query)), topics=topics)
    else:
        raise BadInput(f"params.yaml: seeds: no such source, {source!r}; have 'dolly' and 'flan'")
    if not (seeds.dolly or seeds.flan):
        raise BadInput(
            f"data/fetch/{source}: holds no seeds; give fetch@{source} a source with rows"
        )
    return seeds


if __name__ == "__main__":
    main(arguments.label("stages.generate", __doc__))
