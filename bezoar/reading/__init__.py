"""What a model meant by its reply: one small reader a kind of reply, of text alone.

A reader gives what stands there for sure, or says that it cannot tell. It never guesses: a row, a
verdict or a grade that nobody gave is worse than one that is missing."""
