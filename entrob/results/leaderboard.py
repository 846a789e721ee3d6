"""The leaderboard: every method's robust score over all tasks of a suite, ranked.

A score is normalized between the uniformly random policy, 0, and the best known, 1.  On a grid it
is the success on the instances that can be solved, exact where the dynamics are known, so that the
optimum is 1; elsewhere it is the return.  Where no optimum is known, under noise and for returns,
the best known is the best method's mean under the same perturbation and magnitude.  A run's robust
score under a perturbation is its mean over the magnitudes above 0; a diverged run scores 0.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.results import statistics
from entrob.results.store import read_frame

BASELINE = "none"
KINDS = ("structured", "diffuse", "dynamics")
MEASURES = ("score", "worst", "cvar")


class Board(NamedTuple):
    """What a leaderboard is made of.

    Attributes:
      scores: a row per run × task × perturbation × magnitude: ``task``, ``method``, ``seed``,
        ``perturbation``, ``kind``, ``magnitude``, ``score``, ``worst``, ``cvar``.
      overhead: method, ratio, ratio_low, ratio_high; empty if nobody measured it.
      manifest: the suite's.
    """

    scores: pd.DataFrame
    overhead: pd.DataFrame
    manifest: Mapping[str, Any]


def read_board(root: Path) -> Board:
    """The records of all finished tasks in a suite's folder.

    Raises:
      EntrobError: no task is finished yet.
      Damaged: a record cannot be read.
    """
    manifest = json.loads((root / "manifest.json").read_text())
    if not manifest["tasks"]:
        raise EntrobError(f"{root} holds no finished task yet")
    frames = []
    for task, facts in manifest["tasks"].items():
        runs, evaluation, random = (
            read_frame(root / task / f"{kind}.parquet") for kind in ("runs", "evaluation", "random")
        )
        scores = normalized(runs, evaluation, random)
        frames.append(scores.assign(task=task, kind=scores.perturbation.map(facts["kinds"])))
    path = root / "overhead.parquet"
    overhead = read_frame(path) if path.exists() else pd.DataFrame(columns=["method", "ratio"])
    return Board(pd.concat(frames, ignore_index=True), overhead, manifest)


def normalized(runs: pd.DataFrame, evaluation: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """One task's scores: ``method``, ``seed``, ``perturbation``, ``magnitude`` and the measures.

    Args:
      runs, evaluation: the task's records.
      random: the random policy's, a row per perturbation × magnitude.

    Returns:
      A row per row of `evaluation`; conditions in which nobody beats the random policy are left
      out, as there is nothing to be measured by.
    """
    at = ["perturbation", "magnitude"]
    grid = bool(evaluation.exact_success.notna().any())
    frame = evaluation[["run_id", "method", "seed", *at]].join(_measures(evaluation, grid))
    floor = random[at].assign(floor=_measures(random, grid)["score"])
    frame = frame.merge(floor, on=at, how="left")
    diverged = set(runs.loc[runs.status == "diverged", "run_id"])
    kept = frame[~frame.run_id.isin(diverged)]
    means = kept.groupby([*at, "method"]).score.mean().groupby(at).max()
    best = frame.set_index(at).index.map(means).to_numpy()
    frame["best"] = np.where(frame.exact, 1.0, best)
    frame = frame[frame.best > frame.floor + 1e-9 * frame.floor.abs()]
    for name in MEASURES:
        frame[name] = (frame[name] - frame.floor) / (frame.best - frame.floor)
        frame.loc[frame.run_id.isin(diverged), name] = 0.0
    return frame.drop(columns=["run_id", "exact", "floor", "best"])


def _measures(frame: pd.DataFrame, grid: bool) -> pd.DataFrame:
    """``score``, ``worst`` and ``cvar`` of each row, and whether they are ``exact``.

    On a grid success on solvable instances, sampled where noise leaves nothing to be computed;
    elsewhere the return, whose worst and CVaR are known if instances were played several times.
    """
    if not grid:
        names = {"return_mean": "score", "return_worst": "worst", "return_cvar": "cvar"}
        return frame[list(names)].rename(columns=names).assign(exact=False)
    known = frame.exact_success.notna()
    means = [
        np.nanmean(x) if np.isfinite(x).any() else np.nan
        for x in map(np.asarray, frame.instance_success)
    ]
    score = np.where(known, means, frame.success_solvable)
    measures = {"score": score, "worst": frame.exact_worst, "cvar": frame.exact_cvar}
    return pd.DataFrame({**measures, "exact": known}, index=frame.index)


def matrix(scores: pd.DataFrame, method: str, kind: str | None, measure: str) -> pd.DataFrame:
    """Robust scores of a method: float[seeds, tasks × perturbations] of one kind, or of all."""
    rows = scores[(scores.method == method) & (scores.magnitude > 0)]
    rows = rows if kind is None else rows[rows.kind == kind]
    return rows.pivot_table(index="seed", columns=["task", "perturbation"], values=measure)


def ranking(board: Board) -> pd.DataFrame:
    """A row per method, the most robust first.

    Returns:
      ``rank``, ``method``, ``family``, ``robust`` (interquartile mean over seeds, tasks and
      perturbations, with ``robust_low`` and ``robust_high``, 95 % stratified bootstrap), the same
      for each kind of perturbation, ``worst`` and ``cvar`` (interquartile means of the worst
      instance and of the worst tenth), ``nominal``, ``price`` (nominal score of `none` less its
      own), ``improvement`` (probability that a run beats `none`'s of the same seed, mean over tasks
      and perturbations, with its interval), ``overhead`` (time per update over `none`'s),
      ``tasks`` (how many it can play) and ``unpassed`` (on how many of them no coefficient kept
      95 % of the performance of `none`).
    """
    scores, tasks = board.scores, board.manifest["tasks"]
    ratios = dict(zip(board.overhead.method, board.overhead.ratio))
    nominal = scores[scores.magnitude == 0].groupby(["method", "task"]).score.mean()
    rows = []
    for method in scores.method.unique():
        family = board.manifest["methods"].get(method, {}).get("family", BASELINE)
        own = nominal[method]
        row = {"method": method, "family": family}
        for name, kind in (("robust", None), *((kind, kind) for kind in KINDS)):
            row |= _interval(name, matrix(scores, method, kind, "score"))
        for name in ("worst", "cvar"):
            row[name] = _iqm(matrix(scores, method, None, name))
        row |= {"nominal": own.mean(), "price": (nominal[BASELINE].reindex(own.index) - own).mean()}
        row |= improvement(scores, method)
        row["overhead"] = 1.0 if method == BASELINE else ratios.get(method, np.nan)
        row["tasks"] = len(own)
        row["unpassed"] = sum(not facts["passed"].get(method, True) for facts in tasks.values())
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("robust", ascending=False, kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table.reset_index(drop=True)


def improvement(scores: pd.DataFrame, method: str) -> dict[str, float]:
    """Probability of improvement over `none`, paired by seed within a task and perturbation."""
    ours, theirs = (matrix(scores, name, None, "score") for name in (method, BASELINE))
    wins = (np.sign(ours - theirs.reindex_like(ours)) + 1) / 2
    values = wins.dropna(axis=0).to_numpy()
    if method == BASELINE or not values.size:
        values = np.empty((0, 1))
    low, high = statistics.bootstrap_interval(values)
    probability = values.mean() if values.size else np.nan
    return {"improvement": probability, "improvement_low": low, "improvement_high": high}


def gains(board: Board) -> pd.DataFrame:
    """Robust score of every method less that of `none`: method, family, and each kind's gain."""
    rows = []
    for method in board.scores.method.unique():
        if method == BASELINE:
            continue
        family = board.manifest["methods"].get(method, {}).get("family", BASELINE)
        row = {"method": method, "family": family}
        for kind in KINDS:
            ours, theirs = (
                matrix(board.scores, name, kind, "score") for name in (method, BASELINE)
            )
            difference = (ours - theirs.reindex_like(ours)).dropna(axis=0)
            row |= _interval(kind, difference, np.mean)
        rows.append(row)
    return pd.DataFrame(rows)


def _iqm(frame: pd.DataFrame) -> float:
    values = frame.to_numpy()
    return float(statistics.interquartile_mean(values)) if values.size else np.nan


def _interval(name: str, frame: pd.DataFrame, statistic=statistics.interquartile_mean):
    """A statistic and its interval under the stratified bootstrap."""
    values = frame.to_numpy()
    if not values.size or np.isnan(values).any():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    low, high = statistics.bootstrap_interval(values, statistic, samples=2000)
    return {name: float(statistic(values)), f"{name}_low": low, f"{name}_high": high}
