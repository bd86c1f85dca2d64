"""A small preservation experiment."""

from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.preservation import PreservationSettings
from tests.support.tiny import tiny_bridge

FEW = Resampling(n_resamples=199)


SMALL = PreservationSettings(
    texts=("prose",),
    documents=4,
    document_tokens=20,
    template_words=1,
    batch=2,
    resampling=FEW,
)


def long_bridge() -> TransformerBridge:
    """Room for the templates, which are long in a vocabulary of 112."""
    return tiny_bridge("llama", max_position_embeddings=512)
