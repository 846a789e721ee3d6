"""The nominal environment in records, where it is tested once and belongs to every perturbation."""

import numpy as np
import pandas as pd

from entrob.perturbations.base import NOMINAL

WHO = ["run_id", "method", "seed"]


def with_nominal(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Give each perturbation its row of magnitude 0, as a curve over magnitudes begins.

    A run is tested once without any perturbation, under the name `NOMINAL`; records of earlier
    versions have a row of magnitude 0 for every perturbation instead, and stay as they are. A
    curve is of one measure: where a run's rows of a perturbation hold no exact success, as under
    noise, neither does the row that it is given.

    Args:
      evaluation: a row per run × perturbation × magnitude; of one policy alone, such as the random
        one, without columns that say which run.

    Returns:
      The same without rows of `NOMINAL`, ordered by run, perturbation and magnitude as they came; a
      run that was tested under nothing else keeps its row.
    """
    if not len(evaluation) or not (evaluation.perturbation == NOMINAL).any():
        return evaluation
    who = [column for column in WHO if column in evaluation]
    groups = evaluation.groupby(who, sort=False) if who else [((), evaluation)]
    parts = []
    for _, rows in groups:
        once = rows[rows.perturbation == NOMINAL].iloc[:1]
        tested = rows[rows.perturbation != NOMINAL]
        if not len(once) or not len(tested):
            parts.append(rows)
            continue
        for name, own in tested.groupby("perturbation", sort=False):
            own = own[own.magnitude != 0]
            parts += [_as(once, name, own), own]
    return pd.concat(parts, ignore_index=True)


def _as(once: pd.DataFrame, name: str, own: pd.DataFrame) -> pd.DataFrame:
    """The nominal row as a perturbation's, without exact success if its own rows have none."""
    row = once.assign(perturbation=name)
    if len(own) and "exact_success" in own and own.exact_success.isna().all():
        row = row.assign(exact_success=np.nan, exact_worst=np.nan, exact_cvar=np.nan)
        if "instance_success" in row:
            blank = np.full(len(row.instance_success.iloc[0]), np.nan, np.float32)
            row["instance_success"] = [blank]
    return row
