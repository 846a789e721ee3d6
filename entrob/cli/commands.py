"""What the commands do: each takes its arguments and the command line that gave them.

What takes long to import is imported where it is needed, so that ``--help`` is quick.
"""

import dataclasses
import shutil
import sys
import time
from pathlib import Path

from entrob.cli.arguments import (
    Check,
    List,
    NewRegularizer,
    Play,
    Report,
    Run,
    Status,
    Test,
    Theory,
    Tune,
)
from entrob.errors import EntrobError


def list_names(command: List, line: str) -> None:
    """Print the names that can be used."""
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
            print(f"  {'':26s} {made.source or 'no source'}; {made.graded}")
    if show("perturbations"):
        print("perturbations")
        for name in perturbations.names():
            for entry in perturbations.variants(name):
                print(f"  {name:20s} {entry.low:g}..{entry.high:g}  {entry.category}: {entry.doc}")


def run(command: Run, line: str) -> None:
    """Train, test and report an experiment, or every task of a suite."""
    from entrob.regularizers import load
    from entrob.suite import declaration
    from entrob.sweep import experiment as experiments
    from entrob.sweep import runner

    if declaration.is_suite(command.experiment):
        for reference in command.regularizer:  # a suite has a row for all that are registered
            if ":" in reference:
                load(reference)
        return _run_suite(command, declaration.load(command.experiment, command.preset), line)
    experiment = _selected(experiments.load(command.experiment, command.preset), command)
    store = _store(command, Path("runs") / experiment.name / command.preset, experiment.name)
    manifest = runner.run(experiment, store, line, command.parallel_runs)
    path = write_run_report(store)
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
    from entrob.regularizers import regularizers
    from entrob.report.leaderboard import write_leaderboard
    from entrob.suite.declaration import claim, narrowed
    from entrob.suite.work import run
    from entrob.sweep.experiment import positive_int

    if command.parallel_runs is not None:
        positive_int("--parallel-runs", command.parallel_runs)
    tasks, references = {}, command.regularizer or suite.methods
    for name, task in suite.tasks.items():
        has = {method.name for method in task.experiment.methods}
        # What is known, yet no method of this task, does not fit it.
        known = {*suite.declared, *regularizers.names()}
        asked = [r for r in references if r in has or r not in known]
        if asked or not references:
            chosen = dataclasses.replace(command, regularizer=tuple(asked))
            selected = narrowed(_selected(task.experiment, chosen))
            tasks[name] = dataclasses.replace(task, experiment=selected)
    if not tasks:
        raise EntrobError(f"no task of this preset can have {' or '.join(command.regularizer)}")
    root = command.out or Path("runs") / suite.name / command.preset
    if not command.resume and root.exists():
        claim(suite, root)
        shutil.rmtree(root)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    suite = dataclasses.replace(suite, tasks=tasks)
    manifest = run(suite, root, line, command.parallel_runs, say)
    print(f"leaderboard: {write_leaderboard(root)}")
    for task, facts in manifest["tasks"].items():
        for name, error in facts["broken"].items():
            if error:
                raise EntrobError(f"{task}: method {name!r} was left out: {error}")


def check(command: Check, line: str) -> None:
    """Prove what a task's perturbations do; exits with 1 if a proof fails."""
    from entrob.cli.checked import tables
    from entrob.suite.check import check, task_of
    from entrob.sweep.experiment import positive_int
    from entrob.sweep.select import select_perturbations

    frames = positive_int("--frames", command.frames)
    experiment = task_of(command.task)
    experiment = dataclasses.replace(experiment, seeds=positive_int("--seeds", command.seeds))
    experiment = select_perturbations(experiment, command.perturbation)
    found = check(experiment, frames, command.run)
    tables(command.task, found)
    if faults := [f"{proof.name}: {text}" for proof in found.proofs for text in proof.faults]:
        for fault in faults:
            print(f"failed: {fault}", file=sys.stderr)
        sys.exit(1)


