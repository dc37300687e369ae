"""The judge says of every sample whether it will do. Free of thresholds, for this costs money.

reads   data/generate/SCHEME/samples.jsonl
writes  data/judge/SCHEME/verdicts.jsonl, a verdict a sample, in their order
"""

import sys

from bezoar import llm, params, progress, verdicts, work
from bezoar.files import BadInput, read_jsonl, write_jsonl
from bezoar.records import Sample, Verdict


def main(name: str) -> None:
    work.die_with_parent()
    p = params.load()
    source = f"data/generate/{name}/samples.jsonl"
    samples = list(read_jsonl(source, Sample))
    if not samples:
        raise BadInput(f"{source}: holds no samples; generate@{name} writes them")
    ask = llm.connect(p.llm.judge)

    def judge(sample: Sample) -> Verdict:
        return verdicts.judge(sample, p.judge.scale, ask)

    judged = progress.each(f"judge {name}", judge, samples, p.llm.judge.concurrency)
    write_jsonl(f"data/judge/{name}/verdicts.jsonl", judged)


if __name__ == "__main__":
    main(*sys.argv[1:])
