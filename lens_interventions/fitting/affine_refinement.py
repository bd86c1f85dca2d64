"""Refining an affine lens by gradient descent on KL(final ‖ lens), as the tuned lens is trained.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens". The
training starts from the closed form, which fits the last residual and not the logits that are read
from it.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from ..lens.affine import AffineLens
from ..lens.distributions import expectation
from ..lens.reduction import default_chunk_size
from ..model.argument_types import (
    require_counts,
    require_instance,
    require_numbers,
    require_whole_numbers,
)
from ..model.exclusive import exclusive
from ..model.gradients import require_gradients
from ..model.points import select_points
from ..model.precision import is_half
from ..model.product import product, product_dtype, weighted_rows
from ..model.readout import Readout, readout, refuse_readout_hooks
from ..model.residuals import text_residuals
from ..model.text_pieces import token_pieces
from ..model.tokens import TextOrTokens

_WARM_UP = 0.1
Streams = list[Float[Tensor, "row d_model"]]


@exclusive
def refine_affine_lens(
    bridge: TransformerBridge,
    lens: AffineLens,
    texts: Iterable[TextOrTokens],
    *,
    steps: int = 300,
    learning_rate: float = 3e-4,
    batch: int = 256,
    held_out: int = 1024,
    evaluate_every: int = 25,
    patience: int = 2,
    window: int = 256,
    prepend_bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
) -> AffineLens:
    """Train all maps of a lens on KL(final ‖ lens), and keep the best on held-out text.

    AdamW trains the change of each map, in coordinates of unit variance, with a warm-up and then a
    cosine. One step costs a row of logits and its gradient for every token and layer.

    **Arguments:**

    - `lens`: the lens to start from, a result of `fit_affine_lens` on this bridge's weights.
    - `texts`: any iterable of texts, read once and held as tokens. The first `held_out` tokens are
        not trained on.
    - `steps`: at most so many.
    - `learning_rate`: the highest learning rate of the schedule.
    - `batch`: the least number of tokens in a step, which takes whole windows; all that there are
        to train on if they have fewer.
    - `evaluate_every`: how many steps lie between measurements of the held-out KL. The map of each
        layer is kept if it is the best so far.
    - `patience`: stop when the mean over layers has not fallen by a thousandth of itself for this
        many measurements.
    - `window`: how many tokens are read at a time; the first token of each window, an outlier, is
        left out.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `seed`: the seed of the order of the windows.
    - `progress`: show a progress bar over steps.

    **Returns:** a new lens, never worse than `lens` on the held-out tokens at any layer; its
    settings hold the best held-out KL so far, averaged over layers, at every measurement.

    Raises `ValueError` if the texts are too short to hold out and train, if a number of steps,
    tokens or measurements is below 1, if the lens belongs to other weights, if a residual is not
    finite, if products are in half precision, if a hook is on the final norm or the unembedding, or
    inside `torch.inference_mode`, or if the model was loaded there; `TypeError` if one of these
    numbers or the seed is not a whole number, `learning_rate` is no number, or `lens` is none.
    """
    require_gradients("refine_affine_lens", bridge)
    require_instance("lens", lens, AffineLens)
    require_counts(steps=steps, batch=batch, held_out=held_out, patience=patience)
    require_counts(evaluate_every=evaluate_every)
    require_counts(least=2, window=window)
    require_whole_numbers(seed=seed)
    require_numbers(learning_rate=learning_rate)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a finite number above 0, got {learning_rate}")
    lens.require_fits(bridge)
    refuse_readout_hooks(bridge)
    head = readout(bridge).for_rows(steps * batch)
    if is_half(dtype := product_dtype(head.weight)):
        raise ValueError(f"refine in float32 or float64: products are in {dtype}")
    windows = list(token_pieces(bridge, texts, length=window, prepend_bos=prepend_bos))
    windows = [piece for piece in windows if len(piece) > 1]
    kept_out, train = _split(windows, held_out)
    batch = min(batch, sum(map(len, train)))
    order = torch.Generator().manual_seed(operator.index(seed) % 2**64)
    training = _Training(head, lens, _streams(bridge, kept_out), learning_rate, steps)
    best = training.measure()
    history = [float(best.mean())]
    chosen, stale, trained = training.maps(), 0, 0
    with progress_bar(total=steps, shown=progress, unit="step", desc="refining") as bar:
        bar.set_postfix(kl=history[-1])
        for step, part in enumerate(islice(_batches(train, batch, order), steps), start=1):
            streams = _streams(bridge, part)
            training.step(streams)
            trained += len(streams[0])
            bar.update()
            if step % evaluate_every and step < steps:
                continue
            now = training.measure()
            better = now < best
            weight, bias = training.maps()
            chosen = (
                torch.where(better[:, None, None], weight, chosen[0]),
                torch.where(better[:, None], bias, chosen[1]),
            )
            best = torch.fmin(now, best)  # a layer that diverged keeps its best
            history.append(float(best.mean()))
            stale = 0 if history[-1] < history[-2] * (1 - 1e-3) else stale + 1
            bar.set_postfix(kl=history[-1])
            if stale >= patience:
                break
    weight, bias = chosen
    refined = {
        "steps": step,
        "tokens": trained,
        "held_out_kl": history,
        "seed": operator.index(seed),
    }
    settings = dict(lens.settings) | {"refined": refined}
    return replace(lens, weight=weight.to(lens.weight), bias=bias.to(lens.bias), settings=settings)


class _Training:
    """Changes of the maps, in coordinates of unit variance, and their optimizer."""

    def __init__(
        self,
        head: Readout,
        lens: AffineLens,
        held_out: Streams,
        learning_rate: float,
        steps: int,
    ) -> None:
        self.head, self.held_out, self.steps = head, held_out, steps
        device, dtype = head.weight.device, head.weight.dtype
        self.rows = default_chunk_size(head.weight)
        self.buffers = torch.empty(2, self.rows, len(head.weight), dtype=dtype, device=device)
        self.start = lens.weight.to(device, dtype), lens.bias.to(device, dtype)
        inputs = torch.stack(held_out[:-1]).to(dtype)
        self.mean = inputs.mean(1)
        spread = inputs.std(1)
        self.unit = torch.where(spread > 0, 1 / spread, 0)
        # A change of 1 moves the output by the output's own size, on every model.
        self.size = held_out[-1].to(dtype).square().mean().sqrt()
        self.change = torch.zeros_like(self.start[0], requires_grad=True)
        self.shift = torch.zeros_like(self.start[1], requires_grad=True)
        self.optimizer = torch.optim.AdamW([self.change, self.shift], lr=learning_rate)
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._schedule)

    def _schedule(self, step: int) -> float:
        warm = max(1, int(_WARM_UP * self.steps))
        rest = (step - warm) / max(1, self.steps - warm)
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * min(rest, 1)))

    @torch.no_grad()
    def maps(self) -> tuple[Float[Tensor, "layer d d"], Float[Tensor, "layer d"]]:
        """Weights and biases of the maps as they are now."""
        weight = self.unit[..., None] * self.change * self.size
        shift = self.shift * self.size - torch.einsum("ld,lde->le", self.mean, weight)
        return self.start[0] + weight, self.start[1] + shift

    def _read(self, layer: int, r: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        standard = (r - self.mean[layer]) * self.unit[layer]
        change = (standard @ self.change[layer] + self.shift[layer]) * self.size
        return r + r @ self.start[0][layer] + self.start[1][layer] + change

    @torch.enable_grad()
    def step(self, streams: Streams) -> None:
        """One step on the rows of one batch."""
        self.optimizer.zero_grad()
        self._each(streams, backward=True)
        # The layers are independent problems, so the gradient norm of each is clipped separately.
        change, shift = self.change.grad, self.shift.grad
        assert change is not None
        assert shift is not None
        norm = (change.square().sum((1, 2)) + shift.square().sum(1)).sqrt()
        factor = (1 / norm.clamp(min=1)).view(-1, 1)
        change *= factor[..., None]
        shift *= factor
        self.optimizer.step()
        self.rate.step()

    @torch.no_grad()
    def measure(self) -> Float[Tensor, " layer"]:
        """Held-out KL(final ‖ lens) of each layer, nats."""
        return self._each(self.held_out, backward=False)

    def _each(self, streams: Streams, *, backward: bool) -> Float[Tensor, " layer"]:
        """Mean KL of each layer; with `backward` its gradient is added to the changes'."""
        last = streams[-1].to(self.change.dtype)
        total = last.new_zeros(len(self.change))
        for rows in torch.arange(len(last), device=last.device).split(self.rows):
            target, logits = (buffer[: len(rows)] for buffer in self.buffers)
            with torch.no_grad():
                torch.softmax(self.head(last[rows]), -1, out=target)
                # In float32 its sum is not quite 1, as in `distributions.normalizer_and_entropy`.
                target.div_(target.sum(-1, keepdim=True))
                negentropy = torch.special.xlogy(target, target).sum(-1)
            for layer, stream in enumerate(streams[:-1]):
                normalized = self.head.normalize(self._read(layer, stream[rows].to(last)))
                kl, gradient = _kl_and_gradient(
                    self.head, normalized.detach(), target, logits, backward=backward
                )
                total[layer] += (kl + negentropy).sum()
                if gradient is not None:
                    # The user may have parameters of the final norm that require gradients.
                    leaves = [self.change, self.shift]
                    torch.autograd.backward(normalized, gradient / len(last), inputs=leaves)
        return total / len(last)


