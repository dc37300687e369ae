"""The judge says of every sample whether it will do. Free of thresholds, for this costs money.

reads   data/generate/SCHEME/samples.jsonl
writes  data/judge/SCHEME/: verdicts.jsonl, a verdict a sample, in their order (undecided where the
        request failed for good), replies.jsonl (every exchange, as bought), failures.jsonl; of a
        panel also votes.jsonl, every member's verdict, which verdicts.jsonl combines
metrics metrics/judge/SCHEME.json: judges, unanimous; by member what it said and was paid; by pair
        of members agreement and kappa; metrics/judge/SCHEME_spending.json: model, calls,
        tokens_in, tokens_out, usd of replies, a panel's together
"""

import sys

from bezoar import budget, llm, panel, params, preflight, progress, verdicts, work
from bezoar.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.records import Ask, Failure, Sample, Verdict


def main(name: str) -> None:
    work.die_with_parent()
    p = params.load()
    preflight.stage("judge", name)
    source = f"data/generate/{name}/samples.jsonl"
    samples = list(read_jsonl(source, Sample))
    if not samples:
        raise BadInput(f"{source}: holds no samples; generate@{name} writes them")
    judges, schema = p.llm.judges, verdicts.schema(p.judge.scale)
    asks = [llm.connect(member, p, "judge", name, schema) for member in judges]

    def judge(sample: Sample, ask: Ask) -> Verdict:
        return verdicts.judge(sample, p.judge.scale, ask)

    with progress.bar(f"judge {name}", len(samples) * len(judges)) as advance:
        # one after the other: side by side they would pass a cap by what each has under way
        runs = {
            member.model: llm.each(
                judge,
                samples,
                ask,
                member,
                where=f"judge@{name}" + f", {member.model}" * (len(judges) > 1),
                name=lambda s: s.id,
                advance=advance,
            )
            for member, ask in zip(judges, asks, strict=True)
        }
    votes = {who: said(samples, run, who) for who, run in runs.items()}
    out = f"data/judge/{name}"
    write_jsonl(f"{out}/verdicts.jsonl", panel.decide(votes, p.judge.vote, p.judge.scale))
    failures = {who: run.failures for who, run in runs.items()}
    if len(judges) > 1:
        write_jsonl(f"{out}/votes.jsonl", panel.ballots(votes))
        failures = {who: named(who, found) for who, found in failures.items()}
    write_jsonl(f"{out}/replies.jsonl", (e for run in runs.values() for e in run.exchanges))
    write_jsonl(f"{out}/failures.jsonl", (f for found in failures.values() for f in found))
    spent = [budget.spending(member, runs[member.model].exchanges) for member in judges]
    counts = {who: len(found) for who, found in failures.items()}
    write_json(f"metrics/judge/{name}.json", panel.measure(votes, counts, spent))
    write_json(f"metrics/judge/{name}_spending.json", panel.total(spent).model_dump())


def said(samples: list[Sample], run: llm.Run[Sample, Verdict], who: str) -> list[Verdict]:
    """One judge's verdict on every sample, undecided where its request failed for good."""
    judged = {sample.id: verdict for sample, verdict in run.done}
    judged |= {f.job: verdicts.failed(f.job, f.reason, who) for f in run.failures}
    return [judged[sample.id] for sample in samples]


def named(who: str, failures: list[Failure]) -> list[Failure]:
    """Failures that say which member of the panel they are of."""
    return [f.model_copy(update={"reason": f"{who}: {f.reason}"}) for f in failures]


if __name__ == "__main__":
    main(sys.argv[1].rpartition("@")[2])
