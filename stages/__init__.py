"""One file a stage of dvc.yaml; `python -m stages.NAME INSTANCE` runs one instance of it."""

from bezoar import interrupts

interrupts.say_in_a_line()  # before a stage imports what takes a second
