"""Charts of a leaderboard: gains as a heat map, price against gain, frontiers, seeds."""

from typing import Any

import numpy as np
import pandas as pd

from entrob.naming import BASELINE
from entrob.report.figures.leaderboard import (
    FAMILIES,
    LINEAR,
    PRICES,
    family_order,
    stretched,
    tuning_seeds,
    unstretched,
)
from entrob.report.html.charts import (
    GRAY,
    data,
    hover,
    interval_text,
    interval_texts,
    spec,
    with_interval,
)
from entrob.report.html.page import Chart, Legend, library
from entrob.report.markup import display
from entrob.statistics import recovered_share
from entrob.statistics.board import CLASSES, Board
from entrob.statistics.intervals import t_interval

SHAPES = {
    "losses": ("circle", "●"),
    "shaping": ("square", "■"),
    "temperature": ("triangle-up", "▲"),
    "intrinsic": ("diamond", "◆"),
    "others": ("triangle-down", "▼"),
    "controls": ("cross", "✚"),
    "adversaries": ("triangle-right", "▶"),
    "tested only": ("triangle-left", "◀"),
}
"""A family's sign in charts, and in the legend."""


CELL_WIDTH = 22
"""Of the heat map, in pixels."""


def family_color(family: str) -> str:
    """That of the figures, legible on dark paper too."""
    return GRAY if family == "controls" else FAMILIES.get(family, FAMILIES["others"])[1]


def family_legend(families: pd.Series, sign: str = "") -> Legend:
    """The families that occur, with a sign for all or each with its own."""
    names = family_order(families)
    return Legend(tuple((FAMILIES[f][0], family_color(f), sign or SHAPES[f][1]) for f in names))


def coefficient_text(board: Board, method: str) -> str:
    """What tuning chose for a method, task by task."""
    chosen = {
        task: facts["coefficients"][method]
        for task, facts in board.manifest["tasks"].items()
        if method in facts.get("coefficients", {})
    }
    if len(set(chosen.values())) == 1:
        return f"{next(iter(chosen.values())):g}"
    return ", ".join(f"{task} {value:g}" for task, value in chosen.items()) or "–"


def _family(board: Board, method: str) -> str:
    """A family that has a color."""
    return board.family(method) if board.family(method) in FAMILIES else "others"


def pairs_of(board: Board) -> pd.Series:
    """Paired seeds behind each method × perturbation: the fewest of a task and magnitude."""
    base = board.scores[board.scores.method == BASELINE]
    key = ["task", "perturbation", "magnitude", "seed"]
    paired = board.scores.merge(base[key], on=key)
    counts = paired.groupby(["method", "perturbation", "task", "magnitude"]).seed.nunique()
    return counts.groupby(["method", "perturbation"]).min()


