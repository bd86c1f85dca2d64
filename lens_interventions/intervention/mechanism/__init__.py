"""How later tokens could read a patch: at which positions, through keys or through values.

It imports the patch, the two streams, `slopes`, `model`, `measures` and `drawing`. A question about
what attention does with a patch belongs here; the loss under a patch is `teacher_forcing`'s.
"""
