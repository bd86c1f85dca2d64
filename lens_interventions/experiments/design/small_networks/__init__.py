"""Small networks that experiments train from scratch: text, size, training.

It imports what `design/` may import. The corpus and its tokenizer are in `corpus`, and the
resumable loop in `training`. The loss that a network is trained on belongs to its experiment.
"""