def gains_chart(gains: pd.DataFrame, ranks: pd.DataFrame, board: Board) -> Chart:
    """Methods × perturbations: the paired gain over `none`, families and classes apart.

    Args:
      gains: `recovered_share.perturbation_gains`.
      ranks: `recovered_share.ranking`, for prices.
      board: the tables.
    """
    alt = library("altair")
    rows = with_interval(gains, "gain_low", "gain_high").dropna(subset=["gain"])
    price = ranks.set_index("method").price
    pairs = pairs_of(board)
    rows = rows.assign(
        family=[_family(board, m) for m in rows.method],
        price=rows.method.map(price),
        pairs=[int(pairs.get(key, 0)) for key in zip(rows.method, rows.perturbation, strict=True)],
        coefficient=[coefficient_text(board, m) for m in rows.method],
        name=[f"{display(p)}{'' if k else ' †'}" for p, k in zip(rows.perturbation, rows.kept)],
    )
    mean = rows.groupby("method").gain.mean()
    families = family_order(rows.family)
    order = sorted(mean.index, key=lambda m: (families.index(_family(board, m)), -mean[m]))
    size = max(0.1, float(np.nanquantile(rows.gain.abs(), 0.98))) if len(rows) else 0.1
    wanted = ["method", "family", "class", "name", "gain", "interval", "pairs", "coefficient"]
    rows = rows[[*wanted, "price", "differs"]]
    y = lambda **axis: alt.Y("method:N", sort=order, title=None, axis=alt.Axis(**axis))
    hue = alt.Color(
        "family:N",
        scale=alt.Scale(domain=families, range=[family_color(f) for f in families]),
        legend=None,
    )
    strip = alt.Chart(data(rows.drop_duplicates("method"))).mark_rect(cornerRadius=2)
    strip = strip.encode(y=y(labelLimit=170, domain=False, ticks=False), color=hue)
    parts = [strip.encode(tooltip=hover(family="N:family")).properties(width=7)]
    # By hue, which is the default, red would go through purple to a dark page's blueish gray.
    scale = alt.Scale(domain=[-size, size], domainMid=0, clamp=True, interpolate="lab")
    bar = alt.Legend(title="gain in score over none", orient="bottom", gradientLength=220)
    tooltips = hover(
        **{"method": "N:method", "family": "N:family", "name": "N:perturbation"},
        **{"class": "N:class", "gain": "Q:gain", "interval": "N:simultaneous 95 %"},
        **{"pairs": "N:pairs", "coefficient": "N:coefficient", "price": "P:price"},
    )
    for title, own in rows.groupby("class", sort=False):
        names = list(dict.fromkeys(own.name))
        base = alt.Chart(data(own))
        bottom = alt.Axis(labelAngle=-60, labelLimit=160, domain=False, ticks=False)
        place = {
            "x": alt.X("name:N", sort=names, title=None, axis=bottom),
            "y": y(labels=False, domain=False, ticks=False),
        }
        cells = base.mark_rect(cornerRadius=2, stroke="#8884", strokeWidth=0.5).encode(
            **place, color=alt.Color("gain:Q", scale=scale, legend=bar), tooltip=tooltips
        )
        marks = base.transform_filter("datum.differs").mark_text(text="•", fontSize=14, dy=1)
        # A class of one perturbation is narrower than its name, which is set aslant: as a mark, for
        # Vega moves a title that is turned by the length of its text.
        width = CELL_WIDTH * len(names)
        head = alt.Chart(alt.Data(values=[{"class": str(title)}])).encode(
            x=alt.value(width / 2), y=alt.value(-6), text="class:N"
        )
        head = head.mark_text(angle=310, align="left", fontSize=11, fontWeight=600)
        layers = alt.layer(cells, marks.encode(**place, tooltip=tooltips), head)
        parts.append(layers.properties(width=width))
    strip, *panels = (part.properties(height=17 * len(order)) for part in parts)
    panels = alt.hconcat(*panels, spacing=5, bounds="flush")  # with one legend
    chart = alt.hconcat(strip, panels, spacing=5, bounds="flush")
    chart = chart.resolve_scale(color="independent")
    note = (
        "Mean over tasks, seeds paired with none's. Point: the simultaneous 95 % interval over all "
        "methods × perturbations excludes 0. Hover or touch a cell for interval, pairs, "
        "coefficient and price. Empty: the method lacks one of the tasks."
    )
    if not gains.kept.all():
        note += " †: none loses nothing here, so it does not count."
    return Chart(spec(chart, height=None), note=note, fixed=True)


def price_charts(ranks: pd.DataFrame, classes: pd.DataFrame) -> list[Chart]:
    """Price against recovered share: over all classes, then a chart per class.

    Args:
      ranks, classes: `recovered_share.ranking` and `classes_table`.
    """
    panels = {"all classes": "overall"} | {name: name for name in CLASSES if name in ranks}
    spread = classes.set_index(["method", "class"])[["share_low", "share_high", "pairs"]]
    charts = []
    for title, column in panels.items():
        rows = ranks[ranks[column].notna() & ranks.price.notna() & (ranks.method != BASELINE)]
        if column == "overall":
            rows = rows.assign(share=rows.overall, low=rows.overall_low, high=rows.overall_high)
        else:
            own = spread.reindex([(m, column) for m in rows.method])
            low, high = own.share_low.to_numpy(), own.share_high.to_numpy()
            rows = rows.assign(share=rows[column], low=low, high=high)
        if len(rows):
            charts.append(Chart(spec(_price_chart(rows), height=250), title=title))
    return charts


