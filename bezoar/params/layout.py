"""The files of parameters, and the place in them at which each parameter stands.

params.yaml holds what is shared, recipes/openbezoar.yaml what the recipe consists of, and
profiles/NAME.yaml who does the work and how much of it. A profile says once what several parts of
it share. `expand` writes that out, and `Layout.locate` finds the way back, for messages.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

import yaml

from bezoar.params import lines
from bezoar.params.endpoints import Endpoints
from bezoar.params.faults import Fault, Path, format_value, hint, near, value_at
from bezoar.params.lines import Document, NotYaml
from bezoar.params.settings import Params
from bezoar.params.sources import Fetch
from bezoar.params.training import Sft
from bezoar.rows.files import BadInput

SHARED, RECIPE, PROFILES = "params.yaml", "recipes/openbezoar.yaml", "profiles"
# The sections of a recipe's file: a missing one is missed there.
OF_RECIPE = ("chain", "merges", "aligned", "evaluated", "checkpoints", "compared", "schemes")
# Those of a profile alone, and those of which it holds a part.
OF_PROFILE = ("budget_usd", "launch", "cpu", "llm")
IN_PART = (
    *("fetch", "schemes", "filter", "mix", "sft", "dpo"),
    *("lm_eval", "mt_answer", "mt_compare", "agreement"),
)
# Keys that may be absent to the checks, while dvc.yaml names them: file -> key -> what it may be.
NAMED = {SHARED: {"others": "[]", "known": "null"}, PROFILES: {"cpu": "null", "agreement": "{}"}}


def profile_file(profile: str) -> str:
    """Return the file of a profile."""
    return f"{PROFILES}/{profile}.yaml"


def read_files(folder: File) -> dict[str, bytes]:
    """Return the content of every file of parameters in a project's folder, by its path there.
    BadInput: one cannot be read."""
    names = sorted(
        file.name
        for file in (folder / PROFILES).glob("*")
        if file.suffix.lower() in (".yaml", ".yml") and not file.name.startswith(".")
    )
    raise_faults(filter(None, map(_odd_name, names)))
    paths = [SHARED, RECIPE, *(f"{PROFILES}/{name}" for name in names)]
    return {path: _read_bytes(folder / path, path) for path in paths}


def _odd_name(name: str) -> str:
    """Return the reason why a file of profiles/ is none of a profile, "" where it is one."""
    stem, suffix = File(name).stem, File(name).suffix
    if suffix != ".yaml":
        return f"{PROFILES}/{name}: the file of a profile ends in .yaml; rename it"
    # Without quotes, as params.yaml names it, it has to be a word to every reader of YAML.
    if re.fullmatch(r"[a-zA-Z_][\w-]*", stem, re.ASCII) and isinstance(yaml.safe_load(stem), str):
        return ""
    return (
        f"{PROFILES}/{name}: {stem!r} is no name of a profile; rename the file, by a word of "
        "letters a to z, digits, _ and -"
    )


def _read_bytes(file: File, name: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        if file.is_symlink():
            raise BadInput(f"{name}: links to a file that is not there; remove it") from None
        raise BadInput(f"{name}: there is no such file; run from the project's folder") from None
    except OSError as error:
        way = "move it elsewhere" if file.is_dir() else "let yourself read it"
        raise BadInput(f"{name}: cannot be read ({error.strerror}); {way}") from None


@dataclass
class Layout:
    """All files of parameters: their path -> what was read."""

    documents: dict[str, Document]

    @property
    def profiles(self) -> dict[str, dict[str, Any]]:
        """Return the values of each profile as its file has them, by name."""
        return {
            File(path).stem: document.values
            for path, document in self.documents.items()
            if path.startswith(f"{PROFILES}/")
        }

    def locate(self, fault: Fault) -> tuple[str, Path]:
        """Return the file in which a fault stands, and its path there."""
        if fault.profile:
            values = self.profiles[fault.profile]
            return profile_file(fault.profile), _written(values, fault)
        first = fault.path[0]
        if first in self.documents[RECIPE].values:
            return RECIPE, fault.path
        shared = first in self.documents[SHARED].values or first not in OF_RECIPE
        return SHARED if shared else RECIPE, fault.path

    def describe(self, fault: Fault) -> str:
        """Return a fault as messages write it: file, line, path, what is wrong."""
        file, path = self.locate(fault)
        return format_fault(file, self.documents[file], path, fault.message)


def format_fault(file: str, document: Document, path: Path, message: str) -> str:
    """Return a fault at `path` of a file as one line."""
    return f"{file}:{document.line(path)}: {'.'.join(map(str, path))}: {message}"


def raise_faults(messages: Iterable[str]) -> None:
    """Raise BadInput: one fault as one line, several below a line that counts them. A fault that
    several links or roles share is one. No fault: return."""
    unique = list(dict.fromkeys(messages))
    if len(unique) == 1:
        raise BadInput(unique[0])
    if unique:
        listed = "\n  ".join(unique)
        raise BadInput(f"the parameters have {len(unique)} faults, nothing was run:\n  {listed}")


def read(files: Mapping[str, bytes], profile: str | None = None) -> Layout:
    """Return what the files hold. BadInput: not YAML, no mapping of sections, or the active profile
    (`profile`, or the one that params.yaml names) is none of them."""
    layout = Layout({path: _read_document(data, path) for path, data in files.items()})
    raise_faults(
        format_fault(path, document, place, message)
        for path, document in layout.documents.items()
        for place, message in _faults_of(document)
    )
    shared = layout.documents[SHARED]
    if fault := _missing_profile(shared.values, layout, profile):
        raise_faults([format_fault(SHARED, shared, *fault)])
    twice = layout.documents[RECIPE].values.keys() & shared.values.keys()
    raise_faults(
        format_fault(SHARED, shared, (key,), f"set here and by {RECIPE}; keep one of the two")
        for key in sorted(twice & {*OF_RECIPE})
    )
    raise_faults(_misplaced(layout))
    return layout


def _misplaced(layout: Layout) -> Iterator[str]:
    """Yield a fault for each key that stands in a file where DVC does not look for it, or that is
    missing where it does."""
    for file, document in layout.documents.items():
        kind = PROFILES if file.startswith(f"{PROFILES}/") else file
        for path in _keys(document.values):
            right = _right_files(path)
            section = _right_files(path[:1])
            if right and kind not in right and (len(path) == 1 or kind in section):
                place = profile_file("NAME") if right[0] == PROFILES else right[0]
                yield format_fault(file, document, path, f"belongs to {place}; move it there")
        for key, value in NAMED.get(kind, {}).items():
            # What is likely its misspelling is reported as such.
            spare = document.values.keys() - Params.model_fields.keys()
            if key not in document.values and not near(key, spare):
                message = f"missing, and dvc.yaml names it; it may be {value}"
                yield format_fault(file, document, (key,), message)


def _keys(values: dict[str, Any]) -> Iterator[Path]:
    """Yield the paths of the sections, and of the keys in them."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value)


