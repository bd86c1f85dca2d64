"""Whether TransformerLens generates correctly with the installed version of transformers."""

import importlib.metadata
import warnings

from packaging.specifiers import SpecifierSet

# The same as in pyproject.toml, for those who have another version anyway.
TRANSFORMERS = ">=5.22,<5.24"


def check_versions(*, caching: bool) -> None:
    """Warn about a transformers outside `TRANSFORMERS`; refuse it where a KV cache is needed.

    transformers 5.24 renamed the attention's `past_key_values` to `cache`. Under TransformerLens
    4.3 the cache then stays empty, without an error: each new token attends to itself alone. Before
    5.22 a cache that some layers leave empty cannot be shortened, and patched texts go step by
    step. A plain forward is not affected, so without `caching` this is a warning.

    Raises `RuntimeError`, which names what to install, if `caching` is set.
    """
    version = importlib.metadata.version("transformers")
    if SpecifierSet(TRANSFORMERS).contains(version, prereleases=True):
        return
    problem = (
        f"transformers {version} is installed, and lens_interventions needs "
        f"transformers{TRANSFORMERS}: with others, generation with a KV cache can be silently "
        f"wrong. Run: python -m pip install 'transformers{TRANSFORMERS}'"
    )
    if caching:
        raise RuntimeError(problem)
    warnings.warn(problem, stacklevel=3)
