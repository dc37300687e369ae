"""Puts held-out questions to a loaded checkpoint, which answers them freely."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from bezoar.models import generation
from bezoar.rows import chat
from bezoar.rows.records import Attempt, Probe


def probe(
    model: Any,
    tokenizer: Any,
    probes: Sequence[Probe],
    batch_size: int,
    done: MutableMapping[int, Any] | None = None,
) -> list[Attempt]:
    """Let the model answer each probe.

    An answer is right if the model ended it by itself and it is one of the probe's, white space
    around it left out. An answer is cut off once it is longer than every right one. `done` is as in
    generation.generate.
    """
    prompts = chat.from_probes(tokenizer, probes)
    right = chat.ids(tokenizer, [answer for p in probes for answer in p.answers])
    longest = max(map(len, right), default=0)
    continuations = generation.generate(
        model, tokenizer, prompts, max_new_tokens=longest + 1, batch_size=batch_size, done=done
    )
    return [
        Attempt(
            id=p.id,
            skill=p.skill,
            answer=continuation.text.strip(),
            right=continuation.finish == "stop" and continuation.text.strip() in p.answers,
        )
        for p, continuation in zip(probes, continuations, strict=True)
    ]


def shares(attempts: Sequence[Attempt]) -> dict[str, dict[str, float]]:
    """Return by skill the share of right answers and the number of probes."""
    by_skill: dict[str, list[bool]] = {}
    for attempt in attempts:
        by_skill.setdefault(attempt.skill, []).append(attempt.right)
    return {
        skill: {"share": float(f"{sum(right) / len(right):.6g}"), "n": len(right)}
        for skill, right in sorted(by_skill.items())
    }
