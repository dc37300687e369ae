"""Talk with a checkpoint in a terminal: `python -m bezoar.talk`, or `make chat`."""
