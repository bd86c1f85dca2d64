"""The sequence that a model likes best: gradient ascent through unrolled sampling, then swaps.

What is maximised stands in `objectives`, what the model says along continuations of a prompt in
`continuations`, what was tried and what it cost in `evaluations`. `relaxation` climbs on
distributions over tokens, `swaps` on real tokens. It may import the lens and the inside of a model.
"""
