"""Testing the policies of a batch under every perturbation and magnitude."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from entrob.agents.model import RECURRENT
from entrob.envs import Task
from entrob.evaluation.batch import TRACED
from entrob.evaluation.evaluator import Evaluator
from entrob.persistence.store import Damaged, Store, read_tree, write_frame
from entrob.perturbations import NOMINAL
from entrob.sweep.describe import headline
from entrob.sweep.experiment import Experiment, digest
from entrob.sweep.groups import RunBatch
from entrob.sweep.program import Program
from entrob.sweep.sources import code_of_test


class Tester:
    """Applies one `Evaluator` to the batches of an experiment, and keeps what it finds.

    The environment without any perturbation is tested once, under the name `NOMINAL` with
    magnitude 0: see `entrob.statistics.nominal.with_nominal`.

    Attributes:
      tested: magnitudes by name, without any perturbation first.
      evaluator: what it tests with.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.tested = {NOMINAL: (0.0,), **experiment.perturbations}
        sizes = experiment.instances, experiment.episodes, experiment.evaluation_seed
        self.evaluator = Evaluator(*sizes)

    def missing(self, store: Store, batch: RunBatch, progress=None) -> list[str]:
        """Names that the batch has not been tested under, or whose part is damaged."""
        wanted = []
        for name in self.tested:
            path = self.part(store, batch, name)
            try:
                for stale in self._stale(store, batch, name, path):
                    stale.unlink()
                if path.exists():
                    for part in (path, *self._beside(store, batch, name)):
                        store.read(part)
                    continue
            except Damaged as error:
                if progress is not None:
                    progress.warn(f"{error}; tested again")
            wanted.append(name)
        return wanted

    def _beside(self, store: Store, batch: RunBatch, name: str) -> list[Path]:
        """Paths of what a test writes before its records: occupancy and traces, if it has them."""
        env, known = self.experiment.task.env, []
        own = self.experiment.agent_of(batch.group.setting.get("agent", {}))
        exact = env.finite and own["network"] not in RECURRENT
        if name == NOMINAL and exact and env.cell:
            known.append(store.part("occupancy", batch.id))
        if env.trace:
            known.append(self._trace(store, batch, name))
        return known

    def _trace(self, store: Store, batch: RunBatch, name: str) -> Path:
        return store.part("traces", f"{batch.id}-{name}-{self._traced(name):g}")

    def part(self, store: Store, batch: RunBatch, name: str):
        """Path of the records of one batch under one perturbation, or without any."""
        key = digest(self.experiment.hash, self.tested[name])
        plain = store.part("evaluation", f"{batch.id}-{name}-{key}")
        code = code_of_test(self.experiment, name)
        if not code or plain.exists():  # what was tested before sources counted stays
            return plain
        return store.part("evaluation", f"{batch.id}-{name}-{key}.{code}")

    def _stale(self, store: Store, batch: RunBatch, name: str, path: Path) -> list[Path]:
        """Records of a test of other code, if any of it is not entrob's."""
        code = code_of_test(self.experiment, name)
        others = path.parent.glob(f"evaluation-{batch.id}-{name}-*.*.parquet") if code else ()
        return [other for other in others if not other.stem.endswith(f".{code}")]

    def test(
        self,
        store: Store,
        batch: RunBatch,
        prog: Program,
        names: list[str],
        step: Callable[[], None] = lambda: None,
    ) -> None:
        """Test a batch and store its records; `step` is called after every magnitude.

        Raises:
          Damaged: its policies cannot be read.
        """
        params, heat = policies(store, batch, prog), _temperatures(batch)
        for name in names:
            rows = []
            for magnitude in self.tested[name]:
                outcome, horizon = self.evaluator.outcome(
                    prog.task, prog.agent.actor, params, name, magnitude, heat
                )
                cell = prog.task.env.cell
                if name == NOMINAL and outcome.occupancy.size and cell:
                    visits = _visits(batch, prog.task, cell, np.asarray(outcome.occupancy))
                    write_frame(store.part("occupancy", batch.id), visits)
                if outcome.trace is not None and magnitude == self._traced(name):
                    part = self._trace(store, batch, name)
                    path = np.asarray(outcome.trace)
                    traces = _traces(self.experiment, batch, name, magnitude, path)
                    write_frame(part, traces)
                found = self.evaluator.recorded(outcome, horizon)
                rows += _rows(batch, name, magnitude, found)
                step()
            write_frame(self.part(store, batch, name), pd.DataFrame(rows))

    def rows(
        self, prog: Program, batch: RunBatch, policies: Any, name: str, magnitude: float
    ) -> list[dict[str, Any]]:
        """A batch's policies, leaves [runs, ...], under one condition: a row per run."""
        found = self.evaluator.outcome(
            prog.task, prog.agent.actor, policies, name, magnitude, _temperatures(batch)
        )
        return _rows(batch, name, magnitude, self.evaluator.recorded(*found))

    def table(self, prog: Program, batch: RunBatch, policies: Any) -> pd.DataFrame:
        """A batch's policies, leaves [runs, ...], under everything: a row per run × condition."""
        conditions = [(name, m) for name, values in self.tested.items() for m in values]
        rows = [self.rows(prog, batch, policies, *condition) for condition in conditions]
        return pd.DataFrame([row for some in rows for row in some])

    def random_policy(self, task: Task) -> pd.DataFrame:
        """The uniformly random policy under everything: a row per perturbation × magnitude."""
        conditions = [(name, m) for name, values in self.tested.items() for m in values]
        return pd.DataFrame(
            {"perturbation": n, "magnitude": m, **self.evaluator.random(task, n, m)}
            for n, m in conditions
        )

    def _traced(self, name: str) -> float:
        """The magnitude whose traces are kept: the headline's."""
        return 0.0 if name == NOMINAL else headline(self.experiment, name)


