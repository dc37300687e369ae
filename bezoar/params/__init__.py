"""params.yaml, typed and closed: all of it is checked, under every profile, before a stage starts.

A stage's parameters are the recipe's section joined with the active profile's. A key stands in one
of the two, never in both.
"""

import copy
import difflib
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from bezoar.arithmetic import Instructions
from bezoar.params import arguments, harness_names, lines
from bezoar.params.faults import (
    Fault,
    fold,
    format_value,
    from_errors,
    hint,
    near,
    place_in_file,
    value_at,
)
from bezoar.params.lines import Document, NotYaml
from bezoar.rows.files import BadInput, write


class Section(BaseModel):
    """A mapping in params.yaml. A key that its class does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Share = Annotated[float, Field(ge=0, le=1)]


def _reject_boolean(value: object) -> object:
    # To Python a boolean is an int, and pydantic would read true as 1.
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted; true and false are none")
    return value


Count = Annotated[int, BeforeValidator(_reject_boolean), Field(gt=0)]
Number = Annotated[int, BeforeValidator(_reject_boolean), Field(ge=0)]
# numpy's generators take no other seeds.
Seed = Annotated[int, BeforeValidator(_reject_boolean), Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, lt=1)]
L = TypeVar("L", bound=list[Any])


def _reject_repeats(values: L) -> L:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} stands there twice; keep one of them")
    return values


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_reject_repeats)]


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address; write one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"a key has no place in an address; name its variable in {KEY_FIELD}")
    url = url.rstrip("/")
    if end := re.search(r"/(?:chat/completions|completions|messages|models|responses)\Z", url):
        raise ValueError(f"{end[0]} is added by the client; let the address end before it")
    return url


def _check_urls(urls: str | list[str]) -> str | list[str]:
    if isinstance(urls, str):
        return _check_url(urls)
    if not urls:
        raise ValueError("names no address; give one, or several")
    return [_check_url(url) for url in urls]


def _check_variable(name: str) -> str:
    # People paste the key itself here. It must not become a fingerprint, a lock file or a message.
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise ValueError("not the name of an environment variable; OPENAI_API_KEY is one, say")
    return name


def _check_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError("not usable as a name; one is made of letters, digits, _ and -")
    return name


# A part of a path and of a stage's name.
Name = Annotated[str, AfterValidator(_check_name)]


def _check_request_params(params: dict[str, Any]) -> dict[str, Any]:
    for name in params:
        if name in ("trust_remote_code", "custom_generate"):
            raise ValueError(f"{name!r} would have a model run code of its own; leave it out")
        if name in ("model", "messages", "prompt", "system", "stream", "n"):
            raise ValueError(f"{name!r} is set by the client, one reply a request; leave it out")
        if re.search(r"api.?key|authori[sz]ation|secret|password", name, re.IGNORECASE):
            raise ValueError(f"a key has no place in params; name its variable in {KEY_FIELD}")
    return params


KEY_FIELD = "api_key_env"
PAIRS = "fetch/hh_rlhf"  # the preference pairs, below data/
OWN = "dolly"  # seeds that are a set of their own: data/filter/dolly
LOCAL_FOLDER = "local/llm"  # models that are run in this process, each a folder
FURTHER = "models/"  # what the further models lie under, below models/
Url = Annotated[str, AfterValidator(_check_url)]


# --- what follows what ---------------------------------------------------------------------------


def _check_sets(data: object) -> object:
    paths = [data] if isinstance(data, str) else data
    if not isinstance(paths, list) or not paths or not all(isinstance(x, str) for x in paths):
        raise ValueError(
            "names no sets; one set, such as filter/lamini, or a list of sets that are mixed"
        )
    if twice := sorted({x for x in paths if paths.count(x) > 1}):
        raise ValueError(f"{twice[0]} stands there twice; keep one of them")
    return data


class Link(Section):
    """One link of the training chain.

    `base`, `start`: paths below models/, of the base and of the weights that training starts from.
    `data`: one path below data/, or several whose sets are mixed.
    """

    weights: Literal["adapter", "all"]
    base: str
    start: str
    data: Annotated[str | list[str], BeforeValidator(_check_sets)]

    @property
    def sets(self) -> list[str]:
        """Return the sets of `data`, one or several."""
        return [self.data] if isinstance(self.data, str) else self.data


class Aligned(Section):
    """Weights that DPO starts from, and its reference: a path below models/."""

    start: str


class Merge(Section):
    """Adapters of one base. `second` and `third` add nothing where they repeat another."""

    base: str
    adapter: str
    second: str
    third: str

    @property
    def adapters(self) -> list[str]:
        """Return the adapters to merge, each once."""
        return list(dict.fromkeys([self.adapter, self.second, self.third]))


class Checkpoint(Section):
    model: str

    @property
    def further(self) -> bool:
        """Say whether it is one of `models`, which this recipe did not make."""
        return self.model.startswith(FURTHER)


class Evaluated(Checkpoint):
    base: str
    link: bool


class Compared(Section):
    """Two of `checkpoints`: the grader says how often `model` is better than `baseline`."""

    model: str
    baseline: str


# --- who -----------------------------------------------------------------------------------------


def _check_terms(terms: str) -> str:
    # "Apache License, Version 2.0" is one licence, in spite of its comma.
    if "," in re.sub(r",(?=\s*v(ersion)?\b)", "", terms.lower()) or not terms.strip():
        raise ValueError("not one licence; one set of terms, such as Apache-2.0 or OpenAI-terms")
    return terms


# The terms under which a model's output may be used: an SPDX id, or PROVIDER-terms
# (filtering/licences.py).
Terms = Annotated[str, AfterValidator(_check_terms)]


class Embedded(Section):
    """A simulated model in this process, free."""

    provider: Literal["embedded"]
    model: str
    terms: Terms
    concurrency: Count


class Price(Section):
    """US dollars per million tokens. `batch` is the share of them that batch mode pays."""

    input: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    batch: Share


class Remote(Section):
    """A model behind HTTP.

    `base_url`: an address, or several that serve the same model. Requests are spread over them.
    `params`: go into each request as they are (null leaves one out).
    `again`: replaces some of `params` where a request is made a second time, because its reply said
        nothing usable. At temperature 0 nothing else would change the reply, so without `again`
        there is no second request.
    `context_tokens`: tokens that a request and its reply may have together (null: not known, and
        every request is sent).
    `tokenizer`: a tokenizer.json, or a folder with one, to count these tokens with (null: by a
        stated estimate).
    `timeout`: seconds for one attempt.
    `patience`: seconds for one request with its retries.
    `max_failed`: share of the jobs. Above it the stage fails.
    `reply_tokens`: tokens of a reply, as the forecast estimates them.
    """

    model: str
    terms: Terms
    # Both halves are checked by one function. pydantic would report the other half of a union too,
    # with the address, in which a user may have written a key.
    base_url: Annotated[str | list[str], AfterValidator(_check_urls)]
    api_key_env: Annotated[str, AfterValidator(_check_variable)] | None
    params: Annotated[dict[str, Any], AfterValidator(_check_request_params)]
    # Keys that came later have a default, so that a params.yaml written before them stays valid.
    again: Annotated[dict[str, Any], AfterValidator(_check_request_params)] = {}
    context_tokens: Count | None = None
    tokenizer: str | None = None
    mode: Literal["live", "batch"]
    concurrency: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout: Annotated[float, Field(gt=0)]
    patience: Annotated[float, Field(ge=0)]
    max_failed: Share
    reply_tokens: Count
    price: Price

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of the model. Answers are remembered under the first, so that
        servers may come and go after it."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @model_validator(mode="after")
    def _batches_go_to_one_address(self) -> "Remote":
        if self.mode == "batch" and len(self.addresses) > 1:
            raise ValueError("mode: batch goes to one address; give one base_url, or mode: live")
        if len({*self.addresses}) < len(self.addresses):
            raise ValueError("base_url: an address stands there twice; keep one of them")
        return self


class OpenAI(Remote):
    """Any server that speaks OpenAI's protocol.

    `base_url` ends with /v1.
    `style`: completion sends the prompt as raw text.
    `structured`: a judge's verdict is asked for by a JSON schema, to which the server holds the
        reply. It is false for a server that knows no `response_format`.
    `system_role`: false where the server's chat template refuses a system message, which then opens
        the first user message.
    """

    provider: Literal["openai"]
    style: Literal["chat", "completion"]
    structured: bool
    system_role: bool = True

    @model_validator(mode="after")
    def _schema_wants_chat(self) -> "OpenAI":
        if self.structured and self.style == "completion":
            raise ValueError("structured: a schema goes with style: chat alone; write false")
        return self


class Anthropic(Remote):
    """Anthropic's Messages API. Its `base_url` ends without /v1."""

    provider: Literal["anthropic"]
    api_version: str


