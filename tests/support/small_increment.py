"""A small increment experiment on a tiny model."""

from lens_interventions import TrainingOptions
from lens_interventions.experiments import IncrementSettings
from lens_interventions.experiments.design.contrasts import Resampling

SMALL = IncrementSettings(
    layer=1,
    rank=2,
    seeds=(0, 1),
    steps=4,
    base_steps=4,
    pilot_steps=2,
    learning_rates=(1e-3, 3e-2),
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
