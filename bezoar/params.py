"""params.yaml, typed and closed: all of it is checked, under every profile, before a stage starts.

A stage's parameters are the recipe's section joined with what the active profile gives it; a key
stands in one of the two, never in both.
"""

import difflib
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
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
from bezoar.files import BadInput


class Section(BaseModel):
    """A mapping in params.yaml; a key that is not named here is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0, le=1)]


def _no_truth(value: object) -> object:
    if isinstance(value, bool):  # an int to Python
        raise ValueError("a whole number is expected, not true or false")
    return value


Count = Annotated[int, BeforeValidator(_no_truth), Field(gt=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]


def _plain_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"a key has no place in an address; name its variable in {KEY_FIELD}")
    url = url.rstrip("/")
    if end := re.search(r"/(?:chat/completions|completions|messages|models|responses)\Z", url):
        raise ValueError(f"the address ends before {end[0]}, which the client adds")
    return url


def _plain_urls(urls: str | list[str]) -> str | list[str]:
    if isinstance(urls, str):
        return _plain_url(urls)
    if not urls:
        raise ValueError("names no address")
    return [_plain_url(url) for url in urls]


def _variable(name: str) -> str:
    # people paste the key itself here: it must not become a fingerprint, a lock file or a message
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise ValueError("not the name of an environment variable, such as OPENAI_API_KEY")
    return name


def _name(name: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError("a name is made of letters, digits, _ and -")
    return name


# Part of a path and of a stage's name
Name = Annotated[str, AfterValidator(_name)]


def _free(params: dict[str, Any]) -> dict[str, Any]:
    for name in params:
        if name in ("trust_remote_code", "custom_generate"):
            raise ValueError(f"{name!r} would have a model run code of its own")
        if name in ("model", "messages", "prompt", "system", "stream", "n"):
            raise ValueError(f"{name!r} is set by the client, one reply a request")
        if re.search(r"api.?key|authori[sz]ation|secret|password", name, re.IGNORECASE):
            raise ValueError(f"a key has no place in params; name its variable in {KEY_FIELD}")
    return params


KEY_FIELD = "api_key_env"
PAIRS = "fetch/hh_rlhf"  # the preference pairs, below data/
OWN = "dolly"  # seeds that are a set of their own: data/filter/dolly
ASKED = "local/llm"  # models that are run in this process, each a folder
FURTHER = "models/"  # what the further models lie under, below models/
Url = Annotated[str, AfterValidator(_plain_url)]


# --- what follows what ---------------------------------------------------------------------------


def _sets(data: object) -> object:
    named = [data] if isinstance(data, str) else data
    if not isinstance(named, list) or not named or not all(isinstance(x, str) for x in named):
        raise ValueError("one set, such as filter/lamini, or a list of sets that are mixed")
    if twice := sorted({x for x in named if named.count(x) > 1}):
        raise ValueError(f"{twice[0]} stands there twice")
    return data


class Link(Section):
    """One link of the training chain; paths below models/ (base, start) and data/ (data)."""

    weights: Literal["adapter", "all"]
    base: str
    start: str
    data: Annotated[str | list[str], BeforeValidator(_sets)]

    @property
    def sets(self) -> list[str]:
        """The sets of `data`, one or several."""
        return [self.data] if isinstance(self.data, str) else self.data


class Aligned(Section):
    """Weights that DPO starts from and is held against, a path below models/."""

    start: str


class Merge(Section):
    """Adapters of one base; `second` and `third` add nothing where they repeat another."""

    base: str
    adapter: str
    second: str
    third: str

    @property
    def adapters(self) -> list[str]:
        """Those that are merged, each once."""
        return list(dict.fromkeys([self.adapter, self.second, self.third]))


class Checkpoint(Section):
    model: str

    @property
    def further(self) -> bool:
        """Whether it is one of `models`, which this recipe did not make."""
        return self.model.startswith(FURTHER)


class Evaluated(Checkpoint):
    base: str
    link: bool


class Compared(Section):
    """Two of `checkpoints`: how often the grader calls `model` better than `baseline`."""

    model: str
    baseline: str


# --- who -----------------------------------------------------------------------------------------


def _one_licence(terms: str) -> str:
    # "Apache License, Version 2.0" is one
    if "," in re.sub(r",(?=\s*v(ersion)?\b)", "", terms.lower()) or not terms.strip():
        raise ValueError("one licence or one set of terms, such as Apache-2.0 or OpenAI-terms")
    return terms


# Under what a model's output may be used: an SPDX id, or PROVIDER-terms (bezoar/licences.py).
Terms = Annotated[str, AfterValidator(_one_licence)]


class Embedded(Section):
    """A simulated model in this process, free."""

    provider: Literal["embedded"]
    model: str
    terms: Terms
    concurrency: Count


class Price(Section):
    """US dollars per million tokens; `batch` is the share of them that batch mode pays."""

    input: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    batch: Share


class Remote(Section):
    """A model behind HTTP. Several addresses in `base_url` serve the same model; requests are
    spread over them. `params` go into each request as they are, null leaves one out; `again`
    replaces some of them where a request is made a second time, because its reply said nothing
    usable: at temperature 0 nothing else would change the reply, and it is not asked for.
    `context_tokens` is what a request and its reply may have together (null: not known, nothing is
    held back), counted with `tokenizer` (a tokenizer.json, or a folder with one; null: by a stated
    estimate). `timeout` is seconds for one attempt, `patience` for one request with its retries;
    above `max_failed` (share of the jobs) the stage fails. `reply_tokens` is the forecast's
    estimate."""

    model: str
    terms: Terms
    # checked as a whole: the complaint of a union's other half would repeat an address with a key
    base_url: Annotated[str | list[str], AfterValidator(_plain_urls)]
    api_key_env: Annotated[str, AfterValidator(_variable)] | None
    params: Annotated[dict[str, Any], AfterValidator(_free)]
    # keys that came later have a default, so that a params.yaml written before them stays valid
    again: Annotated[dict[str, Any], AfterValidator(_free)] = {}
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
        """Where the model is served. Answers are remembered under the first, so that servers may
        come and go after it."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @model_validator(mode="after")
    def _one_for_batches(self) -> "Remote":
        if self.mode == "batch" and len(self.addresses) > 1:
            raise ValueError("mode: batch goes to one address; give one base_url, or mode: live")
        if len({*self.addresses}) < len(self.addresses):
            raise ValueError("base_url: an address stands there twice")
        return self


