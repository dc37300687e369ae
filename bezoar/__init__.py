"""Bezoar: the OpenBezoar recipe (arXiv 2404.12195) as a data-versioned pipeline."""

import sys

from bezoar import interrupts

# During `python -m` sys.argv begins with "-m" until the command's own module runs. Its imports may
# take a second, and Ctrl-C must end that second with a line too.
if sys.argv[:1] == ["-m"]:
    interrupts.say_in_a_line()
