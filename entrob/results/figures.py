"""Figures of a finished run, drawn without a display and without global state.

Every function returns a `matplotlib.figure.Figure`; `save` writes it as PDF and PNG, the same bytes
for the same numbers.  A method keeps its color, marker and dashes in all of them.  Rates are drawn
as they are: the axis ends at 0 and 1, so a normal band that leaves [0, 1] leaves the panel, and no
number is clipped.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from entrob.results import paper, statistics, store
from entrob.results.tables import (
    at_headline,
    base_name,
    finished,
    headline_magnitude,
    is_variant,
    method_order,
    perturbation_order,
)

RC = {
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

COLORS = {"none": "#7a7a7a", "policy_entropy": "#e08a00", "state_entropy": "#0072b2"}
"""Fixed colors, told apart by the color-blind (after Okabe and Ito)."""

PALETTE = ("#009e73", "#cc79a7", "#56b4e9", "#b03a00", "#5b3a8c", "#a69b00")
"""Colors of further methods, in the order of the methods; it wraps around, markers do not."""

MARKERS = "osD^vPX<>*"

DASHES = {"[paper]": (0, (5, 2)), "[reference]": (0, (2, 1.2))}
"""Line styles of variants; any other bracket is dashed and dotted."""

UNITS = {
    "wall": "wall length (cells)",
    "random_walls": "blocked cells (count)",
    "goal_shift": "goal radius (cells, max norm)",
    "start_shift": "start radius (cells, max norm)",
    "elbow": "elbow size (cells)",
    "slip": "slip probability",
    "sticky_action": "repeat probability",
    "observation_dropout": "dropout probability",
}
"""What the magnitude of a perturbation measures."""


def style(method: str, methods: Sequence[str]) -> dict[str, object]:
    """Color, marker and line style of one method among all that are drawn.

    A variant takes the color and the marker of its base; it is dashed and its marker hollow.
    """
    bases = list(dict.fromkeys(base_name(name) for name in method_order(methods)))
    others = [name for name in bases if name not in COLORS]
    base = base_name(method)
    known = list(COLORS)
    rank = known.index(base) if base in COLORS else len(known) + others.index(base)
    color = COLORS.get(base) or PALETTE[others.index(base) % len(PALETTE)]
    bracket = method[len(base) :]
    dashes = DASHES.get(bracket, (0, (5, 1.5, 1, 1.5))) if is_variant(method) else "-"
    look = {"color": color, "marker": MARKERS[rank % len(MARKERS)], "linestyle": dashes}
    return look | ({"markerfacecolor": "white"} if is_variant(method) else {})


def label(name: str) -> str:
    """A method's or perturbation's name as text, safe from matplotlib's math mode."""
    text = name.replace("_", " ").replace("[", " (").replace("]", ")")
    return text.replace("$", r"\$")


def success_by_horizon(rows: pd.DataFrame) -> np.ndarray:
    """Fraction of episodes at the goal within h steps, h = 1..T: float[rows, T], from histograms.

    Args:
      rows: evaluation rows, with `steps_to_success` (T counts each) and `episodes`.
    """
    histograms = np.stack([np.asarray(steps, dtype=float) for steps in rows["steps_to_success"]])
    return np.cumsum(histograms, axis=1) / rows["episodes"].to_numpy(dtype=float)[:, None]


@matplotlib.rc_context(RC)
def figure4(
    runs: pd.DataFrame, curves: pd.DataFrame, evaluation: pd.DataFrame, level: float = 0.96
) -> Figure:
    """The paper's Fig. 4: nominal return while training, then success against every horizon.

    One panel per perturbation of the paper that was evaluated, at the paper's magnitude (or the
    largest there is), with mean and normal band over seeds; in the narrow axis beside it, the
    interquartile mean with its 95 % bootstrap interval at the last horizon.  Under each title is
    the order that the paper reports; it publishes no numbers to draw.  With one seed there are no
    bands.  While training, the mean is over the runs which finished an episode by then.

    Args:
      runs, curves, evaluation: tidy records; diverged runs are left out.
      level: of the normal bands; 0.96 is the paper's text, 0.95 its code.
    """
    methods = method_order(runs["method"])
    evaluation = finished(runs, evaluation)
    shown = [name for name in paper.MAGNITUDES if name in set(evaluation["perturbation"])]
    columns = 3
    lines = -(-(len(shown) + 2) // columns)  # one cell for training, one for the legend
    figure = Figure(figsize=(11.5, 3.3 * lines), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.07)
    cells = figure.add_gridspec(lines, 2 * columns, width_ratios=(5, 1) * columns)
    _training_panel(figure.add_subplot(cells[0, :2]), methods, finished(runs, curves), level)
    for i, name in enumerate(shown, start=1):
        line, column = divmod(i, columns)
        main = figure.add_subplot(cells[line, 2 * column])
        side = figure.add_subplot(cells[line, 2 * column + 1], sharey=main)
        rows = at_headline(evaluation, name)
        _horizon_panel(main, side, methods, rows, level)
        magnitude = headline_magnitude(evaluation, name)
        main.set_title(f"{label(name)}, magnitude {magnitude:g}\npaper: {paper.order(name)}")
    notes = [
        _counts(runs, evaluation[evaluation["perturbation"].isin(shown)]),
        f"lines: mean over seeds, shaded: normal {100 * level:g} % band",
        "points: interquartile mean, bars: 95 % bootstrap interval",
        "paper: its reported order; it prints no numbers for MiniGrid",
    ]
    line, column = divmod(len(shown) + 1, columns)
    last = figure.add_subplot(cells[line, 2 * column : 2 * column + 2])
    last.axis("off")
    handles = [_handle(method, methods, runs) for method in methods]
    many = len(handles) > 9
    legend = last.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.15, 1),
        handlelength=3,
        fontsize=6.5 if many else 8,
        labelspacing=0.2 if many else 0.5,
    )
    note = last.text(-0.13, 0, "\n".join(notes), fontsize=7.5, transform=last.transAxes)
    for artist in (legend, note):  # or the layout would shrink the panels of this line for them
        artist.set_in_layout(False)
    return figure


