"""Training on TRL, peft and bitsandbytes: one module a kind of run, over what all runs share in
`runs/`.

Torch, transformers, trl and peft are imported here, where checkpoints are loaded or evaluated, and
where the tiny base is pretrained. No other room imports them. Where a default of a library is wrong
for us, we override it on the spot, with a comment that says why.
"""
