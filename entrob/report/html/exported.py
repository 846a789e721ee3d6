"""The page of an exported folder, from its tables and figures alone; the theory's is one of them.

An export holds no records, so training curves, occupancy, paths and single seeds are not drawn
anew: the page says so, and shows the exported figures as they are.  A caption is that of the
folder's own Markdown, since a table of an earlier version may mean something else than today's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from entrob.errors import EntrobError
from entrob.naming import BASELINE
from entrob.report.html import charts
from entrob.report.html.experiment import badges, shown_table
from entrob.report.html.page import (
    Chart,
    Group,
    Page,
    Section,
    Text,
    downloads,
    library,
    paragraphs,
    picture,
    write_page,
)
from entrob.report.markup import display
from entrob.report.tables import RATE

ABSENT = (
    "This folder holds exported tables and figures, no records of runs: training curves, occupancy "
    "and paths are the exported images, and there are no single seeds to point at."
)

DRAWN_FROM = (
    "Charts are drawn from the folder's tables; figures that need more than those are images."
)

THEORY_COLORS = {"policy": "#e08a00", "state": "#2b8fd6", "state_action": "#009e73"}
"""As in the figures of the theory."""


def write_exported_page(
    folder: Path, path: Path, manifest: Mapping[str, Any], command: str, note: str = ABSENT
) -> Path:
    """Write the page of a folder with ``tables/*.csv`` and ``figures/*.png``.

    Args:
      folder: the export.
      path: of the file.
      manifest: the folder's.
      command: what makes the page again.
      note: what is absent, and why.

    Raises:
      EntrobError: there are no tables, a library is missing, or the file cannot be written.
    """
    frames = {file.stem: pd.read_csv(file) for file in sorted((folder / "tables").glob("*.csv"))}
    if not frames:
        raise EntrobError(f"{folder} holds neither runs nor tables")
    note = DRAWN_FROM if "statements" in frames else note
    sections = [Section("What this page is made of", (Text(paragraphs([note]), "warnings"),))]
    for name, draw in DRAWN.items():
        if name in frames and (drawn := draw(frames[name])):
            title, blocks = drawn
            sections.append(Section(title, blocks))
    shown = tuple(shown_table(frame, name, caption(folder, name)) for name, frame in frames.items())
    sections.append(Section("Tables", shown))
    files = sorted((folder / "figures").glob("*.png"))
    if files:
        pictures = tuple(picture(file, display(file.stem)) for file in files)
        sections.append(Section("Figures", pictures))
    sections.append(Section("Data", (downloads(frames),)))
    title = str(manifest.get("title") or f"{manifest.get('experiment', folder.name)}, exported")
    title = "The theory, checked" if "statements" in frames else title
    return write_page(Page(title, lead(frames), badges(manifest), sections, command), path)


def lead(frames: Mapping[str, pd.DataFrame]) -> str:
    """One sentence on a folder's tables, empty if none is known."""
    if "statements" in frames:
        rows = frames["statements"]
        claimed = rows[rows.claimed]
        wrong = int((claimed.violations > 0).sum())
        return (
            f"Of {len(claimed)} statements that are claimed, {wrong or 'none'} "
            f"{'is' if wrong < 2 else 'are'} violated on random MDPs. What does not check as the "
            f"paper prints it is not claimed: {len(rows) - len(claimed)} of {len(rows)} rows."
        )
    if "success" in frames:
        mean = frames["success"].groupby("method").success.mean().sort_values(ascending=False)
        best, known = mean.index[0], BASELINE in mean
        beside = f", where none has {mean[BASELINE]:.2f}" if known and best != BASELINE else ""
        return (
            "Mean success over all perturbations at their headline magnitudes is highest for "
            f"{display(str(best))}, {mean.iloc[0]:.2f}{beside}."
        )
    return ""


def caption(folder: Path, name: str) -> str:
    """What the folder's own Markdown says below a table."""
    path = folder / "tables" / f"{name}.md"
    if not path.exists():
        return ""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith("|") else lines[-1]


def _success(frame: pd.DataFrame) -> tuple[str, tuple[Any, ...]] | None:
    """Success of every method under every perturbation, with the interval the table gives."""
    if not {"method", "success", "perturbation", "magnitude"} <= set(frame):
        return None
    methods = list(dict.fromkeys(frame.method))
    rows = frame.rename(columns={"success": "mean"})
    if "success_band" in rows:  # of earlier reports: the half width
        low, high = rows["mean"] - rows.success_band, rows["mean"] + rows.success_band
        rows = rows.assign(low=low.clip(0), high=high.clip(upper=1))
    else:
        rows = rows.assign(low=frame.success_low, high=frame.success_high)
    rows = rows[["method", "perturbation", "magnitude", "mean", "low", "high", "seeds"]]
    drawn = []
    for (name, magnitude), own in rows.groupby(["perturbation", "magnitude"], sort=False):
        titles = {"method": "N:method", "mean": "Q:success", "interval": "N:interval"}
        chart = charts.dots(
            own, methods, x="success rate", bounds=RATE, tooltips=titles | {"seeds": "N:seeds"}
        )
        size = 26 + 24 * own.method.nunique()
        drawn.append(Chart(charts.spec(chart, height=size), f"{display(str(name))} {magnitude:g}"))
    return "Success", (charts.legend(methods), Group(tuple(drawn)))


def _recovery(frame: pd.DataFrame) -> tuple[str, tuple[Any, ...]]:
    """What each regularizer recovers of what exact robustness gains, per adversary."""
    alt = library("altair")
    drawn = []
    for form, own in frame.groupby("form", sort=False):
        rows = charts.with_interval(own, "recovered_low", "recovered_high")
        base = alt.Chart(charts.data(rows))
        names = list(THEORY_COLORS)
        hue = alt.Color(
            "regularizer:N",
            scale=alt.Scale(domain=names, range=list(THEORY_COLORS.values())),
            legend=alt.Legend(orient="bottom", title=None),
        )
        x = lambda name: alt.X(f"{name}:Q", title="share recovered")
        place = alt.Y("change:N", sort=list(dict.fromkeys(rows.change)), title=None)
        shift = alt.YOffset("regularizer:N", sort=names)
        bars = base.mark_rule(strokeWidth=2).encode(
            x=x("recovered_low"), x2="recovered_high:Q", y=place, yOffset=shift, color=hue
        )
        titles = {"regularizer": "N:regularizer", "change": "N:adversary", "alpha": "Q:α"}
        titles |= {"recovered": "Q:recovered", "interval": "N:95 %"}
        titles |= {"robust gain": "Q:gain of exact robustness", "nominal price": "Q:nominal price"}
        points = base.mark_point(filled=True, size=55, opacity=1).encode(
            x=x("recovered"), y=place, yOffset=shift, color=hue, tooltip=charts.hover(**titles)
        )
        zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=charts.GRAY)
        chart = alt.layer(zero.encode(x=x("zero")), bars, points)
        drawn.append(Chart(charts.spec(chart, height=230), f"{form} uncertainty"))
    return "What regularizers recover of exact robustness", (Group(tuple(drawn)),)


def _rollouts(frame: pd.DataFrame) -> tuple[str, tuple[Any, ...]]:
    """Entropies of the best policies for n rollouts."""
    alt = library("altair")
    series = ["value", "bound", "uniform", "policy_entropy", "single", "limit"]
    drawn = []
    for horizon, own in frame.groupby("horizon", sort=False):
        order = list(own.rollouts.astype(str))
        rows = own.assign(rollouts=order).melt(["rollouts"], series, "of", "nats")
        base = alt.Chart(charts.data(rows)).encode(
            x=alt.X("rollouts:N", sort=order, title="rollouts n", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("nats:Q", title="nats"),
            color=alt.Color(
                "of:N", sort=series, legend=alt.Legend(orient="bottom", title=None, columns=3)
            ),
        )
        titles = charts.hover(of="N:of", rollouts="N:rollouts", nats="Q:nats")
        chart = alt.layer(
            base.mark_line(strokeWidth=1.5), base.mark_circle(size=45).encode(tooltip=titles)
        )
        drawn.append(Chart(charts.spec(chart, height=250), str(horizon)))
    return "Policies for several rollouts", (Group(tuple(drawn)),)


def _estimation(frame: pd.DataFrame) -> tuple[str, tuple[Any, ...]]:
    """Fitted slopes beside the claimed ones."""
    alt = library("altair")
    names = [
        f"{r.quantity}" + ("" if pd.isna(r.dimension) else f", d = {r.dimension:g}")
        for r in frame.itertuples()
    ]
    half = 1.96 * frame.slope_se
    rows = frame.assign(name=names, low=frame.slope - half, high=frame.slope + half)
    base = alt.Chart(charts.data(charts.with_interval(rows, "low", "high")))
    x = lambda name: alt.X(f"{name}:Q", title="slope of log error against log samples")
    place = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelLimit=190))
    titles = {"name": "N:of", "slope": "Q:slope", "interval": "N:± 1.96 s", "claimed": "Q:claimed"}
    layers = [
        base.mark_rule(strokeWidth=2, color="#2b8fd6").encode(x=x("low"), x2="high:Q", y=place),
        base.mark_point(filled=True, size=60, opacity=1, color="#2b8fd6").encode(
            x=x("slope"), y=place, tooltip=charts.hover(**titles)
        ),
        base.mark_point(shape="diamond", size=70, color="#e08a00").encode(x=x("claimed"), y=place),
    ]
    note = "Point: fitted, with 1.96 standard errors; hollow: what the paper gives."
    chart = Chart(charts.spec(alt.layer(*layers), height=24 * len(rows)), note=note)
    return "How fast entropies can be estimated", (chart,)


def _statements(frame: pd.DataFrame) -> tuple[str, tuple[Any, ...]] | None:
    """Tightness of the statements that have one."""
    alt = library("altair")
    rows = frame[frame.tightness.notna()]
    if rows.empty:
        return None
    names = [f"{r.statement}: {r.claim}" for r in rows.itertuples()]
    rows = charts.with_interval(rows.assign(name=names), "tightness_low", "tightness_high")
    base = alt.Chart(charts.data(rows))
    x = lambda name: alt.X(f"{name}:Q", title="bound over exact value (Corollary A.1: less it)")
    place = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelLimit=420))
    titles = {"name": "N:statement", "tightness": "Q:median", "interval": "N:central 95 %"}
    titles |= {"instances": "N:instances", "violations": "N:violations"}
    bars = base.mark_rule(strokeWidth=2, color="#2b8fd6")
    layers = [
        bars.encode(x=x("tightness_low"), x2="tightness_high:Q", y=place),
        base.mark_point(filled=True, size=60, opacity=1, color="#2b8fd6").encode(
            x=x("tightness"), y=place, tooltip=charts.hover(**titles)
        ),
    ]
    chart = alt.layer(*layers).properties(width=420, height=24 * len(rows))
    note = "Median and central 95 % of instances."
    return "How tight the bounds are", (Chart(charts.spec(chart, height=None), "", note, True),)


DRAWN: dict[str, Callable[[pd.DataFrame], tuple[str, tuple[Any, ...]] | None]] = {
    "success": _success,
    "statements": _statements,
    "recovery": _recovery,
    "rollouts": _rollouts,
    "estimation": _estimation,
}
"""What is drawn of a table, by its name: a section's title and blocks."""
