"""Statistics over seeds, instances and magnitudes: point estimates and their intervals.

Scores are arrays `[runs]` or `[runs, tasks]`.  A NaN score is never dropped or trimmed away: it
makes the result NaN.  Everything random is seeded.

Sources: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*
(NeurIPS 2021; "rliable" below) for the interquartile mean, the stratified bootstrap, the
performance profile and the probability of improvement; Rockafellar and Uryasev, *Conditional
Value-at-Risk for General Loss Distributions* (2002) for the fractional weights of CVaR.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from entrob.statistics.intervals import FEWEST

BLOCK = 4_000_000
"""Resampled scores held in memory at once."""


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> np.ndarray:
    """Mean of the middle half of the scores: the 25 % trimmed mean (rliable, Section 4.3).

    Args:
      scores: float[...]; trimmed over `axis`, or over runs and tasks together if it is None.
      axis: the axis to reduce.

    Returns:
      float, or float[...] without `axis`; NaN wherever a score was NaN.  As in scipy, ⌊n/4⌋ scores
      go at each end.
    """
    scores = np.asarray(scores, dtype=float)
    trimmed = scipy.stats.trim_mean(scores, 0.25, axis=axis)
    # Sorting would put a NaN at the end, where trimming hides it.
    return np.where(np.isnan(scores).any(axis=axis), np.nan, trimmed)[()]


def normal_quantile(level: float) -> float:
    """Half-width of a two-sided normal interval in standard errors: 2.054 at 0.96."""
    return float(scipy.stats.norm.ppf((1 + _fraction("level", level)) / 2))


def normal_band(
    scores: ArrayLike, level: float = 0.96, axis: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half-width of its normal confidence band, z s / √n with the sample deviation s.

    Args:
      scores: float[..., n, ...], n independent runs along `axis`.
      level: two-sided confidence; 0.96 (z = 2.054) is the paper's text, 0.95 (1.96) its code.
      axis: the axis of the runs.

    Returns:
      (mean, half_width), each without `axis`; the half-width is NaN for a single run, both are for
      none.
    """
    scores = np.asarray(scores, dtype=float)
    z = normal_quantile(level)
    n = scores.shape[axis]
    if n == 0:
        empty = np.full(np.delete(scores.shape, axis), np.nan)[()]
        return empty, empty
    mean = scores.mean(axis=axis)
    if n == 1:
        return mean, np.full_like(mean, np.nan)[()]
    return mean, z * scores.std(axis=axis, ddof=1) / np.sqrt(n)


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic under the stratified bootstrap (rliable, Section 4.1).

    Each task is a stratum: its runs are redrawn with replacement, independently of other tasks.

    Args:
      scores: float[runs] or float[runs, tasks].
      statistic: `(float[samples, runs * tasks], axis=-1) -> float[samples]`, such as `np.mean` or
        `interquartile_mean`.
      strata: int[tasks], columns of one number are scores of the same runs and are redrawn
        together; None: each column is a stratum.
      level: two-sided confidence.
      samples: number of bootstrap replicates.
      seed: of the generator; the same one gives the same interval.

    Returns:
      (low, high); NaN with fewer than `FEWEST` runs, of which it would cover far less than it
      says, with a NaN among the scores, or where redrawn runs do not differ.

    Raises:
      ValueError: if scores have more than two axes or `level` is not in (0, 1).
    """
    scores = np.asarray(scores, dtype=float)
    tail = (1 - _fraction("level", level)) / 2
    if scores.ndim not in (1, 2):
        raise ValueError(f"scores must be [runs] or [runs, tasks], got {scores.ndim} axes")
    scores = scores.reshape(len(scores), -1) if scores.size else np.empty((0, 1))
    runs, tasks = scores.shape
    if runs < FEWEST or np.isnan(scores).any():
        return np.nan, np.nan
    stratum = np.arange(tasks) if strata is None else np.unique(strata, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // scores.size)
    values = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        rows = generator.integers(runs, size=(size, runs, stratum.max() + 1))[..., stratum]
        values.append(statistic(scores[rows, np.arange(tasks)].reshape(size, -1), axis=-1))
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return (float(low), float(high)) if low < high else (np.nan, np.nan)


def probability_of_improvement(x: Mapping[int, float], y: Mapping[int, float]) -> float:
    """P(X > Y) + P(X = Y) / 2 over runs that share a seed.

    rliable (Section 4.3) compares every run of X with every run of Y; here only runs of one seed
    meet, because they share initialization and test instances.

    Args:
      x, y: score by seed.  Pairs form by the seed's value, never by position.

    Raises:
      ValueError: if the two do not hold the same seeds, or hold none.
    """
    if set(x) != set(y):
        odd = sorted(set(x) ^ set(y))
        raise ValueError(f"scores are paired by seed, but only one side has seeds {odd}")
    if not x:
        raise ValueError("no seeds to pair")
    return float(np.mean([(np.sign(x[seed] - y[seed]) + 1) / 2 for seed in sorted(x)]))


class Difference(NamedTuple):
    """Difference of two means and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def welch_interval(
    mean: float, std: float, n: int, mean2: float, std2: float, n2: int, *, level: float = 0.95
) -> Difference:
    """First mean minus the second, with Welch's interval (Welch 1947): unequal deviations.

    The half-width is t √(s₁²/n₁ + s₂²/n₂) with Welch–Satterthwaite degrees of freedom.

    Args:
      mean, mean2: of the two samples.
      std, std2: sample standard deviations (with n - 1).
      n, n2: sizes of the samples.
      level: two-sided confidence.

    Returns:
      `Difference`; the ends are NaN unless both samples have two members and known deviations, and
      equal the difference where neither sample varies.
    """
    quantile = (1 + _fraction("level", level)) / 2
    value = float(mean - mean2)
    a, b = (s * s / size if size >= 2 else np.nan for s, size in ((std, n), (std2, n2)))
    if np.isnan(a + b):
        return Difference(value, np.nan, np.nan)
    if a + b == 0:
        return Difference(value, value, value)
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n2 - 1))
    half = float(scipy.stats.t.ppf(quantile, freedom) * np.sqrt(a + b))
    return Difference(value, value - half, value + half)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Fraction of runs, over all tasks, scoring above each threshold (rliable, Section 4.2).

    F(τ) = 1/M Σ_m 1/N Σ_n 1[x_mn > τ], strictly above.

    Args:
      scores: float[runs] or float[runs, tasks].
      thresholds: float[k], any order.

    Returns:
      float[k] in [0, 1], non-increasing in τ; NaN with a NaN among the scores.
    """
    scores = np.asarray(scores, dtype=float).ravel()
    thresholds = np.asarray(thresholds, dtype=float)
    if not scores.size or np.isnan(scores).any():
        return np.full(thresholds.shape, np.nan)
    return (scores > thresholds[..., None]).mean(axis=-1)


def area_under_curve(magnitudes: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Area under a robustness curve: the trapezoid rule over magnitudes scaled to [0, 1].

    The smallest magnitude maps to 0 and the largest to 1, both count, so a flat curve at v has area
    v and areas of perturbations with different units compare.

    Args:
      magnitudes: float[m], any order, distinct.
      values: float[..., m].

    Returns:
      float[...]; NaN with a single magnitude, under which there is no area.

    Raises:
      ValueError: if a magnitude repeats or the shapes do not match.
    """
    magnitudes, values = np.asarray(magnitudes, dtype=float), np.asarray(values, dtype=float)
    if magnitudes.ndim != 1 or values.shape[-1:] != magnitudes.shape:
        raise ValueError(f"{values.shape} values do not match {magnitudes.shape} magnitudes")
    if len(np.unique(magnitudes)) != len(magnitudes):
        raise ValueError("a magnitude repeats")
    if len(magnitudes) < 2:
        return np.full(values.shape[:-1], np.nan)[()]
    order = np.argsort(magnitudes)
    x = magnitudes[order]
    return np.trapezoid(values[..., order], (x - x[0]) / (x[-1] - x[0]), axis=-1)


def cvar(values: ArrayLike, fraction: float = 0.1) -> float:
    """Conditional value at risk: the mean of the worst (lowest) `fraction` of the values.

    If `fraction` · n is no integer, the last value counts by the remainder (Rockafellar and Uryasev
    2002), so the result is continuous in `fraction`: it runs from the minimum to the mean.

    Args:
      values: float[n], higher is better.
      fraction: in (0, 1].

    Returns:
      float; NaN if there is no value or a NaN among them.
    """
    values = np.sort(np.asarray(values, dtype=float).ravel())
    mass = (fraction if fraction == 1 else _fraction("fraction", fraction)) * len(values)
    if not len(values) or np.isnan(values).any():
        return np.nan
    weights = np.clip(mass - np.arange(len(values)), 0, 1)
    return float(weights @ values / mass)


def _fraction(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value}")
    return value
