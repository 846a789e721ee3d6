"""Frames as Markdown and LaTeX text.

A column `x` with a companion `x_band` is shown as "x ± band", one with `x_std` as "x ± s", one with
`x_low` and `x_high` as "x [low, high]"; the companions get no column of their own.  A NaN is a
dash.
"""

import numpy as np
import pandas as pd

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
    "probability": "P(improvement)",
    "excludes_half": "excludes 0.5",
    "ours_n": "ours, n",
    "paper_n": "paper, n",
}
"""Column titles where the name alone would not do."""

PLAIN = ("magnitude", "largest")
"""Settings rather than results: shown with the digits they have."""


def markdown(frame: pd.DataFrame, caption: str = "") -> str:
    """A frame as a GitHub Markdown table, the caption in a line below."""
    cells, numeric = _cells(frame)
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in cells]
    rule = ["---:" if right else "---" for right in numeric]
    lines = [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]
    return "\n".join(lines + (["", caption] if caption else [])) + "\n"


def latex(frame: pd.DataFrame, caption: str = "") -> str:
    """A frame as a LaTeX `table` that needs no package, special characters escaped."""
    cells, numeric = _cells(frame)
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in cells]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        r"\hline",
        rows[0],
        r"\hline",
        *rows[1:],
        r"\hline",
        r"\end{tabular}",
        *([rf"\caption{{{_escape(caption)}}}"] if caption else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cells(frame: pd.DataFrame) -> tuple[list[list[str]], list[bool]]:
    """Formatted cells, header row first, and which columns hold numbers."""
    ends = ("_band", "_std", "_low", "_high")
    names = [c for c in frame if not any(c.endswith(e) and c[: -len(e)] in frame for e in ends)]
    columns, numeric = [], []
    for name in names:
        cells = [_format(value, name in PLAIN) for value in frame[name]]
        title = HEADERS.get(name, name.replace("_", " "))
        spread = next((end for end in ends[:2] if f"{name}{end}" in frame), None)
        if spread:
            title += " ±" if spread == "_band" else " ± s"
            beside = [_format(value) for value in frame[f"{name}{spread}"]]
            cells = [f"{a} ± {b}" for a, b in zip(cells, beside, strict=True)]
        elif f"{name}_low" in frame:
            title += " [95 %]"
            bounds = zip(cells, frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            cells = [f"{cell} [{_format(low)}, {_format(high)}]" for cell, low, high in bounds]
        columns.append([title, *cells])
        is_number = pd.api.types.is_numeric_dtype(frame[name])
        numeric.append(is_number and not pd.api.types.is_bool_dtype(frame[name]))
    return [list(row) for row in zip(*columns, strict=True)], numeric


def _format(value: object, plain: bool = False) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is pd.NA:
        return "–"
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return "–"
        return f"{value:g}" if plain else f"{value:z.3f}"  # z: no -0.000
    return str(value)


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "[": "{[}",  # a bare bracket after a line break would be its optional argument
    "]": "{]}",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≫": r"$\gg$",
    "–": "--",
    "α": r"$\alpha$",
    "β": r"$\beta$",
}


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text).replace("\n", " ")