class OpenAI(Remote):
    """Any server that speaks OpenAI's protocol; `base_url` ends with /v1. `completion` sends the
    prompt as raw text. `structured`: a judge's verdict is asked for by a JSON schema, which the
    server then holds the reply to; false where it knows no `response_format`. `system_role`:
    false where the server's chat template refuses a system message, which then opens the first
    user message."""

    provider: Literal["openai"]
    style: Literal["chat", "completion"]
    structured: bool
    system_role: bool = True

    @model_validator(mode="after")
    def _schema_wants_chat(self) -> "OpenAI":
        if self.structured and self.style == "completion":
            raise ValueError("structured: a schema goes with style: chat alone")
        return self


class Anthropic(Remote):
    """Anthropic's Messages API; `base_url` without /v1."""

    provider: Literal["anthropic"]
    api_version: str


MOST = ("max_new_tokens", "max_tokens")  # of a model in this process, one of the two
# What people give other samplers, and what stands for it here
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


def _drawing(params: dict[str, Any]) -> dict[str, Any]:
    """Close the params of a model in this process: a maximum of a reply, and a temperature."""
    known = (*MOST, "temperature")
    for name, value in _free(params).items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            instead = ELSEWHERE.get(name) or (
                f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}"
            )
            raise ValueError(f"{name!r} is not known to a model in this process; {instead}")
        number = type(value) in (int, float)  # a boolean is an int to Python
        if name == "temperature" and not (value is None or (number and 0 <= value <= 2)):
            raise ValueError(f"temperature: {value!r}; from 0, the likeliest token, to 2")
        if name in MOST and not (value is None or (type(value) is int and value > 0)):
            raise ValueError(f"{name}: {value!r}; tokens of a reply, 1 or more")
    if len(_maxima(params)) > 1:
        raise ValueError(f"{' and '.join(MOST)} say the same; leave one out")
    return params


def _maxima(params: dict[str, Any]) -> list[int]:
    """The maxima of a reply that are set, one or none where the params are checked."""
    return [value for name, value in params.items() if name in MOST and value is not None]


def _with_maximum(params: dict[str, Any]) -> dict[str, Any]:
    if not _maxima(params):
        raise ValueError(f"sets no maximum of a reply; {MOST[0]}: 512, say")
    return params


Drawing = Annotated[dict[str, Any], AfterValidator(_drawing)]


class InProcess(Section):
    """A transformers model folder below local/llm/, run in this process. `params`:
    max_new_tokens, the most that a reply may have, and temperature; at 0, or without one, the
    likeliest token is taken. `again` and `system_role` as of Remote and OpenAI. At most
    `batch_size` requests are continued together; its context is in its config.json."""

    provider: Literal["local"]
    model: str
    terms: Terms
    style: Literal["chat", "completion"]
    params: Annotated[Drawing, AfterValidator(_with_maximum)]
    again: Drawing = {}
    system_role: bool = True
    concurrency: Count
    batch_size: Count

    def most(self, sample: int = 0) -> int:
        """Tokens of the longest reply."""
        return max(_maxima({**self.params, **(self.again if sample else {})}))


Endpoint = Annotated[Embedded | OpenAI | Anthropic | InProcess, Field(discriminator="provider")]


class Budget(Section):
    """US dollars that one stage, and all stages together, may spend; null: no cap. A cap counts
    all that was bought and lost under the profile and this `name`, by whatever variant of the
    recipe; another name begins from zero."""

    name: Name = "first"
    stage: Annotated[float, Field(ge=0)] | None
    run: Annotated[float, Field(ge=0)] | None


def _two_voices(panel: list[Endpoint]) -> list[Endpoint]:
    models = [member.model for member in panel]
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise ValueError(f"{twice[0]} stands there twice; a second opinion is another model's")
    return panel


Panel = Annotated[list[Endpoint], Field(min_length=1), AfterValidator(_two_voices)]


def _below(path: str, folder: str) -> bool:
    """Whether a path, as it is written, is a folder right below another."""
    return Path(path).parent.as_posix() == folder and Path(path).name != ".."


