"""Trainings on a pretrained model that differ in what is written, and their measurement.

It imports what `design/` may import. The split of the text is in `splits`, a training on it in
`trainings`, its losses in `losses`, and differences over seeds and texts in `contrasts`. What is
trained belongs to the experiments.
"""
