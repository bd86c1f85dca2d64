"""Small networks that experiments train from scratch: text, size, training, comparison.

It imports what `design/` may import. The corpus and its tokenizer are in `corpus`, the resumable
loop in `training`, and differences over seeds and texts in `contrasts`. The loss that a network is
trained on belongs to its experiment.
"""
