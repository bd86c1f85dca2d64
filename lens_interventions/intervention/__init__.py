"""The patch: what it writes (`sources`), how (`modes`), where (`site`), and its effects.

It imports `lens`, `model`, `drawing`, `materials`, `measures` and what is below them. A new source
or mode is one function and its entry in `sources` or `modes`; ways to run a patch are packages of
their own: `teacher_forcing`, `generation` and `training`. `slopes` and `mechanism` ask what a patch
could do and why.
"""
