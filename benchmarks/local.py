"""What a model in this process costs: `python -m benchmarks.local [--model FOLDER]`.

`provider: local` with its ledger, beside what it stood on before: batches of prompts of like
length, each given to transformers' `generate`, which computes every row on until the longest has
ended. Both have the same model in float32, prompts, limit, end tokens and rows at once, greedy. The
two take turns, --repeats times in one process; medians of CPU seconds count. Answers end at lengths
as instruct models' do, most soon and some late: the word "the" ends one too.

`kept` is the share of answers that are there when half of the time is over: a kill loses others.
`equal` is the share of texts that are those of bezoar.models.generation. The last line is one JSON
object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bezoar import llm
from bezoar.llm import local
from bezoar.llm.budget import Purse
from bezoar.llm.ledger import Bill, Ledger
from bezoar.models import generation, loading
from bezoar.params import InProcess
from bezoar.rows import chat
from bezoar.rows.records import Ask, Message, Reply

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models/dpo/policy", ROOT.parent / "shared/data/tiny_lm/stories260K-hf"
BEGINNINGS = ("Once upon a time", "The little dog", "Lily and Tom", "One day, a big red bird")
MORE = " saw the sun and went to the park with a friend who was very happy to play"
ROWS = 32


def prompts(rows: int) -> list[str]:
    """Prompts of many lengths, no two alike."""
    return [f"{BEGINNINGS[n % 4]} {n}{MORE * (n % 5)}" for n in range(rows)]


def in_batches(
    model: Any, tokenizer: Any, texts: Sequence[str], most: int, size: int
) -> list[tuple[float, str]]:
    """When each answer was there, and what it is: batch after batch, by `generate`."""
    import torch

    began, ends = time.process_time(), generation.end_tokens(model, tokenizer)
    said: dict[str, tuple[float, str]] = {}
    waiting = sorted(texts, key=len)
    for at in range(0, len(waiting), size):
        batch = waiting[at : at + size]
        tokens = tokenizer(batch, return_tensors="pt", padding=True, split_special_tokens=True)
        with torch.inference_mode():
            written = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                do_sample=False,
                max_new_tokens=most,
                eos_token_id=sorted(ends),
                pad_token_id=tokenizer.pad_token_id,
            )
        took = time.process_time() - began
        for text, row in zip(batch, written[:, tokens["input_ids"].shape[1] :], strict=True):
            ids = row.tolist()
            stop = next((n for n, token in enumerate(ids) if token in ends), None)
            said[text] = took, tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return [said[text] for text in texts]


def in_turn(
    loaded: tuple[Any, Any], endpoint: InProcess, texts: Sequence[str], folder: Path
) -> list[tuple[float, str]]:
    """When each answer was there, and what it is: through the client, into a new ledger."""
    client = local.Client(
        endpoint, kept := Ledger(folder), Purse(kept, Bill("", "", "", ""), None, None)
    )
    client._loaded = loaded[1], generation.Batch(*loaded, endpoint.batch_size)
    began = time.process_time()

    def ask(text: str, ask: Ask) -> tuple[float, Reply]:
        reply = ask([Message(role="user", content=text)])
        return time.process_time() - began, reply

    done = llm.run_jobs(ask, texts, client, endpoint, prefix="benchmark", name=str).done
    client.close()
    return [(took, reply.text) for _, (took, reply) in done]


def measure(folder: Path, rows: int, most: int, size: int, repeats: int) -> dict[str, float]:
    """Time both sides in turn, print what each took, and sum it up."""
    loading.quiet()
    device = loading.device()
    model = loading.plain(folder, "float32", device).eval()
    tokenizer = loading.own_tokenizer(folder)
    [*_, the] = tokenizer("in the", add_special_tokens=False)["input_ids"]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, the]
    endpoint = InProcess(
        provider="local",
        model=str(folder),
        terms="MIT",
        style="completion",
        params={"max_new_tokens": most},
        concurrency=rows,
        batch_size=size,
    )
    texts = prompts(rows)
    ids = chat.ids(tokenizer, texts)
    alone = generation.generate(model, tokenizer, ids, max_new_tokens=most, batch_size=size)
    in_batches(model, tokenizer, texts[:2], most, size)  # what is loaded at first is nobody's time
    sides: list[list[list[tuple[float, str]]]] = [[], []]
    for _ in range(repeats):
        sides[0].append(in_batches(model, tokenizer, texts, most, size))
        with tempfile.TemporaryDirectory() as scratch:
            sides[1].append(in_turn((model, tokenizer), endpoint, texts, Path(scratch)))
    before, now = (median(max(took for took, _ in run) for run in runs) for runs in sides)
    tokens = sum(len(tokenizer(each.text)["input_ids"]) for each in alone)
    kept = [
        sum(took <= max(t for t, _ in run) / 2 for took, _ in run) / rows
        for run in (sides[0][0], sides[1][0])
    ]
    print(f"{rows} prompts, {size} at once, {tokens:,} tokens written")
    for name, took, early in (("batches", before, kept[0]), ("in turn", now, kept[1])):
        print(
            f"{name:8} {took:7.2f} CPU s {tokens / took:8,.0f} tokens/s, {early:.0%} kept half-way"
        )
    equal = [one.text == text for one, (_, text) in zip(alone, sides[1][0], strict=True)]
    return {
        "speedup": round(before / now, 2),
        "kept_before": round(kept[0], 2),
        "kept_now": round(kept[1], 2),
        "equal": sum(equal) / rows,
    }


def main() -> None:
    """Measure, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=next(filter(Path.exists, MODELS), None))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.model is None:
        parser.error("--model: none here; give a model's folder")
    print(
        json.dumps(
            measure(given.model, given.rows, given.max_new_tokens, given.batch, given.repeats)
        )
    )


if __name__ == "__main__":
    main()
