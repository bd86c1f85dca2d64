"""The cells of a batch that a lens reads: chosen positions of every text, a piece at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities.slice import Slice

from .._progress import progress_bar
from ..drawing.labels import counted
from ..model.argument_types import python_numbers, whole_numbers
from ..model.kinds import ReadableModel
from ..model.points import FINAL, point_layer
from ..model.readout import Readout
from ..model.tokens import TokenBatch
from ..model.vocabulary import NamedTokens, token_ids
from .protocol import Lens
from .reduction import ChunkReducer
from .statistics import STATISTICS, Statistic, of_target

Progress = bool | Callable[[float], object]
"""Whether to show a bar, or a function of the share that is done; what it raises ends the work."""


class PositionError(ValueError):
    """A text has none of the positions that are asked for."""


@dataclass(frozen=True)
class Cells:
    """The cells that are read, one per entry.

    Attributes:
        row, column: the cell's place in the batch.
        place: its column in the result, which has no room for cells that are left out.
    """

    row: Int[Tensor, " row"]
    column: Int[Tensor, " row"]
    place: Int[Tensor, " row"]


def select_cells(batch: TokenBatch, positions: Any) -> Cells:
    """The cells at some of each text's own positions.

    `positions` is any argument of TransformerLens's `Slice`, or a range; padding does not count.

    Raises `PositionError` if a text has none of them, `ValueError` if they go backwards, and
    `TypeError` for anything else.
    """
    selection = _selection(positions)
    cells = []
    for row, mask in enumerate(batch.mask.cpu()):
        columns = mask.nonzero()[:, 0]
        try:
            chosen = torch.atleast_1d(selection.apply(columns))
        except IndexError as error:
            raise PositionError(
                f"positions {positions!r} do not exist in prompt {row} of {len(columns)} tokens"
            ) from error
        if chosen.numel() == 0:
            raise PositionError(
                f"positions {positions!r} leave nothing of prompt {row} of {len(columns)} tokens"
            )
        cells.append(torch.stack([torch.full_like(chosen, row), chosen, torch.arange(len(chosen))]))
    return Cells(*torch.cat(cells, dim=-1).to(batch.tokens.device))


def _selection(positions: Any) -> Slice:
    """TransformerLens's slice, which takes what it cannot read for something else or fails late."""
    wrong = TypeError(
        "positions must be a whole number, a list of these, a mask, or a slice such as (1, None); "
        f"got {positions!r:.60}"
    )
    if positions is None or isinstance(positions, Slice):
        return Slice.unwrap(positions)
    try:
        if isinstance(positions, slice):
            read = whole_range(positions)
            return Slice((read.start, read.stop, read.step))
        if isinstance(positions, tuple):  # which is a slice to TransformerLens
            return Slice(_range_parts(positions))  # type: ignore[arg-type]
        numbers = list(positions) if isinstance(positions, range) else python_numbers(positions)
        unlisted = isinstance(numbers, bool | str | bytes | Set | Mapping | Iterator)
        if unlisted or getattr(positions, "ndim", 1) > 1:
            raise wrong
        if not isinstance(numbers, Collection):
            numbers = [numbers]
        if numbers and all(isinstance(number, bool) for number in numbers):
            return Slice(np.array(numbers))
        return Slice(np.array(whole_numbers(numbers), dtype=np.int64))
    except (TypeError, OverflowError) as error:
        raise wrong from error


def whole_range(positions: slice) -> slice:
    """The slice with its parts as numbers of Python.

    Raises `TypeError` for parts that are no whole numbers, and `ValueError` for a step below 1.
    """
    return slice(*_range_parts((positions.start, positions.stop, positions.step)))


def _range_parts(parts: tuple[Any, ...]) -> tuple[int | None, ...]:
    read = tuple(part if part is None else whole_numbers([part])[0] for part in parts)
    if any(step is not None and step < 1 for step in read[2:]):
        raise ValueError(f"positions are read forwards: the step must be at least 1, got {read[2]}")
    return read


