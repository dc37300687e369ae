"""The one template: how a conversation becomes text, in training, harness and chat alike.

`### System:` / `### Instruction:` / `### Response:` sections (OpenBezoar, section 3.2).
"""

from collections.abc import Sequence
from typing import Any

from bezoar.prompts import Prompt
from bezoar.records import Message, Pair, Probe, Sample

SYSTEM = Prompt("chat/system")

# The same layout as Jinja, saved with every checkpoint's tokenizer; a test holds the two together.
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ '### System:\n' + m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'user' %}"
    "{{ '### Instruction:\n' + m['content'] + '\n\n### Response:\n' }}"
    "{% else %}{{ m['content'] + ('' if loop.last else '\n\n') }}{% endif %}"
    "{% endfor %}"
)

SECTIONS = ("### System:", "### Instruction:", "### Response:")
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<|")


def prompt(turns: Sequence[Message], system: str = "") -> str:
    """Text up to where the model answers. `turns` alternate user and assistant and end with a
    user turn; without a `system` the default one of prompts/chat/system.txt stands."""
    parts = [f"### System:\n{system or SYSTEM.fill()}\n\n"]
    for turn in turns:
        if turn.role == "user":
            parts.append(f"### Instruction:\n{turn.content}\n\n### Response:\n")
        else:
            parts.append(f"{turn.content}\n\n")
    return "".join(parts)


def instruction(text: str, context: str) -> str:
    """An instruction with its context, as one user turn."""
    return f"{text}\n\nInput: {context}" if context else text


def from_sample(sample: Sample) -> tuple[str, str]:
    """(prompt, completion) of a generated sample."""
    asked = instruction(sample.instruction, sample.context)
    return prompt([Message(role="user", content=asked)], sample.system), sample.response


def from_pair(pair: Pair) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of a preference pair."""
    return prompt(pair.prompt), pair.chosen, pair.rejected


def from_probes(tokenizer: Any, probes: Sequence[Probe]) -> list[list[int]]:
    """The prompts of held-out questions, as token ids."""
    talks = [[Message(role="user", content=probe.instruction)] for probe in probes]
    return prompts(tokenizer, talks, [probe.system for probe in probes])


def prompts(
    tokenizer: Any, talks: Sequence[Sequence[Message]], systems: Sequence[str] = ()
) -> list[list[int]]:
    """Token ids of each talk up to where the model answers: `prompt` of it, with its place of
    `systems`; a tokenizer of other people's that has a template of its own puts it in that, without
    a system message where `systems` has none."""
    if not talks:
        return []
    told = systems or [""] * len(talks)
    if tokenizer.chat_template == TEMPLATE:
        texts = [prompt(talk, system) for talk, system in zip(talks, told, strict=True)]
        return ids(tokenizer, texts)
    texts = [
        tokenizer.apply_chat_template(
            [
                *([{"role": "system", "content": system}] if system else []),
                *(turn.model_dump() for turn in talk),
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        for talk, system in zip(talks, told, strict=True)
    ]
    # the template writes the special tokens, BOS among them
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return encoded


def ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts (BOS first, where the tokenizer has it so). The name of a special token
    inside a text stays text: it must not end an answer or open a new one."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(list(texts), split_special_tokens=True)["input_ids"]
    return encoded


def answer_ids(
    tokenizer: Any, pairs: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids) of (prompt, answer) texts: the loss is on the second, which ends in
    EOS. The two are tokenised as one text, once; a token that spans the prompt's end belongs to
    the answer, so that an answer's first token is the one that follows the prompt's last."""
    if not pairs:
        return []
    texts = [before + answer for before, answer in pairs]
    encoded = tokenizer(texts, split_special_tokens=True)
    parted = []
    for row, (whole, (before, _)) in enumerate(zip(encoded["input_ids"], pairs, strict=True)):
        end = [] if whole[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
        # a tokenizer may leave out white space, which then stands in no token
        places = (encoded.char_to_token(row, at) for at in range(len(before), len(texts[row])))
        first = next((place for place in places if place is not None), len(whole))
        parted.append((whole[:first], whole[first:] + end))
    return parted


def cut_left(tokenizer: Any, tokens: list[int], limit: int) -> list[int]:
    """The last `limit` ids; the first of them stays BOS where the text began with it."""
    if len(tokens) <= limit:
        return tokens
    kept = tokens[len(tokens) - limit :]
    return [tokens[0], *kept[1:]] if tokens[0] == tokenizer.bos_token_id else kept


def marker(text: str) -> str | None:
    """The first template marker or special token inside `text`, which would break the template."""
    return next((m for m in SECTIONS + SPECIAL if m in text), None)
