"""Samples become training data: what the judge accepted, without copies of seeds and duplicates.

reads   data/generate/SCHEME/, data/judge/SCHEME/verdicts.jsonl, the scheme's seeds (data/fetch/)
writes  data/filter/SCHEME/: train.jsonl, eval.jsonl, rejected.jsonl, funnel.json (from the
        instructions asked for to the rows kept, with every reason and the kept rows' distributions)
metrics metrics/filter/SCHEME.json: asked, parsed, accepted_share, rejected_share, undecided_share
        (of the samples judged), copies, kept
"""

import sys

from bezoar import curation, params, work
from bezoar.files import read_json, read_jsonl, write_json, write_jsonl
from bezoar.records import Generated, Rejected, Sample, Seed, Verdict


def main(name: str) -> None:
    work.die_with_parent()
    p = params.load()
    generated = f"data/generate/{name}"
    samples = list(read_jsonl(f"{generated}/samples.jsonl", Sample))
    verdicts = list(read_jsonl(f"data/judge/{name}/verdicts.jsonl", Verdict))
    seeds: list[Seed] = []
    if getattr(p.schemes, name).seeds == "dolly":
        seeds = list(read_jsonl("data/fetch/dolly/seeds.jsonl", Seed))

    kept, dropped = curation.keep(samples, verdicts, seeds, p.filter)
    train, held_out = curation.split(kept, seeds, p.filter.eval_share)

    out = f"data/filter/{name}"
    write_jsonl(f"{out}/train.jsonl", train)
    write_jsonl(f"{out}/eval.jsonl", held_out)
    write_jsonl(f"{out}/rejected.jsonl", dropped)
    summary = Generated.model_validate(read_json(f"{generated}/summary.json"))
    before = read_jsonl(f"{generated}/rejected.jsonl", Rejected)
    counts = curation.funnel(verdicts, kept, [*before, *dropped])
    whole = {
        "scheme": name,
        **summary.model_dump(include={"asked", "calls", "parsed", "repaired", "teacher"}),
        "simulated_teacher": summary.simulated,
        **counts,
        "train": len(train),
        "eval": len(held_out),
    }
    write_json(f"{out}/funnel.json", whole)
    shares = {
        f"{status}_share": counts[status] / len(samples)
        for status in ("accepted", "rejected", "undecided")
    }
    write_json(
        f"metrics/filter/{name}.json",
        {key: whole[key] for key in ("asked", "parsed", "copies", "kept")} | shares,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
