"""The one template that turns a conversation into text, in training, harness and chat alike.

It has the sections System, Instruction and Response (OpenBezoar 3.3, figure 15). The marks before
their names are ours."""

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt
from bezoar.rows.records import Message, Pair, Probe, Sample

SYSTEM = Prompt("chat/system")

SECTIONS = ("### System:", "### Instruction:", "### Response:")
# Special tokens of common tokenizers. Those of chat templates open with "<|".
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<|")


def prompt(turns: Sequence[Message], system: str = "") -> str:
    """Write a conversation as text, up to where the model answers.

    `turns` alternate user and assistant and end with a user turn. Without a `system` message the
    default one of prompts/chat/system.txt is written."""
    parts = [f"### System:\n{system or SYSTEM.fill()}\n\n"]
    for turn in turns:
        if turn.role == "user":
            parts.append(f"### Instruction:\n{turn.content}\n\n### Response:\n")
        else:
            parts.append(f"{turn.content}\n\n")
    return "".join(parts)


def with_input(instruction: str, context: str) -> str:
    """Join an instruction and its context into one user turn. `split_input` of reading/markup.py
    takes them apart again."""
    return f"{instruction}\n\nInput: {context}" if context else instruction


def from_sample(sample: Sample) -> tuple[str, str]:
    """Return the (prompt, completion) of a generated sample."""
    question = with_input(sample.instruction, sample.context)
    return prompt([Message(role="user", content=question)], sample.system), sample.response


def from_pair(pair: Pair) -> tuple[str, str, str]:
    """Return the (prompt, chosen, rejected) of a preference pair."""
    return prompt(pair.prompt), pair.chosen, pair.rejected


def from_probes(tokenizer: Any, probes: Sequence[Probe]) -> list[list[int]]:
    """Return the token ids of the prompts of held-out questions, one list a probe."""
    talks = [[Message(role="user", content=probe.instruction)] for probe in probes]
    return prompts(tokenizer, talks, [probe.system for probe in probes])


def prompts(
    tokenizer: Any, talks: Sequence[Sequence[Message]], systems: Sequence[str] = ()
) -> list[list[int]]:
    """Return the token ids of each conversation in `talks`, up to where the model answers.

    `systems[i]` is the system message of `talks[i]`, or "" for none. Without `systems` all are "".
    The text has our template, where "" becomes the default system message. The tokenizer of a
    further model has a template of its own, which gets no system message for ""."""
    if not talks:
        return []
    system_messages = systems or [""] * len(talks)
    if is_ours(tokenizer):
        texts = [prompt(talk, system) for talk, system in zip(talks, system_messages, strict=True)]
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
        for talk, system in zip(talks, system_messages, strict=True)
    ]
    # The template has written the special tokens already, BOS among them.
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return encoded


def ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, with BOS first where the tokenizer adds it.

    The name of a special token inside a text stays text. It must not end an answer or open a new
    one."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(list(texts), split_special_tokens=True)["input_ids"]
    return encoded


