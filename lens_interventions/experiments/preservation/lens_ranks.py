"""How each residual point ranks its input tokens, and tokens that are not its input."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens.reduction import default_chunk_size
from ...model.points import FINAL, select_points
from ...model.readout import readout
from ...model.residuals import residual_chunks
from ...model.tokens import TokenBatch, token_batch
from ..design.scores import score
from ..engine.work_units import unit_kind


def score_streams(
    bridge: TransformerBridge,
    streams: Sequence[Float[Tensor, "row d_model"]],
    targets: Int[Tensor, "row target"],
) -> tuple[Int[np.ndarray, "point row target"], Float[np.ndarray, "point row target"]]:
    """Ranks and log-probabilities, nats, of each row's target tokens in every stream's readout."""
    read = readout(bridge).for_rows(sum(map(len, streams)))
    size = default_chunk_size(read.weight)
    found = [
        [
            score(read(rows), ids)
            for rows, ids in zip(stream.split(size), targets.split(size), strict=True)
        ]
        for stream in streams
    ]
    rank = torch.stack([torch.cat([part.rank for part in parts]) for parts in found])
    log_prob = torch.stack([torch.cat([part.log_prob for part in parts]) for parts in found])
    return rank.cpu().numpy(), log_prob.cpu().double().numpy()


def point_streams(
    bridge: TransformerBridge, batch: TokenBatch, points: Sequence[str]
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """The residual stream of whole texts at some points."""
    chunks = [streams for _, streams in residual_chunks(bridge, batch, points)]
    return {label: torch.cat([chunk[label] for chunk in chunks], dim=1) for label in points}


def points_read(bridge: TransformerBridge, every: int) -> tuple[str, ...]:
    """Labels of the points of a run, including the last, which gives surprisals.

    The spacing is at most a third of the depth, so that the upper half has points.
    """
    n_layers = int(bridge.cfg.n_layers)
    return select_points(n_layers, every=min(every, max(1, n_layers // 3)))


@unit_kind("preservation of tokens")
def measure_tokens(
    bridge: TransformerBridge, documents: Sequence[Mapping], every: int
) -> pd.DataFrame:
    """A row per token and point: its rank and log-prob there, and in another document.

    The first token of a text is left out, because nothing comes before it and it has no surprisal.
    `elsewhere_` values are those at the other position, where the token is not the input. They are
    NaN if that position belongs to the same document or holds the same token.
    """
    batch = token_batch(bridge, [list(document["tokens"]) for document in documents])
    points = points_read(bridge, every)
    streams = point_streams(bridge, batch, points)
    row, column = batch.mask.nonzero(as_tuple=True)
    row, column = row[column > 0], column[column > 0]
    own = batch.tokens[row, column]
    half = len(own) // 2
    asked = torch.stack([own, own.roll(-half)], dim=-1)
    rows = [streams[label][row, column] for label in points]
    rank, log_prob = score_streams(bridge, rows, asked)
    # A position's reading of another position's token belongs to that token.
    elsewhere_rank = np.roll(rank[..., 1], half, axis=-1).astype(np.float64)
    elsewhere_log_prob = np.roll(log_prob[..., 1], half, axis=-1)
    unfit = (row == row.roll(half)) | (own == own.roll(half))
    elsewhere_rank[:, unfit.cpu().numpy()] = np.nan
    elsewhere_log_prob[:, unfit.cpu().numpy()] = np.nan

    before = streams[FINAL][row, column - 1]
    surprisal = -score_streams(bridge, [before], own[:, None])[1][0, :, 0]
    clusters = np.array([document["cluster"] for document in documents])
    n_points, n_rows = len(points), len(own)
    return pd.DataFrame(
        {
            "document": np.tile(clusters[row.cpu().numpy()], n_points),
            "position": np.tile(column.cpu().numpy(), n_points),
            "token": np.tile(own.cpu().numpy(), n_points),
            "surprisal": np.tile(surprisal, n_points),
            "point": np.repeat(np.arange(n_points), n_rows),
            "label": np.repeat(np.array(points), n_rows),
            "rank": rank[..., 0].ravel(),
            "log_prob": log_prob[..., 0].ravel(),
            "elsewhere_rank": elsewhere_rank.ravel(),
            "elsewhere_log_prob": elsewhere_log_prob.ravel(),
        }
    )


@unit_kind("preservation of template words")
def measure_templates(
    bridge: TransformerBridge, items: Sequence[Mapping], every: int
) -> pd.DataFrame:
    """A row per template and point: the word at its first occurrence, and its copy where it is due.

    `log_rank` is the mean of log(1 + rank) over the word's tokens at its first occurrence, and
    `log_prob` the mean of their log-probabilities there. `copy_log_prob` is the log-probability of
    the whole word at its second occurrence.
    """
    texts = [[*item["prefix"], *item["word"]] for item in items]
    batch = token_batch(bridge, texts)
    points = points_read(bridge, every)
    streams = point_streams(bridge, batch, points)
    row = torch.tensor([i for i, item in enumerate(items) for _ in item["word"]])
    first = torch.tensor([p for item in items for p in item["first"]])
    second = torch.tensor(
        [len(item["prefix"]) + n for item in items for n in range(len(item["word"]))]
    )
    at_first = [streams[label][row, first] for label in points]
    own = batch.tokens[row, first][:, None]
    rank, log_prob = score_streams(bridge, at_first, own)
    at_second, due = streams[FINAL][row, second - 1], batch.tokens[row, second]
    _, copied = score_streams(bridge, [at_second], due[:, None])
    item_of = row.numpy()
    sizes = np.bincount(item_of, minlength=len(items))

    def means(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " item"]:
        return np.bincount(item_of, values, minlength=len(items)) / sizes

    copy_log_prob = means(copied[0, :, 0]) * sizes
    frames = [
        pd.DataFrame(
            {
                **{name: [item[name] for item in items] for name in ITEM_COLUMNS},
                "pieces": sizes,
                "copy_log_prob": copy_log_prob,
                "point": index,
                "label": label,
                "log_rank": means(np.log1p(rank[index, :, 0])),
                "log_prob": means(log_prob[index, :, 0]),
            }
        )
        for index, label in enumerate(points)
    ]
    return pd.concat(frames, ignore_index=True)


ITEM_COLUMNS = ("item", "group", "frame", "said", "frequency", "distance")
