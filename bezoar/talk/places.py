"""The models that one can talk with, and the folders where they lie."""

from pathlib import Path
from typing import Any, NamedTuple

from bezoar import llm
from bezoar.models import loading
from bezoar.params import FurtherHub, FurtherLocal, Params
from bezoar.rows.files import BadInput, read_json, read_jsonl
from bezoar.rows.records import Attempt, Probe

MODELS = Path("models")
PROBES = Path("data/fetch/benchmarks/probes.jsonl")
EXAMPLES = 3


class Place(NamedTuple):
    """A model's name, its folder, the base under an adapter there, and the texts before which an
    answer ends."""

    name: str
    folder: Path
    base: Path
    stop: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        """Say whether there is a model in the folder."""
        return loading.is_adapter(self.folder) or (self.folder / "config.json").exists()


def all_places(settings: Params) -> dict[str, Place]:
    """Return all models that a run makes or fetches, by name.

    They are those that MT-Bench asks, those that the harness looks at, every link, every merge, and
    those that nothing measures.
    """
    places = {
        name: Place(
            name, MODELS / checkpoint.model, MODELS / checkpoint.model, _stop(settings, name)
        )
        for name, checkpoint in settings.checkpoints.items()
    }
    parts = {
        **{
            name: (checkpoint.model, checkpoint.base)
            for name, checkpoint in settings.evaluated.items()
        },
        **{name: (f"sft/{name}", link.base) for name, link in settings.chain.items()},
        **{name: (f"merge/{name}", f"merge/{name}") for name in settings.merges},
        **{name: (path, path) for name, path in settings.unmeasured.items()},
    }
    for name, (model, base) in parts.items():
        places.setdefault(name, Place(name, MODELS / model, MODELS / base))
    return places


def _stop(settings: Params, name: str) -> tuple[str, ...]:
    further = settings.further(settings.checkpoints[name])
    return tuple(further.stop) if isinstance(further, FurtherHub | FurtherLocal) else ()


def find(settings: Params, model: str) -> Place:
    """Find the model that `model` names, or the folder that it is. "" names the chain's last one.
    BadInput: there is no such model, or none that can be loaded here."""
    places = all_places(settings)
    name = model or settings.final
    if name not in places:
        return _folder(Path(model), places)
    place = places[name]
    if llm.endpoint_of(place.folder):
        raise BadInput(
            f"{name}: is behind an endpoint, and its weights are not here; talk with it there, or "
            "name a model whose weights are"
        )
    if not place.exists:
        raise BadInput(f"{place.folder}: there is no model yet; {_instead(places)}")
    return place


def _folder(folder: Path, places: dict[str, Place]) -> Place:
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: neither a model of the recipe ({', '.join(places)}) nor a folder; "
            f"{_instead(places)}"
        )
    base = folder
    if loading.is_adapter(folder):
        adapter: Any = read_json(folder / "adapter_config.json")
        base = Path(str(adapter.get("base_model_name_or_path")))
        if not (base / "config.json").exists():
            raise BadInput(
                f"{folder}: an adapter on {base}, where there is no model; run this where that "
                "path leads to its base"
            )
    place = Place(folder.name, folder, base)
    if not place.exists:
        raise BadInput(
            f"{folder}: no model; a model folder in Hugging Face format holds config.json, the "
            "weights (model.safetensors) and a tokenizer"
        )
    return place


def _instead(places: dict[str, Place]) -> str:
    """Say what a user may do who named a model that is not there."""
    names = [name for name, place in places.items() if place.exists]
    if not names:
        return "run `make demo` first, which makes them all"
    return f"there are {', '.join(names)}; `make demo` (or `dvc repro`) makes them all"


def examples(settings: Params, name: str) -> tuple[list[str], bool]:
    """Return questions of several skills for a model of the invented world, and a flag.

    The flag says that the model answered just these rightly when it was evaluated. Otherwise they
    are questions of the same kind. There are none before the probes are fetched.
    """
    if not PROBES.exists():
        return [], False
    probes = {probe.id: probe for probe in read_jsonl(PROBES, Probe) if not probe.system}
    file = Path("data/lm_eval", name, "probes.jsonl")
    attempts = read_jsonl(file, Attempt) if file.exists() else []
    right = [probes[attempt.id] for attempt in attempts if attempt.right and attempt.id in probes]
    return [probe.instruction for probe in _several(right or [*probes.values()])], bool(right)


def _several(probes: list[Probe]) -> list[Probe]:
    """Return EXAMPLES probes: the first of each skill, then further ones."""
    first = {probe.skill: probe for probe in reversed(probes)}
    chosen = [probe for probe in probes if first[probe.skill] is probe]
    return [*chosen, *(probe for probe in probes if probe not in chosen)][:EXAMPLES]


def weight(place: Place) -> int:
    """Return the bytes of a model's weights, with those of the base that an adapter is put on."""
    folders = {place.folder, place.base}
    return sum(f.stat().st_size for folder in folders for f in folder.glob("*.safetensors"))
