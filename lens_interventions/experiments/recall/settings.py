"""Settings of the recall experiment."""

from dataclasses import dataclass, field

from ...fitting.embedding_basis import BasisKind
from ..design.contrasts import Resampling
from ..design.setting_checks import require_different
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class RecallSettings:
    """Settings of the recall experiment; `RecallSettings.preset` makes them.

    Attributes:
        texts: the sources of the text that is read: "python_reference", "prose", "docstrings",
            "python_code", "standard_library", a path for `materials.read_texts`, or
            "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT".
        documents: the most documents of each source that are read, at least 4 in all.
        document_tokens: how many tokens of each document are read, from its beginning.
        fitted_texts: the sources of the text that the probe is fitted to, without the documents
            that are read.
        fitted_tokens: the most tokens of each of these sources that it is fitted to.
        window: how many tokens of a document it is fitted to, from its beginning.
        bases: the bases in which the map is read, some of "unembedding", "pca" and "nmf"; the
            verdict is about the first.
        smallest_share: the smallest difference of shares worth talking about.
        resampling: how intervals are resampled.
        seed: the seed of the choice of documents and of the factorization.

    Raises `ValueError` for no basis, or sizes that leave nothing to measure.
    """

    texts: tuple[str, ...] = ("prose", "python_reference")
    documents: int = 20
    document_tokens: int = 96
    fitted_texts: tuple[str, ...] = ("python_reference", "docstrings")
    fitted_tokens: int = 15_000
    window: int = 512
    bases: tuple[BasisKind, ...] = ("unembedding", "pca", "nmf")
    smallest_share: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        require_different(self, "bases")
        sizes = (self.documents * len(self.texts), self.document_tokens, self.window)
        if min(sizes) < 4 or self.fitted_tokens < self.window or not self.bases:
            raise ValueError(
                "documents in all, document_tokens and window must be at least 4, fitted_tokens at "
                f"least window, and there must be a basis; got {sizes}, {self.fitted_tokens} and "
                f"{self.bases}"
            )

    @classmethod
    def preset(cls, name: Preset) -> "RecallSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(documents=10, document_tokens=48, fitted_tokens=8_000)
        return cls()
