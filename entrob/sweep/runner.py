"""Running an experiment: train what is missing, test it, gather the records."""

import contextlib
import json
import sys
import time
from collections.abc import Container
from typing import Any

from entrob.agents.training import Trainer
from entrob.compiling import memory_limit, padded
from entrob.errors import BrokenMethod, EntrobError
from entrob.persistence.drawings import drawings
from entrob.persistence.leases import Leases
from entrob.persistence.lock import locked
from entrob.persistence.provenance import provenance
from entrob.persistence.store import (
    RECORDS,
    Damaged,
    Store,
    read_sealed,
    write_frame,
)
from entrob.sweep import batches, costs, snapshots
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
from entrob.sweep.program import Program, compiled, program
from entrob.sweep.progress import Progress
from entrob.sweep.train import train

#: What a manifest says the seconds of, in the order of `Cost`.
_TIMED = ("train", "test", "compile", "wall")


#: Seconds between two looks at what other workers have.
POLL = 1.0


def run(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    test: bool = True,
    trainers: dict[tuple[str, int], Trainer] | None = None,
    resume: bool = True,
    only: str | None = None,
) -> dict[str, Any]:
    """Bring a store up to date with an experiment; finished work is skipped.

    Several processes that are called alike share the work, batch by batch (see
    `entrob.persistence.leases`), and each returns when all of it is done.

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
      only: id of a batch: that one is trained and tested, if nobody else has it, and no other.

    Returns:
      The manifest; its ``broken`` says by method why code of its own could not be traced. What
      other methods did is kept.

    Raises:
      EntrobError: the store belongs to another experiment, another process works on it while this
        one is to begin anew, the disk is full, or no method works.
    """
    programs, broken = _programs(experiment)
    anew = check(experiment, store, resume)  # before anything is written there
    with locked(store.root, alone=anew) as lock:
        if anew:
            store.clear(drawings(store.root))
            lock.share()
        _claim(experiment, store)
        trainers = {} if trainers is None else trainers
        leases = Leases(store.root / "leases")
        sweep = _Sweep(experiment, store, command, parallel_runs, trainers, leases, broken, only)
        return sweep.run(programs, test)


def plan(
    experiment: Experiment, store: Store, command: str, parallel_runs: int | None = None
) -> dict[str, dict[str, Any]]:
    """Write down the batches of an experiment, without training them; returns the missing ones.

    Returns:
      What `entrob.sweep.batches.Plan` has of each, by its id.

    Raises:
      EntrobError: as `run`.
    """
    programs, broken = _programs(experiment)
    with locked(store.root):
        _claim(experiment, store)
        leases = Leases(store.root / "leases")
        sweep = _Sweep(experiment, store, command, parallel_runs, {}, leases, broken, None)
        return sweep.plan(programs)


def check(experiment: Experiment, store: Store, resume: bool = True) -> bool:
    """Raise `EntrobError` unless a folder is the experiment's, or nobody's.

    Returns:
      Whether what is there is to be removed: not resumed, and of the experiment in any version
      of its settings.
    """
    if _damage(experiment, store):
        return False
    if not resume and store.manifest().get("experiment") == experiment.name:
        return True
    store.check(identity(experiment), _ids(experiment))
    return False


def _ids(experiment: Experiment) -> Container[str]:
    return known_ids([run for method in experiment.methods for run in runs_of(experiment, method)])


def _damage(experiment: Experiment, store: Store) -> Damaged | None:
    """What is wrong with the manifest of a folder that has runs of an experiment, if anything.

    Raises:
      Damaged: it has none of its runs, so that it may be another's.
    """
    try:
        store.manifest()
    except Damaged as error:
        if not store.holds(_ids(experiment)):
            raise
        return error
    return None


def identity(experiment: Experiment) -> dict[str, str]:
    """Whose a folder is."""
    return {"experiment": experiment.name, "experiment_hash": experiment.hash}


def _claim(experiment: Experiment, store: Store) -> None:
    """Make a store the experiment's, and say what is no longer what it was."""
    if damage := _damage(experiment, store):
        print(f"warning: {damage}; it is made again", file=sys.stderr, flush=True)
        store.manifest_path.unlink(missing_ok=True)
    old = store.manifest()
    gone = superseded(experiment, store, old.get("superseded", []))
    facts = {**describe(experiment, old), "superseded": gone}
    store.claim({**identity(experiment), **facts}, _ids(experiment))


