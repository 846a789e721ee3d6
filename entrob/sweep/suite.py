"""Suites: one ranking over several tasks, each an ordinary experiment in a folder of its own.

A suite's file has a table per task, ``[tasks.NAME]``, that says what an experiment's file says;
``[common]`` holds what tasks share, and ``[presets.PRESET]`` which tasks a preset plays and what
it changes in all of them. Every registered regularizer is a method of every task whose actions it
fits; its coefficient is tuned on that task by the 5 % rule. ``[[methods]]`` holds further ones,
which are played as they are, and left out where a task cannot have their adversary.
"""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pandas as pd
from gymnax.environments import spaces

from entrob.agents.adversary import KINDS, adversary_of, misfit
from entrob.envs import make
from entrob.errors import EntrobError, unknown
from entrob.perturbations import perturbations
from entrob.regularizers import family, regularizers
from entrob.results.provenance import provenance
from entrob.results.store import Store, read_frame, write_frame, write_json
from entrob.results.tuning import write_tuning
from entrob.sweep import runner
from entrob.sweep.experiment import Experiment, Method, check_keys, coefficient, from_table
from entrob.sweep.files import read
from entrob.sweep.groups import group_methods, runs_of
from entrob.sweep.measure import Tester
from entrob.sweep.overhead import overhead
from entrob.sweep.tune import BASELINE, tune

_TOP = {"title", "common", "tasks", "presets", "tune", "methods"}
_TUNE = {"seeds", "factors", "reach"}


@dataclasses.dataclass(frozen=True)
class Suite:
    """One preset of a suite.

    Attributes:
      name, title, preset: as of an `Experiment`.
      tasks: task name -> its experiment, whose ``tune`` table has a grid per method.
      declared: the names in ``[[methods]]``, of which a task has those that fit it.
    """

    name: str
    title: str
    preset: str
    tasks: dict[str, Experiment]
    declared: tuple[str, ...] = ()


def is_suite(name: str) -> bool:
    """Whether a file declares tasks; raises `EntrobError` if there is no such file."""
    return "tasks" in read(name)[1]


def load(name: str, preset: str) -> Suite:
    """Read a suite's file and one of its presets.

    Raises:
      EntrobError: as `entrob.sweep.experiment.load`, or a task that is not declared.
    """
    path, data = read(name)
    check_keys(path.name, data, _TOP)
    presets = data.get("presets", {})
    if preset not in presets:
        raise unknown("preset", preset, presets)
    chosen = dict(presets[preset])
    played = chosen.pop("tasks", list(data["tasks"]))
    tuning = {"seeds": 3, "factors": [10.0, 100.0], "reach": 100.0, **data.get("tune", {})}
    tuning |= chosen.pop("tune", {})
    check_keys(f"{path.name}: tune", tuning, _TUNE)
    factors = [coefficient("tune.factors", factor) for factor in tuning["factors"]]
    reach = coefficient("tune.reach", tuning["reach"])
    if reach < 1:
        raise EntrobError(f"{path.name}: tune.reach must be at least 1, not {reach:g}")
    declared = tuple(_declared(path.name, entry) for entry in data.get("methods", []))
    tasks = {}
    for task in played:
        if task not in data["tasks"]:
            raise unknown("task", task, data["tasks"])
        where, table = f"{path.name}: tasks.{task}", _table(path.name, data, task, preset, chosen)
        experiment = from_table(where, f"{path.stem}-{task}", table, preset)
        tuned = [m for m in experiment.methods if m.coefficients and m.name not in declared]
        grids = {m.name: grid(m, factors, reach) for m in tuned}
        tune = {"seeds": tuning["seeds"], "grids": grids}
        if not getattr(make(experiment.environment)[0], "finite", False):
            tune["measure"] = "return_mean"  # as the leaderboard scores what is no grid
        tasks[task] = dataclasses.replace(experiment, tune=tune)
    return Suite(path.stem, data.get("title", path.stem), preset, tasks, declared)


def _declared(where: str, entry: dict[str, Any]) -> str:
    """The name of one of ``[[methods]]``; raises `EntrobError` if it does nothing."""
    if "name" not in entry or not (entry.get("adversary") or entry.get("coefficients")):
        raise EntrobError(f"{where}: each of methods needs a name and an adversary or coefficients")
    return entry["name"]


