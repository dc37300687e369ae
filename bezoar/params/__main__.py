"""`python -m bezoar.params`: check the files of parameters, or make another profile the active
one."""

import re
import sys
from pathlib import Path

from bezoar.params import arguments, blanks
from bezoar.params.across import unknown_tasks
from bezoar.params.faults import fold, place_in_file
from bezoar.params.layout import SHARED, expand, profile_file, raise_faults, read, read_files
from bezoar.params.loading import check
from bezoar.rows.files import BadInput, write


def main() -> None:
    """Check params.yaml, recipes/, all of profiles/, and the files of prompts/. With PROFILE, make
    that one the active one first: params.yaml is written where all is well, and else left as it
    is."""
    profile = next(iter(arguments.words("bezoar.params", main.__doc__, 0, "PROFILE")), None)
    folder = Path().resolve()
    files = read_files(folder)
    before = files[SHARED]
    if profile is not None:
        if profile_file(profile) not in files:
            read(files, profile)
        # One line is changed in the bytes, so that comments and layout stay.
        files[SHARED] = _PROFILE.sub(rb"\g<1>" + profile.encode(), before, count=1)
    valid = _check_files(files, folder)
    _check_prompts()
    if files[SHARED] != before:
        write(folder / SHARED, [files[SHARED].decode()])
    print(valid)


def _check_prompts() -> None:
    """Print what is odd in prompts/. BadInput: a file that a run could not send."""
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


def _check_files(files: dict[str, bytes], folder: Path) -> str:
    """Check the content of the files and return a line that says so. BadInput lists the faults.
    Only here and in preflight are the tasks of lm_eval looked up, which takes a second."""
    active, checked = check(files, folder)
    layout = read(files)
    profiles = {name: expand(values)[0] for name, values in layout.profiles.items()}
    unknown = {
        name: [place_in_file(fault, name, profiles[name]) for fault in unknown_tasks(params)]
        for name, params in checked.items()
    }
    raise_faults(map(layout.describe, fold(unknown)))
    others = ", ".join(name for name in checked if name != active.profile)
    beside = f" (checked with it: {others})" if others else ""
    return f"the parameters are valid; the active profile is {active.profile}{beside}"


if __name__ == "__main__":
    main()
