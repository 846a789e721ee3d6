"""The page of an experiment, from the records of its run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from entrob.report import experiment as report
from entrob.report.html import charts, run_charts
from entrob.report.html.page import (
    Group,
    Page,
    Section,
    Text,
    downloads,
    paragraphs,
    table,
    write_page,
)
from entrob.report.markup import columns, display, spread_of, title_of
from entrob.report.paper import TEXT_LEVEL, Paper
from entrob.report.sentences import listed
from entrob.report.tables import is_variant, method_order
from entrob.statistics.intervals import FEWEST


def write_experiment_page(
    path: Path,
    records: Mapping[str, pd.DataFrame],
    manifest: Mapping[str, Any],
    command: str,
    *,
    level: float = TEXT_LEVEL,
    occupancies: Mapping[str, np.ndarray] | None = None,
    walls: np.ndarray | None = None,
) -> Path:
    """Write the page of a run.

    Args:
      path: of the file.
      records: "runs", "curves", "evaluation" (with the nominal rows of every perturbation),
        "progress" and "traces"; what has no rows is left out of the page.
      manifest: as of `entrob.report.experiment.write_report`.
      command: what makes the page again.
      level: of the intervals that are drawn.
      occupancies, walls: as of `entrob.report.experiment.write_report`.

    Raises:
      EntrobError: a library is missing, or the file cannot be written.
    """
    runs, evaluation, paper = records["runs"], records["evaluation"], Paper.read(manifest)
    methods = method_order(runs["method"], paper)
    key = charts.legend(methods)
    frames = report.computed(runs, records["curves"], evaluation, records["progress"], paper)
    beside = run_charts.headline_charts(runs, evaluation, paper, level)
    note = f"Mean and {100 * level:g} % t interval over seeds, every seed a dot"
    note += "; hollow: the paper's number." if paper.numbers else "."
    first: list[Any] = [Text(paragraphs(_warnings(runs)), "warnings")] if _warnings(runs) else []
    first += [key, Group(tuple(beside)), Text(paragraphs([note]))]
    sections = [Section("Success", tuple(first))]
    if "paper" in frames:
        claims = run_charts.claim_chart(frames["paper"])
        text = Text(paragraphs([report.CAPTIONS["paper"]]))
        sections.append(Section("Beside the paper", (claims, text)))
    protocol = Text(paragraphs([report.protocol(runs, evaluation, paper)]))
    horizons = run_charts.horizon_charts(runs, evaluation, paper, level)
    number = f" (the paper's Figure {paper.figure})" if paper.figure else ""
    sections += _charts(f"Success within so many steps{number}", horizons, key, protocol)
    slid = run_charts.robustness_charts(runs, evaluation, paper, level)
    sections += _charts("Robustness over the magnitude", slid, key)
    curves = run_charts.training_charts(runs, records["curves"], paper, level)
    sections += _charts("Training", curves, key)
    earlier = run_charts.progress_charts(runs, records["progress"], paper)
    thick = Text(paragraphs(["Thick: mean over runs; thin: every run, where there are several."]))
    sections += _charts("Success against frames", earlier, key, thick)
    if occupancies and walls is not None:
        maps = run_charts.occupancy_charts(occupancies, walls, paper)
        scale = Text(paragraphs(["Share of steps, on a square-root scale that all share."]))
        sections += _charts("Occupancy", maps, scale)
    if len(records["traces"]):
        scenes, axes = manifest.get("scenes", {}), manifest.get("trace_axes", ("x", "y"))
        paths = run_charts.path_charts(runs, evaluation, records["traces"], paper, scenes, axes)
        signs = Text(paragraphs(["Point at a path to follow it. Dot: its end; green: the goal."]))
        sections += _charts("Trajectories", paths, signs)
    tables = tuple(
        shown_table(frame, name, report.CAPTIONS[name]) for name, frame in frames.items()
    )
    sections.append(Section("Tables", tables))
    sections.append(Section("Data", (downloads({"runs": runs, **frames}),)))
    name = str(manifest.get("title") or manifest.get("experiment", "experiment"))
    return write_page(Page(name, lead(frames), badges(manifest), sections, command), path)


def _charts(title: str, drawn: list[Any], *above: Any) -> list[Section]:
    """A section of charts side by side, none without any."""
    return [Section(title, (*above, Group(tuple(drawn))))] if drawn else []


def lead(frames: Mapping[str, pd.DataFrame]) -> str:
    """What came out, in one sentence: claims, else numbers, else the best under perturbations."""
    if "paper" in frames:
        claims = frames["paper"][frames["paper"].verdict != "no claim"]
        plain = claims[~(claims["first"].map(is_variant) | claims.second.map(is_variant))]
        counts = (plain if len(plain) else claims).verdict.value_counts()
        said = {"agrees": "agree with ours", "disagrees": "disagree", "undecided": "are undecided"}
        parts = [f"{counts[verdict]} {text}" for verdict, text in said.items() if verdict in counts]
        if parts:
            return f"Of {counts.sum()} claims in the paper's order of methods, {listed(parts)}."
    if "numbers" in frames:
        verdicts = frames["numbers"].verdict.value_counts()
        parts = [f"{count} {verdict}" for verdict, count in verdicts.items()]
        return f"Of {len(frames['numbers'])} numbers of the paper beside ours: {listed(parts)}."
    if "success" not in frames:
        return ""
    mean = frames["success"].groupby("method").success.mean().sort_values(ascending=False)
    parts = [f"{display(name)} {value:.2f}" for name, value in mean.items()]
    return f"Mean success over all perturbations at their headline magnitudes: {listed(parts)}."


def badges(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scope of a run."""
    found = [(key, str(manifest[key])) for key in ("preset", "environment") if manifest.get(key)]
    for key in ("methods", "seeds"):
        found += [(key, str(len(manifest[key])))] if manifest.get(key) else []
    for key, text in (("frames_per_run", "frames per run"), ("frames", "frames in all")):
        found += [(text, f"{manifest[key]:,}")] if manifest.get(key) else []
    found += [("instances", str(manifest["instances"]))] if manifest.get("instances") else []
    commit = str(manifest.get("git_commit") or "")
    found += [("commit", commit[:10])] if commit else []
    return found + ([("device", str(manifest["device"]))] if manifest.get("device") else [])


