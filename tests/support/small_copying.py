"""A small copying experiment for the planted models."""

from lens_interventions.experiments import CopyingSettings
from lens_interventions.experiments.design.contrasts import Resampling

SETTINGS = CopyingSettings(
    layers=(0, 1),
    strengths=(0.3,),
    modes=("interpolate",),
    forms=("surprised output", "recent tokens"),
    form_strengths=(0.3,),
    temperatures=(1.2,),
    repeat_texts=("prose",),
    repeat_documents=(4, 8),
    repeat_tokens=48,
    shortlist=2,
    induction_sequences=(10, 12),
    induction_length=16,
    template_words=(1, 2),
    texts=("prose",),
    documents=(4, 10),
    document_tokens=48,
    smallest_copy=0.25,
    smallest_text=0.25,
    resampling=Resampling(n_resamples=999),
)
