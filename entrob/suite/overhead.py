"""What each regularizer costs per update, side by side with `none` in one process."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.errors import BrokenMethod
from entrob.naming import BASELINE
from entrob.persistence.store import write_bytes
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.program import timed_alone

COLUMNS = ["method", "seconds", "ratio", "ratio_low", "ratio_high", "compile_s"]


def overhead(experiment: Experiment, repeats: int = 3, say=lambda text: None) -> pd.DataFrame:
    """Seconds of a chunk of updates of every method over those of `none`.

    The programs are those that the experiment trains with. They run in turn, `none` before each
    method, so that whatever else the machine does falls on both.

    Args:
      experiment: its methods are measured, one program each.
      repeats: timed chunks of each.
      say: told of every method before it is compiled.

    Returns:
      A row per method: ``method``, ``seconds`` per update of one run, ``ratio`` to `none` (median
      of the pairs), ``ratio_low`` and ``ratio_high`` (their quartiles), ``compile_s``.
    """
    base, _ = _chunk(experiment, Method(BASELINE))
    per_run = experiment.chunk * experiment.seeds
    rows = []
    for method in experiment.methods:
        if not (method.coefficients or method.adversary):
            continue
        say(method.name)
        try:
            chunk, compile_s = _chunk(experiment, method)
        except BrokenMethod:
            continue
        seconds = np.array([(base(), chunk()) for _ in range(repeats)])
        low, middle, high = np.quantile(seconds[:, 1] / seconds[:, 0], [0.25, 0.5, 0.75])
        rows.append(
            {"method": method.name, "seconds": np.median(seconds[:, 1]) / per_run}
            | {"ratio": middle, "ratio_low": low, "ratio_high": high, "compile_s": compile_s}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def measure_overhead(experiment: Experiment, path: Path, broken: set[str], say) -> None:
    """Measure the methods that a table has not yet, on this or an earlier task, and add them.

    Args:
      experiment: its methods are measured.
      path: the table, CSV; it need not exist.
      broken: methods that do not work.
      say: told of every method before it is compiled.
    """
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    done = broken.union(known.method)
    able = [m for m in experiment.methods if m.coefficients or m.adversary]
    methods = tuple(m for m in able if m.name not in done)
    if methods:
        new = overhead(dataclasses.replace(experiment, methods=methods), say=say)
        table = pd.concat([x for x in (known, new) if len(x)] or [known], ignore_index=True)
        write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def _chunk(experiment: Experiment, method: Method):
    """A function that says how long a method's first chunk takes, called once; its compile time."""
    trainer, begin, chunk = timed_alone(experiment, method)
    state = begin()
    seconds = lambda: chunk(state)[1]
    seconds()
    return seconds, trainer.compile_s