def _right_files(path: Path) -> tuple[str, ...]:
    """Return where a key may stand, PROFILES for all files of profiles, () for a key that goes
    with its section, or is not known."""
    if path == ("fetch", "seed"):
        return (SHARED,)
    if path[:1] == ("sft",) and path[1:]:
        of_profile = path[1] in ("every_link", "links")
        return (PROFILES,) if of_profile else (SHARED,) * (path[1] in Sft.model_fields)
    if len(path) != 1 or path[0] not in Params.model_fields:
        return (PROFILES,) * (path[:1] == ("fetch",) and path[-1] in Fetch.model_fields)
    if path[0] in OF_PROFILE:
        return (PROFILES,)
    shared = RECIPE if path[0] in OF_RECIPE else SHARED
    return (shared, PROFILES) if path[0] in IN_PART else (shared,)


def _read_document(data: bytes, path: str) -> Document:
    try:
        document = lines.read(data)
    except NotYaml as error:
        place = f"{path}:{error.line}" if error.line else path
        raise BadInput(f"{place}: {error}") from None
    if not isinstance(document.values, dict):
        empty = document.values is None
        content = "is empty" if empty else f"holds {format_value(document.values)}"
        raise BadInput(f"{path}: {content}; a mapping of sections is expected")
    return document


def _faults_of(document: Document) -> list[tuple[Path, str]]:
    return document.faults + [
        ((str(key),), f"the key {key!r} is no word; write it in quotes, or leave it out")
        for key in document.values
        if not isinstance(key, str)
    ]


