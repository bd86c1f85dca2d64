"""Small networks that experiments train from their start: text, size, training, comparison.

It imports what `design/` may import. The corpus and its tokenizer are in `corpus`, the resumable
loop in `training`, differences over seeds and texts in `contrasts`. What a network is trained to do
belongs to its experiment.
"""