def _rows(
    batch: RunBatch, name: str, magnitude: float, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Records of a batch's runs under one condition, with who and what."""
    what = {"perturbation": name, "magnitude": magnitude}
    return [
        {"run_id": run.id, "method": run.method.name, "seed": run.seed, **what, **record}
        for run, record in zip(batch.runs, found)
    ]


def _temperatures(batch: RunBatch) -> np.ndarray:
    """What each run's policy is tested at: float32[runs]."""
    return np.array([run.method.temperature for run in batch.runs], np.float32)


def policies(store: Store, batch: RunBatch, prog: Program) -> Any:
    """What acts in each run of a trained batch, see `read_policies`."""
    return read_policies(store.part("policies", batch.id, ".msgpack"), len(batch.runs), prog)


def read_policies(path: Path, count: int, prog: Program) -> Any:
    """The policies of so many runs from a file: `PolicyParams`, leaves [runs, ...].

    Raises:
      Damaged: the file cannot be read, or holds policies of another network.
    """
    begin = lambda: prog.agent.init(jax.random.PRNGKey(0), None, prog.env_params).policy
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), jax.eval_shape(begin)
    )
    return read_tree(path, like)


def _visits(
    batch: RunBatch, task: Task, cell: Callable[..., jax.Array], occupancy: np.ndarray
) -> pd.DataFrame:
    """A row per run: expected visits to each cell of the nominal environment, NaN for a wall."""
    env, params = task.pair(noise=False)
    pos = np.asarray(jax.vmap(cell)(env.states(params)))
    rows = []
    for run, visits in zip(batch.runs, occupancy):
        cells = np.where(params.walls, np.nan, 0).astype(np.float32)
        np.add.at(cells, (pos[:, 0], pos[:, 1]), visits)
        who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
        rows.append({**who, "width": cells.shape[0], "visits": cells.ravel()})
    return pd.DataFrame(rows)


def _traces(
    experiment: Experiment, batch: RunBatch, name: str, magnitude: float, trace: np.ndarray
) -> pd.DataFrame:
    """A row per run × instance: the points x0, y0, x1, y1, … of its episode.

    The seeds of a method share out the instances, so that there are some `TRACED` traces of it.
    """
    rows, share = [], -(-TRACED // experiment.seeds)
    for run, paths in zip(batch.runs, trace):
        who = {"run_id": run.id, "method": run.method.name, "seed": run.seed}
        who |= {"perturbation": name, "magnitude": magnitude}
        begin = (run.seed - experiment.first_seed) * share
        for instance in sorted({i % len(paths) for i in range(begin, begin + share)}):
            points = paths[instance][~np.isnan(paths[instance][:, 0])].ravel()
            rows.append({**who, "instance": instance, "points": points})
    return pd.DataFrame(rows)
