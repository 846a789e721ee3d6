"""Who may be in a folder: any number of processes that share the work, or one alone."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from entrob.errors import EntrobError

#: The file that is locked. It stays when nobody holds it: removing it could remove another's lock.
NAME = ".lock"


class Lock:
    """A folder that this process is in."""

    def __init__(self, file: IO[str]):
        self._file = file

    def share(self) -> None:
        """Let others in."""
        fcntl.flock(self._file, fcntl.LOCK_SH)


@contextlib.contextmanager
def locked(folder: Path, alone: bool = False) -> Iterator[Lock]:
    """Be in a folder, which is made if need be; with others who are not alone, or alone.

    The operating system lets go of it when this process ends, however it ends.

    Raises:
      EntrobError: another process is there and one of the two is to be alone, or the folder cannot
        be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115, closed below
    except OSError as error:
        raise EntrobError(f"cannot write {folder / NAME}: {error.strerror or error}") from error
    with file:
        try:
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise EntrobError(
                f"{folder} is in use by {owner}: wait for it, or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield Lock(file)