class Endpoints(Section):
    """`judge` is one endpoint, or several: a panel."""

    teacher: Endpoint
    # told apart before either is checked: a fault is told once, where it stands
    judge: Annotated[
        Annotated[Endpoint, Tag("one")] | Annotated[Panel, Tag("panel")],
        Discriminator(lambda value: "panel" if isinstance(value, list) else "one"),
    ]
    grader: Endpoint

    @property
    def judges(self) -> list[Endpoint]:
        """The panel's members in their order; the one judge where there is no panel."""
        return self.judge if isinstance(self.judge, list) else [self.judge]

    def by_name(self, who: str) -> dict[str, Endpoint]:
        """The endpoints of one key, each by its path below `llm`: judge, or judge.0 and so on."""
        found: Endpoint | list[Endpoint] = getattr(self, who)
        if isinstance(found, list):
            return {f"{who}.{at}": endpoint for at, endpoint in enumerate(found)}
        return {who: found}

    @model_validator(mode="after")
    def _local_models_where_dvc_looks(self) -> "Endpoints":
        for who in type(self).model_fields:
            for name, endpoint in self.by_name(who).items():
                if isinstance(endpoint, InProcess) and not _below(endpoint.model, ASKED):
                    raise ValueError(
                        f"{name}.model: {endpoint.model}: lies outside of {ASKED}/, where "
                        "DVC sees that a model has changed; bring it there with cp -r (cp -al "
                        f"links instead of copying), and name it {ASKED}/NAME"
                    )
        return self

    @model_validator(mode="after")
    def _only_verdicts_have_a_schema(self) -> "Endpoints":
        for who in ("teacher", "grader"):
            if getattr(getattr(self, who), "structured", False):
                raise ValueError(f"{who}.structured: only a judge's verdict has a schema; false")
        return self


# --- stages --------------------------------------------------------------------------------------


class World(Section):
    """Rows written by the project's own small world."""

    source: Literal["world"]
    rows: Count


AnswerIs = Literal["number_from_0", "number_from_1", "letter", "text", "label"]


class Reading(Section):
    """How files are read as rows. `take`: a limit is spread over the files, or takes the first rows
    as they stand. `fields`: our names of fields, and what the files call them. `category`: of seeds
    that name none. `answer_is`: how a benchmark writes its answers, where two readings fit."""

    take: Literal["spread", "first"] = "spread"
    fields: dict[str, Annotated[str, Field(min_length=1)]] = {}
    category: Annotated[str, Field(min_length=1)] = "open_qa"
    answer_is: AnswerIs | None = None


class Local(Reading):
    """The user's own files in local/NAME/: at most `limit` rows (benchmarks: of a task), null for
    all. `licence`: of all of them; null: as a README beside a file states it. Where there are none
    `otherwise` stands in; null: there must be some."""

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


class LocalBase(Section):
    """The user's own model in local/base/; where there is none `otherwise` is grown."""

    source: Literal["local"]
    otherwise: GrownBase


def _commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        raise ValueError(
            "a branch can move; name a commit: 40 hex digits, or its first 7 and more with `ref`"
        )
    return revision


class Repository(Section):
    """A repository of the Hugging Face Hub at one commit. `revision` is the whole commit; where
    only its first digits are known, `ref` names the branch whose tip it must be. `licence` as the
    repository states it."""

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    kind: Literal["dataset", "model", "space"]
    revision: Annotated[str, AfterValidator(_commit)]
    ref: str | None
    licence: str

    @model_validator(mode="after")
    def _whole(self) -> "Repository":
        if len(self.revision) < 40 and self.ref is None:
            raise ValueError("revision: part of a commit wants `ref`, the branch that ends in it")
        return self


class Files(Repository):
    """Some files of a repository, in this order; a name may be a pattern with `*`."""

    files: Annotated[list[str], Field(min_length=1)]


class Hub(Reading):
    """Rows from the Hugging Face Hub: at most `limit`, null for all."""

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
    """The FLAN collection from the Hub, streamed: `per_task` rows of each task, drawn evenly from
    all that are read. `task_share` of the tasks; at most `shards` files of a pattern, null for
    all."""

    source: Literal["hub"]
    mixtures: Mixtures
    per_task: Count
    task_share: Annotated[float, Field(gt=0, le=1)]
    shards: Count | None


class Wikipedia(Section):
    """Categories of Wikipedia out of its category table (a dump, `category.sql.gz`). `sha256` of
    the file, null to take what the address holds now; words that make a category one of
    housekeeping stand in `housekeeping`."""

    source: Literal["wikipedia"]
    url: Url
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    licence: str
    housekeeping: list[str]


class Harness(Section):
    """No items of our own: `tasks`, the same as lm_eval.tasks, are brought by lm_eval from the Hub;
    their texts are written down, for `filter` to look for them."""

    source: Literal["harness"]
    tasks: Annotated[list[str], Field(min_length=1)]


class HubBase(Files):
    """A base model from the Hub."""

    source: Literal["hub"]


