"""Inspecting a learned write: its directions, the attention with it, the loss without it."""

from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.labels import visible
from ...intervention.learned_write import LearnedWrite
from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...model.attention_points import attention_points, has_attention_points
from ...model.embedding import embedding
from ...model.hooks import hooked, keep
from ...model.readout import readout
from ..design.kept_writes import decoded_write
from ..design.sequences import TokenSequence
from ..engine.json_values import Values, from_values
from ..engine.work_units import unit_kind
from .learned_map import (
    SingularDirections,
    identity_cosine,
    learned_map,
    participation,
    principal_axes,
    singular_directions,
    subspace_share,
    token_cosines,
)
from .position_kinds import KINDS, attention_by_kind, matched_positions, position_kinds

EVERYWHERE, WITHOUT_MATCHED, WITHOUT_OTHERS = (
    "everywhere",
    "not at matched tokens",
    "not at as many others",
)

_TOP = 6
# How many prefixes are run at once to read attention.
_PREFIXES = 16


@unit_kind("directions of a write")
def measure_directions(bridge: TransformerBridge, write: Values, n: int) -> pd.DataFrame:
    """The largest singular directions, and the tokens that they read and write.

    For each sign, `reads` are the tokens whose embeddings have the largest products with the input,
    and `writes` the model's top tokens for the output alone, read through its final norm.
    """
    learned, layer = decoded_write(write["write"]), int(write["layer"])
    matrix = learned_map(learned, layer)
    found = singular_directions(matrix, len(matrix))
    scores = _table(bridge, learned).double() @ found.inputs[:n].T
    read = readout(bridge)
    rows = []
    for index in range(min(n, len(found.values))):
        for sign in (1, -1):
            logits = read(sign * found.outputs[index])
            rows.append(
                {
                    "seed": int(write["seed"]),
                    "direction": index,
                    "value": float(found.values[index]),
                    "share": _share(found.values, index),
                    "sign": sign,
                    "reads": _tokens(bridge, sign * scores[:, index]),
                    "writes": _tokens(bridge, logits),
                }
            )
    return pd.DataFrame(rows)


@unit_kind("geometry of a write")
def measure_geometry(bridge: TransformerBridge, write: Values, n: int) -> pd.DataFrame:
    """How close the map is to simple maps: `quantity`, `value` and the value by `chance`."""
    learned, layer = decoded_write(write["write"]), int(write["layer"])
    matrix = learned_map(learned, layer)
    d_model = len(matrix)
    rank = min(int(write["rank"]) or d_model, d_model)
    found = singular_directions(matrix, n)
    every = torch.linalg.svdvals(matrix)
    # A write that was loaded is on the CPU, wherever the model is.
    table, unembedding = _table(bridge, learned), readout(bridge).weight.cpu()
    to_own_u, to_other_u = token_cosines(table, matrix, unembedding)
    to_own_e, to_other_e = token_cosines(table, matrix, embedding(bridge).weight.cpu())
    values = [
        ("size of the map", float(matrix.norm()), 0.0),
        ("directions that share the work", participation(every), float(rank)),
        ("cosine to the identity", identity_cosine(matrix), 0.0),
        ("the largest such cosine at this rank", (rank / d_model) ** 0.5, 0.0),
        ("cosine of what is written to the token's unembedding", to_own_u, to_other_u),
        ("cosine of what is written to the token's embedding", to_own_e, to_other_e),
        *_subspaces(found, table, unembedding, max(d_model // 10, 1)),
    ]
    rows = [{"quantity": q, "value": v, "chance": c} for q, v, c in values]
    return pd.DataFrame(rows).assign(seed=int(write["seed"]))


@unit_kind("attention under a write")
def measure_attention(bridge: TransformerBridge, write: Values, sequence: Values) -> pd.DataFrame:
    """Attention by kind of position while copying, of the patched layer's heads and those above.

    Each token of the second copy but the last ends two runs: one in which every position before it
    is patched, and one without a patch. Values are means over the tokens.
    """
    patch = decoded_write(write["write"]).patch(seed=int(write["seed"]))
    text = from_values(TokenSequence, sequence)
    tokens = torch.tensor(text.tokens, device=bridge.cfg.device)
    ends = range(len(tokens) - text.copied + 1, len(tokens))
    layers = range(patch.layers[0], int(bridge.cfg.n_layers))
    sums: dict[tuple[str, int], Any] = {}
    for start in range(0, len(ends), _PREFIXES):
        lengths = torch.tensor(ends[start : start + _PREFIXES], device=tokens.device)
        prefixes = tokens[: int(lengths.max())].expand(len(lengths), -1)
        mask = torch.arange(prefixes.shape[1], device=tokens.device) < lengths[:, None]
        seeds = torch.full((len(lengths),), text.number)
        hooks = patch.fwd_hooks(bridge, prefixes, attention_mask=mask, text_seeds=seeds)
        for name, used in (("clean", []), ("patched", hooks)):
            read = _last_patterns(bridge, prefixes, lengths, layers, used)
            for layer, pattern in zip(layers, read, strict=True):
                added = _summed_by_kind(pattern, tokens, lengths)
                sums[name, layer] = sums.get((name, layer), 0) + added
    rows = []
    for layer in layers:
        clean, patched = (sums[name, layer] / len(ends) for name in ("clean", "patched"))
        for head in range(len(clean)):
            for number, kind in enumerate(KINDS):
                rows.append(
                    {
                        "seed": int(write["seed"]),
                        "sequence": text.number,
                        "layer": layer,
                        "head": head,
                        "kind": kind,
                        "clean": float(clean[head, number]),
                        "patched": float(patched[head, number]),
                    }
                )
    return pd.DataFrame(rows)


@unit_kind("ablation of a write")
def measure_ablation(bridge: TransformerBridge, write: Values, sequence: Values) -> pd.DataFrame:
    """Loss on the second copy, without its first token, with the write at some positions only.

    The write is at no position ("none"), at all positions, at all except those whose pair occurs
    again, and at all except as many others, the last ones.
    """
    learned, seed = decoded_write(write["write"]), int(write["seed"])
    text = from_values(TokenSequence, sequence)
    tokens = torch.tensor([text.tokens], device=bridge.cfg.device)
    every = range(tokens.shape[1])
    matched = set(matched_positions(tokens[0]))
    others = [i for i in every if i not in matched][-len(matched) - 1 : -1]
    kept = {
        EVERYWHERE: set(every),
        WITHOUT_MATCHED: set(every) - matched,
        WITHOUT_OTHERS: set(every) - set(others),
    }
    patches = [learned.patch(seed=seed, positions=tuple(sorted(p))) for p in kept.values()]
    log_probs = teacher_forced_log_probs(
        bridge, tokens, [None, *patches], text_seeds=torch.tensor([text.number])
    )
    losses = -log_probs[:, 0, 1 - text.copied :].cpu().double().sum(-1)
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "sequence": text.number,
                "cluster": text.cluster,
                "condition": condition,
                "total": float(loss),
                "count": text.copied - 1,
            }
            for condition, loss in zip(("none", *kept), losses, strict=True)
        ]
    )


