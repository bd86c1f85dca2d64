"""Training a patch: which write into the residual stream makes the true next token of most use.

Through the two streams a patched forward is one differentiable pass over a window of text. The
model stays as it is; only the write is trained, on the model's own loss.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.curves import Curve, draw_curves
from ...drawing.theme import ThemeName
from ...model.fingerprint import fingerprint
from ...model.hooks import has_temporary_hooks
from ...model.partial_run import refuse_late_hooks
from ...model.tokens import TextOrTokens
from ..learned_write import LearnedWrite
from ..patch import NextTokenPatch
from ..sources import SOURCES
from ..teacher_forcing.self_check import two_streams_hold, what_was_raised
from .loop import WriteTraining, frozen, initial_parameters
from .options import TrainingOptions
from .windows import ResidualStore, TrainingWindows, split_windows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class TrainedPatch:
    """A learned write and how it was learned.

    Losses are nats per predicted token; `clean_loss` is without a patch on the same tokens, and
    `change` the difference.

    Attributes:
        write: with the values that had the lowest held-out loss.
        curve: for each step, before it was made: step, loss, clean_loss, change, learning_rate,
            gradient_norm.
        held_out: for each evaluation: step, loss, clean_loss, change.
        settings: those of the training, and what came of it.
    """

    write: LearnedWrite
    curve: "pd.DataFrame"
    held_out: "pd.DataFrame"
    settings: Mapping[str, Any]

    @property
    def patch(self) -> NextTokenPatch:
        """The patch that was trained, at strength 1."""
        return self.write.patch()

    def plot(self, *, theme: ThemeName = "light") -> "go.Figure":
        """The change of the loss over the steps, on the text of each step and on held-out text.

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the theme is unknown.
        """
        curves = [
            Curve(
                label=label,
                unit="change of loss, nats a token",
                x=frame["step"].tolist(),
                values=frame["change"].to_numpy(),
                notes=[
                    f"{loss:.4f} with the patch, {clean:.4f} without"
                    for loss, clean in zip(frame["loss"], frame["clean_loss"], strict=True)
                ],
                colour=colour,
                faint=frame is self.curve,
            )
            for colour, (label, frame) in enumerate(
                {"text of the step": self.curve, "held-out text": self.held_out}.items()
            )
        ]
        layers = ", ".join(map(str, self.write.layers))
        title = f"A learned write at layer {layers}, source {self.write.trained_with}"
        figure = draw_curves(
            curves,
            x_title="steps made",
            title=title,
            subtitle="Loss with the patch minus loss without one: below 0 is better.",
            theme=theme,
        )
        figure.add_hline(y=0, line={"dash": "dot", "width": 1})
        return figure


def train_patch(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    layer: int | Sequence[int],
    rank: int | None = 64,
    source: str = "true",
    steps: int = 500,
    seed: int = 0,
    options: TrainingOptions | None = None,
    held_out: Iterable[TextOrTokens] | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    save_every: int = 10,
    store: ResidualStore | None = None,
    progress: bool = True,
) -> TrainedPatch:
    """Learn `M` and `b` of `r[layer][i] <- r[layer][i] + e M + b`, with the model as it is.

    `e` is the embedding of `x[i+1]`, or of what another `source` says: train those as well, for
    what the bias and the map gain without news is not to be credited to the true token. The loss is
    that of every next token, each predicted as `teacher_forced_log_probs` does. At the start M and
    b are zero. Windows, their order and the start of M are functions of texts, options and seed, so
    they are the same for all sources.

    The blocks below the lowest layer run once for each window, and what they leave is kept, see
    `ResidualStore`. Beyond that, 8 windows of 256 tokens at layer 22 of the default model take
    1.6 GiB, and 4 GiB at layer 0.

    **Arguments:**

    - `texts`: documents, cut into windows.
    - `layer`: where to write, or several layers.
    - `rank`: of M; None for a full matrix.
    - `source`: what `e` stands for: `"true"`, another name that `NextTokenPatch` takes, or
        `"constant"`, with which the bias alone is trained.
    - `seed`: of the start of M, the order of the windows and random sources.
    - `options`: the rest.
    - `held_out`: texts for the held-out loss; by default every tenth of `texts`, or every tenth
        window where they are few. The write with the lowest held-out loss is kept.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `checkpoint`: a file to write every `save_every` steps. Given again, training goes on there
        and ends in the same bits.
    - `store`: shared with other trainings on the same text; by default one of its own.

    Raises `ValueError` for options that make no sense, too little text, a hook on a block that is
    trained through, or on any with a `store`, a checkpoint of another training or a model in
    training mode;
    `NotImplementedError` for a model that the two streams do not fit.
    """
    options = TrainingOptions() if options is None else options
    if store is None:
        store = ResidualStore()
    elif any(map(has_temporary_hooks, bridge.hook_points())):
        raise ValueError(
            "there are hooks on the bridge, and what they do would go into the store that other "
            "trainings read: take them off, or train without a store"
        )
    layers = (layer,) if isinstance(layer, int) else tuple(sorted(layer))
    _check(bridge, layers, rank, source, steps, save_every, options)
    training, kept = split_windows(
        bridge,
        texts,
        held_out,
        window=options.window,
        n_held_out=options.held_out_windows,
        prepend_bos=prepend_bos,
    )
    with frozen(bridge):
        windows, kept_windows = (
            TrainingWindows(bridge, some, layer=layers[0], store=store) for some in (training, kept)
        )
        _require_two_streams(bridge, layers[0], windows)
        write = LearnedWrite(
            layers=layers,
            down=None,
            up=None,
            bias=None,
            trained_with=source,
            source=source,
            embedding=options.embedding,
            scale=options.scale,
            first_position=options.first_position,
            fingerprint=fingerprint(bridge),
        )
        settings = {
            "layers": list(layers),
            "rank": rank,
            "source": source,
            "steps": steps,
            "seed": seed,
            **asdict(options),
            "model": str(bridge.cfg.model_name),
            "fingerprint": write.fingerprint,
            "texts": windows.digest(),
            "held_out_texts": kept_windows.digest(),
        }
        bound = write.patch().bind(bridge)
        parameters = initial_parameters(bound, windows, rank, options, seed)
        run = WriteTraining(bridge, bound, parameters, windows, kept_windows, options, settings)
        run.to_the_end(None if checkpoint is None else Path(checkpoint), save_every, progress)
    n_tokens = sum(map(len, training))
    return _result(run, {**settings, "tokens": n_tokens})


def _result(run: WriteTraining, settings: dict[str, Any]) -> TrainedPatch:
    import pandas as pd

    state = run.state
    settings = {**settings, "steps_made": state.step, "best_step": state.best_step}
    write = replace(run.best_write(), settings=settings)
    return TrainedPatch(write, pd.DataFrame(state.curve), pd.DataFrame(state.held_out), settings)


def _require_two_streams(bridge: TransformerBridge, layer: int, windows: TrainingWindows) -> None:
    longest = max(range(len(windows.windows)), key=lambda i: len(windows.windows[i]))
    resid = windows.batch([longest], torch.zeros(1, dtype=torch.long)).resid
    if not two_streams_hold(bridge, layer, resid):
        raise NotImplementedError(
            f"{bridge.cfg.architecture} does not run two copies of a text side by side from block "
            f"{layer} up as it runs one{what_was_raised(bridge, layer)}, and training needs that"
        )


def _check(
    bridge: TransformerBridge,
    layers: tuple[int, ...],
    rank: int | None,
    source: str,
    steps: int,
    save_every: int,
    options: TrainingOptions,
) -> None:
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}; got {source!r}")
    if SOURCES[source].role == "no news" and not options.bias:
        raise ValueError(f"the source {source!r} trains the bias alone, but bias is False")
    if rank is not None and not 1 <= rank <= int(bridge.cfg.d_model):
        raise ValueError(
            f"rank must be from 1 to the model's width {bridge.cfg.d_model}, or None for a full "
            f"matrix; got {rank}"
        )
    if steps < 1 or save_every < 1:
        raise ValueError(f"steps and save_every must be at least 1, got {steps}, {save_every}")
    # Checks the layers themselves.
    NextTokenPatch(layer=layers, strength=1.0).bind(bridge)
    refuse_late_hooks(bridge, layers[0])
