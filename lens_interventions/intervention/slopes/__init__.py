"""First and second derivatives of the loss with respect to the strength of a patch.

It imports the patch, `losses`, `teacher_forcing`, `lens`, `model`, `measures` and `drawing`. A way
to differentiate belongs here; a new source or mode belongs beside the others in `intervention/`,
and is measured without a line here.
"""
