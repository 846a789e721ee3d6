"""Running: plan what is to be done, work on it, gather what came of it; `run` is the three in one.

``plan.json`` in the output folder holds what was asked for. Whoever has the folder can then work on
it, see `entrob.sweep.runner`; which batches there are is written down as soon as they are known.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entrob.cli.arguments import Gather, Plan, Run, Work
from entrob.errors import EntrobError
from entrob.persistence.store import PLAN

#: The file of a plan in its folder, and the version of its form.
NAME, FORMAT = PLAN, 1


def run(command: Run, line: str) -> None:
    """Train, test and report an experiment, or every task of a suite."""
    from entrob.cli import tracking
    from entrob.persistence.store import Store

    what = asked(command)
    root = command.out or default_folder(what, command)
    store, begun = Store(root), lambda: write(command, what, root, line)
    if command.on == "local":
        with tracking.watching(command.track, what.name, root) as watch:
            _work(what, store, line, command, begun=begun, watch=watch)
    else:
        if command.track != "none":
            raise EntrobError("--track is for what this process trains: it has no use with --on")
        if not command.resume:
            raise EntrobError("with --on, workers go on from what is there: not with --no-resume")
        _check_folder(what, root)
        begun()
        _engine(command, root)
        _gather(what, store)
    _report(what, store)


def plan(command: Plan, line: str) -> None:
    """Write down what is to be done, without doing it."""
    from entrob.sweep.experiment import Experiment

    asked_for = Run(**{field.name: getattr(command, field.name) for field in _SHARED})
    what = asked(asked_for)
    root = command.out or default_folder(what, asked_for)
    begun = lambda: write(asked_for, what, root, line)
    if isinstance(what, Experiment):
        from entrob.persistence.store import Store
        from entrob.sweep import runner

        store = Store(root)
        batches = runner.plan(what, store, line, command.parallel_runs, begun)
        frames = sum(facts["frames"] for facts in batches.values())
        for name, facts in batches.items():
            names = dict.fromkeys(run["method"]["name"] for run in facts["runs"])
            size = f"{len(facts['runs']):3d} runs  {facts['frames']:14,d} frames"
            print(f"{name}  {size}  {_few(names)}")
        print(f"{len(batches)} batches, {frames:,} frames")
    else:
        from entrob.suite import plan as expected

        _check_folder(what, root)
        begun()
        print(expected.text(expected.expected(what, {})))
        print("batches are planned stage by stage, as soon as what they need is there")
    print(f"plan: {root / NAME}\nwork on it, as often as there are machines: entrob work {root}")


def work(command: Work, line: str) -> None:
    """Work on a plan until all of it is done, by this process or by others; or on one batch."""
    from entrob.persistence.store import Store

    facts = read(command.folder)
    asked_for = _run_of(facts, command.folder)
    what = asked(asked_for)
    if identity(what) != facts["identity"]:
        raise EntrobError(
            f"{command.folder / NAME} is about something else than what {asked_for.experiment} "
            "says now: plan again"
        )
    _work(what, Store(command.folder), facts["command"], asked_for, command.batch)


def gather(command: Gather, line: str) -> None:
    """Make tables and figures of what a plan's workers have finished."""
    from entrob.persistence.store import Store

    what, store = asked(_run_of(read(command.folder), command.folder)), Store(command.folder)
    _gather(what, store)
    _report(what, store)


def asked(command: Run) -> Any:
    """The `Experiment` or `Suite` that a command line asks for.

    Raises:
      EntrobError: there is none of this name, or a value is wrong.
    """
    from entrob.regularizers import load
    from entrob.suite import declaration
    from entrob.sweep import reading

    if not declaration.is_suite(command.experiment):
        return _selected(reading.load(command.experiment, command.preset), command)
    for reference in command.regularizer:  # a suite has a row for all that are registered
        if ":" in reference:
            load(reference)
    return _narrowed(command, declaration.load(command.experiment, command.preset))


def default_folder(what: Any, command: Run) -> Path:
    """Where results come to unless the command line says so."""
    return Path("runs") / what.name / command.preset


def resized(experiment, command):
    """The experiment with the ``--seeds`` and ``--frames`` asked for."""
    from entrob.ranges import check
    from entrob.sweep.experiment import Experiment

    given = check("--", {"seeds": command.seeds, "frames": command.frames}, Experiment)
    return dataclasses.replace(experiment, **given)


def write(command: Run, what: Any, root: Path, line: str) -> None:
    """Write ``plan.json``; raises `EntrobError` if the folder cannot be written."""
    from entrob.persistence.store import write_sealed
    from entrob.sweep.batches import Devices

    fields = {field.name: getattr(command, field.name) for field in _SHARED}
    fields["experiment"] = _anywhere(command.experiment)
    del fields["out"]
    facts = {"format": FORMAT, "command": line, "identity": identity(what), "run": fields}
    write_sealed(root / NAME, {**facts, "devices": Devices.here()._asdict()})


def read(folder: Path) -> dict[str, Any]:
    """What ``plan.json`` holds.

    Raises:
      EntrobError: there is none, it is damaged, or another version wrote it.
    """
    from entrob.persistence.store import read_json

    if not (folder / NAME).is_file():
        raise EntrobError(f"{folder} holds no plan (no {NAME}): make one with entrob plan")
    facts: dict[str, Any] = read_json(folder / NAME)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise EntrobError(f"{folder / NAME} is a plan of another version of entrob: plan again")
    return facts


def devices_of(folder: Path) -> int | None:
    """How many devices a plan wants, if they are CPU's, of which there can be any number."""
    devices = read(folder)["devices"]
    return int(devices["number"]) if devices["platform"] == "cpu" else None