def decode(tokenizer: Any, rows: Sequence[list[int]]) -> list[str]:
    """Decode each row of ids, without special tokens and without tidying spaces."""
    texts: list[str] = tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def added_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before a text, and those it adds behind."""
    text = SECTIONS[0]
    whole_ids: list[int] = tokenizer(text)["input_ids"]
    bare_ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    # The bare ids stand inside of those with additions, as in [BOS, *bare]. Find where they begin.
    last = len(whole_ids) - len(bare_ids)
    start = next((n for n in range(last + 1) if whole_ids[n : n + len(bare_ids)] == bare_ids), 0)
    return whole_ids[:start], whole_ids[start + len(bare_ids) :]


# --- answers -------------------------------------------------------------------------------------

# Texts before which an answer's first token is cut as it is inside of a text. A tokenizer may put
# a blank before a text, or join an answer's first line break to the prompt's last.
ANCHORS = ("", "\n", "a", ".", "0")


def answer_ids(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], label: str
) -> list[tuple[list[int], list[int]]]:
    """Cut (prompt, answer) texts into (prompt ids, answer ids).

    The loss is on the answer ids, which end in EOS. A prompt has the ids that it has at inference,
    when no answer follows. BadInput names `label` and the row: an answer has no ids of its own, or
    ids that do not give the text back."""
    prompts = ids(tokenizer, [prompt for prompt, _ in pairs])
    joined = ids(tokenizer, [prompt + answer for prompt, answer in pairs])
    cut_pairs = []
    for number, (pair, prompt, whole_ids) in enumerate(zip(pairs, prompts, joined, strict=True), 1):
        answer = _ids_behind(tokenizer, pair, prompt, whole_ids)
        if answer is None or (pair[1].strip() and not answer):
            raise BadInput(
                _seam_message(tokenizer, f"{label}: row {number}", pair, prompt, whole_ids)
            )
        cut_pairs.append((prompt, [*answer, tokenizer.eos_token_id]))
    return cut_pairs


def altered(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    parted: Sequence[tuple[list[int], list[int]]],
) -> list[int]:
    """Return the places of the rows whose ids give another text back. The tokenizer does not know
    some of their characters, or writes them in another form."""
    texts = decode(tokenizer, [prompt + answer for prompt, answer in parted])
    return [n for n, text in enumerate(texts) if not gives_back(text, "".join(pairs[n]))]


def gives_back(decoded: str, text: str) -> bool:
    """Say whether `decoded` is `text`. Some tokenizers put a blank before each text."""
    return decoded in (text, f" {text}")


def _ids_behind(
    tokenizer: Any, pair: tuple[str, str], prompt: list[int], whole_ids: list[int]
) -> list[int] | None:
    """Return the ids of a pair's answer behind those of its prompt. None: no ids give the text of
    prompt and answer back."""
    if whole_ids[: len(prompt)] == prompt:
        return whole_ids[len(prompt) :]
    # The tokenizer joins the end of the prompt and the start of the answer, as in one line break of
    # two. So the answer is cut behind an anchor, and its ids count if they give the same text back.
    [text] = decode(tokenizer, [whole_ids])
    for anchor in ANCHORS:
        texts = [anchor, anchor + pair[1]]
        before, after = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        answer: list[int] = after[len(before) :]
        if after[: len(before)] == before and decode(tokenizer, [prompt + answer]) == [text]:
            return answer
    return None


def _seam_message(
    tokenizer: Any, label: str, pair: tuple[str, str], prompt: list[int], whole_ids: list[int]
) -> str:
    """Say of a pair that cannot be parted which token stands where its answer begins."""
    shared = sum(
        1 for _ in takewhile(lambda two: two[0] == two[1], zip(prompt, whole_ids, strict=False))
    )
    tokens = tokenizer.convert_ids_to_tokens(whole_ids[shared : shared + 1] or whole_ids[-1:])
    return (
        f"{label}: the answer {pair[1][:40]!r} has no tokens of its own behind its prompt: they "
        f"run together in {tokens[0] if tokens else ''!r}; mend or leave out the row, or take a "
        "base with another tokenizer"
    )


def cut_left(tokenizer: Any, tokens: list[int], limit: int) -> list[int]:
    """Keep the last `limit` ids, behind those that the tokenizer puts before every text (BOS)."""
    if len(tokens) <= limit:
        return tokens
    opening, _ = added_ids(tokenizer)
    if tokens[: len(opening)] != opening or len(opening) >= limit:
        opening = []
    return opening + tokens[len(tokens) - limit + len(opening) :]


def marker(text: str) -> str | None:
    """Return the first template marker or special token inside `text`, which would break the
    template. None: it holds none."""
    return next((m for m in SECTIONS + SPECIAL if m in text), None)


# --- the template as Jinja -----------------------------------------------------------------------

# The layout of `prompt` as Jinja. `body` puts the default system message in the place of SYSTEM.
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

# Conversations that a template must render as `prompt` writes them: with and without a system
# message, with an empty answer, and with blanks and line ends around a text.
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
    # Every string of JSON is a string of Jinja too, whatever quotes and braces it holds.
    return _BODY.replace("SYSTEM", json.dumps(SYSTEM.fill(), ensure_ascii=False))


def is_ours(tokenizer: Any) -> bool:
    """Say whether the tokenizer's chat template comes from `template`."""
    return str(tokenizer.chat_template or "").endswith(body())


def template(tokenizer: Any) -> str:
    """Write the layout as Jinja for a checkpoint with this tokenizer, with BOS where it adds it.

    A server makes the ids of `prompts` with it. BadInput: no template gives these ids."""
    opening, _ = added_ids(tokenizer)
    tokens = "".join(tokenizer.convert_ids_to_tokens(opening))
    bos = "bos_token" if tokens == tokenizer.bos_token else json.dumps(tokens)
    # Some tokenizers put a blank before a text, but not before one that stands behind BOS.
    starts = [f"{{{{ {bos} }}}}", f"{{{{ {bos} + ' ' }}}}"] if opening else [""]
    for start in starts:
        if _agrees(tokenizer, start + body()):
            return start + body()
    raise BadInput(
        "the tokenizer cuts a prompt otherwise behind the text of its first special token "
        f"({tokens!r}), so that a server would not ask what was trained; take a base with another "
        "tokenizer"
    )


def opened_by_tokenizer(tokenizer: Any, rendered: str) -> str:
    """Drop from a rendered text the opening that the tokenizer adds itself."""
    return rendered[rendered.index(SECTIONS[0]) :]


def _agrees(tokenizer: Any, source: str) -> bool:
    """Say whether `source` renders the conversations of _PROOF to the ids of their prompts."""
    for talk in _PROOF:
        system = talk[0]["content"] if talk[0]["role"] == "system" else ""
        turns = [Message.model_validate(m) for m in talk if m["role"] != "system"]
        rendered = tokenizer.apply_chat_template(
            talk, chat_template=source, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        if [rendered] != ids(tokenizer, [prompt(turns, system)]):
            return False
    return True
