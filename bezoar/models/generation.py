"""Text from a loaded model: many prompts at once, each continued as it would be alone.

A row that has ended is computed no further. When half of the rows have ended, the next prompts take
their place (continuous batching). So one long answer holds up no others. The tokens that all
prompts begin with are computed once.

Rows of a batch are padded on the left. This changes the order in which a row's attention is summed
up. So its logits differ from those it has alone in the last digits of a float, and its text where
two tokens are that close.

Not every kind of model can be continued in this mode. A window counts the padding that stands
between a shared opening and a prompt's own tokens, and a recurrent state takes padding in.
`fastest` tries on a small copy of the model which mode gives each prompt the logits that it has
alone.
"""

import json
import math
import random
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from bezoar.models import loading, small
from bezoar.rows.files import BadInput
from bezoar.work.progress import bar

Finish = Literal["stop", "length", "no_room"]
# The modes in which prompts are continued, the fastest first. shared: in a batch, and the tokens
# that all begin with are read once. padded: in a batch, padded on the left. alike: in batches of
# equal length. alone: one by one. bare: one by one, and all of a text is read anew for each token.
Mode = Literal["shared", "padded", "alike", "alone", "bare"]
MODES: tuple[Mode, ...] = ("shared", "padded", "alike", "alone", "bare")
SLOWER = {
    "alike": "in batches of equal length",
    "alone": "one by one",
    "bare": "one by one, and all of a text is read anew for each token",
}
# Standard deviations of the logits. In float32 a larger difference is more than rounding.
EXACT = 1e-3

# Tokens of prompts read at once, padding included. More want memory and are not read faster.
READ = 1024
ROOM = 16  # tokens that a row may grow by before its keys and values are copied


class Continuation(NamedTuple):
    """The text that a model wrote after a prompt, and the reason why it stopped."""

    text: str
    finish: Finish


class Ended(NamedTuple):
    """A prompt that is continued no further.

    It has its name, its continuation, and the number of tokens written, an end token included.
    """

    name: int
    continuation: Continuation
    tokens: int


class Draw(NamedTuple):
    """The temperature and the seed by which each token after a prompt is drawn from all tokens.

    The random numbers follow from `seed` alone. At temperature 0 the likeliest token is taken.
    """

    temperature: float
    seed: str


GREEDY = Draw(0.0, "")


class _Row:
    """A prompt that is being continued."""

    def __init__(self, name: int, prompt: list[int], most: int, draw: Draw) -> None:
        self.name, self.prompt, self.most = name, prompt, most
        self.temperature, self.numbers = draw.temperature, random.Random(draw.seed)
        self.written: list[int] = []


class _Rows(NamedTuple):
    """The n prompts that are being continued together, with the model's state for each."""

    members: list[_Row]
    logits: Any  # [n, vocabulary], of the next token
    mask: Any  # [n, length], 0 where a row is padded
    cache: Any


Opening = tuple[int, list[tuple[Any, Any]]]
NOTHING: Opening = (0, [])