# Names for the most tokens of a reply of a model in this process, which takes one of the two.
LOCAL_MAXIMA = ("max_new_tokens", "max_tokens")
# Params that people give other samplers, and the advice for each here.
ELSEWHERE = {
    "do_sample": "temperature alone decides; 0 takes the likeliest token",
    "seed": "what is drawn follows from the request and its sample number",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens, which counts the reply alone",
    **dict.fromkeys(
        ("top_p", "top_k", "min_p", "typical_p"),
        "tokens are drawn from all, by temperature alone; leave it out",
    ),
}


def _check_local_params(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse params that a model in this process lacks: it takes a maximum of a reply, and a
    temperature."""
    keys = (*LOCAL_MAXIMA, "temperature")
    for name, value in _check_request_params(params).items():
        if name not in keys:
            close = difflib.get_close_matches(name, keys, 1)
            instead = ELSEWHERE.get(name) or (
                f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(keys)}"
            )
            raise ValueError(f"{name!r} is not known to a model in this process; {instead}")
        # By its type, for a boolean is an int to Python.
        number = type(value) in (int, float)
        if name == "temperature" and not (value is None or (number and 0 <= value <= 2)):
            raise ValueError(f"temperature: {value!r}; from 0, the likeliest token, to 2")
        if name in LOCAL_MAXIMA and not (value is None or (type(value) is int and value > 0)):
            raise ValueError(f"{name}: {value!r}; tokens of a reply, 1 or more")
    if len(_reply_maxima(params)) > 1:
        raise ValueError(f"{' and '.join(LOCAL_MAXIMA)} say the same; leave one out")
    return params


def _reply_maxima(params: dict[str, Any]) -> list[int]:
    """Return the maxima of a reply that are set, one or none where the params are checked."""
    return [value for name, value in params.items() if name in LOCAL_MAXIMA and value is not None]


def _require_maximum(params: dict[str, Any]) -> dict[str, Any]:
    if not _reply_maxima(params):
        raise ValueError(f"sets no maximum of a reply; {LOCAL_MAXIMA[0]}: 512, say")
    return params


LocalParams = Annotated[dict[str, Any], AfterValidator(_check_local_params)]


class InProcess(Section):
    """A transformers model folder below local/llm/, run in this process.

    `params`: max_new_tokens, the tokens that a reply may have, and temperature. At 0, or without
        one, the likeliest token is taken.
    `again`, `system_role`: as of Remote and OpenAI.
    `batch_size`: requests that are continued together, at most.

    The context of the model is in its config.json.
    """

    provider: Literal["local"]
    model: str
    terms: Terms
    style: Literal["chat", "completion"]
    params: Annotated[LocalParams, AfterValidator(_require_maximum)]
    again: LocalParams = {}
    system_role: bool = True
    concurrency: Count
    batch_size: Count

    def most(self, sample: int = 0) -> int:
        """Return the tokens of the longest reply to the first request (`sample` 0) or to a repeated
        one."""
        return max(_reply_maxima({**self.params, **(self.again if sample else {})}))


Endpoint = Annotated[Embedded | OpenAI | Anthropic | InProcess, Field(discriminator="provider")]


class Budget(Section):
    """US dollars that one stage, and all stages together, may spend (null: no cap).

    A cap counts everything that was bought and lost under the profile and this `name`, by any
    variant of the recipe. Another name begins from zero.
    """

    name: Name = "first"
    stage: Annotated[float, Field(ge=0)] | None
    run: Annotated[float, Field(ge=0)] | None


def _check_panel(panel: list[Endpoint]) -> list[Endpoint]:
    models = [member.model for member in panel]
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise ValueError(f"{twice[0]} stands there twice; a second opinion is another model's")
    return panel


Panel = Annotated[list[Endpoint], Field(min_length=1), AfterValidator(_check_panel)]


def _below(path: str, folder: str) -> bool:
    """Say whether a path, as it is written, is a folder right below another."""
    # The parent of `local/llm/..` is local/llm too, though it does not lie in there.
    return Path(path).parent.as_posix() == folder and Path(path).name != ".."


class Endpoints(Section):
    """The models that the stages ask. `judge` is one endpoint, or several: a panel."""

    teacher: Endpoint
    # The discriminator picks the half before pydantic checks it. A plain union would report one
    # fault under both halves.
    judge: Annotated[
        Annotated[Endpoint, Tag("one")] | Annotated[Panel, Tag("panel")],
        Discriminator(lambda value: "panel" if isinstance(value, list) else "one"),
    ]
    grader: Endpoint

    @property
    def judges(self) -> list[Endpoint]:
        """Return the panel's members in their order, or the one judge where there is no panel."""
        return self.judge if isinstance(self.judge, list) else [self.judge]

    def by_name(self, role: str) -> dict[str, Endpoint]:
        """Return the endpoints of a role (teacher, judge, grader), each by its path below `llm`:
        judge, or judge.0 and so on."""
        entry: Endpoint | list[Endpoint] = getattr(self, role)
        if isinstance(entry, list):
            return {f"{role}.{number}": endpoint for number, endpoint in enumerate(entry)}
        return {role: entry}

    @model_validator(mode="after")
    def _local_models_lie_where_dvc_looks(self) -> "Endpoints":
        for role in type(self).model_fields:
            for name, endpoint in self.by_name(role).items():
                if isinstance(endpoint, InProcess) and not _below(endpoint.model, LOCAL_FOLDER):
                    raise ValueError(
                        f"{name}.model: {endpoint.model}: lies outside of {LOCAL_FOLDER}/, where "
                        "DVC sees that a model has changed; bring it there with cp -r (cp -al "
                        f"links instead of copying), and name it {LOCAL_FOLDER}/NAME"
                    )
        return self

    @model_validator(mode="after")
    def _only_verdicts_have_a_schema(self) -> "Endpoints":
        for role in ("teacher", "grader"):
            if getattr(getattr(self, role), "structured", False):
                raise ValueError(
                    f"{role}.structured: only a judge's verdict has a schema; write false"
                )
        return self


# --- stages --------------------------------------------------------------------------------------


class World(Section):
    """Rows written by the project's own small world."""

    source: Literal["world"]
    rows: Count


AnswerIs = Literal["number_from_0", "number_from_1", "letter", "text", "label"]


class Reading(Section):
    """The way in which files are read as rows.

    `take`: a limit is spread over the files, or takes the first rows as they stand.
    `fields`: our names of fields -> what the files call them.
    `category`: of seeds that name none.
    `answer_is`: the form in which a benchmark writes its answers, where two readings fit.
    """

    take: Literal["spread", "first"] = "spread"
    fields: dict[str, Annotated[str, Field(min_length=1)]] = {}
    category: Annotated[str, Field(min_length=1)] = "open_qa"
    answer_is: AnswerIs | None = None


class Local(Reading):
    """The user's own files in local/NAME/.

    `limit`: rows at most, of benchmarks a task (null: all).
    `licence`: of all files (null: as a README beside a file states it).
    `otherwise`: stands in where there are no files (null: there must be some).
    """

    source: Literal["local"]
    limit: Count | None
    licence: Annotated[str, Field(min_length=1)] | None = None
    otherwise: World | None


class GrownBase(Section):
    """A tiny Llama trained from nothing on the world's text."""

    source: Literal["grown"]
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    positions: Count
    documents: Count
    steps: Count
    batch_size: Count
    sequence: Count
    muon_lr: Rate
    adamw_lr: Rate
    initializer_range: Rate
    warmup_steps: Count
    weight_decay: Share
    adamw_beta2: Share
    clip: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _heads_are_whole(self) -> "GrownBase":
        if self.hidden_size % self.heads:
            raise ValueError(
                f"heads: {self.heads} do not divide hidden_size; it is {self.hidden_size}"
            )
        return self


class LocalBase(Section):
    """The user's own model in local/base/. `otherwise` is grown where there is none."""

    source: Literal["local"]
    otherwise: GrownBase


def _check_commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        raise ValueError(
            "a branch can move; name a commit: 40 hex digits, or its first 7 and more with `ref`"
        )
    return revision


class Repository(Section):
    """A repository of the Hugging Face Hub at one commit.

    `revision`: the whole commit, or its first digits.
    `ref`: the branch whose tip the commit must be. It is needed where `revision` is not whole.
    `licence`: as the repository states it.
    """

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    kind: Literal["dataset", "model", "space"]
    revision: Annotated[str, AfterValidator(_check_commit)]
    ref: str | None
    licence: str

    @model_validator(mode="after")
    def _short_revision_has_ref(self) -> "Repository":
        if len(self.revision) < 40 and self.ref is None:
            raise ValueError(
                "revision: is part of a commit; name `ref` too, the branch that ends in it"
            )
        return self


class Files(Repository):
    """Some files of a repository, in this order. A name may be a pattern with `*`."""

    files: Annotated[list[str], Field(min_length=1)]


class Hub(Reading):
    """Rows from the Hugging Face Hub, at most `limit` (null: all)."""

    source: Literal["hub"]
    parts: Annotated[list[Files], Field(min_length=1)]
    limit: Count | None


class Mixtures(Section):
    """The files of each sub-mixture of the FLAN collection, as patterns."""

    cot: list[str]
    niv2: list[str]
    t0: list[str]
    flan2021: list[str]


class HubFlan(Repository):
    """The FLAN collection from the Hub, streamed.

    `per_task`: rows of each task, drawn evenly from all that are read.
    `task_share`: share of the tasks that are taken.
    `shards`: files of a pattern at most (null: all).
    """

    source: Literal["hub"]
    mixtures: Mixtures
    per_task: Count
    task_share: Annotated[float, Field(gt=0, le=1)]
    shards: Count | None


class Wikipedia(Section):
    """Categories of Wikipedia out of its category table (a dump, `category.sql.gz`).

    `sha256`: of the file (null: take what the address holds now).
    `housekeeping`: words that make a category one of Wikipedia's housekeeping.
    """

    source: Literal["wikipedia"]
    url: Url
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    licence: str
    housekeeping: list[str]


class Harness(Section):
    """Tasks of the harness, and no items of our own. lm_eval brings `tasks`, the same as
    lm_eval.tasks, from the Hub. Their texts are written down, for `filter` to look for them."""

    source: Literal["harness"]
    tasks: Names


class HubBase(Files):
    """A base model from the Hub."""

    source: Literal["hub"]


class FurtherHub(HubBase):
    """A further model from the Hub.

    `chat_template`: the Jinja by which a conversation is put to it (null: its tokenizer's, and this
        recipe's where that has none).
    `stop`: texts that begin the next turn, for a model that writes that too. An answer ends before
        them.
    """

    chat_template: str | None
    stop: list[Annotated[str, Field(min_length=1)]] = []


class FurtherLocal(Section):
    """A further model in local/models/NAME/. `chat_template` and `stop` as of FurtherHub."""

    source: Literal["local"]
    chat_template: str | None
    stop: list[Annotated[str, Field(min_length=1)]] = []


class FurtherServed(Section):
    """A further model behind HTTP."""

    source: Literal["served"]
    endpoint: Annotated[OpenAI | Anthropic, Field(discriminator="provider")]

    @model_validator(mode="after")
    def _only_verdicts_have_a_schema(self) -> "FurtherServed":
        if getattr(self.endpoint, "structured", False):
            raise ValueError(
                "endpoint.structured: only a judge's verdict has a schema; write false"
            )
        return self


Further = Annotated[FurtherHub | FurtherLocal | FurtherServed, Field(discriminator="source")]
Rows = Annotated[World | Local | Hub, Field(discriminator="source")]
Flan = Annotated[World | Local | HubFlan, Field(discriminator="source")]
Topics = Annotated[World | Local | Wikipedia, Field(discriminator="source")]
Benchmarks = Annotated[World | Local | Harness, Field(discriminator="source")]
Base = Annotated[GrownBase | LocalBase | HubBase, Field(discriminator="source")]


# The names that `fields` of a source may have.
FIELDS = {
    "dolly": ("instruction", "context", "response", "category", "id"),
    "flan": ("inputs", "targets", "task_name", "prompt", "completion"),
    "topics": ("name", "subcategories"),
    "hh_rlhf": ("prompt", "chosen", "rejected", "system"),
    "mt_bench": (
        "question_id", "category", "turns", "model_id", "choices", "judge", "model_a", "model_b",
        "winner", "turn",
    ),
    "benchmarks": ("question", "choices", "answer", "context"),
}  # fmt: skip


class Fetch(Section):
    seed: Seed
    dolly: Rows
    flan: Flan
    topics: Topics
    hh_rlhf: Rows
    mt_bench: Rows
    benchmarks: Benchmarks
    base: Base

    @model_validator(mode="after")
    def _fields_are_known(self) -> "Fetch":
        for source, fields in FIELDS.items():
            for name in getattr(getattr(self, source), "fields", {}):
                if name not in fields:
                    raise ValueError(
                        f"{source}.fields.{name}: no field of these rows; have {', '.join(fields)}"
                    )
        return self


class Generate(Section):
    seed: Seed


# Orca's system messages, each a file of prompts/orca/system/
Ids = Annotated[list[Count], Field(min_length=1), AfterValidator(_reject_repeats)]


# The categories of seeds that a scheme draws from (null: all that the seeds have, but `without`).
Categories = Names | None


class Lamini(Section):
    seeds: Name
    examples: Count
    asked: Count
    topic_guided: Share
    topics: Count
    topic_words: Count
    topic_subcategories: Number
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    calls: Count
    fewer_examples: bool = True  # came later: older files stay valid
    answers_shown: Number = 0  # came later: older files stay valid


Operation = Literal[
    "add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"
]


class EvolInstruct(Section):
    seeds: Name
    epochs: Count
    breadth: Share
    operations: Annotated[list[Operation], Field(min_length=1), AfterValidator(_reject_repeats)]
    refusal_words: Number
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    per_category: Count
    iterations: Count = 1  # came later: older files stay valid
    answers_shown: Number = 0  # came later: older files stay valid


class SystemIds(Section):
    cot: Ids
    niv2: Ids
    t0: Ids
    flan2021: Ids


class Orca(Section):
    seeds: Name
    system_ids: SystemIds
    per_task: Count
    flan2021: Count


class Schemes(Section):
    """A scheme that params.yaml does not name is neither generated nor judged."""

    lamini: Lamini | None = None
    evol_instruct: EvolInstruct | None = None
    orca: Orca | None = None

    @property
    def by_name(self) -> dict[str, Any]:
        """Return the schemes that params.yaml names, in the order of this class."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: scheme for name, scheme in every.items() if scheme is not None}


class Judge(Section):
    """Ratings from 1 to `scale`. `vote`: the way in which a panel decides
    (bezoar/judging/panel.py)."""

    scale: Annotated[int, Field(ge=2)]
    vote: Literal["majority", "mean"]


def _to_shares(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if not total:
        raise ValueError("weighs nothing; give a kind of task a weight above zero")
    return {kind: weight / total for kind, weight in weights.items()}


# Shares of kinds of task that add to one. The file gives weights in any unit.
Target = Annotated[
    dict[Annotated[str, Field(pattern=r"^\w+$")], Annotated[float, Field(ge=0)]],
    AfterValidator(_to_shares),
]


class Balance(Section):
    """A number of kept rows that stay, and the shares of kinds of task to which they are drawn."""

    rows: Count
    target: Target


class Licences(Section):
    """Licences that a kept row may be under: its seeds', the teacher's, the judge's (null: any)."""

    allow: list[str] | None


# With report the row stays, and the finding is written down.
Action = Literal["drop", "report"]


class RowAction(Section):
    """The fate of a row in which a check finds something."""

    action: Action


class NearDuplicates(Section):
    """Rows that ask nearly the same: the Jaccard index of their word n-grams is at least
    `threshold`. Below 0.5 the search for candidates would miss some."""

    ngram: Count
    threshold: Annotated[float, Field(ge=0.5, le=1)]
    action: Action


class Step(Section):
    words: Count
    cosine: Annotated[float, Field(gt=0, le=1)]


def _check_order(steps: list[Step]) -> list[Step]:
    for step, following in pairwise(steps):
        if step.words >= following.words or step.cosine <= following.cosine:
            raise ValueError("steps are out of order; words rise, and cosines fall")
    return steps


class Decontamination(Section):
    """Limits from which a row and an item of a benchmark match (bezoar/filtering/contamination.py).

    `ngram`: neighbouring words of an item that a row holds.
    `whole`: words of a question shorter than `ngram`, from which it matches where a row holds all
        of it. A shorter question needs more, such as one of its answers beside it.
    `fuzzy`: [{words, cosine}]: if the shorter text has at least `words` distinct words, a match
        needs this cosine.
    """

    ngram: Annotated[int, Field(ge=5)]
    whole: Annotated[int, Field(ge=2)] = 5
    fuzzy: Annotated[list[Step], Field(min_length=1), AfterValidator(_check_order)]
    action: Action


def _languages(value: Any) -> str | list[str]:
    """Take `any`, `seeds`, or languages by ISO 639-1 or by their English names."""
    if value in ("any", "seeds"):
        return str(value)
    names = value if isinstance(value, list) else [value]
    # YAML 1.1 reads the code of Norwegian, `no`, as false.
    names = ["no" if name is False else name for name in names]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("is no seeds, any, or list of languages such as [de, en]")
    # Imported here: a stage that names no language does not depend on that module.
    from bezoar.rows import languages

    return list(dict.fromkeys(map(languages.code, names)))


class Gates(Section):
    """Thresholds of filtering/gates.py, which explains each.

    `language`: languages that rows may be in: `seeds` (those of the seeds), `any`, or a list.
    """

    refusal_words: Count
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    truncated_words: Count
    # It came later, as did `language_odds`. An older params.yaml meant the English of its seeds.
    language: Annotated[str | list[str], BeforeValidator(_languages)] = "seeds"
    language_words: Count
    language_odds: Annotated[float, Field(gt=1)] = 20.0
    characters: Count
    action: Action


class Filter(Section):
    """The checks and thresholds of `filter`.

    `copies`: the schemes whose rows are compared with their seeds.
    `duplicates`: rows that are equal but for white space.
    `markers`: rows that hold a mark of the chat template.
    `tasks`: pattern (of a row's category, or of its FLAN sub-mixture/task) -> kind of task. The
        first that matches counts, and a row that matches none is `other`.
    `target`: the shares of kinds of task that a set is reported beside.
    """

    min_rating: Count
    copy_ratio: Share
    copy_distance: Number
    # It came later. The default is what happened under an older params.yaml.
    copies: list[str] = ["lamini", "evol_instruct"]
    eval_share: Rate
    licences: Licences
    tasks: dict[str, str]
    target: Target
    balance: Balance | None
    # These two came later. An older params.yaml stays valid, and drops as it did.
    duplicates: RowAction = RowAction(action="drop")
    markers: RowAction = RowAction(action="drop")
    near_duplicates: NearDuplicates
    contamination: Decontamination
    gates: Gates

    @model_validator(mode="after")
    def _known_kinds(self) -> "Filter":
        for pattern, kind in self.tasks.items():
            if kind not in self.target and kind != "other":
                raise ValueError(
                    f"tasks.{pattern}: {kind!r} is no kind of task; "
                    f"target has {', '.join(self.target)}"
                )
        return self


class Mix(Section):
    """The set of rows of a link. `replay`: rows of the links before, as a share of the link's
    own."""

    seed: Seed
    replay: Share


# As transformers names them. The paged ones are bitsandbytes' and want a GPU: their state moves to
# the machine's memory when the GPU's is full.
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "rmsprop",
]

