"""A lens's readings: one value per (residual point, prompt, position) for every statistic."""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from .._files import load_tensors, restored, save_tensors
from ..drawing.theme import ThemeName
from ..model.argument_types import require_whole_numbers
from .cells import whole_range
from .commitment import Commitment, find_commitment
from .figures.grid import Grid, make_grid, watched_names
from .figures.heatmap import draw_heatmap
from .selection import at_columns, of_prompts, require_prompt
from .statistics import STATISTICS
from .trajectory_fields import TrajectoryFields

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True, eq=False)
class Trajectory(TrajectoryFields):
    """The statistics of a lens, as tensors on the CPU.

    Statistics have the axes `[point, batch, pos]`, in the order of `points`, `tokens` and its
    columns. Ranks are zero-based and count strictly larger logits: rank 0 is the top guess.
    Log-probabilities, entropies and divergences are in nats. If a value does not exist (at padding,
    or for the next token at a text's end), floats are NaN, and ranks and ids are -1. Padding is on
    the right, whatever side of the tokens it was on: find a text's last token by `mask`, or read it
    alone by `positions=-1`.

    Attributes:
        points: labels of the residual points, as in TransformerLens: `0_pre`, `final_post`.
        tokens: `[batch, pos]`, the ids read.
        next_tokens: `[batch, pos]`, the id that followed each.
        positions: `[batch, pos]`, each token's position in its text.
        mask: `[batch, pos]`, False at padding.
        vocab: text of every id that occurs in the trajectory.
        top_ids: `[point, batch, pos, k]`, the likeliest tokens, likeliest first.
        top_logits: `[point, batch, pos, k]`, their logits.
        log_normalizer: the log of the sum of the exponentials of all logits. A token's
            log-probability is its logit minus this.
        entropy: of the distribution.
        final_rank, final_log_prob: rank and log-probability of the last point's top guess.
        input_rank, input_log_prob: those of the token at the position itself, `tokens`.
        next_rank, next_log_prob: those of the token that followed, `next_tokens`.
        compare_rank, compare_log_prob: those of the top guess of the point `compare_with`.
        watched: ids of the watched tokens.
        watched_rank, watched_log_prob: those of the watched tokens, `[point, batch, pos, watched]`.
        kl_final, kl_input, kl_compare: KL(reference ‖ point), the reference being the last point,
            the input point `0_pre`, and the point `compare_with`.
        kl_final_reverse, kl_input_reverse, kl_compare_reverse: KL(point ‖ reference); None unless
            `"kl_reverse"` was among the divergences asked for.
        js_final, js_input, js_compare: Jensen-Shannon divergences; None unless `"js"` was.
        compare_with: label of the point chosen for comparison.
        settings: model, norm and lens of the reading.
    """

    def __repr__(self) -> str:
        batch, pos = self.tokens.shape
        return (
            f"Trajectory({len(self.points)} points {self.points[0]}..{self.points[-1]}, "
            f"batch={batch}, pos={pos}, {self.settings})"
        )

    def __getitem__(self, positions: slice | SupportsIndex) -> "Trajectory":
        """The same trajectory at a range of its columns, or at one (which keeps its axis).

        Raises `TypeError` for anything else, `ValueError` for a range that is not read forwards,
        and `IndexError` for a column that there is not.
        """
        try:
            if isinstance(positions, slice):
                at: slice | int = whole_range(positions)
            else:
                require_whole_numbers(position=positions)
                at = operator.index(positions)
        except TypeError as error:
            raise TypeError(
                f"a trajectory is indexed by one position or a slice of them, got {positions!r}: "
                "to choose positions or points, read it with positions= or points=; for one point, "
                "index its tensors with .points.index(...)"
            ) from error
        if not isinstance(at, slice):
            width = self.tokens.shape[1]
            if not -width <= at < width:
                raise IndexError(f"position {at} is out of range for {width} columns")
            at = slice(at, at + 1 or None)
        return at_columns(self, at)

    def prompt(self, index: int) -> "Trajectory":
        """One prompt of the batch, without padding; the batch axis stays, of length 1.

        Raises `ValueError` if there is no such prompt.
        """
        require_prompt(index, len(self.tokens))
        return at_columns(of_prompts(self, [index]), self.mask[index])

    def commitment(self, *, top: int | None = None, probability: float | None = None) -> Commitment:
        """The first point from which the final guess stays, for each token.

        By default, staying means staying on top. The points are those of the trajectory, so read
        all points for an exact answer.

        **Arguments:**

        - `top`: let it count as staying while it is among this many likeliest tokens.
        - `probability`: let it count as staying while it has more than this probability, such as
            0.5.

        Raises `ValueError` if the trajectory does not end at the final point, if both are given, or
        if one is out of range; `TypeError` if one is not a number.
        """
        return find_commitment(self, top=top, probability=probability)

    def leaders(self, position: int, *, batch: int = 0) -> list[int]:
        """Ids of the tokens that are the top guess at some layer of a position, lowest layer first.

        Watch them to see how each rises and falls: `li.logit_lens(..., watch=leaders)`.

        **Arguments:**

        - `position`: a column of the prompt; negative numbers count from its end.
        - `batch`: which prompt.

        Raises `IndexError` if there is no such column, `ValueError` if there is no such prompt, and
        `TypeError` if one of these is not a whole number.
        """
        require_whole_numbers(position=position)
        top_ids = self.prompt(batch).top_ids[:, 0]
        width = top_ids.shape[1]
        if not -width <= position < width:
            raise IndexError(f"position {position} is not one of prompt {batch}'s {width} columns")
        return list(dict.fromkeys(top_ids[:, position, 0].tolist()))

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row per (point, prompt, position) with every statistic, padding left out.

        Points come in the order of the stream, which `groupby("point", sort=False)` keeps. The
        columns `token`, `next_token` and `top_token` hold text. The frame has only the first of
        the top-k lists, which `top_to_dataframe` has whole, and a pair of columns for each watched
        token. Where a text ends there is no next token, so `next_rank` (`Int64`) and
        `agrees_next` (`boolean`) are missing there, and means leave them out.
        """
        import pandas

        point, batch, pos = self.mask.expand(len(self.points), -1, -1).nonzero(as_tuple=True)
        cell = (point, batch, pos)
        ids = {"token": self.tokens, "next_token": self.next_tokens}
        columns: dict[str, Any] = {
            "point": [self.points[i] for i in point.tolist()],
            "batch": batch.numpy(),
            "pos": self.positions[batch, pos].numpy(),
        }
        for name, tensor in ids.items():
            columns[f"{name}_id"] = tensor[batch, pos].numpy()
            columns[name] = [self.vocab.get(i) for i in tensor[batch, pos].tolist()]
        top = self.top_ids[..., 0][cell]
        columns |= {"top_id": top.numpy(), "top_token": [self.vocab.get(i) for i in top.tolist()]}
        columns["top_logit"] = self.top_logits[..., 0][cell].numpy()
        columns["top_log_prob"] = self.top_log_probs[..., 0][cell].numpy()
        for name, tensor in self.tensors().items():
            if tensor.ndim == 3:
                columns[name] = tensor[cell].numpy()
            elif name in ("watched_rank", "watched_log_prob"):
                for i, text in enumerate(watched_names(self.watched, self.vocab)):
                    columns[f"{name}[{text}]"] = tensor[..., i][cell].numpy()
        for name, statistic in STATISTICS.items():
            if statistic.kind == "agrees":
                columns[name] = self.statistic(name)[cell].numpy()
        frame = pandas.DataFrame(columns)
        ended = frame["next_rank"] < 0
        frame["next_rank"] = frame["next_rank"].astype("Int64").mask(ended)
        frame["agrees_next"] = frame["agrees_next"].astype("boolean").mask(ended)
        return frame

    def top_to_dataframe(self) -> "pandas.DataFrame":
        """One row per (point, prompt, position, rank): the likeliest tokens, padding left out.

        `rank` counts from 0, and `token_id`, `token`, `logit` and `log_prob` are those of the
        token. Rows come in the order of the stream; at each position the likeliest token comes
        first.
        """
        import pandas

        kept = self.mask[..., None].expand(self.top_ids.shape)
        point, batch, pos, rank = kept.nonzero(as_tuple=True)
        cell = (point, batch, pos, rank)
        ids = self.top_ids[cell]
        return pandas.DataFrame(
            {
                "point": [self.points[i] for i in point.tolist()],
                "batch": batch.numpy(),
                "pos": self.positions[batch, pos].numpy(),
                "rank": rank.numpy(),
                "token_id": ids.numpy(),
                "token": [self.vocab[i] for i in ids.tolist()],
                "logit": self.top_logits[cell].numpy(),
                "log_prob": self.top_log_probs[cell].numpy(),
            }
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the tensors, and the rest as JSON in its header.

        Raises `OSError` if the file cannot be written.
        """
        rest = {
            "points": self.points,
            "vocab": list(self.vocab.items()),
            "watched": self.watched,
            "compare_with": self.compare_with,
            "settings": dict(self.settings),
        }
        save_tensors(path, self.tensors(), kind="trajectory", rest=rest)

    @classmethod
    def load(cls, path: str | Path) -> "Trajectory":
        """Read what `save` wrote.

        Raises `FileNotFoundError` if there is no file, `ValueError` if it is of another kind.
        """
        tensors, rest = load_tensors(path, kind="trajectory")
        try:
            rest["vocab"] = dict(rest["vocab"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: its vocab has no ids and texts") from error
        read = restored(cls, path, rest | tensors, ("points", "entropy"))
        if read.watched_rank is not None and read.watched_rank.shape[-1] != len(read.watched):
            raise ValueError(f"{path} is damaged: it has ranks of other tokens than it watches")
        shown = (read.top_ids, read.tokens, read.next_tokens)
        ids = set(read.watched).union(*(each.unique().tolist() for each in shown))
        if nameless := ids - {-1} - set(read.vocab):
            raise ValueError(f"{path} is damaged: token {min(nameless)} has no text")
        return read

    def grid(
        self,
        statistic: str = "top1",
        *,
        batch: int = 0,
        every: int | None = None,
        include_input: bool | None = None,
        token: str | int | None = None,
    ) -> Grid:
        """The numbers and labels of one statistic of one prompt, which `plot` draws.

        **Arguments:**

        - `statistic`: `"top1"`, the logit of the top guess, or any rank, log-probability, entropy
            or divergence.
        - `batch`: which prompt.
        - `every`: keep every n-th layer with all its points, and always the last one; by default n
            is such that about 32 rows are kept.
        - `include_input`: whether to include the input's row; the default depends on the statistic,
            and is yes for divergences and for those of the input token.
        - `token`: which watched token, as id or text; the first by default.

        Raises `ValueError` if the trajectory does not have what is asked for.
        """
        return make_grid(
            statistic,
            self.prompt(batch).tensors(),
            points=self.points,
            vocab=self.vocab,
            watched=self.watched,
            compare_with=self.compare_with,
            every=every,
            include_input=include_input,
            token=token,
        )

    def plot(
        self,
        statistic: str = "top1",
        *,
        batch: int = 0,
        every: int | None = None,
        include_input: bool | None = None,
        token: str | int | None = None,
        title: str | None = None,
        theme: ThemeName = "light",
        cell_width: float | None = None,
    ) -> "plotly.graph_objects.Figure":
        """A statistic over layers and tokens, as in "interpreting GPT: the logit lens".

        Input tokens are below, and the tokens that followed are above, with `(*)` where the model's
        own top guess was right. The last layer is at the top. A cell shows its layer's top guess,
        with an outline if that is also the final guess; its hover shows the likeliest tokens and
        all statistics. Ranks are zero-based (0 is the top guess) on a logarithmic colour scale;
        log-probs, entropies and divergences are in nats. Colours stop at rank 100 (1000 for an
        input, next or watched token), at a log-prob of -20 and at a divergence of 30, or of log 2
        for the Jensen-Shannon divergence, which is never above it. Those of logits and entropies
        stop before values that are far out.

        **Arguments:**

        - `statistic`: `"top1"` (coloured by the guess's logit) or the name of a statistic of
            `Trajectory` such as `"final_rank"`, `"kl_input"`, `"entropy"`, `"watched_rank"`, but
            not `"agrees_…"`, which is true or false.
        - `batch`: which prompt.
        - `every`: keep every n-th layer with all its points, and always the last one; by default n
            is such that about 32 rows are kept.
        - `include_input`: show the input's row; by default for divergences and for statistics of
            the input token.
        - `token`: which watched token, as id or text; the first by default.
        - `title`: replaces the statistic's own title.
        - `theme`: `"light"` or `"dark"`.
        - `cell_width`: the width of a cell in pixels; cells narrower than 34 have no text. By
            default it is chosen to fit, and a text of more than 48 tokens is wrapped.

        Raises `ValueError` if the trajectory has no such prompt, statistic or watched token, or if
        the theme is unknown.
        """
        grid = self.grid(
            statistic, batch=batch, every=every, include_input=include_input, token=token
        )
        return draw_heatmap(grid, title=title, theme=theme, cell_width=cell_width)

    def plot_top1(self, **options: Any) -> "plotly.graph_objects.Figure":
        """The top guess of every cell, coloured by its logit; `options` are those of `plot`."""
        return self.plot("top1", **options)
