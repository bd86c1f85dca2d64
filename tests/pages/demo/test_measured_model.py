"""What several sections read of a model, each read once."""

import numpy as np
import torch

from lens_interventions.fitting.lens_quality import SHOWN, lens_quality
from lens_interventions.lens.affine import UNKNOWN, AffineLens
from lens_interventions.materials import prose
from lens_interventions.pages.demo.measured_model import PROSE_TEXTS, PROSE_TOKENS, MeasuredModel
from tests.support.tiny import shared_bridge


def test_prose_is_what_lens_quality_reads_raw_and_through_a_lens():
    bridge = shared_bridge("llama")
    layers, width = bridge.cfg.n_layers, bridge.cfg.d_model
    weight = 0.1 * torch.randn(layers, width, width)
    lens = AffineLens(weight, torch.zeros(layers, width), UNKNOWN, {})
    model = MeasuredModel(bridge)
    texts = [document.text for document in prose()[:PROSE_TEXTS]]
    quality = lens_quality(bridge, lens, texts, max_tokens=PROSE_TOKENS, progress=False)
    for read, of_quality in (
        (model.prose, quality.readings["raw"]),
        (model.prose_through(lens), quality.readings["fitted"]),
    ):
        for statistic in SHOWN:
            np.testing.assert_array_equal(read.means(statistic), of_quality.means(statistic))