def tune(command: Tune, line: str) -> None:
    """Choose coefficients by the 5 % rule."""
    from entrob.report.tuning import write_tuning
    from entrob.sweep import experiment as experiments
    from entrob.sweep.tune import tune

    experiment = experiments.load(command.experiment, command.preset)
    if command.seeds is not None:
        seeds = experiments.positive_int("--seeds", command.seeds)
        tuning = experiment.tuning._replace(seeds=seeds)
        experiment = dataclasses.replace(experiment, tuning=tuning)
    folder = Path("runs") / experiment.name / f"tune-{command.preset}"
    store = _store(command, folder, f"{experiment.name}-tune")
    chosen, table, manifest = tune(experiment, store, line, command.parallel_runs)
    write_tuning(store.root, table, manifest)
    if command.export:
        _export(store.root, command.export, ("tuned.json", "tables"))
    print((store.root / "tables" / "tuning.md").read_text())
    print(_timing(manifest))
    for method, value in chosen.items():
        print(f"{method}: {value:g}" if value else f"{method}: no coefficient passes")


def report(command: Report, line: str) -> None:
    """Draw tables and figures again."""
    from entrob.cli import pages
    from entrob.persistence.store import Store

    folder = command.folder
    if not (folder / "manifest.json").is_file():
        raise EntrobError(f"{folder} holds no run (no manifest.json)")
    if not 0 < command.level < 1:
        raise EntrobError(f"--level must be between 0 and 1, not {command.level:g}")
    if command.html:
        pages.check()
    manifest = Store(folder).manifest()
    parts: tuple[str, ...] = ("report.md", "tables", "figures")
    if pages.exported(folder, manifest):
        if not command.html:
            raise EntrobError(f"{folder} holds exported tables and no runs: only --html reads them")
    elif "suite" in manifest:
        from entrob.report.leaderboard import write_leaderboard

        print(f"leaderboard: {write_leaderboard(folder)}")
        parts = ("leaderboard.md", "tables", "figures", "regularizers")
    else:
        print(f"report: {write_run_report(Store(folder), command.level)}")
    if command.html:
        print(f"page: {pages.write(folder, manifest, command.level)}")
        parts = (*parts, "index.html")
    if command.export:
        _export(folder, command.export, tuple(name for name in parts if (folder / name).exists()))
        print(f"exported: {command.export}")


def status(command: Status, line: str) -> None:
    """Say what a folder holds."""
    from entrob.persistence.store import Store

    store = Store(command.folder)
    manifest = store.manifest()
    if not manifest:
        raise EntrobError(f"{command.folder} holds no run (no manifest.json)")
    if "suite" in manifest:
        for path in sorted(command.folder.glob("*/**/manifest.json")):
            status(Status(path.parent), line)
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


def theory(command: Theory, line: str) -> None:
    """Check the theory's statements."""
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


def new_regularizer(command: NewRegularizer, line: str) -> None:
    """Write a regularizer's file and its test."""
    from entrob.scaffold import new_regularizer

    for path in new_regularizer(command.name, command.folder):
        print(path)


def write_run_report(store, level: float = 0.96) -> Path:
    """Write the tables, figures and report of a store; returns the report's path."""
    from entrob.cli.pages import records
    from entrob.report.experiment import write_report

    frames, manifest, drawn = records(store)
    return write_report(
        store.root,
        frames["runs"],
        frames["curves"],
        frames["evaluation"],
        manifest,
        level=level,
        traces=frames["traces"],
        progress=frames["progress"],
        **drawn,
    )


def _resized(experiment, command: Run):
    """With the ``--seeds`` and ``--frames`` asked for."""
    from entrob.sweep.experiment import positive_int

    asked = {"seeds": command.seeds, "frames": command.frames}
    asked = {k: positive_int(f"--{k}", v) for k, v in asked.items() if v is not None}
    return dataclasses.replace(experiment, **asked)


