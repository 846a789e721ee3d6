"""What is reported of a task: runs with seeds from 0, and how active every method is."""

import dataclasses

import pandas as pd

from entrob.statistics.board import COLUMNS
from entrob.suite.cells import Calibration
from entrob.suite.declaration import SuiteTask, active
from entrob.suite.desk import Desk, Records
from entrob.suite.frontier import Tuned
from entrob.suite.scores import priced, scored
from entrob.sweep.experiment import Method

#: Median activity below which a method is inactive.
INACTIVE = 0.01


def idle(tuned: Tuned) -> dict[str, str]:
    """By method, why it gets no reported seeds: "identical" or "inactive" at all its values."""
    found = {}
    for name, rows in tuned.table.groupby("method", sort=False):
        if status := status_of(rows.groupby("coefficient").activity.median().max()):
            found[str(name)] = status
    return found


def status_of(activity: float) -> str:
    """What an activity means: "identical", "inactive", or "" for one that is neither or unknown."""
    return "identical" if activity == 0 else "inactive" if activity < INACTIVE else ""


def diverged(runs: pd.DataFrame) -> list[str]:
    """The methods of which no run is left: they have no score, rather than one of 0."""
    gone = (runs.status == "diverged").groupby(runs.method).all()
    return list(gone.index[gone])


def report(
    task: SuiteTask, desk: Desk, found: Calibration, tuned: Tuned
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test what is reported.

    Returns:
      ``scores.csv`` and ``activity.csv`` of the task, see `entrob.statistics.board`; what is idle
      at all its values has rows of the tuning runs in the latter, and what diverged in every seed
      has none in the former.
    """
    out = idle(tuned)
    methods = tuple(m for m in desk.working(tuned.methods) if m.name not in out)
    experiment = dataclasses.replace(
        task.experiment, methods=methods, perturbations=found.magnitudes
    )
    desk.say(f"{task.name}: training and testing {len(methods)} methods")
    records = desk.run(experiment, "reported")
    lost = diverged(records.runs)
    records = records._replace(evaluation=records.evaluation[~records.evaluation.method.isin(lost)])
    scores = priced(scored(records.runs, records.evaluation, found.scale)).assign(task=task.name)
    order = {method.name: i for i, method in enumerate(methods)}
    scores = scores.assign(order=scores.method.map(order))
    scores = scores.sort_values(["order", "seed"], kind="stable", ignore_index=True)
    activity = pd.concat([_active(records, methods), _idle(tuned, out)], ignore_index=True)
    return scores[COLUMNS["scores"]], activity.assign(task=task.name)[COLUMNS["activity"]]


def _active(records: Records, methods: tuple[Method, ...]) -> pd.DataFrame:
    """Activity of every reported run, and of the method the status."""
    without = [m.name for m in methods if not active(m)]
    runs = records.runs.reindex(columns=["method", "seed", "activity"])
    runs["activity"] = runs.activity.astype(float).mask(runs.method.isin(without))
    medians = runs.groupby("method").activity.median().map(status_of)
    medians = medians.mask(medians.index.isin(diverged(records.runs)), "diverged")
    return runs.assign(status=runs.method.map(medians).fillna(""))


def _idle(tuned: Tuned, out: dict[str, str]) -> pd.DataFrame:
    """Activity of the most active value of every method that is idle at all of them."""
    rows = tuned.table[tuned.table.method.isin(out)]
    rows = rows.groupby(["method", "seed"], sort=False).activity.max().reset_index()
    return rows.assign(status=rows.method.map(out))
