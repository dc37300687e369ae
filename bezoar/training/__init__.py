"""Training on TRL, peft and bitsandbytes: one module a kind of run, over what they share.

With pretraining and evaluation the only place for torch, transformers, trl and peft. What the
libraries do on their own and must not happen here is undone where it happens, with the reason.
"""
