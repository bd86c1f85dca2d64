"""How later tokens could read a patch: at which positions, through keys or through values.

It imports the patch, the two streams, `losses`, `slopes`, `model`, `measures` and `drawing`. A
question about what attention does with a patch belongs here.
"""
