"""Values of texts that were each compared with all other texts."""

import numpy as np
from jaxtyping import Float


def pairwise_values(
    values: Float[np.ndarray, "*cell text"],
) -> Float[np.ndarray, "*cell text"]:
    """Such values, ready to be resampled: their deviations from the mean are doubled.

    Their mean is one over pairs of texts. A text counts in it by its own value and, to first order,
    once more as one of the others in all other values (Hoeffding 1948, "A class of statistics with
    asymptotically normal distribution"). Resampled as they are, they would give intervals of half
    the width.
    """
    mean = values.mean(-1, keepdims=True)
    return mean + 2 * (values - mean)