def _warnings(runs: pd.DataFrame) -> list[str]:
    """Diverged runs, and seeds too few for intervals."""
    said = [] if (runs.status != "diverged").all() else [report.diverged(runs)]
    seeds = runs[runs.status == "finished"].groupby("method").seed.nunique()
    if len(few := seeds[seeds < FEWEST]):
        named = listed([f"{display(str(name))} {count}" for name, count in few.items()])
        said.append(
            f"**Few seeds**: {named}. Below {FEWEST} no difference has an interval, and no claim "
            "can be decided."
        )
    return said


def shown_table(frame: pd.DataFrame, name: str, caption: str, title: str = "") -> Any:
    """A frame of the report: intervals and deviations as text beside the number."""
    found = {}
    for column in columns(frame):
        heading = title_of(frame, column).removesuffix(" [95 %]").removesuffix(" ± s")
        values = frame[column]
        found[heading] = (
            values.map(lambda x: "yes" if x else "no") if values.dtype == bool else values
        )
        if spread_of(frame, column) == "interval":
            low, high = frame[f"{column}_low"], frame[f"{column}_high"]
            found[f"{heading}, 95 %"] = charts.interval_texts(low, high, 3)
        elif spread_of(frame, column) == "std":
            found[f"{heading}, s"] = frame[f"{column}_std"]
    shown = pd.DataFrame(found)
    words = [c for c in shown if not pd.api.types.is_numeric_dtype(shown[c])]
    words = [c for c in words if 1 < shown[c].nunique() < len(shown) and not c.endswith("95 %")]
    return table(shown, name, filters=words, title=title or display(name), note=caption)
