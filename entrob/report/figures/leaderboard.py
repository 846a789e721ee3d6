"""The board's figures: gains under every perturbation, price against recovery, frontiers."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from entrob.naming import BASELINE
from entrob.report.figures.drawing import RC, fit_legend, label
from entrob.statistics.board import CLASSES, Board

FAMILIES = {
    "losses": ("loss terms", "#e69f00", "o"),
    "shaping": ("shaped advantages", "#cc79a7", "s"),
    "temperature": ("temperatures", "#009e73", "^"),
    "intrinsic": ("intrinsic rewards", "#0072b2", "D"),
    "others": ("others", "#56b4e9", "v"),
    "controls": ("controls", "#1a1a1a", "x"),
    "adversaries": ("adversaries", "#b03a00", "P"),
    "tested only": ("tested only", "#b8a1ff", "h"),
}
"""Display name, color (told apart by the color-blind, after Okabe and Ito) and marker."""

LINEAR = 0.005
"""Prices well below this are drawn to a linear scale, well above to a logarithmic one."""

PRICES = (-1, -0.3, -0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1)
"""Those named on that scale; 3 % is what tuning allows."""

CERTAIN = "its simultaneous 95 % interval excludes 0"

NAMED = 4
"""At most this many points of a panel's front have their names beside them."""


def _place(family: str) -> int:
    return list(FAMILIES).index(family if family in FAMILIES else "others")


def family_order(families: pd.Series) -> list[str]:
    """Families that occur, in the order of `FAMILIES`."""
    return [name for name in FAMILIES if name in set(families)]


@matplotlib.rc_context(RC)
def gains_figure(gains: pd.DataFrame, board: Board) -> Figure:
    """Which method helps against what: paired gain of methods × perturbations over `none`.

    Rows are grouped by family, best mean first, columns by class.  Blue is better than `none`, red
    worse.  A dot: the cell's simultaneous 95 % interval excludes 0.  Hatched: `none` loses nothing
    under this perturbation.  Gray: the method lacks one of the perturbation's tasks.

    Args:
      gains: `recovery.perturbation_gains`.
      board: whose families order the rows.
    """
    columns = gains.drop_duplicates("perturbation")
    families = {method: board.family(method) for method in gains.method.unique()}
    means = gains.groupby("method").gain.mean()
    order = sorted(families, key=lambda m: (_place(families[m]), -np.nan_to_num(means[m])))
    table = gains.pivot(index="method", columns="perturbation", values="gain")
    table = table.loc[order, columns.perturbation].to_numpy(dtype=float)
    size = max(0.1, float(np.nanquantile(np.abs(table), 0.98)) if np.isfinite(table).any() else 0)
    height = 0.185 * len(order)
    figure = Figure(figsize=(3.9 + 0.36 * len(columns), 2.6 + height), layout="constrained")
    axis = figure.subplots()
    colors = matplotlib.colormaps["RdBu"].with_extremes(bad="0.8")
    image = axis.imshow(table, cmap=colors, vmin=-size, vmax=size, aspect="auto")
    for j, kept in enumerate(columns.kept):
        if not kept:
            box = (j - 0.5, -0.5), 1, len(order)
            axis.add_patch(Rectangle(*box, fill=False, hatch="////", ec="0.45", lw=0))
    certain = gains[gains.differs]
    x = certain.perturbation.map({name: j for j, name in enumerate(columns.perturbation)})
    y = certain.method.map({name: i for i, name in enumerate(order)})
    axis.plot(x, y, "o", color="k", mec="w", mew=0.4, ms=3.6, ls="")
    axis.set_xticks(
        range(len(columns)), [label(name) for name in columns.perturbation], rotation=90
    )
    axis.set_yticks(range(len(order)), [label(name) for name in order])
    axis.tick_params(length=0, labelsize=7.5)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    _separate(axis, [families[m] for m in order], list(columns["class"]))
    bar = figure.colorbar(image, ax=axis, extend="both", shrink=min(1.0, 2.6 / height), aspect=18)
    bar.set_label("gain in score over none, paired by seed")
    handles = [
        Line2D([], [], ls="", marker="o", color="k", ms=4, label=CERTAIN),
        Patch(fc="w", ec="0.45", hatch="////", label="none loses nothing here"),
        Patch(fc="0.8", label="lacks one of the tasks"),
    ]  # fmt: skip
    fit_legend(figure, handles)
    return figure


