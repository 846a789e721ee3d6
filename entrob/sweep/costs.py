"""What the batches of a folder took: a small file each, kept by whoever works on the batch.

A worker has a file of its own for the time that it was there.

What a batch took so far that is still in training is in its checkpoint, and comes here when it is
finished; so nothing is lost, or counted twice, however often its training is interrupted.
"""

import hashlib
from typing import NamedTuple

from entrob.persistence.store import Damaged, Store, read_json, write_sealed


class Cost(NamedTuple):
    """Environment steps trained for, and seconds of training, testing, compiling and in all."""

    frames: int = 0
    train_s: float = 0.0
    test_s: float = 0.0
    compile_s: float = 0.0
    wall_s: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """The sum of two."""
        return Cost(self.frames + other.frames, *(a + b for a, b in zip(self[1:], other[1:])))


def cost_of(store: Store, batch: str) -> Cost:
    """What one batch took; nothing if its file is missing or damaged."""
    try:
        return Cost(**read_json(store.part("cost", batch, ".json")))
    except (Damaged, TypeError):
        return Cost()


def add(store: Store, batch: str, cost: Cost) -> None:
    """Add to what one batch took."""
    total = cost_of(store, batch).plus(cost)
    write_sealed(store.part("cost", batch, ".json"), total._asdict())


def trained(store: Store, batch: str, frames: int, seconds: float) -> None:
    """Say what the training of one batch took, in all sessions; said twice it counts once."""
    cost = cost_of(store, batch)._replace(frames=frames, train_s=seconds)
    write_sealed(store.part("cost", batch, ".json"), cost._asdict())


def put(store: Store, owner: str, cost: Cost) -> None:
    """Say what one worker took besides the batches' own: it overwrites what it said before."""
    name = hashlib.sha256(owner.encode()).hexdigest()[:16]
    write_sealed(store.part("cost", name, ".json"), cost._asdict())


def total(store: Store, earlier: Cost) -> Cost:
    """What all batches took, and what a folder of an earlier version took before."""
    for path in sorted((store.root / "parts").glob("cost-*.json")):
        earlier = earlier.plus(cost_of(store, path.stem.removeprefix("cost-")))
    return earlier
