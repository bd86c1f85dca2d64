"""The intervention: patch the true next token into the residual stream, where it is known."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from ..lens.affine import AffineLens
from ..lens.protocol import Lens, bound_lens
from ..model.embedding import Embedding, embedding
from ..model.hooks import Hook, change_layers
from ..model.readout import Readout, readout
from ..model.tokens import TextOrTokens, token_batch
from .known_text import KnownText
from .modes import MODES, Mode
from .site import PatchSite
from .sources import SOURCES, SourceFunction, patch_sources

# Rows that go through the lens at once: a few [rows, d_vocab] buffers.
_LENS_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class NextTokenPatch:
    """At `layer`, move the residual toward the embedding of the token that really comes next.

    For every position i whose next token is known, with `r = r[layer][i]`, `a` the strength, `s`
    the scale and `e` the embedding of what the source says (`x[i+1]`, unless it is a control):

    - `"interpolate"`: `r <- (1 - a) r + a s e`
    - `"add"`: `r <- r + a s e`
    - `"correct"`: `r <- r + a s (e - E_{v ~ lens} e(v))`, the lens being the one at `layer`

    The position that makes the prediction has no known next token and is never patched, so nothing
    leaks. The gate and `"correct"` read the lens on the stream that arrives at the layer; with
    several layers, that stream carries the patches made below.

    Attributes:
        layer: the block whose incoming residual is patched, or several, patched one after the
            other on the way up.
        strength: `a`; 0 changes nothing, 1 interpolates all the way.
        mode: one of the formulas above, or a function such as those in `modes`.
        scale: `"raw"` for `s = 1`, `"norm"` for `s = |r| / |e|`.
        embedding: `"W_E"`, rows as the model feeds them; `"W_U"`, columns of the unembedding; or
            `"lens"`, the latter carried back to the layer by `AffineLens.inverse`.
        positions: `"all"`; `"generated"`, those whose next token was not in the prompt; or the
            positions themselves, counted from the first token.
        window: if given, only the last `window` known positions are patched at each prediction;
            older ones are as without a patch.
        gate: if given, only positions where the lens at the layer found the true next token at
            least this surprising, in nats, are patched.
        source: `"true"`, or the name of a control in the registry of `sources`, such as `"random"`,
            `"shuffled"`, `"current"`, `"guess"` and `"direction"`; or a function such as theirs.
        seed: of the random sources.
        lens: read by the gate, `"correct"` and `"guess"`; by default the logit lens. A fitted one,
            TransformerLens's `JacobianLens` or any `f(residual, layer)`.
    """

    layer: int | Sequence[int]
    strength: float
    mode: Literal["interpolate", "add", "correct"] | Mode = "interpolate"
    scale: Literal["raw", "norm"] = "raw"
    embedding: Literal["W_E", "W_U", "lens"] = "W_E"
    positions: Literal["all", "generated"] | Collection[int] = "all"
    window: int | None = None
    gate: float | None = None
    source: str | SourceFunction = "true"
    seed: int = 0
    lens: Lens | JacobianLens | None = None

    def __post_init__(self) -> None:
        several = isinstance(self.layer, Sequence)
        layers = tuple(self.layer) if isinstance(self.layer, Sequence) else (self.layer,)
        if not layers or not all(map(_is_count, layers)):
            raise ValueError(
                f"layer must be one or more block numbers from 0 up, got {self.layer!r}"
            )
        if len(set(layers)) < len(layers):
            raise ValueError(f"layer names a block twice: {self.layer}")
        layers = tuple(sorted(map(int, layers)))
        object.__setattr__(self, "layer", layers if several else layers[0])
        if not math.isfinite(self.strength):
            raise ValueError(f"strength must be a finite number, got {self.strength}")
        _require_choice("mode", self.mode, MODES, callable_too=True)
        _require_choice("source", self.source, patch_sources(), callable_too=True)
        _require_choice("scale", self.scale, ("raw", "norm"))
        _require_choice("embedding", self.embedding, ("W_E", "W_U", "lens"))
        if self.embedding == "lens" and not isinstance(self.lens, AffineLens):
            raise ValueError(
                f"embedding='lens' needs lens= to be an AffineLens, such as fit_affine_lens makes; "
                f"got {self.lens!r}"
            )
        if isinstance(self.positions, str):
            _require_choice("positions", self.positions, ("all", "generated"))
        else:
            wrong = [i for i in self.positions if not _is_count(i)]
            if wrong:
                raise ValueError(f"positions count from the text's first token, 0 up; got {wrong}")
            object.__setattr__(self, "positions", tuple(sorted(set(map(int, self.positions)))))
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 position, got {self.window}")
        if self.gate is not None and math.isnan(self.gate):
            raise ValueError("gate must be a surprisal in nats, got nan")

    @property
    def layers(self) -> tuple[int, ...]:
        """The patched layers, lowest first."""
        return (self.layer,) if isinstance(self.layer, int) else tuple(self.layer)

    @property
    def reads_lens(self) -> bool:
        """Whether the patch may need the lens at the layer, two products with the vocabulary."""
        never = self.mode in ("interpolate", "add") or not getattr(self.mode, "reads_lens", True)
        if not (never and isinstance(self.source, str)):
            return True
        return self.gate is not None or SOURCES[self.source].reads_lens

    def bind(self, bridge: TransformerBridge) -> "BoundPatch":
        """The patch on one model, ready to be applied to its residuals.

        Raises `ValueError` for a layer that the model does not have or a lens of other weights, and
        what the model's readout and embedding, and the mode's `require_fits(bridge, patch)` if it
        has one, raise.
        """
        n_layers = int(bridge.cfg.n_layers)
        if self.layers[-1] >= n_layers:
            raise ValueError(
                f"the model has blocks 0 to {n_layers - 1}, the patch asks for {self.layers[-1]}"
            )
        require_fits = getattr(self.mode, "require_fits", None)
        if require_fits is not None:
            require_fits(bridge, self)
        head = readout(bridge)
        table = embedding(bridge) if self.embedding == "W_E" else Embedding(head.weight, 1.0)
        lens = bound_lens(bridge, self.lens)
        tables = dict.fromkeys(self.layers, table)
        if self.embedding == "lens" and isinstance(lens, AffineLens):
            tables = {
                layer: replace(table, carry=lens.inverse(layer).to(table.weight))
                for layer in self.layers
            }
        return BoundPatch(self, tables, head, lens)

    def window_in(self, length: int) -> int | None:
        """The window in a text of `length` tokens, None where it spans all of the text."""
        return self.window if self.window is not None and self.window < length - 1 else None

    def fwd_hooks(
        self,
        bridge: TransformerBridge,
        text_or_tokens: TextOrTokens,
        *,
        attention_mask: Tensor | None = None,
        prepend_bos: bool | None = None,
        prompt_length: int | Int[Tensor, " batch"] | None = None,
        text_seeds: Int[Tensor, " batch"] | None = None,
    ) -> list[Hook]:
        """Hooks for `bridge.hooks`, `run_with_hooks` and `run_with_cache` on exactly these tokens.

        Every position but a text's last is patched, so that **the logits at the last position**
        are what a sampler computes. At earlier ones they are not: each was patched with the very
        token that it predicts. For all positions at once use `teacher_forced_logits`.

        **Arguments:**

        - `text_or_tokens`: what the bridge will be run on. Texts of different length become
            token tensors that you pad, so that hook and model agree about the padding.
        - `attention_mask`: `[batch, pos]`, nonzero at real tokens, when there is padding.
        - `prompt_length`: how many tokens were given; needed for `positions="generated"`.
        - `text_seeds`: see `KnownText`.
        """
        batch = token_batch(
            bridge, text_or_tokens, prepend_bos=prepend_bos, attention_mask=attention_mask
        )
        if batch.padded and attention_mask is None:
            raise ValueError(
                "texts of different length: pass the padded token tensor that the bridge will be "
                "run on, and its attention_mask"
            )
        text = KnownText.from_batch(batch, prompt_length=prompt_length, text_seeds=text_seeds)
        bound, positions = self.bind(bridge), text.column_positions()

        def patched(
            resid: Float[Tensor, "batch pos d_model"], *, layer: int
        ) -> Float[Tensor, "batch pos d_model"]:
            if resid.shape[:2] != positions.shape:
                raise ValueError(
                    f"the hooks were made for tokens of shape {tuple(positions.shape)}, the "
                    f"model runs on {tuple(resid.shape[:2])}: make hooks for those tokens"
                )
            return bound(resid, layer=layer, position=positions, text=text)

        return change_layers(self.layers, patched)

    def to_json(self) -> str:
        """The patch as a JSON object.

        Raises `ValueError` when mode or source is a function, or with a fitted lens.
        """
        for name in ("mode", "source", "lens"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"{name} is {value!r}, which JSON cannot hold: save the patch "
                    f"without it, `dataclasses.replace(patch, {name}=...)`, and give it again"
                )
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> "NextTokenPatch":
        """The patch that `to_json` wrote."""
        values = json.loads(text)
        if isinstance(values["layer"], list):
            values["layer"] = tuple(values["layer"])
        return cls(**values)


@dataclass(frozen=True)
class BoundPatch:
    """A patch with the tables of one model. Calling it patches rows of the residual stream.

    It is a function of each row alone, so whole texts, chunks of a prompt and the last positions
    of a growing text all go through the same call and agree.
    """

    patch: NextTokenPatch
    embeddings: Mapping[int, Embedding]
    readout: Readout
    lens: Lens | None

    def __call__(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        *,
        layer: int,
        position: Int[Tensor, "batch pos"],
        text: KnownText,
        predicting: Int[Tensor, "batch _"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Rows of `r[layer]`, patched where their next token is known and `patch.window` reaches.

        **Arguments:**

        - `resid`: any rows of `r[layer]`; not written to.
        - `position`: the position of each row, counted from the text's first real token. A row
            with position -1 (padding, or one to leave alone) stays as it is.
        - `text`: what is known of the texts.
        - `predicting`: the position that makes the prediction for which each row is patched, the
            text's last known one by default. Rows from there on stay as they are, and so do those
            that are too old for the window.
        """
        return patch_copies(
            [self], resid, layer=layer, position=position, text=text, predicting=predicting
        )[0]

    def _lens_at(self, layer: int) -> Callable[[Tensor], Tensor]:
        fitted = self.lens
        if fitted is None:
            return self.readout
        return lambda resid: self.readout(fitted(resid, layer))

    def _in_scope(
        self,
        position: Int[Tensor, "batch pos"],
        text: KnownText,
        predicting: Int[Tensor, "batch _"],
    ) -> Bool[Tensor, "batch pos"]:
        chosen, window = self.patch.positions, self.patch.window
        known = text.has_next(position) & (position < predicting)
        if window is not None:
            known &= position >= predicting - window
        if chosen == "all":
            return known
        if chosen == "generated":
            if text.prompt_length is None:
                raise ValueError(
                    'positions="generated" needs to know where the prompt ends: pass prompt_length'
                )
            return known & (position + 1 >= text.prompt_length[:, None])
        return known & torch.isin(position, torch.tensor(chosen, device=position.device))

    def _patch_rows(
        self, site: PatchSite, active: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        patch, resid = self.patch, site.resid
        mode = patch.mode if callable(patch.mode) else MODES[patch.mode]
        vectors, active = self._written(site, active)
        patched = mode(site, vectors, self._scale(resid, vectors), patch.strength)
        _require_shape("mode", mode, patched, resid.shape)
        return torch.where(active[..., None], patched.to(resid.dtype), resid)

    def _written(
        self, site: PatchSite, active: Bool[Tensor, "batch pos"]
    ) -> tuple[Float[Tensor, "batch pos d_model"], Bool[Tensor, "batch pos"]]:
        """What the source writes, and which of the active rows it and the gate leave active."""
        patch, resid = self.patch, site.resid
        source = patch.source if callable(patch.source) else SOURCES[patch.source].function
        written = source(site)
        if written.is_floating_point():
            vectors = written
            _require_shape("source", source, vectors, resid.shape)
        else:
            _require_shape("source", source, written, resid.shape[:2])
            vectors = site.embedding(written.clamp(min=0))
            active = active & (written >= 0)
        if patch.gate is not None:
            active = active & (site.surprisal >= patch.gate)
        return vectors, active

    def _scale(
        self, resid: Float[Tensor, "batch pos d_model"], vectors: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos 1"]:
        if self.patch.scale == "raw":
            return torch.ones_like(resid[..., :1])
        length = vectors.norm(dim=-1, keepdim=True)
        # A vector of length zero (an untrained embedding) stays zero at any scale.
        return resid.norm(dim=-1, keepdim=True) / length.where(length > 0, 1)


def patch_copies(
    bounds: Sequence[BoundPatch],
    resid: Float[Tensor, "batch pos d_model"],
    *,
    layer: int,
    position: Int[Tensor, "batch pos"],
    text: KnownText,
    predicting: Int[Tensor, "batch _"] | None = None,
) -> list[Float[Tensor, "batch pos d_model"]]:
    """The same rows under each of several patches, which read the lens once for all.

    The arguments are those of `BoundPatch.__call__`.
    """
    if predicting is None:
        predicting = text.length[:, None] - 1
    active = [bound._in_scope(position, text, predicting) for bound in bounds]
    columns = torch.stack(active).any(0).any(0).nonzero()[:, 0]
    copies = [resid] * len(bounds)
    if len(columns) == 0:
        return copies
    reads_lens = any(bound.patch.reads_lens for bound in bounds)
    for part in columns.split(max(1, _LENS_ROWS // len(resid)) if reads_lens else len(columns)):
        sites: dict[tuple[str, int, int], PatchSite] = {}
        for i, bound in enumerate(bounds):
            key = (bound.patch.embedding, id(bound.patch.lens), bound.patch.seed)
            if key not in sites:
                sites[key] = PatchSite(
                    layer=layer,
                    resid=resid[:, part],
                    position=position[:, part],
                    embedding=bound.embeddings[layer],
                    lens=bound._lens_at(layer),
                    seed=bound.patch.seed,
                    text=text,
                )
            patched = bound._patch_rows(sites[key], active[i][:, part])
            copies[i] = copies[i].index_copy(1, part, patched)
    return copies


def _is_count(value: object) -> bool:
    """Whether it is an integer from 0 up, Python's or numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _require_choice(
    name: str, value: object, choices: Collection[str], *, callable_too: bool = False
) -> None:
    if (callable_too and callable(value)) or (isinstance(value, str) and value in choices):
        return
    listed = ", ".join(repr(choice) for choice in choices)
    raise ValueError(
        f"{name} must be one of {listed}{' or a function' if callable_too else ''}; got {value!r}"
    )


def _require_shape(role: str, function: object, value: Tensor, shape: torch.Size) -> None:
    if value.shape != shape:
        raise ValueError(
            f"the {role} {getattr(function, '__name__', function)!r} returned shape "
            f"{tuple(value.shape)}; expected {tuple(shape)}"
        )
