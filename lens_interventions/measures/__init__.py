"""Numbers about texts, and their uncertainty.

`behaviour` measures what a text does, `intervals` has intervals and tests over one set of sequences
and `crossed` over two crossed sets, and `verdicts` turns them into answers to questions.
`pairwise` prepares values of texts that were compared with all others, `interval_table` makes
tables of intervals, and `bootstrap` finds their ends. All are pure functions of numbers and token
ids: nothing here knows a model, and no other room of the library is imported. A new measure of a
text goes into `behaviour/`, a new interval or test into `intervals`, and the rules of a verdict are
only in `verdicts`.
"""

import lazy_loader  # type: ignore[import-untyped]

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["behaviour", "crossed", "intervals", "verdicts"]
)
