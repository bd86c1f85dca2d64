"""Trainings on a pretrained model that differ in what is written, and their measurement.

It imports what `design/` may import. The split of the text is in `splits`, the losses on it in
`losses`, and differences over seeds and texts in `contrasts`. The trainings themselves belong to
their experiments.
"""
