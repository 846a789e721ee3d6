"""The tidy tables from which everything on a board is computed, and that are committed with it.

``scores.csv``: a row per reported run × condition.  `score` is success on solvable instances, or
the return between the random policy, 0, and the optimum or a stored reference, 1.  The nominal task
is the perturbation "nominal" of magnitude 0.  `price` stands in its row: the share of the nominal
score of `none` that the run of the same seed gives up.

``cells.csv``: a row per task × perturbation × magnitude, what is known of it from calibration runs
of `none`: its `category`, the scores `none`, `nominal` and `reference`, and `gap` between reference
and none.  `kept` says whether it counts, `why` not, and `weight` how much within its class.

``tuning.csv``: a row per tuning run: its `coefficient`, `seed`, `nominal` score, `activity`, and
the share recovered in every class, one column each; `taken` is the coefficient that is reported, by
interpolation, and `chosen` marks the one tried that is nearest to it.  `knob` says what is varied:
a "coefficient", an adversary's "strength" or, of `none_tuned`, the "temperature".

``activity.csv``: per task, method and seed the median `activity` over training, and `status`:
"identical", "inactive", "diverged" (in every seed, so that there are no scores) or "".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from entrob.errors import EntrobError, unknown
from entrob.naming import BASELINE
from entrob.persistence.store import read_json, write_bytes
from entrob.perturbations.base import CATEGORIES, NOMINAL

CLASSES = CATEGORIES
"""Classes of perturbations, in the order of tables and figures."""

LOSS = 0.1
"""Kept cells leave at least this much between `none` and the reference, and cost `none` as much."""

CELL = ["task", "perturbation", "magnitude"]

COLUMNS = {
    "scores": ["task", "method", "seed", "perturbation", "magnitude", "score", "price"],
    "cells": [*CELL, "category", "none", "nominal", "reference", "gap", "weight", "kept", "why"],
    "tuning": [
        *("task", "method", "knob", "coefficient", "seed", "nominal", "activity"),
        *(*CLASSES, "chosen", "taken"),
    ],
    "activity": ["task", "method", "seed", "activity", "status"],
}

REMARKS = {"cells": "why", "activity": "status"}
"""Columns of words that may all be empty, which CSV cannot tell from numbers that are missing."""


class Board(NamedTuple):
    """The tables, and what the suite's manifest says of methods and tasks."""

    scores: pd.DataFrame
    cells: pd.DataFrame
    tuning: pd.DataFrame
    activity: pd.DataFrame
    manifest: Mapping[str, Any]

    @property
    def tasks(self) -> list[str]:
        """Names, in the order of the table."""
        return list(self.scores.task.unique())

    @property
    def methods(self) -> list[str]:
        """Names without the baseline's, in the order of the table; lost ones come last."""
        lost = self.activity.method[self.activity.status == "diverged"]
        names = dict.fromkeys([*self.scores.method, *lost])
        return [name for name in names if name != BASELINE]

    @property
    def classes(self) -> list[str]:
        """Those with kept cells."""
        kept = set(self.cells.category[self.cells.kept])
        return [name for name in CLASSES if name in kept]

    def family(self, method: str) -> str:
        """A method's family; "controls", "adversaries" and "tested only" are never ranked."""
        facts = self.manifest.get("methods", {}).get(method, {})
        return BASELINE if method == BASELINE else facts.get("family", "others")


def read_board(folder: Path) -> Board:
    """The tables in ``folder/tables`` and the manifest beside them.

    Raises:
      EntrobError: a table is missing or contradicts itself (`checked`).
    """
    frames = {}
    for name, columns in COLUMNS.items():
        path = folder / "tables" / f"{name}.csv"
        if not path.exists():
            raise EntrobError(f"{path} is missing: a board is computed from it")
        words = {REMARKS[name]: "str"} if name in REMARKS else {}
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=words)
        if lacking := [column for column in columns if column not in frame]:
            raise EntrobError(f"{path} has no column {', '.join(lacking)}")
        frames[name] = frame[columns].fillna(dict.fromkeys(words, ""))
    frames["cells"] = frames["cells"].astype({"kept": bool})
    frames["tuning"] = frames["tuning"].astype({"chosen": bool})
    manifest = read_json(folder / "manifest.json")
    return checked(Board(**frames, manifest=manifest))


