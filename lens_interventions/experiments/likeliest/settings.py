"""Settings of the likeliest experiment."""

from dataclasses import dataclass, field

from ...measures.behaviour import MIN_LENGTH
from ...search.relaxation import RELAXATIONS
from ..design.contrasts import Resampling
from ..design.setting_checks import require_at_least
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class LikeliestSettings:
    """Settings of the likeliest experiment; `LikeliestSettings.preset` makes them.

    Attributes:
        prompts: number of open-ended prompts that are reported.
        choosing: number of other prompts, on which the variant of the ascent is chosen.
        variants: variants of the ascent, which are methods of `search_sequence`.
        lengths: numbers of tokens of the sequences, the shortest first. The longest is 16 or more,
            as no loop is shorter.
        width: the number of beams of the widest beam search, and of samples. A sequence of n tokens
            may cost `width * n` forward tokens, in every way of searching.
        narrow: widths of beam searches that cost less than half of that.
        more: the multiple of that cost at which the ascent is also tried, on the shortest length.
        smallest_nats: the smallest difference of the log-likelihood per token worth talking about.
        smallest_share: the smallest difference of shares of texts and of n-grams worth talking
            about.
        resampling: how intervals and p-values are resampled.
        seed: the seed of the draws.
    """

    prompts: int = 60
    choosing: int = 12
    variants: tuple[str, ...] = tuple(RELAXATIONS)
    lengths: tuple[int, ...] = (8, 16, 32)
    width: int = 64
    narrow: tuple[int, ...] = (4, 16)
    more: int = 4
    smallest_nats: float = 0.05
    smallest_share: float = 0.1
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, 4, "width")
        require_at_least(self, 2, "prompts")
        require_at_least(self, 1, "choosing", "more")
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must be different and rising, got {self.lengths}")
        if self.lengths[0] < 1 or self.lengths[-1] < MIN_LENGTH:
            raise ValueError(
                f"lengths must be at least 1, and the last at least {MIN_LENGTH}, which is that of "
                f"the shortest loop; got {self.lengths}"
            )
        if not self.variants or set(self.variants) - set(RELAXATIONS):
            raise ValueError(
                f"variants must be some of {', '.join(RELAXATIONS)}; got {self.variants}"
            )
        if any(not 1 < width < self.width // 2 for width in self.narrow):
            raise ValueError(
                "narrow beam searches must have more than one beam, and fewer than the "
                f"{self.width // 2} of the search whose result swaps start from; got {self.narrow}"
            )

    @classmethod
    def preset(cls, name: Preset) -> "LikeliestSettings":
        """Settings by name.

        "quick" reports 12 prompts at a quarter of the cost of "full", which reports 60.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(prompts=12, choosing=4, width=16, narrow=(4,))
        return cls()
