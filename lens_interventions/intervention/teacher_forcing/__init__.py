"""Given texts under a patch, computed as a sampler would compute every position.

It imports the patch, `lens` and `model`, and from `generation` the decoder that it falls back on. A
faster way to run texts goes here and is held to `step_by_step`; `self_check` must find the models
on which it is wrong.
"""
