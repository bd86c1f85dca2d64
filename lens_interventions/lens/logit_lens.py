"""The logit lens: what the model would predict if it stopped at a residual point.

`lens(l, i) = softmax(unembed(ln_final(T_l(r[l][i]))))` with `T_l` the identity, from the post
"interpreting GPT: the logit lens" (nostalgebraist, 2020), or a fitted map, as in the tuned lens
(Belrose et al. 2023).
"""

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.tools.analysis import JacobianLens

from ..model.argument_names import instead_of
from ..model.argument_types import require_counts_or_none, require_whole_numbers
from ..model.chat import Message, text_or_messages
from ..model.exclusive import exclusive
from ..model.kinds import ReadableModel
from ..model.points import FINAL, INPUT, PointSelection, select_points
from ..model.readout import Norm, readout, refuse_readout_hooks
from ..model.residuals import residual_pieces
from ..model.tokens import TextOrTokens, TokenBatch, token_batch
from ..model.user_hooks import moved_right
from ..model.vocabulary import NamedTokens, token_ids, token_strings
from .activation_cache import cached_batch, cached_residuals
from .cells import Cells, Progress, following_tokens, read_cells, select_cells
from .protocol import Lens, bound_lens, lens_name
from .recorded_streams import RecordedStreams
from .reduction import ChunkReducer, default_chunk_size
from .statistics import STATISTICS, Divergence, of_target, related
from .trajectory import Trajectory


