"""Faults of a file of parameters, each reported once: where, what is wrong, what would be right.

pydantic reports a fault under each profile and under each half of a union. A typo it reports twice:
the key that is there, and the key that is missing. One fault is one line here.
"""

import difflib
import types
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Path = tuple[str | int, ...]
LONGEST = 60  # characters of a value that are shown


@dataclass(frozen=True)
class Fault:
    """A fault at `path`, which stands in the part of `profile` ("": in the recipe).

    `instead`: the path that was likely meant. The other faults are looked for as if the key stood
        there.
    `missing`: the key is not there.
    `others`: further profiles in which the same fault stands.
    """

    path: Path
    message: str
    profile: str = ""
    instead: Path | None = None
    missing: bool = False
    others: tuple[str, ...] = ()

    @classmethod
    def read(cls, line: str) -> "Fault":
        """Return the fault that a line "where: message" reports."""
        dotted, _, message = line.partition(": ")
        parts = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        if parts[0] == "profiles" and len(parts) > 2:
            return cls(tuple(parts[2:]), message, str(parts[1]))
        return cls(tuple(parts), message)

    @property
    def where(self) -> str:
        """Return its path with dots, as `read` takes it: behind profiles.NAME in a profile."""
        dotted = ".".join(map(str, self.path))
        return f"profiles.{self.profile}.{dotted}" if self.profile else dotted


def near(word: object, words: Iterable[str]) -> str:
    """Return the one of `words` that may be meant, "" where none is like it."""
    return next(iter(difflib.get_close_matches(str(word), list(words), 1)), "")


def hint(word: object, words: Iterable[str]) -> str:
    """Return a hint at the word that is right in place of `word`: the closest of `words`, or
    all."""
    have = list(words)
    close = near(word, have)
    return f"did you mean {close!r}?" if close else f"have {', '.join(have) or 'none'}"


# --- pydantic's errors ---------------------------------------------------------------------------


def from_errors(errors: Iterable[Any], values: Any, model: type[BaseModel]) -> list[Fault]:
    """Return the faults behind pydantic's errors of `values` under `model`."""
    by_path: dict[Path, list[Any]] = defaultdict(list)
    for error in errors:
        by_path[_path(error, values)].append(error)
    missing = [path for path, (error, *_) in by_path.items() if error["type"] == "missing"]
    return [_fault(path, group, values, model, missing) for path, group in by_path.items()]


def _tag(errors: Sequence[Any]) -> Path:
    """Return the key by which pydantic could not tell the halves of a union apart."""
    return tuple(_discriminator(e) for e in errors[:1] if e["type"] == "union_tag_invalid")


def _discriminator(error: Any) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _path(error: Any, values: Any) -> Path:
    """Return the path of an error in `values`: its location without the names of unions' halves."""
    # pydantic puts the half of a union that it tried into the location, as in ("judge", "panel", 0,
    # "embedded", "concurrency"). The values have no key "panel" and none "embedded".
    path: list[str | int] = []
    inside = values
    for part in error["loc"]:
        is_key = isinstance(inside, dict) and part in inside
        if is_key or (isinstance(inside, list) and isinstance(part, int) and part < len(inside)):
            path.append(part)
            inside = inside[part]
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _fault(
    path: Path, errors: Sequence[Any], values: Any, model: type[BaseModel], missing: list[Path]
) -> Fault:
    kind = errors[0]["type"]
    if kind == "missing":
        return Fault(path, "missing", missing=True)
    if kind == "union_tag_not_found" and isinstance(value_at(values, path), dict):
        return Fault((*path, _discriminator(errors[0])), "missing", missing=True)
    if kind == "extra_forbidden":
        return _unknown(path, values, model, missing)
    spoken = [e["msg"].removeprefix("Value error, ") for e in errors if e["type"] == "value_error"]
    # A validator of ours. Its input may be a key in the wrong place.
    if spoken:
        return _from_validator(path, spoken[0], value_at(values, path))
    path = (*path, *_tag(errors))
    value = value_at(values, path)
    rights = list(dict.fromkeys(filter(None, (_right(error, value) for error in errors))))
    message = f"{format_value(value)} is not usable; {' or '.join(rights)} is wanted"
    if isinstance(value, str) and (close := near(value, _choices(errors))):
        message += f"; did you mean {close!r}?"
    return Fault(path, message)


