"""The patch: the true next token, written into the residual stream where it is known."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..lens.affine import AffineLens
from ..lens.jacobian import JacobianTransport
from ..lens.protocol import bound_lens
from ..model.embedding import Embedding, embedding
from ..model.exclusive import exclusive
from ..model.hooks import Hook, change_layers, require_tokens
from ..model.kinds import ReadableModel
from ..model.points import require_blocks
from ..model.readout import readout, refuse_readout_hooks
from ..model.tokens import TextOrTokens, token_batch
from ..model.user_warnings import warn_user
from .bound_patch import BoundPatch
from .known_text import KnownText
from .mean_residuals import mean_residuals
from .patch_fields import PatchFields
from .sources import BackPatch
from .unpatched import with_unpatched

_hooks_of_patches: WeakSet[Callable[..., object]] = WeakSet()


@dataclass(frozen=True, kw_only=True)
class NextTokenPatch(PatchFields):
    """Move the residual at `layer` toward the embedding of the token that really comes next.

    For every position i whose next token is known, with `r = r[layer][i]`, `a` the strength, `s`
    the scale and `e` the embedding of what the source says (`x[i+1]`, unless it is a control):

    - `"interpolate"`: `r <- (1 - a) r + a s e`
    - `"add"`: `r <- r + a s e`
    - `"correct"`: `r <- r + a s (e - E_{v ~ lens} e(v))`, with the lens at `layer`. If the source
        is a named control, `s` is chosen to move the residual as far as `x[i+1]` would.

    The position that makes the prediction has no known next token and is never patched, so nothing
    leaks. The gate and `"correct"` read the lens on the stream that arrives at the layer; with
    several layers, that stream carries the patches made below.

    Attributes:
        layer: the block whose incoming residual is patched, or several blocks, patched from the
            lowest to the highest.
        strength: `a`; 0 changes nothing, 1 interpolates all the way. A negative strength moves the
            residual away from `e`, or takes out what a positive one would put in.
        mode: one of the formulas above, or a function such as those in `modes`.
        scale: `"raw"` for `s = 1`, `"norm"` for `s = |r| / |e|`, `"deviation"` for
            `s = |r - m| / |e|`, with m the layer's mean residual on bundled prose.
        embedding: `"W_E"`, rows as the model feeds them; `"W_E_centred"`, the same less their mean
            over the vocabulary, which tokens have in common; `"W_U"`, columns of the unembedding;
            or `"lens"`, columns of the unembedding that the inverse of the lens's map carries back
            to the layer.
        positions: `"all"`; `"generated"`, those whose next token was not in the prompt; or the
            positions themselves, counted from the first token.
        first_position: positions below it are never patched. 1 spares the first token of a text,
            where many models park attention in a residual far longer than the others; patched, it
            tests the model's plumbing. It is counted in each piece of a text that is read in
            pieces.
        window: if given, each prediction sees only the last `window` known positions patched, and
            older ones without a patch.
        gate: if given, only positions whose true next token was at least this surprising, in nats,
            are patched.
        gate_on: which prediction the gate compares: `"lens"`, the lens at the layer; or `"output"`,
            the model's own prediction without the patch, which takes an extra run.
        source: `"true"`, or the name of a control in the registry of `sources`: `"random"`,
            `"shuffled"`, `"current"`, `"guess"`, `"direction"`, `"previous"`, `"average"` and
            `"zero"`; a `BackPatch`; or a function of a `PatchSite` such as those in `sources`.
        seed: the seed of random sources.
        lens: the lens that the gate, `"correct"` and `"guess"` read: a fitted one,
            TransformerLens's `JacobianLens` or any `f(residual, layer) -> residual`; by default the
            logit lens.

    Raises `ValueError` for an unknown name, a number that makes no sense, or a layer, position or
    window that is none; `TypeError` for a strength or gate that is not a number, or a seed that is
    not a whole number.
    """

    @exclusive
    def bind(self, bridge: ReadableModel) -> BoundPatch:
        """The patch on one model, ready to be applied to its residuals.

        Raises `ValueError` if the model does not have one of the layers or is in training mode, the
        lens or a learned write belongs to other weights, the model's logits are not read off its
        last residual, `scale` is `"deviation"` and the bridge has no tokenizer, or a hook is on the
        final norm or the unembedding, through which the patch reads the lens or the model's output;
        `NotImplementedError` if the model is recurrent or not a causal decoder, or if it transforms
        its embeddings before the first block and `embedding` is `"W_E"` or `"W_E_centred"`.
        """
        return self._bind(bridge, functools.partial(embedding, bridge))

    def _bind(self, bridge: ReadableModel, token_embedding: Callable[[], Embedding]) -> BoundPatch:
        require_patch_fits(bridge, self)
        read = readout(bridge)
        if self.reads_lens or self.gate_on == "output":
            refuse_readout_hooks(bridge)
        read_in = self.embedding in ("W_E", "W_E_centred")
        table = token_embedding() if read_in else Embedding(read.weight, 1.0)
        if self.embedding == "W_E_centred":
            table = replace(table, centred=True)
        lens = bound_lens(bridge, self.lens)
        tables = dict.fromkeys(self.layers, table)
        if self.embedding == "lens" and isinstance(lens, AffineLens | JacobianTransport):
            tables = {
                layer: replace(table, carry=lens.inverse(layer).to(table.weight))
                for layer in self.layers
            }
        means: dict[int, Tensor] = {}
        if self.scale == "deviation":
            of_layers = mean_residuals(bridge).to(table.weight)
            means = {layer: of_layers[layer] for layer in self.layers}
        return BoundPatch(self, tables, read, lens, means)

    @exclusive
    def fwd_hooks(
        self,
        bridge: ReadableModel,
        text_or_tokens: TextOrTokens,
        *,
        attention_mask: Tensor | None = None,
        prepend_bos: bool | None = None,
        prompt_length: int | Int[Tensor, " batch"] | None = None,
        text_seeds: Int[Tensor, " batch"] | None = None,
    ) -> list[Hook]:
        """Hooks for `bridge.hooks` and `run_with_hooks` on exactly these tokens.

        For a cache, run `bridge.run_with_cache(tokens)` inside `with bridge.hooks(fwd_hooks=...)`:
        by itself it takes no hooks, and passes over the argument.

        Every position but a text's last is patched, so that **the logits at the last position** are
        what a sampler computes. At earlier positions they are not, because each was patched with
        the very token that it predicts; for all positions at once use `teacher_forced_logits`. With
        `gate_on="output"` or `BackPatch`, making the hooks runs the bridge once without the patch.

        **Arguments:**

        - `bridge`: a bridge, or a `HookedTransformer` of TransformerLens 3.9.
        - `text_or_tokens`: the input that the bridge will run on. For texts of different lengths,
            pass the token tensor that you padded, so that hooks and model agree about the padding.
        - `attention_mask`: `[batch, pos]`, nonzero at real tokens, if there is padding.
        - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens`
            does.
        - `prompt_length`: how many tokens of each text were given; required for
            `positions="generated"`.
        - `text_seeds`: an integer for each text, so that each text draws its own random tokens.

        Raises `ValueError` if texts have different lengths and no `attention_mask` is given,
        `prompt_length` exceeds a text, the patch does not fit the bridge, or making the hooks runs
        the bridge while it has hooks and there is padding on the left. The hooks raise it in
        a run on other tokens. A run that begins above the embedding (`start_at_layer`) does not
        know its tokens and is not checked. Warns if no text has one of the patch's positions.
        """
        batch = token_batch(
            bridge, text_or_tokens, prepend_bos=prepend_bos, attention_mask=attention_mask
        )
        if batch.padded and attention_mask is None:
            raise ValueError(
                "texts of different length: pass the padded token tensor that the bridge will be "
                "run on, and its attention_mask"
            )
        warn_if_out_of_reach(self, batch.lengths)
        text = KnownText.from_batch(batch, prompt_length=prompt_length, text_seeds=text_seeds)
        with torch.no_grad():
            text = with_unpatched(bridge, text, [self])
        bound, positions = self.bind(bridge), text.column_positions()

        def patched(
            resid: Float[Tensor, "batch pos d_model"], *, layer: int
        ) -> Float[Tensor, "batch pos d_model"]:
            if resid.shape[:2] != positions.shape:
                raise ValueError(
                    f"the hooks were made for tokens of shape {tuple(positions.shape)}, but the "
                    f"model runs on {tuple(resid.shape[:2])}: make hooks for those tokens, or, to "
                    "write text, pass the patch to li.generate"
                )
            return bound(resid, layer=layer, position=positions, text=text)

        hooks = change_layers(self.layers, patched)
        _hooks_of_patches.update(function for _, function in hooks)
        return [require_tokens(bridge, batch), *hooks]

    def to_json(self) -> str:
        """The patch as a JSON object, in which an infinite gate is `Infinity`, as in Python.

        Raises `ValueError` if mode or source is a function, or if the patch has a lens.
        """
        for name in ("mode", "source", "lens"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"{name} is {value!r}, which JSON cannot hold: save the patch "
                    f"without it, `dataclasses.replace(patch, {name}=...)`, and set it again"
                )
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> "NextTokenPatch":
        """The patch that `to_json` wrote.

        Raises `ValueError` if this is no text of a JSON object, a field is unknown or missing, or a
        field makes no sense, and `TypeError` if what should be a number is something else.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, TypeError):
            values = None
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object with the fields of a patch, got {text!r:.60}")
        known = {field.name: field.default is MISSING for field in fields(cls)}
        missing = [name for name, required in known.items() if required and name not in values]
        unknown = [name for name in values if name not in known]
        if missing or unknown:
            raise ValueError(
                f"a patch has the fields {', '.join(known)}; the JSON lacks {missing} and has "
                f"{unknown} besides"
            )
        return cls(**values)


def listed(
    patch: NextTokenPatch | Sequence[NextTokenPatch | None] | None,
) -> tuple[NextTokenPatch | None, ...]:
    """One patch, or several, in a tuple; None is the model without a patch.

    Raises `TypeError` if something else is given.
    """
    given = patch if isinstance(patch, Sequence) and not isinstance(patch, str | bytes) else [patch]
    if wrong := [each for each in given if not isinstance(each, NextTokenPatch | None)]:
        raise TypeError(
            f"patch must be a NextTokenPatch, None, or a list of these; got "
            f"{type(wrong[0]).__name__} {wrong[0]!r:.60}"
        )
    return tuple(given)


def require_patch(patch: object) -> None:
    """Raise `TypeError` for anything but one patch."""
    if not isinstance(patch, NextTokenPatch):
        raise TypeError(
            f"patch must be one NextTokenPatch, got {type(patch).__name__} {patch!r:.60}: call it "
            "once for each patch"
        )


def require_patch_or_none(patch: object) -> None:
    """Raise `TypeError` for anything but one patch or None."""
    if not isinstance(patch, NextTokenPatch | None):
        raise TypeError(
            f"patch must be one NextTokenPatch or None, got {type(patch).__name__} {patch!r:.60}: "
            "call it once for each patch"
        )


def refuse_hooks_of_patches(bridge: ReadableModel) -> None:
    """Raise `ValueError` if hooks are on the model that `NextTokenPatch.fwd_hooks` made.

    They patch every position but the last with the very token that it predicts.
    """
    for point in bridge.hook_points():
        if any(made is each.user_hook for each in point.fwd_hooks for made in _hooks_of_patches):
            raise ValueError(
                "hooks of a patch are on the bridge, under which only the last prediction of a "
                "text is what a sampler computes: pass the patch itself, as patch="
            )


def warn_if_out_of_reach(patch: NextTokenPatch, lengths: Int[Tensor, " batch"]) -> None:
    """Warn if texts with so many tokens have none of the positions that the patch names."""
    known = int(lengths.max()) - 1  # the last token has no next one
    first = patch.first_written
    if isinstance(patch.positions, str):
        return  # A patch that begins beyond a short text is no mistake.
    if not any(first <= position < known for position in patch.positions):
        spared = f" and the first {first} spared" if first else ""
        warn_user(
            f"the patch at positions {list(patch.positions)}{spared} changes nothing: here a patch "
            f"can act at the first {known} positions, counted from 0",
        )


def require_patch_fits(bridge: ReadableModel, patch: NextTokenPatch) -> None:
    """Raise `ValueError` unless the model has the patch's layers and its mode fits the model."""
    n_layers = int(bridge.cfg.n_layers)
    require_blocks(patch.layers, n_layers)
    if isinstance(patch.source, BackPatch) and not 0 <= patch.source.layer <= n_layers:
        raise ValueError(
            f"the model has residuals r[0] to r[{n_layers}], but the patch writes that of "
            f"{patch.source}"
        )
    require_fits = getattr(patch.mode, "require_fits", None)
    if require_fits is not None:
        require_fits(bridge, patch)


@exclusive
def bind_all(
    bridge: ReadableModel, patches: Sequence[NextTokenPatch | None]
) -> list[BoundPatch | None]:
    """Each patch on one model, None where there is none.

    Equivalent to `NextTokenPatch.bind` of each, but the token embedding, for which the model is
    run, is measured once. Raises the errors of `bind`.
    """
    token_embedding = functools.cache(functools.partial(embedding, bridge))
    return [None if patch is None else patch._bind(bridge, token_embedding) for patch in patches]