class Batch:
    """Prompts that are continued together, at most `size`.

    Others may be added at any time, and take the place of those that have ended. `opening` is what
    all of them begin with. `mode` is one of MODES. Without it the fastest is taken in which prompts
    do not change each other's logits.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        size: int,
        opening: Opening = NOTHING,
        mode: Mode | None = None,
    ) -> None:
        self._model, self._tokenizer, self._size, self._opening = model, tokenizer, size, opening
        self._mode = mode or fastest(model)
        self._stops = end_tokens(model, tokenizer)
        self.positions = loading.context(model.config)
        self._waiting: deque[_Row] = deque()
        self._rows: _Rows | None = None

    def __bool__(self) -> bool:
        """Say whether anything is left to be continued."""
        return bool(self._waiting or self._rows)

    @property
    def free(self) -> int:
        """The number of prompts that may join now.

        It is none until half of the rows have ended, because the state of all others is copied when
        prompts join.
        """
        if self._mode in SLOWER:
            return self._size - len(self._waiting)
        going = len(self._rows.members) if self._rows else 0
        return self._size - going if 2 * going <= self._size else 0

    def add(self, name: int, prompt: list[int], most: int, draw: Draw = GREEDY) -> None:
        """Add a prompt (token ids, one at least), to be continued by at most `most` tokens.

        It is not continued past the model's context.
        """
        room = self.positions - len(prompt)
        self._waiting.append(_Row(name, prompt, min(most, room), draw))

    def step(self) -> list[Ended]:
        """Write one token after each prompt, and return the prompts that have ended.

        In the modes alike, alone and bare, write some prompts to their ends instead.
        """
        import torch

        if self._mode not in ("shared", "padded"):
            return self._write_some()
        with torch.inference_mode():
            self._join()
            assert self._rows is not None
            tokens = _next(self._rows)
            going, ended = [], []
            for n, (row, token) in enumerate(zip(self._rows.members, tokens.tolist(), strict=True)):
                row.written.append(token)
                if token not in self._stops and len(row.written) < row.most:
                    going.append(n)
                else:
                    ended.append(self._finish(row))
            places = _filled(going)
            rows = self._rows
            self._rows = (
                _step(self._model, _select(rows, places), tokens[places]) if places else None
            )
        return ended

    def _join(self) -> None:
        """Read the prompts that wait, as many as are free to join."""
        joining = [self._waiting.popleft() for _ in range(min(self.free, len(self._waiting)))]
        if not joining:
            return
        # Prompts of like length are read together, so that there is little padding.
        joining.sort(key=lambda row: -len(row.prompt))
        parts = [self._rows] if self._rows else []
        for group in _groups([len(row.prompt) - self._opening[0] for row in joining]):
            rows = [joining[n] for n in group]
            parts.append(_begin(self._model, self._tokenizer, rows, self._opening))
        self._rows = _join(parts)

    def _write_some(self) -> list[Ended]:
        """Continue the next prompts to their ends: those of one length, or one alone."""
        length = len(self._waiting[0].prompt)
        alike = [row for row in self._waiting if len(row.prompt) == length]
        rows = alike[: self._size if self._mode == "alike" else 1]
        for row in rows:
            self._waiting.remove(row)
        most = max(row.most for row in rows)
        written, _ = _continue_to_end(
            self._model, self._tokenizer, rows, most, stops=self._stops, mode=self._mode
        )
        for row, ids in zip(rows, written, strict=True):
            ends_at = (n for n, token in enumerate(ids, 1) if token in self._stops)
            row.written = ids[: min(row.most, next(ends_at, len(ids)))]
        return [self._finish(row) for row in rows]

    def _finish(self, row: _Row) -> Ended:
        ids = row.written
        stopped = ids[-1] in self._stops
        text = self._tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        return Ended(row.name, Continuation(text, "stop" if stopped else "length"), len(ids))


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    draws: Sequence[Draw] = (),
    done: MutableMapping[int, Any] | None = None,
) -> list[Continuation]:
    """Continue each prompt (token ids) until an end token or a limit.

    The limits are `max_new_tokens` and the end of the model's context. `draws` has for each prompt
    how its tokens are drawn. Without `draws` the likeliest are taken. `done` has (text, finish) of
    prompts by their number, which are not continued again, and gets the others as they end.
    """
    done = {} if done is None else done
    left = [i for i in range(len(prompts)) if i not in done]
    if not left:
        return [Continuation(*done[i]) for i in range(len(prompts))]
    with bar("answering", len(prompts), len(done)) as advance:
        mode = fastest(model)
        opening = _opening(model, prompts) if mode == "shared" else NOTHING
        batch = Batch(model, tokenizer, batch_size, opening, mode)
        # Prompts of like length are continued together, so that there is little padding.
        for i in sorted(left, key=lambda i: (-len(prompts[i]), i)):
            batch.add(i, prompts[i], max_new_tokens, draws[i] if draws else GREEDY)
        while batch:
            ended = batch.step()
            for row in ended:
                done[row.name] = [*row.continuation]
            advance(len(ended))
    return [Continuation(*done[i]) for i in range(len(prompts))]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a text."""
    model_ends = model.generation_config.eos_token_id or []
    stops = {tokenizer.eos_token_id, *([model_ends] if isinstance(model_ends, int) else model_ends)}
    # A model that was trained on texts one after the other may end one by beginning the next.
    return (stops | {tokenizer.bos_token_id}) - {None}


def _next(rows: _Rows) -> Any:
    """Return a token for each row, [n]."""
    likeliest = rows.logits.argmax(-1)
    if not any(row.temperature for row in rows.members):
        return likeliest
    draws = [(row.temperature, row.numbers.random()) for row in rows.members]
    return _draw_tokens(rows.logits, likeliest, draws)