def unfinished(experiment: Experiment, store: Store) -> bool:
    """Whether runs of an experiment are still to be trained."""
    return any(_unfinished(experiment, store, group) for group in groups(experiment))


class _Sweep:
    """One call of `run` in a folder that it may write to."""

    def __init__(self, experiment, store, command, parallel_runs, trainers, leases, broken, only):
        self.experiment, self.store, self.command = experiment, store, command
        self.parallel_runs, self.trainers, self.leases = parallel_runs, trainers, leases
        self.broken, self.only = broken, only
        self.per_run = experiment.updates * experiment.num_envs * experiment.num_steps
        self.session, self.tester = Session(store, leases.owner), Tester(experiment)
        self.others: set[str] = set()  # batches that other workers were at

    def run(self, programs, test: bool) -> dict[str, Any]:
        """Train and test until all is done, by this worker or by others."""
        # Complete from the start: whatever ends this session, status and report can be asked.
        self.manifest()
        missing = sum(len(_unfinished(self.experiment, self.store, g)) for g, _ in programs)
        self.progress = Progress(self.per_run * missing)
        waited = False
        try:
            while programs:
                busy = []
                for group, prog in programs:  # grows while it is worked off
                    try:
                        done = self.train(group, prog)
                    except BrokenMethod as error:
                        if len(group.methods) == 1:
                            self.broken[group.methods[0].name] = str(error)
                        else:
                            alone = _apart(group)
                            programs += [(one, program(self.experiment, one)) for one in alone]
                        continue
                    done = (not test or self.test(group, prog)) and done
                    if not done:
                        busy.append((group, prog))
                    self.manifest()
                programs = [] if self.only else busy
                if programs and not waited:
                    self.progress.say("waiting for the batches that other workers are at")
                    waited = True
                time.sleep(POLL if programs else 0)
        finally:
            self.progress.close()
            manifest = self.manifest()
        if self.broken and not self.store.parts("runs"):
            raise EntrobError(next(iter(self.broken.values())))
        gather(self.store)
        return manifest

    def plan(self, programs) -> dict[str, dict[str, Any]]:
        """Plan what is missing of all groups."""
        self.manifest()
        self.progress, found = Progress(0), {}
        for group, prog in programs:
            missing = _unfinished(self.experiment, self.store, group)
            for batch in self.planned(group, prog, missing) or ():
                found[batch.id] = batches.read(self.store, group).batches[batch.id]
        return found

    def train(self, group: Group, prog: Program) -> bool:
        """Train what is missing of a group and nobody else is at; whether nothing is left."""
        missing = _unfinished(self.experiment, self.store, group)
        found = self.planned(group, prog, missing) if missing else []
        if found is None:
            return False
        left = 0
        for batch in found:
            if self.only not in (None, batch.id):
                continue
            with self.leases.holding(batch.id) as lease:
                if lease is None:
                    self.others.add(batch.id)
                    left += 1
                elif not self.store.part("runs", batch.id).exists():
                    trainer = self.trainer_of(group, prog, batch)
                    self.progress.start()
                    timing = train(self.experiment, self.store, batch, trainer, prog, self.progress)
                    self.session.trained |= timing.frames > 0
        for batch in finished(self.experiment, self.store, group):
            if batch.id in self.others:
                self.others.discard(batch.id)
                self.progress.add(self.per_run * len(batch.runs), resumed=True)
        return not left

    def planned(self, group: Group, prog: Program, missing: list[Run]) -> list[RunBatch] | None:
        """The batches of what is missing, planned now if need be; None while another one plans."""
        found = batches.planned(self.store, group, missing)
        if _without(missing, found):
            with self.leases.holding(f"plan-{group.key}") as lease:
                if lease is None:
                    return None
                found = batches.planned(self.store, group, missing)
                if rest := _without(missing, found):
                    size, new = self.fitting(group, prog, rest)
                    batches.extend(self.store, group, size, new, self.per_run)
                    found += new
        return found

    def fitting(self, group: Group, prog: Program, runs: list[Run]) -> tuple[int, list[RunBatch]]:
        """Runs in as few batches as fit in memory, and the most runs of one."""
        size = self.parallel_runs or batches.read(self.store, group).size or len(runs)
        while True:
            new = cut(group, runs, min(size, len(runs)))
            if self.parallel_runs or size == 1:
                return size, new
            if self.trainer_of(group, prog, new[0]).bytes <= memory_limit():
                return size, new
            size = -(-size // 2)

    def trainer_of(self, group: Group, prog: Program, batch: RunBatch) -> Trainer:
        """What trains batches of this width, compiled at most once."""
        width = padded(len(batch.runs))
        if (group.key, width) not in self.trainers:
            names = " + ".join(group.regularizers) or "none"
            self.progress.say(f"compiling {names} for {width} runs")
            made = self.trainers[group.key, width] = compiled(self.experiment, prog, batch)
            costs.add(self.store, batch.id, Cost(compile_s=made.compile_s))
        return self.trainers[group.key, width]

    def test(self, group: Group, prog: Program) -> bool:
        """Test the trained runs of a group under what is missing; whether nothing is left."""
        left = 0
        for batch in finished(self.experiment, self.store, group):
            if self.only in (None, batch.id) and any(self.untested(batch)):
                with self.leases.holding(f"test-{batch.id}") as lease:
                    if lease is None:
                        left += 1
                    else:
                        self.test_batch(batch, prog)
        return not left

    def untested(self, batch: RunBatch) -> tuple[list[str], list[int]]:
        """Perturbations that a batch is still to be tested under, and its snapshots that are."""
        names = self.tester.missing(self.store, batch, self.progress)
        return names, snapshots.missing(self.experiment, self.store, batch, self.progress)

    def test_batch(self, batch: RunBatch, prog: Program) -> None:
        """Test one batch under what is missing, for who holds its lease."""
        names, kept = self.untested(batch)
        if names:
            self.progress.say(f"testing {len(batch.runs)} policies under {', '.join(names)}")
            with _timed(self.store, batch, self.tester):
                self.tester.test(self.store, batch, prog, names)
        if kept:
            self.progress.say(f"testing {len(kept)} earlier policies of {len(batch.runs)} runs")
            with _timed(self.store, batch, self.tester):
                snapshots.test(self.store, batch, self.tester, prog, kept)

    def manifest(self) -> dict[str, Any]:
        """Write what the folder holds so far, and return it."""
        return _manifest(self.experiment, self.store, self.command, self.session, self.broken)


def _without(runs: list[Run], found: list[RunBatch]) -> list[Run]:
    """The runs that are in none of the batches."""
    inside = {run.id for batch in found for run in batch.runs}
    return [run for run in runs if run.id not in inside]


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
      store: where it works.
      owner: what it is called.
      earlier: what the folder took in versions that did not keep it by batch.
      trained: whether it has trained anything.
    """

    def __init__(self, store: Store, owner: str):
        self.store, self.owner, self._began = store, owner, time.perf_counter()
        old = store.manifest()
        sums = [old.get(key, 0) for key in ("frames", *(f"{k}_time_s" for k in _TIMED))]
        self.earlier = Cost(*old.get("earlier", sums))
        self.trained = False

    def cost(self) -> Cost:
        """What the folder took in all sessions, this one up to now."""
        costs.put(self.store, self.owner, Cost(wall_s=time.perf_counter() - self._began))
        return costs.total(self.store, self.earlier)


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


def gather(store: Store) -> None:
    """Write the tidy records: the union of all parts; raises `Damaged`."""
    for kind in RECORDS:
        frame = store.gather(kind)
        if len(frame):
            write_frame(store.root / f"{kind}.parquet", frame)
    with contextlib.suppress(OSError):  # another worker has a lease
        (store.root / "leases").rmdir()


def _manifest(experiment, store, command, session: Session, broken) -> dict[str, Any]:
    """What was run, on what, and how long it took in all sessions.

    Frames and seconds are those of finished batches; what one under way took is in its checkpoint.
    """
    old, took = store.manifest(), session.cost()
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
        "wall_time_s": round(took.wall_s, 2),
        "frames_per_s": round(took.frames / took.train_s) if took.train_s else None,
        # A session that only tests or draws again leaves the commit that trained.
        **(provenance() if session.trained or "git_commit" not in old else {}),
        "precision": "float32",
    }
    store.write_manifest(manifest)
    return manifest
