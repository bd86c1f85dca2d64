"""The lens on the embedded model, SmolLM2-135M-Instruct."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from lens_interventions import logit_lens
from lens_interventions.model.embedded import embedded_model
from tests.support.clean import left_as_found

# The example of the post "interpreting GPT: the logit lens" (nostalgebraist, 2020).
PLASMA = (
    "Sometimes, when people say plasma, they mean a state of matter. Other times, when people say"
)


@pytest.mark.parametrize(
    ("prepend_bos", "probability", "rank_29"), [(False, 0.42, 123), (True, 0.615, 87)]
)
def test_plasma_is_found_in_the_last_layers_only(default_bridge, prepend_bos, probability, rank_29):
    with left_as_found(default_bridge):
        trajectory = logit_lens(
            default_bridge, PLASMA, prepend_bos=prepend_bos, watch=" plasma", positions=-1
        )
    rank = trajectory.watched_rank[:, 0, 0, 0].tolist()
    assert trajectory.watched_log_prob[-1].exp().item() == pytest.approx(probability, abs=0.005)
    assert rank[-1] == 0
    assert rank[29] == rank_29
    assert min(rank[:24]) > 8000


def test_the_last_point_is_hugging_faces_own_logits(default_bridge):
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).eval()
    tokens = default_bridge.to_tokens(PLASMA)
    with torch.no_grad():
        logits = model(tokens).logits
    trajectory = logit_lens(default_bridge, tokens, points=[-1], top_k=100)
    values, ids = logits.topk(100)
    # float32 logits of magnitude 30; eager and fused attention round differently.
    torch.testing.assert_close(trajectory.top_logits[0], values, rtol=0, atol=1e-3)
    assert (trajectory.top_ids[0, ..., 0] == ids[..., 0]).all()
