"""Bezoar: the OpenBezoar recipe (arXiv 2404.12195) as a data-versioned pipeline."""

import sys

from bezoar import interrupts

if sys.argv[:1] == ["-m"]:  # a command is being started, which imports what takes a second
    interrupts.say_in_a_line()
