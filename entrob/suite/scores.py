"""From records to scores that methods can be compared by, and to the cells of a task."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from entrob.perturbations import NOMINAL

CONDITION = ["perturbation", "magnitude"]


class Scale(NamedTuple):
    """What scores of a task are measured in.

    Attributes:
      measure: ``"success"`` on solvable instances, or ``"return"``.
      floor: what scores 0: no success, or the nominal return of the uniformly random policy.
      top: what scores 1: certain success, or the nominal return of `none` in calibration, where it
        learned anything.
    """

    measure: str
    floor: float = 0.0
    top: float = 1.0


def return_scale(random: float, none: float) -> Scale:
    """The scale between two nominal returns; of unit length if `none` is no better than random."""
    return Scale("return", random, none if none > random else random + 1.0)


def measured(evaluation: pd.DataFrame, measure: str) -> pd.DataFrame:
    """``value`` of each row, float, and whether it is ``exact``.

    On a grid success is computed where the dynamics are known, and sampled under noise.

    Args:
      evaluation: records.
      measure: as of `Scale`.
    """
    if measure == "return":
        return pd.DataFrame({"value": evaluation.return_mean, "exact": False})
    exact = evaluation.exact_success.notna()
    means = [
        np.nanmean(x) if np.isfinite(x).any() else np.nan
        for x in map(np.asarray, evaluation.instance_success)
    ]
    value = np.where(exact, means, evaluation.success_solvable)
    return pd.DataFrame({"value": value, "exact": exact}, index=evaluation.index)


def scored(runs: pd.DataFrame, evaluation: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """A row per run × condition: ``run_id``, ``method``, ``seed``, condition, ``score``, ``exact``.

    A diverged run scores 0, or what the worst other run does if that is less.

    Args:
      runs, evaluation: records.
      scale: of the task.
    """
    frame = evaluation[["run_id", "method", "seed", *CONDITION]]
    frame = frame.join(measured(evaluation, scale.measure))
    frame["score"] = (frame.value - scale.floor) / (scale.top - scale.floor)
    failed = frame.run_id.isin(runs.run_id[runs.status == "diverged"]) | frame.score.isna()
    least = frame[~failed].groupby(CONDITION).score.min().clip(upper=0.0)
    worst = pd.Series(frame.set_index(CONDITION).index.map(least), frame.index, dtype=float)
    frame["score"] = frame.score.mask(failed, worst.fillna(0.0))
    return frame.drop(columns="value").reset_index(drop=True)


def priced(scores: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """Scores with ``price`` in their nominal rows.

    It is what the run gives up against the baseline's run of the same seed, as a share of the
    baseline's mean: its mean over seeds is (S_none - S_m) / S_none.
    """
    nominal = scores.perturbation == NOMINAL
    base = scores[nominal & (scores.method == baseline)].set_index("seed").score
    theirs = pd.Series(scores.seed.map(base), scores.index, dtype=float)
    price = (theirs - scores.score) / base.mean() if base.mean() > 0 else np.nan * theirs
    return scores.assign(price=price.where(nominal))


def cell_rows(
    task: str,
    none: pd.DataFrame,
    tested: Mapping[str, tuple[float, ...]],
    categories: Mapping[str, str],
    references: Mapping[tuple[str, float], float],
) -> pd.DataFrame:
    """A row per cell: what calibration knows of it, up to ``reference``.

    Args:
      task: its name.
      none: scores of `none` in calibration, as from `scored`.
      tested: magnitudes by perturbation.
      categories: class by perturbation.
      references: best known score by cell.
    """
    means = none.groupby(CONDITION).score.mean()
    nominal = float(means[NOMINAL, 0.0])
    rows = [
        {"task": task, "perturbation": name, "magnitude": m, "category": categories[name]}
        | {"none": float(means[name, m]), "nominal": nominal, "reference": references[name, m]}
        for name, magnitudes in tested.items()
        for m in magnitudes
    ]
    columns = ["task", *CONDITION, "category", "none", "nominal", "reference"]
    return pd.DataFrame(rows, columns=columns)


def recovered(scores: pd.DataFrame, cells: pd.DataFrame, none: pd.Series) -> pd.DataFrame:
    """The share that each run recovers in every class: a row per ``run_id``, a column per class.

    R = Σ w (S_m - S_none) / Σ w D over the kept cells of a class.

    Args:
      scores: as from `scored`, of one task.
      cells: the task's, with ``gap``, ``weight`` and ``kept``.
      none: score of `none` by perturbation and magnitude on the same instances.
    """
    kept = cells[cells.kept]
    frame = scores.merge(kept[[*CONDITION, "category", "weight", "gap"]], on=CONDITION)
    base = pd.Series(frame.set_index(CONDITION).index.map(none), frame.index, dtype=float)
    frame = frame.assign(gain=frame.weight * (frame.score - base), gap=frame.weight * frame.gap)
    sums = frame.groupby(["run_id", "category"])[["gain", "gap"]].sum()
    return (sums.gain / sums.gap).unstack("category")
