"""The judge says of every sample whether it will do. No threshold applies, for this costs money.

reads   data/generate/SCHEME/samples.jsonl, data/fetch/SEEDS: real rows that it judges
        too, to see whether it is better than a coin
writes  data/judge/SCHEME/: verdicts.jsonl, a verdict a sample, in their order (undecided where the
        request failed for good), known.json, by judge how it did on the real rows, replies.jsonl
        (every exchange, as bought), failures.jsonl; of a panel also votes.jsonl, every member's
        verdict, which verdicts.jsonl combines
metrics metrics/judge/SCHEME.json: judges, unanimous; by member what it said, the share of its
        replies that was read, how it did on the real rows and what it was paid; by pair of members
        agreement and kappa; metrics/judge/SCHEME_spending.json: model, calls, tokens_in,
        tokens_out, usd of replies, a panel's together
"""

from collections.abc import Mapping, Sequence

from bezoar import llm, params, preflight, work
from bezoar.judging import known, panel, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import Params, arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Sample, Verdict

# By the model of the panel's member
Runs = Mapping[str, llm.Run[Sample, Verdict]]


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("judge", name)
    source = f"data/generate/{name}/samples.jsonl"
    samples = list(read_jsonl(source, Sample))
    if not samples:
        raise BadInput(f"{source}: holds no samples; generate@{name} writes them")
    asker = Asker(p, "judge", name, *p.llm.judges, schema=verdicts.schema(p.judge.scale))
    check = known.check(p.schemes.by_name[name].seeds, p.known)
    rows = check.samples(explained=any(sample.expected for sample in samples))
    for judged in check.rounds(samples):
        runs = asker.run_all(
            lambda sample, ask: verdicts.judge(sample, p.judge.scale, ask),
            [*rows, *judged],
            lambda sample: sample.id,
        )
        keep(asker, p, judged, runs, check)


def keep(
    asker: Asker, p: Params, samples: Sequence[Sample], runs: Runs, check: known.Check
) -> None:
    """Write the judges' verdicts, then stop where one of them can be neither read nor trusted."""
    judged = {judge: panel.by_id(run, judge) for judge, run in runs.items()}
    votes = {judge: [by_id[s.id] for s in samples] for judge, by_id in judged.items()}
    trust = {judge: check.of_verdicts(by_id, p.judge.scale) for judge, by_id in judged.items()}
    failed = {judge: len(run.failures) for judge, run in runs.items()}
    out = f"data/judge/{asker.instance}"
    write_jsonl(f"{out}/verdicts.jsonl", panel.decide(votes, p.judge.vote, p.judge.scale))
    if len(runs) > 1:
        write_jsonl(f"{out}/votes.jsonl", panel.ballots(votes))
    write_json(f"{out}/known.json", trust)
    metrics = panel.measure(votes, trust, failed, asker.write_all(runs))
    write_json(f"metrics/judge/{asker.instance}.json", metrics)
    for judge, run in runs.items():
        label = f"{asker.label}, {judge}"
        panel.check_read(label, votes[judge] or list(judged[judge].values()), run)
        check.tell(label, trust[judge])


if __name__ == "__main__":
    main(arguments.label("stages.judge", __doc__))
