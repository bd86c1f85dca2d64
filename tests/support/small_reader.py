"""A small reader experiment on a tiny model."""

from lens_interventions import TrainingOptions
from lens_interventions.experiments import ReaderSettings
from lens_interventions.experiments.design.contrasts import Resampling

SMALL = ReaderSettings(
    layer=1,
    adapt="attention+mlp",
    rank=2,
    controls=("zero", "current"),
    seeds=(0, 1),
    steps=4,
    options=TrainingOptions(
        scale="norm",
        window=24,
        batch_size=3,
        evaluate_every=2,
        patience=None,
        held_out_windows=3,
    ),
    texts=("prose",),
    windows=(16, 8),
    copies=3,
    copy_length=8,
    batch=4,
    resampling=Resampling(n_resamples=99),
)
