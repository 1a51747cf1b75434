"""Medians, and intervals that tell a change from noise."""
import random
import statistics

RESAMPLES = 2000


def median(values):
    return statistics.median(values) if values else None


def spread(values):
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 3 or not statistics.median(values):
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)


def ratio_interval(before, after, seed=1):
    """The ratio of medians after / before with its 95 % bootstrap interval: (ratio, low, high).

    Both lists are drawn from again, with replacement; the same seed each time, so that a comparison
    can be repeated.
    """
    chance = random.Random(seed)
    ratio = statistics.median(after) / statistics.median(before)
    drawn = sorted(statistics.median(chance.choices(after, k=len(after))) /
                   statistics.median(chance.choices(before, k=len(before)))
                   for _ in range(RESAMPLES))
    return ratio, drawn[int(RESAMPLES * 0.025)], drawn[int(RESAMPLES * 0.975) - 1]


def paired_interval(before, after, seed=1):
    """As ratio_interval, of values that were measured in pairs: what disturbed both goes out."""
    chance = random.Random(seed)
    ratios = [b / a for a, b in zip(before, after)]
    drawn = sorted(statistics.median(chance.choices(ratios, k=len(ratios)))
                   for _ in range(RESAMPLES))
    return (statistics.median(ratios), drawn[int(RESAMPLES * 0.025)],
            drawn[int(RESAMPLES * 0.975) - 1])