def shows_attention(bridge: TransformerBridge, layer: int) -> bool:
    """Whether the model's attention can be read from a layer up."""
    return has_attention_points(bridge, "pattern", range(layer, int(bridge.cfg.n_layers)))


def _last_patterns(
    bridge: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    lengths: Int[Tensor, " batch"],
    layers: range,
    hooks: list[Any],
) -> list[Float[Tensor, "batch head pos"]]:
    """The attention of each text's last token, layer by layer."""
    kept: dict[int, Tensor] = {}
    rows = torch.arange(len(tokens), device=tokens.device)

    def of_last(pattern: Tensor) -> Tensor:
        return pattern[rows, :, lengths - 1].float()

    names = attention_points(bridge, "pattern", layers)
    places = [(name, keep(kept, i, of_last)) for i, name in zip(layers, names, strict=True)]
    with hooked(bridge, [*hooks, *places]):
        bridge(tokens, return_type=None)
    return [kept[layer] for layer in layers]


def _summed_by_kind(
    pattern: Float[Tensor, "batch head pos"],
    tokens: Int[Tensor, " whole"],
    lengths: Int[Tensor, " batch"],
) -> Float[Tensor, "head kind"]:
    parts = [
        attention_by_kind(rows[:, :length], position_kinds(tokens[:length]))
        for rows, length in zip(pattern, lengths.tolist(), strict=True)
    ]
    return torch.stack(parts).sum(0)


def _subspaces(
    found: SingularDirections, table: Tensor, unembedding: Tensor, n: int
) -> list[tuple[str, float, float]]:
    d_model = found.inputs.shape[1]
    axes = {
        "the embedding": principal_axes(table, n),
        "the unembedding": principal_axes(unembedding, n),
    }
    return [
        (
            f"share of the {side} in the first {n} principal axes of {name}",
            subspace_share(directions, of_rows),
            n / d_model,
        )
        for side, directions in (("inputs", found.inputs), ("outputs", found.outputs))
        for name, of_rows in axes.items()
    ]


def _table(bridge: TransformerBridge, write: LearnedWrite) -> Float[Tensor, "d_vocab d_model"]:
    """The vectors that the map reads, on the CPU."""
    of = readout(bridge) if write.embedding == "W_U" else embedding(bridge)
    table = of.weight.cpu()
    return table - table.mean(0) if write.embedding == "W_E_centred" else table


def _share(values: Float[Tensor, " direction"], index: int) -> float:
    total = float(values.square().sum())
    return float(values[index].square()) / total if total else 0.0


def _tokens(bridge: TransformerBridge, scores: Float[Tensor, " d_vocab"]) -> str:
    ids = scores.topk(min(_TOP, len(scores))).indices.tolist()
    if bridge.tokenizer is None:
        return " ".join(map(str, ids))
    return " ".join(visible(bridge.tokenizer.decode([i])) for i in ids)
