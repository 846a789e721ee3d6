"""Scores as rliable takes them: a dictionary of arrays, runs by tasks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from entrob.errors import EntrobError


class ScoreArrays(NamedTuple):
    """What rliable's functions take, and what its axes are.

    Attributes:
      scores: method -> float64[runs, conditions], a run per seed.
      seeds: int[runs], the same for all methods.
      conditions: what each column is, such as ``("wall", 6.0)``.
    """

    scores: dict[str, np.ndarray]
    seeds: np.ndarray
    conditions: list[tuple]


def score_arrays(
    rows: pd.DataFrame,
    score: str = "success",
    by: Sequence[str] = ("perturbation", "magnitude"),
) -> ScoreArrays:
    """Tidy rows as rliable's dictionary of score arrays (Agarwal et al. 2021, rliable's README).

    For a board: ``score_arrays(read_board(folder).scores, "score", ("task", "perturbation",
    "magnitude"))``; for a run: ``score_arrays(pandas.read_parquet("RUN/evaluation.parquet"))``.
    To keep them: ``numpy.savez("scores.npz", **found.scores)``; rliable 1.2 needs an older pandas
    than entrob has, and reads them in an environment of its own.

    Args:
      rows: ``method``, ``seed``, the columns of `by` and `score`.
      score: column of the scores.
      by: columns that make a condition, in rliable's words a task.

    Returns:
      The arrays, of the methods that have every condition (an array has no holes) and the seeds
      that all of those have; methods, seeds and conditions in the order of the rows.

    Raises:
      EntrobError: a column is missing, a run has two scores under one condition, or no seed is
        whole.
    """
    if lacking := [name for name in ("method", "seed", *by, score) if name not in rows]:
        raise EntrobError(f"scores have no column {', '.join(lacking)}")
    key = ["method", "seed", *by]
    if rows.duplicated(key).any():
        raise EntrobError("a run has two scores under one condition")
    conditions = list(rows[list(by)].drop_duplicates().itertuples(index=False, name=None))
    tables = {}
    for method, own in rows.groupby("method", sort=False):
        table = own.pivot(index="seed", columns=list(by), values=score)
        wanted = conditions if len(by) > 1 else [condition[0] for condition in conditions]
        table = table.reindex(columns=wanted).dropna()
        if len(table):
            tables[str(method)] = table
    seeds = [s for s in rows.seed.drop_duplicates() if all(s in t.index for t in tables.values())]
    if not tables or not seeds:
        raise EntrobError("no seed has a score of every method under every condition")
    scores = {method: table.loc[seeds].to_numpy(float) for method, table in tables.items()}
    return ScoreArrays(scores, np.array(seeds), conditions)
