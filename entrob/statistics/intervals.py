"""Intervals from few paired seeds: Student's t, bootstrap-t over tasks, max-t over sign flips.

A *contrast* is a number that is a sum over tasks of means over paired seeds, such as a recovered
share.  Contrasts are arrays `float[tasks, seeds, contrasts]` of what one pair adds: NaN where there
is no pair, NaN all along a task that a contrast does not use.  Tasks are strata: their seeds are
redrawn, and their signs flipped, independently of other tasks, and alike for all contrasts.

There is no interval with fewer than `FEWEST` pairs in a task, and none for pairs that do not vary.

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), Section 12.5, for the
bootstrap-t; Westfall and Young, *Resampling-Based Multiple Testing* (1993), for the maximum over
contrasts; Hemerik and Goeman, *Exact testing with random permutations* (2018), for random flips
that count the data themselves among them.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

FEWEST = 6
"""Pairs in a task: with five, flips of all signs alike come up too often, 2 · 2⁻⁵ = 0.06."""


BLOCK = 4_000_000
"""Numbers held in one array at once."""


class Interval(NamedTuple):
    """Values and the ends of their intervals, float[contrasts]; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class PairedDifference(NamedTuple):
    """A difference, the ends of its interval (NaN if there is none), and the number of pairs."""

    value: float
    low: float
    high: float
    pairs: int


