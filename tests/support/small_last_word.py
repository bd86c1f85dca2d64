"""A small run of the last_word experiment."""

from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.last_word import LastWordSettings
from tests.support.tiny import tiny_bridge

SETTINGS = LastWordSettings(
    requests=3,
    new_tokens=6,
    parts=2,
    traced=2,
    trace_every=2,
    resampling=Resampling(n_resamples=199),
)

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}{{ 'say' }}{% endif %}"
)


def chatty_bridge() -> TransformerBridge:
    """Room for requests, and a chat template."""
    bridge = tiny_bridge("llama", max_position_embeddings=512)
    bridge.tokenizer.chat_template = TEMPLATE
    return bridge
