"""Intervals of stored runs by today's rule for few seeds, from those by an older one."""

import math

import numpy as np
from scipy import optimize, stats


def half_width_by_todays_rule(row, miss=0.05, *, seeds=3, documents=60):
    """Half the width of an interval of which only the ends by the older rule are stored.

    Both rules resample seeds and documents. The older one has a single t, whose degrees of freedom
    are Satterthwaite's; they follow from the ends and the p-value, and say what share of the
    variance of the resamples is due to seeds. Networks from scratch are measured on 60 documents.
    """
    half = (row.high - row.low) / 2
    freedoms = np.array([seeds - 1, documents - 1])

    def beyond(freedom):
        away = abs(row.estimate) / half * stats.t.isf(0.025, freedom)
        return stats.t.logsf(away, freedom) + math.log(2 / row.p_value)

    freedom = optimize.brentq(beyond, freedoms[0], freedoms.sum())

    def of_seeds(share):
        return (np.array([share, 1 - share]) ** 2 / freedoms).sum() - 1 / freedom

    share = optimize.brentq(of_seeds, freedoms[0] / freedoms.sum(), 1)
    shares, shrunk = np.array([share, 1 - share]), freedoms / (freedoms + 1)
    variance = (half / stats.t.isf(0.025, freedom)) ** 2 * (shares * shrunk).sum()
    variances = variance * shares / shrunk
    return np.average(stats.t.isf(miss / 2, freedoms), weights=variances) * variances.sum() ** 0.5
