"""Choosing magnitudes by a rule: those at which `none` loses between a tenth and nine tenths.

A perturbation under which nobody loses anything tells nobody apart, nor does one that leaves
nothing. `none` is trained on seeds of its own and tested over a fine grid of magnitudes on
instances of their own; no method's results are looked at.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from entrob.naming import BASELINE
from entrob.perturbations import NOMINAL, Perturbation, perturbations
from entrob.sweep.experiment import FIRST_CALIBRATION_SEED, SEEDS, Experiment, Method

#: What `none` may lose of its nominal score at a magnitude that is tested.
LEAST, MOST = 0.1, 0.9
#: Two magnitudes at which it loses about the same measure the same.
APART = 0.05
#: The fine grid: sixteenths of the largest magnitude down to half of it, where a loss of a fraction
#: is steep, and from there two a halving down to a sixty-fourth.
SIXTEENTHS, HALVINGS = np.arange(9, 17) / 16, 2.0 ** -(np.arange(2, 13) / 2)


class Rule(NamedTuple):
    """What the rule says of one perturbation.

    Attributes:
      magnitudes: ascending; empty where `none` never loses a tenth.
      losses: the share of its nominal score that `none` loses there, by the monotone curve.
      largest: what it loses at the largest magnitude of the grid.
    """

    magnitudes: tuple[float, ...]
    losses: tuple[float, ...]
    largest: float


def fine_grid(entry: Perturbation, params: Any) -> tuple[float, ...]:
    """The magnitudes that are tried: all whole numbers, or nineteen down to high / 64.

    Args:
      entry: a perturbation whose magnitudes begin at 0.
      params: nominal `EnvParams`.
    """
    _, high = entry.range(params)
    if entry.integer:
        return tuple(float(m) for m in range(1, int(high) + 1))
    fractions = np.concatenate([SIXTEENTHS, HALVINGS])
    return tuple(sorted(float(f"{high * fraction:.3g}") for fraction in fractions))


def calibration(experiment: Experiment, seeds: int) -> Experiment:
    """The experiment that trains `none` and tests it over `fine_grid`s.

    Its seeds begin at `FIRST_CALIBRATION_SEED`, which also draws its instances and episodes: none
    of them is ever tuned or reported on.

    Args:
      experiment: a task with its perturbations.
      seeds: number of runs.

    Raises:
      EntrobError: `seeds` is not positive.
    """
    params = experiment.task.noisy_params
    names = experiment.perturbations
    none = [m for m in experiment.methods if m.name == BASELINE] or [Method(BASELINE)]
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-calibration",
        title=f"Magnitudes of {experiment.name}",
        methods=tuple(none),
        seeds=SEEDS.check("calibration seeds", seeds),
        first_seed=FIRST_CALIBRATION_SEED,
        evaluation_seed=FIRST_CALIBRATION_SEED,
        perturbations={n: fine_grid(perturbations.get(n, params), params) for n in names},
    )


def losses(
    evaluation: pd.DataFrame, measure: str, floor: float, top: float | None = None
) -> pd.DataFrame:
    """The share of its nominal score that a policy loses, by perturbation and magnitude.

    A score is 0 for the uniformly random policy in the nominal environment and 1 at `top`, which
    cancels in the share: loss = (S(0) - S(m)) / (S(0) - floor), means over runs.

    Args:
      evaluation: records of `none` alone, with its row of `NOMINAL`; not through `with_nominal`.
      measure: the column that is scored, ``success_solvable`` or ``return_mean``.
      floor: the random policy's nominal one.
      top: the optimum or a reference, which scores 1, as a plausibility check; None: unknown.

    Returns:
      Columns ``perturbation``, ``magnitude``, ``loss`` and ``score`` (NaN without a `top`), in the
      order of `evaluation`. Losses are NaN where `none` is no better than random.
    """
    mean = evaluation.groupby(["perturbation", "magnitude"], sort=False)[measure].mean()
    nominal = float(mean[NOMINAL].iloc[0])
    table = mean.drop(index=NOMINAL, level=0).rename("score").reset_index()
    gain = nominal - floor
    table["loss"] = (nominal - table.score) / gain if gain > 0 else np.nan
    table["score"] = np.nan if top is None else (table.score - floor) / (top - floor)
    return table[["perturbation", "magnitude", "loss", "score"]]


def magnitudes_by_rule(
    magnitudes: np.ndarray, loss: np.ndarray, count: int = 3, integer: bool = False
) -> Rule:
    """Up to `count` magnitudes at which `none` loses between a tenth and nine tenths.

    The losses are made monotone (isotonic least squares: more of a perturbation harms more, what
    says otherwise is noise). Aims lie evenly between a tenth and the largest loss, or nine tenths
    if that is less, the ends included but for a margin of an eighth; each takes the magnitude where
    the curve, linear in between and 0 at 0, reaches it, to two digits, or the whole number that
    comes nearest. Two that lose the same within `APART` are one.

    Args:
      magnitudes: float[m], above 0, distinct.
      loss: float[m], shares of the nominal score, NaN where nothing was measured.
      count: at most so many.
      integer: only whole numbers that were tried.

    Returns:
      A `Rule`, without magnitudes where the largest loss is below a tenth, or where whole numbers
      leap over all that lies between a tenth and nine tenths.
    """
    magnitudes, loss = np.asarray(magnitudes, float), np.asarray(loss, float)
    order = [i for i in np.argsort(magnitudes) if np.isfinite(loss[i])]
    if not order:
        return Rule((), (), np.nan)
    x = np.concatenate([[0.0], magnitudes[order]])
    y = np.concatenate([[0.0], isotonic_regression(np.clip(loss[order], 0, None)).x])
    largest = float(y[-1])
    if largest < LEAST:
        return Rule((), (), largest)
    top = min(largest, MOST)
    margin = (top - LEAST) / 8
    aims = np.linspace(LEAST + margin, top - margin, count)
    candidates = [x[np.argmin(abs(y - aim))] for aim in aims] if integer else _reach(x, y, aims)
    chosen: list[tuple[float, float]] = []
    for magnitude in sorted({float(f"{m:.2g}") for m in candidates}):
        at = float(np.interp(magnitude, x, y))
        inside = LEAST <= at <= MOST and magnitude > 0
        if inside and (not chosen or at - chosen[-1][1] >= APART):
            chosen.append((magnitude, at))
    return Rule(tuple(m for m, _ in chosen), tuple(at for _, at in chosen), largest)


def _reach(x: np.ndarray, y: np.ndarray, aims: np.ndarray) -> list[float]:
    """Where a nondecreasing piecewise linear curve first reaches each aim, all within its range."""
    found = []
    for aim in aims:
        right = int(np.argmax(y >= aim))
        left = max(right - 1, 0)
        rise = y[right] - y[left]
        share = (aim - y[left]) / rise if rise > 0 else 1.0
        found.append(float(x[left] + share * (x[right] - x[left])))
    return found


def chosen(
    table: pd.DataFrame, experiment: Experiment, count: int = 3
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """The rule for every perturbation of a task.

    Args:
      table: as from `losses`.
      experiment: the task.
      count: magnitudes per perturbation at most.

    Returns:
      Magnitudes by perturbation; and of those that have none, since `none` loses less than a tenth
      or no whole number lies between, what it loses at the largest magnitude.
    """
    params = experiment.task.noisy_params
    found, harmless = {}, {}
    for name, rows in table.groupby("perturbation", sort=False):
        integer = perturbations.get(name, params).integer
        rule = magnitudes_by_rule(rows.magnitude, rows.loss, count, integer)
        if rule.magnitudes:
            found[name] = rule.magnitudes
        else:
            harmless[name] = rule.largest
    return found, harmless