def _table(
    where: str, data: dict[str, Any], task: str, preset: str, chosen: dict[str, Any]
) -> dict[str, Any]:
    """What an experiment's file would say of a task: common settings, its own, and all methods.

    Args:
      where: the suite's file, for errors.
      data: what it says.
      task, preset: which.
      chosen: the preset's settings for all tasks, which a preset of the task's own overrides.
    """
    common, own = data.get("common", {}), dict(data["tasks"][task])
    presets = {preset: chosen | own.pop("presets", {}).get(preset, {})}
    hyper = common.get("hyper", {}) | own.get("hyper", {})
    if "environment" not in own:
        raise EntrobError(f"{where}: tasks.{task} has no environment")
    env, _ = make(own["environment"])
    more = [entry for entry in data.get("methods", []) if _fits(where, env, entry)]
    methods = [*_methods(env), *more]
    return {**common, **own, "hyper": hyper, "presets": presets, "methods": methods}


def _methods(env: Any) -> list[dict[str, Any]]:
    """``none`` and every registered regularizer that fits the environment's actions, as tables."""
    fitting = [name for name in regularizers.names() if _plays(name, env)]
    coefs = {name: regularizers.get(name)().coef for name in fitting}
    tables = [{"name": name, "coefficients": {name: coef}} for name, coef in coefs.items()]
    return [{"name": "none"}, *tables]


def _plays(name: str, env: Any) -> bool:
    """Whether a regularizer knows the environment's kind of actions."""
    discrete = isinstance(env.action_space(env.default_params), spaces.Discrete)
    return ("discrete" if discrete else "continuous") in regularizers.get(name)().actions


def _fits(where: str, env: Any, entry: dict[str, Any]) -> bool:
    """Whether a task can have a method's adversary, if it has one; raises `EntrobError`."""
    adversary = adversary_of(where, entry.get("adversary", {}))
    return adversary is None or misfit(env, adversary) is None


def grid(method: Method, factors: list[float], reach: float) -> dict[str, Any]:
    """The grid of a method of one regularizer: multiples of its default coefficient.

    Args:
      method: it.
      factors: what is tried at first.
      reach: largest factor, and the inverse of the smallest, that the grid may be extended to.
    """
    ((name, coef),) = method.coefficients.items()
    values = [float(f"{coef * factor:.3g}") for factor in factors]
    # Values are rounded to three digits.
    return {
        "coefficient": name,
        "values": values,
        "bounds": [0.99 * coef / reach, 1.01 * coef * reach],
    }


def narrowed(experiment: Experiment) -> Experiment:
    """Keep the methods that fit the actions, and tune those that have coefficients to choose."""
    env, _ = make(experiment.environment)
    fitting = [m for m in experiment.methods if all(_plays(name, env) for name in m.coefficients)]
    names = {method.name for method in fitting}
    grids = {name: grid for name, grid in experiment.tune["grids"].items() if name in names}
    tune = {**experiment.tune, "grids": grids}
    return dataclasses.replace(experiment, methods=tuple(fitting), tune=tune)


def with_coefficients(experiment: Experiment, chosen: dict[str, float], smallest) -> Experiment:
    """The experiment with tuned coefficients.

    A method of which no coefficient passed takes the smallest that was tried: with 0 it would be
    `none` once more.

    Args:
      experiment: it.
      chosen: by method, 0 where none passed.
      smallest: the smallest that was tried, by method.
    """

    def tuned(method: Method) -> Method:
        if method.name not in chosen:
            return method
        name = experiment.tune["grids"][method.name]["coefficient"]
        value = chosen[method.name] or float(smallest[method.name])
        return dataclasses.replace(method, coefficients={**method.coefficients, name: value})

    return dataclasses.replace(experiment, methods=tuple(map(tuned, experiment.methods)))


def run(suite: Suite, root: Path, command: str, batch_size: int | None, say) -> dict[str, Any]:
    """Tune, train and test every task of a suite; finished work is skipped.

    Args:
      suite: what to run.
      root: folder; a task has a folder in it, and its tuning one in ``tune``.
      command: the command line, for the manifests.
      batch_size: runs side by side, see `entrob.sweep.runner.run`.
      say: told of every step before it begins.

    Returns:
      The suite's manifest, written to ``root/manifest.json``: what a leaderboard must know of the
      methods and tasks besides their records.

    Raises:
      EntrobError: as `entrob.sweep.runner.run`.
    """
    claim(suite, root)
    # From the start: whatever ends this session, status and report can be asked.
    _manifest(suite, root, command, {})
    for task, experiment in suite.tasks.items():
        say(f"{task}: tuning coefficients")
        trainers = {}  # tuning's serve the reported runs
        chosen, tried = {}, pd.DataFrame({"min": [], "max": []})
        if experiment.tune["grids"]:
            store = Store(root / "tune" / task)
            chosen, table, manifest = tune(experiment, store, command, batch_size, trainers)
            write_tuning(store.root, table, manifest, keep=True)
            tried = table.groupby("method").coefficient.agg(["min", "max"])
        experiment = with_coefficients(experiment, chosen, tried["min"])
        say(f"{task}: training and testing {len(experiment.methods)} methods")
        manifest = runner.run(
            experiment, Store(root / task), command, batch_size, trainers=trainers
        )
        broken = manifest["broken"]
        _measure_random(experiment, root / task / "random.parquet")
        _manifest(suite, root, command, {task: _facts(experiment, chosen, tried["max"], broken)})
    say("overhead of every method")
    for experiment in suite.tasks.values():
        _measure_overhead(experiment, root / "overhead.parquet")
    return _manifest(suite, root, command, {})