def _separate(axis: Axes, families: list[str], classes: list[str]) -> None:
    """White lines between groups; families named on the right, classes above."""
    for groups, rule in ((families, axis.axhline), (classes, axis.axvline)):
        for i in range(1, len(groups)):
            if groups[i] != groups[i - 1]:
                rule(i - 0.5, color="w", lw=3)
    for name in dict.fromkeys(families):
        at = [i for i, other in enumerate(families) if other == name]
        place: dict[str, Any]
        place = {"transform": axis.get_yaxis_transform(), "va": "center", "ha": "left"}
        text = FAMILIES[name][0].replace(" ", "\n") if len(at) > 1 else FAMILIES[name][0]
        axis.text(1.015, float(np.mean(at)), text, fontsize=7, **place)
    for name in dict.fromkeys(classes):
        at = [i for i, other in enumerate(classes) if other == name]
        place = {"transform": axis.get_xaxis_transform(), "va": "bottom", "ha": "left"}
        axis.text(float(np.mean(at)) - 0.25, 1.01, name, fontsize=7.5, rotation=40, **place)


def stretched(price: Any) -> np.ndarray:
    """Where a price stands on its axis, see `LINEAR`.

    A method that gives up nearly all must not press the others, around a hundredth, into a line.
    """
    return np.sign(price) * np.log1p(np.abs(price) / LINEAR)


def unstretched(place: Any) -> np.ndarray:
    """The price that stands there, the inverse of `stretched`."""
    return np.sign(place) * LINEAR * np.expm1(np.abs(place))


@matplotlib.rc_context(RC)
def price_figure(ranks: pd.DataFrame, classes: pd.DataFrame) -> Figure:
    """Price against recovered share: a panel for all classes, then one per class.

    Bars are 95 % bootstrap-t intervals, each for itself; the line is the Pareto front of a panel,
    from `none`, the ranked methods and those which only lack tasks.  The front's methods are named.

    Args:
      ranks, classes: `recovery.ranking` and `recovery.classes_table`.
    """
    spread = classes.pivot(index="method", columns="class", values=["share_low", "share_high"])
    panels = {"all classes": "overall"} | {name: name for name in CLASSES if name in ranks}
    width = min(4, len(panels))
    lines = -(-len(panels) // width)
    figure = Figure(figsize=(2.9 * width, 0.9 + 2.7 * lines), layout="constrained")
    axes = figure.subplots(lines, width, squeeze=False).ravel()
    families = family_order(ranks.family)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, column) in zip(axes, panels.items(), strict=False):
        rows = ranks[ranks[column].notna() & ranks.price.notna()]
        if column == "overall":
            low, high = rows.overall_low, rows.overall_high
        else:
            low, high = (
                rows.method.map(spread[end].get(column)) for end in ("share_low", "share_high")
            )
        rows = rows.assign(share=rows[column], low=low, high=high)
        for family in families:
            _points(axis, rows[rows.family == family], *FAMILIES[family][1:])
        axis.plot(0, 0, "*", color="k", ms=9, zorder=5)
        axis.axhline(0, color="0.4", lw=0.7, zorder=0)
        axis.axvline(0, color="0.4", lw=0.7, zorder=0)
        axis.set_xscale("function", functions=(stretched, unstretched))
        left, right = axis.get_xlim()
        # Only powers of ten have room below a panel.
        named = [price for price in PRICES if abs(price) not in (0.03, 0.3)]
        axis.set_xticks([price for price in named if left <= price <= right])
        axis.set_xticks([], minor=True)
        _front(axis, rows[~rows.family.isin(["controls"])])
        axis.set_title(title)
        axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    for axis in axes[: len(panels)][-width:]:
        axis.set_xlabel("price (share of nominal score)")
    for axis in axes[::width]:
        axis.set_ylabel("recovered share R")
    handles = [
        Line2D([], [], ls="", marker=FAMILIES[f][2], color=FAMILIES[f][1], label=FAMILIES[f][0])
        for f in families
    ]
    handles += [
        Line2D([], [], ls="", marker="*", color="k", ms=9, label="none"),
        Line2D([], [], color="k", lw=1, label="Pareto front, without controls"),
    ]
    fit_legend(figure, handles, "bars: 95 % bootstrap-t intervals, each for itself")
    return figure