@instead_of(
    layers="points=, which takes numbers of layers",
    apply_ln="norm='full' or 'pre_affine'",
)
@exclusive
@torch.no_grad()
def logit_lens(
    bridge: ReadableModel,
    text_or_tokens: TextOrTokens | ActivationCache | RecordedStreams | None = None,
    *,
    messages: Sequence[Message] | Sequence[Sequence[Message]] | None = None,
    tokens: Tensor | None = None,
    attention_mask: Tensor | None = None,
    prepend_bos: bool | None = None,
    points: PointSelection = None,
    every: int = 1,
    include_input: bool = True,
    incl_mid: bool = False,
    positions: Any = None,
    watch: NamedTokens = (),
    next_token: NamedTokens | None = None,
    compare_with: str | int = "final",
    divergences: Sequence[Divergence] = ("kl",),
    top_k: int = 5,
    norm: Norm = "full",
    lens: Lens | JacobianLens | None = None,
    chunk_size: int | None = None,
    progress: Progress = False,
) -> Trajectory:
    """Read every residual point of a run through the model's own readout.

    The last point reproduces the model's logits (its log-probabilities in compatibility mode).
    Hooks on the bridge act on what is read, so under `with bridge.hooks(fwd_hooks=...)` the lens
    reads the patched activations. Hooks on the final norm and the unembedding are refused.

    **Arguments:**

    - `bridge`: any decoder that TransformerLens boots, or a `HookedTransformer` of its version 3.9.
    - `text_or_tokens`: a text, a list of texts of any lengths, token ids, or an `ActivationCache`
        of `run_with_cache`, which holds `hook_resid_pre` or `hook_resid_post` of the blocks at all
        positions. An input point that it lacks is computed from the tokens, without hooks. After a
        run with hooks on `hook_resid_pre`, such as those of a patch, it must hold `hook_resid_pre`:
        the `hook_resid_post` below is the stream before these hooks. `generate` passes the
        `RecordedStreams` of its steps.
    - `messages`: instead of a text, a conversation, `[{"role": "user", "content": "Hello"}]`, or
        several, laid out by the tokenizer's chat template. The template begins the answer, or
        ends the last message if that is the assistant's.
    - `tokens`: the ids that a cache was made from, if it does not hold them itself
        (`embed.hook_in`), or was converted to floats that round them. In the first case they cannot
        be checked, so make sure that they are the right ones.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens, for an id tensor (or `tokens`) that
        is padded. A result has its padding on the right, whatever side it was on; `positions=-1`
        reads every text's last token.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `points`, `every`, `include_input`, `incl_mid`: which residual points to read; see
        `lens_interventions.select_points`.
    - `positions`: which of each text's own positions to read, as in TransformerLens's `Slice`;
        padding does not count, so -1 is every text's last token.
    - `watch`: tokens to follow through the points: `" plasma"`, or ids.
    - `next_token`: the token that follows the text, one for all texts or one for each. Without it
        the last position has no next token.
    - `compare_with`: the point that `kl_compare` and `compare_rank` refer to: `"final"`, `"input"`,
        a label or an index.
    - `divergences`: `"kl"` is KL(reference ‖ point), `"kl_reverse"` KL(point ‖ reference), `"js"`
        the Jensen-Shannon divergence; the last two cost a pass over the vocabulary for each point.
    - `top_k`: how many of the likeliest tokens to keep.
    - `norm`: `"full"`, or `"pre_affine"` to read after the final norm but before its learned
        point-wise part, as the post does.
    - `lens`: a fitted lens, TransformerLens's `JacobianLens`, or any
        `f(residual, layer) -> residual`, applied below the last point.
    - `chunk_size`: how many rows of logits are held at a time; by default as many as fit into 24
        MiB, but at least 64, or on CUDA as many as fit into a part of the free memory.
    - `progress`: whether to show a progress bar over chunks; or a function of the share that is
        done, from 0 to 1, which is called after each point of each chunk. An error that it raises
        ends the reading.

    **Returns:** a `Trajectory`.

    Raises `NotImplementedError` if the model is recurrent or not a causal decoder; `ValueError` if
    its logits are not the final norm and the unembedding of its last residual, if a bridge is in
    training mode, if a hook is on the final norm or the unembedding, or anywhere while there is
    padding on the left, if the lens belongs to other weights, if an option or the text does not fit
    the model, or if an activation is not finite or its logits are not numbers; `TypeError` if the
    input is neither text nor ids, `top_k`, `chunk_size` or `every` is not a whole number, a point
    is neither a label nor a number, a lens cannot be called, or the model is of another kind.
    """
    read = readout(bridge, norm=norm)
    refuse_readout_hooks(bridge)
    given: TextOrTokens | ActivationCache | RecordedStreams = text_or_messages(
        bridge, text_or_tokens, messages
    )
    lens = bound_lens(bridge, lens)
    n_layers = int(bridge.cfg.n_layers)
    labels = select_points(
        n_layers, points, every=every, include_input=include_input, incl_mid=incl_mid
    )
    compare = _reference_label(compare_with, n_layers)
    _check_options(divergences, top_k, chunk_size, int(bridge.cfg.d_vocab))
    needed = select_points(n_layers, [*labels, FINAL, INPUT, compare])
    batch, pieces = _streams(
        bridge,
        given,
        needed,
        tokens=tokens,
        attention_mask=attention_mask,
        prepend_bos=prepend_bos,
    )
    watched = token_ids(bridge, watch)
    following = following_tokens(bridge, batch, next_token)
    cells = select_cells(batch, positions)
    chunk = operator.index(chunk_size) if chunk_size else default_chunk_size(read.weight)
    references = {"final": FINAL, "input": INPUT}
    if compare != FINAL:
        references["compare"] = compare
    reducer = ChunkReducer(
        read.for_rows(len(needed) * len(cells.row)),
        min(chunk, len(needed) * len(cells.row)),
        k=top_k,
        divergences=divergences,
        references=references,
    )
    targets = {
        "input": batch.tokens[cells.row, cells.column][:, None],
        "next": following[cells.row, cells.column][:, None],
        "watched": torch.tensor(watched, dtype=torch.long).expand(len(cells.row), -1),
    }
    statistics = read_cells(reducer, pieces, cells, targets, labels, lens, n_layers, progress)
    if compare == FINAL:
        for statistic in of_target("compare"):
            same = related(statistic.kind, "final").name
            if same in statistics:
                statistics[statistic.name] = statistics[same]
    return _trajectory(
        bridge,
        batch,
        following,
        cells,
        labels,
        statistics,
        watched=watched,
        compare_with=compare,
        settings={
            "model": str(bridge.cfg.model_name),
            "norm": norm,
            "lens": "logit lens" if lens is None else lens_name(lens),
        },
    )


