"""A small slopes experiment."""

from lens_interventions.experiments import SlopesSettings
from lens_interventions.experiments.design.contrasts import Resampling

SMALL = SlopesSettings(
    texts=("prose",),
    documents=(2, 4),
    document_tokens=20,
    induction_sequences=(3, 6),
    induction_length=12,
    embedding="W_E_centred",
    sources=("true", "current", "random", "final_guess"),
    curved_sources=("true", "random"),
    curved_every=1,
    curved_texts=2,
    cells=1,
    rescue_strengths=(0.1,),
    mechanism_texts=3,
    ceiling_documents=(4, 2),
    ceiling_tokens=48,
    ceiling_every=2,
    batch=3,
    resampling=Resampling(n_resamples=199),
)
