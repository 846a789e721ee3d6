"""The command line: ``entrob list | run | tune | report | status | theory | new-regularizer``."""

import contextlib
import dataclasses
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from entrob.errors import EntrobError

Preset = Annotated[str, tyro.conf.arg(aliases=["-p"])]


@dataclasses.dataclass(frozen=True)
class List:
    """List what can be named: environments, experiments, regularizers or perturbations.

    Example: entrob list regularizers
    """

    what: Annotated[
        Literal["all", "environments", "experiments", "regularizers", "perturbations"],
        tyro.conf.Positional,
    ] = "all"


@dataclasses.dataclass(frozen=True)
class Run:
    """Train, perturb, measure and plot an experiment; finished work is skipped.

    For example:
      entrob run minigrid --preset quick
      entrob run minigrid --preset paper --out runs/figure4
      entrob run minigrid --regularizer my_package.my_module:l2_logits --coef 0,1e-3,1e-2
      entrob run minigrid --perturbation wall --perturbation slip --seeds 5
    """

    experiment: tyro.conf.Positional[str]
    """Name of a file in benchmarks/, or a path that ends in .toml."""
    preset: Preset = "quick"
    """smoke (a minute), quick (minutes) or paper (the paper's size)."""
    seeds: int | None = None
    """Runs per method; by default the preset's."""
    frames: int | None = None
    """Environment steps that a run trains for; by default the preset's."""
    regularizer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train only `none` and these: a method of the experiment, a registered regularizer, or
    module:function. May be repeated."""
    coef: str | None = None
    """Comma-separated coefficients for the --regularizer given."""
    perturbation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Test only under these. May be repeated."""
    out: Path | None = None
    """Output folder; by default runs/EXPERIMENT/PRESET."""
    resume: bool = True
    """Go on from what the folder holds; --no-resume deletes this experiment's results first."""
    batch_size: int | None = None
    """Runs side by side in memory; by default as many as half the memory holds."""


@dataclasses.dataclass(frozen=True)
class Tune:
    """Choose coefficients by the 5 % rule, on seeds that are never reported.

    Example: entrob tune minigrid --preset paper
    """

    experiment: tyro.conf.Positional[str]
    """Name of a file in benchmarks/, or a path that ends in .toml."""
    preset: Preset = "quick"
    """Which preset's frames to tune with."""
    seeds: int | None = None
    """Runs per coefficient; by default the experiment's."""
    out: Path | None = None
    """Output folder; by default runs/EXPERIMENT/tune-PRESET."""
    resume: bool = True
    """Go on from what the folder holds; --no-resume deletes this experiment's results first."""
    batch_size: int | None = None
    """Runs side by side in memory; by default as many as half the memory holds."""
    export: Path | None = None
    """Also copy the chosen coefficients, their table and the manifest there."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the tables and figures of a finished or half-finished run again.

    For example:
      entrob report runs/minigrid/paper
      entrob report runs/minigrid/paper --level 0.95 --export results/minigrid/paper
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a run."""
    level: float = 0.96
    """Level of the normal bands: 0.96 is the paper's text, 0.95 its code."""
    export: Path | None = None
    """Also copy report, tables, figures and manifest there."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Say what an output folder holds: runs finished, diverged and under way.

    Example: entrob status runs/minigrid/paper
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a run."""


@dataclasses.dataclass(frozen=True)
class Theory:
    """Check every statement of the paper's theory on random MDPs; exits with 1 if one fails.

    Example: entrob theory --mdps 10000
    """

    mdps: int = 10_000
    """Random MDPs, each with a policy, a coefficient and a size of the uncertainty set."""
    out: Path = Path("runs/theory")
    """Output folder."""
    export: Path | None = None
    """Also copy report, tables, figures and manifest there."""


