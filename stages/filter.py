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

from pathlib import Path

from bezoar import params, work
from bezoar.filtering import contamination, curation, distributions, licences, tongues
from bezoar.filtering.cards import dataset
from bezoar.params.arguments import label
from bezoar.rows.files import write, write_json, write_jsonl

TOKENIZER = Path("models/fetch/base/tokenizer.json")
MEASURED = ("asked", "parsed", "replies_read", "own", "copies", "kept")


def main(name: str) -> None:
    work.begin()
    p = params.load()
    is_own = name in p.own
    pool = curation.own_set(name) if is_own else curation.generated_set(name, p)
    samples, seeds = pool.samples, pool.seeds
    speech = tongues.seed_languages(pool.source, p.filter.gates)

    benchmarks = contamination.texts()
    before = [] if is_own else curation.earlier_rows(name, p)
    originals = seeds if name in p.filter.copies else []
    curated = curation.keep(
        samples, pool.verdicts, originals, p.filter,
        benchmarks=benchmarks, earlier=before, allowed=speech.allowed,
    )  # fmt: skip
    tongues.tell(name, speech, samples, curated.kept)
    curation.check_splittable(name, pool, curated)
    rows, shared = curation.drop_shared_seeds(curated.kept, seeds, p.filter.eval_share)
    rows, spare = distributions.balance(rows, p.filter.tasks, p.filter.balance)
    dropped, stay = [*curated.dropped, *shared, *spare], {row.id for row in rows}
    reported = [row for row in curated.reported if row.id in stay]
    # A row of the user's own is its seed, and was looked at itself.
    tainted = [] if is_own else contamination.find_in_seeds(rows, name, benchmarks, p)
    traced = licences.trace(rows, licences.origins(pool.source), None if is_own else p.llm)
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
    tongues.write(name, speech, samples, rows)
    counts = curation.funnel(samples, pool.verdicts or [], rows, [*pool.lost, *dropped], reported)
    sides = {"train": len(train), "eval": len(held_out)}
    funnel = {"scheme": name, **pool.counted, **counts, **sides}
    write_json(f"{out}/funnel.json", funnel)
    tokens = distributions.sizes(samples, distributions.tokenizer(TOKENIZER))
    described = distributions.describe(samples, rows, p.filter, tokens)
    write_json(f"{out}/distributions.json", described)
    write(f"metrics/filter/{name}_tasks.csv", distributions.tasks_table(described))
    write(f"metrics/filter/{name}_lengths.csv", distributions.lengths_table(rows, tokens))
    measured = {key: funnel[key] for key in MEASURED if key in funnel}
    measured |= curation.count_contaminated_seeds(rows, tainted)
    measured |= curation.shares({} if is_own else counts, len(samples), described)
    write_json(f"metrics/filter/{name}.json", measured)
    card = dataset.own_card(name, Path(out)) if is_own else dataset.card(name, p, Path(out))
    write(f"{out}/README.md", [card])


if __name__ == "__main__":
    main(label("stages.filter", __doc__))
