"""Charts of one experiment, from its records: training, horizons, magnitudes, places and paths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from entrob.perturbations.base import NOMINAL
from entrob.report.figures.comparison import CURVES
from entrob.report.figures.drawing import over
from entrob.report.figures.success import success_by_horizon
from entrob.report.figures.trajectories import conditions, limits, path_of, spread, success_of
from entrob.report.html import charts
from entrob.report.html.page import Chart, Slid, library
from entrob.report.markup import display
from entrob.report.paper import Paper
from entrob.report.tables import (
    FREE,
    RATE,
    at_headline,
    finished,
    headline_magnitude,
    method_order,
    nominal_scores,
    perturbation_order,
)
from entrob.statistics import intervals

POINTS = 40
"""Of a path, and steps of a horizon's curve: more are not to be seen."""


def _summaries(
    rows: pd.DataFrame, by: str, column: str, level: float, bounds: tuple[float, float]
) -> pd.DataFrame:
    """Mean and t interval over runs of a column, for every method and value of `by`."""
    parts = []
    for method, own in rows.groupby("method", sort=False):
        x, mean, low, high = over(own.dropna(subset=[column]), by, column, level, bounds)
        part = pd.DataFrame({by: x, "mean": mean, "low": low, "high": high})
        parts.append(part.assign(method=method, seeds=own.run_id.nunique()))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def headline_charts(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float
) -> list[Chart]:
    """Success of every method under every condition: mean, interval, seeds, the paper's number."""
    methods = method_order(runs["method"], paper)
    nominal = nominal_scores(runs, evaluation).success
    rows = runs[["run_id", "method", "seed"]].assign(success=runs.run_id.map(nominal)).dropna()
    found = [(NOMINAL, display(NOMINAL), rows)]
    for name in perturbation_order(evaluation, paper):
        magnitude = headline_magnitude(evaluation, name, paper)
        there = np.isclose(magnitude, paper.magnitudes.get(name, np.nan))
        rows = finished(runs, at_headline(evaluation, name, paper))
        order = f"; paper: {paper.order(name)}" if there and name in paper.orders else ""
        found.append((name if there else "", f"{display(name)} {magnitude:g}{order}", rows))
    drawn = []
    for condition, title, rows in found:
        if rows.empty:
            continue
        table = []
        for method, own in rows.groupby("method", sort=False):
            mean, low, high = intervals.t_interval(own.success.to_numpy(float), level, bounds=RATE)
            number = paper.number(str(method), condition)
            theirs = number.mean if number else np.nan
            table.append((method, mean, low, high, len(own), theirs))
        frame = pd.DataFrame(table, columns=["method", "mean", "low", "high", "seeds", "paper"])
        seeds = rows[["method", "seed"]].assign(score=rows.success)
        titles = {"method": "N:method", "mean": "Q:success", "interval": "N:interval"}
        titles |= {"seeds": "N:seeds", "paper": "Q:the paper's"}
        chart = charts.dots(
            frame, methods, x="success rate", bounds=RATE, seeds=seeds, tooltips=titles
        )
        drawn.append(Chart(charts.spec(chart, height=26 + 26 * len(frame)), title))
    return drawn


def claim_chart(claims: pd.DataFrame) -> Chart:
    """Every pair that the paper orders: our paired difference, its interval, and the verdict.

    Args:
      claims: `entrob.report.experiment.paper_table`.
    """
    alt = library("altair")
    rows = charts.with_interval(claims, "difference_low", "difference_high")
    names = [
        f"{display(r.perturbation)}: {display(r.first)} {r.claim} {display(r.second)}"
        for r in rows.itertuples()
    ]
    rows = rows.assign(pair=names)
    base = alt.Chart(charts.data(rows))
    title = "success of the first less that of the second"
    place = alt.Y("pair:N", sort=names, title=None, axis=alt.Axis(labelLimit=330))
    verdicts = {"agrees": "#2a9d5c", "undecided": "#c48a00", "disagrees": "#d1495b"}
    verdicts |= {"no claim": charts.GRAY}
    hue = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=list(verdicts), range=list(verdicts.values())),
        legend=alt.Legend(orient="top", title=None),
    )
    bars = base.transform_filter("isValid(datum.difference_low)").mark_rule(strokeWidth=2)
    bars = bars.encode(
        x=alt.X("difference_low:Q", title=title), x2="difference_high:Q", y=place, color=hue
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("difference:Q", title=title),
        y=place,
        color=hue,
        tooltip=charts.hover(
            **{"perturbation": "N:perturbation", "paper": "N:the paper's order", "pair": "N:claim"},
            **{"difference": "Q:ours", "interval": "N:95 %", "pairs": "N:pairs"},
            **{"verdict": "N:verdict"},
        ),
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=charts.GRAY)
    layers = [bars, points] if rows.difference_low.notna().any() else [points]
    chart = alt.layer(zero.encode(x=alt.X("zero:Q", title=title)), *layers)
    chart = chart.properties(width=480, height=18 * len(rows))
    return Chart(charts.spec(chart, height=None), "Claims of the paper", fixed=True)


