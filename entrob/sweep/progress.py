"""Progress of a sweep: a live line on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

QUIET = 10.0
"""Seconds between two plain lines where there is no terminal."""


def _bar() -> Bar:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Bar(*columns, TextColumn("{task.fields[rate]}"), console=Console(stderr=True))


@contextlib.contextmanager
def steps(
    what: str, total: int, bar: Bar | None = None, quiet: float = QUIET
) -> Iterator[Callable[[], None]]:
    """A long piece of work in steps that take about as long as each other.

    Args:
      what: is done.
      total: number of steps.
      bar: a live display to be part of, as a terminal has only one.
      quiet: seconds between two plain lines where there is no terminal.

    Yields:
      A function to be called after each step; how many are done and the time left is shown.
    """
    started = said = time.perf_counter()
    own = _bar() if bar is None and sys.stderr.isatty() else None
    live, count = bar or own, 0
    if own:
        own.start()
    task = live.add_task(what, total=total, rate="") if live else None

    def step() -> None:
        nonlocal count, said
        count, now = count + 1, time.perf_counter()
        if live and task is not None:
            live.update(task, completed=count, rate=f"{count} of {total}")
        elif now - said > quiet and count < total:
            left = (now - started) / count * (total - count)
            line = f"{what} {count / total:4.0%}  {count} of {total}  {left:,.0f} s left"
            print(line, file=sys.stderr, flush=True)
            said = now

    try:
        yield step
    finally:
        if live and task is not None:
            live.remove_task(task)
        if own:
            own.stop()


class Progress:
    """Reports frames/s and the time left on standard error.

    Args:
      frames: all frames to be trained.
      quiet: seconds between two plain lines where there is no terminal.
    """

    def __init__(self, frames: int, quiet: float = QUIET):
        self._frames, self._quiet = frames, quiet
        self._done = self._fresh = 0
        self._training = 0.0
        self._last = self._said = time.perf_counter()
        self._bar = None
        if sys.stderr.isatty() and frames:
            self._bar = _bar()
            self._task = self._bar.add_task("training", total=frames, rate="")
            self._bar.start()

    def start(self) -> None:
        """Training (re)starts now: what happened since the last frames does not count."""
        self._last = time.perf_counter()

    def add(self, frames: int, resumed: bool = False) -> None:
        """Count frames; those of an earlier session tell nothing about the speed."""
        now = time.perf_counter()
        if not resumed:
            self._training += now - self._last
            self._fresh += frames
        self._done += frames
        self._last = now
        rate = self._fresh / self._training if self._training else 0.0
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f} frames/s")
        elif rate and (now - self._said > self._quiet or self._done >= self._frames):
            left = (self._frames - self._done) / rate
            share = self._done / self._frames
            self.say(f"training {share:4.0%}  {rate:,.0f} frames/s  {left:,.0f} s left")
            self._said = now

    def steps(self, what: str, total: int) -> contextlib.AbstractContextManager:
        """Like `steps`, beside the training."""
        return steps(what, total, self._bar, self._quiet)

    def say(self, line: str) -> None:
        """Print a line."""
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print a line about something that was wrong and is dealt with."""
        self.say(f"warning: {line}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
