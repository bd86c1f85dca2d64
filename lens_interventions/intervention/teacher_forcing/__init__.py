"""Given texts under a patch: what a sampler would have computed at every position.

It imports the patch, `lens` and `model`, and from `generation` the decoder that it falls back on. A
faster way to run texts goes here, held to `step_by_step`; a model on which it is wrong must be
found out by `self_check`.
"""