def _draw_tokens(logits: Any, likeliest: Any, draws: Sequence[tuple[float, float]]) -> Any:
    """Return a token for each row, [n], by its draw (temperature, number from 0 to 1).

    The tokens' probabilities are laid end to end from 0 to 1. The token is drawn on which the
    number falls.
    """
    import torch

    temperatures, numbers = torch.tensor(draws, dtype=torch.float64).T
    hot = (temperatures > 0).nonzero().flatten()
    scores = logits.cpu()[hot].double()
    # The highest score is taken off, so that no temperature, however low, divides into infinities.
    scores = (scores - scores.amax(-1, keepdim=True)) / temperatures[hot, None]
    borders = scores.softmax(-1).cumsum(-1)
    fallen = torch.searchsorted(borders, numbers[hot, None], right=True).flatten()
    chosen = likeliest.clone()
    # The probabilities may add up to a little less than 1, and the number lie beyond their sum.
    chosen[hot.to(chosen.device)] = fallen.clamp(max=logits.shape[1] - 1).to(chosen.device)
    return chosen


# --- the mode ------------------------------------------------------------------------------------

_TRIED: dict[str, Mode] = {}
_TOKENS = 64  # of a trial's vocabulary
# The lengths of a trial's prompts after the opening of three tokens that all share. Two are equal,
# for the mode alike. The longest pass a small copy's window.
_LENGTHS = (3, 19, 11, 19, 2)


def fastest(model: Any) -> Mode:
    """Return the fastest mode in which prompts get the logits that each has alone.

    The modes are tried on a small copy of this kind of model. A slower one than a batch is
    announced on standard error. BadInput: no mode gives these logits.
    """
    key = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    if key not in _TRIED:
        _TRIED[key] = _find_mode(model.config)
        if _TRIED[key] in SLOWER:
            pace = SLOWER[_TRIED[key]]
            print(f"answers of a model of kind {model.config.model_type}: {pace}", file=sys.stderr)
    return _TRIED[key]


def _find_mode(config: Any) -> Mode:
    try:
        copy = small.build(small.shrink(config, _TOKENS))
    except ValueError:
        # There is no small copy to try on. One by one no prompt can depend on another.
        return "alone"
    why = "its logits are others than those of the whole text"
    for mode in MODES:
        try:
            if largest_deviation(copy, mode) < EXACT:
                return mode
        except Exception as error:  # whatever a kind of model stumbles over
            why = " ".join(str(error).split())[:200] or type(error).__name__
    raise BadInput(
        f"a model of kind {config.model_type} cannot write answers ({why}); name a model of "
        "another kind"
    )


def largest_deviation(model: Any, mode: Mode) -> float:
    """Return how far the logits of prompts continued in `mode` are from those of each text alone.

    It is the largest difference, in standard deviations of the logits of a text alone, read in one
    go. `model` is small, in float32.
    """
    import torch

    numbers = random.Random(0)
    prompts = [[5, 6, 7, *(numbers.randrange(8, _TOKENS - 4) for _ in range(n))] for n in _LENGTHS]
    rows = [_Row(name, prompt, 6, GREEDY) for name, prompt in enumerate(prompts)]
    with torch.inference_mode():
        if mode in ("shared", "padded"):
            return _batch_deviation(model, rows, mode)
        alike = [row for row in rows if len(row.prompt) == len(rows[1].prompt)]
        groups = [alike] if mode == "alike" else [[row] for row in alike]
        return max(_group_deviation(model, group, mode) for group in groups)


class _Blank:
    """A stand-in for the tokenizer that a batch asks for."""

    pad_token_id, eos_token_id, bos_token_id = 0, None, None

    def decode(self, ids: list[int], **_: Any) -> str:
        return ""


def _batch_deviation(model: Any, rows: list[_Row], mode: Mode) -> float:
    opening = _opening(model, [row.prompt for row in rows]) if mode == "shared" else NOTHING
    batch = Batch(model, _Blank(), 2 * len(rows), opening, mode)
    batch._stops = set()  # no token ends a row
    for row in rows[:-1]:
        batch.add(row.name, row.prompt, row.most + row.name)
    worst = 0.0
    for step in range(rows[0].most):
        if step == 2:  # the last prompt joins a batch that has begun
            batch.add(rows[-1].name, rows[-1].prompt, rows[-1].most)
        batch.step()
        if batch._rows is not None:
            for row, logits in zip(batch._rows.members, batch._rows.logits, strict=True):
                worst = max(
                    worst, _deviation(logits, _logits_alone(model, row.prompt + row.written))
                )
    return worst


