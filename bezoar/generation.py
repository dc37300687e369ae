"""Text from a loaded model: many prompts at once, each continued as it would be alone.

A row that has ended is computed no further, and where half of the rows have, the next prompts take
their place (continuous batching), so that one long answer holds nobody up. What all prompts begin
with is computed once. Rows of a batch are padded on the left, which changes the order in which a
row's attention is summed up: its logits differ from those it has alone in the last digits of a
float, and its text where two tokens are that close.
"""

import random
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from bezoar.progress import bar

Finish = Literal["stop", "length", "no_room"]


# Tokens of prompts read at once, padding and all: more want memory and are not read faster
READ = 1024
ROOM = 16  # tokens that a row may grow by before all that is known of it is copied


class Continuation(NamedTuple):
    """What a model wrote after a prompt, and why it stopped."""

    text: str
    finish: Finish


class Draw(NamedTuple):
    """How the tokens after a prompt are drawn: each from all tokens at `temperature`, by numbers
    that follow from `seed` alone. At 0 the likeliest is taken."""

    temperature: float
    seed: str


class _Rows(NamedTuple):
    """Prompts that are being continued together, n of them, with what is known of each."""

    which: list[int]
    logits: Any  # [n, vocabulary], of the next token
    mask: Any  # [n, length], 0 where a row is padded
    cache: Any


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    draws: Sequence[Draw] = (),
) -> list[Continuation]:
    """Continue each prompt (token ids) until an end token, `max_new_tokens` or the end of the
    model's context, as `draws` says of each; greedy without them."""
    import torch

    if not prompts:
        return []
    stops = ends(model, tokenizer)
    room = [model.config.max_position_embeddings - len(prompt) for prompt in prompts]
    numbers = [random.Random(draw.seed) for draw in draws]
    written: list[list[int]] = [[] for _ in prompts]
    # alike lengths together: little padding
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    with torch.inference_mode(), bar("answering", len(prompts)) as advance:
        opening = _opening(model, prompts)
        rows: _Rows | None = None
        while waiting or rows:
            if waiting and (rows is None or 2 * len(rows.which) <= batch_size):
                free = batch_size - (len(rows.which) if rows else 0)
                which = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                parts = [rows] if rows else []
                for group in _groups([len(prompts[i]) - opening[0] for i in which]):
                    begun = [which[n] for n in group]
                    parts.append(_begin(model, tokenizer, prompts, begun, opening))
                rows = _join(parts)
            assert rows is not None
            tokens = rows.logits.argmax(-1)
            if draws:
                how = [(draws[i].temperature, numbers[i].random()) for i in rows.which]
                tokens = _drawn(rows.logits, tokens, how)
            going = []
            for n, (i, token) in enumerate(zip(rows.which, tokens.tolist(), strict=True)):
                written[i].append(token)
                if token not in stops and len(written[i]) < min(max_new_tokens, room[i]):
                    going.append(n)
            advance(len(rows.which) - len(going))
            at = _filled(going)
            rows = _step(model, _select(rows, at), tokens[at]) if at else None
    return [_continuation(tokenizer, ids, stops) for ids in written]


def ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text."""
    own = model.generation_config.eos_token_id or []
    stops = {tokenizer.eos_token_id, *([own] if isinstance(own, int) else own)}
    # a model that was shown texts one after the other may end one by beginning the next
    return (stops | {tokenizer.bos_token_id}) - {None}


def _continuation(tokenizer: Any, ids: list[int], stops: set[int]) -> Continuation:
    ended = ids[-1] in stops
    text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
    return Continuation(text, "stop" if ended else "length")


def _drawn(logits: Any, likeliest: Any, at: Sequence[tuple[float, float]]) -> Any:
    """A token a row, [n], at its (temperature, number from 0 to 1): where the number falls when
    the tokens' probabilities are laid end to end."""
    import torch

    temperatures, numbers = torch.tensor(at, dtype=torch.float64).T
    hot = (temperatures > 0).nonzero().flatten()
    scores = logits.cpu()[hot].double() / temperatures[hot, None]
    borders = scores.softmax(-1).cumsum(-1)
    fallen = torch.searchsorted(borders, numbers[hot, None], right=True).flatten()
    chosen = likeliest.clone()
    # the probabilities' sum may fall short of 1 by a digit
    chosen[hot.to(chosen.device)] = fallen.clamp(max=logits.shape[1] - 1).to(chosen.device)
    return chosen


# --- the batch -----------------------------------------------------------------------------------


