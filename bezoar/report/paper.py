"""The paper's numbers (OpenBezoar, arXiv 2404.12195) that the report prints beside ours.

Keys are this project's names: schemes, links, checkpoints, harness tasks. A number that the paper
does not print is absent here, and the report leaves its place empty.
"""

from dataclasses import dataclass

BASE = "OpenLLaMA 3B v2"
# The base on the Hugging Face Hub.
REPOSITORY = "openlm-research/open_llama_3b_v2"
TEACHER = "h2oGPT Falcon 40B"
JUDGE = "GPT-4"
GRADER = "Claude 2.1"


@dataclass(frozen=True)
class Sampling:
    """Rejection sampling of one scheme: instructions asked for, rows accepted, and shares of the
    rows judged. `asked` is None where the paper prints no total."""

    asked: int | None
    accepted: int
    accepted_share: float
    undecided_share: float


# Table 4. `asked` is from paper 3.1.1 and 3.1.3: its printed sum, whose parts add to one more.
SAMPLING = {
    "lamini": Sampling(1504, 1120, 0.745, 0.001),
    "evol_instruct": Sampling(None, 1567, 0.680, 0.0),
    "orca": Sampling(5507, 921, 0.167, 0.475),
}

# Paper 3.1.3: queries drawn from each FLAN sub-mixture.
MIXTURES = {"niv2": 4665, "t0": 579, "flan2021": 210, "cot": 54}


@dataclass(frozen=True)
class TrainingRun:
    """One run of a link: evaluation loss before its first and after its last epoch."""

    epochs: int
    batch: int
    start: float
    end: float


# Table 5, run 1 then run 2.
TRAINING = {
    "lamini": (TrainingRun(10, 64, 1.661, 0.8023), TrainingRun(10, 64, 0.8063, 0.843)),
    "orca": (TrainingRun(10, 64, 2.315, 1.539), TrainingRun(10, 64, 1.553, 1.533)),
    "evol_instruct": (TrainingRun(10, 64, 1.006, 0.8835),),
}


@dataclass(frozen=True)
class Preference:
    """DPO's settings, with `loss` and `weights` as params.yaml names them."""

    loss: str
    weights: str
    epochs: int


# Paper 3.4.
DPO = Preference("sigmoid", "all", 1)

CHECKPOINTS = ("base", "sft", "hh_rlhf", "dpo")

# Table 6, zero-shot: task -> metric -> a value for each checkpoint, in the order of CHECKPOINTS.
HARNESS: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "arc_challenge": {
        "acc": (0.3567, 0.3720, 0.3652, 0.3951),
        "acc_norm": (0.4036, 0.4121, 0.4044, 0.4309),
    },
    "arc_easy": {
        "acc": (0.6991, 0.7134, 0.7117, 0.7336),
        "acc_norm": (0.7075, 0.7088, 0.7104, 0.7319),
    },
    "hellaswag": {
        "acc": (0.5278, 0.5343, 0.5254, 0.5580),
        "acc_norm": (0.7093, 0.7077, 0.6970, 0.7340),
    },
    "mmlu": {"acc": (0.2648, 0.2782, 0.2675, 0.2614)},
    "openbookqa": {
        "acc": (0.2940, 0.3200, 0.2900, 0.3380),
        "acc_norm": (0.4000, 0.4200, 0.4000, 0.4300),
    },
    "piqa": {
        "acc": (0.7813, 0.7807, 0.7851, 0.7927),
        "acc_norm": (0.7889, 0.7862, 0.7889, 0.7982),
    },
    "race": {"acc": (0.3895, 0.3952, 0.3828, 0.4239)},
    "sciq": {
        "acc": (0.9560, 0.9520, 0.9500, 0.9570),
        "acc_norm": (0.9580, 0.9530, 0.9580, 0.9600),
    },
    "truthfulqa": {"acc": (0.2581, 0.2947, 0.2669, 0.2866)},
    "winogrande": {"acc": (0.6322, 0.6338, 0.6361, 0.6496)},
}
# The harness of the paper's time printed a benchmark of several tasks as the mean of their items.
POOLED = {"truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2")}
# The paper's mean over all values of HARNESS.
HARNESS_AVERAGE = (0.5704, 0.5789, 0.5712, 0.5926)


@dataclass(frozen=True)
class MtBench:
    """Mean grades, from 1 to 10, of each turn and of both."""

    turn_1: float
    turn_2: float
    average: float


# Tables 7 and 8.
MT_BENCH = {
    "sft": MtBench(1.82, 1.57, 1.68),
    "hh_rlhf": MtBench(4.11, 2.47, 3.23),
    "dpo": MtBench(4.79, 3.44, 4.12),
}
MT_BENCH_OTHERS = {
    "RedPajama-INCITE-Chat-3B-v1": MtBench(1.57, 1.33, 1.45),
    "MiniChat-2-3B": MtBench(6.87, 6.00, 6.43),
    "Phi-2": MtBench(4.43, 2.99, 3.72),
}

# Appendix D, judge agreement: turn -> the other judge -> (S1, S2), shares of pairwise verdicts.
# They are on the 640 records that all sets of judgements have.
AGREEMENT = {
    1: {
        "gpt4_single": (0.71, 0.96),
        "gpt4_pair": (0.70, 0.98),
        "author": (0.57, 0.92),
        "human": (0.61, 0.91),
        "human_majority": (0.61, 0.88),
    },
    2: {
        "gpt4_single": (0.67, 0.95),
        "gpt4_pair": (0.60, 0.96),
        "author": (0.62, 0.92),
        "human": (0.55, 0.89),
        "human_majority": (0.55, 0.85),
    },
}
# The same as numbers of votes that agree. None where the paper prints none.
AGREEING: dict[int, dict[str, tuple[int | None, int | None]]] = {
    1: {
        "gpt4_single": (224, 189),
        "gpt4_pair": (222, 194),
        "author": (63, 54),
        "human": (217, 184),
        "human_majority": (334, 308),
    },
    2: {
        "gpt4_single": (198, 166),
        "gpt4_pair": (None, 161),
        "author": (None, 47),
        "human": (185, 156),
        "human_majority": (295, 259),
    },
}
AGREEMENT_RECORDS = 640
