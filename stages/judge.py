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

from bezoar import params, preflight, work
from bezoar.judging import panel, rounds, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Sample


def main(name: str) -> None:
    work.begin()
    p = params.load()
    preflight.stage("judge", name)
    source, out = f"data/generate/{name}/samples.jsonl", f"data/judge/{name}"
    samples = list(read_jsonl(source, Sample))
    if not samples:
        raise BadInput(f"{source}: holds no samples; generate@{name} writes them")
    asker = Asker(p, "judge", name, *p.llm.judges, schema=verdicts.schema(p.judge.scale))
    for ruling in rounds.judge(asker, p, p.schemes.by_name[name].seeds, samples):
        decided = panel.decide(ruling.votes, p.judge.vote, p.judge.scale)
        write_jsonl(f"{out}/verdicts.jsonl", decided)
        if len(ruling.votes) > 1:
            write_jsonl(f"{out}/votes.jsonl", panel.ballots(ruling.votes))
        write_json(f"{out}/known.json", ruling.trust)
        spent = asker.write_all(ruling.runs)
        measured = panel.measure(ruling.votes, ruling.trust, ruling.failed, spent)
        write_json(f"metrics/judge/{name}.json", measured)
        ruling.check_judges(asker.label)


if __name__ == "__main__":
    main(arguments.label("stages.judge", __doc__))