def horizon_charts(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float
) -> list[Chart]:
    """Success within so many steps, a chart per perturbation, as in the paper's figure."""
    methods = method_order(runs["method"], paper)
    evaluation = finished(runs, evaluation)
    names = perturbation_order(evaluation, paper)
    drawn = []
    for name in [n for n in names if n in paper.magnitudes] or names:
        rows = at_headline(evaluation, name, paper)
        if rows.empty:
            continue
        rates = success_by_horizon(rows)
        length = rates.shape[1]
        steps = np.unique(np.linspace(1, length, min(length, POINTS)).round().astype(int))
        parts = []
        for method in methods:
            own = (rows.method == method).to_numpy()
            if not own.any():
                continue
            mean, low, high = intervals.t_interval(rates[own][:, steps - 1], level, bounds=RATE)
            part = pd.DataFrame({"steps": steps, "mean": mean, "low": low, "high": high})
            parts.append(part.assign(method=method, seeds=int(own.sum())))
        chart = charts.curves(
            pd.concat(parts),
            methods,
            x=("steps", "horizon (steps)"),
            y=("success", "success rate"),
            bounds=RATE,
        )
        magnitude = headline_magnitude(evaluation, name, paper)
        order = f"; paper: {paper.order(name)}" if paper.orders else ""
        drawn.append(Chart(charts.spec(chart), f"{display(name)} {magnitude:g}{order}"))
    return drawn


def training_charts(
    runs: pd.DataFrame, curves: pd.DataFrame, paper: Paper, level: float
) -> list[Chart]:
    """Success, return, policy entropy and bonus against the frames of training."""
    methods = method_order(runs["method"], paper)
    curves = finished(runs, curves) if len(curves) else curves
    drawn = []
    for name, title in CURVES.items():
        if name not in curves or not curves[name].notna().any():
            continue
        bounds = RATE if name == "success" else None
        rows = _summaries(curves, "frames", name, level, bounds or FREE)
        rows["frames"] = rows.frames / 1e6
        chart = charts.curves(
            rows,
            methods,
            x=("frames", "frames (millions)"),
            y=(title, title),
            bounds=bounds,
        )
        drawn.append(Chart(charts.spec(chart), title))
    return drawn


def progress_charts(runs: pd.DataFrame, progress: pd.DataFrame, paper: Paper) -> list[Chart]:
    """Success of the policies of earlier frames: the mean over runs, and every run."""
    progress = finished(runs, progress) if len(progress) else progress
    if not len(progress):
        return []
    alt, methods = library("altair"), method_order(progress["method"], paper)
    panels = list(progress.groupby(["perturbation", "magnitude"], sort=False))
    panels.sort(key=lambda panel: panel[0][0] != NOMINAL)
    drawn = []
    for (condition, magnitude), rows in panels:
        rows = rows[["method", "run_id", "seed", "frames", "success"]]
        rows = rows.assign(frames=rows.frames / 1e6)
        mean = rows.groupby(["method", "frames"], sort=False).success.mean().reset_index()
        mean = mean.rename(columns={"success": "mean"}).assign(low=np.nan, high=np.nan)
        thin = alt.Chart(charts.data(rows)).mark_line(strokeWidth=0.8, opacity=0.5)
        thin = thin.encode(
            x=alt.X("frames:Q"),
            y=alt.Y("success:Q"),
            detail="run_id:N",
            color=charts.color(methods),
        )
        chart = charts.curves(
            mean,
            methods,
            x=("frames", "frames (millions)"),
            y=("success", "success rate"),
            bounds=RATE,
            more=[thin] if rows.run_id.nunique() > mean.method.nunique() else (),
        )
        at = "" if condition == NOMINAL else f" {magnitude:g}"
        drawn.append(Chart(charts.spec(chart), f"{display(str(condition))}{at}"))
    return drawn