def _unknown(path: Path, values: Any, model: type[BaseModel], missing: list[Path]) -> Fault:
    """Return the fault of a key that no section has: a typo, or one that belongs elsewhere."""
    name, parent = str(path[-1]), path[:-1]
    # A key of this name is missing in one other place: it stands in the wrong section.
    moved = [place for place in missing if place[-1] == name]
    if len(moved) == 1:
        right = ".".join(map(str, moved[0]))
        return Fault(path, f"no such parameter here; it belongs to {right}", instead=moved[0])
    siblings = [str(place[-1]) for place in missing if place[:-1] == parent]
    fields = sorted(_fields(model, parent, values))
    # A key that is missing beside it is likelier to be meant than one that is there.
    close = near(name, siblings) or near(name, fields)
    message = f"no such parameter; {hint(name, [close] if close else fields)}"
    return Fault(path, message, instead=(*parent, close) if close else None)


def _from_validator(path: Path, message: str, value: Any) -> Fault:
    """Return the fault that a validator of ours raised. A message about a whole section begins with
    the key below it."""
    key, colon, rest = message.partition(": ")
    parts = tuple(key.split("."))
    if colon and isinstance(value, dict) and parts[0] in value:
        return Fault((*path, *parts), rest)
    return Fault(path, message)


def value_at(values: Any, path: Path) -> Any:
    """Return the value at a path, None where there is none."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def holds(values: Any, path: Path) -> bool:
    """Say whether there is a value at a path, null or another."""
    above, last = value_at(values, path[:-1]), path[-1]
    if isinstance(above, list):
        return isinstance(last, int) and last < len(above)
    return isinstance(above, dict) and last in above


def format_value(value: Any) -> str:
    """Return a value as messages write it."""
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number that is not infinite",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "union_tag_not_found": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "invalid_key": "a word",
}


_LIMITS = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "string_pattern_mismatch": "a word of the form {pattern}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "string_too_short": "a word that is not empty",
}


def _right(error: Any, value: Any) -> str:
    """Return in words a value that would do, by one error of pydantic's."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind in _LIMITS:
        return _LIMITS[kind].format(**limits)
    if kind == "string_type":
        quoted = isinstance(value, int | float) and not isinstance(value, bool)
        return "a word in quotes" if quoted else "a word"
    return _WANTED.get(kind) or str(error["msg"]).lower()


def _choices(errors: Iterable[Any]) -> list[str]:
    """Return the words that would do."""
    expectations = [
        str(error.get("ctx", {}).get(key, ""))
        for error in errors
        for key in ("expected", "expected_tags")
    ]
    return [
        word.strip("' ")
        for expectation in expectations
        for word in expectation.replace(" or ", ",").split(",")
    ]


# --- the names of a section ----------------------------------------------------------------------


