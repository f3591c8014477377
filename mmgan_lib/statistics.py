"""Intervals of a share of tries, of a mean over seeds, and for one more value."""

import math
from collections.abc import Sequence
from statistics import mean, stdev


def binomial_interval(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Computes the interval of Wilson (1927) for the probability behind so many hits in n independent tries.

    .. math:: \frac{1}{1 + z^2/n} \left( \hat p + \frac{z^2}{2n}
        \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}} \right), \qquad \hat p = \frac{k}{n}

    with z = 1.96 for a level of 95%. Unlike :math:`\hat p \pm z \sqrt{\hat p (1 - \hat p) / n}` it stays within [0, 1]
    and keeps its level near the ends.

    Raises:
        ValueError: ``hits`` does not lie between 0 and ``n``, or there is no try.

    >>> low, high = binomial_interval(10, 10)
    >>> round(low, 3), high
    (0.722, 1.0)
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"hits is {hits} and n is {n}; expected 0 ≤ hits ≤ n and at least one try.")
    from scipy.stats import binomtest

    low, high = binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    r"""Computes the interval of the mean of the source that the values were drawn from (Student, 1908).

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt{n}

    with the mean and the standard deviation s of n values taken as normal, and the quantile t of Student's
    distribution for ``level``.

    Args:
        values: two or more, such as one number for each seed.
        level: the share of such intervals that hold the mean.

    Raises:
        ValueError: fewer than two values, or one that is not finite.

    >>> mean_interval([2.0, 3.0, 4.0])
    (0.51..., 5.48...)
    """
    n, centre, s, t = _student(values, level)
    reach = t * s / math.sqrt(n)
    return centre - reach, centre + reach


def prediction_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    r"""Computes the interval for one more value from the source of these (Hahn & Meeker, 1991).

    .. math:: \bar v \pm t_{n-1} \, s \sqrt{1 + 1/n}

    with the mean and the standard deviation s of n values taken as normal, and the quantile t of Student's
    distribution for ``level``. As s counts at least 1% of the mean: a share that came out as 1 every time may be 0.998
    on another machine.

    Args:
        values: two or more.
        level: the probability that a value from the same source falls inside.

    Raises:
        ValueError: fewer than two values, or one that is not finite.

    >>> prediction_interval([2.0, 3.0, 4.0], level=0.9)
    (-0.37..., 6.37...)
    """
    n, centre, s, t = _student(values, level)
    reach = t * max(s, 0.01 * abs(centre)) * math.sqrt(1 + 1 / n)
    return centre - reach, centre + reach


def _student(values: Sequence[float], level: float) -> tuple[int, float, float, float]:
    """Computes the number of values, their mean and standard deviation, and Student's quantile for ``level``."""
    from scipy.stats import t

    finite = sum(map(math.isfinite, values))
    if finite < max(2, len(values)):
        raise ValueError(f"values: found {len(values)}, {finite} of them finite; expected two or more finite numbers.")
    return len(values), mean(values), stdev(values), float(t.ppf((1 + level) / 2, len(values) - 1))
