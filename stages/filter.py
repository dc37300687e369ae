"""Samples that the judge accepted become training data. Copies of seeds, duplicates, items of
benchmarks, and rows that show a fault without a judge are left out. The user's own rows go the same
way (filter_own), without a judge.

reads   data/generate/ and data/judge/ (this scheme's, and the earlier ones' to find duplicates;
        none of it for own rows), the seeds (data/fetch/), models/fetch/base/tokenizer.json (to
        count tokens), what is evaluated on: data/fetch/: benchmarks, mt_bench/questions.jsonl,
        hh_rlhf/test.jsonl
writes  data/filter/SCHEME/: train.jsonl, eval.jsonl, rejected.jsonl, reported.jsonl (rows that stay
        though a check found something), contamination.jsonl (every item of a benchmark found),
        funnel.json (from the instructions asked for to the rows kept, with every reason; the rows
        generated and the rows kept by category, strategy, operation ...),
        distributions.json (kinds of task beside the target, lengths; before and after),
        licences.json (under what the rows stand), compared.json (what was looked for items of
        benchmarks, and what was not), contaminated_seeds.jsonl, languages.json, README.md (the
        set's card); where too few rows stay, an error: rejected, reported, languages and funnel
metrics metrics/filter/SCHEME.json: asked, parsed, replies_read (own rows: own), accepted_share,
        rejected_share, undecided_share (of the samples judged), copies, kept, contaminated_seeds
        (of the rows that stay), rows_of_contaminated_seeds, target_distance_before, _after;
        metrics/filter/SCHEME_tasks.csv, SCHEME_lengths.csv
"""

from bezoar import params, work
from bezoar.filtering import contamination, curation, licences, outs, tongues
from bezoar.params.arguments import label


def main(name: str) -> None:
    work.begin()
    p = params.load()
    is_own = name in p.own
    pool = curation.own_set(name) if is_own else curation.generated_set(name, p)
    speech = tongues.seed_languages(pool.source, p.filter.gates)
    benchmarks = contamination.texts()
    curated = curation.curate(name, p, pool, benchmarks, speech.allowed)
    tongues.tell(name, speech, pool.samples, curated.kept)
    curation.check_splittable(name, pool, curated)
    chosen = curation.choose(curated, pool.seeds, p.filter)
    # A row of the user's own is its seed, and was looked at itself.
    tainted = [] if is_own else contamination.find_in_seeds(chosen.kept, name, benchmarks, p)
    traced = licences.trace(chosen.kept, licences.origins(pool.source), None if is_own else p.llm)
    licences.check(name, traced, p.filter.licences.allow)
    train, held_out = curation.split(traced, pool.seeds, p.filter.eval_share)
    rows = outs.Filtered(name, pool, speech, chosen, tainted, traced, train, held_out)
    outs.write_rows(rows)
    outs.write_counts(rows, p.filter)
    outs.write_card(rows, p)


if __name__ == "__main__":
    main(label("stages.filter", __doc__))
