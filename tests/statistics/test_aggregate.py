"""Statistics against hand-computed cases, scipy, rliable's formulas and known coverage."""

import numpy as np
import pytest
import scipy.stats

from entrob.statistics import aggregate

SCORES = np.random.default_rng(3).normal(size=(20, 6))


def test_interquartile_mean_by_hand():
    assert aggregate.interquartile_mean([100, 1, 2, -50]) == 1.5
    # n = 6: one score goes at each end.
    assert aggregate.interquartile_mean([9, 1, 2, 3, 4, -9]) == 2.5
    assert aggregate.interquartile_mean([7.0]) == 7.0


def test_interquartile_mean_is_rliables_over_runs_and_tasks_together():
    # rliable: scipy.stats.trim_mean(scores, proportiontocut=0.25, axis=None)
    expected = np.sort(SCORES.ravel())[30:90].mean()
    assert aggregate.interquartile_mean(SCORES) == pytest.approx(expected, abs=1e-12)
    by_task = aggregate.interquartile_mean(SCORES, axis=0)
    assert by_task == pytest.approx(np.sort(SCORES, axis=0)[5:15].mean(axis=0), abs=1e-12)


def test_interquartile_mean_does_not_hide_nan():
    scores = np.array([[1.0, 2, 3, 4, np.nan], [1, 2, 3, 4, 5]])
    assert np.isnan(aggregate.interquartile_mean(scores[0]))
    np.testing.assert_array_equal(aggregate.interquartile_mean(scores, axis=1), [np.nan, 3])


@pytest.mark.parametrize(("level", "z"), [(0.96, 2.0537489), (0.95, 1.9599640)])
def test_normal_band(level, z):
    mean, band = aggregate.normal_band([0.0, 1, 2, 3], level)
    assert mean == 1.5
    assert band == pytest.approx(z * np.sqrt(5 / 3) / 2, rel=1e-6)


def test_normal_band_of_one_and_of_no_run():
    mean, band = aggregate.normal_band([[0.5, 0.25]])
    np.testing.assert_array_equal(mean, [0.5, 0.25])
    assert np.isnan(band).all() and band.shape == (2,)
    assert np.isnan(aggregate.normal_band([])).all()
    with pytest.raises(ValueError, match="level"):
        aggregate.normal_band([1.0, 2.0], level=96)


def test_normal_band_coverage_is_that_of_the_t_distribution():
    n, trials = 25, 20_000
    scores = np.random.default_rng(0).normal(size=(n, trials))
    mean, band = aggregate.normal_band(scores, 0.96)
    expected = 1 - 2 * scipy.stats.t.sf(scipy.stats.norm.ppf(0.98), n - 1)
    error = np.sqrt(expected * (1 - expected) / trials)
    assert abs((np.abs(mean) <= band).mean() - expected) < 4 * error


def test_bootstrap_matches_scipy():
    scores = SCORES[:, 0]
    for statistic in (np.mean, aggregate.interquartile_mean):
        ours = aggregate.bootstrap_interval(scores, statistic, samples=50_000, seed=1)
        theirs = scipy.stats.bootstrap(
            (scores,), statistic, n_resamples=50_000, method="percentile", rng=2
        ).confidence_interval
        assert ours == pytest.approx(theirs, abs=0.02 * scores.std())


def test_bootstrap_is_stratified():
    # Runs hardly differ within a task: redrawing inside tasks changes little, across them much.
    scores = np.array([0.0, 10.0, 20.0]) + 0.01 * np.arange(8.0)[:, None]
    low, high = aggregate.bootstrap_interval(scores)
    assert 9.9 < low < 10.035 < high < 10.2


def test_there_is_no_interval_without_width_or_of_few_runs():
    assert np.isnan(aggregate.bootstrap_interval(np.ones(25))).all()
    # One of 41 differs, which the interquartile mean trims away.
    scores = np.array([0.0, *np.ones(40)])
    assert np.isnan(aggregate.bootstrap_interval(scores, aggregate.interquartile_mean)).all()
    assert np.isnan(aggregate.bootstrap_interval([0.1, 0.5, 0.3, 0.2, 0.9])).all()
    assert np.isfinite(aggregate.bootstrap_interval([0.1, 0.5, 0.3, 0.2, 0.9, 0.4])).all()


def test_bootstrap_redraws_tasks_independently():
    # Were whole rows redrawn, the tasks' opposite signs would cancel and leave no width.
    column = np.arange(10.0)
    low, high = aggregate.bootstrap_interval(np.stack([column, -column], axis=1))
    spread = np.sqrt(2) * column.std() / np.sqrt(10) / 2
    assert (high - low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.05)


def test_bootstrap_seed_blocks_and_edges(monkeypatch):
    first = aggregate.bootstrap_interval(SCORES, seed=5, samples=1000)
    assert first == aggregate.bootstrap_interval(SCORES, seed=5, samples=1000)
    assert first != aggregate.bootstrap_interval(SCORES, seed=6, samples=1000)
    monkeypatch.setattr(aggregate, "BLOCK", 300 * SCORES.size)
    assert first == aggregate.bootstrap_interval(SCORES, seed=5, samples=1000)
    for scores in ([], [1.0], [1.0, np.nan, 2.0]):
        assert np.isnan(aggregate.bootstrap_interval(scores)).all()
    with pytest.raises(ValueError, match="axes"):
        aggregate.bootstrap_interval(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="level"):
        aggregate.bootstrap_interval(SCORES, level=95)


