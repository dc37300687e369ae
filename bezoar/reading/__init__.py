"""Readers of a model's reply, one small module a kind of reply, from its text alone.

A reader returns what stands there for sure, or says that it cannot tell. It never guesses: a row, a
verdict or a grade that nobody gave is worse than one that is missing."""
