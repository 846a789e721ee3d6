"""The process that an engine starts: ``entrob work FOLDER``, in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

from entrob.errors import EntrobError


def command(folder: Path) -> list[str]:
    """What a worker is started with."""
    return [sys.executable, "-m", "entrob", "work", str(folder)]


class Worker:
    """One worker process, which JAX, its devices and a kill have for themselves.

    Its standard output and error are those of whoever started it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._process: subprocess.Popen | None = None

    def run(self) -> None:
        """Work until all is done.

        Raises:
          EntrobError: the worker found something wrong, and said what in its last line.
          ChildProcessError: it was killed; whoever tries again goes on where it was.
        """
        self._process = subprocess.Popen(command(self.folder), stderr=subprocess.PIPE, text=True)
        last = ""
        for line in self._process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        code = self._process.wait()
        if code < 0:
            raise ChildProcessError(f"the worker was killed by signal {-code}")
        if code:
            raise EntrobError(last.removeprefix("entrob: ") or f"a worker ended with {code}")

    def stop(self) -> None:
        """End the process; what it was at is left to others."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
