"""What charts share: records, colors, hover, curves with bands, dots with intervals.

Colors that depend on light or dark (text, lines, the middle of a diverging scale) are the page's
and stand in ``page.js``; those of methods and families are legible on both.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from entrob.naming import Label
from entrob.report.figures.drawing import DASHES
from entrob.report.html.page import Legend, library
from entrob.report.markup import display
from entrob.report.tables import base_name, is_variant

GRAY = "#8a8f98"

COLORS = {"none": GRAY, "policy_entropy": "#e08a00", "state_entropy": "#2b8fd6"}
"""As in the figures, where those are legible on dark paper."""

PALETTE = ("#009e73", "#cc79a7", "#56b4e9", "#d0582a", "#9a78d3", "#a69b00", "#b8763f", "#4fb8a8")
"""Of further methods, in their order."""

DIGITS = 4
"""Significant digits of what a chart holds; tables and downloads have more."""


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON would have them: numbers to `DIGITS` significant digits, NaN as null."""
    names = [str(name) for name in frame]
    return [
        dict(zip(names, map(_plain, row), strict=True))
        for row in frame.itertuples(index=False, name=None)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return str(value)


def data(frame: pd.DataFrame) -> Any:
    """A frame as the data of a chart."""
    return library("altair").Data(values=records(frame))


def colors(methods: Sequence[str]) -> dict[str, str]:
    """A color per method; a variant has that of its base."""
    others = [m for m in dict.fromkeys(map(base_name, methods)) if m not in COLORS]
    bases = COLORS | {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(others)}
    return {method: bases[base_name(method)] for method in methods}


def legend(methods: Sequence[str]) -> Legend:
    """The methods' colors; variants have broken lines."""
    palette = colors(methods)
    sign = lambda method: "┅" if is_variant(method) else "━"
    return Legend(tuple((display(m), palette[m], sign(m)) for m in methods))


def color(methods: Sequence[str]) -> Any:
    """The color channel of a chart with a column ``method``, without a legend of its own."""
    alt, palette = library("altair"), colors(methods)
    scale = alt.Scale(domain=list(palette), range=list(palette.values()))
    return alt.Color("method:N", scale=scale, legend=None)


def dashes(methods: Sequence[str]) -> Any:
    """The channel that tells variants apart."""
    alt = library("altair")
    known = {"": [1, 0]} | {name: list(dash[1]) for name, dash in DASHES.items()}
    ranges = [known.get(Label.parse(method).variant, [5, 2, 1, 2]) for method in methods]
    scale = alt.Scale(domain=list(methods), range=ranges)
    return alt.StrokeDash("method:N", scale=scale, legend=None)


def interval_text(low: float, high: float, digits: int = 2) -> str:
    """An interval as it is read, "none" without one."""
    if low is None or high is None or not (np.isfinite(low) and np.isfinite(high)):
        return "none"
    return f"[{low:z.{digits}f}, {high:z.{digits}f}]"


def interval_texts(low: pd.Series, high: pd.Series, digits: int = 2) -> pd.Categorical:
    """`interval_text` of every row, for tables: sorted by the lower ends."""
    return ordered([interval_text(*ends, digits) for ends in zip(low, high, strict=True)], low)


def ordered(texts: Sequence[str], numbers: Iterable[float]) -> pd.Categorical:
    """Texts that a table sorts as the numbers that they show; NaN comes first."""
    numbers = np.nan_to_num(np.asarray(list(numbers), float), nan=-np.inf)
    order = sorted(zip(numbers, texts, strict=True))
    names = list(dict.fromkeys(text for _, text in order))
    return pd.Categorical(texts, names, ordered=True)


def with_interval(frame: pd.DataFrame, low: str, high: str, name: str = "interval") -> pd.DataFrame:
    """The frame with `interval_text` of two of its columns, for hover."""
    texts = [interval_text(a, b) for a, b in zip(frame[low], frame[high], strict=True)]
    return frame.assign(**{name: texts})


def hover(**titles: str) -> list[Any]:
    """Tooltips: column and type -> title, as ``price="Q:price"``; numbers get three digits."""
    alt = library("altair")
    found = []
    for column, text in titles.items():
        kind, _, title = text.partition(":")
        look = {"format": ".3~f"} if kind == "Q" else {"format": ".0%"} if kind == "P" else {}
        found.append(alt.Tooltip(f"{column}:{'Q' if kind in 'QP' else 'N'}", title=title, **look))
    return found


def hover_nearest(**titles: str) -> Any:
    """`hover` of marks with a selection of the nearest point.

    There the pointer is over a cell around the mark, and Vega-Lite looks for numbers in the mark
    but for words in the cell, where they are undefined.
    """
    parts = []
    for column, text in titles.items():
        kind, _, title = text.partition(":")
        value = f"(datum.datum || datum)[{json.dumps(column)}]"
        shown = f"isValid({value}) ? format({value}, '.3~f') : '–'" if kind == "Q" else value
        parts.append(f"{json.dumps(title)}: {shown}")
    return library("altair").value({"expr": f"{{{', '.join(parts)}}}"})


def spec(chart: Any, *, height: int | None = 220) -> dict[str, Any]:
    """A chart as wide as its place and so high, as Vega-Lite.

    ``None`` leaves the size to the chart.
    """
    if height is not None:
        chart = chart.properties(width="container", height=height)
    # Unchecked: checking a hundred charts against the schema takes a minute.
    found = chart.to_dict(validate=False)
    found.pop("config", None)  # the page's
    return found


def curves(
    rows: pd.DataFrame,
    methods: Sequence[str],
    *,
    x: tuple[str, str],
    y: tuple[str, str],
    bounds: tuple[float, float] | None = None,
    more: Iterable[Any] = (),
    points: bool = False,
) -> Any:
    """Means with their bands, a line per method; the nearest point shows its numbers.

    Args:
      rows: ``method``, the column of x, ``mean``, ``low``, ``high`` (NaN: no band).
      methods: all of the page, for their colors.
      x, y: column (of x) and title; title of y with its column's name for hover.
      bounds: of the y axis.
      more: layers on top.
      points: also mark every point.
    """
    alt = library("altair")
    rows = with_interval(rows, "low", "high")
    base = alt.Chart(data(rows))
    domain = {"scale": alt.Scale(domain=list(bounds))} if bounds else {}
    scale = alt.Scale(nice=False, zero=False)
    axis_x = alt.X(f"{x[0]}:Q", title=x[1], scale=scale, axis=alt.Axis(tickCount=5))
    axis_y = alt.Y("mean:Q", title=y[1], **domain)
    look = {"x": axis_x, "color": color(methods)}
    bands = []
    if rows.low.notna().any():
        band = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.16)
        bands = [band.encode(y=alt.Y("low:Q", title=y[1], **domain), y2="high:Q", **look)]
    line = base.mark_line(strokeWidth=1.8, interpolate="linear")
    line = line.encode(y=axis_y, strokeDash=dashes(methods), **look)
    near = alt.selection_point(
        name="near", on="pointerover", nearest=True, fields=[x[0], "method"], empty=False
    )
    titles = {
        "method": "N:method",
        x[0]: f"Q:{x[1]}",
        "mean": f"Q:{y[0]}",
        "interval": "N:interval",
    }
    titles |= {"seeds": "N:seeds"} if "seeds" in rows else {}
    dots = base.mark_circle(size=60).encode(
        y=axis_y,
        opacity=alt.condition(near, alt.value(1), alt.value(0.55 if points else 0)),
        size=alt.condition(near, alt.value(70), alt.value(22)),
        tooltip=hover_nearest(**titles),
        **look,
    )
    return alt.layer(*bands, line, dots.add_params(near), *more)


