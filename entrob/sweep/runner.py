"""Running an experiment: train what is missing, test it, gather the records."""

import contextlib
import sys
from collections.abc import Callable, Container
from typing import Any

from entrob.agents.training import Trainer
from entrob.persistence.drawings import drawings
from entrob.persistence.leases import Leases
from entrob.persistence.lock import locked
from entrob.persistence.store import RECORDS, Damaged, Store, write_frame
from entrob.sweep.describe import describe
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import known_ids, runs_of
from entrob.sweep.progress import steps
from entrob.sweep.stored import groups, missing, superseded
from entrob.sweep.train import Watch
from entrob.sweep.worker import Worker, programs_of


def run(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    test: bool = True,
    trainers: dict[tuple[str, int], Trainer] | None = None,
    resume: bool = True,
    only: str | None = None,
    begun: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
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
      begun: called once the store is the experiment's, before any work.
      watch: told of the training after every chunk.

    Returns:
      The manifest; its ``broken`` says by method why code of its own could not be traced. What
      other methods did is kept.

    Raises:
      EntrobError: the store belongs to another experiment, another process works on it while this
        one is to begin anew, the disk is full, or no method works.
    """
    programs, broken = programs_of(experiment)
    anew = check(experiment, store, resume)  # before anything is written there
    with locked(store.root, alone=anew) as lock:
        if anew:
            store.clear(drawings(store.root))
            lock.share()
        _claim(experiment, store)
        begun()
        trainers = {} if trainers is None else trainers
        leases = Leases(store.root / "leases")
        given = trainers, leases, broken, only, watch
        worker = Worker(experiment, store, command, parallel_runs, *given)
        manifest = worker.run(programs, test)
        gather(store)
        return manifest


def plan(
    experiment: Experiment,
    store: Store,
    command: str,
    parallel_runs: int | None = None,
    begun: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Write down the batches of an experiment, without training them; arguments as of `run`.

    Returns:
      What `entrob.sweep.batches.Plan` has of each that is not finished, by its id.

    Raises:
      EntrobError: as `run`.
    """
    programs, broken = programs_of(experiment)
    with locked(store.root):
        _claim(experiment, store)
        begun()
        leases = Leases(store.root / "leases")
        worker = Worker(experiment, store, command, parallel_runs, {}, leases, broken, None, None)
        return worker.plan(programs)


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
    return any(missing(experiment, store, group) for group in groups(experiment))


def gather(store: Store) -> None:
    """Write the tidy records: the union of all parts; raises `Damaged`."""
    with steps("gathering", len(RECORDS)) as step:
        for kind in RECORDS:
            frame = store.gather(kind)
            if len(frame):
                write_frame(store.root / f"{kind}.parquet", frame)
            step()
    with contextlib.suppress(OSError):  # another worker has a lease
        (store.root / "leases").rmdir()