@dataclasses.dataclass(frozen=True)
class NewRegularizer:
    """Write a file with one function to fill in, and its test.

    Example: entrob new-regularizer my_idea
    """

    name: tyro.conf.Positional[str]
    """A Python name; the files are NAME.py and test_NAME.py."""
    folder: Path = Path()
    """Where they are written."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the ``entrob`` script; exits with 2 after one line on what was wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = List | Run | Tune | Report | Status | Theory | NewRegularizer
    command = tyro.cli(commands, prog="entrob", args=arguments)
    line = shlex.join(["entrob", *arguments])
    setup()
    try:
        _COMMANDS[type(command)](command, line)
    except KeyboardInterrupt:
        print("entrob: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (EntrobError, OSError) as error:
        print(f"entrob: {error}", file=sys.stderr)
        sys.exit(2)


def setup() -> None:
    """Use every core as a device and keep compiled programs between processes."""
    import jax

    if jax.config.jax_num_cpu_devices < 0 and "host_platform_device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    ):
        with contextlib.suppress(RuntimeError):  # JAX runs already: its devices stay as they are
            jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "entrob" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _list(command: List, line: str) -> None:
    from entrob.envs import environments, libraries
    from entrob.perturbations import perturbations
    from entrob.regularizers import regularizers
    from entrob.sweep.files import names

    def doc(thing) -> str:
        return (thing.__doc__ or "").strip().partition("\n")[0]

    show = lambda what: command.what in ("all", what)
    if show("environments"):
        others = [f"{library}:NAME" for library in libraries.names()]
        print("environments\n  " + "\n  ".join([*environments.names(), *others]))
    if show("experiments"):
        print("experiments\n  " + "\n  ".join(names()))
    if show("regularizers"):
        print("regularizers\n  none                       nothing is added")
        for name in regularizers.names():
            made = regularizers.get(name)()
            print(f"  {name:26s} {doc(regularizers.get(name))}")
            print(f"  {'':26s} {made.source or 'no source'}; {made.label}")
    if show("perturbations"):
        print("perturbations")
        for name in perturbations.names():
            for entry in perturbations.variants(name):
                print(f"  {name:20s} {entry.low:g}..{entry.high:g}  {entry.kind}: {entry.doc}")


def _run(command: Run, line: str) -> None:
    from entrob.regularizers import load
    from entrob.sweep import experiment as experiments
    from entrob.sweep import suite
    from entrob.sweep.runner import run

    if suite.is_suite(command.experiment):
        for reference in command.regularizer:  # a suite has a row for all that are registered
            load(reference)
        return _run_suite(command, suite.load(command.experiment, command.preset), line)
    experiment = _selected(experiments.load(command.experiment, command.preset), command)
    store = _store(command, Path("runs") / experiment.name / command.preset, experiment.name)
    manifest = run(experiment, store, line, command.batch_size)
    path = report(store)
    print(_timing(manifest))
    print(f"report: {path}")
    _complain(store)


def _selected(experiment, command: Run):
    """The experiment narrowed down to what the command line asks for."""
    from entrob.sweep.select import select_methods, select_perturbations

    experiment = _resized(experiment, command)
    experiment = select_methods(experiment, command.regularizer, command.coef)
    return select_perturbations(experiment, command.perturbation)


def _run_suite(command: Run, suite, line: str) -> None:
    from entrob.results.leaderboard_report import write_leaderboard
    from entrob.sweep.experiment import positive_int
    from entrob.sweep.suite import narrowed, run

    if command.batch_size is not None:
        positive_int("--batch-size", command.batch_size)
    tasks = {name: narrowed(_selected(task, command)) for name, task in suite.tasks.items()}
    root = command.out or Path("runs") / suite.name / command.preset
    if not command.resume and (root / "manifest.json").is_file():
        shutil.rmtree(root)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    suite = dataclasses.replace(suite, tasks=tasks)
    manifest = run(suite, root, line, command.batch_size, say)
    print(f"leaderboard: {write_leaderboard(root)}")
    for task, facts in manifest["tasks"].items():
        for name, error in facts["broken"].items():
            raise EntrobError(f"{task}: method {name!r} was left out: {error}")


def _tune(command: Tune, line: str) -> None:
    from entrob.results.tuning import write_tuning
    from entrob.sweep import experiment as experiments
    from entrob.sweep.tune import tune

    experiment = experiments.load(command.experiment, command.preset)
    if command.seeds is not None:
        experiments.positive_int("--seeds", command.seeds)
        experiment.tune["seeds"] = command.seeds
    folder = Path("runs") / experiment.name / f"tune-{command.preset}"
    store = _store(command, folder, f"{experiment.name}-tune")
    chosen, table, manifest = tune(experiment, store, line, command.batch_size)
    write_tuning(store.root, table, chosen, manifest)
    if command.export:
        _export(store.root, command.export, ("tuned.json", "tables"))
    print((store.root / "tables" / "tuning.md").read_text())
    print(_timing(manifest))
    for method, value in chosen.items():
        print(f"{method}: {value:g}" if value else f"{method}: no coefficient passes")


def _report(command: Report, line: str) -> None:
    from entrob.results.store import Store

    if not (command.folder / "manifest.json").is_file():
        raise EntrobError(f"{command.folder} holds no run (no manifest.json)")
    if not 0 < command.level < 1:
        raise EntrobError(f"--level must be between 0 and 1, not {command.level:g}")
    store = Store(command.folder)
    if "suite" in store.manifest():
        from entrob.results.leaderboard_report import write_leaderboard

        path = write_leaderboard(command.folder)
        if command.export:
            _export(
                command.folder,
                command.export,
                ("leaderboard.md", "tables", "figures", "regularizers"),
            )
        print(f"leaderboard: {path}")
        return
    path = report(store, command.level)
    if command.export:
        _export(command.folder, command.export, ("report.md", "tables", "figures"))
        path = command.export / path.name
    print(f"report: {path}")


def _status(command: Status, line: str) -> None:
    from entrob.results.store import Store

    store = Store(command.folder)
    manifest = store.manifest()
    if not manifest:
        raise EntrobError(f"{command.folder} holds no run (no manifest.json)")
    if "suite" in manifest:
        for task in manifest["tasks"]:
            _status(Status(command.folder / task), line)
        return
    runs = store.gather("runs")
    wanted = len(manifest.get("methods", {})) * len(manifest.get("seeds", []))
    print(f"{manifest['experiment']} {manifest.get('preset', '')}: {len(runs)} runs trained")
    if len(runs):
        for method, group in runs.groupby("method", sort=False):
            bad = int((group.status == "diverged").sum())
            print(f"  {method:32s} {len(group):4d} seeds" + (f", {bad} diverged" if bad else ""))
    tested = store.gather("evaluation")
    if len(tested):
        for name, group in tested.groupby("perturbation", sort=False):
            print(f"  tested under {name:20s} {group.run_id.nunique():4d} runs")
    for path in sorted((store.root / "parts").glob("checkpoint-*")):
        age = time.time() - path.stat().st_mtime
        print(f"  under way: {path.name}, last checkpoint {age:,.0f} s ago")
    if wanted > len(runs):
        print(
            f"  {wanted - len(runs)} of {wanted} runs are missing; go on with: "
            f"{manifest['command']}"
        )


def _theory(command: Theory, line: str) -> None:
    from entrob.sweep.experiment import positive_int
    from entrob.theory.statements import failed
    from entrob.theory.suite import run

    positive_int("--mdps", command.mdps)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    table = run(command.mdps, command.out, line, say)
    if command.export:
        _export(command.out, command.export, ("report.md", "tables", "figures"))
    print((command.out / "tables" / "statements.md").read_text())
    print(f"report: {command.out / 'report.md'}")
    if len(wrong := failed(table)):
        print(f"entrob: {len(wrong)} statements are violated", file=sys.stderr)
        sys.exit(1)


def _new_regularizer(command: NewRegularizer, line: str) -> None:
    from entrob.scaffold import new_regularizer

    for path in new_regularizer(command.name, command.folder):
        print(path)


_COMMANDS = {
    List: _list,
    Run: _run,
    Tune: _tune,
    Report: _report,
    Status: _status,
    Theory: _theory,
    NewRegularizer: _new_regularizer,
}


def report(store, level: float = 0.96) -> Path:
    """Write the tables, figures and report of a store; returns the report's path."""
    from entrob.results.occupancies import mean_occupancies
    from entrob.results.report import write_report
    from entrob.sweep.describe import complete

    kinds = ("runs", "curves", "evaluation", "occupancy", "traces")
    frames = {kind: store.gather(kind) for kind in kinds}
    if not len(frames["runs"]) or not len(frames["evaluation"]):
        raise EntrobError(f"{store.root} holds no finished runs yet")
    manifest = complete(store.manifest())
    occupancies, walls = mean_occupancies(frames["occupancy"], manifest["environment"])
    return write_report(
        store.root,
        frames["runs"],
        frames["curves"],
        frames["evaluation"],
        manifest,
        level=level,
        occupancies=occupancies,
        walls=walls,
        traces=frames["traces"],
    )


