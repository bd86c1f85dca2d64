"""Search by gradients for the likeliest continuation of a prompt, or the best by any objective."""

import operator
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from ..lens.distributions import log_probs_of
from ..model.argument_types import require_instance, require_whole_numbers
from ..model.exclusive import exclusive
from ..model.gradients import frozen, require_gradients
from ..model.points import FINAL
from ..model.precision import widest
from ..model.residuals import residuals
from ..model.tokens import TextOrTokens, TokenBatch, is_text, token_batch
from ..model.vocabulary import NamedTokens, nameless_ids, special_ids, token_ids
from .continuations import Continuations, continuations
from .evaluations import Evaluations
from .objectives import Objective, ObjectiveName, maximised
from .options import SearchOptions
from .relaxation import RELAXATIONS, RelaxedMethod, ascend, first_scores
from .result import SequenceSearch
from .swaps import swap_tokens

SWAPS: Literal["swaps"] = "swaps"
"""The method without an ascent on distributions."""

_BUDGET_PER_TOKEN = 256


@exclusive
@torch.no_grad()
def search_sequence(
    bridge: TransformerBridge,
    prompt: TextOrTokens,
    n_tokens: int,
    *,
    objective: ObjectiveName | Objective = "likelihood",
    ending: TextOrTokens | None = None,
    method: RelaxedMethod | Literal["swaps"] = "exponentiated",
    budget: int | None = None,
    start: Int[Tensor, "restart new"] | Sequence[Sequence[int]] | None = None,
    exclude: NamedTokens | None = None,
    options: SearchOptions | None = None,
    seed: int = 0,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> SequenceSearch:
    """Search for `n_tokens` after a prompt that maximise an objective, such as their likelihood.

    Unrolled sampling is one long function: every position predicts the next, and all tokens go in
    at once. If a distribution over tokens replaces each token, and the model reads expected
    embeddings, this function is differentiable. So the search first climbs on the expected
    log-likelihood plus an entropy that is annealed to nothing. Then it takes the likeliest token of
    each position and climbs on real tokens: it swaps the token that promises most to first order,
    and verifies the swap exactly (coordinate search as in GCG, Zou et al. 2023). It always keeps
    the best real tokens so far.

    **Arguments:**

    - `prompt`: one text, or the ids of one.
    - `n_tokens`: how many tokens to search for.
    - `objective`: `"likelihood"`, that of these tokens after the prompt; `"ending"`, the likelihood
        of `ending` after prompt and tokens; or a function that torch can differentiate, from logits
        `[batch, row, d_vocab]` and tokens `[batch, text, d_vocab]` to a number for each text. These
        tokens are the searched ones and the ending, as distributions during the ascent and as
        one-hot rows afterwards. Row j predicts token j, and one more row predicts the token after
        the text.
    - `ending`: text or ids that follow the searched tokens.
    - `method`: how to climb on distributions. `"exponentiated"` multiplies them by the exponential
        of the gradient; `"softmax"` moves the scores of a softmax with Adam. With
        `"straight_through"` the model reads the likeliest token of each position, with `"gumbel"` a
        sampled one, and the gradient is taken as if it read the distribution. `"swaps"` only swaps.
    - `budget`: how many forward tokens the search may take, by default 256 for each searched token.
        A token that goes through the model counts 1, and 3 if a backward pass follows.
    - `start`: `[restart, new]`, ids to start from, such as those of `generate`; by default noise,
        or random tokens for `"swaps"`.
    - `exclude`: tokens that the sequence must not contain; by default the tokenizer's special
        tokens, and ids for which it has no token.
    - `options`: number of restarts, learning rate and others.
    - `seed`: the seed of everything random.
    - `prepend_bos`: whether a text begins with a BOS token; by default as `bridge.to_tokens` does.
    - `progress`: show a bar over the budget.

    **Returns:** a `SequenceSearch`.

    Raises `ValueError` if there is more than one prompt, the text does not fit the model's context,
    the budget does not pay for one evaluation of each restart, an argument makes no sense, the
    objective has no gradient, a hook is on the embedding, the final norm or the unembedding, or the
    call is, or the model was loaded, inside `torch.inference_mode`; `NotImplementedError` if the
    model does more to an embedding than multiply it; `TypeError` if `start`, `n_tokens`, `budget`
    or `seed` is not of integers.
    """
    require_gradients("search_sequence", bridge)
    options = SearchOptions() if options is None else options
    require_instance("options", options, SearchOptions)
    require_whole_numbers(n_tokens=n_tokens, seed=seed)
    n_tokens = operator.index(n_tokens)
    budget = _BUDGET_PER_TOKEN * n_tokens if budget is None else budget
    require_whole_numbers(budget=budget)
    budget = operator.index(budget)
    methods = (*get_args(RelaxedMethod), SWAPS)
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}; got {method!r}")
    given = _one_text(bridge, prompt, "prompt", prepend_bos)
    no_bos = False if is_text(ending) else None
    after = given[:0] if ending is None else _one_text(bridge, ending, "ending", no_bos)
    _check_length(bridge, len(given), n_tokens, len(after))
    wanted = maximised(objective, n_tokens, len(after))
    model = continuations(bridge, given, after, n_tokens)
    allowed = _allowed(bridge, model, exclude)
    begin = None if start is None else _start(start, n_tokens, allowed)
    restarts = options.restarts if begin is None else len(begin)
    scores = first_scores(
        begin, (restarts, n_tokens, model.d_vocab), options, seed, given.device
    ).masked_fill(~allowed, -torch.inf)
    with (
        frozen(bridge),
        progress_bar(total=budget, shown=progress, unit="token", desc="search") as bar,
    ):
        evaluations = Evaluations(
            model,
            wanted,
            budget,
            best_tokens=scores.argmax(-1) if begin is None else begin,
            best_values=torch.full(
                (restarts,), -torch.inf, dtype=widest(given.device), device=given.device
            ),
            bar=bar,
        )
        _search(evaluations, method, options, scores, allowed, seed)
    settings = {
        "objective": objective,
        "method": method,
        "budget": budget,
        "seed": seed,
        **asdict(options),
        "restarts": restarts,
    }
    return _result(bridge, given, evaluations, settings)