# As transformers names them: those that want nothing but the steps of a warm-up
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]

B = TypeVar("B", bound="Training | Dpo")


def _check_micro_batch(section: B) -> B:
    if section.micro_batch_size != "auto" and section.batch_size % section.micro_batch_size:
        raise ValueError(
            f"micro_batch_size: {section.micro_batch_size} does not divide batch_size; "
            f"name a part of {section.batch_size}, or auto"
        )
    return section


class Training(Section):
    """The amounts by which one link is trained.

    `runs`: at most this many. A further run follows where the losses of the last have not diverged.
    `epochs`: of a run.
    `batch_size`: examples an optimizer step.
    `micro_batch_size`: examples at once (auto: as many as fit into the GPU's memory).
    `max_length`: tokens a row.
    `eval_limit`: held-out rows evaluated, spread over all (null: all).
    """

    runs: Count
    epochs: Count
    batch_size: Count
    micro_batch_size: Count | Literal["auto"]
    learning_rate: Rate
    warmup_steps: Number
    max_length: Count
    eval_limit: Count | None

    @model_validator(mode="after")
    def _whole_batches(self) -> "Training":
        return _check_micro_batch(self)


def _check_modules(modules: object) -> object:
    if modules == ALL_LINEAR:
        return modules
    if not isinstance(modules, list) or not modules or not all(isinstance(m, str) for m in modules):
        raise ValueError(
            f"names no layers; {ALL_LINEAR}, or what names end in, such as [q_proj, v_proj]"
        )
    return modules