def _kl_and_gradient(
    head: Readout,
    normalized: Float[Tensor, "row d_model"],
    target: Float[Tensor, "row d_vocab"],
    out: Float[Tensor, "row d_vocab"],
    *,
    backward: bool,
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row d_model"] | None]:
    """KL(target ‖ lens) plus the target's entropy, and its gradient with respect to `normalized`.

    Without `backward` the gradient is None. That with respect to the logits is `lens - target`; it
    is computed by hand, in the buffer `out` of the logits.
    """
    if head.scale == 1:
        logits, raw = head.logits(normalized, out=out), None
    else:  # a soft cap, or a factor
        raw = product(normalized, head.weight, fast=head.fast)
        raw = (raw if head.bias is None else raw + head.bias).requires_grad_()
        with torch.enable_grad():
            capped = head.transform(raw)
        logits = out.copy_(capped.detach())
    log_normalizer = logits.logsumexp(-1)
    kl = log_normalizer - expectation(target, logits)
    if not backward:
        return kl, None
    difference = logits.sub_(log_normalizer[:, None]).exp_().sub_(target)
    if raw is not None:
        (difference,) = torch.autograd.grad(capped, raw, difference)
    return kl, weighted_rows(difference, head.weight, fast=head.fast)


@torch.no_grad()
def _streams(bridge: TransformerBridge, windows: Sequence[Int[Tensor, " _"]]) -> Streams:
    """`r[l]` of every point for all rows but each window's first."""
    labels = select_points(int(bridge.cfg.n_layers))
    parts = [text_residuals(bridge, window, labels, first=1) for window in windows]
    return [torch.cat(point) for point in zip(*parts, strict=True)]


def _split(
    windows: list[Int[Tensor, " _"]], held_out: int
) -> tuple[list[Int[Tensor, " _"]], list[Int[Tensor, " _"]]]:
    total = 0
    for number, piece in enumerate(windows):
        total += len(piece)
        # The first token of a window is no row, and the spread of rows takes two.
        rows = total - (number + 1)
        if total >= held_out and rows > 1 and number + 1 < len(windows):
            return windows[: number + 1], windows[number + 1 :]
    raise ValueError(
        f"{total} tokens of text leave none to train on after {held_out} to hold out: give more "
        "text or a smaller held_out"
    )


def _batches(
    windows: list[Int[Tensor, " _"]], batch: int, order: torch.Generator
) -> Iterable[list[Int[Tensor, " _"]]]:
    """Shuffled windows in batches of about `batch` tokens, without end."""
    part: list[Int[Tensor, " _"]] = []
    while True:
        for index in torch.randperm(len(windows), generator=order).tolist():
            part.append(windows[index])
            if sum(map(len, part)) >= batch:
                yield part
                part = []
