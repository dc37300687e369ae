"""The mix of rows, supervised training, the merge of adapters, and DPO."""

from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from bezoar.params.fields import Count, Number, Rate, Section, Seed, Share


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
