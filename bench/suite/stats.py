"""Medians, and intervals that tell a change from noise."""
import random
import statistics

RESAMPLES = 4000
ERROR = 0.05  # that one of all intervals of a comparison does not hold the truth


def median(values):
    return statistics.median(values) if values else None


def spread(values):
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 3 or not statistics.median(values):
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)


def ends(drawn, intervals):
    """Of what was drawn, the ends of one of so many intervals that shall hold all together."""
    drawn, beyond = sorted(drawn), int(RESAMPLES * ERROR / 2 / intervals)
    return drawn[beyond], drawn[-1 - beyond]


def ratio_interval(before, after, intervals=1, seed=1):
    """The ratio of medians after / before with its 95 % bootstrap interval: (ratio, low, high).

    Both lists are drawn from again, with replacement; the same seed each time, so that a comparison
    can be repeated. It is one of `intervals` that are looked at: each is as much wider.
    """
    chance = random.Random(seed)
    ratio = statistics.median(after) / statistics.median(before)
    drawn = [statistics.median(chance.choices(after, k=len(after))) /
             statistics.median(chance.choices(before, k=len(before))) for _ in range(RESAMPLES)]
    return (ratio, *ends(drawn, intervals))


def paired_interval(before, after, intervals=1, seed=1):
    """As ratio_interval, of values that were measured in pairs: what disturbed both goes out."""
    chance = random.Random(seed)
    ratios = [b / a for a, b in zip(before, after)]
    drawn = [statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
    return (statistics.median(ratios), *ends(drawn, intervals))
