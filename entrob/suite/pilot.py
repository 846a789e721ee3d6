"""Pilots: where values of a method are tried."""

import dataclasses

from entrob.suite.declaration import SuiteTask
from entrob.suite.desk import Desk
from entrob.sweep import knobs
from entrob.sweep.experiment import FIRST_CALIBRATION_SEED, Experiment, Method

#: Decades between two values of a pilot.
STEP = 1.0


def pilot(task: SuiteTask, desk: Desk) -> dict[str, float]:
    """Where values are tried of every method: where its activity is a tenth, if that can be had.

    Short runs of as many values as are tuned, a decade apart, so that the programs and their widths
    are those of tuning and nothing is compiled for pilots alone.
    """
    methods = {m.name: m for m in desk.working(task.experiment.methods) if m.name in task.knobs}
    if not methods:
        return {}
    count = task.rules.candidates
    tried = {
        name: knobs.grid(task.knobs[name], task.knobs[name].middle, count, STEP) for name in methods
    }
    candidates = tuple(
        task.knobs[name].candidate(methods[name], value)
        for name, values in tried.items()
        for value in values
    )
    desk.say(f"{task.name}: pilots of {len(methods)} methods")
    # By itself, so that the others' batches are as wide as in tuning; it works, whatever they do.
    desk.run(pilot_experiment(task, (task.none,)), "pilot", test=False)
    runs = desk.run(pilot_experiment(task, candidates), "pilot", test=False).runs
    activity = runs.groupby("method").activity.mean()
    found = {
        name: {v: activity.get(knobs.candidate_name(methods[name], v)) for v in values}
        for name, values in tried.items()
    }
    known = {
        name: {value: float(a) for value, a in by.items() if a is not None}
        for name, by in found.items()
    }
    return {name: knobs.center(task.knobs[name], known[name]) for name in methods}


def pilot_experiment(task: SuiteTask, methods: tuple[Method, ...]) -> Experiment:
    """Methods on seeds of calibration, for a share of the frames, not to be tested."""
    experiment = task.experiment
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-pilot",
        title=f"Activity on {experiment.name}",
        methods=methods,
        frames=-(-experiment.frames * task.rules.pilot // 100),
        seeds=task.rules.seeds,
        first_seed=FIRST_CALIBRATION_SEED,
        perturbations={},
    )
