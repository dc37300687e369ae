"""One file a stage of dvc.yaml; `python -m stages.NAME INSTANCE` runs one instance of it."""