def identity(what: Any) -> str:
    """Identifies all that a plan is about."""
    from entrob.suite import work
    from entrob.sweep.experiment import Experiment, digest

    if not isinstance(what, Experiment):
        return digest({name: work.identity(task) for name, task in what.tasks.items()})
    methods = [method.identity for method in what.methods]
    return digest(what.hash, methods, what.perturbations, what.first_seed, what.seeds)


_SHARED = dataclasses.fields(Plan)


def _run_of(facts: dict[str, Any], folder: Path) -> Run:
    fields: dict[str, Any]
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["run"].items()}
    return Run(**fields, out=folder)


def _anywhere(experiment: str) -> str:
    """A name, or a path that means the same in every folder."""
    return str(Path(experiment).resolve()) if experiment.endswith(".toml") else experiment


def _check_folder(what: Any, root: Path) -> None:
    from entrob.persistence.store import Store
    from entrob.suite.declaration import claim
    from entrob.sweep import runner
    from entrob.sweep.experiment import Experiment

    if not isinstance(what, Experiment):
        return claim(what, root)
    runner.check(what, Store(root))
    return None


def _work(
    what: Any,
    store: Any,
    line: str,
    command: Run,
    only: str | None = None,
    begun: Callable[[], None] = lambda: None,
    watch: Any = None,
) -> None:
    from entrob.suite.work import run as run_suite
    from entrob.sweep import batches, runner
    from entrob.sweep.experiment import Experiment

    options: dict[str, Any] = {"resume": command.resume, "only": only}
    options |= {"begun": begun, "watch": watch}
    if isinstance(what, Experiment):
        if only is not None and not batches.known(store.root, only):
            raise EntrobError(f"no batch {only} is planned in {store.root}")
        runner.run(what, store, line, command.parallel_runs, **options)
    else:
        say = lambda text: print(text, file=sys.stderr, flush=True)
        run_suite(what, store.root, line, command.parallel_runs, say, **options)


def _engine(command: Run, root: Path) -> None:
    """Have an engine start workers, and wait for them."""
    if command.on == "ray":
        from entrob.engines import ray

        ray.work(root.resolve(), command.parallel, command.gpus)
    else:
        from entrob.engines import slurm

        parallel, gpus = command.parallel or 1, command.gpus or 0
        slurm.work(root.resolve(), parallel, command.hours, command.partition, gpus)


def _gather(what: Any, store: Any) -> None:
    from entrob.sweep import runner
    from entrob.sweep.experiment import Experiment

    if isinstance(what, Experiment):
        runner.gather(store)


def _report(what: Any, store: Any) -> None:
    from entrob.cli import headline
    from entrob.cli.commands import timing, write_run_report
    from entrob.report.leaderboard import write_leaderboard
    from entrob.sweep.experiment import Experiment

    root = store.root
    if isinstance(what, Experiment):
        path = write_run_report(store)
        headline.show(root)
        print(timing(store.manifest()))
        print(f"report: {path}")
        return _complain(store)
    path = write_leaderboard(root)
    headline.show(root)
    print(f"leaderboard: {path}")
    for task, facts in store.manifest()["tasks"].items():
        for name, error in facts["broken"].items():
            if error:
                raise EntrobError(f"{task}: method {name!r} was left out: {error}")
        for name in facts.get("diverged", []):
            raise EntrobError(f"{task}: method {name!r} diverged in every seed")
    return None


def _selected(experiment, command: Run):
    """The experiment narrowed down to what the command line asks for."""
    from entrob.sweep.select import select_methods, select_perturbations

    experiment = resized(experiment, command)
    experiment = select_methods(experiment, command.regularizer, command.coef)
    return select_perturbations(experiment, command.perturbation)


def _narrowed(command: Run, suite):
    """The suite narrowed down to what the command line asks for."""
    from entrob.regularizers import regularizers
    from entrob.suite.declaration import narrowed

    tasks, references = {}, command.regularizer or suite.methods
    for name, task in suite.tasks.items():
        has = {method.name for method in task.experiment.methods}
        # What is known, yet no method of this task, does not fit it.
        known = {*suite.declared, *regularizers.names()}
        asked_for = [r for r in references if r in has or r not in known]
        if asked_for or not references:
            chosen = dataclasses.replace(command, regularizer=tuple(asked_for))
            selected = narrowed(_selected(task.experiment, chosen))
            tasks[name] = dataclasses.replace(task, experiment=selected)
    if not tasks:
        raise EntrobError(f"no task of this preset can have {' or '.join(command.regularizer)}")
    return dataclasses.replace(suite, tasks=tasks)


def _few(names) -> str:
    """The first names of many."""
    first = list(names)[:4]
    return ", ".join(first) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _complain(store) -> None:
    """Fail, after everything else was kept, if a method is broken or left without a run."""
    from entrob.sweep.train import OWN_FAULT

    for method, error in store.manifest().get("broken", {}).items():
        raise EntrobError(f"method {method!r} was left out: {error}")
    runs = store.gather("runs")
    bad = runs[(runs.status == "diverged") & (runs.cause != OWN_FAULT)]
    if len(bad):
        first = bad.iloc[0]
        name, _, hook = first.cause.partition(": ")
        raise EntrobError(
            f"regularizer {name!r}: {hook} returned NaN or infinity: {len(bad)} runs were "
            f"frozen, the first at update {first.diverged_at} of {first.method}, seed {first.seed}"
        )
    for method, own in runs.groupby("method", sort=False):
        if (own.status == "diverged").all():
            raise EntrobError(f"method {method!r} diverged in every seed: {own.cause.iloc[0]}")
