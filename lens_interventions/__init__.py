"""Read what each layer of a language model believes, and let it see the true next token.

Axes, used under these names throughout:

- `batch`: prompts
- `pos`: positions 0..N-1 of the tokens; position i predicts token i + 1
- `layer`: blocks 0..L-1 of the model
- `point`: residual points that a lens reads, at most L + 1 without the mid-block ones
- `d_model`, `d_vocab`: width of the residual stream, size of the vocabulary

`r[l]` is the residual stream entering block `l` (TransformerLens's `blocks.l.hook_resid_pre`);
`r[L]` leaves the last block. Ranks are zero-based and count strictly larger logits; entropies and
divergences are in nats.

The public names are listed in `__init__.pyi` and imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