def _streams(
    bridge: ReadableModel,
    given: TextOrTokens | ActivationCache | RecordedStreams,
    labels: Sequence[str],
    *,
    tokens: Tensor | None,
    attention_mask: Tensor | None,
    prepend_bos: bool | None,
) -> tuple[
    TokenBatch, Iterator[tuple[int, int, Mapping[str, Float[Tensor, "part chunk d_model"]]]]
]:
    """The tokens of what is given, and its residual streams in pieces, as `read_cells` wants them.

    The other arguments are those of `logit_lens`.
    """
    if isinstance(given, ActivationCache):
        if prepend_bos is not None:
            raise ValueError(
                f"prepend_bos={prepend_bos} goes with a text; the tokens of a cache are given: "
                "leave it out"
            )
        batch = cached_batch(bridge, given, tokens, attention_mask)
        return batch, iter([(0, 0, cached_residuals(bridge, given, batch, labels))])
    if (
        isinstance(given, Mapping)
        and "input_ids" not in given
        and all(isinstance(value, Tensor) for value in given.values())
    ):
        raise TypeError(
            f"expected an ActivationCache, got a {type(given).__name__} of "
            f"{len(given)} activations: wrap it, ActivationCache(activations, bridge), or "
            "leave out return_cache_object=False"
        )
    if tokens is not None:
        raise ValueError("tokens= goes with an ActivationCache; pass the tokens themselves")
    if isinstance(given, RecordedStreams):
        return given.batch, iter([(0, 0, given.at(labels))])
    batch = token_batch(bridge, given, prepend_bos=prepend_bos, attention_mask=attention_mask)
    batch = moved_right(bridge, batch)
    return batch, residual_pieces(bridge, batch, labels)


def _reference_label(point: str | int, n_layers: int) -> str:
    if not isinstance(point, str | SupportsIndex):
        raise TypeError(
            "compare_with must be 'final', 'input', a label or an index of a point, got "
            f"{point!r:.60}"
        )
    return select_points(n_layers, [point])[0]


def _check_options(
    divergences: Sequence[str], top_k: int, chunk_size: int | None, d_vocab: int
) -> None:
    if (
        isinstance(divergences, str)
        or not isinstance(divergences, Collection)
        or not all(each in get_args(Divergence) for each in divergences)
        or "kl" not in divergences
    ):
        raise ValueError(
            f"divergences must be a list with 'kl', and 'kl_reverse' and 'js' if wanted; got "
            f"{divergences!r}"
        )
    require_counts_or_none(chunk_size=chunk_size)
    require_whole_numbers(top_k=top_k)
    if not 1 <= top_k <= d_vocab:
        raise ValueError(f"top_k must be between 1 and the vocabulary size {d_vocab}, got {top_k}")


def _trajectory(
    bridge: ReadableModel,
    batch: TokenBatch,
    following: Int[Tensor, "batch pos"],
    cells: Cells,
    labels: tuple[str, ...],
    collected: Mapping[str, Float[Tensor, "point row *rest"] | Int[Tensor, "point row *rest"]],
    *,
    watched: list[int],
    compare_with: str,
    settings: Mapping[str, Any],
) -> Trajectory:
    """Lay out the rows as `[point, batch, pos]`, padded on the right."""
    row, column, place = cells.row.cpu(), cells.column.cpu(), cells.place.cpu()
    shape = (len(batch.tokens), int(place.max()) + 1)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[row, place] = True

    def laid_out(name: str, values: Tensor) -> Tensor:
        filler, full_shape = STATISTICS[name].missing, (len(labels), *shape, *values.shape[2:])
        out = torch.full(full_shape, filler, dtype=values.dtype)
        out[:, row, place] = values.cpu()
        return out

    def of_tokens(values: Tensor) -> Tensor:
        out = torch.full(shape, -1)
        out[row, place] = values.cpu()[row, column]
        return out

    tokens, next_tokens = of_tokens(batch.tokens), of_tokens(following)
    statistics: dict[str, Any] = {
        name: laid_out(name, values) for name, values in collected.items()
    }
    ids = {*tokens.unique().tolist(), *next_tokens.unique().tolist(), *watched}
    ids |= set(statistics["top_ids"].unique().tolist())
    if not watched:
        for statistic in of_target("watched"):
            del statistics[statistic.name]
    return Trajectory(
        points=labels,
        tokens=tokens,
        next_tokens=next_tokens,
        positions=of_tokens(batch.positions),
        mask=mask,
        vocab=token_strings(bridge, ids - {-1}),
        watched=tuple(watched),
        compare_with=compare_with,
        settings=settings,
        **statistics,
    )
