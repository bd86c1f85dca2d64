"""A small GPT-2 whose stream can be read after every block."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from ..design.small_networks.blocks import causal_block
from ..design.small_networks.shape import Shape


class LayeredNetwork(nn.Module):
    """A GPT-2 that returns its residual stream at every point, and reads it at any point.

    Attributes:
        model: of transformers.
        shape: its size.
    """

    def __init__(self, shape: Shape, *, tied: bool, seed: int) -> None:
        """Draw the weights as transformers does, with `seed`.

        Tied or not, a seed gives the same weights, except for the unembedding.
        """
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = GPT2LMHeadModel(shape.config(tied=tied))

    def streams(
        self, tokens: Int[Tensor, "text pos"], *, stopped: bool = False
    ) -> list[Float[Tensor, "text pos d_model"]]:
        """The residual stream at every point, the input first.

        With `stopped`, no gradient passes from a block to those below it, except from the first
        block to the embedding.
        """
        transformer = self.model.transformer
        position = torch.arange(tokens.shape[1], device=tokens.device)
        found = [transformer.wte(tokens) + transformer.wpe(position)]
        for layer, block in enumerate(transformer.h):
            entering = found[-1].detach() if stopped and layer > 0 else found[-1]
            found.append(causal_block(block, entering, self.shape.n_heads))
        return found

    def read(self, stream: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_vocab"]:
        """Logits of a stream through the final norm and the unembedding."""
        return self.model.lm_head(self.model.transformer.ln_f(stream))
