"""The bytes that a run takes on disks, beside the bytes that are free on them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bezoar import work
from bezoar.params import Params
from bezoar.preflight import machine
from bezoar.preflight.findings import Finding
from bezoar.preflight.machine import Cache
from bezoar.training.runs.memory import STATE, Shape

GB = 10**9
FLOAT32 = 4  # bytes a weight of every model that training leaves
# A checkpoint holds the state of every optimizer, a paged one's too.
SAVED = STATE | {"paged_adamw_32bit": 8, "paged_adamw_8bit": 2}
# training/fitting.py keeps two. A third is written before the oldest goes.
CHECKPOINTS = 3


@dataclass(frozen=True)
class Room:
    """A folder, the bytes that it will need at most, and the bytes that lie in it already."""

    folder: Path
    needed: int
    present: int = 0

    @property
    def more(self) -> int:
        """Return the bytes that must be free."""
        return max(0, self.needed - self.present)


def rooms(p: Params, shape: Shape, base: int, downloads: int, cache: Cache) -> list[Room]:
    """Return the rooms of a whole run: the models, DVC's copies of them, the scratch folder at its
    fullest, and the hub's cache.

    `base`: bytes of the first model and of those of `others`.
    `downloads`: bytes that the hub's cache must still take.
    """
    from huggingface_hub import constants

    models = Path("models")
    full = [*(["dpo"] if p.aligned else []), *(f"merge {n}" for n in p.merges)]
    full += [f"sft {n}" for n, link in p.chain.items() if link.weights == "all"]
    model_bytes = base + len(full) * FLOAT32 * shape.parameters
    links = [link for link in p.chain.values() if link.weights == "adapter"]
    adapter = shape.lora_parameters(p.sft.lora_r, p.sft.target_modules)
    model_bytes += len(links) * FLOAT32 * adapter
    # The weights of a finished link stay in the scratch folder, its checkpoints do not. So it is
    # fullest with all weights and the checkpoints of the largest stage.
    stays, most = 0, 0
    for stage in full:
        most = max(most, scratch(p, stage, shape))
        stays += 0 if stage.startswith("merge") else FLOAT32 * shape.parameters
    present = machine.size(models)
    scratched = sum(machine.size(work.home() / stage) for stage in ("sft", "merge", "dpo"))
    return [
        Room(models, model_bytes, present),
        *([Room(cache.folder, model_bytes, present)] if cache.link == "copy" else []),
        Room(work.home(), most + stays, scratched),
        Room(Path(constants.HF_HUB_CACHE), downloads),
    ]


def scratch(p: Params, stage: str, shape: Shape) -> int:
    """Return the bytes in the scratch folder at the fullest moment of a stage that makes a whole
    model."""
    kind = stage.partition(" ")[0]
    if kind == "merge":
        return FLOAT32 * shape.parameters
    optimizer = p.dpo.optimizer if kind == "dpo" else p.sft.optimizer
    return CHECKPOINTS * (FLOAT32 + SAVED[optimizer]) * shape.parameters


def stage(p: Params, stage: str, out: Path, shape: Shape, cache: Cache) -> list[Finding]:
    """Return the findings, but for the ok ones, of one stage that makes a whole model at `out`. The
    checkpoints of a run that was killed count as bytes that are there."""
    model = FLOAT32 * shape.parameters
    present = machine.size(work.home() / stage.partition(" ")[0])
    stage_rooms = [
        Room(work.home(), scratch(p, stage, shape), present),
        Room(out, model, machine.size(out)),
    ]
    if cache.link == "copy":
        stage_rooms.append(Room(cache.folder, model))
    return [finding for finding in check(stage_rooms, cache) if finding.level != "ok"]


def check(rooms: Sequence[Room], cache: Cache) -> list[Finding]:
    """Return a finding for each file system that the folders lie on."""
    disks: dict[int, list[Room]] = defaultdict(list)
    for room in rooms:
        disks[machine.volume(room.folder).device].append(room)
    findings = []
    for sharing in disks.values():
        needed, free = sum(room.more for room in sharing), machine.volume(sharing[0].folder).free
        shares = ", ".join(
            f"{_short(r.folder)} {r.more / GB:.1f}" for r in sharing if r.more > GB / 20
        )
        message = f"{free / GB:.1f} GB free, {needed / GB:.1f} wanted"
        message += f" ({shares})" * bool(shares)
        if needed <= free:
            findings.append(Finding("ok", "disk", message))
            continue
        do = "free some, or move $BEZOAR_WORK, $HF_HOME or `dvc cache dir` to a larger disk"
        if any(room.folder == cache.folder for room in sharing):
            do += "; `dvc config cache.type hardlink,copy` spares DVC's copy"
        findings.append(Finding("stop", "disk", message, do))
    return findings


def _short(folder: Path) -> str:
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
