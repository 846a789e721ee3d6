"""Policies kept while training, and tested like the last one: how robustness rises and falls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from entrob.persistence.store import (
    Damaged,
    Store,
    write_frame,
    write_tree,
)
from entrob.perturbations import NOMINAL
from entrob.sweep.experiment import Experiment, digest
from entrob.sweep.groups import RunBatch
from entrob.sweep.measure import Tester, read_policies
from entrob.sweep.program import Program
from entrob.sweep.sources import code_of_test


def write_policies(path: Path, batch: RunBatch, policies: Any) -> None:
    """Write the policies of a batch, leaves [width, ...] of which the first are runs."""
    runs = len(batch.runs)
    write_tree(path, jax.tree.map(lambda x: np.asarray(x)[:runs], policies))


def chunks(experiment: Experiment) -> list[int]:
    """After how many chunks a policy is kept: evenly spaced, the last one included."""
    points = min(experiment.snapshots, experiment.chunks)
    return [round(experiment.chunks * (i + 1) / points) for i in range(points)]


def path_of(store: Store, batch: RunBatch, done: int) -> Path:
    """Where the policies after so many chunks are kept."""
    return store.part("snapshot", f"{batch.id}-{done}", ".msgpack")


def keep(store: Store, batch: RunBatch, done: int, policies: Any) -> None:
    """Keep the policies of a batch after so many chunks."""
    write_policies(path_of(store, batch, done), batch, policies)


def missing(experiment: Experiment, store: Store, batch: RunBatch, progress) -> list[int]:
    """The snapshots of a batch that are still to be tested, if they were kept and can be read."""
    done = _tested(experiment, store, batch, progress)
    kept = []
    for chunk in chunks(experiment):
        path = path_of(store, batch, chunk)
        if chunk in done or not path.exists():
            continue
        try:
            store.check_sealed(path)
            kept.append(chunk)
        except Damaged as error:
            progress.warn(f"{error}; this point of the curve stays empty")
    return kept


def part(experiment: Experiment, store: Store, batch: RunBatch) -> Path:
    """Path of the records of a batch's snapshots."""
    codes = [code_of_test(experiment, name) for name in experiment.snapshot_perturbations]
    key = digest(experiment.hash, experiment.snapshot_perturbations)
    plain = store.part("progress", f"{batch.id}-{key}")
    if not any(codes) or plain.exists():  # what was tested before sources counted stays
        return plain
    return store.part("progress", f"{batch.id}-{key}.{digest(codes)}")


def _tested(experiment: Experiment, store: Store, batch: RunBatch, progress) -> set[int]:
    path = part(experiment, store, batch)
    try:
        return set(store.read(path)["chunk"]) if path.exists() else set()
    except Damaged as error:
        progress.warn(f"{error}; tested again")
        path.unlink()
        return set()


def test(
    store: Store,
    batch: RunBatch,
    tester: Tester,
    prog: Program,
    which: list[int],
    step: Callable[[], None] = lambda: None,
) -> None:
    """Test snapshots nominal and under `Experiment.snapshot_perturbations`.

    Args:
      store, batch: whose.
      tester: of the experiment; it has compiled what the last policies need.
      prog: the batch's program.
      which: of `missing`.
      step: called after each of them.

    Raises:
      Damaged: a policy is not one of this program.
    """
    experiment = tester.experiment
    path = part(experiment, store, batch)
    for other in path.parent.glob(f"progress-{batch.id}-*.*.parquet"):
        if other != path:  # a test of other code
            other.unlink()
    frames = [store.read(path)] if path.exists() else []
    per_chunk = experiment.chunk * experiment.num_envs * experiment.num_steps
    for chunk in which:
        policies = read_policies(path_of(store, batch, chunk), len(batch.runs), prog)
        rows = []
        for name, magnitude in {NOMINAL: 0.0, **experiment.snapshot_perturbations}.items():
            found = tester.rows(prog, batch, policies, name, magnitude)
            rows += [{**row, "chunk": chunk, "frames": chunk * per_chunk} for row in found]
        frames.append(pd.DataFrame(rows))
        write_frame(path, pd.concat(frames, ignore_index=True))
        step()
