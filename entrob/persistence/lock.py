"""One process at a time in a folder."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from entrob.errors import EntrobError

#: The file that is locked. It stays when nobody holds it: removing it could remove another's lock.
NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, against other processes.

    The operating system lets go of it when this process ends, however it ends.

    Raises:
      EntrobError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115, closed below
    except OSError as error:
        raise EntrobError(f"cannot write {folder / NAME}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise EntrobError(
                f"{folder} is in use by {owner}: wait for it, or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