def _price_chart(rows: pd.DataFrame) -> Any:
    alt = library("altair")
    rows = with_interval(rows, "low", "high")
    rows = with_interval(rows, "price_low", "price_high", "price_interval")
    rows = rows.assign(family=[f if f in FAMILIES else "others" for f in rows.family])
    ends = [float(unstretched(end)) for end in _domain(stretched(rows.price))]
    cheap = alt.Scale(type="symlog", constant=LINEAR, domain=ends, nice=False)
    more = (-0.003, 0.003) if ends[1] < 0.1 else ()  # there is room for them
    ticks = [tick for tick in sorted((*PRICES, *more)) if ends[0] <= tick <= ends[1]]
    share = alt.Scale(domain=_domain(rows.share), nice=False, zero=False)
    wanted = ["method", "family", "price", "price_low", "price_high", "share", "low", "high"]
    base = alt.Chart(data(rows[[*wanted, "interval", "price_interval", "status"]]))
    axis = alt.Axis(labelExpr="format(datum.value, '.1~%')", values=ticks)
    x = lambda name: alt.X(f"{name}:Q", title="price", scale=cheap, axis=axis)
    y = lambda name: alt.Y(f"{name}:Q", title="recovered share R", scale=share)
    families = family_order(rows.family)
    hue = alt.Color(
        "family:N",
        scale=alt.Scale(domain=families, range=[family_color(f) for f in families]),
        legend=None,
    )
    look = {"color": hue, "opacity": alt.value(0.3)}
    valid = lambda name: f"isValid(datum.{name})"
    upright = base.transform_filter(valid("low")).mark_rule(clip=True)
    flat = base.transform_filter(valid("price_low")).mark_rule(clip=True)
    points = base.mark_point(filled=True, size=75, opacity=0.95).encode(
        x=x("price"),
        y=y("share"),
        color=hue,
        shape=alt.Shape(
            "family:N",
            scale=alt.Scale(domain=families, range=[SHAPES[f][0] for f in families]),
            legend=None,
        ),
        tooltip=hover(
            **{"method": "N:method", "family": "N:family", "share": "Q:R", "interval": "N:95 %"},
            **{"price": "Q:price", "price_interval": "N:95 % of price", "status": "N:status"},
        ),
    )
    zero = alt.Chart(alt.Data(values=[{"price": 0, "share": 0}]))
    front = alt.Chart(data(_front(rows))).mark_line(interpolate="step-after", color=GRAY)
    return alt.layer(
        zero.mark_rule(color=GRAY, opacity=0.6).encode(x=x("price")),
        zero.mark_rule(color=GRAY, opacity=0.6).encode(y=y("share")),
        front.encode(x=x("price"), y=y("share")),
        upright.encode(x=x("price"), y=y("low"), y2="high:Q", **look),
        flat.encode(x=x("price_low"), x2="price_high:Q", y=y("share"), **look),
        zero.mark_text(text="★", fontSize=15).encode(x=x("price"), y=y("share")),
        points,
    )


def _domain(values: pd.Series) -> tuple[float, float]:
    """Of an axis with 0 and all points: without bars, which may be much longer, with margins."""
    low, high = min(0.0, values.min()), max(0.0, values.max())
    margin = 0.1 * max(high - low, 0.1)
    return low - margin, high + margin


