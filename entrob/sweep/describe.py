"""What a report must know of an experiment besides its records: the manifest's descriptive part."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from entrob.errors import EntrobError
from entrob.evaluation.batch import TRACED
from entrob.evaluation.evaluator import keys_of_instances
from entrob.perturbations import NOMINAL, perturb, perturbations
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import group_methods
from entrob.sweep.program import nominal
from entrob.sweep.reading import load

#: Digits of a coordinate in the manifest: micrometers.
DIGITS = 6


def headline(experiment: Experiment, name: str) -> float:
    """The magnitude of a perturbation in the headlines: the paper's if tested, or the largest.

    As `entrob.report.tables.headline_magnitude` finds it in the records.
    """
    tested = experiment.perturbations[name]
    published = experiment.published.get("magnitudes", {}).get(name)
    return float(published if published in tested else tested[-1])


def describe(experiment: Experiment, old: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a manifest: ``paper``, ``units``, and ``scenes`` with ``trace_axes``.

    Args:
      experiment: what is run.
      old: the manifest so far, whose other perturbations are kept.

    Returns:
      ``paper`` as in the experiment's file; ``units``, what magnitudes measure, by perturbation;
      and if the environment has a ``scene(params)``, ``scenes`` by condition (see `scene_of`).
    """
    # The methods' own params differ in what the task pays, not in where things stand.
    task = nominal(experiment, group_methods(experiment.methods)[0])
    env, params = task.pair(noise=True)
    units = {name: perturbations.get(name, params).unit for name in experiment.perturbations}
    entries = {
        "paper": dict(experiment.published),
        "units": {**old.get("units", {}), **units},
    }
    if env.scene is None:
        return entries
    conditions = {NOMINAL: 0.0}
    conditions |= {name: headline(experiment, name) for name in experiment.perturbations}
    scenes = {
        name: scene_of(env, params, name, magnitude, experiment)
        for name, magnitude in conditions.items()
    }
    axes = list(env.trace_axes)
    return {**entries, "trace_axes": axes, "scenes": {**old.get("scenes", {}), **scenes}}


def scene_of(
    env: Any, params: Any, name: str, magnitude: float, experiment: Experiment
) -> dict[str, Any]:
    """What stands where under a perturbation, or under none, in meters, as lists of numbers.

    Returns:
      ``magnitude``; ``blocks`` [n, 4] (x, y, half x, half y) of the first test instance; ``goals``
      [m, 2], the distinct ones of the instances whose traces are kept; and their ``radius``.
    """
    if name == NOMINAL:
        scenes = [env.scene(params)]
    else:
        entry = perturbations.get(name, params)
        keys = keys_of_instances(experiment.evaluation_seed, name, params, experiment.instances)
        keys = keys[: TRACED if entry.instances_distinct else 1]
        scenes = [env.scene(perturb(k, params, name, jnp.float32(magnitude))) for k in keys]
    goals = [scene["goal"] for scene in scenes if scene.get("goal") is not None]
    return {
        "magnitude": magnitude,
        "blocks": _rounded(scenes[0].get("blocks", ()), 4),
        "goals": np.unique(_rounded(goals, 2), axis=0).tolist() if goals else [],
        "radius": round(float(scenes[0].get("radius", 0.0)), DIGITS),
    }


def _rounded(values: Any, width: int) -> list[list[float]]:
    return np.asarray(values, np.float64).reshape(-1, width).round(DIGITS).tolist()


def complete(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with what runs of earlier versions did not record, from the experiment's file.

    Nothing is added if there is no such file any more, or if it is about another environment.
    """
    if "paper" in manifest:
        return dict(manifest)
    try:
        experiment = load(manifest["experiment"], manifest["preset"])
    except (EntrobError, KeyError):
        return dict(manifest)
    if experiment.environment != manifest.get("environment"):
        return dict(manifest)
    ran = manifest.get("methods", {})
    order = [method.name for method in experiment.methods if method.name in ran]
    methods = {name: ran[name] for name in dict.fromkeys([*order, *ran])}
    return {**manifest, **describe(experiment, manifest), "methods": methods}
