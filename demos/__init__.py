"""Programs that play a story on a finished run and say what came of it."""
