"""Frames as short LaTeX tables for a paper: few columns, two digits, display names, best in bold.

The tables need the package ``booktabs`` and compile with pdfLaTeX.  All columns and digits are in
the CSV file beside each.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.report.markup import PLAIN, columns, display, spread_of, title_of

COLUMNS = 7
"""At most this many fit on a page."""

LONG = 24
"""Text with more characters is set as a paragraph."""


class Short(NamedTuple):
    """What a frame's short table shows.

    Attributes:
      columns: which, in this order; empty: the first ones.  Those that the frame lacks are left
        out, and those beyond `COLUMNS`.
      spread: of which columns the interval or deviation is shown beside the value.
      best: of which columns the highest value is set in bold,
      within: among the rows that agree in these columns.
    """

    columns: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    best: tuple[str, ...] = ()
    within: tuple[str, ...] = ()


def latex(frame: pd.DataFrame, caption: str, name: str, short: Short | None = None) -> str:
    """A frame as a `table` with booktabs' rules and ``\\label{tab:NAME}``.

    Args:
      frame: with the columns of `markup.markdown`.
      caption: its text; what bold means is added.
      name: for the label.
      short: what is shown.

    Raises:
      EntrobError: a character that LaTeX would not take.
    """
    short = short or Short()
    shown = columns(frame)
    if short.columns:
        shown = [column for column in short.columns if column in frame]
    shown = shown[:COLUMNS]
    bold = _bold(frame, short)
    texts, align = [], ""
    for column in shown:
        cells = [escape(_cell(value, column in PLAIN), name) for value in frame[column]]
        spread = spread_of(frame, column) if column in short.spread else ""
        if spread:
            cells = [
                cell + escape(_beside(row, column, spread), name)
                for cell, (_, row) in zip(cells, frame.iterrows(), strict=True)
            ]
        marks = bold.get(column, [False] * len(frame))
        cells = [rf"\textbf{{{c}}}" if mark else c for c, mark in zip(cells, marks, strict=True)]
        title = title_of(frame, column) if spread else title_of(frame[[column]], column)
        texts.append([escape(title, name), *cells])
        kind = frame[column]
        number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        long = max((len(str(value)) for value in kind), default=0) > LONG
        align += "r" if number else rf"p{{{0.8 / len(shown):.2f}\linewidth}}" if long else "l"
    rows = [" & ".join(row) + r" \\" for row in zip(*texts, strict=True)]
    # What is bold is said only where something is.
    if any(any(marks) for marks in bold.values()):
        among = f" for each {' and '.join(map(display, short.within))}" if short.within else ""
        caption = f"{caption} Bold: the highest of a column{among}, as far as two digits tell."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape(caption.strip(), name)}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _bold(frame: pd.DataFrame, short: Short) -> dict[str, list[bool]]:
    """Which cells hold the highest value; those that print alike are all in bold."""
    found = {}
    for column in short.best:
        if column not in frame or not len(frame):
            continue
        rounded = frame[column].astype(float).round(2)
        groups = [frame[name] for name in short.within if name in frame]
        best = rounded.groupby(groups).transform("max") if groups else rounded.max()
        found[column] = list((rounded == best) & rounded.notna())
    return found


def _beside(row: pd.Series, column: str, spread: str) -> str:
    if spread == "std":
        return f" ± {_cell(row[f'{column}_std'])}"
    return f" [{_cell(row[f'{column}_low'])}, {_cell(row[f'{column}_high'])}]"


def _cell(value: object, plain: bool = False) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:g}" if plain else f"{value:z.2f}"
    return display(str(value))


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "[": "{[}",  # a bare bracket after a line break would be its optional argument
    "]": "{]}",
    "\n": " ",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "₀": "$_0$",
    "₁": "$_1$",
    "₂": "$_2$",
    "²": "$^2$",
    "³": "$^3$",
    "•": r"$\bullet$",
    "★": r"$\star$",
}
_SIGNS = {
    "±": "pm", "×": "times", "·": "cdot", "÷": "div", "≤": "leq", "≥": "geq", "≫": "gg", "≪": "ll",
    "≠": "neq", "≈": "approx", "∞": "infty", "∈": "in", "∝": "propto", "→": "to", "←": "gets",
    "√": "surd", "−": "-", "∑": "sum", "‖": "|", "°": "circ", "∇": "nabla", "∂": "partial",
    "⌊": "lfloor", "⌋": "rfloor", "ℓ": "ell",
}  # fmt: skip
_GREEK = {}
for _letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ":
    _, _size, _, _name = unicodedata.name(_letter).replace("LAMDA", "LAMBDA").split()
    _GREEK[_letter] = _name.capitalize() if _size == "CAPITAL" else _name.lower()
for _sign, _command in (_SIGNS | _GREEK).items():
    _LATEX[_sign] = "$-$" if _command == "-" else rf"$\{_command}$"


def escape(text: str, where: str) -> str:
    """Text as LaTeX; raises `EntrobError` on a character that is neither ASCII, nor a Latin letter
    with an accent, nor in the table of signs.
    """
    for character in text:
        latin = "À" <= character <= "ÿ" and character.isalpha()
        if not (character in _LATEX or (character.isascii() and character.isprintable()) or latin):
            raise EntrobError(
                f"table {where!r} holds {character!r} (U+{ord(character):04X}), for which "
                "entrob.report.latex knows no LaTeX"
            )
    return "".join(_LATEX.get(character, character) for character in text)
