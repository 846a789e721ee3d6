"""From outcomes to tidy records: a row per run × perturbation × magnitude."""

from typing import Any

import numpy as np

from entrob.evaluation.batch import Outcome
from entrob.statistics.aggregate import cvar

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Final distances are kept as so many quantiles, in the middles of equal shares of the episodes.
DISTANCES = 50
#: Measures besides success that an experiment may compare with the paper's, as they are printed.
MEASURES = {"return_mean": "return", "final_distance": "final distance (m)"}


def records(
    outcome: Outcome, horizon: int, cvar_fraction: float = 0.1, episodes: int = 1
) -> list[dict[str, Any]]:
    """One record per run, of the fields of ``evaluation.parquet`` that tell what happened.

    Args:
      outcome: as returned by `evaluate`, arrays of NumPy.
      horizon: number of steps T.
      cvar_fraction: share of the worst instances that CVaR averages over.
      episodes: of each instance, which stand side by side in the outcome's arrays.

    Returns:
      R dictionaries. ``steps_to_success`` is a histogram int32[T]: entry t - 1 counts the
      episodes that succeeded at step t. A fully solvable environment whose optimum is unknown
      counts every instance as solvable. ``return_worst`` and ``return_cvar`` are over instances'
      mean returns, NaN with one episode each, whose luck they would measure.
      ``final_distances`` is float32[`DISTANCES`], ascending quantiles; empty where unknown.
    """
    known = outcome.optimum >= 0
    solvable = ~known | (outcome.optimum <= horizon)
    rows = []
    measured_of_runs = zip(
        outcome.steps_to_success,
        outcome.episode_return,
        outcome.final_distance,
        outcome.exact,
        strict=True,
    )
    for steps, returns, distances, exact in measured_of_runs:
        success = steps > 0
        taken = np.where(success, steps, horizon)
        measured = exact[solvable & ~np.isnan(exact)]
        some = measured.size > 0
        per_instance = returns.reshape(-1, episodes).mean(1)
        rows.append(
            {
                "episodes": len(steps),
                "success": success.mean(),
                "success_solvable": success[solvable].mean() if solvable.any() else np.nan,
                "solvable": solvable.mean(),
                "steps_to_success": np.bincount(steps[success] - 1, minlength=horizon).astype(
                    np.int32
                ),
                "return_mean": returns.mean(),
                **{f"return_q{round(100 * q):02d}": np.quantile(returns, q) for q in QUANTILES},
                "return_worst": per_instance.min() if episodes > 1 else np.nan,
                "final_distance": distances.mean(),
                "final_distances": _quantiles(distances),
                "return_cvar": cvar(per_instance, cvar_fraction) if episodes > 1 else np.nan,
                "regret_mean": (taken - outcome.optimum)[solvable].mean()
                if known.all() and solvable.any()
                else np.nan,
                "exact_success": exact.mean(),
                "exact_worst": measured.min() if some else np.nan,
                "exact_cvar": cvar(measured, cvar_fraction) if some else np.nan,
                "instance_success": np.where(solvable, exact, np.nan).astype(np.float32),
            }
        )
    return rows


def _quantiles(distances: np.ndarray) -> np.ndarray:
    if np.isnan(distances).any():
        return np.zeros(0, np.float32)
    shares = (np.arange(DISTANCES) + 0.5) / DISTANCES
    return np.quantile(distances, shares).astype(np.float32)