def _group_deviation(model: Any, rows: list[_Row], mode: Mode) -> float:
    written, logits = _continue_to_end(model, _Blank(), rows, rows[0].most, stops=set(), mode=mode)
    return max(
        _deviation(logits[step][n], _logits_alone(model, row.prompt + written[n][:step]))
        for n, row in enumerate(rows)
        for step in range(len(logits))
    )


def _logits_alone(model: Any, ids: list[int]) -> Any:
    return model(input_ids=_tensor(model, [ids]), use_cache=False).logits[0, -1]


def _deviation(logits: Any, right: Any) -> float:
    difference = float((logits - right).abs().max() / right.std())
    return float("inf") if math.isnan(difference) else difference


# --- to the end, by transformers -----------------------------------------------------------------


def _continue_to_end(
    model: Any, tokenizer: Any, rows: list[_Row], most: int, *, stops: set[int], mode: Mode
) -> tuple[list[list[int]], Any]:
    """Continue prompts of one length by transformers' own loop.

    It uses the kind's own cache, or none in the mode bare. Returns the tokens of each row. Without
    `stops` it also returns the logits of each token, before one is drawn.
    """
    import torch
    from transformers import GenerationConfig

    def leave_drawn(ids: Any, scores: Any) -> Any:
        """Return scores that leave only the token that each row draws."""
        draws = [(row.temperature, row.numbers.random()) for row in rows]
        chosen = _draw_tokens(scores, scores.argmax(-1), draws)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    ids = _tensor(model, [row.prompt for row in rows])
    pad = tokenizer.pad_token_id
    config = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad,
        use_cache=mode != "bare",
        return_dict_in_generate=True,
        output_logits=not stops,
    )
    with plain(model):
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=[leave_drawn] if any(row.temperature for row in rows) else [],
        )
    return output.sequences[:, ids.shape[1] :].tolist(), output.logits


@contextmanager
def plain(model: Any) -> Iterator[None]:
    """Leave out what the model's own generation_config.json would add, such as a penalty."""
    from transformers import GenerationConfig

    original, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = original


# --- the batch -----------------------------------------------------------------------------------