def _fields(model: type[BaseModel], path: Path, values: Any) -> set[str]:
    """Return the keys that the section at `path` may have."""
    kinds: list[Any] = [model]
    for part in path:
        kinds = _step(kinds, part)
        values = values[part]
        models = [kind for kind in kinds if _is_model(kind)]
        # Of a union only the half counts that its discriminator names.
        if len(models) > 1 and isinstance(values, dict):
            kinds = [kind for kind in models if _has_tag(kind, values)] or models
    return {name for kind in kinds if _is_model(kind) for name in kind.model_fields}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_tag(model: type[BaseModel], values: Any) -> bool:
    for name in ("source", "provider"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return isinstance(values, dict) and values.get(name) in get_args(field.annotation)
    return True


def _step(kinds: Iterable[Any], part: str | int) -> list[Any]:
    """Return the types that a part of a value may have."""
    inner: list[Any] = []
    for kind in kinds:
        if _is_model(kind):
            field = kind.model_fields.get(part)
            inner += _halves(field.annotation) if field else []
        elif get_origin(kind) in (dict, list):
            inner += _halves(get_args(kind)[-1])
    return inner


def _halves(annotation: Any) -> list[Any]:
    """Return the halves of a union, without their annotations."""
    if get_origin(annotation) is Annotated:
        return _halves(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for half in get_args(annotation) for kind in _halves(half)]
    return [annotation]


# --- one fault, one line -------------------------------------------------------------------------


def place_in_file(fault: Fault, profile: str, scale: Mapping[str, Any]) -> Fault:
    """Return a fault that appeared under `profile` with the part of the file that it stands in:
    that profile's, or the recipe's."""
    if fault.profile or fault.missing or not holds(scale, fault.path):
        return fault
    return replace(fault, profile=profile)


def fold(
    by_profile: Mapping[str, Sequence[Fault]], values: Mapping[str, Any] | None = None
) -> list[Fault]:
    """Return each fault once, of those that appeared under all profiles. `values`: those of each
    profile, and of the recipe (""), by which keys that a whole section lacks are one fault."""
    profiles_of: dict[Fault, list[str]] = defaultdict(list)
    for profile, faults in by_profile.items():
        for fault in dict.fromkeys(faults):
            # Equal faults of several profiles differ in `profile` alone, so it is left out of the
            # key.
            profiles_of[replace(fault, profile="here" if fault.profile else "")].append(profile)
    unique = []
    for fault, profiles in profiles_of.items():
        if fault.missing and len(profiles) < len(by_profile):
            # So it is a key of the profiles, and not one of the recipe.
            message = "missing; other profiles have it"
            unique.append(replace(fault, message=message + _also(profiles), profile=profiles[0]))
        elif fault.profile:
            message = fault.message + _also(profiles)
            others = tuple(profiles[1:])
            unique.append(replace(fault, message=message, profile=profiles[0], others=others))
        else:
            unique.append(fault)
    return _gather_missing(unique, values or {})


def _gather_missing(faults: Sequence[Fault], values: Mapping[str, Any]) -> list[Fault]:
    """Join all keys that a section lacks in one fault."""
    absent: dict[tuple[str, Path], list[Fault]] = {}
    # Short paths come first: a key deeper down joins the section that a key above it was missing
    # from.
    for fault in sorted((f for f in faults if f.missing), key=lambda f: len(f.path)):
        above = (fault.path[:end] for end in range(len(fault.path)))
        # Sections themselves are not joined: they stand in several files.
        own = next(
            (p for p in _sections(fault) if not value_at(values.get(fault.profile), p)), None
        ) or (fault.path[:-1] or fault.path)
        section = next((p for p in above if (fault.profile, p) in absent), own)
        absent.setdefault((fault.profile, section), []).append(fault)
    gathered = [_missing_of_section(section, members) for (_, section), members in absent.items()]
    return [fault for fault in faults if not fault.missing] + gathered


def _sections(fault: Fault) -> Iterable[Path]:
    """Return the paths of the sections around a fault, the outermost first."""
    return (fault.path[:end] for end in range(1, len(fault.path)))


def _missing_of_section(section: Path, faults: list[Fault]) -> Fault:
    owners = (
        "the other profiles have"
        if faults[0].profile
        else "params.yaml, the recipe or each profile must have"
    )
    if len(faults) == 1 or section == faults[0].path:
        message = f"missing; {owners} it" + faults[0].message.partition(" have it")[2]
        return replace(faults[0], message=message)
    names = [".".join(map(str, fault.path[len(section) :])) for fault in faults]
    return replace(faults[0], path=section, message=f"has no {', '.join(names)}; {owners} them")


def _also(profiles: Sequence[str]) -> str:
    files = ", ".join(f"profiles/{profile}.yaml" for profile in profiles[1:])
    return f" (also in {files})" if files else ""
