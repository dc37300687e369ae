"""Reads the files of parameters, checks all of them, and returns what one profile sees."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bezoar.params.across import check_across, find_renamed
from bezoar.params.faults import Fault, fold, format_value, from_errors, place_in_file, value_at
from bezoar.params.layout import (
    RECIPE,
    SHARED,
    expand,
    expands,
    missing_of_links,
    profile_file,
    raise_faults,
    read,
    read_files,
    spoilt,
)
from bezoar.params.schemes import Schemes
from bezoar.params.settings import Params

# A file's sections with their values
Values = dict[str, Any]


def load(folder: str | Path = ".", profile: str | None = None) -> Params:
    """Return the parameters of `profile`, or of the active profile, of the project in `folder`.
    BadInput lists every fault of all files."""
    return _load(Path(folder).resolve(), profile)


def forget() -> None:
    """Have the files read anew: they were changed."""
    _load.cache_clear()


@cache
def _load(folder: Path, profile: str | None) -> Params:
    return check(read_files(folder), folder, profile)[0]


def check(
    files: Mapping[str, bytes], folder: Path, profile: str | None = None
) -> tuple[Params, dict[str, Params]]:
    """Return the parameters of `profile` (None: the active one), and those of all profiles by name.

    `files` holds the content of each file, by its path in the project, and `folder` holds launch/.
    BadInput lists every fault.
    """
    layout = read(files, profile)
    shared: Values = copy.deepcopy(layout.documents[SHARED].values)
    shared |= copy.deepcopy(layout.documents[RECIPE].values)
    shared["profile"] = active = profile or shared["profile"]
    faults: list[Fault] = []
    written = copy.deepcopy(layout.profiles)
    expanded = {name: expand(copy.deepcopy(each)) for name, each in written.items()}
    profiles = {name: values for name, (values, _) in expanded.items()}
    unusable = {name: unnamed for name, (_, unnamed) in expanded.items()}
    while True:
        remaining, checked = _under_every_profile(shared, profiles, unusable, folder)
        guessed = [fault for fault in remaining if fault.instead is not None]
        if not guessed:
            break
        # The rest is looked for as if these keys had their right names. A key that is misspelt, as
        # `lerning_rate`, hides its own faults, and its right name seems to be missing.
        faults += (fault for fault in guessed if fault not in faults)
        for fault in guessed:
            for part in (fault.profile, *fault.others):
                _move(profiles[part] if part else shared, fault)
                if part and expands(fault.instead):
                    # What stands under the right name is written out only now.
                    _move(written[part], fault)
                    profiles[part], unusable[part] = expand(copy.deepcopy(written[part]))
    # A fault at the place that a key was moved to is left out: one mistake is one fault.
    guesses = {fault.instead for fault in faults}
    faults += [fault for fault in remaining if fault.path not in guesses]
    raise_faults(map(layout.describe, faults))
    return checked[active], checked


def _move(top: Any, fault: Fault) -> None:
    """Give a key the name, or the place, that was likely meant."""
    assert fault.instead is not None
    value = value_at(top, fault.path[:-1]).pop(fault.path[-1])
    for part in fault.instead[:-1]:
        top = top[int(part)] if isinstance(top, list) else top.setdefault(part, {})
    if isinstance(top, dict):
        # A key that already stands there has the better claim.
        top.setdefault(fault.instead[-1], value)


def _under_every_profile(
    shared: Values, profiles: dict[str, Values], unusable: dict[str, list[Fault]], folder: Path
) -> tuple[list[Fault], dict[str, Params]]:
    """Return the faults of all files, each once, and the parameters that pass, by profile.
    `unusable` holds the faults by which parts of a profile could not be written out."""
    by_profile: dict[str, list[Fault]] = {profile: [] for profile in profiles}
    checked: dict[str, Params] = {}
    for profile, scale in profiles.items():
        joined, twice = _join(shared, _without_absent_schemes(shared, scale), profile)
        by_profile[profile] = [replace(fault, profile=profile) for fault in unusable[profile]]
        by_profile[profile] += twice
        # pydantic would report again what is reported already.
        reported = [fault.path for fault in twice]
        reported += [spoilt(fault.path) for fault in unusable[profile]]
        try:
            checked[profile] = Params.model_validate(joined)
        except ValidationError as error:
            by_profile[profile] += [
                place_in_file(missing_of_links(fault), profile, scale)
                for fault in from_errors(error.errors(), joined, Params)
                if not any(fault.path[: len(path)] == path for path in reported)
            ]
    if len(checked) == len(profiles) and not any(unusable.values()):
        # First, because the checks between sections would report each renamed link again, as
        # missing.
        by_profile["renamed"] = find_renamed(checked)
        if not by_profile["renamed"]:
            for profile, params in checked.items():
                checked[profile], lines = check_across(profile, params, folder)
                scale = profiles[profile]
                faults = map(Fault.read, lines)
                by_profile[profile] += [place_in_file(fault, profile, scale) for fault in faults]
    return fold(by_profile, {"": shared, **profiles}), checked


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
            message = f"set here and by {profile_file(profile)}; keep one of the two"
            faults.append(Fault(path, message))
    return joined, faults
