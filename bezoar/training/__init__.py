"""Training on TRL, peft and bitsandbytes: one module a kind of run, and `runs/`, which they share.

Torch, transformers, trl and peft are imported inside the functions that need them. We override a
library's default on the spot where it is wrong for us, with a comment that says why.
"""
