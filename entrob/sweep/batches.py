"""The plan of a folder: the batches that its runs are trained in, written once for all workers.

``plan/GROUP.json`` lists a group's batches, each with its runs and the devices it is for: the last
bits of a result depend on who stands beside whom, and on how many devices. So a worker takes a
batch as it is planned, and refuses one that is for other devices than its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from entrob.errors import EntrobError
from entrob.persistence.store import Damaged, Store, read_json, write_sealed
from entrob.sweep.groups import Group, Run, RunBatch

#: Version of these files.
FORMAT = 1


class Devices(NamedTuple):
    """What a batch is trained on: a platform of JAX, and how many of its devices."""

    platform: str
    number: int

    @classmethod
    def here(cls) -> "Devices":
        """Those of this process."""
        return cls(jax.default_backend(), len(jax.devices()))

    def __str__(self) -> str:
        return f"{self.number} {self.platform} device{'s'[: self.number != 1]}"


class Plan(NamedTuple):
    """What is planned of one group.

    Attributes:
      size: the most runs of a batch.
      batches: by their ids: ``devices``, ``frames`` of all runs together, and ``runs``, each with
        ``id``, ``method`` (see `Method.identity`) and ``seed``.
    """

    size: int = 0
    batches: dict[str, dict[str, Any]] = {}  # noqa: RUF012, never changed


def path_of(store: Store, group: Group) -> Path:
    """Where a group's plan is."""
    return store.root / "plan" / f"{group.key}.json"


def read(store: Store, group: Group) -> Plan:
    """What is planned of a group; nothing if its file is missing or damaged.

    Raises:
      EntrobError: it was written by another version.
    """
    path = path_of(store, group)
    try:
        table = read_json(path)
    except Damaged:
        return Plan()
    if table.get("format") != FORMAT:
        raise EntrobError(f"{path} is of another version of entrob: choose another --out")
    return Plan(table["size"], table["batches"])


def known(root: Path, batch: str) -> bool:
    """Whether a batch is planned in a folder."""
    return any(f'"{batch}": {{' in path.read_text("utf-8") for path in root.glob("plan/*.json"))


def planned(store: Store, group: Group, missing: Sequence[Run]) -> list[RunBatch]:
    """The batches of the plan whose runs are all missing, in its order.

    Raises:
      EntrobError: one of them is for other devices than those here.
    """
    by_id = {run.id: run for run in missing}
    found, here = [], Devices.here()
    for name, facts in read(store, group).batches.items():
        ids = [run["id"] for run in facts["runs"]]
        if not by_id.keys() >= set(ids):
            continue
        if Devices(*facts["devices"]) != here:
            raise EntrobError(
                f"batch {name} of {store.root} is planned for {Devices(*facts['devices'])}, and "
                f"here are {here}: work where it was planned, or choose another --out"
            )
        found.append(RunBatch(name, group, tuple(by_id[i] for i in ids)))
    return found


def extend(
    store: Store, group: Group, size: int, new: Sequence[RunBatch], frames_per_run: int
) -> None:
    """Add batches to a group's plan; for who holds its lease."""
    batches = dict(read(store, group).batches)
    for batch in new:
        runs = [{"id": r.id, "method": r.method.identity, "seed": r.seed} for r in batch.runs]
        frames = frames_per_run * len(runs)
        batches[batch.id] = {"devices": Devices.here(), "frames": frames, "runs": runs}
    write_sealed(path_of(store, group), {"format": FORMAT, "size": size, "batches": batches})
