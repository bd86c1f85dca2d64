"""Patches whose write or reader is learned through the two streams of `teacher_forcing`.

It imports the patch, `teacher_forcing`, `lens`, `model` and `drawing`. A new option goes into
`options`, a new parameter into `parameters` or `reader_parameters`, the choice of text into
`corpus`, and whatever must survive an interruption into `state`.
"""
