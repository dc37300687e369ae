"""Logs every file below the project that a stage opens or imports (python imports this by name)."""

import os
import sys

stage, root, folder = (os.environ.get(k) for k in ("DVC_STAGE", "DVC_ROOT", "AUDIT_LOG"))
if stage and root and folder:
    log = open(os.path.join(folder, stage.replace("/", "_")), "a", buffering=1)  # noqa: PTH118, SIM115

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event != "open" or not isinstance(args[0], str | bytes):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith(root + os.sep):
            flags = args[2] if isinstance(args[2], int) else 0
            mode = "w" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "r"
            if mode == "r" and not os.path.lexists(path):  # a name within an open folder (rmtree)
                return
            log.write(f"{mode} {os.path.relpath(path, root)}\n")

    sys.addaudithook(hook)
