"""A page per method: formula, source, what it does, what it recovers, scores by magnitude."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from entrob.naming import BASELINE
from entrob.persistence import store
from entrob.perturbations.base import NOMINAL
from entrob.report import markup
from entrob.report.figures.drawing import COLORS, RC, fit_legend, label, line, save
from entrob.statistics import intervals
from entrob.statistics.board import Board
from entrob.sweep.progress import steps

ROW = ["rank", "rank_low", "rank_high", "overall", "overall_low", "overall_high", "least"]
ROW += ["least_class", "nominal_gain", "nominal_gain_low", "nominal_gain_high", "price"]
ROW += ["price_low", "price_high", "solved", "pareto", "status"]


def write_pages(root: Path, board: Board, ranks: pd.DataFrame, classes: pd.DataFrame) -> list[str]:
    """Write ``regularizers/NAME.md`` and its figure for every method with a docstring of its own.

    Args:
      root: the suite's folder.
      board: its tables.
      ranks, classes: `recovery.ranking` and `recovery.classes_table` of it.

    Returns:
      The names of the methods.

    Raises:
      EntrobError: a file cannot be written.
    """
    folder, names, played = root / "regularizers", [], set(board.scores.method)
    with steps("drawing methods", len(board.manifest["methods"])) as step:
        for name, facts in board.manifest["methods"].items():
            step()
            row = ranks[ranks.method == name]
            if row.empty or name not in played:
                continue
            save(curves_figure(board.scores, name), folder, name, small=True)
            text = [f"# {name}", *_paragraphs(facts["doc"])]
            text += [f"Source: {facts['source'] or 'not given'}. Label: {facts['label']}."]
            text += [_setting(board, name, facts), markup.markdown(row[ROW])]
            own = classes[classes.method == name].drop(columns=["method", "family"])
            text += [markup.markdown(own)] if len(own) else []
            text += [f"![Scores of {name}]({name}.png)", "[The leaderboard](../leaderboard.md)"]
            page = "\n\n".join(part.rstrip() for part in text) + "\n"
            store.write_bytes(folder / f"{name}.md", page.encode())
            names.append(name)
    return names


def _paragraphs(doc: str) -> list[str]:
    """A docstring as Markdown: its sections as they stand, in a block of their own."""
    summary, _, rest = doc.strip().partition("\n")
    rest = rest.strip("\n")
    return [summary, f"```text\n{rest}\n```"] if rest.strip() else [summary]


def _setting(board: Board, name: str, facts: dict[str, Any]) -> str:
    """How strong it was on each task, and how active, as far as that was measured."""
    tuned = {
        task: own["coefficients"][name]
        for task, own in board.manifest["tasks"].items()
        if name in own.get("coefficients", {})
    }
    chosen = ", ".join(f"{task} {value:g}" for task, value in tuned.items())
    usual = f"Default coefficient: {facts['coef']:g}; tuned" if "coef" in facts else "Tuned"
    text = f"{usual}: {chosen or 'nowhere'}."
    active = board.activity[board.activity.method == name].groupby("task", sort=False).activity
    if len(medians := active.median()):
        text += " Activity: " + ", ".join(f"{task} {x:.1%}" for task, x in medians.items()) + "."
    return text


def curves_figure(scores: pd.DataFrame, name: str) -> Figure:
    """Score against the magnitude of every perturbation, beside `none`.

    A row of panels per task, the nominal score at magnitude 0.  Bands are 95 % t intervals over
    seeds; with fewer than six seeds each is a thin line instead.
    """
    here = scores[scores.method.isin([BASELINE, name])]
    tasks = here.task[here.method == name].unique()
    here = here[here.task.isin(tasks)]
    panels = {task: list(dict.fromkeys(rows.perturbation)) for task, rows in here.groupby("task")}
    panels = {task: [p for p in panels[task] if p != NOMINAL] for task in tasks}
    width = max(1, *map(len, panels.values()))
    with matplotlib.rc_context(RC):
        size = (1.7 * width + 0.6, 1.7 * len(tasks) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(tasks), width, squeeze=False, sharey="row")
        for row, (task, perturbations) in zip(axes, panels.items(), strict=True):
            for axis in row[len(perturbations) :]:
                axis.set_visible(False)
            own = here[here.task == task]
            for axis, perturbation in zip(row, perturbations, strict=False):
                some = own[own.perturbation.isin([NOMINAL, perturbation])]
                for method, like in ((BASELINE, BASELINE), (name, "state_entropy")):
                    rows = some[some.method == method]
                    table = rows.pivot_table(index="seed", columns="magnitude", values="score")
                    _curve(axis, table, {"color": COLORS[like], "label": label(method)})
                axis.set(xlabel=label(perturbation))
            row[0].set_ylabel(f"{label(task)}: score")
        fit_legend(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


def _curve(axis, table: pd.DataFrame, look: dict[str, Any]) -> None:
    """Mean over seeds with its band, or the seeds themselves where they are few."""
    values = table.to_numpy(dtype=float)
    mean, low, high = intervals.t_interval(values)
    if len(values) < intervals.FEWEST:
        axis.plot(table.columns, values.T, color=look["color"], lw=0.5, alpha=0.5)
        low = high = np.full_like(mean, np.nan)
    line(axis, table.columns.to_numpy(dtype=float), mean, low, high, {"marker": "o", **look})