class FurtherHub(HubBase):
    """A further model from the Hub. `chat_template`: how a conversation is put to it, as Jinja;
    null: as its tokenizer has it, and as this recipe does where it has none. `stop`: what begins
    the next turn where the model writes that too; an answer ends before it."""

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
            raise ValueError("endpoint.structured: only a judge's verdict has a schema; false")
        return self


Further = Annotated[FurtherHub | FurtherLocal | FurtherServed, Field(discriminator="source")]
Rows = Annotated[World | Local | Hub, Field(discriminator="source")]
Flan = Annotated[World | Local | HubFlan, Field(discriminator="source")]
Topics = Annotated[World | Local | Wikipedia, Field(discriminator="source")]
Benchmarks = Annotated[World | Local | Harness, Field(discriminator="source")]
Base = Annotated[GrownBase | LocalBase | HubBase, Field(discriminator="source")]


# What `fields` of a source may name.
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
    seed: int
    dolly: Rows
    flan: Flan
    topics: Topics
    hh_rlhf: Rows
    mt_bench: Rows
    benchmarks: Benchmarks
    base: Base

    @model_validator(mode="after")
    def _fields_are_known(self) -> "Fetch":
        for source, known in FIELDS.items():
            for name in getattr(getattr(self, source), "fields", {}):
                if name not in known:
                    raise ValueError(
                        f"{source}.fields.{name}: no field of these rows; have {', '.join(known)}"
                    )
        return self


class Generate(Section):
    seed: int


# Which categories of seeds a scheme draws from; null: all that the seeds have, but `without`.
Categories = Annotated[list[str], Field(min_length=1)] | None


class Lamini(Section):
    seeds: Name
    examples: Count
    asked: Count
    topic_guided: Share
    topics: Count
    topic_words: Count
    topic_subcategories: int
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    calls: Count
    fewer_examples: bool = True  # came later: older files stay valid


Operation = Literal[
    "add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"
]


class EvolInstruct(Section):
    seeds: Name
    epochs: Count
    breadth: Share
    operations: list[Operation]
    refusal_words: int
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    per_category: Count
    iterations: Count = 1  # came later: older files stay valid


