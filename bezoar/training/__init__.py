"""Training on TRL, peft and bitsandbytes: one module a kind of run, over what all runs share in
`runs/`.

Torch, transformers, trl and peft are imported here, where checkpoints are loaded or evaluated, and
where the tiny base is pretrained. No other room imports them. We override a library's default on
the spot where it is wrong for us, with a comment that says why.
"""
