"""Small networks as bridges for the rest of the library."""

from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast


def bridge_of(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, name: str
) -> TransformerBridge:
    """A network as a bridge, which takes its modules apart, so do not train it further."""
    bridge = TransformerBridge.boot_transformers(
        name, hf_model=model, tokenizer=tokenizer, dtype=model.dtype, device="cpu"
    )
    return bridge.eval()
