"""Programs that play a story on a finished run and say what came of it."""

import bezoar  # noqa: F401 (a signal ends a program with a line while it imports, too)
