"""One file a stage of dvc.yaml. `python -m stages.NAME INSTANCE` runs one instance of it."""

import bezoar  # noqa: F401 (a signal ends a stage with a line while it imports, too)