def robustness_charts(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float
) -> list[Slid]:
    """Success against the magnitude of a perturbation; a slider reads all methods off at one."""
    alt, methods = library("altair"), method_order(runs["method"], paper)
    evaluation = finished(runs, evaluation)
    drawn = []
    for name in perturbation_order(evaluation, paper):
        rows = evaluation[evaluation.perturbation == name]
        table = _summaries(rows, "magnitude", "success", level, RATE)
        magnitudes = sorted(table.magnitude.unique())
        if len(magnitudes) < 2:
            continue
        place = table.magnitude.map({m: i for i, m in enumerate(magnitudes)})
        table = table.assign(place=place)
        headline = headline_magnitude(rows, name, paper)
        start = int(np.argmin(np.abs(np.array(magnitudes) - headline)))
        chosen = alt.param(name="place", value=start)
        ruled = pd.DataFrame({"magnitude": magnitudes, "place": range(len(magnitudes))})
        rule = alt.Chart(charts.data(ruled)).transform_filter("datum.place == place")
        rule = rule.mark_rule(color=charts.GRAY, strokeDash=[3, 2], strokeWidth=1.5)
        unit = paper.unit(name)
        lines = charts.curves(
            table,
            methods,
            x=("magnitude", unit),
            y=("success", "success rate"),
            bounds=RATE,
            more=[rule.encode(x=alt.X("magnitude:Q", title=unit))],
            points=True,
        )
        lines = lines.add_params(chosen)
        at = charts.dots(table, methods, x="success rate", bounds=RATE)
        at = at.transform_filter("datum.place == place").add_params(chosen)
        both = (
            Chart(charts.spec(lines, height=180)),
            Chart(charts.spec(at, height=24 + 20 * table.method.nunique())),
        )
        places = tuple(f"{m:g}" for m in magnitudes)
        drawn.append(Slid(both, display(name), places, "magnitude", start))
    return drawn


