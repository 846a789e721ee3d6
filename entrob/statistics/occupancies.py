"""Where policies spend their time: means over the runs of each method."""

from typing import Any

import numpy as np
import pandas as pd


def mean_occupancies(
    occupancy: pd.DataFrame,
) -> tuple[dict[str, np.ndarray] | None, np.ndarray | None]:
    """Share of the time spent in each cell, by method, and the walls.

    Args:
      occupancy: a row per run, with ``visits`` float[W * H], NaN for a wall, and ``width``.

    Returns:
      ``({method: float[W, H], summing to 1}, bool[W, H])``, or ``(None, None)`` without records.
    """
    if not len(occupancy):
        return None, None
    means: dict[str, Any] = {}
    for method, group in occupancy.groupby("method", sort=False):
        visits = np.stack(group.visits.to_list()).mean(0).reshape(group.width.iloc[0], -1)
        means[str(method)] = np.nan_to_num(visits / np.nansum(visits))
        walls = np.isnan(visits)
    return means, walls
