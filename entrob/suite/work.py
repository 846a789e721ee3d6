"""A suite, task by task: each is finished before the next begins, so that any prefix is a board.

A task has a folder with a stage in each of its own: ``calibration``, ``references``, ``pilot``,
``tuning`` and ``reported``; then its tables, ``scores.csv``, ``cells.csv``, ``tuning.csv``,
``rates.csv`` and ``activity.csv``; and ``task.json``, written last, with what they are of.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from entrob.naming import BASELINE
from entrob.persistence.drawings import drawings
from entrob.persistence.lock import locked
from entrob.persistence.provenance import provenance
from entrob.persistence.store import (
    DRAWN,
    Damaged,
    Store,
    read_json,
    remove,
    write_bytes,
    write_sealed,
)
from entrob.suite import plan
from entrob.suite.cells import Calibration, calibrate
from entrob.suite.declaration import Suite, SuiteTask, claim, described
from entrob.suite.desk import BatchDone, Desk
from entrob.suite.frontier import COLUMNS as TUNING
from entrob.suite.frontier import Tuned, tune
from entrob.suite.given import given_calibration, given_values
from entrob.suite.overhead import measure_overhead
from entrob.suite.pilot import pilot
from entrob.suite.reported import report
from entrob.sweep.experiment import Method, digest
from entrob.sweep.sources import code_of, code_of_test
from entrob.sweep.train import Watch

STAGES = ("calibration", "references", "pilot", "tuning", "reported")
TABLES = ("cells", "tuning", "rates", "scores", "activity")


def run(
    suite: Suite,
    root: Path,
    command: str,
    parallel_runs: int | None,
    say: Callable[[str], None],
    resume: bool = True,
    only: str | None = None,
    begun: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Bring every task of a suite up to date; finished work is skipped.

    Args:
      suite: what to run.
      root: folder; a task has a folder in it.
      command: the command line, for the manifests.
      parallel_runs: runs side by side, see `entrob.sweep.runner.run`.
      say: told of every step before it begins, and what all will take.
      resume: go on from what the folder holds; otherwise what the suite wrote there is removed.
      only: id of a batch: that one is done, if nobody else has it, and no other.
      begun: called once the folder is the suite's, before any work.
      watch: told of the training after every chunk.

    Returns:
      The suite's manifest, written to ``root/manifest.json``.

    Raises:
      EntrobError: as `entrob.sweep.runner.run`.
    """
    claim(suite, root)
    with locked(root, alone=not resume) as lock:
        if not resume:
            clear(suite, root)
            lock.share()
        # From the start: whatever ends this session, status and report can be asked.
        manifest = _manifest(suite, root, command)
        begun()
        for name, task in suite.tasks.items():
            folder = root / name
            facts = finished(task, folder)
            if facts is None:
                costs = plan.expected(suite, manifest["tasks"])
                say(plan.text(costs))
                try:
                    facts = work(task, folder, command, parallel_runs, say, only, watch)
                except BatchDone:
                    return manifest
            manifest = _manifest(suite, root, command, name, facts)
            measure_overhead(task.experiment, root / "overhead.csv", set(facts["broken"]), say)
        return manifest


def clear(suite: Suite, root: Path) -> None:
    """Remove what a suite's tasks wrote into a folder that is its own, and nothing else."""
    manifest = root / "manifest.json"
    tasks = {*suite.tasks, *(read_json(manifest).get("tasks", {}) if manifest.exists() else {})}
    named = [root / DRAWN, *drawings(root), root / "overhead.csv"]
    for folder in (root / task for task in sorted(tasks)):
        for stage in (Store(folder / stage) for stage in STAGES):
            if stage.manifest():
                stage.clear(drawings(stage.root))
                named.append(stage.manifest_path)
        named += [folder / f"{name}.csv" for name in TABLES] + [folder / "task.json"]
    if manifest.exists():
        write_sealed(manifest, {"suite": suite.name, "preset": suite.preset})
    remove(named)


def identity(task: SuiteTask) -> str:
    """Identifies all that a task's tables depend on, but entrob's own code."""
    experiment = task.experiment
    code = [code for method in experiment.methods if (code := code_of(experiment, method))]
    code += [(c,) for name in experiment.perturbations if (c := code_of_test(experiment, name))]
    settings = experiment.training_settings, experiment.seeds, experiment.instances
    tested = list(experiment.perturbations), experiment.episodes, experiment.evaluation_seed
    methods = [method.identity for method in experiment.methods]
    values = None if task.given is None else str(task.given)
    return digest(settings, tested, methods, dataclasses.asdict(task.rules), values, *code)


def finished(task: SuiteTask, folder: Path) -> dict[str, Any] | None:
    """What ``task.json`` says if it is about just this task, and whole; else None."""
    try:
        facts = read_json(folder / "task.json")
    except Damaged:
        return None
    tables = all((folder / f"{name}.csv").exists() for name in TABLES)
    return facts if facts.get("identity") == identity(task) and tables else None