ALL_LINEAR = "all-linear"  # peft's word for every linear layer but the head
# The layers that LoRA is put on, by the ends of their names
TargetModules = Annotated[str | list[str], BeforeValidator(_check_modules)]


class Sft(Section):
    """The settings that all links of the chain share.

    `lora_r`, `lora_alpha`, `lora_dropout`, `target_modules`: peft's.
    `evaluations`: a run is evaluated at least this often, as far as the ends of its epochs are not
        enough.
    """

    seed: Seed
    evaluations: Count = 1  # came later: older files stay valid
    lora_r: Count
    lora_alpha: Count
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: TargetModules = ALL_LINEAR  # came later: an older params.yaml stays valid
    quantization: Literal["nf4", "fp4"]
    double_quantization: bool
    optimizer: Optimizer
    scheduler: Scheduler
    keep: Literal["best", "last"]
    patience: Count
    divergence: Annotated[float, Field(ge=0)]
    neftune_alpha: Annotated[float, Field(gt=0)] | None
    deterministic: bool
    links: dict[str, Training]


class MergeStage(Section):
    """The method by which adapters are merged. `weights`: of the adapters, in their order."""

    onto: Literal["dequantized", "reloaded"]
    method: Literal["linear", "ties", "dare_linear", "dare_ties", "slerp"]
    weights: Annotated[list[float], Field(min_length=3, max_length=3)]
    density: Annotated[float, Field(gt=0, le=1)]
    seed: Seed
    t: Share


# As TRL names them (its documentation cites the paper of each). Not among them: sft, which takes no
# notice of the rejected answers.
Preference = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
]
# Losses that take some preferences for wrong ones, and those of them that have no meaning without.
SMOOTHED, NEVER_UNSMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired"), ("exo_pair", "robust")