def _points(axis: Axes, rows: pd.DataFrame, color: str, marker: str) -> None:
    """Means with their intervals both ways; what has no interval has no bar."""
    gap = lambda a, b: np.nan_to_num(np.maximum((a - b).to_numpy(dtype=float), 0))
    axis.errorbar(
        rows.price,
        rows.share,
        xerr=[gap(rows.price, rows.price_low), gap(rows.price_high, rows.price)],
        yerr=[gap(rows.share, rows.low), gap(rows.high, rows.share)],
        fmt="none",
        ecolor=color,
        elinewidth=0.7,
        alpha=0.3,
    )
    axis.plot(rows.price, rows.share, ls="", marker=marker, color=color, ms=4.5)
    # Bars of a few wild methods must not press all others into a corner.
    axis.margins(0.12)


def _front(axis: Axes, rows: pd.DataFrame) -> None:
    """The Pareto front as steps, cheapest first, its methods named without covering each other."""
    chosen: list[Any] = []
    best = -np.inf
    for row in rows.sort_values(["price", "share"], ascending=[True, False]).itertuples():
        if row.share > best:
            chosen, best = [*chosen, row], row.share
    axis.step([r.price for r in chosen], [r.share for r in chosen], "k", where="post", lw=1)
    low, high = axis.get_ylim()
    # From the top down, each at least a line's height below the one before.
    step, last = 0.065 * (high - low), np.inf
    left, right = stretched(axis.get_xlim())
    named = [row for row in chosen if row.method != BASELINE][-NAMED:]
    for row in sorted(named, key=lambda r: -r.share):
        last = min(row.share, last - step)
        flip = stretched(row.price) > left + 0.5 * (right - left)
        beside = stretched(row.price) + (-0.03 if flip else 0.03) * (right - left)
        axis.annotate(
            label(row.method),
            (row.price, row.share),
            (float(unstretched(beside)), last),
            fontsize=6.5,
            bbox={"fc": "w", "ec": "none", "alpha": 0.75, "pad": 0.6},
            ha="right" if flip else "left",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.4", "shrinkB": 2},
        )
    axis.set(xlim=unstretched((left, right)), ylim=(min(low, last - step), high))


def frontier_points(board: Board) -> pd.DataFrame:
    """Price and recovered share of every tried coefficient, means over tuning seeds and tasks.

    Returns:
      ``method``, ``step`` (place of the coefficient on its task's grid), ``price``, ``share`` (mean
      over classes), ``chosen`` (share of the tasks that took it); empty if tuning runs were not
      tested under perturbations.
    """
    tuning = board.tuning
    present = [name for name in CLASSES if name in tuning and tuning[name].notna().any()]
    columns = ["method", "step", "price", "share", "chosen"]
    if not present:
        return pd.DataFrame(columns=columns)
    base = tuning[tuning.method == BASELINE].groupby("task").nominal.mean()
    rows = tuning[tuning.method != BASELINE].copy()
    base = rows.task.map(base)
    rows["price"] = (base - rows.nominal) / base
    rows["step"] = rows.groupby(["task", "method"]).coefficient.rank("dense").astype(int)
    rows["share"] = rows[present].mean(axis=1)
    per_task = rows.groupby(["method", "task", "step"], sort=False)
    per_task = per_task[["price", "share", "chosen"]].mean().dropna()
    return per_task.groupby(["method", "step"], sort=False).mean().reset_index()[columns]


