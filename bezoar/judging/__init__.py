"""Puts samples and answers to judges, reads their verdicts, and measures how far they agree."""
