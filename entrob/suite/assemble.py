"""From a suite's folder to the tidy tables of its board.

A task's folder may bring its own ``scores.csv``, ``cells.csv``, ``tuning.csv`` and ``activity.csv``
(`board.COLUMNS`).  What it does not bring is computed from its records: scores from what the runs
did; cells from the reported runs of `none` themselves, which the report calls "not calibrated";
tuning from the nominal tests of the tuning runs.  Nothing stands in for a measured activity.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.persistence.store import read_frame
from entrob.perturbations.base import NOMINAL
from entrob.statistics.board import BASELINE, CLASSES, COLUMNS, Board, checked, weighted

AT = ["perturbation", "magnitude"]


def assemble(root: Path) -> Board:
    """The board of all finished tasks in a suite's folder.

    Weights are those of the tasks that are there, so that any prefix of a suite is a board.

    Raises:
      EntrobError: no task is finished yet, or its tables contradict themselves.
      Damaged: a record cannot be read.
    """
    manifest = json.loads((root / "manifest.json").read_text())
    if not manifest["tasks"]:
        raise EntrobError(f"{root} holds no finished task yet")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    own_cells = manifest.get("calibrated", True)
    for task, facts in manifest["tasks"].items():
        tables = {name: _brought(root / task / f"{name}.csv") for name in COLUMNS}
        own_cells &= tables["cells"] is not None
        for name, frame in _completed(root, task, facts, tables).items():
            parts[name].append(frame.assign(task=task).reindex(columns=COLUMNS[name]))
    frames = {
        name: pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)
        for name, found in parts.items()
    }
    frames["cells"] = weighted(frames["cells"])
    return checked(Board(**frames, manifest={**manifest, "calibrated": own_cells}))


def _brought(path: Path) -> pd.DataFrame | None:
    """A table that a task brings itself, None if it does not."""
    if not path.exists():
        return None
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _completed(
    root: Path, task: str, facts: Mapping[str, Any], tables: dict[str, pd.DataFrame | None]
) -> dict[str, pd.DataFrame]:
    """The four tables of a task: those it brings, the others from its records."""
    found = {name: frame for name, frame in tables.items() if frame is not None}
    if not {"scores", "cells"} <= set(found):
        runs, evaluation, random = (
            read_frame(root / task / f"{kind}.parquet") for kind in ("runs", "evaluation", "random")
        )
        # The folder may hold runs with coefficients that a method had before.
        now = {run_id for ids in facts["runs"].values() for run_id in ids}
        runs, evaluation = (frame[frame.run_id.isin(now)] for frame in (runs, evaluation))
        measure, scale = scaling(evaluation, random)
        found.setdefault("scores", scores(runs, evaluation, measure, scale))
        if "cells" not in found:
            categories = {
                name: categorize(facts, name) for name in evaluation.perturbation.unique()
            }
            found["cells"] = cells(found["scores"], evaluation, measure, categories)
        folder = root / "tune" / task
        if "tuning" not in found and (folder / "evaluation.parquet").exists():
            frames = [read_frame(folder / f"{kind}.parquet") for kind in ("runs", "evaluation")]
            found["tuning"] = tuning(*frames, measure, scale, facts["coefficients"])
    empty = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    return empty | found


def scaling(evaluation: pd.DataFrame, random: pd.DataFrame) -> tuple[str, tuple[float, float]]:
    """What a task's score is, and which values of it count 0 and 1.

    On a grid it is success on solvable instances as it is.  Elsewhere it is the return, between
    that of the uniformly random policy and that of the best method, both on the nominal task.
    """
    if evaluation.exact_success.notna().any():
        return "success", (0.0, 1.0)
    nominal = evaluation[evaluation.magnitude == 0]
    best = nominal.groupby("method").return_mean.mean().max()
    floor = random.loc[random.magnitude == 0, "return_mean"].mean()
    return "return_mean", (float(floor), float(max(best, floor + 1e-9)))


def scores(
    runs: pd.DataFrame, evaluation: pd.DataFrame, measure: str, scale: tuple[float, float]
) -> pd.DataFrame:
    """A task's ``scores.csv`` without its task.

    A run that diverged or has no score counts 0, or what the worst run does if that is less.  The
    price is counted from the mean nominal score of `none` over its seeds: one that failed itself
    would make a ratio to its own score meaningless.

    Args:
      runs, evaluation: the task's records.
      measure, scale: of `scaling`.
    """
    low, high = scale
    frame = evaluation[["run_id", "method", "seed", *AT]].copy()
    frame["score"] = (_measured(evaluation, measure) - low) / (high - low)
    lost = frame.run_id.isin(runs.loc[runs.status == "diverged", "run_id"]) | frame.score.isna()
    least = frame[~lost].groupby(AT).score.min().clip(upper=0.0)
    worst = frame.set_index(AT).index.map(least).to_numpy(dtype=float)
    frame["score"] = frame.score.where(~lost, np.nan_to_num(worst))
    # Magnitude 0 is the identity, whichever perturbation it belongs to.
    zero = frame.magnitude == 0
    nominal = frame[zero].groupby(["method", "seed"], sort=False).score.mean().reset_index()
    base = nominal[nominal.method == BASELINE].set_index("seed").score
    with np.errstate(divide="ignore", invalid="ignore"):
        price = (nominal.seed.map(base) - nominal.score) / base.mean()
    nominal = nominal.assign(perturbation=NOMINAL, magnitude=0.0, price=price)
    frame = frame[~zero].drop(columns="run_id").assign(price=np.nan)
    order = {method: i for i, method in enumerate(dict.fromkeys(nominal.method))}
    both = pd.concat([nominal, frame.astype({"price": float})], ignore_index=True)
    key = lambda column: column.map(order) if column.name == "method" else column
    return both.sort_values(["method", "seed"], key=key, kind="stable", ignore_index=True)


def _measured(evaluation: pd.DataFrame, measure: str) -> pd.Series:
    """Each row's raw score: exact success where that is known, else sampled, or the return."""
    if measure == "return_mean":
        return evaluation.return_mean
    exact = evaluation.instance_success.map(
        lambda values: np.nanmean(values) if np.isfinite(values).any() else np.nan
    )
    return exact.where(evaluation.exact_success.notna(), evaluation.success_solvable)


