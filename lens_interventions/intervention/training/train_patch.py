"""Training the write into the residual stream that makes the best use of the next token.

In two streams, a patched forward is one differentiable pass over a piece of text. The model stays
as it is. The write is trained on the model's own loss, and so is a reader if one is asked for:
low-rank updates of the attention above.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformer_lens.model_bridge import TransformerBridge

from ..._files import require_writable
from ...model.alterations import alteration
from ...model.argument_types import python_numbers, require_instance, require_whole_numbers
from ...model.exclusive import exclusive
from ...model.fingerprint import config_hash, fingerprint
from ...model.gradients import frozen, require_gradients
from ...model.residuals import residuals
from ...model.tokens import TextOrTokens, TokenBatch, about
from ..adapted_reader import Adapt
from ..learned_write import LearnedWrite
from ..patch import NextTokenPatch
from ..sources import SOURCES
from ..teacher_forcing.self_check import require_two_streams
from .checks import check_base, check_reach, check_reader, check_write
from .corpus import Corpora, TrainingCorpus, split_corpus
from .loop import DivergenceError, WriteTraining
from .options import TrainingOptions
from .parameters import WriteParameters
from .reader_parameters import ReaderParameters
from .residual_store import ResidualStore
from .result import TrainedPatch

RANK, ADAPTER_RANK = 64, 8


@exclusive
def train_patch(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    layer: int | Sequence[int],
    rank: int | Literal["default"] | None = "default",
    source: str = "true",
    steps: int = 500,
    seed: int = 0,
    strength: float | None = None,
    adapt: Adapt | None = None,
    adapter_rank: int | None = None,
    base: LearnedWrite | None = None,
    options: TrainingOptions | None = None,
    held_out: Iterable[TextOrTokens] | None = None,
    preserve: Iterable[TextOrTokens] | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    save_every: int = 10,
    store: ResidualStore | None = None,
    progress: bool = True,
) -> TrainedPatch:
    """Learn `M` and `b` of `r[layer][i] <- r[layer][i] + e M + b`, and a reader of it if asked to.

    `e` is the embedding of `x[i+1]`, or of the token that another `source` names. Train other
    sources too, because the gain of the bias and the map without news must not be credited to the
    true token. The loss is that of every next token, each predicted as in
    `teacher_forced_log_probs`. At the start M and b are zero. The pieces of text, their order and
    the start of M depend only on texts, options and seed, so they are the same for all sources.

    With `adapt`, all blocks from the lowest layer up learn to read the write, by low-rank updates
    of their matrices. The result has these as its `reader`, and the bridge keeps its own weights. A
    reader gains something even without a write: its control is a training with `source="zero"`, as
    many steps and the same rank.

    With a `base`, an earlier write B is added too and stays fixed: `r[layer][i] + B + e M + b`. The
    training then learns the increment, from zero. A base of the current token shows what the next
    token adds to what the model knows anyway.

    The blocks below the lowest layer run once for each piece, and a `ResidualStore` keeps their
    output. Beyond that, 8 pieces of 256 tokens at layer 22 of the embedded model take 1.6 GiB, and
    4 GiB at layer 0.

    **Arguments:**

    - `texts`: documents, cut into pieces of `options.window` tokens, each of which begins with the
        BOS if its document does.
    - `layer`: the layer to write to, or several.
    - `rank`: the rank of M, by default 64 or the model's width if that is smaller; None for a full
        matrix.
    - `source`: the token that `e` stands for: `"true"`, another name that `NextTokenPatch` takes,
        or `"zero"`, which trains only the bias.
    - `seed`: the seed of the start of M, the order of the pieces and random sources.
    - `steps`: the most steps of the optimizer to make.
    - `strength`: if given, the write is not learned. `M` is this number times the identity, without
        a bias, as in a plain patch with mode `"add"`, and the source `"zero"` writes nothing. Only
        the reader is trained, and `rank` is ignored.
    - `adapt`: `"attention"` to train updates of the matrices that make queries, keys and values,
        `"attention+mlp"` for those of the MLP too; None for no reader.
    - `adapter_rank`: the rank of each of these updates, 8 by default.
    - `base`: a write that was learned at the same layers, with the same embedding, scale and
        `first_position`.
    - `options`: options of the write, the optimizer and the evaluations.
    - `held_out`: texts for the held-out loss; by default every tenth of `texts`, or every tenth
        piece if there are few texts. The write with the lowest held-out loss is kept, penalties
        included.
    - `preserve`: with a `change_penalty`, texts on which predictions should stay as they are, such
        as the model's own from `sample_texts`. A step visits as many of their pieces as of `texts`;
        every tenth is held out.
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
    - `checkpoint`: a file to write every `save_every` steps. If it exists, training continues from
        it and gives bit for bit the same result.
    - `store`: a store to share with other trainings on the same text; by default a new one.
    - `progress`: show a progress bar over steps.

    Raises `ValueError` if options make no sense, the base belongs to another model or does not fit
    them, there is too little text, a hook is on a block that is trained through (with a `store` or
    a `checkpoint`, on any; nor may a module have another forward, or `torch.autocast` be on), a
    held-out loss is not finite (the error's `best` is then the best write so far, if there is one),
    the checkpoint belongs to another training, the model is in training mode or has a reader on
    already, or the call is, or the model was loaded, inside `torch.inference_mode`; `TypeError` if
    one text is given where several are expected, `options`, `base` or `store` is of another class,
    `strength` is not a number, or `rank`, `adapter_rank`, `steps` or `save_every` is not a whole
    number; `NotImplementedError` if the two streams do not fit the model, or its blocks have no
    matrices that can be adapted; `OSError` if the checkpoint cannot be written.
    """
    require_gradients("train_patch", bridge)
    options = TrainingOptions() if options is None else options
    require_instance("options", options, TrainingOptions)
    # A checkpoint, a file of JSON in part, does not hold numpy's numbers.
    options = replace(options, **{name: python_numbers(n) for name, n in vars(options).items()})
    if isinstance(base, TrainedPatch):
        raise TypeError("base must be the write of a trained patch: pass its .write")
    if base is not None:
        require_instance("base", base, LearnedWrite)
    if store is not None:
        require_instance("store", store, ResidualStore)
    if not (store is None and checkpoint is None) and (altered := alteration(bridge)):
        raise ValueError(
            f"{altered}, which would go into the store or checkpoint that other trainings read: "
            "undo that first, or train without a store and a checkpoint"
        )
    store = ResidualStore() if store is None else store
    plain = NextTokenPatch(layer=python_numbers(layer), strength=1.0, embedding=options.embedding)
    layers = plain.layers
    if adapt is not None and adapter_rank is None:
        adapter_rank = ADAPTER_RANK
    strength = python_numbers(strength)
    check_reader(bridge, strength, adapt, adapter_rank, options)
    require_whole_numbers(seed=seed)
    if checkpoint is not None:
        require_writable(Path(checkpoint))
    if strength is not None:
        rank = None  # a fixed write has no map whose rank could be wrong
    elif rank == "default":
        rank = min(RANK, int(bridge.cfg.d_model))
    check_write(bridge, plain, rank, source, steps, save_every)
    if base is not None:
        check_base(bridge, base, layers, adapt, options)
    if (preserve is None) != (options.change_penalty == 0):
        raise ValueError(
            "a change_penalty needs texts to preserve, and these a penalty above 0; got "
            f"{options.change_penalty} and {'none' if preserve is None else 'some'}"
        )
    if SOURCES[source].role == "no news" and adapt is None and not options.bias:
        raise ValueError(f"the source {source!r} trains only the bias, but bias is False")

    def corpora(texts: Iterable[TextOrTokens], held_out: Iterable[TextOrTokens] | None) -> Corpora:
        parts = split_corpus(
            bridge,
            texts,
            held_out,
            length=options.window,
            n_held_out=options.held_out_windows,
            prepend_bos=prepend_bos,
        )
        corpora = Corpora(*(TrainingCorpus(bridge, p, layer=layers[0], store=store) for p in parts))
        _require_two_streams(bridge, layers[0], corpora)
        return corpora

    with frozen(bridge):
        ours = corpora(texts, held_out)
        check_reach(ours.training.pieces, options, purpose="train on")
        check_reach(ours.held_out.pieces, options, purpose="hold out")
        with about("preserve"):
            preserved = None if preserve is None else corpora(preserve, None)
            if preserved is not None:
                check_reach(preserved.training.pieces, options, purpose="train on")
                check_reach(preserved.held_out.pieces, options, purpose="hold out")
        reader = None
        if adapt is not None:
            assert adapter_rank is not None
            reader = ReaderParameters(bridge, adapt, layers[0], rank=adapter_rank, seed=seed)
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
            base=base,
        )
        settings = {
            "layers": list(layers),
            "rank": rank,
            "source": source,
            "steps": steps,
            "seed": seed,
            **asdict(options),
            "bias": options.bias and strength is None,
            "model": str(bridge.cfg.model_name),
            "fingerprint": write.fingerprint,
            "config": config_hash(bridge),
            "texts": ours.training.digest(),
            "held_out_texts": ours.held_out.digest(),
        }
        if preserved is not None:
            settings["preserved_texts"] = preserved.training.digest()
            settings["preserved_held_out_texts"] = preserved.held_out.digest()
        if adapt is not None:
            settings |= {"strength": strength, "adapt": adapt, "adapter_rank": adapter_rank}
        if base is not None:
            settings["base"] = base.digest()
        settings = {name: python_numbers(value) for name, value in settings.items()}
        bound = write.patch().bind(bridge)
        parameters = WriteParameters(
            bound, ours.training, options, rank=rank, strength=strength, seed=seed
        )
        run = WriteTraining(bridge, bound, parameters, reader, ours, preserved, options, settings)
        settings = {**settings, "tokens": sum(map(len, ours.training.pieces))}
        try:
            run.to_the_end(None if checkpoint is None else Path(checkpoint), save_every, progress)
        except DivergenceError as error:
            if run.state.best_step > 0:
                error.best = _result(run, settings).write
                error.add_note(f"`best` of this error is the write of step {run.state.best_step}")
            raise
    return _result(run, settings)


def _result(run: WriteTraining, settings: dict[str, Any]) -> TrainedPatch:
    import pandas as pd

    state = run.state
    settings = {**settings, "steps_made": state.step, "best_step": state.best_step}
    write = replace(run.best_write(), settings=settings)
    return TrainedPatch(write, pd.DataFrame(state.curve), pd.DataFrame(state.held_out), settings)


def _require_two_streams(bridge: TransformerBridge, layer: int, corpora: Corpora) -> None:
    with torch.no_grad():
        pieces = (*corpora.training.pieces, *corpora.held_out.pieces)
        longest = TokenBatch.unpadded(max(pieces, key=len)[None])
        (resid,) = residuals(bridge, longest, [f"{layer}_pre"])
    require_two_streams(bridge, layer, resid, "and training needs that")