def _store(command, folder: Path, maker: str):
    """The store of ``--out`` or the default folder; ``--no-resume`` empties what `maker` made."""
    from entrob.persistence.store import Store
    from entrob.sweep.experiment import positive_int

    if command.parallel_runs is not None:
        positive_int("--parallel-runs", command.parallel_runs)
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


def test(command: Test, line: str) -> None:
    """Test policies and print what they do, or put them on a board."""
    import numpy as np

    from entrob.library import evaluate, load_policy
    from entrob.sweep.experiment import positive_int

    for name in ("instances", "episodes"):
        positive_int(f"--{name}", getattr(command, name))
    if not command.policy:
        raise EntrobError("name a policy to be tested")
    policies = [load_policy(reference) for reference in command.policy]
    if command.tasks:
        return _test_on_board(command, policies, command.tasks)
    if command.out and command.out.suffix not in (".csv", ".parquet"):
        raise EntrobError(f"--out must end in .csv or .parquet, not {command.out.name}")
    table = evaluate(
        policies,
        command.environment,
        _magnitudes(command.perturbation),
        instances=command.instances,
        episodes=command.episodes,
        seed=command.seed,
    )
    if len(policies) == 1:
        table = table.drop(columns="policy")
    single = [name for name in table if np.ndim(table[name].iloc[0]) == 0]
    shown = ["policy", "perturbation", "magnitude", "success", "return_mean"]
    shown += ["final_distance", "regret_mean"]
    known = [name for name in shown if name in table and table[name].notna().any()]
    print(table[known].to_string(index=False, float_format="{:.3f}".format))
    if command.out:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        if command.out.suffix == ".csv":
            table[single].to_csv(command.out, index=False)
        else:
            table.to_parquet(command.out, index=False)


def _test_on_board(command: Test, policies: list, wanted: str) -> None:
    """Write a board's report with one more method."""
    from entrob.library.boards import with_tested
    from entrob.persistence.store import write_json
    from entrob.report.leaderboard import write_report
    from entrob.statistics.board import read_board, write_board

    suite, _, tasks = wanted.partition(":")
    folder = command.board or Path("results") / suite / "standard"
    board = read_board(folder)
    if board.manifest.get("suite") != suite:
        raise EntrobError(f"{folder} is no board of {suite}")
    board = with_tested(board, policies, command.as_, tuple(filter(None, tasks.split(","))))
    out = command.out or Path("runs") / "tested" / command.as_
    if out.exists() and any(out.iterdir()):
        raise EntrobError(f"{out} is not empty: choose another --out")
    write_json(out / "manifest.json", board.manifest)
    write_board(board, out)
    print(f"report: {write_report(board, out)}")


def play(command: Play, line: str) -> None:
    """Play an episode and say how it ended."""
    from entrob.library import Policy, load_policy

    policy = load_policy(command.policy)
    if not isinstance(policy, Policy):
        raise EntrobError(f"{command.policy} is a function, which nothing here can draw")
    several = {n: m for n, m in _magnitudes(command.perturbation).items() if len(m) != 1}
    if several:
        raise EntrobError(f"one episode has one magnitude of {next(iter(several))!r}")
    magnitudes = {name: m for name, (m,) in _magnitudes(command.perturbation).items()}
    episode = policy.gif(command.out, seed=command.seed, instance=command.instance, **magnitudes)
    ended = "succeeded" if episode.success else "did not succeed"
    print(f"{ended} after {len(episode.actions)} steps, return {episode.episode_return:.3f}")
    print(f"animation: {command.out}")


def _magnitudes(given: tuple[str, ...]) -> dict[str, list[float]]:
    """Magnitudes by perturbation from ``NAME=M,M``; raises `EntrobError`."""
    found = {}
    for text in given:
        name, equals, values = text.partition("=")
        try:
            found[name] = [float(value) for value in values.split(",")]
        except ValueError:
            equals = ""
        if not equals:
            raise EntrobError(f"--perturbation must be NAME=MAGNITUDE, not {text!r}")
    return found
