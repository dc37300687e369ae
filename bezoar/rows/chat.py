"""The one template: how a conversation becomes text, in training, harness and chat alike.

Sections System, Instruction and Response (OpenBezoar 3.3, figure 15); the marks before the names
are ours.
"""

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt
from bezoar.rows.records import Message, Pair, Probe, Sample

SYSTEM = Prompt("chat/system")

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
    if is_ours(tokenizer):
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


def decoded(tokenizer: Any, rows: Sequence[list[int]]) -> list[str]:
    """Decode each row of ids, without special tokens and with nothing tidied."""
    texts: list[str] = tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def added(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before a text, and those it adds behind."""
    text = SECTIONS[0]
    with_added: list[int] = tokenizer(text)["input_ids"]
    bare: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    last = len(with_added) - len(bare)
    start = next((n for n in range(last + 1) if with_added[n : n + len(bare)] == bare), 0)
    return with_added[:start], with_added[start + len(bare) :]


# --- answers -------------------------------------------------------------------------------------

# Texts before which an answer's first token is cut as it is inside of a text. A tokenizer may put
# a blank before a text, or join an answer's first line break to the prompt's last.
ANCHORS = ("", "\n", "a", ".", "0")


def answer_ids(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], where: str
) -> list[tuple[list[int], list[int]]]:
    """Cut (prompt, answer) texts into (prompt ids, answer ids). The loss is on the second, which
    ends in EOS.

    A prompt has the ids that it has at inference, when no answer follows. BadInput, on `where` and
    the row: an answer without ids of its own, or with ids that do not give the text back."""
    prompts = ids(tokenizer, [prompt for prompt, _ in pairs])
    joined = ids(tokenizer, [prompt + answer for prompt, answer in pairs])
    parted = []
    for number, (pair, prompt, both) in enumerate(zip(pairs, prompts, joined, strict=True), 1):
        answer = _after(tokenizer, pair, prompt, both)
        if answer is None or (pair[1].strip() and not answer):
            raise BadInput(_unparted(tokenizer, f"{where}: row {number}", pair, prompt, both))
        parted.append((prompt, [*answer, tokenizer.eos_token_id]))
    return parted


def altered(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    parted: Sequence[tuple[list[int], list[int]]],
) -> list[int]:
    """Return the places of the rows whose ids give another text back. The tokenizer does not know
    some of their characters, or writes them in another form."""
    texts = decoded(tokenizer, [prompt + answer for prompt, answer in parted])
    return [n for n, text in enumerate(texts) if not gives_back(text, "".join(pairs[n]))]


def gives_back(decoded: str, text: str) -> bool:
    """Say whether ids were decoded to their text. Some tokenizers put a blank before each."""
    return decoded in (text, f" {text}")


def _after(
    tokenizer: Any, pair: tuple[str, str], prompt: list[int], both: list[int]
) -> list[int] | None:
    """Return the ids of a pair's answer behind those of its prompt. None where no ids give the
    text of both back."""
    if both[: len(prompt)] == prompt:
        return both[len(prompt) :]
    [text] = decoded(tokenizer, [both])
    for anchor in ANCHORS:
        texts = [anchor, anchor + pair[1]]
        before, after = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        answer: list[int] = after[len(before) :]
        if after[: len(before)] == before and decoded(tokenizer, [prompt + answer]) == [text]:
            return answer
    return None


def _unparted(
    tokenizer: Any, where: str, pair: tuple[str, str], prompt: list[int], both: list[int]
) -> str:
    """Say of a pair that cannot be parted which token stands at its seam."""
    shared = sum(
        1 for _ in takewhile(lambda two: two[0] == two[1], zip(prompt, both, strict=False))
    )
    tokens = tokenizer.convert_ids_to_tokens(both[shared : shared + 1] or both[-1:])
    return (
        f"{where}: the answer {pair[1][:40]!r} has no tokens of its own behind its prompt: they "
        f"run together in {tokens[0] if tokens else ''!r}; mend or leave out the row, or take a "
        "base with another tokenizer"
    )


def cut_left(tokenizer: Any, tokens: list[int], limit: int) -> list[int]:
    """Keep the last `limit` ids, behind what the tokenizer puts before every text (BOS)."""
    if len(tokens) <= limit:
        return tokens
    opening, _ = added(tokenizer)
    if tokens[: len(opening)] != opening or len(opening) >= limit:
        opening = []
    return opening + tokens[len(tokens) - limit + len(opening) :]


def marker(text: str) -> str | None:
    """The first template marker or special token inside `text`, which would break the template."""
    return next((m for m in SECTIONS + SPECIAL if m in text), None)


# --- the template as Jinja -----------------------------------------------------------------------

_BODY = (
    "{% if not (messages and messages[0]['role'] == 'system' and messages[0]['content']) %}"
    "{{ '### System:\n' + SYSTEM + '\n\n' }}{% endif %}"
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}"
    "{% if m['content'] %}{{ '### System:\n' + m['content'] + '\n\n' }}{% endif %}"
    "{% elif m['role'] == 'user' %}"
    "{{ '### Instruction:\n' + m['content'] + '\n\n### Response:\n' }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] + (eos_token if loop.last else '\n\n') }}"
    "{% else %}{{ raise_exception('a role is system, user or assistant') }}"
    "{% endif %}{% endfor %}"
)

_PROOF = (
    [{"role": "user", "content": "Hello."}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " Hello.\n"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "\n Yes."},
        {"role": "user", "content": "Why?"},
    ],
)


def body() -> str:
    """Write the layout of `prompt` as Jinja, with the default system message and without BOS."""
    # a string of JSON is one of Jinja, whatever quotes and braces it holds
    return _BODY.replace("SYSTEM", json.dumps(SYSTEM.fill(), ensure_ascii=False))


def is_ours(tokenizer: Any) -> bool:
    """Say whether the tokenizer's chat template comes from `template`."""
    return str(tokenizer.chat_template or "").endswith(body())


def template(tokenizer: Any) -> str:
    """Write the layout as Jinja for a checkpoint with this tokenizer, BOS included where the
    tokenizer adds it. A server makes the ids of `prompts` with it. BadInput: no template does."""
    opening, _ = added(tokenizer)
    tokens = "".join(tokenizer.convert_ids_to_tokens(opening))
    written = "bos_token" if tokens == tokenizer.bos_token else json.dumps(tokens)
    # Some tokenizers put a blank before a text, but not before one that stands behind BOS.
    starts = [f"{{{{ {written} }}}}", f"{{{{ {written} + ' ' }}}}"] if opening else [""]
    for start in starts:
        if _agrees(tokenizer, start + body()):
            return start + body()
    raise BadInput(
        "the tokenizer cuts a prompt otherwise behind the text of its first special token "
        f"({tokens!r}), so that a server would not ask what was trained; take a base with another "
        "tokenizer"
    )


def opened_by_tokenizer(tokenizer: Any, rendered: str) -> str:
    """Drop from a rendered text what the template writes in the tokenizer's stead."""
    return rendered[rendered.index(SECTIONS[0]) :]


def _agrees(tokenizer: Any, source: str) -> bool:
    """Say whether `source` renders the proof's conversations to the ids of their prompts."""
    for talk in _PROOF:
        system = talk[0]["content"] if talk[0]["role"] == "system" else ""
        turns = [Message.model_validate(m) for m in talk if m["role"] != "system"]
        rendered = tokenizer.apply_chat_template(
            talk, chat_template=source, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        if [rendered] != ids(tokenizer, [prompt(turns, system)]):
            return False
    return True
