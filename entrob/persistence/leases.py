"""Leases: which of several processes that share a folder does which piece of work.

A lease is a file that one process creates exclusively and then rewrites at every beat with a larger
counter. Nobody compares clocks: an observer that has seen a counter stand still for longer than its
patience, by its own monotonic clock, takes the work over; at once, if the owner was a process of
its own machine and is gone. A lease that is taken over gets the next
generation, whose file is created exclusively, too, so that of two observers one succeeds.

A process that was only suspended may go on with work that another has taken over. Both then come to
the same result, and whoever is first writes it: see `Lease.lost`.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from entrob.persistence.store import write_bytes

#: Seconds between two beats, and for how long a counter may stand still: a Python thread that does
#: nothing else may come late while a program is traced.
BEAT, PATIENCE = 2.0, 60.0


class Seen(NamedTuple):
    """What an observer saw of a lease: its owner, its counter, and when it was new to it."""

    owner: str
    counter: int
    since: float


class Lease:
    """A piece of work that this process does, until it is released.

    Attributes:
      path: of the file.
      owner: of the lease.
      lost: whether another process has taken the work over, as of the last beat.
    """

    def __init__(self, path: Path, owner: str, beat: float):
        self.path, self.owner, self.lost = path, owner, False
        self._counter, self._beat, self._done = 0, beat, threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while not self._done.wait(self._beat):
            if _newest(self.path.parent, _name(self.path)) != self.path:
                self.lost = True
                return
            self._counter += 1
            try:
                write_bytes(self.path, _content(self.owner, self._counter))
            except Exception:  # a full disk ends the work itself
                continue

    def release(self) -> None:
        """Let others have it."""
        self._done.set()
        self._thread.join()
        if not self.lost:
            self.path.unlink(missing_ok=True)


class Leases:
    """The leases of one folder, as one process sees them.

    Args:
      folder: where their files are.
      owner: who asks; by default this process on this machine, with a random number.
      beat: seconds between two beats.
      patience: seconds for which a counter may stand still.
      clock: a monotonic clock.
    """

    def __init__(
        self,
        folder: Path,
        owner: str | None = None,
        beat: float = BEAT,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder = folder
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.beat, self.patience, self.clock = beat, patience, clock
        self._seen: dict[Path, Seen] = {}

    def take(self, name: str) -> Lease | None:
        """The lease of a piece of work, or None while another process has it.

        Raises:
          OSError: the folder cannot be written.
        """
        newest = _newest(self.folder, name)
        if newest is not None and not self._expired(newest):
            return None
        generation = 0 if newest is None else _generation(newest) + 1
        path = self.folder / f"{name}.{generation}.lease"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "xb") as file:
                file.write(_content(self.owner, 0))
        except FileExistsError:  # another one was faster
            return None
        for older in self.folder.glob(f"{name}.*.lease"):
            if _generation(older) < generation:
                older.unlink(missing_ok=True)
        return Lease(path, self.owner, self.beat)

    @contextmanager
    def holding(self, name: str) -> Iterator[Lease | None]:
        """`take`, released at the end."""
        lease = self.take(name)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.release()

    def _expired(self, path: Path) -> bool:
        try:
            content = json.loads(path.read_bytes())
            owner, counter = str(content["owner"]), int(content["counter"])
            if content["where"] == _where() and not _alive(int(content["process"])):
                return True
        except FileNotFoundError:
            return False  # released meanwhile: asked again, it is free
        except (ValueError, KeyError, TypeError):
            owner, counter = "", -1  # being written, or damaged: it stands still, too
        now, last = self.clock(), self._seen.get(path)
        if last is None or (last.owner, last.counter) != (owner, counter):
            self._seen[path] = Seen(owner, counter, now)
            return False
        return now - last.since > self.patience


def _content(owner: str, counter: int) -> bytes:
    facts = {"owner": owner, "counter": counter, "where": _where(), "process": os.getpid()}
    return json.dumps(facts).encode()


def _where() -> str:
    """Where the number of a process means this one: a machine, and in it a container."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _newest(folder: Path, name: str) -> Path | None:
    return max(folder.glob(f"{name}.*.lease"), key=_generation, default=None)


def _generation(path: Path) -> int:
    return int(path.name.split(".")[-2])


def _name(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]
