"""What a preset takes from a finished board instead of finding it: cells and values."""

from pathlib import Path
from typing import Any

import pandas as pd

from entrob.errors import EntrobError
from entrob.persistence.store import read_json
from entrob.suite.cells import Calibration
from entrob.suite.declaration import TUNED, SuiteTask
from entrob.suite.scores import Scale
from entrob.sweep.experiment import Method
from entrob.sweep.knobs import Knob


def _board(task: SuiteTask) -> Path:
    """The finished board's folder."""
    if task.given is None:
        raise ValueError(f"{task.name} takes nothing from a board")
    return task.given


def _rows(task: SuiteTask, name: str) -> pd.DataFrame:
    path = _board(task) / "tables" / f"{name}.csv"
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    rows = table[table.task == task.name]
    if not len(rows):
        raise EntrobError(f"{task.given} has no task {task.name!r}")
    return rows.reset_index(drop=True)


def given_calibration(task: SuiteTask) -> Calibration:
    """The cells and the scale of a finished board's task; raises `EntrobError` if it lacks it."""
    cells = _rows(task, "cells").astype({"kept": bool})
    scale = dict(facts_of(task)["scale"])
    nominal = scale.pop("none")
    return Calibration(cells, Scale(**scale), nominal)


def facts_of(task: SuiteTask) -> dict[str, Any]:
    """What the finished board's manifest says of the task; raises `EntrobError` if nothing."""
    facts = read_json(_board(task) / "manifest.json")["tasks"].get(task.name)
    if facts is None:
        raise EntrobError(f"{task.given} has no task {task.name!r}")
    return facts


def given_values(task: SuiteTask) -> dict[str, Method]:
    """The task's methods with the values that its ``tuning.csv`` says were taken, by name."""
    taken = _rows(task, "tuning").groupby("method").taken.first()
    found = {}
    for method in task.experiment.methods:
        if method.name == TUNED and TUNED in taken:
            rate = facts_of(task)["methods"][TUNED]["hyper"]["learning_rate"]
            own = Knob("learning_rate").turned(method, rate)
            found[TUNED] = Knob("temperature").turned(own, float(taken[TUNED]))
        elif method.name in task.knobs and method.name in taken:
            found[method.name] = task.knobs[method.name].turned(method, float(taken[method.name]))
    return found
