"""The inside of a `TransformerBridge`: loading, tokens, hooks, residual points, readout.

It imports no other package of the library. An architecture's quirk goes here and nowhere else.
Checks in `capabilities` find what a model can do, which is never looked up by name.
"""
