"""One process at work on an experiment, alone or beside others in the same folder."""

import contextlib
import time
from typing import Any

from entrob.agents.training import Trainer
from entrob.compiling import memory_limit, padded
from entrob.errors import BrokenMethod, EntrobError
from entrob.persistence.provenance import provenance
from entrob.persistence.store import Store
from entrob.sweep import batches, costs, snapshots
from entrob.sweep.costs import Cost
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import Group, Run, RunBatch, cut, group_methods
from entrob.sweep.measure import Tester
from entrob.sweep.program import Program, compiled, program
from entrob.sweep.progress import Progress
from entrob.sweep.stored import finished, groups, missing
from entrob.sweep.train import train

#: Seconds between two looks at what other workers have.
POLL = 1.0
#: What a manifest says the seconds of, in the order of `Cost`.
_TIMED = ("train", "test", "compile", "wall")


class Worker:
    """One process at work in a folder that it may write to: see `entrob.sweep.runner.run`."""

    def __init__(
        self, experiment, store, command, parallel_runs, trainers, leases, broken, only, watch
    ):
        self.experiment, self.store, self.command = experiment, store, command
        self.parallel_runs, self.trainers, self.leases = parallel_runs, trainers, leases
        self.broken, self.only, self.watch = broken, only, watch
        self.per_run = experiment.updates * experiment.num_envs * experiment.num_steps
        self.session, self.tester = Session(store, leases.owner), Tester(experiment)
        self.others: set[str] = set()  # batches that other workers were at

    def run(self, programs, test: bool) -> dict[str, Any]:
        """Train and test until all is done, by this worker or by others."""
        # Complete from the start: whatever ends this session, status and report can be asked.
        self.manifest()
        left = sum(len(missing(self.experiment, self.store, g)) for g, _ in programs)
        self.progress = Progress(self.per_run * left)
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
                            alone = apart(group)
                            programs += [(one, program(self.experiment, one)) for one in alone]
                        continue
                    done = (not test or self.test(group, prog)) and done
                    if not done:
                        busy.append((group, prog))
                    if done or not waited:  # a look at what others have changes nothing
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
        return manifest

    def plan(self, programs) -> dict[str, dict[str, Any]]:
        """Plan what is missing of all groups."""
        self.manifest()
        self.progress, found = Progress(0), {}
        for group, prog in programs:
            runs = missing(self.experiment, self.store, group)
            for batch in self.planned(group, prog, runs) or ():
                found[batch.id] = batches.read(self.store, group).batches[batch.id]
        return found

    def train(self, group: Group, prog: Program) -> bool:
        """Train what is missing of a group and nobody else is at; whether nothing is left."""
        runs = missing(self.experiment, self.store, group)
        found = self.planned(group, prog, runs) if runs else []
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
                    what = self.experiment, self.store, batch, trainer, prog, self.progress
                    timing = train(*what, self.watch)
                    self.session.trained |= timing.frames > 0
        if self.others:  # or every batch would be read once more
            for batch in finished(self.experiment, self.store, group):
                if batch.id in self.others:
                    self.others.discard(batch.id)
                    self.progress.add(self.per_run * len(batch.runs), resumed=True)
        return not left

    def planned(self, group: Group, prog: Program, runs: list[Run]) -> list[RunBatch] | None:
        """The batches of what is missing, planned now if need be; None while another one plans."""
        found = batches.planned(self.store, group, runs)
        if _without(runs, found):
            with self.leases.holding(f"plan-{group.key}") as lease:
                if lease is None:
                    return None
                found = batches.planned(self.store, group, runs)
                if rest := _without(runs, found):
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
            total = sum(len(self.tester.tested[name]) for name in names)
            with (
                _timed(self.store, batch, self.tester),
                self.progress.steps("testing", total) as step,
            ):
                self.tester.test(self.store, batch, prog, names, step)
        if kept:
            self.progress.say(f"testing {len(kept)} earlier policies of {len(batch.runs)} runs")
            with (
                _timed(self.store, batch, self.tester),
                self.progress.steps("testing earlier policies", len(kept)) as step,
            ):
                snapshots.test(self.store, batch, self.tester, prog, kept, step)

    def manifest(self) -> dict[str, Any]:
        """Write what the folder holds so far, and return it."""
        return _manifest(self.experiment, self.store, self.command, self.session, self.broken)


def _without(runs: list[Run], found: list[RunBatch]) -> list[Run]:
    """The runs that are in none of the batches."""
    inside = {run.id for batch in found for run in batch.runs}
    return [run for run in runs if run.id not in inside]


def programs_of(experiment: Experiment):
    """Groups with their programs, and by method why one cannot be built."""
    built, broken, waiting = [], {}, groups(experiment)
    for group in waiting:  # grows while it is worked off
        try:
            built.append((group, program(experiment, group)))
        except BrokenMethod as error:
            if len(group.methods) == 1:
                broken[group.methods[0].name] = str(error)
            else:
                waiting.extend(apart(group))
    return built, broken


def apart(group: Group) -> list[Group]:
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
