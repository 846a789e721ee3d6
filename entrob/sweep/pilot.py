"""Pilots: where values of a method are tried."""

import dataclasses
import math

import pandas as pd

from entrob.sweep import knobs
from entrob.sweep.desk import Desk
from entrob.sweep.experiment import FIRST_CALIBRATION_SEED, Experiment, Method
from entrob.sweep.suite import Task

#: Median activity that pilots aim at.
TARGET = 0.1
#: A second pilot is run where the first one is farther than this from the target, in decades.
FAR = 0.5


def pilot(task: Task, desk: Desk) -> dict[str, float]:
    """Where values are tried of every method: where its activity is a tenth, if that can be had.

    One short run per method in the middle of its domain; where its activity is far from a tenth, a
    second one where it would be a tenth if it were linear, or two decades up where it is 0.
    """
    methods = {m.name: m for m in desk.working(task.experiment.methods) if m.name in task.knobs}
    found: dict[str, dict[float, float]] = {name: {} for name in methods}
    for attempt in (1, 2):
        tried = {name: _next_pilot(task.knobs[name], found[name]) for name in methods}
        tried = {name: value for name, value in tried.items() if value is not None}
        tried = {name: v for name, v in tried.items() if name not in desk.broken}
        if not tried:
            break
        desk.say(f"{task.name}: pilot {attempt} of {len(tried)} methods")
        candidates = [task.knobs[name].candidate(methods[name], v) for name, v in tried.items()]
        experiment = _pilot_experiment(task, (task.none, *candidates))
        runs = desk.run(experiment, "pilot", test=False).runs
        activity = runs.set_index("method").get("activity", pd.Series(dtype=float))
        for name, value in tried.items():
            label = knobs.candidate_name(methods[name], value)
            found[name][value] = float(activity.get(label, math.nan))
    return {name: knobs.center(task.knobs[name], values) for name, values in found.items()}


def _next_pilot(knob: knobs.Knob, found: dict[float, float]) -> float | None:
    """What value is to be tried, None if enough is known."""
    if not found:
        return knob.middle
    ((value, activity),) = found.items()
    if math.isnan(activity):
        return None
    if activity == 0:
        return knob.value(knob.place(value) + 2)
    far = abs(math.log10(activity / TARGET)) > FAR
    guess = knobs.center(knob, found)
    return guess if far and guess != value else None


def _pilot_experiment(task: Task, methods: tuple[Method, ...]) -> Experiment:
    experiment = task.experiment
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-pilot",
        title=f"Activity on {experiment.name}",
        methods=methods,
        frames=-(-experiment.frames * task.rules.pilot // 100),
        seeds=1,
        first_seed=FIRST_CALIBRATION_SEED,
        perturbations={},
    )