def dots(
    rows: pd.DataFrame,
    methods: Sequence[str],
    *,
    x: str,
    bounds: tuple[float, float] | None = None,
    seeds: pd.DataFrame | None = None,
    zero: bool = False,
    tooltips: Mapping[str, str] | None = None,
) -> Any:
    """A row per method: mean, interval, every seed as a small dot, the paper's number hollow.

    Args:
      rows: ``method``, ``mean``, ``low``, ``high``; perhaps ``paper``.
      methods: all of the page, for colors and order.
      x: title of the axis.
      bounds: of the axis.
      seeds: ``method``, ``seed``, ``score``.
      zero: draw a line at 0.
      tooltips: see `hover`; by default method, mean and interval.
    """
    alt = library("altair")
    rows = with_interval(rows, "low", "high")
    base = alt.Chart(data(rows))
    present = [m for m in methods if m in set(rows.method)]
    scale = {"scale": alt.Scale(domain=list(bounds))} if bounds else {}
    place = alt.Y("method:N", sort=present, title=None, axis=alt.Axis(labelLimit=150))
    titles = tooltips or {"method": "N:method", "mean": f"Q:{x}", "interval": "N:interval"}
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    bars = bars.encode(
        x=alt.X("low:Q", title=x, **scale), x2="high:Q", y=place, color=color(methods)
    )
    means = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("mean:Q", title=x, **scale), y=place, color=color(methods), tooltip=hover(**titles)
    )
    layers = [bars, means] if rows.low.notna().any() else [means]
    if seeds is not None:
        some = (
            alt.Chart(data(seeds))
            .mark_circle(size=14, opacity=0.45, yOffset=7)
            .encode(
                x=alt.X("score:Q", title=x, **scale),
                y=place,
                color=color(methods),
                tooltip=hover(method="N:method", seed="N:seed", score="Q:score"),
            )
        )
        layers.insert(0, some)
    if "paper" in rows and rows.paper.notna().any():
        theirs = base.transform_filter("isValid(datum.paper)")
        theirs = theirs.mark_point(shape="diamond", size=80, strokeWidth=1.6, yOffset=-6)
        layers.append(
            theirs.encode(
                x=alt.X("paper:Q", title=x, **scale),
                y=place,
                color=color(methods),
                tooltip=hover(method="N:method", paper="Q:the paper's"),
            )
        )
    if zero:
        rule = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=GRAY, strokeDash=[2, 2])
        layers.insert(0, rule.encode(x=alt.X("zero:Q", title=x)))
    return alt.layer(*layers)