class Dpo(Section):
    """The settings of preference training.

    `weights`: all, or adapter. That is LoRA on the frozen start, by `lora_r`, `lora_alpha` and
        `target_modules`.
    `label_smoothing`: share of the preferences that are taken for wrong ones (robust, aot,
        exo_pair).
    `evaluations`: as of Sft.
    """

    seed: Seed
    evaluations: Count = 1  # came later: older files stay valid
    weights: Literal["all", "adapter"]
    lora_r: Count
    lora_alpha: Count
    target_modules: TargetModules = ALL_LINEAR  # came later: an older params.yaml stays valid
    beta: Annotated[float, Field(gt=0)]
    loss: Preference
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    deterministic: bool
    optimizer: Optimizer
    scheduler: Scheduler
    epochs: Count
    batch_size: Count
    micro_batch_size: Count | Literal["auto"]
    learning_rate: Rate
    warmup_steps: Number
    max_prompt_tokens: Count
    max_answer_tokens: Count
    eval_limit: Count | None

    @model_validator(mode="after")
    def _whole_batches(self) -> "Dpo":
        return _check_micro_batch(self)

    @model_validator(mode="after")
    def _smoothing_has_a_meaning(self) -> "Dpo":
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing: {self.loss} has none; 0, or {', '.join(SMOOTHED)}")
        if not self.label_smoothing and self.loss in NEVER_UNSMOOTHED:
            raise ValueError(f"label_smoothing: {self.loss} wants one above 0, such as 0.1")
        return self


class LmEval(Section):
    """The evaluation by the harness.

    `chat_template`: put a question as an instruction, as in training, not as plain text.
    `tasks`: null is every file of data/fetch/benchmarks.
    `limit`: items a task (null: all).
    """

    num_fewshot: Number
    chat_template: bool
    tasks: Names | None
    limit: Count | None
    batch_size: Count


Temperature = Annotated[float, Field(ge=0, le=2)]


class Temperatures(Section):
    """Temperatures by MT-Bench's categories."""

    writing: Temperature
    roleplay: Temperature
    reasoning: Temperature
    math: Temperature
    coding: Temperature
    extraction: Temperature
    stem: Temperature
    humanities: Temperature


class MtAnswer(Section):
    """The answers to MT-Bench.

    `temperature`: of every answer, or by category (0 is greedy).
    `loop_words`, `loop_ngram`, `loop_share`: as of Gates.
    """

    temperature: Annotated[
        Annotated[Temperature, Tag("number")] | Annotated[Temperatures, Tag("by_category")],
        # As of `judge`: one half is picked before it is checked.
        Discriminator(lambda v: "by_category" if isinstance(v, dict | Temperatures) else "number"),
    ]
    seed: Seed
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    limit: Count | None


class MtGrade(Section):
    """The grades of MT-Bench. `references`: categories whose questions are judged beside a
    reference answer."""

    references: Literal["all"] | list[str]
    seed: Seed


class MtCompare(Section):
    """The comparison of checkpoints. `limit`: questions, spread over all (null: all, 0: no
    comparison)."""

    seed: Seed
    limit: Number | None


class Agreement(Section):
    """The study of judges beside people.

    `verdicts`: our judge compares two answers, or grades each alone.
    `records`: those on which every set of judgements has a verdict, or all.
    `limit`: pairs of answers that are put to our judge, spread over all (null: all, 0: none).
    `own`: judge of the given votes -> the model whose answers it may take for its own.
    """

    own: dict[str, str]
    tie_margin: Annotated[float, Field(ge=0)]
    seed: Seed
    # came later: older files stay valid
    verdicts: Literal["pairs", "single"] = "pairs"
    records: Literal["intersection", "all"] = "intersection"
    limit: Number | None = None


# Ours: by chance a judge has an AUC of 0.7 on eight rows one time in ten, on twenty one time in
# seventy.
FEWEST_KNOWN = 8


class Known(Section):
    """The check of a judge on rows whose answers are known (judging/known.py).

    `rows`: seeds that it is asked about, each with its own answer and with another's.
    `least_auc`, `below`: if the judge tells the two apart with a lower AUC, a stage warns, or stops
        before it asks about anything else.
    """

    rows: Annotated[int, Field(ge=FEWEST_KNOWN)]
    least_auc: Share
    below: Literal["warn", "stop"]
    seed: Seed


class Report(Section):
    examples: Count


class Params(Section):
    """params.yaml as one profile sees it.

    `launch`: a file of launch/ by which training runs on several processes (null: in one).
    `cpu`: the instructions that CPUs of several kinds have in common, so that all compute the same
        bits (null: each computes in its fastest way).
    `others`: those of `models` that stand beside our checkpoints. `load` drops the rest of
        `models`. It adds `others` to `checkpoints` and, but for those behind an endpoint, to
        `evaluated`.
    """

    profile: str
    chain: dict[Name, Link]
    merges: dict[Name, Merge]
    evaluated: dict[Name, Evaluated]
    checkpoints: dict[Name, Checkpoint]
    models: dict[Name, Further]
    others: list[Name] = []  # came later: a params.yaml without it stays valid
    compared: dict[Name, Compared]
    aligned: Annotated[dict[Name, Aligned], Field(max_length=1)]
    own: list[Literal["dolly"]]
    stand_ins: Literal["stop", "allow"] = "stop"  # came later: older files stay valid
    llm: Endpoints
    budget_usd: Budget
    launch: str | None
    cpu: Instructions | None = None  # came later: a params.yaml without it stays valid
    fetch: Fetch
    generate: Generate
    schemes: Schemes
    judge: Judge
    filter: Filter
    mix: Mix
    sft: Sft
    merge: MergeStage
    dpo: Dpo
    lm_eval: LmEval
    mt_answer: MtAnswer
    mt_grade: MtGrade
    mt_compare: MtCompare
    agreement: Agreement
    known: Known | None = None  # came later: a params.yaml without it stays valid
    report: Report

    @property
    def sources(self) -> list[str]:
        """Return the sources whose rows this recipe trains on, shows a teacher, or evaluates by."""
        sets = [path for link in self.chain.values() for path in link.sets]
        lamini = self.schemes.lamini
        used = {
            "dolly": "dolly" in self._seeds or bool(self.own),
            "flan": "flan" in self._seeds,
            "topics": lamini is not None and lamini.topic_guided > 0,
            "hh_rlhf": PAIRS in sets or bool(self.aligned),
            "mt_bench": bool(self.checkpoints),
            "benchmarks": bool(self.evaluated),
        }
        return [name for name, so in used.items() if so]

    @property
    def _seeds(self) -> set[str]:
        return {scheme.seeds for scheme in self.schemes.by_name.values()}

    @property
    def unmeasured(self) -> dict[str, str]:
        """Return the whole weights that nothing asks or measures: name -> path, in their order."""
        measured: dict[str, Checkpoint] = {**self.evaluated, **self.checkpoints}
        weights = {
            **{name: f"merge/{name}" for name in self.merges},
            **{name: f"sft/{name}" for name, link in self.chain.items() if link.weights == "all"},
            **{name: f"dpo/{name}" for name in self.aligned},
        }
        paths = {checkpoint.model for checkpoint in measured.values()}
        return {
            name: path
            for name, path in weights.items()
            if path not in paths and name not in measured
        }

    @property
    def final(self) -> str:
        """Return the name of the checkpoint that the chain ends with: the last that is no further
        model."""
        measured = {
            name: checkpoint for name, checkpoint in self.evaluated.items() if not checkpoint.link
        }
        ours = [
            name
            for name, checkpoint in (measured | self.checkpoints).items()
            if not checkpoint.further
        ]
        return [*self.chain, *self.unmeasured, *ours][-1]

    @property
    def final_model(self) -> str:
        """Return the path below models/ of the checkpoint that the chain ends with."""
        measured: dict[str, Checkpoint] = {**self.evaluated, **self.checkpoints}
        if self.final in measured:
            return measured[self.final].model
        return self.unmeasured.get(self.final, f"sft/{self.final}")

    def further(self, checkpoint: Checkpoint) -> Further | None:
        """Return the one of `models` that a checkpoint is, None for one that this recipe makes."""
        return self.models[checkpoint.model.removeprefix(FURTHER)] if checkpoint.further else None


