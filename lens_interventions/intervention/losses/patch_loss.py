"""What patches do to the loss of a corpus."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.exclusive import exclusive
from ...model.tokens import TextOrTokens
from ..known_text import KnownText
from ..patch import NextTokenPatch
from ..pieces import piece_length, require_patches
from ..teacher_forcing.row_hooks import GivenHook
from ..text_sums import Reading, text_sums
from .loss_sums import loss_sums
from .result import PatchLoss
from .scopes import Scope, scopes_by_name


@exclusive
def patch_loss(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    patches: NextTokenPatch | Sequence[NextTokenPatch],
    *,
    scopes: Sequence[str | Scope] = ("all",),
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    fwd_hooks: Sequence[GivenHook] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> PatchLoss:
    """The loss of texts with and without patches, each prediction as the patched model makes it.

    The losses are those of `teacher_forced_log_probs` for texts of up to `max_length` tokens,
    summed over the predictions of each text, so that intervals can resample texts. A longer text is
    read in pieces that do not overlap. At the start of each piece the model has seen less, so its
    loss is usually higher here. Random sources draw by the tokens of each text, so neither the
    order of the texts nor other texts in a batch change a number.

    **Arguments:**

    - `texts`: any iterable, read once. Intervals resample these texts.
    - `patches`: one or more patches. The loss without a patch is always measured too.
    - `scopes`: which predictions the loss is summed over: `"all"`; `"copyable"`, those that
        complete an earlier pair, and `"other"`; `"after_surprise"`, after a token of at least 6
        nats; `"repeated_surprise"`, of a token that was as surprising where it first stood; or a
        function of a text's tokens `[pos]` and their nats without a patch `[pos - 1]` that returns
        a bool for each.
    - `max_length`: how many tokens are read at a time, by default 512 or the model's context if
        that is shorter. Longer texts are read in pieces, each as a separate text that begins with
        the BOS if the whole does. If positions of a patch are numbers, each text must fit.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `fwd_hooks`: hooks of your own in the same runs, with and without a patch, `[(name, fn)]`,
        that change every position in the same way and independently of the others: an SAE, an
        ablated direction, a steering vector. They come before the patch at the same point.
    - `checkpoint`: a file for the sums of finished texts, from which the same call continues. It
        knows patches, scopes and hooks again by what they hold and by their own code, and the
        functions that they call by name alone: name another file if you edit one of these.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if there are no patches or one has `positions="generated"`, for an unknown
    scope, if no text has a token to predict that the scopes count, if a loss is not finite, if the
    file holds other sums or could not know a function or hook again, or for texts, hooks and
    patches that `teacher_forced_log_probs` refuses; `TypeError` for one text where many are
    expected, what is no patch, or a length that is not a whole number; `OSError` if the file cannot
    be written, or another process is writing it. Warns if no text has one of the positions that a
    patch names.
    """
    length = piece_length(bridge, max_length)
    compared = require_patches(patches)
    by_scope, hooks = scopes_by_name(scopes), tuple(fwd_hooks)

    def measure(text: KnownText) -> Float[Tensor, "piece scope value"]:
        found = loss_sums(bridge, text, compared, tuple(by_scope.values()), hooks)
        values = [
            torch.cat([each.counts[None].double(), each.clean[None], each.patched])
            for each in found
        ]
        return rearrange(values, "scope value piece -> piece scope value")

    settings = {
        "patches": compared,
        "scopes": scopes,
        "fwd_hooks": hooks,
        "max_length": length,
    }
    reading = Reading(length, prepend_bos, progress, checkpoint, settings, compared)
    sums = text_sums(bridge, texts, measure, (len(by_scope), 2 + len(compared)), reading)
    return PatchLoss(
        losses=sums[..., 2:],
        clean=sums[..., 1],
        counts=sums[..., 0],
        patches=compared,
        scopes=tuple(by_scope),
    )