def _resized(experiment, command: Run):
    """With the ``--seeds`` and ``--frames`` asked for."""
    from entrob.sweep.experiment import positive_int

    asked = {"seeds": command.seeds, "frames": command.frames}
    asked = {k: positive_int(f"--{k}", v) for k, v in asked.items() if v is not None}
    return dataclasses.replace(experiment, **asked)


def _store(command, folder: Path, maker: str):
    """The store of ``--out`` or the default folder; ``--no-resume`` empties what `maker` made."""
    from entrob.results.store import Store
    from entrob.sweep.experiment import positive_int

    if command.batch_size is not None:
        positive_int("--batch-size", command.batch_size)
    root = command.out or folder
    if not command.resume and Store(root).manifest().get("experiment") == maker:
        shutil.rmtree(root)
    return Store(root)


def _export(folder: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy small results with their manifest; they replace what was exported before."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in ("manifest.json", *names):
            if (folder / name).is_dir():
                shutil.copytree(folder / name, target / name, dirs_exist_ok=True)
            else:
                shutil.copy2(folder / name, target / name)
    except OSError as error:
        raise EntrobError(f"cannot export to {target}: {error.strerror or error}") from error


def _timing(manifest) -> str:
    return (
        f"{manifest['frames']:,} frames at {manifest['frames_per_s'] or 0:,} frames/s; "
        f"training {manifest['train_time_s']:,.0f} s, testing {manifest['test_time_s']:,.0f} s, "
        f"compiling {manifest['compile_time_s']:,.0f} s"
    )


def _complain(store) -> None:
    """Fail, after everything else was kept, if a method is broken or returned NaN or infinity."""
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