def _front(rows: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front without controls, from `none` on."""
    some = rows[~rows.family.isin(["controls"])][["price", "share"]]
    some = pd.concat([some, pd.DataFrame({"price": [0.0], "share": [0.0]})])
    some = some.sort_values(["price", "share"], ascending=[True, False])
    return some[some.share > some.share.cummax().shift(fill_value=-np.inf)]


def frontier_chart(board: Board, method: str) -> Chart | None:
    """Price and recovered share at every coefficient that was tried, a line per task.

    None if tuning runs were not tested under perturbations.
    """
    alt, tuning = library("altair"), board.tuning
    present = [name for name in CLASSES if name in tuning and tuning[name].notna().any()]
    rows = tuning[tuning.method == method]
    if rows.empty or not present:
        return None
    base = tuning[tuning.method == BASELINE].groupby("task").nominal.mean()
    base = rows.task.map(base)
    rows = rows.assign(price=(base - rows.nominal) / base, share=rows[present].mean(axis=1))
    columns = ["price", "share", "chosen", "activity", "taken"]
    rows = rows.astype(dict.fromkeys(columns, float)).groupby(["task", "coefficient"])
    means = rows[columns].mean().reset_index().dropna(subset=["price", "share"])
    if means.empty:
        return None
    chart = alt.Chart(data(means.assign(chosen=means.chosen > 0.5)))
    look = {
        # With 0, or a thousandth would look like a price.
        "x": alt.X(
            "price:Q",
            title="price",
            scale=alt.Scale(zero=True),
            axis=alt.Axis(format="~%", tickCount=5),
        ),
        "y": alt.Y("share:Q", title="recovered share R"),
        "color": alt.Color("task:N", sort=board.tasks, legend=alt.Legend(orient="bottom")),
    }
    lines = chart.mark_line(strokeWidth=1.3).encode(order="coefficient:Q", **look)
    filled = alt.condition("datum.chosen", alt.value(1), alt.value(0))
    points = chart.mark_point(size=60, filled=False, strokeWidth=1.6).encode(
        tooltip=hover(
            **{"task": "N:task", "coefficient": "Q:coefficient", "price": "Q:price"},
            **{"share": "Q:R", "activity": "Q:activity", "taken": "Q:taken by interpolation"},
        ),
        fill=alt.Fill("task:N", sort=board.tasks, legend=None),
        fillOpacity=filled,
        **look,
    )
    found = spec(alt.layer(lines, points), height=230)
    seeds = tuning_seeds(tuning[tuning.method.isin([method, BASELINE])])
    return Chart(found, "Frontier", f"{seeds.capitalize()}; filled: nearest to what is taken.")


def seeds_chart(pairs: pd.DataFrame, classes: pd.DataFrame, method: str) -> Chart | None:
    """The share that every pair of seeds recovers, a dot each, with the mean and its interval.

    Args:
      pairs: `recovered_share.pair_shares`.
      classes: `recovered_share.classes_table`.
      method: whose.
    """
    alt = library("altair")
    own = pairs[pairs.method == method]
    names = [name for name in CLASSES if name in own and own[name].notna().any()]
    if own.empty or not names:
        return None
    rows = own.melt(["task", "seed"], names, "class", "share").dropna()
    means = classes[(classes.method == method) & classes["class"].isin(names)]
    means = means.assign(text=list(map(interval_text, means.share_low, means.share_high)))
    place = alt.Y("class:N", sort=names, title=None, axis=alt.Axis(labelLimit=130))
    title = "recovered share R"
    seeds = (
        alt.Chart(data(rows))
        .mark_circle(size=22, opacity=0.6, yOffset=6)
        .encode(
            x=alt.X("share:Q", title=title),
            y=place,
            color=alt.Color("task:N", legend=alt.Legend(orient="bottom")),
            tooltip=hover(
                **{"task": "N:task", "seed": "N:seed", "share": "Q:R", "class": "N:class"}
            ),
        )
    )
    base = alt.Chart(data(means[["class", "share", "share_low", "share_high", "pairs", "text"]]))
    bars = base.transform_filter("isValid(datum.share_low)").mark_rule(strokeWidth=2, color=GRAY)
    bars = bars.encode(x=alt.X("share_low:Q", title=title), x2="share_high:Q", y=place)
    ticks = base.mark_tick(thickness=3, color=GRAY, size=14).encode(
        x=alt.X("share:Q", title=title),
        y=place,
        tooltip=hover(
            **{"class": "N:class", "share": "Q:mean R", "text": "N:95 %", "pairs": "N:pairs"}
        ),
    )
    zero = alt.Chart(alt.Data(values=[{"share": 0}])).mark_rule(color=GRAY, strokeDash=[2, 2])
    zero = zero.encode(x=alt.X("share:Q", title=title))
    found = spec(alt.layer(zero, bars, ticks, seeds), height=40 + 34 * len(names))
    return Chart(found, "Every pair of seeds", "Line: mean with its 95 % bootstrap-t interval.")


def cell_rows(board: Board) -> pd.DataFrame:
    """Every method on every task × perturbation × magnitude beside `none`.

    Returns:
      ``method``, ``family``, ``task``, ``class``, ``perturbation``, ``magnitude``, ``score``,
      ``none`` and ``gain`` (means over the pairs), ``95 %`` (of the gain: Student's t over pairs,
      each for itself), ``pairs`` and ``counts`` ("yes", or why not).
    """
    key = ["task", "perturbation", "magnitude"]
    scores = board.scores
    base = scores[scores.method == BASELINE].set_index([*key, "seed"]).score.rename("none")
    rows = scores[scores.method != BASELINE].join(base, on=[*key, "seed"], how="inner")
    rows = rows.assign(gain=rows.score - rows.none)
    groups = rows.groupby([*key, "method"], sort=False)
    found = groups[["score", "none", "gain"]].mean().assign(pairs=groups.size()).reset_index()
    # Pairs are all there or, rarely, not: each number of them is one array.
    ends = np.full((len(found), 2), np.nan)
    for count, places in found.groupby("pairs").groups.items():
        own = rows.merge(found.loc[places, [*key, "method"]].reset_index(), on=[*key, "method"])
        own = own.sort_values("index", kind="stable")
        gains = own.gain.to_numpy().reshape(-1, int(count))
        interval = t_interval(gains, axis=1)
        ends[np.unique(own["index"])] = np.stack([interval.low, interval.high], -1)
    found = found.merge(board.cells[[*key, "category", "kept", "why"]], on=key, how="left")
    found["class"] = found.category.fillna("nominal")
    found["family"] = [board.family(method) for method in found.method]
    found["95 %"] = interval_texts(*map(pd.Series, ends.T))
    found["counts"] = np.select(
        [found.category.isna(), found.kept.eq(True)], ["nominal", "yes"], found.why
    )
    columns = ["method", "family", "task", "class", "perturbation", "magnitude", "score", "none"]
    return found[[*columns, "gain", "95 %", "pairs", "counts"]]


def pair_shares(board: Board) -> pd.DataFrame:
    """`recovered_share.pair_shares`, empty on a board that keeps no cells."""
    return recovered_share.pair_shares(board) if board.classes else pd.DataFrame(columns=["method"])