def following_tokens(
    bridge: ReadableModel,
    batch: TokenBatch,
    last: NamedTokens | None,
) -> Int[Tensor, "batch pos"]:
    """The id after each token, -1 where there is none.

    `last` names what follows the texts: one token for all, or one for each.

    Raises `ValueError` if it names another number of tokens.
    """
    following = batch.tokens.roll(-1, dims=-1)
    following = torch.where(batch.mask.roll(-1, dims=-1) & batch.mask, following, -1)
    ends = batch.mask.cumsum(-1).argmax(-1)
    rows = torch.arange(len(ends), device=ends.device)
    following[rows, ends] = -1
    if last is not None:
        following[rows, ends] = ids_of_texts(bridge, "next_token", last, len(ends)).to(ends.device)
    return following


def ids_of_texts(
    bridge: ReadableModel, name: str, tokens: NamedTokens, n_texts: int
) -> Int[Tensor, " batch"]:
    """The token of each text, where one is named for all, or one for each.

    Raises `ValueError` if the argument `name` has another number of tokens.
    """
    ids = token_ids(bridge, tokens)
    if len(ids) not in (1, n_texts):
        raise ValueError(
            f"{name} names {counted(len(ids), 'token')} for {counted(n_texts, 'text')}: name one, "
            "or one for each"
        )
    return torch.tensor(ids).expand(n_texts)


