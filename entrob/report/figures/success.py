"""Figures of success: over the horizon, the magnitudes, pairs of methods; and of occupancy.

Every function returns a `matplotlib.figure.Figure`, drawn without a display and without global
state; `drawing.save` writes it as PDF and PNG, the same bytes for the same numbers.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from entrob.report.figures.drawing import (
    RC,
    error_bars,
    handle,
    label,
    legend_below,
    line,
    offset,
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
    perturbation_order,
)
from entrob.statistics import aggregate, intervals

ROBUST = 0.98
"""Where the color scale of occupancies ends: this quantile of all cells of all panels."""


def success_by_horizon(rows: pd.DataFrame) -> np.ndarray:
    """Fraction of episodes at the goal within h steps, h = 1..T: float[rows, T], from histograms.

    Args:
      rows: evaluation rows, with `steps_to_success` (T counts each) and `episodes`.
    """
    histograms = np.stack([np.asarray(steps, dtype=float) for steps in rows["steps_to_success"]])
    return np.cumsum(histograms, axis=1) / rows["episodes"].to_numpy(dtype=float)[:, None]


@matplotlib.rc_context(RC)
def horizon_figure(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    evaluation: pd.DataFrame,
    paper: Paper,
    level: float = 0.96,
    variants: bool = False,
) -> Figure:
    """Nominal return while training, then success against every horizon, as in the paper's Fig. 4.

    One panel per perturbation of the paper that was evaluated (without such, per perturbation), at
    the paper's magnitude (or the largest there is), with mean and t band over seeds; in the
    narrow axis beside it, the interquartile mean with its 95 % bootstrap interval at the last
    horizon, and the paper's number where it reports one.  Under each title is the order that the
    paper reports.  With one seed there are no bands.  While training, the mean is over the runs
    which finished an episode by then.

    Args:
      runs, curves, evaluation: tidy records; diverged runs are left out.
      paper: the facts to quote.
      level: of the bands, which end at 0 and 1; the paper's own are normal ones.
      variants: also draw methods in brackets, which are beside the point that the figure makes.
    """
    methods = method_order(runs["method"], paper)
    if not variants:
        methods = [name for name in methods if not is_variant(name)] or methods
    evaluation = finished(runs, evaluation)
    shown = perturbation_order(evaluation, paper)
    if paper.magnitudes:
        shown = [name for name in shown if name in paper.magnitudes]
    columns = 3
    lines = -(-(len(shown) + 2) // columns)  # one cell for training, one for the legend
    # A line which holds the legend alone is lower.
    alone = (len(shown) + 1) % columns == 0
    heights = [3.3] * (lines - 1) + [max(1.2, 0.27 * len(methods)) if alone else 3.3]
    figure = Figure(figsize=(11.5, sum(heights)), layout=ConstrainedLayoutEngine(h_pad=0.07))
    cells = figure.add_gridspec(
        lines, 2 * columns, width_ratios=(5, 1) * columns, height_ratios=heights
    )
    _training_panel(figure.add_subplot(cells[0, :2]), methods, finished(runs, curves), level)
    for i, name in enumerate(shown, start=1):
        line, column = divmod(i, columns)
        main = figure.add_subplot(cells[line, 2 * column])
        side = figure.add_subplot(cells[line, 2 * column + 1], sharey=main)
        _horizon_panel(main, side, methods, at_headline(evaluation, name, paper), level)
        magnitude = headline_magnitude(evaluation, name, paper)
        order = f"\npaper: {paper.order(name)}" if paper.orders else ""
        main.set_title(f"{label(name)}, magnitude {magnitude:g}{order}")
        for method in methods if magnitude == paper.magnitudes.get(name) else ():
            if number := paper.number(method, name):
                color = style(method, methods)["color"]
                paper_mark(side, offset(method, methods) + 0.05, number, color, level)
    notes = [
        _counts(runs, evaluation[evaluation["perturbation"].isin(shown)]),
        f"lines: mean over seeds, shaded: {100 * level:g} % t interval",
        "points: interquartile mean, bars: 95 % bootstrap interval,",
        "none where seeds are fewer than six or alike",
    ]
    if paper.orders:
        notes += ["paper: its reported order" + ("" if paper.numbers else "; it prints no numbers")]
    if set(paper.conditions) & set(shown):
        notes += ["hollow diamonds: the paper's means with their normal bands"]
    line, column = divmod(len(shown) + 1, columns)
    last = figure.add_subplot(cells[line, 2 * column : 2 * column + 2])
    last.axis("off")
    handles = [handle(method, methods, runs) for method in methods]
    many = len(handles) > 9
    legend = last.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.15, 1),
        handlelength=3,
        fontsize=6.5 if many else 8,
        labelspacing=0.2 if many else 0.5,
    )
    x, y, align = (1.2, 0.97, "top") if alone else (-0.13, 0.0, "baseline")
    note = last.text(x, y, "\n".join(notes), fontsize=7.5, va=align, transform=last.transAxes)
    for artist in (legend, note):  # or the layout would shrink the panels of this line for them
        artist.set_in_layout(False)
    return figure


@matplotlib.rc_context(RC)
def robustness_curves(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float = 0.96
) -> Figure:
    """Success against magnitude: a row per perturbation; sampled, exact, CVaR 10 % and worst case.

    Lines are means over seeds with their t band, within [0, 1].  The exact columns come from
    dynamic programming; perturbations to which it does not apply have one panel each, side by side.
    Hollow diamonds are the paper's numbers.
    """
    methods = method_order(runs["method"], paper)
    evaluation = finished(runs, evaluation)
    names = perturbation_order(evaluation, paper)
    panels = {
        "success": "success, sampled",
        "exact_success": "success, exact",
        "exact_cvar": "CVaR: worst 10 % of instances",
        "exact_worst": "worst instance",
    }
    panels = {k: v for k, v in panels.items() if k == "success" or evaluation[k].notna().any()}
    known = {
        (name, column): evaluation[evaluation["perturbation"] == name].dropna(subset=[column])
        for name in names
        for column in panels
    }
    whole = [name for name in names if all(len(known[name, c]) for c in panels)]
    columns = len(panels) if len(panels) > 1 else 3 if len(names) in (3, 5, 6, 9) else 4
    cells = [(name, column) for name in whole for column in panels]
    # Where nothing is exact, the sampled panels stand side by side.
    cells += [(n, c) for n in names if n not in whole for c in panels if len(known[n, c])]
    lines = -(-max(1, len(cells)) // columns)
    figure = Figure(figsize=(11.5, 0.7 + 2.1 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis in axes.ravel()[len(cells) :]:
        axis.axis("off")
    for axis, (name, column) in zip(axes.ravel(), cells, strict=False):
        axis.set(xlabel=paper.unit(name), ylim=(0, 1))
        title = panels[column]
        if len(panels) == 1:
            axis.set_title(label(name))
        elif name not in whole:
            axis.set_title(f"{label(name)}: {title}")
        elif axis in axes[0]:
            axis.set_title(title)
        if axis in axes[:, 0]:
            row = f"{label(name)}\nsuccess rate" if name in whole else "success rate"
            axis.set_ylabel(row if len(panels) > 1 else title)
        for method in methods:
            rows = known[name, column][known[name, column]["method"] == method]
            line(axis, *over(rows, "magnitude", column, level, RATE), style(method, methods))
            number = paper.number(method, name) if column == "success" else None
            if number and not rows.empty:
                color = style(method, methods)["color"]
                paper_mark(axis, paper.magnitudes[name], number, color, level)
    note = f"mean and {100 * level:g} % t interval over seeds"
    more = [paper_handle("the paper")] if set(paper.conditions) & set(names) else []
    legend_below(figure, methods, methods, runs, note, more)
    return figure


@matplotlib.rc_context(RC)
def occupancy_heatmaps(
    occupancies: Mapping[str, np.ndarray], walls: np.ndarray, paper: Paper
) -> Figure:
    """Where each method spends its steps: a panel per method over one shared color scale.

    The scale is a square root, so that rarely visited cells show, and ends at a quantile over all
    panels, so that one cell where a single method waits does not darken the others.  The title
    gives the entropy -Σ p log p over cells, in nats.

    Args:
      occupancies: method -> float[W, H] by [x, y], counts or shares; each is normalized to 1.
      walls: bool[W, H] by [x, y], painted dark.
    """
    shares = {name: np.asarray(values, dtype=float) for name, values in occupancies.items()}
    shares = {name: values / values.sum() for name, values in shares.items()}
    columns = min(3, len(shares))
    lines = -(-len(shares) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.9, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    visits = np.concatenate([values[~np.asarray(walls)] for values in shares.values()])
    norm = PowerNorm(0.5, vmin=0, vmax=np.quantile(visits, ROBUST), clip=True)
    colors = matplotlib.colormaps["viridis"].with_extremes(bad="0.25")
    for axis in axes[len(shares) :]:
        axis.axis("off")
    for axis, name in zip(axes, method_order(shares, paper), strict=False):
        p = shares[name]
        # The first axis of an image runs down: y is it, x runs to the right.
        image = axis.imshow(np.ma.array(p, mask=walls).T, norm=norm, cmap=colors)
        visited = p[p > 0]
        entropy = max(0.0, -np.sum(visited * np.log(visited)))
        axis.set_title(f"{label(name)}\nentropy {entropy:.2f} nats")
        axis.set(xlabel="x (cells)", ylabel="y (cells)")
        axis.grid(False)
    text = "share of steps (square-root scale)"
    figure.colorbar(image, ax=axes, label=text, shrink=0.85, extend="max")
    return figure


@matplotlib.rc_context(RC)
def difference_figure(differences: pd.DataFrame, paper: Paper) -> Figure:
    """Paired difference in success: a panel per baseline, a row per perturbation.

    Args:
      differences: from `tables.difference_table`; what has no interval is a point alone.
    """
    methods = method_order([*differences["baseline"], *differences["method"]], paper)
    names = list(dict.fromkeys(differences["perturbation"]))
    baselines = method_order(differences["baseline"], paper)
    height = 1.4 + max(1.5, len(names) * max(0.5, 0.13 * len(methods)))
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(1, max(1, len(baselines)), sharey=True, squeeze=False)[0]
    for axis, baseline in zip(axes, baselines, strict=False):
        selected = differences[differences["baseline"] == baseline]
        for method, rows in selected.groupby("method"):
            look = style(method, methods)
            place = rows["perturbation"].map(names.index).to_numpy(dtype=float)
            place += offset(method, methods)
            middle, low, high = (
                rows[f"difference{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high")
            )
            error_bars(axis, middle, place, (middle - low, high - middle), look, flat=True)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set(xlim=(-1.03, 1.03), xlabel=f"success less that of {label(baseline)}")
    axes[0].set_yticks(range(len(names)), [label(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    drawn = [name for name in methods if name in set(differences["method"])]
    note = (
        "paired by seed; bars: 95 % bootstrap-t interval, none below six pairs or if all are alike"
    )
    legend_below(figure, drawn, methods, None, note)
    return figure


def _training_panel(axis: Axes, methods: Sequence[str], curves: pd.DataFrame, level: float) -> None:
    # Returns that all are a rate, as on grids, are one.
    bounds = RATE if curves["return_mean"].dropna().between(0, 1).all() else FREE
    for method in methods:
        rows = curves[curves["method"] == method].dropna(subset=["return_mean"])
        x, mean, low, high = over(rows, "frames", "return_mean", level, bounds)
        line(axis, x / 1e6, mean, low, high, style(method, methods) | {"marker": ""})
    axis.set(xlabel="training frames (millions)", ylabel="return per episode")
    axis.set_title("nominal, while training\n")
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))


def _horizon_panel(
    main: Axes, side: Axes, methods: Sequence[str], rows: pd.DataFrame, level: float
) -> None:
    horizon = 1
    for method in methods:
        selected = rows[rows["method"] == method]
        if selected.empty:
            continue
        look = style(method, methods)
        rates = success_by_horizon(selected)
        horizon = max(horizon, rates.shape[1])
        bands = intervals.t_interval(rates, level, bounds=RATE)
        line(main, np.arange(1, rates.shape[1] + 1), *bands, look | {"marker": ""})
        middle = aggregate.interquartile_mean(rates[:, -1])
        low, high = aggregate.bootstrap_interval(rates[:, -1], aggregate.interquartile_mean)
        error = (np.array([middle - low]), np.array([high - middle]))
        place = np.array([offset(method, methods)])
        error_bars(side, place, np.array([middle]), error, look)
    main.set(xlim=(1, horizon), ylim=(0, 1), xlabel="horizon (steps)", ylabel="success rate")
    step = 50 if horizon <= 200 else horizon // 4
    main.set_xticks([1, *np.arange(step, horizon + 1, step)])
    side.set(xlim=(-0.5, 0.5), xticks=[], title=f"IQM at\nh = {horizon}")
    side.tick_params(left=False, labelleft=False)


def _counts(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How many seeds and instances stand behind the panels, a range where they differ."""
    seeds = runs[runs["status"] == "finished"].groupby("method")["seed"].nunique()
    parts = (("seeds", seeds), ("instances", rows["instance_success"].map(len)))
    spans = [
        (name, f"{counts.min()}" if counts.nunique() == 1 else f"{counts.min()}–{counts.max()}")
        for name, counts in parts
        if len(counts)
    ]
    return "n = " + " × ".join(f"{span} {name}" for name, span in spans) if spans else "n = 0"
