"""The size of a small network."""

from dataclasses import dataclass

from transformers import GPT2Config


@dataclass(frozen=True)
class Shape:
    """The size of a network.

    Attributes:
        n_layers: blocks.
        d_model: width of the residual stream.
        n_heads: heads of each block.
        context: the most tokens that it reads.
        d_vocab: tokens in the vocabulary.
    """

    n_layers: int
    d_model: int
    n_heads: int
    context: int
    d_vocab: int

    def config(self, *, tied: bool = True) -> GPT2Config:
        """The configuration of transformers; `tied` makes embedding and unembedding one matrix."""
        return GPT2Config(
            vocab_size=self.d_vocab,
            n_positions=self.context,
            n_embd=self.d_model,
            n_layer=self.n_layers,
            n_head=self.n_heads,
            # GPT-2's default activation, in one kernel.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=tied,
            architectures=["GPT2LMHeadModel"],
        )