def read_cells(
    reducer: ChunkReducer,
    pieces: Iterable[tuple[int, int, Mapping[str, Float[Tensor, "part chunk d_model"]]]],
    cells: Cells,
    targets: Mapping[str, Int[Tensor, "row target"]],
    labels: tuple[str, ...],
    lens: Lens | None,
    n_layers: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Every statistic of the cells, as `[point, cell]` or `[point, cell, k]`.

    **Arguments:**

    - `reducer`: from residuals to statistics.
    - `pieces`: for each piece its first text, its first column, and its residual streams by the
        label of the point.
    - `cells`: which to read.
    - `targets`: ids to rank in each cell, `[cell, k]`, by target; -1 for no next token.
    - `labels`: the points to keep.
    - `lens`: applied below the last point; None for the identity.
    - `n_layers`: of the model.
    - `progress`: show a progress bar over cells, or call a function with the share that is done.

    Raises `ValueError` if a residual, or the lens's output for it, is not finite, if the lens
    returns another shape, or if the logits of a finite residual are not numbers.
    """
    device = reducer.readout.weight.device
    targets = {name: ids.to(device) for name, ids in targets.items()}
    collected: dict[str, Tensor] = {}
    report = progress if callable(progress) else None
    shown = report is None and bool(progress)
    with progress_bar(total=len(cells.row), shown=shown, unit="pos", desc="lens") as bar:
        done = 0.0  # in positions, of which each point is a part
        for part, residuals in _gathered(pieces, cells, reducer.rows):
            for label, residual in residuals.items():
                if lens is not None and label != FINAL:
                    residuals[label] = _mapped(lens, residual, label, n_layers)
            # A missing next token (-1) is read as token 0, and removed below.
            ids = {name: target[part].clamp(min=0) for name, target in targets.items()}
            for label, values in reducer.reduce(residuals, ids):
                place = cells.row[part], cells.column[part]
                _require_numbers(values["log_normalizer"], label, *place, reducer.readout)
                if label in labels:
                    for name, value in values.items():
                        if name not in collected:
                            shape = (len(labels), len(cells.row), *value.shape[1:])
                            collected[name] = value.new_empty(shape)
                        collected[name][labels.index(label), part] = value
                if report is not None:
                    done += len(part) / len(residuals)
                    report(done / len(cells.row))
            bar.update(len(part))
    for statistic in of_target("next"):
        collected[statistic.name].masked_fill_(targets["next"] < 0, statistic.missing)
    return {
        name: value[..., 0] if _has_one_target(STATISTICS[name]) else value
        for name, value in collected.items()
    }


def _gathered(
    pieces: Iterable[tuple[int, int, Mapping[str, Float[Tensor, "part chunk d_model"]]]],
    cells: Cells,
    rows: int,
) -> Iterator[tuple[Int[Tensor, " row"], dict[str, Float[Tensor, "row d_model"]]]]:
    """At most `rows` cells at a time, by their numbers, with their residuals by label.

    Few cells of several pieces are read together, since every reading needs the whole unembedding.
    """
    waiting: list[tuple[Tensor, dict[str, Tensor]]] = []
    for top, left, streams in pieces:
        n_texts, width, _ = next(iter(streams.values())).shape
        of_texts = (cells.row >= top) & (cells.row < top + n_texts)
        of_columns = (cells.column >= left) & (cells.column < left + width)
        here = (of_texts & of_columns).nonzero()[:, 0]
        _require_finite(streams, cells.row[here] - top, cells.column[here] - left, top, left)
        # A piece may hold none of them; an empty tensor splits into one empty part.
        for part in here.split(rows) if len(here) else ():
            if sum(len(cell) for cell, _ in waiting) + len(part) > rows:
                yield _joined(waiting)
                waiting = []
            row, column = cells.row[part] - top, cells.column[part] - left
            waiting.append((part, {label: s[row, column] for label, s in streams.items()}))
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    cells, residuals = zip(*parts, strict=True)
    return torch.cat(cells), {
        label: torch.cat([each[label] for each in residuals]) for label in residuals[0]
    }


def _has_one_target(statistic: Statistic) -> bool:
    """Whether the statistic was read for one token per cell, and so has no axis of tokens."""
    return statistic.kind in ("rank", "log_prob") and statistic.target != "watched"


def _mapped(
    lens: Lens, residual: Float[Tensor, "row d_model"], label: str, n_layers: int
) -> Float[Tensor, "row d_model"]:
    """What a lens makes of finite residuals at a point, checked."""
    mapped = lens(residual, point_layer(label, n_layers))
    shape = tuple(mapped.shape) if isinstance(mapped, Tensor) else type(mapped).__name__
    if shape != tuple(residual.shape):
        raise ValueError(
            f"the lens returned {shape} at {label} for a residual of shape "
            f"{tuple(residual.shape)}: a lens is f(residual, layer) -> residual"
        )
    if not mapped.isfinite().all():
        raise ValueError(
            f"what the lens makes of finite residuals at {label} is not finite (NaN or infinite)"
        )
    return mapped


def _require_finite(
    streams: Mapping[str, Tensor],
    row: Int[Tensor, " cell"],
    column: Int[Tensor, " cell"],
    top: int,
    left: int,
) -> None:
    """Check the residuals at these places of a piece, which begins at a text and a column."""
    finite = torch.stack([stream.isfinite().all(-1) for stream in streams.values()])
    real = torch.zeros_like(finite[0])
    real[row, column] = True
    broken = ~finite & real
    if broken.any():
        point, prompt, place = broken.nonzero()[0].tolist()
        raise ValueError(
            f"the residual stream is not finite (NaN or infinite) first at {list(streams)[point]}, "
            f"prompt {top + prompt}, column {left + place}: look for a hook that writes such "
            "values, a half-precision overflow, or padding on the left in the run that made a cache"
        )


def _require_numbers(
    log_normalizer: Float[Tensor, " row"],
    label: str,
    row: Int[Tensor, " row"],
    column: Int[Tensor, " row"],
    read: Readout,
) -> None:
    broken = ~log_normalizer.isfinite()
    if broken.any():
        first = int(broken.nonzero()[0, 0])
        raise ValueError(
            f"the logits of a finite residual are not a number, first at {label}, prompt "
            f"{int(row[first])}, column {int(column[first])}: {_likely_cause(read)}"
        )


def _likely_cause(read: Readout) -> str:
    rows = ~read.weight.isfinite().all(-1)
    if read.bias is not None:
        rows = rows | read.bias.isnan() | (read.bias == torch.inf)
    if rows.any():
        return f"the unembedding is not finite for token {int(rows.nonzero()[0, 0])}"
    dtype = str(read.weight.dtype).removeprefix("torch.")
    return f"they overflow {dtype}, load the model in a precision of wider range"
