"""Intervals over paired seeds: against scipy and by hand, when there are none, coverage."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from entrob.statistics import intervals

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import coverage


def draw(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, shape)


def test_t_interval_is_scipys_and_stays_within_bounds():
    scores = draw(10, 3)
    found = intervals.t_interval(scores, 0.9)
    expected = scipy.stats.ttest_1samp(scores, 0).confidence_interval(0.9)
    np.testing.assert_allclose(found[1:], expected)
    low, high = intervals.t_interval([0.9, 1.0, 1.0], bounds=(0, 1))[1:]
    assert 0 < low < 0.9 and high == 1
    for alone in ([0.5], [1.0, 1.0, 1.0]):
        assert np.isnan(intervals.t_interval(alone)[1:]).all()
    assert np.isnan(intervals.t_interval([])).all()


def test_estimate_is_a_sum_over_tasks_of_means_over_pairs():
    pairs = draw(2, 8, 3)
    pairs[1, 6:, 0] = np.nan  # two pairs are missing
    pairs[0, :, 1] = np.nan  # a contrast of the second task alone
    pairs[:, :, 2] = np.nan
    value, error, due = intervals.estimate(pairs)
    by_hand = pairs[0, :, 0].mean() + pairs[1, :6, 0].mean()
    assert value[0] == pytest.approx(by_hand)
    assert value[1] == pytest.approx(pairs[1, :, 1].mean()) and np.isnan(value[2])
    variance = pairs[0, :, 0].var(ddof=1) / 8 + pairs[1, :6, 0].var(ddof=1) / 6
    assert error[0] == pytest.approx(np.sqrt(variance))
    assert due.tolist() == [True, True, False]


def test_no_interval_below_six_pairs_or_for_pairs_that_are_all_alike():
    pairs = draw(2, 8, 4, mean=9)
    pairs[1, 5:, 0] = np.nan
    pairs[:, :, 1] = 0.25
    pairs[0, :, 2] = 0.25  # alike in one task, not in the other
    for found in (intervals.bootstrap_t(pairs), intervals.simultaneous(pairs)):
        assert np.isnan(found.low).tolist() == [True, True, False, False]
        assert np.isnan(found.high).tolist() == [True, True, False, False]
        assert np.isfinite(found.value).all()
    assert np.isnan(intervals.rank_intervals(pairs[:, :, :1])).all()


def test_bootstrap_t_by_hand():
    """A loop that redraws the pairs of each task and divides by the error of what was drawn."""
    pairs = np.stack([draw(7, 1), draw(7, 1, seed=1) ** 2])
    value, error, _ = (x[0] for x in intervals.estimate(pairs))
    rng, t = np.random.default_rng(5), []
    for _ in range(20_000):
        part = np.stack([task[rng.integers(7, size=7), 0] for task in pairs])
        spread = np.sqrt((part.var(1, ddof=1) / 7).sum())
        t.append((part.mean(1).sum() - value) / max(spread, error / np.sqrt(7)))
    below, above = np.quantile(t, [0.025, 0.975])
    found = intervals.bootstrap_t(pairs, samples=20_000)
    assert found.low[0] == pytest.approx(value - above * error, abs=0.05)
    assert found.high[0] == pytest.approx(value - below * error, abs=0.05)


def test_bootstrap_t_is_seeded_and_does_not_depend_on_blocks(monkeypatch):
    pairs = draw(3, 10, 7)
    first = intervals.bootstrap_t(pairs, seed=3)
    np.testing.assert_array_equal(first, intervals.bootstrap_t(pairs, seed=3))
    assert (first.low != intervals.bootstrap_t(pairs, seed=4).low).all()
    monkeypatch.setattr(intervals, "BLOCK", 10_000)
    np.testing.assert_allclose(first, intervals.bootstrap_t(pairs, seed=3))
    # A shift of the pairs shifts the interval, a factor scales it.
    moved = intervals.bootstrap_t(2 * pairs + 1, seed=3)
    np.testing.assert_allclose(moved.low, 2 * first.low + 3)


def test_simultaneous_enumerates_all_flips():
    pairs = draw(1, 8, 2, mean=0.5)
    found = intervals.simultaneous(pairs)
    largest = []
    for bits in range(2**8):
        signs = 1 - 2 * ((bits >> np.arange(8)) & 1)
        flipped = signs[:, None] * pairs[0]
        largest.append(np.max(np.abs(scipy.stats.ttest_1samp(flipped, 0).statistic)))
    critical = np.sort(largest)[int(np.ceil(0.95 * 256)) - 1]
    error = pairs[0].std(0, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(found.high - found.value, critical * error)
    np.testing.assert_allclose(found.value - found.low, critical * error)


def test_more_contrasts_widen_simultaneous_intervals_and_copies_do_not():
    pairs = draw(2, 10, 1)
    width = lambda x: np.ptp(intervals.simultaneous(x)[1:], axis=0)[0]
    assert width(np.repeat(pairs, 30, axis=2)) == pytest.approx(width(pairs))
    assert width(np.concatenate([pairs, draw(2, 10, 29, seed=1)], axis=2)) > 1.2 * width(pairs)


def test_six_pairs_of_one_sign_are_told_from_zero_and_five_are_not():
    found = lambda n: intervals.simultaneous(np.linspace(0.9, 1.0, n)[None, :, None])
    assert found(6).low[0] > 0 and np.isnan(found(5).low[0])


def test_rank_intervals():
    clear = draw(2, 10, 1, seed=1) * 0.01 + np.array([3.0, 2.0, 1.0])
    assert np.array(intervals.rank_intervals(clear)).tolist() == [[1, 2, 3], [1, 2, 3]]
    close = draw(2, 10, 3, seed=2) + np.array([0.0, 0.0, -9.0])
    best, worst = intervals.rank_intervals(close)
    assert (best.tolist(), worst.tolist()) == ([1, 1, 3], [2, 2, 3])


def test_paired_difference_pairs_by_the_seeds_value():
    x = {seed: seed + 0.1 * (seed % 3) for seed in range(9)}
    y = {seed: float(seed) for seed in reversed(range(1, 20))}
    found = intervals.paired_difference(x, y)
    assert found.pairs == 8 and found.value == pytest.approx(
        np.mean([0.1 * (s % 3) for s in range(1, 9)])
    )
    assert 0 < found.low < found.value < found.high
    assert intervals.paired_difference({1: 0.0}, {2: 0.0}).pairs == 0
    few = intervals.paired_difference({s: x[s] for s in range(6)}, y)
    assert few.pairs == 5 and np.isnan(few.low)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("law", coverage.LAWS)
def test_coverage_at_ten_seeds(law, tasks):
    """92–97 % for normal and skewed outcomes, at least 92 % for 0/1.

    A lognormal law with σ = 1 (skewness 6) is beyond ten seeds: 90 % is what is asked of it.
    """
    found = coverage.coverage(law, 10, tasks, 3000)["coverage"]
    binary, heavy = law.startswith("0/1"), law == "lognormal, σ = 1"
    slack = 2.5 * np.sqrt(0.05 * 0.95 / 3000)
    assert found > (0.90 if heavy else 0.92) - slack
    assert binary or found < 0.97 + slack


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "0/1, 0.5"])
def test_family_error_is_at_most_five_percent(law):
    found = coverage.family_error(law, 10, 2, 40, 600)
    assert found < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 600)
