"""Naive versions of the measures, written from their definitions with loops over Python lists."""

import itertools
import math
import random


def rep_n(tokens, n):
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def distinct_n(texts, n):
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / sum(len(text) for text in texts) if grams else math.nan


def has_period(tokens, period):
    return all(tokens[i] == tokens[i + period] for i in range(len(tokens) - period))


def loops(tokens, min_rounds, min_length):
    """(start, end, period) of every stretch that is periodic and lies in no other such stretch."""
    stretches = {}
    for start, end in itertools.combinations(range(len(tokens) + 1), 2):
        for period in range(1, end - start + 1):
            long_enough = end - start >= max(min_rounds * period, min_length)
            if long_enough and has_period(tokens[start:end], period):
                stretches.setdefault((start, end), period)
    # A stretch inside one of the same period is a part of it; inside another loop it is left out.
    return sorted(
        (start, end, period)
        for (start, end), period in stretches.items()
        if not any((a, b) != (start, end) and a <= start and end <= b for a, b in stretches)
    )


def ending_loop(tokens, min_rounds, min_length):
    """(start, end, period) of the longest periodic tail."""
    for start in range(len(tokens)):
        tail = tokens[start:]
        for period in range(1, len(tail) + 1):
            if len(tail) >= max(min_rounds * period, min_length) and has_period(tail, period):
                return start, len(tokens), period
    return None


def pair_distance(tokens):
    """For each position, how far back the pair that begins there occurred last; 0 if never."""
    distances = []
    for i in range(len(tokens)):
        earlier = [k for k in range(i) if tokens[k : k + 2] == tokens[i : i + 2]]
        distances.append(i - max(earlier) if earlier and i + 1 < len(tokens) else 0)
    return distances


def surprise_distance(tokens, nats, surprising):
    """For each next token, how far back it stood first, if that is not the start and surprised."""
    distances = []
    for i in range(1, len(tokens)):
        first = tokens.index(tokens[i])
        repeats = 0 < first < i and nats[first - 1] >= surprising
        distances.append(i - first if repeats else 0)
    return distances


def induction_targets(tokens):
    targets = []
    for i, token in enumerate(tokens):
        earlier = [k for k in range(i) if tokens[k] == token]
        targets.append(tokens[max(earlier) + 1] if earlier else -1)
    return targets


def kaplan_meier(times, looped):
    """Share without the event after each whole time, by the product over event times."""
    shares, share = [], 1.0
    for t in range(max(times) + 1):
        at_risk = sum(time >= t for time in times)
        events = sum(time == t and event for time, event in zip(times, looped, strict=True))
        share *= 1 - events / at_risk
        shares.append(share)
    return shares


def bootstrap_means(totals, counts, n_resamples, seed):
    """Sorted bootstrap distribution of the mean over all tokens of resampled sequences."""
    rng = random.Random(seed)
    means = []
    for _ in range(n_resamples):
        drawn = rng.choices(range(len(totals)), k=len(totals))
        means.append(sum(totals[i] for i in drawn) / sum(counts[i] for i in drawn))
    return sorted(means)


def sign_flip_p_value(differences):
    """Exact two-sided p-value over all sign patterns: twice the smaller tail."""
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    observed = sum(differences)
    tail = min(sum(s >= observed - 1e-9 for s in sums), sum(s <= observed + 1e-9 for s in sums))
    return min(1.0, 2 * tail / len(sums))


def crossed_variances(totals, counts, draws):
    """Variances of the mean over crossed rows and columns that are due to rows and to columns.

    `draws` holds, for each resample, how often each row and how often each column was drawn.
    """
    rows, columns = range(len(totals)), range(len(totals[0]))

    def mean(row_times, column_times):
        total = count = 0.0
        for r in rows:
            for c in columns:
                total += row_times[r] * column_times[c] * totals[r][c]
                count += row_times[r] * column_times[c] * counts[r][c]
        return total / count

    means = [mean(*times) for times in draws]
    middle = sum(means) / len(means)
    variance = sum((m - middle) ** 2 for m in means) / len(means)
    overall = mean([1] * len(totals), [1] * len(totals[0]))
    of_rows = sum(sum(totals[r][c] - overall * counts[r][c] for c in columns) ** 2 for r in rows)
    of_columns = sum(sum(totals[r][c] - overall * counts[r][c] for r in rows) ** 2 for c in columns)
    m, n = len(totals), len(totals[0])
    both = of_rows + of_columns
    return (
        variance * of_rows / both * m / (m - 1),
        variance * of_columns / both * n / (n - 1),
    )