def _facts(experiment: Experiment, chosen: dict[str, float], largest, broken: dict[str, str]):
    """What the leaderboard must know of a task."""
    _, params = make(experiment.environment, noise=True)
    methods = [m for m in experiment.methods if m.coefficients and m.name not in broken]
    return {
        "environment": experiment.environment,
        "kinds": {n: perturbations.get(n, params).kind for n in experiment.perturbations},
        "coefficients": {m.name: next(iter(m.coefficients.values())) for m in methods},
        "passed": {m.name: bool(chosen.get(m.name, True)) for m in methods},
        "open": {name: bool(value == largest[name]) for name, value in chosen.items()},
        "runs": {m.name: [run.id for run in runs_of(experiment, m)] for m in experiment.methods},
        "broken": broken,
    }


def claim(suite: Suite, root: Path) -> None:
    """Raise `EntrobError` if a folder holds anything but this preset of this suite."""
    path = root / "manifest.json"
    if path.exists():
        old = json.loads(path.read_text())
        if (old.get("suite"), old.get("preset")) != (suite.name, suite.preset):
            made = f"{old.get('suite', old.get('experiment'))} {old.get('preset', '')}".strip()
            raise EntrobError(
                f"{root} was made by another experiment ({made}): choose another --out"
            )
    elif root.exists() and any(root.iterdir()):
        raise EntrobError(f"{root} is not empty and holds no entrob results")


def _measure_random(experiment: Experiment, path: Path) -> None:
    """Play the uniformly random policy; what earlier calls measured besides stays."""
    new = Tester(experiment).random_policy(group_methods(experiment.methods)[0])
    known = [read_frame(path)] if path.exists() else []
    both = pd.concat([new, *known], ignore_index=True)
    write_frame(path, both.drop_duplicates(["perturbation", "magnitude"], ignore_index=True))


def _measure_overhead(experiment: Experiment, path: Path) -> None:
    """Measure the methods that have not been measured yet, on this or on an earlier task."""
    known = read_frame(path) if path.exists() else None
    done = {BASELINE} if known is None else {BASELINE, *known.method}
    methods = tuple(m for m in experiment.methods if m.name not in done)
    if not methods:
        return
    new = overhead(dataclasses.replace(experiment, methods=methods))
    write_frame(path, new if known is None else pd.concat([known, new], ignore_index=True))


def _manifest(suite: Suite, root: Path, command: str, tasks: dict[str, Any]) -> dict[str, Any]:
    """Write the suite's manifest with what is known of further tasks, and return it."""
    path = root / "manifest.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    all_methods = {m.name: m for e in suite.tasks.values() for m in e.methods}
    described = {name: _describe(m) for name, m in all_methods.items() if name != BASELINE}
    merged = dict(old.get("tasks", {}))
    for task, facts in tasks.items():
        # Methods of earlier calls stay on the board, or left out.
        before = merged.get(task, {"broken": {}})
        left = {n: why for n, why in before["broken"].items() if n not in facts["runs"]}
        before = {**before, "broken": left}
        tables = [k for k, fact in facts.items() if isinstance(fact, dict)]
        merged[task] = facts | {k: before.get(k, {}) | facts[k] for k in tables}
    commands = old.get("commands", [])
    manifest = {
        "suite": suite.name,
        "title": suite.title,
        "preset": suite.preset,
        "commands": commands if command in commands else [*commands, command],
        "tasks": merged,
        "methods": {**old.get("methods", {}), **described},
        **provenance(),
    }
    write_json(path, manifest)
    return manifest


def _describe(method: Method) -> dict[str, Any]:
    """What the leaderboard says of a method besides its scores."""
    if method.adversary:
        adversary = adversary_of(method.name, method.adversary)
        facts = KINDS[adversary.kind]._asdict()
        return {"family": "adversaries", **facts, "strength": adversary.strength}
    name = next(iter(method.coefficients))
    factory = regularizers.get(name)
    part = factory()
    return {
        "family": family(name),
        "label": part.graded,
        "source": part.source,
        "coef": part.coef,
        "doc": inspect.getdoc(factory) or "",
    }