def _opening(model: Any, prompts: Sequence[list[int]]) -> tuple[int, list[tuple[Any, Any]]]:
    """How many tokens all prompts begin with, each keeping one of its own, and what the model's
    layers know after them."""
    first, last = min(prompts), max(prompts)  # what these two share, all share
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = min(sum(1 for _ in same), *(len(prompt) - 1 for prompt in prompts))
    cache = _cache()
    if shared:
        ids = _tensor(model, [first[:shared]])
        _logits(model, ids, ids.new_ones(ids.shape), cache)
    return shared, [(layer.keys, layer.values) for layer in cache.layers]


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of falling lengths, by their place, that are read together: as many as have READ tokens
    with their padding, and one at least."""
    groups: list[list[int]] = []
    for n in range(len(lengths)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= READ:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def _begin(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    which: list[int],
    opening: tuple[int, list[tuple[Any, Any]]],
) -> _Rows:
    """Read prompts: the padding stands between what all share and what is a prompt's own."""
    shared, known = opening
    own = [prompts[i][shared:] for i in which]
    gaps = [max(map(len, own)) - len(ids) for ids in own]
    pad = tokenizer.pad_token_id
    ids = _tensor(model, [[pad] * gap + o for gap, o in zip(gaps, own, strict=True)])
    mask = _tensor(
        model, [[1] * shared + [0] * g + [1] * len(o) for g, o in zip(gaps, own, strict=True)]
    )
    n = len(which)
    cache = _cache([(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in known])
    return _Rows(which, _logits(model, ids, mask, cache), mask, cache)


def _step(model: Any, rows: _Rows, tokens: Any) -> _Rows:
    """Add a token to each row."""
    import torch

    mask = torch.cat([rows.mask, rows.mask.new_ones(len(tokens), 1)], dim=1)
    return rows._replace(logits=_logits(model, tokens[:, None], mask, rows.cache), mask=mask)


def _filled(going: Sequence[int]) -> list[int]:
    """The places `going` such that the last ones fill the gaps and no others move."""
    staying = set(going)
    last = [n for n in going if n >= len(going)]
    return [n if n in staying else last.pop() for n in range(len(going))]


def _select(rows: _Rows, places: list[int]) -> _Rows:
    """The rows at these places."""
    import torch

    if len(places) == len(rows.which):
        return rows
    at = torch.tensor(places, device=rows.mask.device)
    rows.cache.batch_select_indices(at)
    return _Rows([rows.which[n] for n in places], rows.logits[at], rows.mask[at], rows.cache)


def _join(parts: Sequence[_Rows]) -> _Rows:
    """All as one batch, the shorter ones padded on the left; a column that no row uses goes."""
    import torch
    from torch.nn.functional import pad

    if len(parts) == 1:
        return parts[0]
    length = max(part.mask.shape[1] for part in parts)
    gaps = [length - part.mask.shape[1] for part in parts]
    mask = torch.cat([pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)])
    used = mask.any(0)

    def joined(known: Sequence[Any]) -> Any:
        pairs = zip(known, gaps, strict=True)
        whole = torch.cat([pad(one, (0, 0, gap, 0)) if gap else one for one, gap in pairs])
        return whole if used.all() else whole[:, :, used]

    layers = zip(*(part.cache.layers for part in parts), strict=True)
    return _Rows(
        [i for part in parts for i in part.which],
        torch.cat([part.logits for part in parts]),
        mask[:, used],
        _cache([(joined([a.keys for a in x]), joined([a.values for a in x])) for x in layers]),
    )


def _cache(known: Sequence[tuple[Any, Any]] = ()) -> Any:
    """A cache that begins with keys and values of each layer, [n, heads, length, size]."""
    from transformers.cache_utils import Cache, DynamicLayer

    class Roomy(DynamicLayer):  # type: ignore[misc]
        """Keeps room for tokens to come; a plain one copies all it knows for each."""

        wide: Sequence[Any] = ()  # keys and values with that room

        def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            """Take in what is new; all that is known."""
            before = self.get_seq_length()
            after = before + keys.shape[2]
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
            if not self.wide or after > self.wide[0].shape[2]:
                n, heads, _, size = keys.shape
                wide = [new.new_empty(n, heads, after + ROOM, size) for new in (keys, values)]
                if before:
                    wide[0][:, :, :before], wide[1][:, :, :before] = self.keys, self.values
                self.wide = wide
            self.wide[0][:, :, before:after], self.wide[1][:, :, before:after] = keys, values
            return self._show(after)

        def batch_select_indices(self, indices: Any) -> None:
            """Keep these rows; those that stand in their place already are not copied."""
            n, length = len(indices), self.get_seq_length()
            to = (indices != indices.new_tensor(range(n))).nonzero().flatten()
            for each in self.wide:
                each[to] = each[indices[to]]
            self.wide = [each[:n] for each in self.wide]
            self._show(length)

        def _show(self, length: int) -> tuple[Any, Any]:
            self.keys, self.values = (each[:, :, :length] for each in self.wide)
            return self.keys, self.values

    cache = Cache(layer_class_to_replicate=Roomy)
    for n, (keys, values) in enumerate(known):
        cache.update(keys, values, n)
    return cache


def _logits(model: Any, ids: Any, mask: Any, cache: Any) -> Any:
    """Of the token after each row, [n, vocabulary]; `cache` learns `ids` [n, new], the last of the
    columns of `mask` [n, length]."""
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    told = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
    return model(input_ids=ids, **told, use_cache=True, logits_to_keep=1).logits[:, -1]


def _tensor(model: Any, rows: list[list[int]]) -> Any:
    import torch

    return torch.tensor(rows, device=model.device)