def write_board(board: Board, folder: Path) -> None:
    """Write the tables to ``folder/tables``, all digits; raises `EntrobError` if it cannot."""
    for name in COLUMNS:
        text = getattr(board, name).to_csv(index=False, lineterminator="\n")
        write_bytes(folder / "tables" / f"{name}.csv", text.encode())


def checked(board: Board) -> Board:
    """The board itself.

    Raises:
      EntrobError: a run has two scores under one condition or a score that is no number, a
        condition has two cells or an unknown class, or a task has no runs of `none`.
    """
    for frame, key in ((board.scores, ["method", "seed", *CELL]), (board.cells, CELL)):
        twice = frame[frame.duplicated(key)]
        if len(twice):
            row = ", ".join(f"{name} {twice[name].iloc[0]}" for name in key)
            raise EntrobError(f"a board has two rows for {row}")
    wrong = board.scores[~np.isfinite(board.scores.score)]
    if len(wrong):
        raise EntrobError(
            f"a board has no score for {wrong.method.iloc[0]} on {wrong.task.iloc[0]}, "
            f"seed {wrong.seed.iloc[0]}"
        )
    for category in board.cells.category:
        if category not in CLASSES:
            raise unknown("class of perturbations", category, CLASSES)
    for task in board.tasks:
        if not ((board.scores.task == task) & (board.scores.method == BASELINE)).any():
            raise EntrobError(f"task {task!r} has no runs of {BASELINE!r} to compare with")
    return board


def weighted(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with `gap`, `kept`, `why` and `weight` by the rules.

    Kept: reference and `none` differ by `LOSS`, and `none` loses as much against its own nominal
    score.  Within a class tasks weigh alike, within a task perturbations, within those magnitudes.

    Args:
      cells: with the columns up to `reference`.
    """
    cells = cells.assign(gap=cells.reference - cells.none)
    little = {
        "none loses less than 0.1": ~(cells.nominal - cells.none >= LOSS),
        "less than 0.1 between none and the reference": ~(cells.gap >= LOSS),
    }
    why = pd.Series("", index=cells.index)
    for reason, found in little.items():
        why = why.mask(found & (why == ""), reason)
    return _with_weights(cells.assign(kept=why == "", why=why))


def _with_weights(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with the `weight` of those that are kept."""
    some = cells[cells.kept]
    tasks = some.groupby("category").task.nunique()
    perturbations = some.groupby(["category", "task"]).perturbation.nunique()
    magnitudes = some.groupby(["category", "task", "perturbation"]).size()
    weight = [
        1 / (tasks[c.category] * perturbations[c.category, c.task])
        / magnitudes[c.category, c.task, c.perturbation]
        if c.kept
        else 0.0
        for c in cells.itertuples()
    ]  # fmt: skip
    return cells.assign(weight=weight)[COLUMNS["cells"]]


def common(board: Board, methods: list[str]) -> Board:
    """The board with those cells kept alone in which all of some methods were tested.

    A method need not have a task, but if it has one, it has all its kept cells. The others are left
    out with the reason, and weights are those of the cells that remain.
    """
    cells = board.cells
    have = set(board.scores[["method", *CELL]].itertuples(index=False, name=None))
    played = set(board.scores[["method", "task"]].itertuples(index=False, name=None))
    why = cells.why.copy()
    for i, cell in enumerate(cells[CELL].itertuples(index=False, name=None)):
        lacking = [m for m in methods if (m, cell[0]) in played and (m, *cell) not in have]
        if cells.kept.iloc[i] and lacking:
            why.iloc[i] = f"not tested for {', '.join(lacking)}"
    if why.equals(cells.why):
        return board
    return board._replace(cells=_with_weights(cells.assign(kept=why == "", why=why)))


def calibrated(board: Board) -> bool:
    """Whether cells are from calibration runs, not from the reported runs of `none` themselves."""
    return bool(board.manifest.get("calibrated", False))


def nominal(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the unperturbed task."""
    return scores[scores.perturbation == NOMINAL]
