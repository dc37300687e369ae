"""Samples become training data: what the judge accepted, without copies of seeds, duplicates, items
of benchmarks, and what needs no judge to be seen as faulty.

reads   data/generate/ and data/judge/ (this scheme's, and the earlier ones' to find duplicates),
        the scheme's seeds (data/fetch/), models/fetch/base/tokenizer.json (to count tokens), what
        is evaluated on: data/fetch/: benchmarks, mt_bench/questions.jsonl, hh_rlhf/test.jsonl
writes  data/filter/SCHEME/: train.jsonl, eval.jsonl, rejected.jsonl, reported.jsonl (rows that stay
        though a check found something), contamination.jsonl (every item of a benchmark found),
        funnel.json (from the instructions asked for to the rows kept, with every reason; the rows
        generated and the rows kept by category, strategy, operation ...),
        distributions.json (kinds of task beside the target, lengths; before and after),
        licences.json (under what the rows stand), compared.json (what was looked for items of
        benchmarks, and what was not), contaminated_seeds.jsonl, languages.json, README.md (the
        set's card); where too few rows stay, an error: rejected, reported, languages and funnel
metrics metrics/filter/SCHEME.json: asked, parsed, replies_read, accepted_share, rejected_share,
        undecided_share (of the samples judged), copies, kept, contaminated_seeds (of the rows that
        stay), rows_of_contaminated_seeds, target_distance_before, _after;
        metrics/filter/SCHEME_tasks.csv, SCHEME_lengths.csv
"""

from pathlib import Path

from bezoar import contamination, curation, distributions, licences, params, tongues, work
from bezoar.arguments import label
from bezoar.cards import dataset
from bezoar.files import read_json, read_jsonl, write, write_json, write_jsonl
from bezoar.records import Generated, Rejected, Sample, Seed, Verdict

TOKENIZER = Path("models/fetch/base/tokenizer.json")
MEASURED = ("asked", "parsed", "replies_read", "copies", "kept")


def main(name: str) -> None:
    work.begin()
    p = params.load()
    generated = f"data/generate/{name}"
    samples = list(read_jsonl(f"{generated}/samples.jsonl", Sample))
    verdicts = list(read_jsonl(f"data/judge/{name}/verdicts.jsonl", Verdict))
    source = getattr(p.schemes, name).seeds
    seeds = list(read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)) if source == "dolly" else []
    speech = tongues.of_seeds(source, p.filter.gates)

    benchmarks, before = contamination.texts(), curation.earlier(name, p)
    originals = seeds if name in p.filter.copies else []
    curated = curation.keep(
        samples, verdicts, originals, p.filter,
        benchmarks=benchmarks, earlier=before, allowed=speech.allowed,
    )  # fmt: skip
    tongues.tell(name, speech, samples, curated.kept)
    curation.enough(name, samples, verdicts, curated, seeds)
    kept, shared = curation.unshared(curated.kept, seeds, p.filter.eval_share)
    kept, spare = distributions.balance(kept, p.filter.tasks, p.filter.balance)
    dropped, stay = [*curated.dropped, *shared, *spare], {row.id for row in kept}
    reported = [row for row in curated.reported if row.id in stay]
    tainted = contamination.in_seeds(kept, name, benchmarks, p)
    traced = licences.trace(kept, licences.origins(source), p.llm)
    licences.check(name, traced, p.filter.licences.allow)
    train, held_out = curation.split(traced, seeds, p.filter.eval_share)

    out = f"data/filter/{name}"
    write_jsonl(f"{out}/train.jsonl", train)
    write_jsonl(f"{out}/eval.jsonl", held_out)
    write_json(f"{out}/licences.json", licences.sheet(name, traced))
    write_jsonl(f"{out}/rejected.jsonl", dropped)
    write_jsonl(f"{out}/reported.jsonl", reported)
    write_jsonl(f"{out}/contamination.jsonl", curated.contaminations)
    write_jsonl(f"{out}/contaminated_seeds.jsonl", tainted)
    write_json(f"{out}/compared.json", curated.compared)
    tongues.write(name, speech, samples, kept)
    summary = Generated.model_validate(read_json(f"{generated}/summary.json"))
    unread = read_jsonl(f"{generated}/rejected.jsonl", Rejected)
    counts = curation.funnel(samples, verdicts, kept, [*unread, *dropped], reported)
    whole = {
        "scheme": name,
        **summary.model_dump(exclude={"jobs", "simulated"}),
        "simulated_teacher": summary.simulated,
        **counts,
        "train": len(train),
        "eval": len(held_out),
    }
    write_json(f"{out}/funnel.json", whole)
    tokens = distributions.sizes(samples, distributions.tokenizer(TOKENIZER))
    described = distributions.describe(samples, kept, p.filter, tokens)
    write_json(f"{out}/distributions.json", described)
    write(f"metrics/filter/{name}_tasks.csv", distributions.tasks_table(described))
    write(f"metrics/filter/{name}_lengths.csv", distributions.lengths_table(kept, tokens))
    measured = {key: whole[key] for key in MEASURED} | curation.taint(kept, tainted)
    measured |= curation.shares(counts, len(samples), described)
    write_json(f"metrics/filter/{name}.json", measured)
    write(f"{out}/README.md", [dataset.card(name, p, Path(out))])


if __name__ == "__main__":
    main(label("stages.filter", __doc__))