def t_interval(
    scores: ArrayLike,
    level: float = 0.95,
    axis: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Mean and Student's t interval over independent runs, mean ± t₍ₙ₋₁₎ s/√n.

    Args:
      scores: float[..., n, ...], the runs along `axis`.
      level: two-sided confidence.
      axis: of the runs.
      bounds: what the scores can be at all; the ends stay within them.

    Returns:
      `Interval` without `axis`; ends are NaN with fewer than two runs, or if they do not vary.
    """
    scores = np.asarray(scores, dtype=float)
    n = scores.shape[axis]
    if n == 0:
        empty = np.full(np.delete(scores.shape, axis), np.nan)[()]
        return Interval(empty, empty, empty)
    mean = scores.mean(axis=axis)
    if n == 1:
        return Interval(mean, *[np.full_like(mean, np.nan)[()]] * 2)
    deviation = scores.std(axis=axis, ddof=1)
    half = scipy.stats.t.ppf((1 + level) / 2, n - 1) * deviation / np.sqrt(n)
    half = np.where(np.ptp(scores, axis=axis) > 0, half, np.nan)
    low, high = np.maximum(mean - half, bounds[0]), np.minimum(mean + half, bounds[1])
    return Interval(mean, low[()], high[()])


def estimate(contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, standard errors and whether an interval is due, each [contrasts].

    The value is NaN for a contrast without any pair.  The error is √Σ s²/n over tasks.
    """
    value, error = _moments(np.ones((1, *contrasts.shape[:2])), contrasts)
    pairs = (~np.isnan(contrasts)).sum(1)
    used = pairs > 0
    due = used.any(0) & ((pairs >= FEWEST) | ~used).all(0) & (error[0] > 0)
    return np.where(used.any(0), value[0], np.nan), error[0], due


def bootstrap_t(
    contrasts: np.ndarray, *, level: float = 0.95, samples: int = 4999, seed: int = 0
) -> Interval:
    """Studentized bootstrap: seeds are redrawn within every task, errors computed anew each time.

    Redrawn pairs that happen to be all alike have no error of their own to divide by; errors count
    no less than the original one over √n, n the pairs of the smallest task.  Without that, outcomes
    of 0 and 1 would have infinite intervals, or far too short ones if such draws were dropped.

    Args:
      contrasts: float[tasks, seeds, contrasts], see the module.
      level: two-sided confidence of each interval for itself.
      samples: number of replicates.
      seed: of the generator.

    Returns:
      `Interval`, its ends NaN where no interval is due.
    """
    value, error, due = estimate(contrasts)
    tail = (1 - level) / 2
    low, high = np.full((2, len(value)), np.nan)
    pairs = (~np.isnan(contrasts)).sum(1)
    smallest = np.where(pairs > 0, pairs, np.inf).min(0)
    for at, means, errors in _replicates(contrasts, np.flatnonzero(due), samples, seed):
        errors = np.maximum(errors, error[at] / np.sqrt(smallest[at]))
        t = (means - value[at]) / errors
        below, above = np.nanquantile(t, [tail, 1 - tail], axis=0)
        low[at], high[at] = value[at] - above * error[at], value[at] - below * error[at]
    return Interval(value, low, high)


def rank_intervals(
    contrasts: np.ndarray, *, level: float = 0.95, samples: int = 4999, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Between which ranks each contrast lies in the middle `level` of the bootstrap replicates.

    Seeds are redrawn as in `bootstrap_t` (the same draws for the same seed and samples); 1 is the
    largest, ties share the better rank.

    Returns:
      (best, worst), float[contrasts]; NaN for all if one of them has too few pairs.
    """
    value, _, _ = estimate(contrasts)
    pairs = (~np.isnan(contrasts)).sum(1)
    short = ((pairs < FEWEST) & (pairs > 0)).any() or not (pairs > 0).any(0).all()
    if short or not len(value):
        return np.full(len(value), np.nan), np.full(len(value), np.nan)
    means = [part for _, part, _ in _replicates(contrasts, np.arange(len(value)), samples, seed)]
    ranks = scipy.stats.rankdata(-np.concatenate(means, axis=1), axis=1, method="min")
    tail = (1 - level) / 2
    best, worst = np.quantile(ranks, [tail, 1 - tail], axis=0, method="nearest")
    return best, worst


def simultaneous(
    contrasts: np.ndarray, *, level: float = 0.95, flips: int = 9999, seed: int = 0
) -> Interval:
    """Intervals that all hold at once, value ± c · error, c from the largest |t| under sign flips.

    If a method is no better and no worse than the baseline, a pair's difference is as likely to be
    its negative.  The signs of all pairs are flipped, those of one task and seed alike for all
    contrasts; c is the `level` quantile of the largest |t| over contrasts.  An interval without 0
    is thus a test that errs anywhere among the contrasts with at most 1 - `level`.  That is exact
    if the pairs of all contrasts are symmetric together.  Methods share the baseline's runs, so
    with skewed scores they are not quite: `benchmarks/coverage.py` measures what that costs.

    Args:
      contrasts: float[tasks, seeds, contrasts], see the module.
      level: simultaneous confidence.
      flips: random ones, besides the data as they are; all there are if those are no more.
      seed: of the generator.

    Returns:
      `Interval`, its ends NaN where no interval is due.
    """
    value, error, due = estimate(contrasts)
    low, high = np.full((2, len(value)), np.nan)
    if due.any():
        signs = _signs(contrasts.shape[:2], flips, seed)
        largest = np.zeros(len(signs))
        for at in _blocks(np.flatnonzero(due), len(signs)):
            means, errors = _moments(np.ones_like(signs), contrasts[:, :, at], signs)
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.where(means == 0, 0.0, np.abs(means) / errors)
            largest = np.maximum(largest, t.max(1))
        critical = np.sort(largest)[int(np.ceil(level * len(largest))) - 1]
        if np.isfinite(critical):
            low, high = (np.where(due, value + k * critical * error, np.nan) for k in (-1, 1))
    return Interval(value, low, high)


def paired_difference(
    x: Mapping[int, float], y: Mapping[int, float], *, level: float = 0.95
) -> PairedDifference:
    """Mean of x - y over the seeds that both have, with its bootstrap-t interval.

    Args:
      x, y: score by seed.  Pairs form by the seed's value, never by position.
      level: two-sided confidence.
    """
    seeds = sorted(set(x) & set(y))
    if not seeds:
        return PairedDifference(np.nan, np.nan, np.nan, 0)
    pairs = np.array([x[seed] - y[seed] for seed in seeds], dtype=float)
    found = bootstrap_t(pairs[None, :, None], level=level)
    value, low, high = (float(part[0]) for part in found)
    return PairedDifference(value, low, high, len(seeds))


def _moments(
    weights: np.ndarray, contrasts: np.ndarray, signs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors, each float[draws, contrasts], of pairs that count several times.

    Args:
      weights: float[draws, tasks, seeds], how often a pair is drawn.
      contrasts: float[tasks, seeds, contrasts].
      signs: like `weights`, what the pairs are multiplied by; None: 1.
    """
    means, variances = np.zeros((2, len(weights), contrasts.shape[2]))
    for task, pairs in enumerate(contrasts):
        there = ~np.isnan(pairs)
        used = there.any(0)
        x, drawn = np.where(there, pairs, 0.0)[:, used], weights[:, task]
        signed = drawn if signs is None else drawn * signs[:, task]
        with np.errstate(divide="ignore", invalid="ignore"):
            n = drawn @ there[:, used]
            mean, square = signed @ x / n, drawn @ x**2 / n
            variance = (square - mean**2) / (n - 1)
        # What rounding leaves of pairs that are all alike is no spread.
        variances[:, used] += np.where(variance > 1e-12 * square, variance, 0.0)
        means[:, used] += mean
    return means, np.sqrt(variances)


def _replicates(
    contrasts: np.ndarray, chosen: np.ndarray, samples: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices, values and errors [samples, indices] of redrawn pairs, some contrasts at a time."""
    # A seed that a task lacks altogether is no pair to draw there.
    there = (~np.isnan(contrasts)).any(2)
    chances = np.where(there.any(1, keepdims=True), there, 1.0)
    chances = chances / chances.sum(1, keepdims=True)
    generator = np.random.default_rng(seed)
    draws = [generator.multinomial(max(1, k.sum()), p, samples) for k, p in zip(there, chances)]
    weights = np.stack(draws, axis=1).astype(float)
    for at in _blocks(chosen, samples):
        yield (at, *_moments(weights, contrasts[:, :, at]))


def _blocks(chosen: np.ndarray, draws: int) -> list[np.ndarray]:
    """The indices in blocks of so many that an array over all draws stays below `BLOCK`."""
    size = max(1, BLOCK // draws)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def _signs(shape: tuple[int, int], flips: int, seed: int) -> np.ndarray:
    """Signs float[flips, tasks, seeds], the first all 1; every pattern if there are few."""
    count = shape[0] * shape[1]
    if count < 30 and 2**count <= flips + 1:
        patterns = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return 1.0 - 2.0 * patterns.reshape(-1, *shape)
    random = np.random.default_rng(seed).choice([-1.0, 1.0], size=(flips, *shape))
    return np.concatenate([np.ones((1, *shape)), random])
