"""The patch: what it writes (`sources`), how (`modes`), where (`site`), and its effects.

It imports `lens`, `model`, `drawing`, `materials`, `measures` and what is below them. A new source
is one function and its entry in `sources`, and a new mode one in `modes`, whose name the type of
`mode` and the command line repeat. Ways to run a patch are packages of their own:
`teacher_forcing`, `generation` and `training`. `losses` says what a patch does to the loss, and
`slopes` and `mechanism` ask what it could do and why.
"""
