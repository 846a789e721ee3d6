"""Frames as Markdown text.

A column `x` with a companion `x_std` is shown as "x ± s", which everywhere means the sample
standard deviation (over seeds, unless the caption says between what); one with `x_low` and `x_high`
as "x [low, high]", a 95 % interval.  The companions get no column of their own.  A NaN is a dash.
"""

import numpy as np
import pandas as pd

from entrob.naming import Label

HEADERS = {
    "success_iqm": "IQM",
    "success_solvable": "success, solvable",
    "solvable": "solvable instances",
    "exact_worst": "worst case",
    "exact_cvar": "CVaR 10 %",
    "lowest": "lowest success",
    "return_mean": "return",
    "training_return": "return in training",
    "area_iqm": "area, IQM",
    "exact_area": "exact area",
    "probability": "P(better)",
    "differs": "excludes 0",
    "ours_n": "ours, n",
    "paper_n": "paper, n",
    "all": "simultaneous",
    "least_class": "in",
    "rank_span": "ranks",
}
"""Column titles where the name alone would not do."""

PLAIN = ("magnitude", "largest", "coefficient")
"""Settings rather than results: shown with the digits they have."""

_ENDS = ("_std", "_low", "_high")


def markdown(frame: pd.DataFrame, caption: str = "") -> str:
    """A frame as a GitHub Markdown table, the caption in a line below."""
    cells, numeric = _cells(frame)
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in cells]
    rule = ["---:" if right else "---" for right in numeric]
    lines = [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]
    return "\n".join(lines + (["", caption] if caption else [])) + "\n"


def columns(frame: pd.DataFrame) -> list[str]:
    """Columns that are shown: without those that stand beside another one."""
    beside = lambda c: any(c.endswith(end) and c[: -len(end)] in frame for end in _ENDS)
    return [column for column in frame if not beside(column)]


def spread_of(frame: pd.DataFrame, column: str) -> str:
    """ "std" or "interval" if the frame has one of a column, else ""."""
    if f"{column}_std" in frame:
        return "std"
    return "interval" if f"{column}_low" in frame else ""


def title_of(frame: pd.DataFrame, column: str) -> str:
    """A column's title, which says what stands beside the value."""
    title = HEADERS.get(column, column.replace("_", " "))
    return title + {"std": " ± s", "interval": " [95 %]", "": ""}[spread_of(frame, column)]


def display(name: str) -> str:
    """A method's, perturbation's or task's name as it is read: "state entropy (paper)"."""
    return Label.parse(name).shown


def _cells(frame: pd.DataFrame) -> tuple[list[list[str]], list[bool]]:
    """Formatted cells, header row first, and which columns hold numbers."""
    texts, numeric = [], []
    for name in columns(frame):
        cells = [_format(value, name in PLAIN) for value in frame[name]]
        spread = spread_of(frame, name)
        if spread == "std":
            beside = [_format(value) for value in frame[f"{name}_std"]]
            cells = [f"{a} ± {b}" for a, b in zip(cells, beside, strict=True)]
        elif spread:
            bounds = zip(cells, frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            cells = [f"{cell} [{_format(low)}, {_format(high)}]" for cell, low, high in bounds]
        texts.append([title_of(frame, name), *cells])
        is_number = pd.api.types.is_numeric_dtype(frame[name])
        numeric.append(is_number and not pd.api.types.is_bool_dtype(frame[name]))
    return [list(row) for row in zip(*texts, strict=True)], numeric


def _format(value: object, plain: bool = False) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is pd.NA or value is None:
        return "–"
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return "–"
        return f"{value:g}" if plain else f"{value:z.3f}"  # z: no -0.000
    return str(value)
