"""A small loops experiment."""

from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.loops import LoopsSettings
from tests.support.tiny import tiny_bridge

SETTINGS = LoopsSettings(
    layers=(1, 2),
    strengths=(0.1, 0.5),
    modes=("interpolate",),
    prompts=12,
    new_tokens=18,
    search_prompts=2,
    search_tokens=16,
    temperatures=(0.7,),
    penalties=(1.2,),
    rule_temperatures=(),
    passages=4,
    rounds=2,
    documents=4,
    document_tokens=20,
    batch=8,  # less than there are prompts, which are split
    shown=3,
    resampling=Resampling(n_resamples=199),
)


def roomy_bridge() -> TransformerBridge:
    """Room for prompts and passages, which are long in a vocabulary of 112."""
    return tiny_bridge("llama", max_position_embeddings=2048)
