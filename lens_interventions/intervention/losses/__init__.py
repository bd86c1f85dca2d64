"""Losses of given texts under patches, over all predictions or some.

It imports the patch, `teacher_forcing`, `lens`, `model`, `measures` and `drawing`. Another kind of
prediction is a function and its entry in `scopes`; slopes and mechanisms are summed over the same.
"""
