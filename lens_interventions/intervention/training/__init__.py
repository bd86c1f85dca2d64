"""A patch whose write or reader is learned, through the two streams of `teacher_forcing`.

It imports the patch, `teacher_forcing`, `model` and `drawing`. A new option goes into `options`,
what is trained into `parameters` and `reader_parameters`, what is trained on into `corpus`, and
what must survive an interruption into `state`.
"""
