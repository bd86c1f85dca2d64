"""Losses of given texts under patches, over all predictions or some.

It imports the patch, `teacher_forcing`, `model` and `measures`. Another kind of prediction is a
function and its entry in `scopes`; slopes and mechanisms are summed over the same.
"""