def _search(
    evaluations: Evaluations,
    method: str,
    options: SearchOptions,
    scores: Float[Tensor, "restart new d_vocab"],
    allowed: Bool[Tensor, " d_vocab"],
    seed: int,
) -> None:
    restarts = torch.arange(len(scores), device=scores.device)
    once = len(scores) * evaluations.cost
    if evaluations.budget < once:
        raise ValueError(
            f"{len(scores)} restarts of {evaluations.cost} forward tokens each do not fit a budget "
            f"of {evaluations.budget}: give at least {once}"
        )
    first = evaluations.best_tokens.clone()
    evaluations.keep(restarts, first, evaluations.score(first), "start")
    if method != SWAPS:
        ascend(
            evaluations,
            RELAXATIONS[method],
            options,
            scores=scores,
            allowed=allowed,
            forward_tokens=int(evaluations.left * options.relaxed_share),
            seed=seed,
        )
    swap_tokens(evaluations, allowed, options.candidates, seed)


def _one_text(
    bridge: TransformerBridge, given: TextOrTokens, name: str, prepend_bos: bool | None
) -> Int[Tensor, " pos"]:
    batch = token_batch(bridge, given, prepend_bos=prepend_bos)
    if len(batch.tokens) != 1:
        raise ValueError(f"{name} must be one text, got {len(batch.tokens)}: make a call for each")
    return batch.tokens[0]


def _check_length(bridge: TransformerBridge, n_given: int, n_tokens: int, n_ending: int) -> None:
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    length, context = n_given + n_tokens + n_ending, int(bridge.cfg.n_ctx)
    if length > context:
        room = context - n_given - n_ending
        advice = f"search for {room} at most" if room > 0 else "shorten the prompt or the ending"
        raise ValueError(
            f"{length} tokens of prompt, sequence and ending do not fit the model's context of "
            f"{context}: {advice}"
        )


def _allowed(
    bridge: TransformerBridge, model: Continuations, exclude: NamedTokens | None
) -> Bool[Tensor, " d_vocab"]:
    allowed = model.read.possible()
    if exclude is None:
        ids = [*special_ids(bridge), *nameless_ids(bridge, len(allowed))]
    else:
        ids = token_ids(bridge, exclude)
    allowed[[token for token in ids if token < len(allowed)]] = False
    if int(allowed.sum()) < 2:
        raise ValueError("exclude leaves fewer than two tokens to choose from: exclude fewer")
    return allowed


def _start(
    start: Int[Tensor, "restart new"] | Sequence[Sequence[int]],
    n_tokens: int,
    allowed: Bool[Tensor, " d_vocab"],
) -> Int[Tensor, "restart new"]:
    begin = torch.as_tensor(start, device=allowed.device)
    if begin.is_floating_point() or begin.dtype == torch.bool:
        raise TypeError(f"start must be integer token ids, got {begin.dtype}")
    begin = begin.long()
    if begin.ndim != 2 or begin.shape[1] != n_tokens or len(begin) == 0:
        raise ValueError(
            f"start must be ids of shape [restart, {n_tokens}], got shape {tuple(begin.shape)}"
        )
    inside = (begin >= 0) & (begin < len(allowed))
    if not inside.all() or not allowed[begin].all():
        wrong = begin[~inside | ~allowed[begin.clamp(0, len(allowed) - 1)]].tolist()
        raise ValueError(
            f"start holds {wrong[:3]}, which the sequence must not contain: choose others, or "
            "exclude fewer tokens with exclude="
        )
    return begin.clone()


def _result(
    bridge: TransformerBridge,
    given: Int[Tensor, " prompt"],
    evaluations: Evaluations,
    settings: dict[str, object],
) -> SequenceSearch:
    """The best sequence of each restart, run in whole texts of real tokens."""
    import pandas as pd

    found = evaluations.best_tokens
    text = evaluations.model.with_ending(found)
    ids = torch.cat([given.expand(len(text), -1), text], dim=1)
    whole = TokenBatch.unpadded(ids)
    (final,) = residuals(bridge, whole, [FINAL])
    scored: list[tuple[Tensor, Tensor]] = []
    for row, after in zip(text.split(1), final[:, len(given) - 1 :].split(1), strict=True):
        logits = evaluations.model.read(after)
        scored.append(
            (evaluations.objective.of_tokens(logits, row), log_probs_of(logits[:, :-1], row))
        )
    values, log_probs = (torch.cat(parts) for parts in zip(*scored, strict=True))
    order = values.argsort(descending=True)
    tokens = found[order].cpu()
    decode = None if bridge.tokenizer is None else bridge.tokenizer.decode
    return SequenceSearch(
        tokens=tokens,
        texts=None if decode is None else tuple(map(decode, tokens.tolist())),
        log_probs=log_probs[order].cpu(),
        values=values[order].cpu(),
        evaluations=evaluations.used,
        history=pd.DataFrame(evaluations.history),
        settings=settings,
    )