@matplotlib.rc_context(RC)
def robustness_curves(runs: pd.DataFrame, evaluation: pd.DataFrame, level: float = 0.96) -> Figure:
    """Success against magnitude: a row per perturbation; sampled, exact, CVaR 10 % and worst case.

    Lines are means over seeds with their normal band.  The exact columns come from dynamic
    programming and say so where it does not apply.
    """
    methods = method_order(runs["method"])
    evaluation = finished(runs, evaluation)
    names = perturbation_order(evaluation)
    panels = {
        "success": "success, sampled",
        "exact_success": "success, exact",
        "exact_cvar": "CVaR: worst 10 % of instances",
        "exact_worst": "worst instance",
    }
    figure = Figure(figsize=(11.5, 0.7 + 2.1 * max(1, len(names))), layout="constrained")
    axes = figure.subplots(
        max(1, len(names)), len(panels), sharex="row", sharey=True, squeeze=False
    )
    for row, name in zip(axes, names, strict=False):
        selected = evaluation[evaluation["perturbation"] == name]
        for axis, (column, title) in zip(row, panels.items(), strict=True):
            axis.set(xlabel=UNITS.get(name, "magnitude"), ylim=(0, 1))
            if axis in axes[0]:
                axis.set_title(title)
            known = selected.dropna(subset=[column])
            for method in methods:
                rows = known[known["method"] == method]
                _line(axis, *_over(rows, "magnitude", column, level), style(method, methods))
            if known.empty:
                axis.text(0.5, 0.5, "not computable", ha="center", transform=axis.transAxes)
        row[0].set_ylabel(f"{label(name)}\nsuccess rate")
    note = f"mean and normal {100 * level:g} % band over seeds"
    _legend_below(figure, methods, methods, runs, note)
    return figure


@matplotlib.rc_context(RC)
def occupancy_heatmaps(occupancies: Mapping[str, np.ndarray], walls: np.ndarray) -> Figure:
    """Where each method spends its steps: a panel per method over one shared color scale.

    The scale is a square root, so that rarely visited cells show.  The title gives the entropy
    -Σ p log p over cells, in nats.

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
    norm = PowerNorm(0.5, vmin=0, vmax=max(values.max() for values in shares.values()))
    colors = matplotlib.colormaps["viridis"].with_extremes(bad="0.25")
    for axis in axes[len(shares) :]:
        axis.axis("off")
    for axis, name in zip(axes, method_order(shares), strict=False):
        p = shares[name]
        # The first axis of an image runs down: y is it, x runs to the right.
        image = axis.imshow(np.ma.array(p, mask=walls).T, norm=norm, cmap=colors)
        visited = p[p > 0]
        entropy = max(0.0, -np.sum(visited * np.log(visited)))
        axis.set_title(f"{label(name)}\nentropy {entropy:.2f} nats")
        axis.set(xlabel="x (cells)", ylabel="y (cells)")
        axis.grid(False)
    figure.colorbar(image, ax=axes, label="share of steps (square-root scale)", shrink=0.85)
    return figure


@matplotlib.rc_context(RC)
def improvement_figure(improvements: pd.DataFrame) -> Figure:
    """Paired-by-seed probability of improvement: a panel per baseline, a row per perturbation.

    Args:
      improvements: from `tables.improvement_table`.
    """
    methods = method_order([*improvements["baseline"], *improvements["method"]])
    names = list(dict.fromkeys(improvements["perturbation"]))
    baselines = method_order(improvements["baseline"])
    figure = Figure(figsize=(9, 1.4 + 0.5 * max(3, len(names))), layout="constrained")
    axes = figure.subplots(1, max(1, len(baselines)), sharey=True, squeeze=False)[0]
    for axis, baseline in zip(axes, baselines, strict=False):
        selected = improvements[improvements["baseline"] == baseline]
        for method, rows in selected.groupby("method"):
            look = style(method, methods)
            place = rows["perturbation"].map(names.index).to_numpy(dtype=float)
            place += _offset(method, methods)
            middle, low, high = (
                rows[f"probability{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high")
            )
            _error_bars(axis, middle, place, (middle - low, high - middle), look, flat=True)
        axis.axvline(0.5, color="0.3", linewidth=0.8)
        axis.set(xlim=(-0.03, 1.03), xlabel=f"P(better than {label(baseline)}), paired by seed")
    axes[0].set_yticks(range(len(names)), [label(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    drawn = [name for name in methods if name in set(improvements["method"])]
    _legend_below(figure, drawn, methods, None, "bars: 95 % bootstrap interval over seeds")
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.pdf` and `name.png`, without dates, each whole or not at all.

    Raises:
      EntrobError: if a file cannot be written.
    """
    stamps = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    for suffix, metadata in stamps.items():
        sink = io.BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(sink, format=suffix, metadata=metadata)
        store.write_bytes(Path(folder) / f"{name}.{suffix}", sink.getvalue())


