"""Settings of the preservation experiment."""

from dataclasses import dataclass, field

from ..design.contrasts import Resampling
from ..design.setting_checks import require_at_least
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class PreservationSettings:
    """Settings of the preservation experiment; `PreservationSettings.preset` makes them.

    Attributes:
        texts: the sources of text: "python_reference", "prose", "docstrings", "python_code",
            "standard_library", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT", of which the first 2,000 documents are read.
        documents: the most documents of each text that are read.
        document_tokens: how many tokens of each document are read, from its beginning.
        every: read every n-th residual point, and always the last.
        quantiles: the number of equal parts into which tokens are sorted, by rarity and by
            surprise.
        template_words: how many words of each frequency are read in each group of templates.
        batch: documents in a unit of work, at least 2, because a token is also read at a position
            of another document of the batch, where it is not the input.
        template_batch: templates in a unit of work.
        smallest_correlation: the smallest rank correlation worth talking about.
        resampling: how intervals are resampled.
        seed: the seed of the choice of documents.
    """

    texts: tuple[str, ...] = ("python_reference", "prose")
    documents: int = 40
    document_tokens: int = 384
    every: int = 1
    quantiles: int = 5
    template_words: int = 4
    batch: int = 4
    template_batch: int = 48
    smallest_correlation: float = 0.1
    resampling: Resampling = field(default_factory=lambda: Resampling(n_resamples=1999))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 2 or self.documents < 2:
            raise ValueError(
                f"a token is also read in another document: batch={self.batch} and "
                f"documents={self.documents} must be at least 2"
            )
        require_at_least(self, 3, "document_tokens")
        require_at_least(self, 1, "every", "quantiles", "template_words", "template_batch")

    @classmethod
    def preset(cls, name: Preset) -> "PreservationSettings":
        """Settings by name.

        "quick" reads about 5,000 tokens at every third point, "full" 20,000 at every point.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(documents=20, document_tokens=128, every=3, template_words=2)
        return cls()
