"""Where a task of a suite is worked on, stage by stage.

Each stage is an experiment of its own in a folder of the task, with seeds and instances of its own;
finished work is skipped by `entrob.sweep.runner`, so that a stage that was interrupted goes on and
ends with the same records.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from entrob.agents.training import Trainer
from entrob.errors import EntrobError
from entrob.persistence.store import Store
from entrob.perturbations import NOMINAL
from entrob.suite.scores import CONDITION
from entrob.sweep import batches, runner
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import known_ids, runs_of
from entrob.sweep.train import Watch


class BatchDone(Exception):
    """The one batch that was to be done is done."""


@dataclasses.dataclass
class Desk:
    """Where and how a task is worked on.

    Attributes:
      folder: the task's.
      command: the command line, for manifests.
      parallel_runs: runs side by side, see `entrob.sweep.runner.run`.
      say: told of every step before it begins.
      only: id of the one batch that is to be done.
      watch: told of the training after every chunk.
      trainers: what was compiled for this task.
      broken: by method, why code of its own cannot be traced.
    """

    folder: Path
    command: str
    parallel_runs: int | None
    say: Callable[[str], None]
    only: str | None = None
    watch: Watch | None = None
    trainers: dict[tuple[str, int], Trainer] = dataclasses.field(default_factory=dict)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)

    def run(self, experiment: Experiment, stage: str, test: bool = True) -> "Records":
        """Bring a stage up to date with an experiment, and return the records of its runs.

        Raises:
          BatchDone: `only` is one of its batches.
          EntrobError: `only` comes in a later stage, and this one is not finished.
        """
        store = Store(self.folder / stage)
        manifest = runner.run(
            experiment, store, self.command, self.parallel_runs, test, self.trainers,
            only=self.only, watch=self.watch,
        )  # fmt: skip
        if self.only is not None:
            if batches.known(store.root, self.only):
                raise BatchDone
            if runner.unfinished(experiment, store):
                raise EntrobError(f"{self.only} is not planned yet: {store.root} comes before it")
        for method in experiment.methods:
            if method.name in manifest["broken"]:
                self.broken[_untuned(method)] = manifest["broken"][method.name]
        return records_of(experiment, store)

    def working(self, methods: Sequence[Method]) -> tuple[Method, ...]:
        """Those that are not broken."""
        return tuple(m for m in methods if _untuned(m) not in self.broken)


def _untuned(method: Method) -> str:
    """The name of a method without the value that is tried."""
    return dataclasses.replace(method, value="").name


class Records(NamedTuple):
    """Records of an experiment's runs: the stored ones that it asks for and no others."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    evaluation: pd.DataFrame


def records_of(experiment: Experiment, store: Store) -> Records:
    """Those of an experiment's methods, seeds and magnitudes; a store may hold others besides."""
    ids = known_ids([run for method in experiment.methods for run in runs_of(experiment, method)])
    frames = [store.gather(kind) for kind in Records._fields]
    runs, curves, evaluation = (f[f.run_id.isin(ids)] if len(f) else f for f in frames)
    if len(evaluation):
        wanted = {(NOMINAL, 0.0)}
        wanted |= {(name, m) for name, values in experiment.perturbations.items() for m in values}
        evaluation = evaluation[evaluation.set_index(CONDITION).index.isin(wanted)]
    return Records(runs, curves, evaluation)
