"""Trainings on a pretrained model that differ in what is written, and what each is good for.

It imports what `design/` may import. The split of the text is in `splits`, what is measured on it
in `losses`, differences over seeds and texts in `contrasts`. What is trained belongs to its
experiment.
"""
