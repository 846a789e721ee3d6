"""Training one batch of runs, checkpointed after every chunk."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import pandas as pd

from entrob.agents.actor_critic import AGENT, HEALTHY
from entrob.agents.training import Trainer
from entrob.persistence.store import Damaged, Store, read_tree, write_frame, write_tree
from entrob.regularizers.chaining import faults
from entrob.sweep import costs, snapshots
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import RunBatch
from entrob.sweep.program import Program, hypers
from entrob.sweep.snapshots import write_policies

#: Sums over the episodes that ended, as opposed to means over the frames of an update.
_SUMS = ("episodes", "return_sum", "success_sum", "length_sum")
#: Measured in few updates and NaN in the others.
_SPARSE = ("activity",)


#: Cause of divergence where no regularizer is to blame.
OWN_FAULT = "loss or weights"


class Timing(NamedTuple):
    """Seconds that a call of `train` spent training, and the frames that took."""

    seconds: float = 0.0
    frames: int = 0


class Watch(Protocol):
    """What is told of the training between two chunks."""

    def __call__(
        self, experiment: Experiment, batch: RunBatch, frames: int, means: Mapping[str, np.ndarray]
    ) -> None:
        """Take what a chunk measured.

        Args:
          experiment: what is trained.
          batch: the runs.
          frames: of each run so far.
          means: float32[runs] by curve: sums over episodes per episode, all else per update; NaN
            where no episode ended or nothing was measured.
        """


def train(
    experiment: Experiment,
    store: Store,
    batch: RunBatch,
    trainer: Trainer,
    prog: Program,
    progress,
    watch: Watch | None = None,
) -> Timing:
    """Train a batch from its last checkpoint on; store its policies, curves and runs.

    A checkpoint that is damaged is named and the batch trained again. The runs are written last,
    so a batch whose runs are there is finished.

    Args:
      progress: `entrob.sweep.progress.Progress`.
      watch: called after every chunk.
    """
    seeds, hyper = hypers(experiment, batch, trainer.width)
    state = trainer.init(seeds, hyper, prog.env_params)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    blank = np.full((trainer.width, experiment.updates), np.nan, np.float32)
    curves = {name: blank.copy() for name in trainer.curves}
    path, done, spent = store.part("checkpoint", batch.id, ".msgpack"), 0, 0.0
    if path.exists():
        try:
            saved = _read_checkpoint(path, _checkpoint(curves, done, state, spent))
            # Arrays read from bytes are read-only; the curves still grow.
            curves = {name: np.array(x) for name, x in saved["curves"].items()}
            state = jax.tree.map(jax.device_put, saved["state"], shardings)
            done, spent = int(saved["done"]), float(saved["train_s"])
        except Damaged as error:
            progress.warn(f"{error}; its batch is trained again")
    start, first, before = time.perf_counter(), done, spent
    frames = experiment.chunk * experiment.num_envs * experiment.num_steps * len(batch.runs)
    progress.add(frames * done, resumed=True)
    while done < experiment.chunks:
        state, new = trainer.chunk(state, hyper, prog.env_params)
        here = slice(done * experiment.chunk, (done + 1) * experiment.chunk)
        for name, values in new.items():
            curves[name][:, here] = values
        done += 1
        if done in snapshots.chunks(experiment):
            snapshots.keep(store, batch, done, state.policy)
        spent = before + time.perf_counter() - start
        write_tree(path, _checkpoint(curves, done, state, spent))
        progress.add(frames)
        if watch is not None:
            per_run = done * frames // len(batch.runs)
            watch(experiment, batch, per_run, _means(new, len(batch.runs)))
    write_policies(store.part("policies", batch.id, ".msgpack"), batch, state.policy)
    write_frame(store.part("curves", batch.id), _curve_records(experiment, batch, curves))
    costs.trained(store, batch.id, frames * done, spent)
    write_frame(store.part("runs", batch.id), _run_records(experiment, batch, state, curves))
    path.unlink()
    return Timing(spent - before, frames * (done - first))


def _checkpoint(curves: dict[str, np.ndarray], done: int, state: Any, seconds: float) -> dict:
    """What a checkpoint holds: the seconds that training took so far last."""
    state = {"curves": curves, "done": np.int64(done), "state": state}
    return {**state, "train_s": np.float64(seconds)}


def _read_checkpoint(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint; one of earlier versions has no seconds. Raises `Damaged`."""
    try:
        return read_tree(path, like)
    except Damaged:
        return {"train_s": 0.0, **read_tree(path, {k: like[k] for k in like if k != "train_s"})}