def test_bootstrap_coverage():
    # The percentile interval of a mean has the width of z s_n / √n, a little under nominal.
    generator = np.random.default_rng(0)
    trials, n = 600, 25
    hits = 0
    for trial in range(trials):
        low, high = aggregate.bootstrap_interval(generator.normal(size=n), samples=500, seed=trial)
        hits += low <= 0 <= high
    expected = 1 - 2 * scipy.stats.t.sf(1.96 * np.sqrt((n - 1) / n), n - 1)
    assert abs(hits / trials - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)


def test_probability_of_improvement_by_hand():
    x = {4: 1.0, 7: 0.5, 9: 0.2, 11: 0.9}
    y = {11: 0.1, 4: 0.0, 9: 0.3, 7: 0.5}  # another order: pairs go by the seed, not by place
    assert aggregate.probability_of_improvement(x, y) == (1 + 0.5 + 0 + 1) / 4
    assert aggregate.probability_of_improvement(y, x) == 1 - (1 + 0.5 + 0 + 1) / 4


def test_probability_of_improvement_refuses_mismatched_seeds():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        aggregate.probability_of_improvement({1: 0.0, 2: 1.0}, {1: 0.0, 3: 1.0})
    with pytest.raises(ValueError, match="no seeds"):
        aggregate.probability_of_improvement({}, {})


def test_probability_of_improvement_ties_and_nan():
    assert aggregate.probability_of_improvement({1: 0.3, 2: 0.4}, {1: 0.3, 2: 0.4}) == 0.5
    assert np.isnan(aggregate.probability_of_improvement({1: np.nan, 2: 1}, {1: 0, 2: 0}))


def test_performance_profile_is_rliables():
    thresholds = np.linspace(-2, 2, 9)
    # rliable: mean over tasks of the mean over runs of 1[score > tau]
    expected = [np.mean([np.mean(task > tau) for task in SCORES.T]) for tau in thresholds]
    assert aggregate.performance_profile(SCORES, thresholds) == pytest.approx(expected)
    strict = aggregate.performance_profile([0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(strict, [0.75, 0.5, 0.0])
    assert np.isnan(aggregate.performance_profile([1.0, np.nan], [0.0])).all()


def test_area_under_curve():
    assert aggregate.area_under_curve([0, 10], [1.0, 0.0]) == 0.5
    # Uneven magnitudes in any order: 0.25 · (1 + 0.5)/2 + 0.75 · (0.5 + 0)/2.
    assert aggregate.area_under_curve([8, 0, 2], [0.0, 1.0, 0.5]) == pytest.approx(0.375)
    flat = aggregate.area_under_curve([1, 2, 5], np.full((4, 3), 0.7))
    assert flat == pytest.approx(np.full(4, 0.7))
    assert np.isnan(aggregate.area_under_curve([3], [1.0]))
    assert np.isnan(aggregate.area_under_curve([0, 1, 2], [1.0, np.nan, 0.0]))
    with pytest.raises(ValueError, match="repeats"):
        aggregate.area_under_curve([0, 1, 1], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="match"):
        aggregate.area_under_curve([0, 1], [1.0, 1.0, 1.0])


def test_cvar():
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert aggregate.cvar(values, 0.4) == 1.5
    assert aggregate.cvar(values, 0.5) == pytest.approx((1 + 2 + 0.5 * 3) / 2.5)
    assert aggregate.cvar(values, 0.01) == pytest.approx(1.0)  # less than one value: the worst
    assert aggregate.cvar(values, 1) == 3.0
    # The definition: max over thresholds v of v - E[(v - X)+] / fraction.
    for fraction in (0.13, 0.37, 0.9):
        by_definition = max(v - np.mean(np.maximum(v - SCORES, 0)) / fraction for v in SCORES.flat)
        assert aggregate.cvar(SCORES, fraction) == pytest.approx(by_definition)
    assert np.isnan(aggregate.cvar([]))
    assert np.isnan(aggregate.cvar([1.0, np.nan]))
    with pytest.raises(ValueError, match="fraction"):
        aggregate.cvar(values, 0)


def test_welch_interval_is_scipys():
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.4, 0.3, 20), generator.normal(0.2, 0.1, 5)
    stats = [f(s) for s in (x, y) for f in (np.mean, lambda s: np.std(s, ddof=1), len)]
    found = aggregate.welch_interval(*stats)
    interval = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(found[1:], interval)
    assert found.value == pytest.approx(x.mean() - y.mean())
    pvalue = scipy.stats.ttest_ind_from_stats(*stats, equal_var=False).pvalue
    assert (found.low > 0 or found.high < 0) == (pvalue < 0.05)


def test_welch_interval_needs_two_of_each_and_deviations():
    for one in ((0.5, 0.1, 1), (0.5, np.nan, 0), (np.nan, np.nan, 0)):
        assert np.isnan(aggregate.welch_interval(*one, 0.4, 0.1, 20)[1:]).all()
    assert np.isnan(aggregate.welch_interval(0.5, 0.1, 5, 0.4, np.nan, 0).low)
    assert aggregate.welch_interval(1.0, 0.0, 5, 0.75, 0.0, 9) == (0.25, 0.25, 0.25)
