"""The leaderboard: every method's robust score over all tasks of a suite, ranked.

A score is normalized between the uniformly random policy, 0, and the best known, 1.  On a grid it
is the success on the instances that can be solved, exact where the dynamics are known, so that the
optimum is 1; elsewhere it is the return.  Where no optimum is known, under noise and for returns,
the best known is the best method's mean under the same perturbation and magnitude.  A run's robust
score under a perturbation is its mean over the magnitudes above 0; a diverged run scores 0, or what
the worst run does if that is less.  The bootstrap redraws the seeds of each task, with all that was
measured of them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.results import statistics
from entrob.results.nominal import with_nominal
from entrob.results.store import read_frame

BASELINE = "none"
KINDS = ("structured", "diffuse", "dynamics")
#: What this table's columns make of a perturbation's class.
OF_CLASS = {"routes": "structured", "shifts": "structured", "random walls": "diffuse"}
OF_CLASS |= {"action noise": "diffuse", "observation noise": "diffuse"}
MEASURES = ("score", "worst", "cvar")
#: Conditions that leave less between random and best are left out: there noise is what is measured.
NARROW = 0.05  # of the widest on the task


class Board(NamedTuple):
    """What a leaderboard is made of.

    Attributes:
      scores: a row per run × task × perturbation × magnitude: ``task``, ``method``, ``seed``,
        ``perturbation``, ``kind``, ``magnitude``, ``score``, ``worst``, ``cvar``.
      omitted: ``task``, ``perturbation``, ``magnitude`` of what tells nobody apart (`NARROW`).
      overhead: method, ratio, ratio_low, ratio_high; empty if nobody measured it.
      manifest: the suite's.
    """

    scores: pd.DataFrame
    omitted: pd.DataFrame
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
    frames, omitted = [], []
    for task, facts in manifest["tasks"].items():
        runs, evaluation, random = (
            read_frame(root / task / f"{kind}.parquet") for kind in ("runs", "evaluation", "random")
        )
        # The folder may hold runs with coefficients that a method had before.
        now = {run_id for ids in facts["runs"].values() for run_id in ids}
        runs, evaluation = (frame[frame.run_id.isin(now)] for frame in (runs, evaluation))
        scores, narrow = normalized(runs, with_nominal(evaluation), with_nominal(random))
        kinds = {name: OF_CLASS.get(kind, kind) for name, kind in facts["classes"].items()}
        frames.append(scores.assign(task=task, kind=scores.perturbation.map(kinds)))
        omitted.append(narrow.assign(task=task))
    path = root / "overhead.parquet"
    overhead = read_frame(path) if path.exists() else pd.DataFrame(columns=["method", "ratio"])
    scores, omitted = (pd.concat(x, ignore_index=True) for x in (frames, omitted))
    return Board(scores, omitted, overhead, manifest)


def normalized(runs: pd.DataFrame, evaluation: pd.DataFrame, random: pd.DataFrame):
    """One task's scores.

    Args:
      runs, evaluation: the task's records.
      random: the random policy's, a row per perturbation × magnitude.

    Returns:
      A row per row of `evaluation`, ``method``, ``seed``, ``perturbation``, ``magnitude`` and the
      measures; and ``perturbation``, ``magnitude`` of the conditions that are left out, as hardly
      anything lies between the random policy and the best (`NARROW`).
    """
    at = ["perturbation", "magnitude"]
    grid = bool(evaluation.exact_success.notna().any())
    frame = evaluation[["run_id", "method", "seed", *at]].join(_measures(evaluation, grid))
    floor = random[at].assign(floor=_measures(random, grid)["score"])
    frame = frame.merge(floor, on=at, how="left")
    diverged = set(runs.loc[runs.status == "diverged", "run_id"])
    frame["failed"] = frame.run_id.isin(diverged) | frame.score.isna()
    kept = frame[~frame.failed]
    means = kept.groupby([*at, "method"]).score.mean().groupby(at).max()
    best = frame.set_index(at).index.map(means).to_numpy()
    frame["best"] = np.where(frame.exact, 1.0, best)
    gap = frame.best - frame.floor
    wide = gap > NARROW * gap.max()
    omitted = frame.loc[~wide, at].drop_duplicates(ignore_index=True)
    frame = frame[wide].copy()
    for name in MEASURES:
        frame[name] = (frame[name] - frame.floor) / (frame.best - frame.floor)
        least = frame[~frame.failed].groupby(at)[name].min().clip(upper=0.0)
        worst = frame.set_index(at).index.map(least).to_numpy()
        frame[name] = np.where(frame.failed, worst, frame[name])
    return frame.drop(columns=["run_id", "exact", "floor", "best", "failed"]), omitted


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
    """Robust scores of a method: float[seeds, tasks × perturbations] of one kind, or of all.

    Seeds that not all of its tasks have yet are left out.
    """
    rows = scores[(scores.method == method) & (scores.magnitude > 0)]
    rows = rows if kind is None else rows[rows.kind == kind]
    table = rows.pivot_table(index="seed", columns=["task", "perturbation"], values=measure)
    return table.dropna(axis=0)


def full(board: Board) -> set[str]:
    """The methods that have played every task of the board: only these are comparable."""
    counts = board.scores.groupby("method").task.nunique()
    return set(counts.index[counts == len(board.manifest["tasks"])])


def ranking(board: Board) -> pd.DataFrame:
    """A row per method, the most robust first, those that have not played every task at the end.

    Returns:
      ``rank`` (missing at the end), ``method``, ``family``, ``robust`` (interquartile mean over
      seeds, tasks and perturbations, with the ends of its 95 % stratified bootstrap interval,
      ``robust_low`` and ``robust_high``), the same
      for each kind of perturbation, ``worst`` and ``cvar`` (interquartile means of the worst
      instance and of the worst tenth), ``nominal``, ``price`` (nominal score of `none` less its
      own), ``improvement`` (probability that a run beats `none`'s of the same seed, mean over tasks
      and perturbations, with its interval), ``overhead`` (time per update over `none`'s),
      ``tasks`` (how many it can play), ``unpassed`` (on how many of them no coefficient kept 95 %
      of the performance of `none`) and ``open`` (on how many even the largest that was tried did).
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
        row["open"] = sum(facts["open"].get(method, False) for facts in tasks.values())
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("robust", ascending=False, kind="stable")
    ranked = table.method.isin(full(board))
    table = pd.concat([table[ranked], table[~ranked]], ignore_index=True)
    rank = pd.Series(table.index + 1, dtype="Int64").where(table.index < ranked.sum())
    table.insert(0, "rank", rank)
    return table


def improvement(scores: pd.DataFrame, method: str) -> dict[str, float]:
    """Probability of improvement over `none`, paired by seed within a task and perturbation."""
    wins = (np.sign(difference(scores, method, None)) + 1) / 2
    return _interval("improvement", wins if method != BASELINE else wins[:0], np.mean)


def difference(scores: pd.DataFrame, method: str, kind: str | None) -> pd.DataFrame:
    """`matrix` of a method less that of `none`, seed by seed."""
    ours, theirs = (matrix(scores, name, kind, "score") for name in (method, BASELINE))
    return (ours - theirs.reindex_like(ours)).dropna(axis=0)


def gains(board: Board) -> pd.DataFrame:
    """Mean robust score less that of `none`, against each kind of perturbation, with intervals.

    Returns:
      A row per method that has played every task, ``method``, ``family`` and the kinds; and one per
      family, its methods' mean, where ``method`` is NaN.
    """
    families: dict[str, list[str]] = {}
    for method in board.scores.method.unique():
        if method in full(board) - {BASELINE}:
            family = board.manifest["methods"][method]["family"]
            families.setdefault(family, []).append(method)
    rows = []
    for family, methods in families.items():
        parts = {m: {kind: difference(board.scores, m, kind) for kind in KINDS} for m in methods}
        parts[np.nan] = {
            kind: sum(parts[m][kind] for m in methods) / len(methods) for kind in KINDS
        }
        for method, by_kind in parts.items():
            row = {"method": method, "family": family}
            for kind, gain in by_kind.items():
                row |= _interval(kind, gain, np.mean)
            rows.append(row)
    return pd.DataFrame(rows)


def _iqm(frame: pd.DataFrame) -> float:
    values = frame.to_numpy()
    return float(statistics.interquartile_mean(values)) if values.size else np.nan


def _interval(name: str, frame: pd.DataFrame, statistic=statistics.interquartile_mean):
    """A statistic and its interval under the stratified bootstrap, a task being a stratum."""
    values = frame.to_numpy()
    if not values.size or np.isnan(values).any():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    tasks = frame.columns.get_level_values("task")
    low, high = statistics.bootstrap_interval(values, statistic, strata=tasks, samples=2000)
    return {name: float(statistic(values)), f"{name}_low": low, f"{name}_high": high}