def work(
    task: SuiteTask,
    folder: Path,
    command: str,
    parallel_runs: int | None,
    say: Callable[[str], None],
    only: str | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Do all stages of a task, and write its tables; returns what the manifest says of it."""
    started = time.perf_counter()
    desk = Desk(folder, command, parallel_runs, say, only, watch)
    if task.given is None:
        found, values = calibrate(task, desk), {}
    else:
        found, values = given_calibration(task), given_values(task)
    experiment = task.experiment
    methods = tuple(values.get(m.name, m) for m in experiment.methods)
    open_ = dataclasses.replace(
        experiment, methods=tuple(m for m in methods if m.name not in values)
    )
    rest = dataclasses.replace(task, experiment=open_)
    tuned = tune(rest, desk, found, pilot(rest, desk))
    chosen = {method.name: method for method in tuned.methods} | values
    left = tuple(chosen[m.name] for m in methods if m.name in chosen)
    scores, activity = report(task, desk, found, tuned._replace(methods=left))
    write_table(folder, "cells", found.cells, keep=False)
    write_table(folder, "tuning", tuned.table.reindex(columns=list(TUNING)))
    write_table(folder, "rates", tuned.rates.reindex(columns=list(TUNING)))
    write_table(folder, "scores", scores)
    write_table(folder, "activity", activity)
    facts = _facts(task, desk, found, tuned._replace(methods=left))
    facts["diverged"] = sorted(activity.method[activity.status == "diverged"].unique())
    facts["wall_s"] = round(time.perf_counter() - started, 1)
    facts = _merged(folder / "task.json", facts)
    write_sealed(folder / "task.json", facts)
    return facts


def write_table(folder: Path, name: str, table: pd.DataFrame, keep: bool = True) -> None:
    """Write one of a task's tables; rows of methods of earlier calls stay if they may."""
    path = folder / f"{name}.csv"
    if keep and path.exists():
        old = pd.read_csv(path, keep_default_na=False, na_values=[""])
        others = old[~old.method.isin(table.method)]
        table = pd.concat([x for x in (table, others) if len(x)] or [table], ignore_index=True)
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def _facts(task: SuiteTask, desk: Desk, found: Calibration, tuned: Tuned) -> dict[str, Any]:
    """What the manifest says of a task."""
    judged = tuned.table[tuned.table.method != BASELINE].drop_duplicates("method")
    return {
        "identity": identity(task),
        "environment": task.experiment.environment,
        "frames": task.experiment.updates * task.experiment.num_envs * task.experiment.num_steps,
        "seeds": task.experiment.seeds,
        "calibrated": task.given is not None or task.rules.calibrated,
        "scale": found.scale._asdict() | {"none": found.nominal},
        "coefficients": {m.name: value_of(m) for m in tuned.methods if value_of(m) is not None},
        "methods": {method.name: method.identity for method in tuned.methods},
        "passed": dict(zip(judged.method, map(bool, judged.passed))),
        "open": dict(zip(judged.method, map(bool, judged.open))),
        "broken": desk.broken,
        "costs": costs(desk.folder),
        "git_commit": provenance()["git_commit"],
    }


def value_of(method: Method) -> float | None:
    """The one number of a method that tuning chose or would."""
    if method.adversary:
        return method.adversary.get("strength")
    if len(method.coefficients) == 1:
        return next(iter(method.coefficients.values()))
    return method.temperature if method.hyper else None


def costs(folder: Path) -> dict[str, dict[str, float]]:
    """Frames and seconds of every stage, in all sessions."""
    found = {}
    for stage in STAGES:
        manifest = Store(folder / stage).manifest()
        if manifest:
            seconds = {f"{k}_s": manifest[f"{k}_time_s"] for k in ("train", "test", "compile")}
            found[stage] = {"frames": manifest["frames"], **seconds}
    return found


def _merged(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with what earlier calls found of other methods, and their time."""
    try:
        old = read_json(path)
    except Damaged:
        return facts
    for key in ("coefficients", "methods", "passed", "open"):
        facts[key] = old.get(key, {}) | facts[key]
    left = {n: why for n, why in old.get("broken", {}).items() if n not in facts["methods"]}
    facts["broken"] = left | facts["broken"]
    lost = {name for name in old.get("diverged", []) if name not in facts["methods"]}
    facts["diverged"] = sorted(lost | set(facts["diverged"]))
    facts["wall_s"] = round(facts["wall_s"] + old.get("wall_s", 0.0), 1)
    return facts


def _manifest(
    suite: Suite, root: Path, command: str, task: str = "", facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the suite's manifest with what is known of one more task, and return it."""
    path = root / "manifest.json"
    old = read_json(path) if path.exists() else {}
    all_methods = {m.name: m for t in suite.tasks.values() for m in t.experiment.methods}
    known = {name: described(m) for name, m in all_methods.items() if name != BASELINE}
    commands = old.get("commands", [])
    tasks = old.get("tasks", {}) | ({} if facts is None else {task: facts})
    manifest = {
        "suite": suite.name,
        "title": suite.title,
        "preset": suite.preset,
        "commands": commands if command in commands else [*commands, command],
        "calibrated": bool(tasks) and all(own["calibrated"] for own in tasks.values()),
        "tasks": tasks,
        "methods": {**old.get("methods", {}), **known},
        # Of the session that trained, whatever draws the report again.
        **{key: old.get(key, value) for key, value in provenance().items()},
    }
    write_sealed(path, manifest)
    return manifest
