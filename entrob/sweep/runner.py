"""Running an experiment: train what is missing, test it, gather the records."""

import contextlib
import json
import sys
import time
from typing import Any

from entrob.agents.training import Trainer
from entrob.compiling import memory_limit, padded
from entrob.errors import BrokenMethod, EntrobError
from entrob.persistence.drawings import drawings
from entrob.persistence.lock import locked
from entrob.persistence.provenance import provenance
from entrob.persistence.store import (
    RECORDS,
    Damaged,
    Store,
    read_sealed,
    write_frame,
    write_json,
)
from entrob.sweep import costs, snapshots
from entrob.sweep.costs import Cost
from entrob.sweep.describe import describe
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import (
    Group,
    Run,
    RunBatch,
    cut,
    group_methods,
    known_ids,
    run_of,
    runs_of,
)
from entrob.sweep.measure import Tester
from entrob.sweep.program import compiled, program
from entrob.sweep.progress import Progress
from entrob.sweep.train import train

#: What a manifest says the seconds of, in the order of `Cost`.
_TIMED = ("train", "test", "compile")


def run(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    test: bool = True,
    trainers: dict[tuple[str, int], Trainer] | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Bring a store up to date with an experiment; finished work is skipped.

    Args:
      experiment: what to run.
      store: where; it becomes the experiment's.
      command: the command line, for the manifest.
      parallel_runs: runs side by side; by default as many as half the memory holds.
      test: also evaluate under the perturbations (tuning looks at training alone).
      trainers: what was compiled, by group and width; sweeps of one task that share the dictionary
        compile nothing twice. They must agree in their training settings.
      resume: go on from what the store holds; otherwise what this experiment wrote is removed
        first, whatever its settings were.

    Returns:
      The manifest; its ``broken`` says by method why code of its own could not be traced. What
      other methods did is kept.

    Raises:
      EntrobError: the store belongs to another experiment, another process works on it, the disk
        is full, or no method works.
    """
    programs, broken = _programs(experiment)
    identity = {"experiment": experiment.name, "experiment_hash": experiment.hash}
    anew = not resume and store.manifest().get("experiment") == experiment.name
    if not anew:
        store.check(identity)  # before anything is written there
    with locked(store.root):
        if anew:
            store.clear(drawings(store.root))
        old = store.manifest()
        gone = {"superseded": superseded(experiment, store, old.get("superseded", []))}
        store.claim({**identity, **describe(experiment, old), **gone})
        return _run(experiment, store, command, parallel_runs, test, trainers, programs, broken)


def _run(
    experiment, store, command, parallel_runs, test, trainers, programs, broken
) -> dict[str, Any]:
    """What `run` does once the folder is its own."""
    session = Session(store)
    # Complete from the start: whatever ends this session, status and report can be asked.
    _manifest(experiment, store, command, session, {})
    plan = [(*built, _unfinished(experiment, store, built[0])) for built in programs]
    per_run = experiment.updates * experiment.num_envs * experiment.num_steps
    progress = Progress(per_run * sum(len(missing) for *_, missing in plan))
    tester = Tester(experiment)
    trainers = {} if trainers is None else trainers
    try:
        for group, prog, missing in plan:  # grows while it is worked off
            try:
                if missing:
                    _train_group(
                        experiment, store, group, missing, prog, parallel_runs, progress,
                        session, trainers,
                    )  # fmt: skip
            except BrokenMethod as error:
                if len(group.methods) == 1:
                    broken[group.methods[0].name] = str(error)
                    continue
                for alone in _apart(group):
                    unfinished = _unfinished(experiment, store, alone)
                    plan.append((alone, program(experiment, alone), unfinished))
                continue
            if test:
                _test_group(experiment, store, group, prog, tester, progress)
            _manifest(experiment, store, command, session, broken)
    finally:
        progress.close()
        manifest = _manifest(experiment, store, command, session, broken)
    if broken and not store.parts("runs"):
        raise EntrobError(next(iter(broken.values())))
    gather(store)
    return manifest


def _programs(experiment: Experiment):
    """Groups with their programs, and by method why one cannot be built."""
    built, broken, waiting = [], {}, groups(experiment)
    for group in waiting:  # grows while it is worked off
        try:
            built.append((group, program(experiment, group)))
        except BrokenMethod as error:
            if len(group.methods) == 1:
                broken[group.methods[0].name] = str(error)
            else:
                waiting.extend(_apart(group))
    return built, broken


def _apart(group: Group) -> list[Group]:
    """A group of each of its methods: one of them is at fault, and the others are kept."""
    return [alone for method in group.methods for alone in group_methods((method,))]


def _test_group(experiment, store, group, prog, tester, progress) -> None:
    """Test the trained runs of a group under what they have not been tested under yet."""
    for batch in finished(experiment, store, group):
        names = tester.missing(store, batch, progress)
        if names:
            progress.say(f"testing {len(batch.runs)} policies under {', '.join(names)}")
            with _timed(store, batch, tester):
                tester.test(store, batch, prog, names)
        if kept := snapshots.missing(experiment, store, batch, progress):
            progress.say(f"testing {len(kept)} earlier policies of {len(batch.runs)} runs")
            with _timed(store, batch, tester):
                snapshots.test(store, batch, tester, prog, kept)


@contextlib.contextmanager
def _timed(store: Store, batch: RunBatch, tester: Tester):
    """Add what the testing inside takes to what the batch took, whatever ends it."""
    began, tester.evaluator.compile_s = time.perf_counter(), 0.0
    try:
        yield
    finally:
        seconds, compiling = time.perf_counter() - began, tester.evaluator.compile_s
        costs.add(store, batch.id, Cost(test_s=seconds - compiling, compile_s=compiling))


class Session:
    """What a manifest must know of this call of `run`.

    Attributes:
      began: when it did.
      wall_s: seconds of all sessions before it.
      earlier: what the folder took in versions that did not keep it by batch.
      trained: whether it has trained anything.
    """

    def __init__(self, store: Store):
        old = store.manifest()
        sums = [old.get(key, 0) for key in ("frames", *(f"{k}_time_s" for k in _TIMED))]
        self.began, self.wall_s = time.perf_counter(), old.get("wall_time_s", 0.0)
        self.earlier = Cost(*old.get("earlier", sums))
        self.trained = False


def groups(experiment: Experiment) -> list[Group]:
    """The experiment's methods, by program."""
    return group_methods(experiment.methods, experiment.share)


def _unfinished(experiment: Experiment, store: Store, group: Group) -> list:
    done = {run.id for batch in finished(experiment, store, group) for run in batch.runs}
    wanted = [run for method in group.methods for run in runs_of(experiment, method)]
    return [run for run in wanted if done.isdisjoint((run.id, run.earlier))]


def finished(experiment: Experiment, store: Store, group: Group) -> list[RunBatch]:
    """Trained batches with runs of a group; damaged ones are removed and so come to be redone.

    A batch that was cut from another choice of methods counts too, and keeps its name.
    """
    wanted = known_ids([run for m in group.methods for run in runs_of(experiment, m)])
    batches = []
    for path in store.parts("runs"):
        name = path.stem.removeprefix("runs-")
        try:
            rows = store.read(path)
            if wanted.keys().isdisjoint(rows["run_id"]):
                continue
            store.read(store.part("curves", name))
            read_sealed(store.part("policies", name, ".msgpack"))
        except Damaged as error:
            print(f"warning: {error}; its batch is trained again", file=sys.stderr, flush=True)
            store.drop(name)
            continue
        runs = [wanted.get(row.run_id) or _other(row) for row in rows.itertuples()]
        batches.append(RunBatch(name, group, tuple(runs)))
    return batches


def superseded(experiment: Experiment, store: Store, before: list[str]) -> list[str]:
    """Ids of stored runs that are no longer what their methods are, by settings or by code.

    Args:
      experiment: it says what its methods are now; what others are stays as it was.
      store: it is the experiment's.
      before: the ids so far.
    """
    methods = {method.name: method for method in experiment.methods}
    gone: set[str] = set()
    stored: dict[tuple[str, int], set[str]] = {}
    for path in store.parts("runs"):
        with contextlib.suppress(Damaged):  # it comes to be redone
            for row in store.read(path).itertuples():
                stored.setdefault((row.method, row.seed), set()).add(row.run_id)
    for (name, seed), ids in stored.items():
        if name in methods:
            run = run_of(experiment, methods[name], seed)
            gone |= ids - {run.id if run.id in ids else run.earlier}
        else:
            gone |= ids & set(before)
    return sorted(gone)


def _other(row: Any) -> Run:
    """A run of the same batch that is not asked for, from its record."""
    # Records of earlier versions hold no more of a method than its name.
    identity = json.loads(getattr(row, "declared", "null")) or {"name": row.method}
    return Run(row.run_id, Method.identified(identity), row.seed)


def _train_group(
    experiment, store, group, missing, prog, parallel_runs, progress, session, trainers
) -> None:
    """Train the missing runs of a group in as few batches as fit in memory."""
    size = parallel_runs or store.manifest().get("batch_sizes", {}).get(group.key) or len(missing)

    def trainer_of(batch: RunBatch) -> Trainer:
        width = padded(len(batch.runs))
        if (group.key, width) not in trainers:
            progress.say(f"compiling {' + '.join(group.regularizers) or 'none'} for {width} runs")
            trainers[group.key, width] = compiled(experiment, prog, batch)
            costs.add(store, batch.id, Cost(compile_s=trainers[group.key, width].compile_s))
        return trainers[group.key, width]

    while True:
        batches = cut(group, missing, min(size, len(missing)))
        trainer = trainer_of(batches[0])
        if parallel_runs or trainer.bytes <= memory_limit() or size == 1:
            break
        size = -(-size // 2)
    manifest = store.manifest()
    manifest.setdefault("batch_sizes", {})[group.key] = size
    write_json(store.manifest_path, manifest)
    for batch in batches:
        trainer = trainer_of(batch)
        progress.start()
        timing = train(experiment, store, batch, trainer, prog, progress)
        session.trained |= timing.frames > 0


def gather(store: Store) -> None:
    """Write the tidy records: the union of all parts; raises `Damaged`."""
    for kind in RECORDS:
        frame = store.gather(kind)
        if len(frame):
            write_frame(store.root / f"{kind}.parquet", frame)


def _manifest(experiment, store, command, session: Session, broken) -> dict[str, Any]:
    """What was run, on what, and how long it took in all sessions.

    Frames and seconds are those of finished batches; what one under way took is in its checkpoint.
    """
    old, took = store.manifest(), costs.total(store, session.earlier)
    manifest = {
        **old,
        "title": experiment.title,
        "preset": experiment.preset,
        "command": command,
        "environment": experiment.environment,
        "methods": {m.name: m.coefficients for m in experiment.methods if m.name not in broken},
        "broken": broken,
        "seeds": list(range(experiment.first_seed, experiment.first_seed + experiment.seeds)),
        "frames_per_run": experiment.updates * experiment.num_envs * experiment.num_steps,
        "instances": experiment.instances,
        "evaluation_seed": experiment.evaluation_seed,
        "earlier": list(session.earlier),
        "frames": took.frames,
        "train_time_s": round(took.train_s, 2),
        "compile_time_s": round(took.compile_s, 2),
        "test_time_s": round(took.test_s, 2),
        "wall_time_s": round(session.wall_s + time.perf_counter() - session.began, 2),
        "frames_per_s": round(took.frames / took.train_s) if took.train_s else None,
        # A session that only tests or draws again leaves the commit that trained.
        **(provenance() if session.trained or "git_commit" not in old else {}),
        "precision": "float32",
    }
    write_json(store.manifest_path, manifest)
    return manifest