def _opening(model: Any, prompts: Sequence[list[int]]) -> Opening:
    """Return how many tokens all prompts begin with, and the model's cache after them.

    Each prompt keeps one token at least of its own.
    """
    # Of prompts in sorted order, all begin with what the first and the last have in common.
    first, last = min(prompts), max(prompts)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = min(sum(1 for _ in same), *(len(prompt) - 1 for prompt in prompts))
    cache = _cache()
    if shared:
        import torch

        with torch.inference_mode():
            ids = _tensor(model, [first[:shared]])
            _logits(model, ids, ids.new_ones(ids.shape), cache)
    return shared, [(layer.keys, layer.values) for layer in cache.layers]


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Group rows of falling lengths, by their place, to be read together.

    A group has as many rows as make READ tokens with their padding, and one at least.
    """
    groups: list[list[int]] = []
    for n in range(len(lengths)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= READ:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def _begin(model: Any, tokenizer: Any, rows: list[_Row], opening: Opening) -> _Rows:
    """Read prompts. The padding stands between the shared opening and a prompt's own tokens.

    With "A B" shared and prompts of 3 and 1 further tokens the rows are "A B c d e" and "A B . .
    c".
    """
    shared, entries = opening
    tails = [row.prompt[shared:] for row in rows]
    gaps = [max(map(len, tails)) - len(ids) for ids in tails]
    pad = tokenizer.pad_token_id
    ids = _tensor(model, [[pad] * gap + tail for gap, tail in zip(gaps, tails, strict=True)])
    mask = _tensor(
        model,
        [[1] * shared + [0] * g + [1] * len(tail) for g, tail in zip(gaps, tails, strict=True)],
    )
    n = len(rows)
    cache = _cache([(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in entries])
    return _Rows(rows, _logits(model, ids, mask, cache), mask, cache)


def _step(model: Any, rows: _Rows, tokens: Any) -> _Rows:
    """Add a token to each row."""
    import torch

    mask = torch.cat([rows.mask, rows.mask.new_ones(len(tokens), 1)], dim=1)
    return rows._replace(logits=_logits(model, tokens[:, None], mask, rows.cache), mask=mask)


def _filled(going: Sequence[int]) -> list[int]:
    """Return the places `going` in an order where as few rows as possible move.

    Rows that end leave gaps. The last rows fill these, and no others move: of the places 0, 2 and 3
    row 3 fills gap 1, which gives 0, 3, 2.
    """
    staying = set(going)
    last = [n for n in going if n >= len(going)]
    return [n if n in staying else last.pop() for n in range(len(going))]


def _select(rows: _Rows, places: list[int]) -> _Rows:
    """Return the rows at these places."""
    import torch

    if len(places) == len(rows.members):
        return rows
    index = torch.tensor(places, device=rows.mask.device)
    rows.cache.batch_select_indices(index)
    return _Rows(
        [rows.members[n] for n in places], rows.logits[index], rows.mask[index], rows.cache
    )


def _join(parts: Sequence[_Rows]) -> _Rows:
    """Return all rows as one batch, the shorter ones padded on the left.

    A column that no row uses is removed.
    """
    import torch
    from torch.nn.functional import pad

    if len(parts) == 1:
        return parts[0]
    length = max(part.mask.shape[1] for part in parts)
    gaps = [length - part.mask.shape[1] for part in parts]
    mask = torch.cat([pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)])
    used = mask.any(0)

    def joined(tensors: Sequence[Any]) -> Any:
        pairs = zip(tensors, gaps, strict=True)
        stacked = torch.cat(
            [pad(tensor, (0, 0, gap, 0)) if gap else tensor for tensor, gap in pairs]
        )
        return stacked if used.all() else stacked[:, :, used]

    layers = zip(*(part.cache.layers for part in parts), strict=True)
    return _Rows(
        [row for part in parts for row in part.members],
        torch.cat([part.logits for part in parts]),
        mask[:, used],
        _cache([(joined([a.keys for a in x]), joined([a.values for a in x])) for x in layers]),
    )


def _cache(entries: Sequence[tuple[Any, Any]] = ()) -> Any:
    """Return a cache that begins with keys and values of each layer, [n, heads, length, size]."""
    from transformers.cache_utils import Cache, DynamicLayer

    class Roomy(DynamicLayer):  # type: ignore[misc]
        """Keeps room for tokens to come. A plain layer copies all that it holds for each token."""

        wide: Sequence[Any] = ()  # keys and values with that room

        def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            """Add the new keys and values, and return all."""
            before = self.get_seq_length()
            after = before + keys.shape[2]
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
            if not self.wide or after > self.wide[0].shape[2]:
                # Each gets its own width, because a value may be narrower than its key (DeepSeek).
                wide = [
                    new.new_empty(*new.shape[:2], after + ROOM, new.shape[3])
                    for new in (keys, values)
                ]
                if before:
                    wide[0][:, :, :before], wide[1][:, :, :before] = self.keys, self.values
                self.wide = wide
            self.wide[0][:, :, before:after], self.wide[1][:, :, before:after] = keys, values
            return self._show(after)

        def batch_select_indices(self, indices: Any) -> None:
            """Keep these rows. Those that stand in their place already are not copied."""
            n, length = len(indices), self.get_seq_length()
            to = (indices != indices.new_tensor(range(n))).nonzero().flatten()
            for store in self.wide:
                store[to] = store[indices[to]]
            self.wide = [store[:n] for store in self.wide]
            self._show(length)

        def _show(self, length: int) -> tuple[Any, Any]:
            self.keys, self.values = (store[:, :, :length] for store in self.wide)
            return self.keys, self.values

    cache = Cache(layer_class_to_replicate=Roomy)
    for n, (keys, values) in enumerate(entries):
        cache.update(keys, values, n)
    return cache


def _logits(model: Any, ids: Any, mask: Any, cache: Any) -> Any:
    """Return the logits of the token after each row, [n, vocabulary].

    `cache` takes in `ids` [n, new], which are the last columns of `mask` [n, length].
    """
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    inputs = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
    return model(input_ids=ids, **inputs, use_cache=True, logits_to_keep=1).logits[:, -1]


def _tensor(model: Any, rows: list[list[int]]) -> Any:
    import torch

    return torch.tensor(rows, device=model.device)