def load(path: str | Path = "params.yaml", profile: str | None = None) -> Params:
    """Return the parameters of `profile`, or of the active profile. BadInput lists every fault of
    the whole file."""
    return _load(Path(path).resolve(), Path(path).name, profile)


def forget() -> None:
    """Have the file read anew: it was changed."""
    _load.cache_clear()


@cache
def _load(path: Path, name: str, profile: str | None) -> Params:
    return check(_bytes(path, name), name, path.parent, profile)[0]


def _bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "there is no such file" if missing else f"cannot be read ({error.strerror})"
        raise BadInput(f"{name}: {why}; run from the project's folder") from None


def check(
    data: bytes, name: str, folder: Path, profile: str | None = None
) -> tuple[Params, dict[str, Params]]:
    """Return the parameters of `profile` (None: the active one), and those of all profiles by name.

    `data` is the file's content, `name` what messages call it, and `folder` holds launch/. BadInput
    lists every fault.
    """
    document = _read(data, name, profile)
    values = copy.deepcopy(document.values)
    faults: list[Fault] = []
    while True:
        remaining, checked = _under_every_profile(values, folder, profile)
        guessed = [fault for fault in remaining if fault.instead is not None]
        if not guessed:
            break
        # The rest is looked for as if these keys had their right names. A key that is misspelt, as
        # `lerning_rate`, hides its own faults, and its right name seems to be missing.
        faults += guessed
        for fault in guessed:
            _move(values, fault)
    # A fault at the place that a key was moved to is left out: one mistake is one fault.
    guesses = {fault.instead for fault in faults}
    if faults := [*faults, *(fault for fault in remaining if fault.path not in guesses)]:
        _raise_faults(name, document, faults)
    return checked[profile or values["profile"]], checked


def _move(values: Any, fault: Fault) -> None:
    """Give a key the name, or the place, that was likely meant."""
    top = values["profiles"][fault.profile] if fault.profile else values
    assert fault.instead is not None
    value = value_at(top, fault.path[:-1]).pop(fault.path[-1])
    for part in fault.instead[:-1]:
        top = top[int(part)] if isinstance(top, list) else top.setdefault(part, {})
    if isinstance(top, dict):
        # A key that already stands there has the better claim.
        top.setdefault(fault.instead[-1], value)


def _under_every_profile(
    document: dict[str, Any], folder: Path, active: str | None
) -> tuple[list[Fault], dict[str, Params]]:
    """Return the faults of the whole file, each once, and the parameters that pass, by profile."""
    recipe = {key: value for key, value in document.items() if key != "profiles"}
    profiles: dict[str, dict[str, Any]] = document["profiles"]
    recipe["profile"] = active or document["profile"]
    by_profile: dict[str, list[Fault]] = {profile: [] for profile in profiles}
    checked: dict[str, Params] = {}
    for profile, scale in profiles.items():
        joined, by_profile[profile] = _join(recipe, _without_absent_schemes(recipe, scale), profile)
        # pydantic would report again what `_join` has reported.
        unusable = [fault.path for fault in by_profile[profile]]
        try:
            checked[profile] = Params.model_validate(joined)
        except ValidationError as error:
            by_profile[profile] += [
                place_in_file(fault, profile, scale)
                for fault in from_errors(error.errors(), joined, Params)
                if not any(fault.path[: len(path)] == path for path in unusable)
            ]
    if len(checked) == len(profiles):
        # First, because the checks between sections would report each renamed link again, as
        # missing.
        by_profile["renamed"] = _find_renamed(checked)
        if not by_profile["renamed"]:
            for profile, params in checked.items():
                checked[profile], lines = _check_across(profile, params, folder)
                scale = profiles[profile]
                faults = map(Fault.read, lines)
                by_profile[profile] += [place_in_file(fault, profile, scale) for fault in faults]
    return fold(by_profile), checked


def _check_across(profile: str, params: Params, folder: Path) -> tuple[Params, list[str]]:
    """Check the sections against each other. Return the parameters, with `others` among the
    checkpoints, and the faults as lines."""
    faults = _check_others(params)
    params = _with_others(params)
    faults += _check_references(params)
    faults += _check_merges(params)
    faults += _check_links(profile, params)
    faults += _check_benchmarks(profile, params)
    faults += _check_launch(profile, params.launch, folder / "launch")
    faults += _check_sizes(profile, params)
    return params, faults


def _read(data: bytes, name: str, profile: str | None = None) -> Document:
    """Return a file's values. BadInput: not YAML, or without `profile` and `profiles`, which hold
    the rest."""
    try:
        document = lines.read(data)
    except NotYaml as error:
        place = f"{name}:{error.line}" if error.line else name
        raise BadInput(f"{place}: {error}") from None
    values = document.values
    if not isinstance(values, dict):
        content = "is empty" if values is None else f"holds {format_value(values)}"
        raise BadInput(f"{name}: {content}; a mapping of sections is expected")
    faults = [Fault(path, message) for path, message in document.faults]
    faults += [
        Fault((str(key),), f"the key {key!r} is no word; write it in quotes, or leave it out")
        for key in values
        if not isinstance(key, str)
    ]
    for key, kind in (("profile", str), ("profiles", dict)):
        if not faults and not isinstance(values.get(key), kind):
            close = near(key, [k for k in values if k not in (*Params.model_fields, "profiles")])
            right = f"did you mean it by {close!r}?" if close else _FIRST[key]
            expected = "a name" if kind is str else "a mapping"
            faults.append(Fault((key,), f"missing, or not {expected}; {right}"))
    if not faults:
        faults = _no_profiles(values["profiles"])
    if not faults and (active := profile or values["profile"]) not in values["profiles"]:
        faults = [_no_such(active, values["profiles"])]
    if faults:
        _raise_faults(name, document, faults)
    return document


_FIRST = {"profile": "`profile: embedded`, say", "profiles": "it holds one mapping a profile"}


def _no_profiles(profiles: dict[Any, Any]) -> list[Fault]:
    faults = [
        Fault(
            ("profiles", str(name)),
            f"{format_value(scale)} is not usable; a mapping of keys is wanted",
        )
        for name, scale in profiles.items()
        if not isinstance(scale, dict) or not isinstance(name, str)
    ]
    return faults or (
        [] if profiles else [Fault(("profiles",), f"holds none; {_FIRST['profiles']}")]
    )


def _no_such(profile: object, profiles: dict[str, Any]) -> Fault:
    close = near(profile, profiles)
    guess = f"did you mean {close!r}? " if close else ""
    return Fault(
        ("profile",), f"there is no profile {profile!r}; {guess}have {', '.join(profiles)}"
    )


def _without_absent_schemes(recipe: dict[str, Any], scale: dict[str, Any]) -> dict[str, Any]:
    """Leave out the amounts that a profile gives schemes which the recipe leaves out."""
    schemes, amounts = recipe.get("schemes"), scale.get("schemes")
    if not isinstance(schemes, dict) or not isinstance(amounts, dict):
        return scale
    absent = Schemes.model_fields.keys() - schemes.keys()
    left = {name: amount for name, amount in amounts.items() if name not in absent}
    return {**scale, "schemes": left}