class SystemIds(Section):
    cot: list[int]
    niv2: list[int]
    t0: list[int]
    flan2021: list[int]


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
    def named(self) -> dict[str, Any]:
        """The schemes that params.yaml names, in the order of this class."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: scheme for name, scheme in every.items() if scheme is not None}


class Judge(Section):
    """`vote`: how a panel decides (bezoar/panel.py); one judge decides alone."""

    scale: Annotated[int, Field(ge=2)]
    vote: Literal["majority", "mean"]


def _shares(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if not total:
        raise ValueError("weighs nothing: give a kind of task a weight above zero")
    return {kind: weight / total for kind, weight in weights.items()}


# Shares of kinds of task that add to one; the file gives weights in any unit.
Target = Annotated[
    dict[Annotated[str, Field(pattern=r"^\w+$")], Annotated[float, Field(ge=0)]],
    AfterValidator(_shares),
]


class Balance(Section):
    """How many of the kept rows stay, and toward which shares they are drawn."""

    rows: Count
    target: Target


class Licences(Section):
    """What a kept row may stand under (its seeds', the teacher's, the judge's); null: anything."""

    allow: list[str] | None


Action = Literal["drop", "report"]  # report: the row stays, and what was found is written down


class RowAction(Section):
    """What becomes of a row in which a check finds something."""

    action: Action


class NearDuplicates(Section):
    """Rows that ask nearly the same: Jaccard index of word n-grams at or above `threshold`. Below
    0.5 the search for candidates would miss some."""

    ngram: Count
    threshold: Annotated[float, Field(ge=0.5, le=1)]
    action: Action


class Step(Section):
    words: Count
    cosine: Annotated[float, Field(gt=0, le=1)]


def _falling(steps: list[Step]) -> list[Step]:
    for one, other in pairwise(steps):
        if one.words >= other.words or one.cosine <= other.cosine:
            raise ValueError("more words ask for less likeness: words rise, cosines fall")
    return steps


class Decontamination(Section):
    """`ngram`: that many words of a benchmark's item in a row. `whole`: a shorter question of that
    many words or more, whole. `fuzzy`: from so many different words on (of the shorter text) so
    high a cosine."""

    ngram: Annotated[int, Field(ge=5)]
    whole: Annotated[int, Field(ge=2)] = 5
    fuzzy: Annotated[list[Step], Field(min_length=1), AfterValidator(_falling)]
    action: Action


def _languages(value: Any) -> str | list[str]:
    """Take `any`, `seeds`, or languages by ISO 639-1 or by their English names."""
    if value in ("any", "seeds"):
        return str(value)
    names = value if isinstance(value, list) else [value]
    names = ["no" if name is False else name for name in names]  # as YAML reads Norwegian
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("is no seeds, any, or list of languages such as [de, en]")
    from bezoar import languages  # here, for a stage that tells none depends on none of it

    return list(dict.fromkeys(map(languages.code, names)))


class Gates(Section):
    """Thresholds of bezoar/gates.py, where each is explained. `language`: what rows may be in:
    `seeds` (what the seeds are in), `any`, or a list."""

    refusal_words: Count
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    truncated_words: Count
    # came later, as did `language_odds`: an older params.yaml meant its seeds' English
    language: Annotated[str | list[str], BeforeValidator(_languages)] = "seeds"
    language_words: Count
    language_odds: Annotated[float, Field(gt=1)] = 20.0
    characters: Count
    action: Action


class Filter(Section):
    """What `filter` looks for.

    `copies`: the schemes whose rows are held against their seeds. `duplicates`: rows that are equal
    but for white space. `markers`: rows that hold a mark of the chat template. `tasks`: pattern (of
    a row's category, or of its FLAN sub-mixture/task) -> kind of task, the first that matches. What
    none matches is `other`. `target`: the shares that a set is told beside."""

    min_rating: int
    copy_ratio: Share
    copy_distance: Annotated[int, Field(ge=0)]
    # came later, as what an older params.yaml did
    copies: list[str] = ["lamini", "evol_instruct"]
    eval_share: Rate
    licences: Licences
    tasks: dict[str, str]
    target: Target
    balance: Balance | None
    # these two came later: an older params.yaml stays valid, and drops as it did
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
    """`replay`: rows of the links before, as a share of a link's own."""

    seed: int
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

B = TypeVar("B", bound="Training | Dpo")


def _whole_micro_batches(section: B) -> B:
    if section.micro_batch_size != "auto" and section.batch_size % section.micro_batch_size:
        raise ValueError(
            f"micro_batch_size {section.micro_batch_size} does not divide batch_size "
            f"{section.batch_size}"
        )
    return section


class Training(Section):
    """How one link is trained: runs of so many epochs, examples an optimizer step, learning rate,
    tokens a row. `runs`: at most; a further one where the losses of the last have not diverged.
    `micro_batch_size` auto: as many examples at once as fit into the GPU's memory. `eval_limit`:
    held-out rows evaluated, spread over all; null for all."""

    runs: Count
    epochs: Count
    batch_size: Count
    micro_batch_size: Count | Literal["auto"]
    learning_rate: Rate
    warmup_steps: Annotated[int, Field(ge=0)]
    max_length: Count
    eval_limit: Count | None

    @model_validator(mode="after")
    def _whole_batches(self) -> "Training":
        return _whole_micro_batches(self)


def _modules(modules: object) -> object:
    if modules == ALL_LINEAR:
        return modules
    if not isinstance(modules, list) or not modules or not all(isinstance(m, str) for m in modules):
        raise ValueError(
            f"{ALL_LINEAR}, or a list of names that layers end in, such as [q_proj, v_proj]"
        )
    return modules


ALL_LINEAR = "all-linear"  # peft's word for every linear layer but the head
# The layers that LoRA is put on, by the ends of their names
TargetModules = Annotated[str | list[str], BeforeValidator(_modules)]


class Sft(Section):
    """`lora_r`, `lora_alpha`, `lora_dropout` and `target_modules` are peft's. `evaluations`: how
    often a run is evaluated at least, as far as its epochs' ends are not enough."""

    seed: int
    evaluations: Count = 1  # came later: older files stay valid
    lora_r: Count
    lora_alpha: Count
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: TargetModules = ALL_LINEAR  # came later: an older params.yaml stays valid
    quantization: Literal["nf4", "fp4"]
    double_quantization: bool
    optimizer: Optimizer
    scheduler: str
    keep: Literal["best", "last"]
    patience: Count
    divergence: Annotated[float, Field(ge=0)]
    neftune_alpha: Annotated[float, Field(gt=0)] | None
    deterministic: bool
    links: dict[str, Training]


class MergeStage(Section):
    """`weights`: of the adapters that are merged, in their order."""

    onto: Literal["dequantized", "reloaded"]
    method: Literal["linear", "ties", "dare_linear", "dare_ties", "slerp"]
    weights: Annotated[list[float], Field(min_length=3, max_length=3)]
    density: Annotated[float, Field(gt=0, le=1)]
    seed: int
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
# Losses that take some preferences for wrong ones, and those that have no meaning without
SMOOTHED, NEVER_UNSMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired"), ("exo_pair", "robust")


class Dpo(Section):
    """`label_smoothing`: the share of preferences that are taken for wrong ones (robust, aot,
    exo_pair). `weights`: all, or adapter, LoRA on the frozen start, for which `lora_r`,
    `lora_alpha` and `target_modules` are there. `evaluations`: as of Sft."""

    seed: int
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
    scheduler: str
    epochs: Count
    batch_size: Count
    micro_batch_size: Count | Literal["auto"]
    learning_rate: Rate
    warmup_steps: Annotated[int, Field(ge=0)]
    max_prompt_tokens: Count
    max_answer_tokens: Count
    eval_limit: Count | None

    @model_validator(mode="after")
    def _whole_batches(self) -> "Dpo":
        return _whole_micro_batches(self)

    @model_validator(mode="after")
    def _smoothing_has_a_meaning(self) -> "Dpo":
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing: {self.loss} has none; 0, or {', '.join(SMOOTHED)}")
        if not self.label_smoothing and self.loss in NEVER_UNSMOOTHED:
            raise ValueError(f"label_smoothing: {self.loss} wants one above 0, such as 0.1")
        return self


class LmEval(Section):
    """`tasks` null: every file of data/fetch/benchmarks; `limit`: items a task, null for all;
    `chat_template`: put a question as an instruction, as in training, not as plain text."""

    num_fewshot: Annotated[int, Field(ge=0)]
    chat_template: bool
    tasks: list[str] | None
    limit: Count | None
    batch_size: Count


Temperature = Annotated[float, Field(ge=0, le=2)]


class Temperatures(Section):
    """By MT-Bench's categories."""

    writing: Temperature
    roleplay: Temperature
    reasoning: Temperature
    math: Temperature
    coding: Temperature
    extraction: Temperature
    stem: Temperature
    humanities: Temperature


class MtAnswer(Section):
    """`temperature`: of every answer, or by category; 0 is greedy. `loop_*`: as of Gates."""

    temperature: Annotated[
        Annotated[Temperature, Tag("number")] | Annotated[Temperatures, Tag("by_category")],
        Discriminator(lambda v: "by_category" if isinstance(v, dict | Temperatures) else "number"),
    ]
    seed: int
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    limit: Count | None


class MtGrade(Section):
    """`references`: the categories whose questions are judged beside a reference answer."""

    references: Literal["all"] | list[str]
    seed: int


class MtCompare(Section):
    """`limit`: questions compared, spread over all; null for all, 0 for no comparison."""

    seed: int
    limit: Annotated[int, Field(ge=0)] | None


class Agreement(Section):
    """`verdicts`: our judge compares two answers, or grades each alone. `records`: those on which
    every set of judgements has a verdict, or all. `limit`: pairs of answers that are put to it,
    spread over all; null for all, 0 for none. `own`: which model's answers a judge of the given
    votes may take for its own."""

    own: dict[str, str]
    tie_margin: Annotated[float, Field(ge=0)]
    seed: int
    # came later: older files stay valid
    verdicts: Literal["pairs", "single"] = "pairs"
    records: Literal["intersection", "all"] = "intersection"
    limit: Annotated[int, Field(ge=0)] | None = None


FEWEST_KNOWN = 8  # ours: a coin reaches 0.7 on so few one time in ten, on twenty one in seventy


class Known(Section):
    """How a judge is held to rows whose answers are known (bezoar/known.py). `rows`: seeds that it
    is asked about, each with its own answer and with another's. Where it tells them apart with an
    AUC below `least_auc` a stage warns, or stops before it asks about anything else."""

    rows: Annotated[int, Field(ge=FEWEST_KNOWN)]
    least_auc: Share
    below: Literal["warn", "stop"]
    seed: int


class Report(Section):
    examples: Count


class Params(Section):
    """params.yaml as one profile sees it. `launch` names a file of launch/ by which training runs
    on several processes; null: in one. `cpu` names the instructions that CPUs of several kinds have
    in common, so that all compute the same bits; null: each computes as is fastest on it. `others`
    names those of `models` that stand beside our checkpoints; `load` drops the rest of `models`,
    and adds these to `checkpoints` and, but for those behind an endpoint, to `evaluated`."""

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
        """The sources whose rows this recipe trains on, shows a teacher, or evaluates by."""
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
        return {scheme.seeds for scheme in self.schemes.named.values()}

    @property
    def final(self) -> str:
        """The checkpoint that the chain ends with: the last that is no further model."""
        measured = {name: each for name, each in self.evaluated.items() if not each.link}
        ours = [name for name, each in (measured | self.checkpoints).items() if not each.further]
        return ours[-1] if ours else [*self.chain][-1]

    @property
    def final_model(self) -> str:
        """The path below models/ of the checkpoint that the chain ends with."""
        named: dict[str, Checkpoint] = {**self.evaluated, **self.checkpoints}
        return named[self.final].model if self.final in named else f"sft/{self.final}"

    def further(self, looked_at: Checkpoint) -> Further | None:
        """Which of `models` it is; None for what this recipe makes."""
        return self.models[looked_at.model.removeprefix(FURTHER)] if looked_at.further else None


def load(path: str | Path = "params.yaml", profile: str | None = None) -> Params:
    """The parameters of the active profile, or of the one named; BadInput lists every fault of the
    whole file."""
    return _load(Path(path).resolve(), Path(path).name, profile)


def forget() -> None:
    """Have the file read anew: it was changed."""
    _load.cache_clear()


@cache
def _load(path: Path, name: str, wanted: str | None) -> Params:
    document = _read(path, name)
    profiles = document.pop("profiles")
    active = document["profile"] = wanted or document["profile"]
    if active not in profiles:
        _stop(name, [f"profile: there is no profile {active!r}; have {', '.join(profiles)}"])
    faults: list[str] = []
    checked: dict[str, Params] = {}
    for profile, scale in profiles.items():
        joined, both = _join(document, _named(document, scale or {}), ())
        faults += [
            f"{key}: set by the recipe and by profiles.{profile}; keep one of the two"
            for key in both
        ]
        try:
            checked[profile] = Params.model_validate(joined)
        except ValidationError as error:
            faults += [_fault(e, profile, scale or {}) for e in error.errors()]
        else:
            faults += _others(checked[profile])
            checked[profile] = _with_others(checked[profile])
            faults += _references(checked[profile])
            faults += _merged(checked[profile])
            faults += _links(profile, checked[profile])
            faults += _benchmarks(profile, checked[profile])
            faults += _launch(profile, checked[profile].launch, path.parent / "launch")
    if faults:
        _stop(name, list(dict.fromkeys(faults)))
    return checked[active]


def _read(path: Path, name: str) -> dict[str, Any]:
    document: Any
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{name}: there is no such file; run from the project's folder") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        _stop(name, ["a mapping of sections is expected"])
    for key, kind in (("profile", str), ("profiles", dict)):
        if not isinstance(document.get(key), kind):
            _stop(name, [f"{key}: missing, or not a {'name' if kind is str else 'mapping'}"])
    checked: dict[str, Any] = document
    return checked


def _named(recipe: dict[str, Any], scale: dict[str, Any]) -> dict[str, Any]:
    """Leave out how much a profile asks of schemes that the recipe leaves out."""
    schemes, amounts = recipe.get("schemes"), scale.get("schemes")
    if not isinstance(schemes, dict) or not isinstance(amounts, dict):
        return scale
    absent = Schemes.model_fields.keys() - schemes.keys()
    left = {name: amount for name, amount in amounts.items() if name not in absent}
    return {**scale, "schemes": left}


def _join(
    recipe: dict[str, Any], scale: dict[str, Any], above: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    joined, both = dict(recipe), []
    for key, value in scale.items():
        if key not in joined:
            joined[key] = value
        elif isinstance(joined[key], dict) and isinstance(value, dict):
            joined[key], deeper = _join(joined[key], value, (*above, key))
            both += deeper
        else:
            both.append(".".join((*above, key)))
    return joined, both


def _fault(error: Any, profile: str, scale: dict[str, Any]) -> str:
    # the tag of a discriminated union ("world") stands in loc but not in the file
    loc = [str(part) for part in error["loc"] if part not in _TAGS]
    where, inside = ".".join(loc), scale
    for part in loc:
        if isinstance(inside, list) and int(part) < len(inside):
            inside = inside[int(part)]
        elif isinstance(inside, dict) and part in inside:
            inside = inside[part]
        else:
            break
    else:
        where = f"profiles.{profile}.{where}"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], sorted(_names(Params)), 1)
        return f"{where}: no such parameter" + (f"; did you mean {near[0]!r}?" if near else "")
    if error["type"] == "missing":
        return f"{where}: missing (in the recipe, or in profiles.{profile})"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # its input may be a key in the wrong place
        return f"{where}: {message}"
    return f"{where}: {message.lower()} (got {error['input']!r})"


