"""Stops a stage for good where it writes or moves the file $HALT_AT, for a test to kill it there;
its process id is then in the file $HALT_SEEN (python imports this by name)."""

import os
import sys
import time

stage, at, seen = (os.environ.get(k) for k in ("DVC_STAGE", "HALT_AT", "HALT_SEEN"))
if stage and at and seen:

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "os.rename":
            path = args[1]
        elif event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT:
            path = args[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).endswith(at):
            with open(f"{seen}.part", "w") as file:
                file.write(str(os.getpid()))
            os.link(f"{seen}.part", seen)  # whole, and by no event of the above
            while True:
                time.sleep(60)

    sys.addaudithook(hook)
