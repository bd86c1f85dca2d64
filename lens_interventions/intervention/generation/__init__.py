"""New text under a patch, one token after the other.

It imports the patch, `lens`, `model` and `drawing`. How tokens are chosen and texts end goes into
`sampler`, how logits are computed into a decoder, and everything that a user gets into `result`.
"""
