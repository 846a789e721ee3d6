"""What a store holds of an experiment: its finished batches, and what is missing."""

import contextlib
import json
import sys
from typing import Any

from entrob.persistence.store import Damaged, Store
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import Group, Run, RunBatch, group_methods, known_ids, run_of, runs_of


def groups(experiment: Experiment) -> list[Group]:
    """The experiment's methods, by program."""
    return group_methods(experiment.methods, experiment.share)


def missing(experiment: Experiment, store: Store, group: Group) -> list[Run]:
    """The runs of a group that are still to be trained."""
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
            store.check_sealed(store.part("policies", name, ".msgpack"))
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
