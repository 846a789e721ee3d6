"""Calibration: what of a task is tested, and what could be had there at best.

All comes from seeds and instances that are neither tuned nor reported on.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from entrob.perturbations import NOMINAL, perturbations
from entrob.statistics.board import weighted
from entrob.statistics.recovered_share import SOLVED
from entrob.suite import calibrate as rule
from entrob.suite.declaration import SuiteTask
from entrob.suite.desk import Desk, Records
from entrob.suite.scores import CONDITION, Scale, cell_rows, return_scale, scored
from entrob.sweep.experiment import FIRST_CALIBRATION_SEED, Experiment
from entrob.sweep.groups import group_methods
from entrob.sweep.measure import Tester
from entrob.sweep.program import nominal


class Calibration(NamedTuple):
    """What calibration finds.

    Attributes:
      cells: a row per cell that is tested, see `entrob.statistics.board`.
      scale: of the task's scores.
      nominal: mean nominal score of `none`.
    """

    cells: pd.DataFrame
    scale: Scale
    nominal: float

    @property
    def magnitudes(self) -> dict[str, tuple[float, ...]]:
        """Those tested, by perturbation."""
        groups = self.cells.groupby("perturbation", sort=False)
        return {str(name): tuple(rows.magnitude) for name, rows in groups}


def calibrate(task: SuiteTask, desk: Desk) -> Calibration:
    """Choose magnitudes by what `none` loses, and find what could be had at each of them.

    Of a perturbation that leaps over what the rule asks for the smallest magnitude is taken that
    costs `none` a tenth; one that never does is tested at the largest and does not count.
    """
    desk.say(f"{task.name}: calibrating with {task.rules.calibration} seeds of none")
    experiment = rule.calibration(task.experiment, task.rules.calibration)
    records = desk.run(experiment, "calibration")
    (group,) = group_methods(experiment.methods)
    scale = scale_of(task, experiment, records)
    none = scored(records.runs, records.evaluation, scale)
    means = none.groupby(CONDITION, sort=False).score.mean()
    top = float(means[NOMINAL, 0.0])
    solved = none.score[none.perturbation == NOMINAL] >= SOLVED
    desk.say(f"{task.name}: {solved.sum()} of {len(solved)} seeds of none solve the nominal task")
    losses = means.drop(index=NOMINAL, level=0).rename("score").reset_index()
    losses["loss"] = (top - losses.score) / top if top > 0 else np.nan
    chosen, others = rule.chosen(losses, experiment, task.rules.magnitudes)
    harmful = losses[losses.loss >= rule.LEAST].groupby("perturbation").magnitude.min()
    chosen |= {name: (float(harmful[name]),) for name in others if name in harmful}
    largest = {name: (values[-1],) for name, values in experiment.perturbations.items()}
    tested = {name: chosen.get(name, largest[name]) for name in experiment.perturbations}
    # Magnitudes by the rule lie between those of the fine grid.
    final = dataclasses.replace(experiment, perturbations=tested)
    records = desk.run(final, "calibration")
    none = scored(records.runs, records.evaluation, scale)
    exact = none.groupby(CONDITION).exact.all()
    unknown = {
        name: values
        for name, values in chosen.items()
        if not all(exact[name, value] for value in values)
    }
    best = {name: 1.0 if name in chosen else math.nan for name in tested}
    references = {(name, m): best[name] for name, values in tested.items() for m in values}
    references |= specialists(task, desk, unknown, scale)
    _, params = nominal(experiment, group).pair(noise=True)
    categories = {name: perturbations.get(name, params).category for name in tested}
    cells = weighted(cell_rows(task.name, none, tested, categories, references))
    return Calibration(cells, scale, top)


def scale_of(task: SuiteTask, experiment: Experiment, records: Records) -> Scale:
    """The scale of a task's scores: see `Scale`.

    Args:
      task: it.
      experiment: its calibration.
      records: of `none` there.
    """
    if task.measure == "success":
        return Scale("success")
    unperturbed = dataclasses.replace(experiment, perturbations={})
    (group,) = group_methods(experiment.methods)
    random = Tester(unperturbed).random_policy(nominal(unperturbed, group))
    finished = records.runs.run_id[records.runs.status != "diverged"]
    own = records.evaluation[records.evaluation.perturbation == NOMINAL]
    own = own[own.run_id.isin(finished)]
    return return_scale(float(random.return_mean.iloc[0]), float(own.return_mean.mean()))


def specialists(
    task: SuiteTask, desk: Desk, cells: dict[str, tuple[float, ...]], scale: Scale
) -> dict[tuple[str, float], float]:
    """Score of `none` trained on each cell, on it: the reference where no optimum is known.

    All are one program: a mixture of all cells, of whose weights one is not 0.
    """
    all_cells = [[name, m] for name, values in cells.items() for m in values]
    found: dict[tuple[str, float], float] = {}
    for name, values in cells.items():
        desk.say(f"{task.name}: specialists for {name}")
        methods = [
            dataclasses.replace(
                task.none,
                base=f"specialist {name} {value:g}",
                mixture=[[n, m, float((n, m) == (name, value))] for n, m in all_cells],
            )
            for value in values
        ]
        experiment = dataclasses.replace(
            task.experiment,
            name=f"{task.experiment.name}-references",
            title=f"References of {task.experiment.name}",
            methods=tuple(methods),
            perturbations={name: values},
            seeds=task.rules.references,
            first_seed=FIRST_CALIBRATION_SEED,
            evaluation_seed=FIRST_CALIBRATION_SEED,
        )
        records = desk.run(experiment, "references")
        scores = scored(records.runs, records.evaluation, scale)
        means = scores.groupby(["method", *CONDITION]).score.mean()
        found |= {(name, v): float(means[m.name, name, v]) for m, v in zip(methods, values)}
    return found
