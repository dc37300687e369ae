"""The teacher writes samples by one scheme.

reads   the scheme's seeds (data/fetch/dolly or data/fetch/flan), data/fetch/topics
writes  data/generate/SCHEME/: samples.jsonl, rejected.jsonl, replies.jsonl (every exchange, as
        bought), failures.jsonl (jobs whose request failed for good), summary.json (counts of what
        was asked for and what came back), also where nothing passes, which is an error
metrics metrics/generate/SCHEME_spending.json: model, calls, tokens_in, tokens_out, usd of replies
"""

from random import Random

from bezoar import params, preflight, schemes, work
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.reading import unread
from bezoar.rows import seeds
from bezoar.rows.files import BadInput, write_json, write_jsonl


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("generate", name)
    scheme, section = schemes.load(name), p.schemes.by_name[name]
    rng = Random(f"{p.generate.seed}/{name}")
    jobs = scheme.plan(seeds.read(section.seeds), section, rng)
    if not jobs:
        raise BadInput(
            f"generate@{name}: no calls can be planned; data/fetch/{section.seeds} has no seeds "
            f"that schemes.{name} asks for in the recipe (its categories, with so many seeds each "
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
        unread.warn(asker.label, short, schemes.replies_to_show(done))
    if not samples:
        raise BadInput(
            f"{asker.label}: passes nothing of {len(jobs)} jobs ({schemes.list_reasons(done)}); "
            f"{schemes.advise(name, done)}"
        )


if __name__ == "__main__":
    main(arguments.label("stages.generate", __doc__))
