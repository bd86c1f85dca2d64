"""Settings of the last_word experiment."""

from dataclasses import dataclass, field

from ..design.contrasts import Resampling
from ..design.setting_checks import require_at_least
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class LastWordSettings:
    """Settings of the last_word experiment; `LastWordSettings.preset` makes them.

    Attributes:
        requests: how many of the requests in `materials.last_words` are made, spread evenly.
        new_tokens: the longest sentence that the model may write.
        every: read every n-th residual point, and always the last.
        parts: into how many parts of equal length a sentence is cut, for means over positions.
        traced: for how many of the requests residuals are exchanged.
        trace_every: exchange residuals at every n-th layer.
        smallest_nats: the smallest change of the word's log-probability worth talking about.
        smallest_share: the smallest change of the share of sentences worth talking about.
        resampling: how intervals and p-values are resampled.
    """

    requests: int = 60
    new_tokens: int = 40
    every: int = 1
    parts: int = 4
    traced: int = 20
    trace_every: int = 2
    smallest_nats: float = 0.5
    smallest_share: float = 0.1
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        require_at_least(self, 2, "requests", "parts")
        require_at_least(self, 1, "every", "traced", "trace_every")
        require_at_least(self, self.parts, "new_tokens")

    @classmethod
    def preset(cls, name: Preset) -> "LastWordSettings":
        """Settings by name.

        "quick" makes 20 requests and reads every third point, "full" makes 60 and reads them all.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(requests=20, every=3, traced=6, trace_every=5)
        return cls()
