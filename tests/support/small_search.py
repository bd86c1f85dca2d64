"""A search small enough to enumerate."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from tests.support.tiny import tiny_bridge

D_VOCAB, LENGTH = 12, 4
PROMPT = torch.tensor([3, 7])
# A function gets the logits after the last token too, so that one token more is run.
FUNCTION_COST = LENGTH + 1


def small_bridge() -> TransformerBridge:
    """A Llama of twelve tokens, none of them special."""
    bridge = tiny_bridge("llama", vocab_size=D_VOCAB, num_hidden_layers=1)
    bridge.tokenizer = None
    return bridge