def occupancy_charts(
    occupancies: Mapping[str, np.ndarray], walls: np.ndarray, paper: Paper
) -> list[Chart]:
    """Share of steps in every cell, a chart per method over one scale (a square root)."""
    alt = library("altair")
    shares = {name: np.asarray(x, float) / np.sum(x) for name, x in occupancies.items()}
    largest = max(float(np.quantile(p[~np.asarray(walls)], 0.98)) for p in shares.values())
    drawn = []
    for name in method_order(shares, paper):
        p = shares[name]
        x, y = np.indices(p.shape)
        rows = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "share": p.ravel()})
        rows = rows.assign(wall=np.asarray(walls).ravel())
        base = alt.Chart(charts.data(rows))
        place = {
            "x": alt.X("x:O", axis=alt.Axis(title=None, labels=False, ticks=False, domain=False)),
            "y": alt.Y("y:O", axis=alt.Axis(title=None, labels=False, ticks=False, domain=False)),
        }
        scale = alt.Scale(type="sqrt", scheme="viridis", domain=[0, largest], clamp=True)
        cells = (
            base.transform_filter("!datum.wall")
            .mark_rect()
            .encode(
                **place,
                color=alt.Color("share:Q", scale=scale, legend=None),
                tooltip=charts.hover(x="N:x", y="N:y", share="Q:share of steps"),
            )
        )
        dark = base.transform_filter("datum.wall").mark_rect(color="#55585e").encode(**place)
        side = max(6, min(24, 230 // max(p.shape)))
        size = {"width": side * p.shape[0], "height": side * p.shape[1]}
        chart = alt.layer(cells, dark).properties(**size)
        visited = p[p > 0]
        entropy = max(0.0, -float(np.sum(visited * np.log(visited))))
        title = f"{display(name)}: entropy {entropy:.2f} nats"
        drawn.append(Chart(charts.spec(chart, height=None), title, fixed=True))
    return drawn


def path_charts(
    runs: pd.DataFrame,
    evaluation: pd.DataFrame,
    traces: pd.DataFrame,
    paper: Paper,
    scenes: Mapping[str, Mapping[str, Any]],
    axes: Sequence[str],
) -> list[Chart]:
    """Where the body went, a chart per method and condition: episodes over their scene."""
    alt = library("altair")
    traces, evaluation = finished(runs, traces), finished(runs, evaluation)
    columns = conditions(traces, paper)
    methods = method_order(traces["method"], paper)
    low, high = limits([rows for *_, rows in columns], [scenes.get(c, {}) for c, *_ in columns])
    # As long as the track is not a thread, lengths along both axes are to one scale.
    ratio = float((high - low)[0] / (high - low)[1])
    size = {"width": round(240 * min(max(ratio, 0.7), 1.25)), "height": 240}
    size["height"] = round(size["width"] / ratio) if 0.4 < ratio < 4 else 240
    within = [alt.Scale(domain=[low[i], high[i]], nice=False) for i in (0, 1)]
    drawn = []
    for method in methods:
        for condition, magnitude, rows in columns:
            parts = []
            for number, points in enumerate(spread(rows[rows["method"] == method])):
                path = path_of(points)
                kept = np.unique(np.linspace(0, len(path) - 1, POINTS).round().astype(int))
                part = pd.DataFrame(path[kept].round(4), columns=["x", "y"])
                parts.append(part.assign(step=kept, episode=number))
            if not parts:
                continue
            frame = pd.concat(parts)
            base = alt.Chart(charts.data(frame))
            x = alt.X("x:Q", title=f"{axes[0]} (m)", scale=within[0], axis=alt.Axis(tickCount=4))
            y = alt.Y("y:Q", title=f"{axes[1]} (m)", scale=within[1])
            hue = charts.colors(methods)[method]
            near = alt.selection_point(
                name="near", on="pointerover", nearest=True, fields=["episode"], empty=False
            )
            lines = base.mark_line(color=hue, clip=True).encode(
                x=x,
                y=y,
                order="step:Q",
                detail="episode:N",
                opacity=alt.condition(near, alt.value(1), alt.value(0.35)),
                strokeWidth=alt.condition(near, alt.value(2.5), alt.value(1)),
            )
            dots = base.mark_circle(opacity=0, size=30, clip=True).encode(
                x=x,
                y=y,
                tooltip=charts.hover_nearest(episode="N:episode", step="N:step", x="Q:x", y="Q:y"),
            )
            last = frame.groupby("episode").tail(1)
            ends = alt.Chart(charts.data(last)).mark_circle(color=hue, size=22, clip=True)
            layers = [*_scene(scenes.get(condition, {}), magnitude), lines, ends.encode(x=x, y=y)]
            chart = alt.layer(*layers, dots.add_params(near))
            rate = success_of(runs, evaluation, method, condition, magnitude)
            at = "" if condition == NOMINAL else f" {magnitude:g}"
            title = f"{display(method)}, {display(condition)}{at}"
            title += f": success {rate:.2f}" if np.isfinite(rate) else ""
            chart = chart.properties(**size)
            drawn.append(Chart(charts.spec(chart, height=None), title, fixed=True))
    return drawn


def _scene(scene: Mapping[str, Any], magnitude: float) -> list[Any]:
    """Blocks and goals as layers, if the scene is of this magnitude."""
    if not np.isclose(scene.get("magnitude", np.nan), magnitude):
        return []
    alt, layers = library("altair"), []
    blocks = np.reshape(scene.get("blocks", ()), (-1, 4))
    if len(blocks):
        x, y, a, b = blocks.T
        rows = pd.DataFrame({"x": x - a, "x2": x + a, "y": y - b, "y2": y + b})
        rects = alt.Chart(charts.data(rows)).mark_rect(color="#70757d")
        layers.append(rects.encode(x="x:Q", x2="x2:Q", y="y:Q", y2="y2:Q"))
    goals = np.reshape(scene.get("goals", ()), (-1, 2))
    if len(goals) == 1:
        turn = np.linspace(0, 2 * np.pi, 49)
        ring = goals[0] + scene.get("radius", 0.0) * np.stack([np.cos(turn), np.sin(turn)], -1)
        rows = pd.DataFrame(ring, columns=["x", "y"]).assign(turn=range(len(ring)))
        line = alt.Chart(charts.data(rows)).mark_line(color="#2a9d5c", strokeWidth=1.5)
        layers.append(line.encode(x="x:Q", y="y:Q", order="turn:Q"))
    elif len(goals):
        rows = pd.DataFrame(goals, columns=["x", "y"])
        crosses = alt.Chart(charts.data(rows)).mark_point(shape="cross", size=25, color="#2a9d5c")
        layers.append(crosses.encode(x="x:Q", y="y:Q"))
    return layers