def _means(new: Mapping[str, Any], runs: int) -> dict[str, np.ndarray]:
    """What a chunk measured, [width, updates] by curve, as `Watch` takes it."""
    arrays = {name: np.asarray(values)[:runs] for name, values in new.items()}
    episodes = arrays["episodes"].sum(1)
    found = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, values in arrays.items():
            if name in _SUMS and name != "episodes":
                found[name.replace("_sum", "_mean")] = values.sum(1) / episodes
            elif name in _SPARSE:
                there = ~np.isnan(values)
                found[name] = np.nansum(values, 1) / there.sum(1)
            else:
                found[name] = values.mean(1)
    return found


def _curve_records(experiment: Experiment, batch: RunBatch, curves: dict[str, np.ndarray]):
    """A row per run × logged point: means over the updates since the last point.

    ``activity`` is a mean over those in which it was measured, NaN if there was none.
    """
    points = min(experiment.points, experiment.updates)
    edges = np.linspace(0, experiment.updates, points + 1).astype(int)
    lengths = np.diff(edges)
    totals = {name: np.add.reduceat(x, edges[:-1], axis=1) for name, x in curves.items()}
    episodes = totals["episodes"]
    with np.errstate(invalid="ignore"):
        per_episode = {name: totals[name] / episodes for name in _SUMS}
        sparse = {}
        for name in _SPARSE:
            sums, counts = (
                np.add.reduceat(x, edges[:-1], axis=1)
                for x in (np.nan_to_num(curves[name]), ~np.isnan(curves[name]) * 1.0)
            )
            sparse[name] = sums / counts
    frames = edges[1:] * experiment.num_envs * experiment.num_steps
    frames_of_one = [
        pd.DataFrame(
            {
                "run_id": run.id,
                "method": run.method.name,
                "seed": run.seed,
                "frames": frames,
                "episodes": np.nan_to_num(episodes[i]).astype(int),
                "return_mean": per_episode["return_sum"][i],
                "success": per_episode["success_sum"][i],
                "length_mean": per_episode["length_sum"][i],
                **{k: x[i] / lengths for k, x in totals.items() if k not in (*_SUMS, *_SPARSE)},
                **{k: x[i] for k, x in sparse.items()},
            }
        )
        for i, run in enumerate(batch.runs)
    ]
    return pd.concat(frames_of_one, ignore_index=True)


def _run_records(
    experiment: Experiment, batch: RunBatch, state: Any, curves: dict[str, np.ndarray]
) -> pd.DataFrame:
    """A row per run: what it was and how it ended; ``activity`` is the median over training."""
    diverged_at, causes = np.asarray(state.diverged_at), np.asarray(state.cause)
    names = {HEALTHY: "", AGENT: OWN_FAULT}
    names |= {2 + i: fault for i, fault in enumerate(faults(batch.group.regularizers))}
    rows = []
    # Not of runs that only fill up the width; NaN where nothing was measured.
    measured = pd.DataFrame(curves["activity"][: len(batch.runs)]).median(axis=1)
    for run, at, cause, activity in zip(batch.runs, diverged_at, causes, measured):
        rows.append(
            {
                "run_id": run.id,
                "method": run.method.name,
                "seed": run.seed,
                "declared": json.dumps(run.method.identity),
                "coefficients": json.dumps(run.method.coefficients),
                "fidelity": run.method.fidelity,
                "code": run.code,
                "frames": experiment.updates * experiment.num_envs * experiment.num_steps,
                "status": "diverged" if at >= 0 else "finished",
                "diverged_at": int(at),
                "cause": names[int(cause)],
                "activity": activity,
            }
        )
    return pd.DataFrame(rows)
