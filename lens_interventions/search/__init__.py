"""The likeliest sequence of a model: gradient ascent through unrolled sampling, then swaps.

`objectives` has the functions to maximise, `continuations` the model's logits along continuations
of a prompt, and `evaluations` counts the cost and keeps the best. `relaxation` climbs on
distributions over tokens, `swaps` on real tokens. It may import `lens`, `model` and `drawing`.
"""
