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
from bezoar.llm import budget
from bezoar.params import Params, arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Ask, Sample, Verdict
from bezoar.work import progress

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
    schema = verdicts.schema(p.judge.scale)
    asks = [llm.connect(member, p, "judge", name, schema) for member in p.llm.judges]
    check = known.check(getattr(p.schemes, name).seeds, p.known)
    rows = check.samples(explained=any(sample.expected for sample in samples))
    for judged in check.rounds(samples):
        runs = ask_all(name, p, [*rows, *judged], asks)
        keep(name, p, judged, runs, check)


def ask_all(name: str, p: Params, samples: Sequence[Sample], asks: Sequence[Ask]) -> Runs:
    """Ask every judge about the samples."""
    judges = p.llm.judges

    def judge(sample: Sample, ask: Ask) -> Verdict:
        return verdicts.judge(sample, p.judge.scale, ask)

    with progress.bar(f"judge {name}", len(samples) * len(judges)) as advance:
        # One after the other: side by side they would pass a cap by the requests under way.
        return {
            member.model: llm.each(
                judge, samples, ask, member,
                where=f"judge@{name}" + f", {member.model}" * (len(judges) > 1),
                name=lambda sample: sample.id, advance=advance,
            )
            for member, ask in zip(judges, asks, strict=True)
        }  # fmt: skip


def keep(name: str, p: Params, samples: Sequence[Sample], runs: Runs, check: known.Check) -> None:
    """Write the judges' verdicts, then stop where one of them can be neither read nor trusted."""
    judged = {judge: panel.by_id(run, judge) for judge, run in runs.items()}
    votes = {judge: [by_id[s.id] for s in samples] for judge, by_id in judged.items()}
    trust = {judge: check.of_verdicts(by_id, p.judge.scale) for judge, by_id in judged.items()}
    failures = panel.failures(runs)
    counts = {judge: len(failed) for judge, failed in failures.items()}
    spent = [budget.spending(member, runs[member.model].exchanges) for member in p.llm.judges]
    out = f"data/judge/{name}"
    write_jsonl(f"{out}/verdicts.jsonl", panel.decide(votes, p.judge.vote, p.judge.scale))
    if len(runs) > 1:
        write_jsonl(f"{out}/votes.jsonl", panel.ballots(votes))
    write_json(f"{out}/known.json", trust)
    write_jsonl(f"{out}/replies.jsonl", (e for run in runs.values() for e in run.exchanges))
    write_jsonl(f"{out}/failures.jsonl", (f for failed in failures.values() for f in failed))
    write_json(f"metrics/judge/{name}.json", panel.measure(votes, trust, counts, spent))
    write_json(f"metrics/judge/{name}_spending.json", panel.total(spent).model_dump())
    for judge, run in runs.items():
        panel.hold(f"judge@{name}, {judge}", votes[judge] or list(judged[judge].values()), run)
        check.tell(f"judge@{name}, {judge}", trust[judge])


if __name__ == "__main__":
    main(arguments.label("stages.judge", __doc__))