def _missing_profile(
    shared: dict[str, Any], layout: Layout, profile: str | None
) -> tuple[Path, str] | None:
    """Return the reason why there is no active profile, with its path in params.yaml."""
    names = layout.profiles
    if "profiles" in shared:
        return ("profiles",), f"a profile is a file now: {profile_file('NAME')}; move each there"
    if not names:
        return ("profile",), f"there is no file {profile_file('NAME')} that it could name"
    if not isinstance(shared.get("profile"), str):
        close = near("profile", [key for key in shared if key not in Params.model_fields])
        right = f"did you mean it by {close!r}?" if close else "`profile: embedded`, say"
        return ("profile",), f"missing, or not a name; {right}"
    active = shared["profile"] if profile is None else profile
    if active in names:
        return None
    close = near(active, names)
    guess = f"did you mean {close!r}? " if close else ""
    return ("profile",), (
        f"there is no profile {active!r} (no {profile_file(active)}); {guess}"
        f"have {', '.join(names)}"
    )


# --- what a profile says once --------------------------------------------------------------------


def expand(values: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return a profile with each link's settings and each role's endpoint written out.

    `sft.every_link` holds what all links share, and a link's own settings replace it. A role under
    `llm` is the name of one of `llm.endpoints`, or a mapping: its `endpoint` is such a name, and
    its other keys replace those of that endpoint. Without `endpoint` the mapping is an endpoint of
    its own. Several judges are a list of roles.
    """
    expanded, faults = dict(values), list[Fault]()
    if isinstance(values.get("sft"), dict):
        expanded["sft"], more = _expand_links(values["sft"])
        faults += more
    if isinstance(values.get("llm"), dict):
        expanded["llm"], more = _expand_roles(values["llm"])
        faults += more
    return expanded, faults


def expands(path: Path | None) -> bool:
    """Say whether `expand` writes out what stands at a path."""
    if path is None or len(path) > 2:
        return False
    roles = path[0] == "llm" and path[-1] in Endpoints.model_fields
    return roles or path in (("sft",), ("llm",), ("sft", "links"))


def missing_of_links(fault: Fault) -> Fault:
    """Return the fault of a key that a link lacks as one of `every_link`, where all links miss
    it."""
    if not fault.missing or fault.path[:2] != ("sft", "links") or len(fault.path) < 4:
        return fault
    return replace(fault, path=("sft", "every_link", *fault.path[3:]))


def _expand_links(sft: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    shared, links = sft.get("every_link"), sft.get("links")
    rest = {key: value for key, value in sft.items() if key != "every_link"}
    if not isinstance(shared, dict):
        # Its likely misspelling is the same fault.
        rest.pop(near("every_link", rest), None)
        return rest, [_no_mapping(sft, ("sft", "every_link"), "what all links share")]
    if isinstance(links, dict):
        rest["links"] = {
            name: {**shared, **link} if isinstance(link, dict) else link
            for name, link in links.items()
        }
    return rest, []


def _no_mapping(section: dict[str, Any], path: Path, meaning: str) -> Fault:
    key = str(path[-1])
    if key in section:
        message = f"{format_value(section[key])} is not usable; a mapping of keys is wanted"
    elif close := near(key, section):
        message = f"missing; did you mean it by {close!r}?"
    else:
        message = f"missing; it holds {meaning}, and may be {{}}"
    return Fault(path, message)


def _expand_roles(llm: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    endpoints = llm.get("endpoints")
    rest = {key: value for key, value in llm.items() if key != "endpoints"}
    if not isinstance(endpoints, dict):
        return rest, [_no_mapping(llm, ("llm", "endpoints"), "the models by name")]
    faults = [
        Fault(("llm", *path), f"{name!r} is none of llm.endpoints; {hint(name, endpoints)}")
        for path, name in _named(rest)
        if name not in endpoints
    ]
    named = {name for _, name in _named(rest)}
    faults += [
        Fault(
            ("llm", "endpoints", name),
            f"{format_value(endpoint)} is not usable; a mapping of keys is wanted",
        )
        for name, endpoint in endpoints.items()
        if name in named and not isinstance(endpoint, dict)
    ]
    faults += [Fault(("llm", *path), message) for path, message in _odd_roles(rest, endpoints)]
    for key, role in rest.items():
        if key in Endpoints.model_fields:
            members = [_expand_role(member, endpoints) for member in _members(role)]
            rest[key] = members if isinstance(role, list) else members[0]
    return rest, faults


def spoilt(path: Path) -> Path:
    """Return the part of an expanded profile that a fault of `expand` at `path` makes unusable."""
    if path[:2] == ("sft", "every_link"):
        return ("sft", "links")
    return ("llm",) if path[:2] == ("llm", "endpoints") else path[:2]


def _members(role: Any) -> list[Any]:
    return role if isinstance(role, list) else [role]


def _named(llm: dict[str, Any]) -> Iterable[tuple[Path, str]]:
    """Yield the names of endpoints that the roles give, each with its path below `llm`."""
    for path, member in _roles(llm):
        if isinstance(member, str):
            yield path, member
        elif isinstance(member, dict) and isinstance(member.get("endpoint"), str):
            yield (*path, "endpoint"), member["endpoint"]


def _roles(llm: dict[str, Any]) -> Iterable[tuple[Path, Any]]:
    """Yield the roles, each judge of several by itself, with their paths below `llm`."""
    for key in Endpoints.model_fields:
        if key in llm:
            role = llm[key]
            for number, member in enumerate(_members(role)):
                yield ((key, number) if isinstance(role, list) else (key,)), member


def _odd_roles(llm: dict[str, Any], endpoints: dict[str, Any]) -> Iterable[tuple[Path, str]]:
    """Yield the faults of the roles that are mappings, or numbers, each with its path below
    `llm`."""
    for path, role in _roles(llm):
        if isinstance(role, int | float):
            yield path, f"{format_value(role)} is not usable; a name of llm.endpoints is wanted"
        if not isinstance(role, dict):
            continue
        name = role.get("endpoint")
        if "endpoint" in role and not isinstance(name, str):
            message = f"{format_value(name)} is not usable; a name of llm.endpoints is wanted"
            yield (*path, "endpoint"), message
        elif "endpoint" not in role and (close := _misspelt_endpoint(role)):
            yield (*path, close), "no such parameter; did you mean 'endpoint'?"
        elif "endpoint" not in role and not near("provider", role):
            example = next(iter(endpoints), "NAME")
            yield path, f"names no endpoint, and has no provider; endpoint: {example}, say"
        elif "provider" in role and name in endpoints:
            yield (
                (*path, "provider"),
                f"goes with llm.endpoints.{name}; leave it out, or write a whole endpoint "
                "without `endpoint`",
            )


def _misspelt_endpoint(role: dict[str, Any]) -> str:
    return "" if "provider" in role else near("endpoint", role)


def _expand_role(role: Any, endpoints: dict[str, Any]) -> Any:
    """Return the endpoint of a role, or the role itself where it names none that is a mapping."""
    # Each role gets a copy: a key that is moved in one of them stays in the others.
    if isinstance(role, str):
        return copy.deepcopy(endpoints.get(role, role))
    if not isinstance(role, dict) or not isinstance(role.get("endpoint"), str):
        return role
    endpoint = copy.deepcopy(endpoints.get(role["endpoint"], {}))
    replaced = {key: value for key, value in role.items() if key != "endpoint"}
    return {**endpoint, **replaced} if isinstance(endpoint, dict) else role


def _written(values: dict[str, Any], fault: Fault) -> Path:
    """Return the place in a profile's file of a fault in the expanded profile."""
    path = fault.path
    if path[:2] == ("sft", "links"):
        link, rest = value_at(values, path[:3]), path[3:]
        inherited = isinstance(link, dict) and (rest[0] not in link if rest else fault.missing)
        # Where a link has a batch_size of its own, of which this is no part, the link is at fault.
        inherited &= "does not divide" not in fault.message or "batch_size" not in (link or {})
        return ("sft", "every_link", *rest) if inherited else path
    if path[0] != "llm" or len(path) < 2 or path[1] not in Endpoints.model_fields:
        return path
    end = 3 if isinstance(value_at(values, path[:2]), list) else 2
    role, rest = value_at(values, path[:end]), path[end:]
    if isinstance(role, str):
        # Without more of a path the name itself is at fault.
        return ("llm", "endpoints", role, *rest) if rest or fault.missing else path
    named = role.get("endpoint") if isinstance(role, dict) else None
    if not named or (rest[0] in role if rest else not fault.missing):
        return path
    return ("llm", "endpoints", named, *rest)
