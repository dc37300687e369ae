"""One file a stage of dvc.yaml; `python -m stages.NAME INSTANCE` runs one instance of it."""

import sys

from bezoar import interrupts

if sys.argv[0] == "-m":  # a stage is being started, which imports what takes a second
    interrupts.say_in_a_line()
