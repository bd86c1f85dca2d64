"""Lenses and probes fitted to a corpus, and their quality on other text.

It may import `intervention`, `lens` and what is below them, and no experiment. Lenses and
probes in closed form are one pass of `corpus_moments.py` over the texts and a solution of
`ridge.py`; a new one defines the sums that it takes over a window. `linear_ceiling` has sums of its
own, one per text. A measure of a fit has a module of its own, such as `lens_quality.py`.
"""
