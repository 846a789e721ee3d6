"""Where bodies went: traces of episodes over the scene they happened in, as in Fig. 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from entrob.perturbations.base import NOMINAL
from entrob.report.figures.drawing import RC, label, style
from entrob.report.paper import Paper
from entrob.report.tables import (
    at_headline,
    finished,
    headline_magnitude,
    method_order,
    nominal_scores,
    perturbation_order,
)

DRAWN = 50
"""Traces per panel."""

LONG = 4
"""From this ratio of the sides on, lengths along the two axes are not to one scale."""


@matplotlib.rc_context(RC)
def trajectories(
    runs: pd.DataFrame,
    evaluation: pd.DataFrame,
    traces: pd.DataFrame,
    paper: Paper,
    scenes: Mapping[str, Mapping[str, Any]] | None = None,
    axes_names: Sequence[str] = ("x", "y"),
) -> Figure | None:
    """A row per method, a column per condition: nominal, then the perturbations of the paper.

    Every panel holds up to `DRAWN` traces, taken from the seeds in turn, each with its start and
    its end, and says in how many of all the method's episodes it succeeded.  Without perturbations
    of the paper all that were traced are drawn; without a scene there are only traces.

    Args:
      runs, evaluation: tidy records; diverged runs are left out.
      traces: a row per run × instance, with `points` (x0, y0, x1, y1, …) in meters.
      paper: the facts that choose the conditions.
      scenes: by condition, ``magnitude``, ``blocks`` [n, 4] (x, y, half x, half y), ``goals``
        [m, 2] and the goals' ``radius``; all in meters.
      axes_names: what the two coordinates are.

    Returns:
      The figure, None if there is no trace.
    """
    traces, evaluation = finished(runs, traces), finished(runs, evaluation)
    columns = conditions(traces, paper)
    if not columns:
        return None
    methods = method_order(traces["method"], paper)
    scenes = scenes or {}
    low, high = limits([rows for *_, rows in columns], [scenes.get(c, {}) for c, *_ in columns])
    # Circles are round unless the track is so long that a panel would be a thread.
    ratio = (high - low)[0] / (high - low)[1]
    to_scale = 1 / LONG < ratio < LONG
    width = 2.1 * min(max(ratio, 0.7), 2.0) if to_scale else 3.5
    size = (0.8 + (width + 0.15) * len(columns), 0.6 + 2.2 * len(methods))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(methods), len(columns), sharex=True, sharey=True, squeeze=False)
    for row, method in zip(grid, methods, strict=True):
        color = style(method, methods)["color"]
        for axis, (condition, magnitude, rows) in zip(row, columns, strict=True):
            scene = scenes.get(condition, {})
            if np.isclose(scene.get("magnitude", np.nan), magnitude):
                _scene(axis, scene)
            paths = [path_of(points) for points in spread(rows[rows["method"] == method])]
            _paths(axis, paths, color)
            rate = success_of(runs, evaluation, method, condition, magnitude)
            axis.set_title(f"success {rate:.2f}" if np.isfinite(rate) else "", fontsize=8, pad=3)
            if axis in grid[-1]:
                axis.set_xlabel(f"{axes_names[0]} (m)")
        row[0].set_ylabel(f"{label(method)}\n{axes_names[1]} (m)")
    for axis, (condition, magnitude, _) in zip(grid[0], columns, strict=True):
        name = label(condition) + (f" {magnitude:g}" if condition != NOMINAL else "")
        axis.set_title(f"{name}\n{axis.get_title()}", fontsize=8)
    for axis in grid.ravel():
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axis.set_aspect("equal" if to_scale else "auto")
    figure.supxlabel(
        f"up to {DRAWN} episodes, open: start, filled: end; the view holds 99 % of all points\n"
        "success: mean over seeds and all episodes",
        fontsize=7.5,
    )
    return figure


def conditions(traces: pd.DataFrame, paper: Paper) -> list[tuple[str, float, pd.DataFrame]]:
    """Conditions with their magnitude and rows."""
    nominal = traces[traces["magnitude"] == 0].drop_duplicates(["run_id", "instance"])
    columns = [(NOMINAL, 0.0, nominal)] if len(nominal) else []
    others = traces[traces["magnitude"] != 0]
    names = perturbation_order(others, paper)
    for name in [n for n in names if n in paper.magnitudes] or names:
        magnitude = headline_magnitude(others, name, paper)
        columns.append((name, magnitude, at_headline(others, name, paper)))
    return columns


def spread(rows: pd.DataFrame) -> list[Any]:
    """The points of at most `DRAWN` episodes: one of every seed, then another one, and so on."""
    rows = rows.sort_values(["seed", "instance"])
    turn = rows.groupby("seed").cumcount()
    return list(rows.assign(turn=turn).sort_values(["turn", "seed"])["points"][:DRAWN])


def path_of(points: Any) -> np.ndarray:
    """Points (x0, y0, x1, y1, …) as float[n, 2]."""
    return np.asarray(points, dtype=float).reshape(-1, 2)


def _paths(axis: Axes, paths: Sequence[np.ndarray], color: str) -> None:
    axis.add_collection(LineCollection(paths, colors=color, linewidths=0.7, alpha=0.45, zorder=3))
    for at, fill in ((0, "white"), (-1, color)):
        x, y = np.array([path[at] for path in paths if len(path)]).reshape(-1, 2).T
        axis.scatter(x, y, s=9, facecolors=fill, edgecolors=color, linewidths=0.6, zorder=4)


def _scene(axis: Axes, scene: Mapping[str, Any]) -> None:
    """Blocks dark, goals green: a circle within which the puck has arrived, a point if many."""
    for x, y, half_x, half_y in scene.get("blocks", ()):
        corner, size = (x - half_x, y - half_y), (2 * half_x, 2 * half_y)
        axis.add_patch(Rectangle(corner, *size, facecolor="0.35", linewidth=0, zorder=2))
    goals = np.reshape(scene.get("goals", ()), (-1, 2))
    if len(goals) == 1:
        look = {"facecolor": "#b7e4c7", "edgecolor": "#2d6a4f", "linewidth": 0.8, "zorder": 1}
        axis.add_patch(Circle(goals[0], scene.get("radius", 0.0), **look))
    x, y = goals.T
    axis.scatter(x, y, s=8, marker="+", color="#2d6a4f", linewidths=0.7, zorder=2)


def limits(
    frames: Sequence[pd.DataFrame], scenes: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Corners [2], [2] around all that is in the scenes and 99 % of where the bodies were."""
    corners = [np.concatenate([path_of(p) for rows in frames for p in rows["points"]])]
    corners = [np.quantile(corners[0], [0.005, 0.995], axis=0)]
    for scene in scenes:
        goals = np.reshape(scene.get("goals", ()), (-1, 2))
        blocks = np.reshape(scene.get("blocks", ()), (-1, 4))
        reach = scene.get("radius", 0.0)
        corners += [goals - reach, goals + reach]
        corners += [blocks[:, :2] - blocks[:, 2:], blocks[:, :2] + blocks[:, 2:]]
    every = np.concatenate(corners)
    low, high = every.min(axis=0), every.max(axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-3)
    return low - margin, high + margin


def success_of(
    runs: pd.DataFrame, evaluation: pd.DataFrame, method: str, condition: str, magnitude: float
) -> float:
    """Mean success of a method under a condition, NaN if it was not tested."""
    if condition == NOMINAL:
        ids = runs.loc[runs["method"] == method, "run_id"]
        return float(nominal_scores(runs, evaluation)["success"].reindex(ids).mean())
    there = evaluation["perturbation"].eq(condition) & np.isclose(
        evaluation["magnitude"], magnitude
    )
    return float(evaluation.loc[there & evaluation["method"].eq(method), "success"].mean())