def tuning_seeds(tuning: pd.DataFrame) -> str:
    """How many seeds a frontier rests on: "tuning seeds: 2 of every value, 10 of none".

    Args:
      tuning: rows of `Board.tuning`; a span where tasks or values have different numbers.
    """
    own = tuning.method == BASELINE
    key = ["task", "method", "coefficient"]
    spans = []
    for rows in (tuning[~own], tuning[own]):
        low, high = rows.groupby(key).seed.nunique().agg(["min", "max"])
        spans.append(f"{low}" if low == high else f"{low}–{high}")
    return f"tuning seeds: {spans[0]} of every value, {spans[1]} of {BASELINE}"


@matplotlib.rc_context(RC)
def frontier_figure(board: Board) -> Figure | None:
    """What tuning shows: price against recovered share along every method's coefficients.

    A panel per method; its line joins the coefficients from the smallest on, the filled point is
    where most tasks chose; other methods in gray.  No intervals, which so few seeds cannot give.
    None if tuning runs were not tested under perturbations.
    """
    points = frontier_points(board)
    if points.empty:
        return None
    families = {m: board.family(m) for m in points.method.unique()}
    order = sorted(families, key=lambda m: (_place(families[m]), m))
    width = min(7, len(order))
    lines = -(-len(order) // width)
    figure = Figure(figsize=(1.65 * width + 0.5, 1.55 * lines + 0.9), layout="constrained")
    axes = figure.subplots(lines, width, squeeze=False, sharex=True, sharey=True).ravel()
    groups = {method: group.sort_values("step") for method, group in points.groupby("method")}
    for axis in axes[len(order) :]:
        axis.set_visible(False)
    for axis, method in zip(axes, order, strict=False):
        for other in order:
            axis.plot(groups[other].price, groups[other].share, color="0.85", lw=0.6, zorder=0)
        _, color, _ = FAMILIES[families[method]]
        own = groups[method]
        axis.plot(own.price, own.share, "o-", color=color, mfc="w", ms=3.5, lw=1.2)
        taken = own.loc[own.chosen.idxmax()]
        if taken.chosen > 0:
            axis.plot(taken.price, taken.share, "o", color=color, ms=5.5)
        axis.axvline(0.03, color="0.4", lw=0.6, ls=":")
        axis.axhline(0, color="0.4", lw=0.6)
        axis.set_title(label(method), fontsize=7.5)
        axis.tick_params(labelsize=7)
    low, high = np.quantile(points.price, [0, 0.9])
    axes[0].set_xlim(min(low, -0.02) - 0.02, max(high, 0.1) + 0.05)
    axes[0].xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    # A label of the whole figure would lie under the legend.
    for axis in axes[max(0, len(order) - width) : len(order)]:
        axis.set_xlabel("price", fontsize=8)
        axis.tick_params(labelbottom=True)
    figure.supylabel("recovered share R, mean over classes", fontsize=9)
    handles = [
        Line2D([], [], color=FAMILIES[f][1], marker="o", mfc="w", label=FAMILIES[f][0])
        for f in family_order(pd.Series(families))
    ]
    handles += [
        Line2D([], [], ls="", color="k", marker="o", label="chosen"),
        Line2D([], [], color="0.4", ls=":", label="3 %, what tuning allows"),
    ]
    note = f"price is the share of the nominal score; {tuning_seeds(board.tuning)}; no intervals"
    fit_legend(figure, handles, note)
    return figure
