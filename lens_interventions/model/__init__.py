"""The inside of a `TransformerBridge`: loading, tokens, hooks, residual points, readout.

It imports no other package of the library. An architecture's quirk goes here and nowhere else: what
a model can do is found by a check in `capabilities`, never looked up by name.
"""