def _join(
    recipe: dict[str, Any], scale: dict[str, Any], profile: str, above: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Fault]]:
    """Return the recipe's keys and a profile's as one, and a fault for each key that stands in
    both."""
    joined, faults = dict(recipe), []
    for key, value in scale.items():
        path = (*above, key)
        if key not in joined:
            joined[key] = value
        elif isinstance(joined[key], dict) and isinstance(value, dict):
            joined[key], deeper = _join(joined[key], value, profile, path)
            faults += deeper
        elif isinstance(joined[key], dict) or isinstance(value, dict):
            # The one that is a mapping is right. The other is reported, and replaced by it for the
            # other checks.
            faulty_profile = profile if isinstance(joined[key], dict) else ""
            wrong = value if faulty_profile else joined[key]
            message = f"{format_value(wrong)} is not usable; a mapping of keys is wanted"
            faults.append(Fault(path, message, faulty_profile))
            joined[key] = joined[key] if faulty_profile else value
        else:
            message = f"set by the recipe and by profiles.{profile}; keep one of the two"
            faults.append(Fault(path, message))
    return joined, faults


def _find_renamed(checked: dict[str, Params]) -> list[Fault]:
    """Find links of the chain to which no profile gives an amount, and guess the name that was
    meant."""
    chain = next(iter(checked.values())).chain
    amounts = {name for params in checked.values() for name in params.sft.links}
    spare = sorted(amounts - chain.keys())
    unknown = [name for name in chain if name not in amounts]
    faults = []
    for name in unknown:
        alone = spare[0] if len(unknown) == len(spare) == 1 else ""
        if close := near(name, spare) or alone:
            message = f"sft.links of the profiles have no such link; did you mean {close!r}?"
            faults.append(Fault(("chain", name), message, instead=("chain", close)))
    return faults


def _check_references(params: Params) -> list[str]:
    """Check that links, merges and checkpoints name weights that a stage makes, and links sets of
    rows."""
    weights = {
        "fetch/base",
        *(f"dpo/{name}" for name in params.aligned),
        *(f"sft/{name}" for name in params.chain),
        *(f"merge/{name}" for name in params.merges),
    }
    trained = {
        **{f"chain.{n}.{k}": getattr(c, k) for n, c in params.chain.items() for k in _WEIGHTS},
        **{f"merges.{n}.{k}": getattr(m, k) for n, m in params.merges.items() for k in _MERGED},
        **{f"aligned.{n}.start": aligned.start for n, aligned in params.aligned.items()},
    }
    measured = {
        **{f"evaluated.{n}.model": e.model for n, e in params.evaluated.items()},
        **{f"evaluated.{n}.base": e.base for n, e in params.evaluated.items()},
        **{f"checkpoints.{n}.model": c.model for n, c in params.checkpoints.items()},
    }
    further = {f"{FURTHER}{name}" for name in params.models}
    unmade: dict[str, list[str]] = {}
    for key, path in {**trained, **measured}.items():
        if path not in weights | (further if key in measured else set()):
            unmade.setdefault(path, []).append(key)
    faults = [
        f"{first}: no stage makes models/{path}{_also_named(more)}; {hint(path, sorted(weights))}"
        for path, (first, *more) in unmade.items()
    ]
    sets = [PAIRS, *(f"filter/{name}" for name in [*params.schemes.by_name, *params.own])]
    for name, link in params.chain.items():
        for path in link.sets:
            if path not in sets:
                right = _way_to_put_back(path) or hint(path, sets)
                faults.append(f"chain.{name}.data: data/{path} is no set of rows; {right}")
    return faults + _check_compared(params)


def _also_named(places: list[str]) -> str:
    return f" (which {', '.join(places)} {'name' if places[1:] else 'names'} too)" * bool(places)


def _way_to_put_back(path: str) -> str:
    """Return the way to a set that is known and not made, "" for one that is not known."""
    name = path.removeprefix("filter/")
    if path == f"filter/{OWN}":
        return f"your own rows are filtered where they are named: own: [{OWN}]"
    if path.startswith("filter/") and name in Schemes.model_fields:
        return (
            f"the scheme is left out of `schemes`: `python -m bezoar.recipe without {name}` (or "
            "`whole`) writes the links that go with it"
        )
    return ""


def _check_others(params: Params) -> list[str]:
    """Check that each of `others` is one of `models`, named once, and no checkpoint of ours."""
    faults = []
    for name in dict.fromkeys(params.others):
        if name not in params.models:
            faults.append(f"others: {name!r} is none of `models`; {hint(name, params.models)}")
        if params.others.count(name) > 1:
            faults.append(f"others: {name!r} stands there twice; keep one of them")
        if name in {**params.checkpoints, **params.evaluated}:
            faults.append(f"others: {name!r} is a checkpoint of this recipe; rename it in `models`")
    if "index" in {**params.checkpoints, **dict.fromkeys(params.others)}:
        # The report's page of a checkpoint has its name, beside the page that lists them all.
        faults.append("checkpoints: 'index' is the name of a page of the report; rename it")
    for key in ("checkpoints", "evaluated"):
        for name, checkpoint in getattr(params, key).items():
            if checkpoint.further:
                model = checkpoint.model.removeprefix(FURTHER)
                faults.append(
                    f"{key}.{name}: {checkpoint.model} is not made by this recipe; leave the line "
                    f"out, and name {model} in `others`"
                )
    return faults


def _with_others(params: Params) -> Params:
    """Return `params` with `others` beside our checkpoints, and with no other model left."""
    beside = {name: params.models[name] for name in params.others if name in params.models}
    places = {name: f"{FURTHER}{name}" for name in beside}
    answering = {name: Checkpoint(model=place) for name, place in places.items()}
    # An endpoint has no log-probabilities to give.
    scored = {
        name: Evaluated(model=place, base=place, link=False)
        for name, place in places.items()
        if not isinstance(beside[name], FurtherServed)
    }
    return params.model_copy(
        update={
            "models": beside,
            "checkpoints": {**params.checkpoints, **answering},
            "evaluated": {**params.evaluated, **scored},
        }
    )


def _check_compared(params: Params) -> list[str]:
    """Check that both sides of a comparison are checkpoints, which answer MT-Bench."""
    faults, absent = [], dict[str, list[str]]()
    for name, pair in params.compared.items():
        for key in ("model", "baseline"):
            if (checkpoint := getattr(pair, key)) not in params.checkpoints:
                absent.setdefault(checkpoint, []).append(f"compared.{name}.{key}")
        if pair.model == pair.baseline:
            faults.append(
                f"compared.{name}: {pair.model!r} is compared with itself; name another baseline"
            )
    return faults + [
        f"{first}: {checkpoint!r} is no checkpoint{_also_named(more)}; "
        f"{hint(checkpoint, params.checkpoints)}"
        for checkpoint, (first, *more) in absent.items()
    ]


def _check_merges(params: Params) -> list[str]:
    """Check that slerp merges two adapters: an arc has two ends."""
    return [
        f"merges.{name}: merge.method slerp goes between two adapters, here are three; "
        "let `third` name one of the others again"
        for name, merge in params.merges.items()
        if params.merge.method == "slerp" and len(merge.adapters) > 2
    ]


def _check_links(profile: str, params: Params) -> list[str]:
    """Check that every link has an amount and a beginning. Amounts may be left over: an experiment
    that leaves out a link edits `chain` alone."""
    faults = []
    for name, link in params.chain.items():
        if link.start == f"sft/{name}":
            faults.append(
                f"chain.{name}.start: a link cannot start from itself; name the link before it"
            )
        if name not in params.sft.links:
            spare = sorted(params.sft.links.keys() - params.chain.keys())
            close = near(name, spare)
            guess = f"; did you mean it by {close!r}?" if close else ""
            faults.append(
                f"profiles.{profile}.sft.links.{name}: missing; chain has this link{guess}"
            )
    return faults or _check_circle(params)


