"""Running an experiment: train what is missing, test it, gather the records."""

import json
import sys
import time
from typing import Any

from entrob.agents.training import Trainer
from entrob.compiling import memory_limit, padded
from entrob.errors import BrokenMethod, EntrobError
from entrob.persistence.provenance import provenance
from entrob.persistence.store import (
    Damaged,
    Store,
    read_sealed,
    write_frame,
    write_json,
)
from entrob.sweep import snapshots
from entrob.sweep.describe import describe
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import Group, Run, RunBatch, cut, group_methods, runs_of
from entrob.sweep.measure import Tester
from entrob.sweep.program import compiled, program
from entrob.sweep.progress import Progress
from entrob.sweep.train import Timing, train

_KINDS = ("runs", "curves", "evaluation", "progress", "occupancy", "traces")


def run(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    test: bool = True,
    trainers: dict[tuple[str, int], Trainer] | None = None,
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

    Returns:
      The manifest; its ``broken`` says by method why code of its own could not be traced. What
      other methods did is kept.

    Raises:
      EntrobError: the store belongs to another experiment, the disk is full, or no method works.
    """
    started = time.perf_counter()
    programs, broken = _programs(experiment)
    identity = {"experiment": experiment.name, "experiment_hash": experiment.hash}
    store.claim({**identity, **describe(experiment, store.manifest())})
    # Complete from the start: whatever ends this session, status and report can be asked.
    _manifest(experiment, store, command, Spent(), 0.0, {})
    plan = [(*built, _unfinished(experiment, store, built[0])) for built in programs]
    per_run = experiment.updates * experiment.num_envs * experiment.num_steps
    progress = Progress(per_run * sum(len(missing) for *_, missing in plan))
    spent, tester = Spent(), Tester(experiment)
    trainers = {} if trainers is None else trainers
    try:
        for group, prog, missing in plan:  # grows while it is worked off
            try:
                if missing:
                    _train_group(
                        experiment, store, group, missing, prog, parallel_runs, progress, spent,
                        trainers,
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
                _test_group(experiment, store, group, prog, tester, progress, spent)
    finally:
        progress.close()
        wall = time.perf_counter() - started
        manifest = _manifest(experiment, store, command, spent, wall, broken)
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


def _test_group(experiment, store, group, prog, tester, progress, spent) -> None:
    """Test the trained runs of a group under what they have not been tested under yet."""
    for batch in finished(experiment, store, group):
        names = tester.missing(store, batch, progress)
        if names:
            began = time.perf_counter()
            progress.say(f"testing {len(batch.runs)} policies under {', '.join(names)}")
            tester.test(store, batch, prog, names)
            spent.test_s += time.perf_counter() - began
        if kept := snapshots.missing(experiment, store, batch, progress):
            began = time.perf_counter()
            progress.say(f"testing {len(kept)} earlier policies of {len(batch.runs)} runs")
            snapshots.test(store, batch, tester, prog, kept)
            spent.test_s += time.perf_counter() - began
    spent.compile_s += tester.evaluator.compile_s
    spent.test_s -= tester.evaluator.compile_s
    tester.evaluator.compile_s = 0.0


class Spent:
    """Seconds and frames of this call."""

    def __init__(self):
        self.compile_s = self.train_s = self.test_s = 0.0
        self.frames = 0

    def trained(self, timing: Timing) -> None:
        self.train_s += timing.seconds
        self.frames += timing.frames


def groups(experiment: Experiment) -> list[Group]:
    """The experiment's methods, by program."""
    return group_methods(experiment.methods, experiment.share)


def _unfinished(experiment: Experiment, store: Store, group: Group) -> list:
    done = {run.id for batch in finished(experiment, store, group) for run in batch.runs}
    wanted = [run for method in group.methods for run in runs_of(experiment, method)]
    return [run for run in wanted if run.id not in done]


def finished(experiment: Experiment, store: Store, group: Group) -> list[RunBatch]:
    """Trained batches with runs of a group; damaged ones are removed and so come to be redone.

    A batch that was cut from another choice of methods counts too, and keeps its name.
    """
    wanted = {run.id: run for method in group.methods for run in runs_of(experiment, method)}
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


def _other(row: Any) -> Run:
    """A run of the same batch that is not asked for, from its record."""
    # Records of earlier versions hold no more of a method than its name.
    identity = json.loads(getattr(row, "declared", "null")) or {"name": row.method}
    return Run(row.run_id, Method.identified(identity), row.seed)


def _train_group(
    experiment, store, group, missing, prog, parallel_runs, progress, spent, trainers
) -> None:
    """Train the missing runs of a group in as few batches as fit in memory."""
    size = parallel_runs or store.manifest().get("batch_sizes", {}).get(group.key) or len(missing)

    def trainer_of(batch: RunBatch) -> Trainer:
        width = padded(len(batch.runs))
        if (group.key, width) not in trainers:
            progress.say(f"compiling {' + '.join(group.regularizers) or 'none'} for {width} runs")
            trainers[group.key, width] = compiled(experiment, prog, batch)
            spent.compile_s += trainers[group.key, width].compile_s
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
        spent.trained(train(experiment, store, batch, trainer, prog, progress))


def gather(store: Store) -> None:
    """Write the tidy records: the union of all parts; raises `Damaged`."""
    for kind in _KINDS:
        frame = store.gather(kind)
        if len(frame):
            write_frame(store.root / f"{kind}.parquet", frame)


def _manifest(experiment, store, command, spent: Spent, wall: float, broken) -> dict[str, Any]:
    """What was run, on what, and how long it took in all sessions."""
    old = store.manifest()
    frames = old.get("frames", 0) + spent.frames
    train_s = old.get("train_time_s", 0.0) + spent.train_s
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
        "frames": frames,
        "train_time_s": round(train_s, 2),
        "compile_time_s": round(old.get("compile_time_s", 0.0) + spent.compile_s, 2),
        "test_time_s": round(old.get("test_time_s", 0.0) + spent.test_s, 2),
        "wall_time_s": round(old.get("wall_time_s", 0.0) + wall, 2),
        "frames_per_s": round(frames / train_s) if train_s else None,
        # A session that only tests or draws again leaves the commit that trained.
        **(provenance() if spent.frames or "git_commit" not in old else {}),
        "precision": "float32",
    }
    write_json(store.manifest_path, manifest)
    return manifest
