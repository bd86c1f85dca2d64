"""The mean of a model's residual stream, from which `scale="deviation"` measures."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..materials.bundled import prose
from ..model.capabilities import recall
from ..model.fingerprint import fingerprint
from ..model.hooks import without_hooks
from ..model.kinds import ReadableModel
from ..model.residuals import text_residuals

# Every fourth of the bundled texts covers all registers in some 1,300 tokens.
_EVERY = 4
_LONGEST = 256


def mean_residuals(bridge: ReadableModel) -> Float[Tensor, "layer d_model"]:
    """The mean of `r[layer]` over positions of ten bundled texts of prose, for every block.

    It depends on the weights alone, and is computed once for each bridge, without the hooks that
    are on it. The first position of a text is left out: models park attention there, in a residual
    that can be a hundred times longer than the others.

    Raises `ValueError` if the bridge has no tokenizer.
    """
    return recall(
        bridge, f"mean residuals of weights {fingerprint(bridge)}", lambda: _measured(bridge)
    )


@torch.no_grad()
def _measured(bridge: ReadableModel) -> Float[Tensor, "layer d_model"]:
    if bridge.tokenizer is None:
        raise ValueError(
            "scale='deviation' measures the mean residual on bundled texts, and the bridge has no "
            "tokenizer to read them with: use scale='norm'"
        )
    labels = [f"{layer}_pre" for layer in range(int(bridge.cfg.n_layers))]
    total, count = torch.zeros(len(labels), int(bridge.cfg.d_model), dtype=torch.float64), 0
    with without_hooks(bridge.hook_points()):
        for document in prose()[::_EVERY]:
            tokens = bridge.to_tokens(document.text)[0, : min(_LONGEST, int(bridge.cfg.n_ctx))]
            streams = text_residuals(bridge, tokens, labels, first=1)
            total += torch.stack([stream.cpu().double().sum(0) for stream in streams])
            count += len(tokens) - 1
    return total / count
