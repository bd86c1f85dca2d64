"""A patch on one model, applied to rows of its residual stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._summary import summary
from ..lens.protocol import Lens
from ..model.embedding import Embedding
from ..model.readout import LOGIT_ROWS, Readout
from .known_text import KnownText
from .modes import MODES, Mode, Rows, Scales, correct
from .names import name_of
from .patch_fields import PatchFields
from .site import PatchSite, length_factor
from .sources import SOURCES


@dataclass(frozen=True, eq=False)
class BoundPatch:
    """A patch with the tables of one model. Calling it patches rows of the residual stream.

    It is a function of each row alone, so whole texts, chunks of a prompt and the last positions
    of a growing text all go through the same call and agree.

    Attributes:
        patch: the `NextTokenPatch` that was bound.
        embeddings: for each layer, the function from token ids to the vectors that are written.
        readout: from a residual to logits, for the gate and for modes that read the lens.
        lens: the fitted lens that gate and modes read through; None for the logit lens.
        means: the mean residual of each layer, from which scale "deviation" measures.
    """

    patch: PatchFields
    embeddings: Mapping[int, Embedding] = field(repr=False)
    readout: Readout = field(repr=False)
    lens: Lens | None
    means: Mapping[int, Float[Tensor, " d_model"]] = field(default_factory=dict)

    __repr__ = summary

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
        - `predicting`: the position whose prediction each row is patched for, by default the text's
            last known one. Rows from there on stay as they are, and so do those that are too old
            for the window.
        """
        return patch_copies(
            [self], resid, layer=layer, position=position, text=text, predicting=predicting
        )[0]

    def lens_at(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The lens at a layer: logits of residuals `[..., d_model]`."""
        fitted = self.lens
        if fitted is None:
            return self.readout
        # A function of the user may write into the rows that it gets.
        return lambda resid: self.readout(fitted(resid.clone(), layer))

    def in_scope(
        self,
        position: Int[Tensor, "batch pos"],
        text: KnownText,
        predicting: Int[Tensor, "batch _"] | None = None,
    ) -> Bool[Tensor, "batch pos"]:
        """Which positions the patch covers when `predicting` predicts, source and gate aside.

        Raises `ValueError` if `positions` is `"generated"` and it is not known where the prompt
        ends.
        """
        if predicting is None:
            predicting = text.length[:, None] - 1
        chosen, window = self.patch.positions, self.patch.window
        known = text.has_next(position) & (position < predicting)
        if self.patch.first_position:
            known &= position >= self.patch.first_position
        if window is not None:
            known &= position >= predicting - window
        if chosen == "all":
            return known
        if chosen == "generated":
            if text.prompt_length is None:
                raise ValueError(
                    'positions="generated" depends on where the prompt ends: pass prompt_length'
                )
            return known & (position + 1 >= text.prompt_length[:, None])
        return known & torch.isin(position, torch.tensor(chosen, device=position.device))

    @property
    def mode(self) -> Mode:
        """The function by which the patch writes."""
        return self.patch.mode if callable(self.patch.mode) else MODES[self.patch.mode]

    @property
    def writes_everywhere(self) -> bool:
        """Whether the mode writes to rows for which the source has no token."""
        return bool(getattr(self.mode, "writes_everywhere", False))

    @property
    def moves_as_the_truth(self) -> bool:
        """Whether rows are moved as far as the true next token would move them.

        This holds for controls in mode correct: the length of `e` minus the layer's guess varies
        from source to source, and a control must write as much as the true source.
        """
        source = self.patch.source
        control = not callable(source) and SOURCES[source].role != "true"
        return control and self.mode is correct

    def written(
        self, site: PatchSite, active: Bool[Tensor, "batch pos"]
    ) -> tuple[Rows, Scales, Bool[Tensor, "batch pos"]]:
        """The vectors that the source writes, their scale, and which rows they are written to.

        These are the `active` rows for which the source has a token or vector and the gate is open.
        A mode with `writes_everywhere` also gets the rows for which the source has no token.
        """
        source = self.patch.source
        if not callable(source):
            source = SOURCES[source].function
        vectors = source(site.copy() if callable(self.patch.source) else site)
        require_tensor("source", source, vectors)
        if vectors.is_floating_point():
            require_shape("source", source, vectors, site.resid.shape)
        else:
            require_shape("source", source, vectors, site.resid.shape[:2])
            if callable(self.patch.source):
                _require_ids(source, vectors, len(self.readout.weight))
            if not self.writes_everywhere:
                active = active & (vectors >= 0)
            vectors = site.embedding(vectors.clamp(min=0))
        if self.patch.gate is not None:
            on_lens = self.patch.gate_on == "lens"
            surprisal = site.surprisal if on_lens else site.output_surprisal
            active = active & (surprisal >= self.patch.gate)
        scale = self._scale(site, vectors)
        if self.moves_as_the_truth:
            true = site.embedding(site.next_tokens)
            moved = self._scale(site, true) * (true - site.expected_embedding)
            scale = length_factor(moved, vectors - site.expected_embedding)
        return vectors, scale, active

    def patch_rows(self, site: PatchSite, active: Bool[Tensor, "batch pos"]) -> Rows:
        """The rows of a site, patched where they are `active` and there is something to write."""
        resid = site.resid
        vectors, scale, active = self.written(site, active)
        own = site.copy() if callable(self.patch.mode) else site
        patched = self.mode(own, vectors, scale, self.patch.strength)
        require_tensor("mode", self.mode, patched)
        require_shape("mode", self.mode, patched, resid.shape)
        return torch.where(active[..., None], patched.to(resid.dtype), resid)

    def _scale(self, site: PatchSite, vectors: Rows) -> Scales:
        resid = site.resid
        if self.patch.scale == "raw":
            return torch.ones_like(resid[..., :1])
        if self.patch.scale == "deviation":
            resid = resid - self.means[site.layer]
        return length_factor(resid, vectors)


def patch_copies(
    bounds: Sequence[BoundPatch],
    resid: Float[Tensor, "batch pos d_model"],
    *,
    layer: int,
    position: Int[Tensor, "batch pos"],
    text: KnownText,
    predicting: Int[Tensor, "batch _"] | None = None,
) -> list[Float[Tensor, "batch pos d_model"]]:
    """The same rows under each of several patches, with one reading of the lens for all.

    **Arguments:**

    - `resid`: any rows of `r[layer]`; not written to.
    - `position`: the position of each row, -1 for one to leave alone.
    - `text`: what is known of the texts.
    - `predicting`: the position that predicts, the text's last known one by default.
    """
    active = [bound.in_scope(position, text, predicting) for bound in bounds]
    columns = torch.stack(active).any(0).any(0).nonzero()[:, 0]
    if len(columns) == 0:
        return [resid] * len(bounds)
    patched: list[list[Rows]] = [[] for _ in bounds]
    reads_lens = any(bound.patch.reads_lens for bound in bounds)
    for part in columns.split(max(1, LOGIT_ROWS // len(resid)) if reads_lens else len(columns)):
        sites: dict[tuple[str, int, int], PatchSite] = {}
        for i, bound in enumerate(bounds):
            key = (bound.patch.embedding, id(bound.patch.lens), bound.patch.seed)
            if key not in sites:
                sites[key] = PatchSite(
                    layer=layer,
                    resid=resid[:, part],
                    position=position[:, part],
                    embedding=bound.embeddings[layer],
                    lens=bound.lens_at(layer),
                    seed=bound.patch.seed,
                    text=text,
                )
            patched[i].append(bound.patch_rows(sites[key], active[i][:, part]))
    return [resid.index_copy(1, columns, torch.cat(parts, dim=1)) for parts in patched]


def require_tensor(role: str, function: object, value: object) -> None:
    """Raise `TypeError` if what a source or mode returned is not a tensor."""
    if not isinstance(value, Tensor):
        mend = "let it return its result" if value is None else "make it one by torch.as_tensor"
        raise TypeError(
            f"the {role} {name_of(function)!r} returned a "
            f"{type(value).__name__}; expected a tensor: {mend}"
        )


def require_shape(role: str, function: object, value: Tensor, shape: torch.Size) -> None:
    """Raise `ValueError` if what a source or mode returned has another shape than `shape`."""
    if value.shape != shape:
        raise ValueError(
            f"the {role} {name_of(function)!r} returned shape "
            f"{tuple(value.shape)}; expected {tuple(shape)}"
        )


def _require_ids(source: object, ids: Int[Tensor, "batch pos"], d_vocab: int) -> None:
    """Raise `ValueError` for ids outside the vocabulary, except -1, which stands for none."""
    wrong = ids[(ids < -1) | (ids >= d_vocab)]
    if wrong.numel():
        raise ValueError(
            f"the source {name_of(source)!r} returned the id {int(wrong[0])}; expected ids in "
            f"[0, {d_vocab}), or -1 where it has no token"
        )
