"""From a suite's folder to the tidy tables of its board."""

from pathlib import Path

import pandas as pd

from entrob.errors import EntrobError
from entrob.persistence.store import Damaged, read_json
from entrob.statistics.board import COLUMNS, Board, checked, weighted


def assemble(root: Path) -> Board:
    """The board of all finished tasks in a suite's folder, from the tables that each has.

    Weights are those of the tasks that are there, so that any prefix of a suite is a board.

    Raises:
      EntrobError: no task is finished yet, or its tables contradict themselves.
      Damaged: a table of a finished task is missing or cannot be read.
    """
    manifest = read_json(root / "manifest.json")
    if not manifest["tasks"]:
        raise EntrobError(f"{root} holds no finished task yet")
    frames = {
        name: _stacked(
            [_table(root / task / f"{name}.csv").assign(task=task) for task in manifest["tasks"]]
        ).reindex(columns=columns)
        for name, columns in COLUMNS.items()
    }
    frames["cells"] = weighted(frames["cells"])
    return checked(Board(**frames, manifest=manifest))


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise Damaged(path, (str(error).splitlines() or [""])[0]) from error


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; what has no rows does not change the dtypes of the others."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