def cells(
    scores: pd.DataFrame, evaluation: pd.DataFrame, measure: str, categories: Mapping[str, str]
) -> pd.DataFrame:
    """A task's cells from its reported runs, for want of calibration runs.

    The reference is the optimum, 1, where success is exact; elsewhere the best method's mean.
    """
    means = scores.groupby([*AT, "method"], sort=False).score.mean().unstack("method")
    exact = set()
    if measure == "success":
        known = evaluation[evaluation.exact_success.notna()]
        exact = set(zip(known.perturbation, known.magnitude, strict=True))
    rows = []
    for (name, magnitude), row in means.iterrows():
        if name == NOMINAL:
            continue
        reference = 1.0 if (name, magnitude) in exact else row.max()
        rows.append(
            {"perturbation": name, "magnitude": magnitude, "category": categories[name]}
            | {"none": row[BASELINE], "nominal": means.loc[(NOMINAL, 0.0), BASELINE]}
            | {"reference": reference}
        )
    columns = [name for name in COLUMNS["cells"] if name != "task"]
    return pd.DataFrame(rows, columns=columns)


def tuning(
    runs: pd.DataFrame,
    evaluation: pd.DataFrame,
    measure: str,
    scale: tuple[float, float],
    chosen: Mapping[str, float],
) -> pd.DataFrame:
    """A task's ``tuning.csv`` from tuning runs that were tested on the nominal task alone.

    Args:
      runs, evaluation: their records; a method is called ``NAME@COEFFICIENT``.
      measure, scale: of `scaling`.
      chosen: the coefficient in use, by method.
    """
    found = scores(runs, evaluation, measure, scale)
    rows = found[(found.method != BASELINE) & (found.perturbation == NOMINAL)]
    split = rows.method.str.rpartition("@")
    frame = pd.DataFrame({"method": split[0], "coefficient": split[2].astype(float)})
    frame = frame.assign(seed=rows.seed, nominal=rows.score)
    taken = frame.method.map(chosen)
    return frame.assign(chosen=np.isclose(frame.coefficient, taken.astype(float)))


def categorize(facts: Mapping[str, Any], perturbation: str) -> str:
    """The class of a perturbation on a task; raises `EntrobError` if nobody says which."""
    found = facts["categories"].get(perturbation)
    if found not in CLASSES:
        raise EntrobError(
            f"perturbation {perturbation!r} has no class: its category is {found!r}, "
            f"and a board knows {', '.join(CLASSES)}"
        )
    return found
