"""Figures over all conditions at once: success as bars beside the paper's numbers, and training."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from entrob.naming import Label
from entrob.perturbations.base import NOMINAL
from entrob.report.figures.drawing import (
    HATCHES,
    RC,
    fit_legend,
    handle,
    label,
    legend_below,
    line,
    over,
    paper_handle,
    paper_mark,
    style,
)
from entrob.report.paper import Paper
from entrob.report.tables import (
    FREE,
    RATE,
    at_headline,
    finished,
    headline_magnitude,
    is_variant,
    method_order,
    nominal_scores,
    perturbation_order,
)
from entrob.statistics import intervals

BARS = 36
"""At most this many bars in one line of the figure."""

CURVES = {
    "success": "success rate",
    "return_mean": "return per episode",
    "policy_entropy": "policy entropy (nats)",
    "bonus_mean": "bonus per step",
}
"""What is drawn against the frames of training."""


MARGIN = 0.05
"""By so much a "≥" of the paper may be missed."""


def verdict(relation: str, found: intervals.PairedDifference) -> str:
    """What a difference, first less second, says of the claim ``first RELATION second``.

    Args:
      relation: ">", "≥", "≫", or "" for none.
      found: the paired difference with its 95 % interval.

    Returns:
      "agrees" if the interval lies on the claimed side of 0 (for "≥", above -`MARGIN`),
      "disagrees" if it lies on the other, else "undecided", as without an interval; "no claim"
      without a relation.
    """
    if not relation:
        return "no claim"
    border = -MARGIN if relation == "≥" else 0.0
    if found.low > border:
        return "agrees"
    return "disagrees" if found.high < border else "undecided"


@matplotlib.rc_context(RC)
def bars(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float = 0.96
) -> Figure | None:
    """Success of every method: nominal, then under each perturbation at its headline magnitude.

    Bars are means over seeds with their t interval, within [0, 1]; every seed is a dot.  Beside
    each is what the paper reports, a hollow diamond with its own kind of band, the normal one
    that follows from its deviation and seeds.

    Args:
      runs, evaluation: tidy records; diverged runs are left out.
      paper: the facts to quote.
      level: of intervals and bands.

    Returns:
      The figure, None if no run was tested.
    """
    methods = method_order(runs["method"], paper)
    groups = {label(NOMINAL): (NOMINAL, _nominal(runs, evaluation))}
    for name in perturbation_order(evaluation, paper):
        rows = finished(runs, at_headline(evaluation, name, paper))[["method", "success"]]
        magnitude = headline_magnitude(evaluation, name, paper)
        there = np.isclose(magnitude, paper.magnitudes.get(name, magnitude))
        groups[f"{label(name)}\n{magnitude:g}"] = (name if there else "", rows)
    groups = {title: group for title, group in groups.items() if len(group[1])}
    if not groups:
        return None
    lines = -(-len(groups) // max(1, BARS // len(methods)))
    per_line = -(-len(groups) // lines)
    figure = Figure(figsize=(9.5, 0.9 + 2.5 * lines), layout="constrained")
    axes = figure.subplots(lines, 1, sharey=True, squeeze=False)[:, 0]
    for i, axis in enumerate(axes):
        some = dict(list(groups.items())[i * per_line : (i + 1) * per_line])
        for place, (condition, rows) in enumerate(some.values()):
            _group(axis, place, condition, rows, methods, paper, level)
        axis.set_xticks(range(len(some)), list(some), fontsize=8 if len(some) <= 8 else 7)
        axis.set(xlim=(-0.5, per_line - 0.5), ylim=(0, 1), ylabel="success rate")
        axis.grid(axis="x", visible=False)
        axis.tick_params(axis="x", length=0)
    notes = [f"bars: ours, mean and {100 * level:g} % t interval over seeds (dots)"]
    drawn = {condition for condition, _ in groups.values()} & set(paper.conditions)
    mark = [paper_handle("the paper, with its normal band")] if drawn else []
    handles = [_patch(method, methods, runs, paper) for method in methods]
    note = "; ".join([*notes, *_budget(runs, evaluation, paper)])
    fit_legend(figure, [*handles, *mark], note)
    return figure


@matplotlib.rc_context(RC)
def training(
    runs: pd.DataFrame, curves: pd.DataFrame, paper: Paper, level: float = 0.96
) -> Figure | None:
    """Success, return, policy entropy and bonus against the frames of training, as in Fig. 9.

    A panel per column of `CURVES` that was recorded; None if none was.  Lines are means over the
    runs which finished an episode by then (for success and return) with their t interval.
    """
    methods = method_order(runs["method"], paper)
    curves = finished(runs, curves)
    panels = [name for name in CURVES if name in curves and curves[name].notna().any()]
    if not panels:
        return None
    figure = Figure(figsize=(0.6 + 2.9 * len(panels), 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for method in methods:
            rows = curves[curves["method"] == method].dropna(subset=[name])
            bounds = RATE if name == "success" else FREE
            x, mean, low, high = over(rows, "frames", name, level, bounds)
            line(axis, x / 1e6, mean, low, high, style(method, methods) | {"marker": ""})
        axis.set(xlabel="training frames (millions)", title=CURVES[name])
        if name == "success":
            axis.set_ylim(0, 1)
    note = f"nominal, while training: mean and {100 * level:g} % t interval over seeds"
    legend_below(figure, methods, methods, runs, note)
    return figure


def _nominal(runs: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    scores = nominal_scores(runs, evaluation)
    return runs[["run_id", "method"]].merge(scores, left_on="run_id", right_index=True)


def _group(
    axis: Axes,
    place: int,
    condition: str,
    rows: pd.DataFrame,
    methods: Sequence[str],
    paper: Paper,
    level: float,
) -> None:
    """The bars of one condition around x = `place`; "" is a condition that the paper lacks."""
    width = 0.84 / len(methods)
    for i, method in enumerate(methods):
        x = place - 0.42 + (i + 0.5) * width
        scores = rows.loc[rows["method"] == method, "success"].to_numpy(dtype=float)
        if len(scores):
            mean, low, high = intervals.t_interval(scores, level, bounds=RATE)
            axis.bar(x, mean, 0.92 * width, **_fill(method, methods))
            # A line on top, which alone is there at 0.
            ends = [x - 0.46 * width, x + 0.46 * width]
            axis.plot(ends, [mean] * 2, color=style(method, methods)["color"], clip_on=False)
            if np.isfinite(low):
                spread = [[mean - low], [high - mean]]
                axis.errorbar(x, mean, yerr=spread, color="0.15", elinewidth=1.1)
            # Left of the middle and spread a little, so that seeds which are alike can be counted.
            beside = x + width * np.linspace(-0.34, -0.12, len(scores))
            dots: dict[str, Any]
            dots = {"s": 9, "color": "0.15", "edgecolor": "w", "lw": 0.4, "zorder": 3}
            axis.scatter(beside, np.sort(scores), clip_on=False, **dots)
        if number := paper.number(method, condition):
            # Right of the middle, so that the band of the bar stays visible.
            paper_mark(axis, x + 0.27 * width, number, style(method, methods)["color"], level)


def _fill(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """Color of a bar; a variant's is hatched."""
    look = {"facecolor": style(method, methods)["color"], "alpha": 0.75, "linewidth": 0}
    if not is_variant(method):
        return look
    return look | {"hatch": HATCHES.get(Label.parse(method).variant, "xx"), "edgecolor": "w"}


def _patch(method: str, methods: Sequence[str], runs: pd.DataFrame, paper: Paper) -> Patch:
    """The legend's entry of a method: how many seeds are ours and how many the paper's."""
    text = str(handle(method, methods, runs).get_label())
    counts = sorted({number.n for number in paper.numbers.get(method, {}).values()})
    if counts:
        span = "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        text += f"; paper {span if counts[0] else '?'}"
    return Patch(label=text, **_fill(method, methods))


def _budget(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> list[str]:
    """How much training and testing is behind the bars, and behind the paper's numbers."""
    frames = runs["frames"].max()
    ours = [f"{frames:,} frames", f"{evaluation['episodes'].max():,} episodes"]
    theirs = [("frames", paper.frames), ("episodes", paper.instances)]
    quoted = [f"{count:,} {name}" for name, count in theirs if count]
    text = f"each {' and '.join(ours)}"
    return [text + (f" (paper {' and '.join(quoted)})" if quoted else "")]
