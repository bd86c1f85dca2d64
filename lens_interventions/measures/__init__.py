"""Numbers about texts, and how sure they are.

`behaviour` says what a text does, `intervals` how sure an estimate is, `crossed` the same over two
sets at once, and `verdicts` what that says about a question. `bootstrap` finds the ends of the
intervals. All are pure functions of numbers and token ids: nothing here knows a model, and nothing
else of the library is imported. Another measure of a text goes into `behaviour/`, another interval
or test into `intervals`, and the rules of a verdict are in `verdicts` alone.
"""

import lazy_loader  # type: ignore[import-untyped]

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["behaviour", "crossed", "intervals", "verdicts"]
)