def _check_circle(params: Params) -> list[str]:
    """Find weights that would have to be there before they are made."""
    needs = {
        **{f"sft/{n}": [getattr(c, k) for k in _WEIGHTS] for n, c in params.chain.items()},
        **{f"merge/{n}": [getattr(m, k) for k in _MERGED] for n, m in params.merges.items()},
        **{f"dpo/{name}": [aligned.start] for name, aligned in params.aligned.items()},
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return [
            f"chain: goes in a circle: {' -> '.join(error.args[1])}; let one of them start from "
            "what is made before it"
        ]
    return []


def _check_benchmarks(profile: str, params: Params) -> list[str]:
    """Check that the evaluated tasks are those that `filter` looks for."""
    fetched, evaluated = params.fetch.benchmarks, params.lm_eval.tasks
    if not isinstance(fetched, Harness) or fetched.tasks == evaluated:
        return []
    # A misspelt task is one fault, and no difference between the two lists as well.
    if unknown := unknown_tasks(params):
        return [f"{fault.where}: {fault.message}" for fault in unknown]
    apart = ", ".join(sorted({*(evaluated or [])} ^ {*fetched.tasks})) or "in another order"
    return [
        f"profiles.{profile}.lm_eval.tasks: not those of fetch.benchmarks, whose texts `filter` "
        f"looks for ({apart}); name the same in both"
    ]


def _check_sizes(profile: str, params: Params) -> list[str]:
    """Check the numbers and names that have a limit elsewhere in the file."""
    faults = []
    if params.filter.min_rating > params.judge.scale:
        faults.append(
            f"filter.min_rating: {params.filter.min_rating} is above every rating; judge.scale is "
            f"{params.judge.scale}"
        )
    for scheme, made_of in _SEEDS.items():
        section = params.schemes.by_name.get(scheme)
        if section and (source := section.seeds) not in made_of:
            right = hint(source, made_of)
            faults.append(f"schemes.{scheme}.seeds: {source!r} has no rows for it; {right}")
    for scheme in params.filter.copies:
        if scheme not in type(params.schemes).model_fields:
            have = type(params.schemes).model_fields
            faults.append(f"filter.copies: {scheme!r} is no scheme; {hint(scheme, have)}")
    if isinstance(params.mt_grade.references, list) and not isinstance(
        params.fetch.mt_bench, Local
    ):
        categories = Temperatures.model_fields
        faults += [
            f"mt_grade.references: {name!r} is no category of MT-Bench; {hint(name, categories)}"
            for name in params.mt_grade.references
            if name not in categories
        ]
    return faults + _check_contexts(profile, params)


# Scheme -> the sources whose rows its plan can be made from.
_SEEDS = {"lamini": ("dolly",), "evol_instruct": ("dolly",), "orca": ("flan",)}


def _check_contexts(profile: str, params: Params) -> list[str]:
    """Find texts that would be longer than the models that read or write them can hold."""
    faults = []
    for role in type(params.llm).model_fields:
        for name, endpoint in params.llm.by_name(role).items():
            context = getattr(endpoint, "context_tokens", None)
            for key, value in getattr(endpoint, "params", {}).items():
                if context and key in REPLY_MAXIMA and type(value) is int and value >= context:
                    faults.append(
                        f"profiles.{profile}.llm.{name}.params.{key}: {value} leaves no room for a "
                        f"prompt; context_tokens is {context}"
                    )
    base = params.fetch.base
    if not isinstance(base, GrownBase):
        return faults
    lengths = {f"sft.links.{n}.max_length": link.max_length for n, link in params.sft.links.items()}
    lengths["dpo.max_prompt_tokens"] = params.dpo.max_prompt_tokens + params.dpo.max_answer_tokens
    lengths["mt_answer.max_new_tokens"] = params.mt_answer.max_new_tokens
    lengths["fetch.base.sequence"] = base.sequence
    return faults + [
        f"profiles.{profile}.{place}: {length} tokens"
        f"{' with those of the answer' if place.startswith('dpo') else ''} are more than the base "
        f"can see; fetch.base.positions is {base.positions}"
        for place, length in lengths.items()
        if length > base.positions
    ]


# Names by which servers know the most tokens of a reply.
REPLY_MAXIMA = ("max_tokens", "max_completion_tokens", "max_new_tokens")


def _check_launch(profile: str, name: str | None, folder: Path) -> list[str]:
    """Check that `launch` names a file of launch/."""
    have = sorted(file.stem for file in folder.glob("*.yaml"))
    if name is None or name in have:
        return []
    return [
        f"profiles.{profile}.launch: there is no launch/{name}.yaml; "
        f"have {', '.join(have) or 'none'}"
    ]


_WEIGHTS, _MERGED = ("base", "start"), ("base", "adapter", "second", "third")


def _raise_faults(name: str, document: Document, faults: list[Fault]) -> None:
    """Raise BadInput: one fault as one line, several below a line that counts them."""
    messages = [
        f"{name}:{document.line(fault.place)}: {fault.where}: {fault.message}" for fault in faults
    ]
    if len(messages) == 1:
        raise BadInput(messages[0])
    raise BadInput(
        f"{name} has {len(messages)} faults, nothing was run:\n  " + "\n  ".join(messages)
    )


def main() -> None:
    """Check params.yaml, under every profile, and the files of prompts/. With PROFILE, make that
    one the active one first: the file is written where all is well, and else left as it is."""
    profile = next(iter(arguments.words("bezoar.params", main.__doc__, 0, "PROFILE")), None)
    path = Path("params.yaml").resolve()
    data = _bytes(path, path.name)
    # One line is changed in the bytes, so that comments and layout stay.
    switched = (
        data if profile is None else _PROFILE.sub(rb"\g<1>" + profile.encode(), data, count=1)
    )
    valid = _check_file(switched, path)
    _check_prompts()
    if switched != data:
        write(path, [switched.decode()])
    print(valid)


def _check_prompts() -> None:
    """Print what is odd in prompts/. BadInput: a file that a run could not send."""
    # Imported here, because no stage reads it.
    from bezoar.params import blanks

    seen = blanks.look()
    for note in seen.notes:
        print(f"warning: {note}", file=sys.stderr)
    if len(seen.faults) > 1:
        listed = "\n  ".join(seen.faults)
        raise BadInput(f"prompts/ has {len(seen.faults)} faults, nothing was run:\n  {listed}")
    if seen.faults:
        raise BadInput(seen.faults[0])


# The line of the active profile, but for what follows its name
_PROFILE = re.compile(
    rb"""^(["']?profile["']?:[ \t]*)("[^"\n]*"|'[^'\n]*'|[^\s#]*)""", re.MULTILINE
)


def _check_file(data: bytes, path: Path) -> str:
    """Check a file's content and return a line that says so. BadInput lists the faults. Only here
    and in preflight are the tasks of lm_eval looked up, which takes a second."""
    active, checked = check(data, path.name, path.parent)
    document = _read(data, path.name)
    scales = document.values["profiles"]
    unknown = {
        profile: [place_in_file(fault, profile, scales[profile]) for fault in unknown_tasks(params)]
        for profile, params in checked.items()
    }
    if faults := fold(unknown):
        _raise_faults(path.name, document, faults)
    others = ", ".join(name for name in checked if name != active.profile)
    beside = f" (checked with it: {others})" if others else ""
    return f"{path.name} is valid; the active profile is {active.profile}{beside}"


def unknown_tasks(params: Params) -> list[Fault]:
    """Return a fault for each task of the harness that the installed lm_eval does not know."""
    benchmarks = params.fetch.benchmarks
    if not isinstance(benchmarks, Harness):
        return []
    task_names = harness_names.names()
    lists = {
        ("fetch", "benchmarks", "tasks"): benchmarks.tasks,
        ("lm_eval", "tasks"): params.lm_eval.tasks or [],
    }
    unknown: dict[str, Fault] = {}
    for path, tasks in lists.items():
        for number, task in enumerate(tasks):
            # Without names lm_eval is not installed, and any task may be right.
            if task_names and task not in task_names:
                message = f"{task!r} is no task of lm_eval; {_task_hint(task, task_names)}"
                unknown.setdefault(task, Fault((*path, number), message))
    return list(unknown.values())


def _task_hint(task: str, task_names: frozenset[str]) -> str:
    close = near(task, sorted(task_names))
    return f"did you mean {close!r}?" if close else "`lm_eval ls tasks` lists them"
