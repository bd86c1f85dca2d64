"""Labels that tell patches apart."""

import dataclasses

import torch

import lens_interventions as li
from lens_interventions.intervention.patch_labels import patch_labels

PATCH = li.NextTokenPatch(layer=1, strength=0.5)


@dataclasses.dataclass
class Steer:
    vector: torch.Tensor

    def __call__(self, site, *_):
        return self.vector - site.resid


def halve(site, *_):
    return -site.resid / 2


def test_a_patch_alone_is_named_by_what_it_does():
    assert patch_labels([PATCH]) == ["layer 1, interpolate, strength 0.5, true"]


def test_several_are_named_by_what_differs():
    patches = [
        PATCH,
        dataclasses.replace(PATCH, layer=(1, 2), first_position=3),
        dataclasses.replace(PATCH, mode=halve, source=li.BackPatch(2)),
    ]
    assert patch_labels(patches) == [
        "layer 1, interpolate, first position 0, true",
        "layer (1, 2), interpolate, first position 3, true",
        f"layer 1, halve, first position 0, {li.BackPatch(2)}",
    ]


def test_equal_patches_and_long_names_are_numbered(llama):
    texts = torch.randint(4, 100, (40, 16))
    options = li.TrainingOptions(window=16, batch_size=2, held_out_windows=4)
    trained = li.train_patch(
        llama, texts, layer=1, rank=2, steps=1, options=options, progress=False
    ).write.patch()
    assert isinstance(trained.mode, li.LearnedWrite)
    (alone,) = patch_labels([trained])
    assert alone == "layer 1, learned write, strength 1, true"
    labels = patch_labels([trained, trained])
    assert [label[:3] for label in labels] == ["0: ", "1: "]
    assert max(map(len, labels)) < 80


def test_modes_that_hold_tensors_and_long_lists_of_positions():
    patches = [dataclasses.replace(PATCH, mode=Steer(torch.full((9,), v))) for v in (0.0, 1.0)]
    patches.append(dataclasses.replace(PATCH, positions=range(300)))
    labels = patch_labels(patches)
    assert len(set(labels)) == 3
    assert max(map(len, labels)) < 120
