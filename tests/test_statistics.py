"""Intervals hold the truth as often as they say, and agree with scipy's."""

from math import comb

import numpy as np
import pytest
from scipy import stats

from mmgan_lib.statistics import binomial_interval, mean_interval


def covered(n: int, p: float) -> float:
    """How often the 95% interval of n tries holds p, summed over all outcomes."""
    inside = (k for k in range(n + 1) if binomial_interval(k, n)[0] <= p <= binomial_interval(k, n)[1])
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside)


@pytest.mark.parametrize("n", [10, 50, 500])
def test_the_interval_of_a_share_covers_the_truth_about_95_percent_of_the_time(n: int) -> None:
    mean = sum(covered(n, p / 100) for p in range(1, 100)) / 99
    assert mean == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (1, 7), (50, 100), (499, 500), (500, 500)])
def test_the_ends_are_where_a_score_test_would_just_not_reject(hits: int, n: int) -> None:
    """Wilson's interval inverts (k/n - p)² = z² p(1 - p)/n."""
    for p in binomial_interval(hits, n):
        assert (hits / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=1e-6)
    low, high = binomial_interval(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    mirrored = binomial_interval(n - hits, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_a_higher_level_is_wider() -> None:
    widths = [high - low for low, high in (binomial_interval(30, 100, level=level) for level in (0.5, 0.95, 0.99))]
    assert widths == sorted(widths)
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 ≤ hits ≤ n"):
        binomial_interval(hits, n)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_of_a_mean_is_that_of_the_t_test(n: int, level: float) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert mean_interval(values, level=level) == pytest.approx((theirs.low, theirs.high))
    assert mean_interval(values.tolist(), level=level) == pytest.approx((theirs.low, theirs.high))


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="found 1, 1 of them finite; expected two or more"):
        mean_interval([0.5])
    with pytest.raises(ValueError, match=r"^values: found 2, 1 of them finite; expected two or more finite numbers\.$"):
        mean_interval([0.5, float("nan")])
