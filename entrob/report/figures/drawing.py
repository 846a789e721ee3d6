"""What all figures share: looks, labels, lines, bars, legends, and writing them.

A method keeps its color, marker and dashes in all figures of a run.  Bands and bars are Student's t
intervals over seeds, which end where rates do, at 0 and 1.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from entrob.naming import Label
from entrob.persistence import store
from entrob.report.markup import display
from entrob.report.paper import Number
from entrob.report.tables import base_name
from entrob.statistics import aggregate, intervals

# By matplotlib's names, whose type is younger than the oldest matplotlib that will do.
RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
}

COLORS = {"none": "#1a1a1a", "policy_entropy": "#e08a00", "state_entropy": "#0072b2"}
"""Fixed colors, told apart by the color-blind (after Okabe and Ito), as gray from green is not."""

PALETTE = ("#009e73", "#cc79a7", "#56b4e9", "#b03a00", "#5b3a8c", "#a69b00", "#f0e442", "#7f3c10")
"""Colors of further methods, in the order of the methods; it wraps around, markers do not."""

MARKERS = "osD^vPX<>*"

PAPER_MARK: dict[str, Any] = {
    "marker": "d",
    "markerfacecolor": "white",
    "linestyle": "",
    "markersize": 6,
}
"""How the paper's numbers are drawn: hollow, in the color of their method."""

DASHES = {"paper": (0, (5, 2)), "reference": (0, (2, 1.2))}
"""Line styles of variants; any other is dashed and dotted."""

HATCHES = {"paper": "////", "reference": "...."}
"""The same for bars; any other is crossed."""


def style(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """Color, marker and line style of one method among all of a run, in their order.

    A variant takes the color and the marker of its base; it is dashed and its marker hollow.
    """
    bases = list(dict.fromkeys(map(base_name, methods)))
    others = [name for name in bases if name not in COLORS]
    base = base_name(method)
    known = list(COLORS)
    rank = known.index(base) if base in COLORS else len(known) + others.index(base)
    color = COLORS.get(base) or PALETTE[others.index(base) % len(PALETTE)]
    variant = Label.parse(method).variant
    dashes = DASHES.get(variant, (0, (5, 1.5, 1, 1.5))) if variant else "-"
    look: dict[str, Any]
    look = {"color": color, "marker": MARKERS[rank % len(MARKERS)], "linestyle": dashes}
    return look | ({"markerfacecolor": "white"} if variant else {})


def label(name: str) -> str:
    """A method's or perturbation's name as text, safe from matplotlib's math mode."""
    return display(name).replace("$", r"\$")


def save(figure: Figure, folder: Path, name: str, *, small: bool = False) -> None:
    """Write `name.pdf` and `name.png`, without dates, each whole or not at all.

    Args:
      figure: what to write.
      folder: where.
      name: of the files.
      small: only the PNG, at the resolution of a screen: for figures of which there are many.

    Raises:
      EntrobError: if a file cannot be written.
    """
    stamps = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    for suffix in ("png",) if small else stamps:
        sink = io.BytesIO()
        with matplotlib.rc_context(RC | ({"savefig.dpi": 90} if small else {})):
            figure.savefig(sink, format=suffix, metadata=stamps[suffix])
        store.write_bytes(Path(folder) / f"{name}.{suffix}", sink.getvalue())


def over(
    rows: pd.DataFrame, by: str, column: str, level: float, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions, means and ends of t intervals of a column, over the runs at each value of `by`."""
    found = [
        (x, *intervals.t_interval(values.to_numpy(dtype=float), level, bounds=bounds))
        for x, values in rows.groupby(by)[column]
    ]
    x, mean, low, high = np.array(found, dtype=float).reshape(-1, 4).T
    return x, mean, low, high


def line(
    axis: Axes,
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    look: dict[str, Any],
) -> None:
    """A mean and the band around it; where there is no interval, there is no band."""
    # Not clipped, so that a mean at 0 or 1 keeps its whole width and marker.
    (curve,) = axis.plot(x, mean, **look, clip_on=False)
    curve.set_in_layout(False)
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)


def error_bars(
    axis: Axes, x: np.ndarray, y: np.ndarray, error: tuple, look: dict[str, Any], flat: bool = False
) -> None:
    """Points with (below, above) bars, flat or upright."""
    # Rounding may put an interval of no width past its point; NaN, of one seed, is no bar.
    lengths = np.nan_to_num(np.maximum(error, 0))
    dashed = look["linestyle"] != "-"
    look = look | {"linestyle": ""}
    look |= {"xerr" if flat else "yerr": lengths}
    bars = axis.errorbar(x, y, elinewidth=1.2, clip_on=False, **look)
    for bar in bars[2] if dashed else ():
        bar.set_linestyle((0, (2, 1)))


def offset(method: str, methods: Sequence[str]) -> float:
    """Where a method stands within a row or column of width 1, so that bars do not overlap."""
    return 0.7 * ((methods.index(method) + 0.5) / len(methods) - 0.5)


def paper_mark(axis: Axes, x: float, number: Number, color: str, level: float) -> None:
    """A success rate of the paper at x, with its normal band, within [0, 1], if it has a spread."""
    z = aggregate.normal_quantile(level)
    # A NaN, of a number without a spread, is no bar.
    band = np.nan_to_num(z * number.std / np.sqrt(number.n)) if number.n else 0.0
    look: dict[str, Any]
    look = {"color": color, "elinewidth": 0.9, "capsize": 1.5, "zorder": 4, **PAPER_MARK}
    ends = [[min(band, number.mean)], [min(band, 1 - number.mean)]]
    axis.errorbar(x, number.mean, yerr=ends if band else None, clip_on=False, **look)


def paper_handle(text: str) -> Line2D:
    """The entry of a legend for what `paper_mark` draws."""
    return Line2D([], [], color="0.2", label=text, **PAPER_MARK)


def handle(method: str, methods: Sequence[str], runs: pd.DataFrame | None) -> Line2D:
    """The entry of a legend for a method, with its number of seeds if the runs are given."""
    text = label(method)
    if runs is not None:
        status = runs.loc[runs["method"] == method, "status"]
        seeds = int((status == "finished").sum())
        text += f", n = {seeds} seed{'' if seeds == 1 else 's'}"
        if diverged := int((status == "diverged").sum()):
            text += f" ({diverged} diverged, left out)"
    return Line2D([], [], label=text, **style(method, methods))


def legend_below(
    figure: Figure,
    drawn: Sequence[str],
    methods: Sequence[str],
    runs: pd.DataFrame | None,
    note: str,
    more: Sequence[Line2D] = (),
) -> None:
    """One legend under all panels: the methods drawn, `more` entries, and a note above them."""
    fit_legend(figure, [*(handle(method, methods, runs) for method in drawn), *more], note)


def fit_legend(figure: Figure, handles: Sequence[Artist], note: str = "") -> None:
    """A legend under all panels with as many columns, at most five, as fit into the figure."""
    look: dict[str, Any]
    look = {"handles": list(handles), "loc": "outside lower center", "handlelength": 3}
    if note:
        look |= {"title": note, "title_fontsize": 8}
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(max(1, min(5, len(handles))), 0, -1):
        legend = figure.legend(ncols=columns, **look)
        if columns == 1 or legend.get_window_extent(renderer).width <= 0.97 * figure.bbox.width:
            return
        legend.remove()