def _names(section: type[BaseModel]) -> set[str]:
    found = set(section.model_fields)
    for field in section.model_fields.values():
        for inner in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= _names(inner)
    return found


def _references(params: Params) -> list[str]:
    """Links, merges and checkpoints must name weights that a stage makes, links sets of rows."""
    made = {
        "fetch/base",
        *(f"dpo/{name}" for name in params.aligned),
        *(f"sft/{name}" for name in params.chain),
        *(f"merge/{name}" for name in params.merges),
    }
    trained = {
        **{f"chain.{n}.{k}": getattr(c, k) for n, c in params.chain.items() for k in _WEIGHTS},
        **{f"merges.{n}.{k}": getattr(m, k) for n, m in params.merges.items() for k in _MERGED},
        **{f"aligned.{n}.start": each.start for n, each in params.aligned.items()},
    }
    looked_at = {
        **{f"evaluated.{n}.model": e.model for n, e in params.evaluated.items()},
        **{f"evaluated.{n}.base": e.base for n, e in params.evaluated.items()},
        **{f"checkpoints.{n}.model": c.model for n, c in params.checkpoints.items()},
    }
    further = {f"{FURTHER}{name}" for name in params.models}
    faults = []
    for where, path in {**trained, **looked_at}.items():
        if path not in made | (further if where in looked_at else set()):
            near = difflib.get_close_matches(path, sorted(made), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"have {', '.join(sorted(made))}"
            faults.append(f"{where}: no stage makes models/{path}; {hint}")
    sets = [PAIRS, *(f"filter/{name}" for name in [*params.schemes.named, *params.own])]
    for name, link in params.chain.items():
        for path in link.sets:
            if path not in sets:
                near = difflib.get_close_matches(path, sets, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"have {', '.join(sets)}"
                hint = _left_out(path) or hint
                faults.append(f"chain.{name}.data: data/{path} is no set of rows; {hint}")
    return faults + _compared(params)


def _left_out(path: str) -> str:
    """What to do about a set that is known, and not made; "" where it is not known."""
    name = path.removeprefix("filter/")
    if path == f"filter/{OWN}":
        return f"your own rows are filtered where they are named: own: [{OWN}]"
    if path.startswith("filter/") and name in Schemes.model_fields:
        return (
            f"the scheme is left out of `schemes`: `python -m bezoar.recipe without {name}` (or "
            "`whole`) writes the links that go with it"
        )
    return ""


def _others(params: Params) -> list[str]:
    """What stands in `others` must be one of `models`, once, and no checkpoint of ours."""
    faults, have = [], ", ".join(params.models) or "none"
    for name in dict.fromkeys(params.others):
        if name not in params.models:
            near = difflib.get_close_matches(name, list(params.models), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"have {have}"
            faults.append(f"others: {name!r} is none of `models`; {hint}")
        if params.others.count(name) > 1:
            faults.append(f"others: {name!r} stands there twice")
        if name in {**params.checkpoints, **params.evaluated}:
            faults.append(f"others: {name!r} is a checkpoint of this recipe; rename it in `models`")
    if "index" in {**params.checkpoints, **dict.fromkeys(params.others)}:
        # the report's page of a checkpoint bears its name, beside the page that lists them all
        faults.append("checkpoints: 'index' is the name of a page of the report; rename it")
    for key in ("checkpoints", "evaluated"):
        for name, each in getattr(params, key).items():
            if each.further:
                other = each.model.removeprefix(FURTHER)
                faults.append(
                    f"{key}.{name}: {each.model} is not made by this recipe; leave the line out, "
                    f"and name {other} in `others`"
                )
    return faults


def _with_others(params: Params) -> Params:
    """`params` in which `others` stand beside our checkpoints, and no other model is left."""
    beside = {name: params.models[name] for name in params.others if name in params.models}
    places = {name: f"{FURTHER}{name}" for name in beside}
    answering = {name: Checkpoint(model=place) for name, place in places.items()}
    # an endpoint has no log-probabilities to give
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


def _compared(params: Params) -> list[str]:
    """What is compared must be two checkpoints that answer MT-Bench."""
    faults, have = [], list(params.checkpoints)
    for name, pair in params.compared.items():
        for key in ("model", "baseline"):
            if (named := getattr(pair, key)) not in have:
                near = difflib.get_close_matches(named, have, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"have {', '.join(have)}"
                faults.append(f"compared.{name}.{key}: {named!r} is no checkpoint; {hint}")
        if pair.model == pair.baseline:
            faults.append(f"compared.{name}: {pair.model!r} is compared with itself")
    return faults


def _merged(params: Params) -> list[str]:
    """An arc has two ends."""
    return [
        f"merges.{name}: merge.method slerp goes between two adapters, here are three"
        for name, merge in params.merges.items()
        if params.merge.method == "slerp" and len(merge.adapters) > 2
    ]


def _links(profile: str, params: Params) -> list[str]:
    """Every link must have an amount and a beginning. Amounts may be left over: an experiment that
    leaves out a link edits `chain` alone."""
    faults = []
    for name, link in params.chain.items():
        if link.start == f"sft/{name}":
            faults.append(f"chain.{name}.start: a link cannot start from itself")
        if name not in params.sft.links:
            spare = sorted(params.sft.links.keys() - params.chain.keys())
            near = difflib.get_close_matches(name, spare, 1)
            hint = f"; did you mean it by {near[0]!r}?" if near else ""
            faults.append(
                f"profiles.{profile}.sft.links.{name}: missing; chain has this link{hint}"
            )
    return faults or _circle(params)


def _circle(params: Params) -> list[str]:
    """Weights that would have to be there before they are made."""
    needs = {
        **{f"sft/{n}": [getattr(c, k) for k in _WEIGHTS] for n, c in params.chain.items()},
        **{f"merge/{n}": [getattr(m, k) for k in _MERGED] for n, m in params.merges.items()},
        **{f"dpo/{name}": [each.start] for name, each in params.aligned.items()},
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return [f"chain: goes in a circle: {' -> '.join(error.args[1])}"]
    return []


def _benchmarks(profile: str, params: Params) -> list[str]:
    """What is evaluated must be what `filter` looks for."""
    fetched = params.fetch.benchmarks
    if not isinstance(fetched, Harness) or fetched.tasks == params.lm_eval.tasks:
        return []
    return [
        f"profiles.{profile}.lm_eval.tasks: not those of fetch.benchmarks, whose texts `filter` "
        "looks for; name the same in both"
    ]


def _launch(profile: str, name: str | None, folder: Path) -> list[str]:
    """What training is launched by must be a file of launch/."""
    have = sorted(file.stem for file in folder.glob("*.yaml"))
    if name is None or name in have:
        return []
    return [
        f"profiles.{profile}.launch: there is no launch/{name}.yaml; "
        f"have {', '.join(have) or 'none'}"
    ]


_TAGS = (
    *("world", "local", "grown", "hub", "wikipedia", "harness", "served"),
    *("embedded", "openai", "anthropic"),
    *("one", "panel"),
    *("number", "by_category"),
    "[key]",  # of a fault in a name itself
)
_WEIGHTS, _MERGED = ("base", "start"), ("base", "adapter", "second", "third")


def _stop(name: str, faults: list[str]) -> None:
    lines = "\n".join(f"  {fault}" for fault in faults)
    raise BadInput(f"{name} is not usable, nothing was run:\n{lines}")


def main(arguments: list[str]) -> None:
    """`python -m bezoar.params [PROFILE]`: check params.yaml; with PROFILE, switch to it first."""
    path = Path("params.yaml")
    if arguments:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        at = next(i for i, line in enumerate(lines) if line.startswith("profile:"))
        lines[at] = f"profile: {arguments[0]}\n"
        if (changed := "".join(lines)) != text:
            path.write_text(changed, encoding="utf-8")
            _load.cache_clear()
            print(f"params.yaml: profile is now {arguments[0]}")
    load(path)


if __name__ == "__main__":
    main(sys.argv[1:])