def _training_panel(axis: Axes, methods: Sequence[str], curves: pd.DataFrame, level: float) -> None:
    for method in methods:
        rows = curves[curves["method"] == method].dropna(subset=["return_mean"])
        x, mean, band = _over(rows, "frames", "return_mean", level)
        _line(axis, x / 1e6, mean, band, style(method, methods) | {"marker": ""})
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
        mean, band = statistics.normal_band(rates, level)
        _line(main, np.arange(1, rates.shape[1] + 1), mean, band, look | {"marker": ""})
        middle = statistics.interquartile_mean(rates[:, -1])
        low, high = statistics.bootstrap_interval(rates[:, -1], statistics.interquartile_mean)
        error = (np.array([middle - low]), np.array([high - middle]))
        place = np.array([_offset(method, methods)])
        _error_bars(side, place, np.array([middle]), error, look)
    main.set(xlim=(1, horizon), ylim=(0, 1), xlabel="horizon (steps)", ylabel="success rate")
    main.set_xticks([1, *np.arange(50, horizon + 1, 50)])
    side.set(xlim=(-0.5, 0.5), xticks=[], title=f"IQM at\nh = {horizon}")
    side.tick_params(left=False, labelleft=False)


def _over(
    rows: pd.DataFrame, by: str, column: str, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, means and half-widths of a column, over the runs at each value of `by`."""
    groups = rows.groupby(by)[column]
    found = [(x, *statistics.normal_band(values.to_numpy(), level)) for x, values in groups]
    return tuple(np.array(found, dtype=float).reshape(-1, 3).T)


def _line(axis: Axes, x: np.ndarray, mean: np.ndarray, band: np.ndarray, look: dict) -> None:
    # Not clipped, so that a mean at 0 or 1 keeps its whole width and marker.
    (line,) = axis.plot(x, mean, **look, clip_on=False)
    line.set_in_layout(False)
    axis.fill_between(x, mean - band, mean + band, color=look["color"], alpha=0.18, linewidth=0)


def _error_bars(
    axis: Axes, x: np.ndarray, y: np.ndarray, error: tuple, look: dict, flat: bool = False
) -> None:
    """Points with (below, above) bars, flat or upright."""
    # Rounding may put an interval of no width past its point; NaN, of one seed, is no bar.
    error = np.nan_to_num(np.maximum(error, 0))
    dashed = look["linestyle"] != "-"
    look = look | {"linestyle": ""}
    bars = axis.errorbar(
        x, y, **{"xerr" if flat else "yerr": error}, elinewidth=1.2, clip_on=False, **look
    )
    for bar in bars[2] if dashed else ():
        bar.set_linestyle((0, (2, 1)))


def _offset(method: str, methods: Sequence[str]) -> float:
    """Where a method stands within a row or column of width 1, so that bars do not overlap."""
    order = method_order(methods)
    return 0.7 * ((order.index(method) + 0.5) / len(order) - 0.5)


def _handle(method: str, methods: Sequence[str], runs: pd.DataFrame | None) -> Line2D:
    text = label(method)
    if runs is not None:
        status = runs.loc[runs["method"] == method, "status"]
        text += f", n = {int((status == 'finished').sum())} seeds"
        if diverged := int((status == "diverged").sum()):
            text += f" ({diverged} diverged, left out)"
    return Line2D([], [], label=text, **style(method, methods))


def _legend_below(
    figure: Figure,
    drawn: Sequence[str],
    methods: Sequence[str],
    runs: pd.DataFrame | None,
    note: str,
) -> None:
    handles = [_handle(method, methods, runs) for method in drawn]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(4, len(handles))),
        handlelength=3.5,
        title=note,
        title_fontsize=8,
    )


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
