"""A page per regularizer or adversary: formula, source, what it does, and its robustness curves."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from entrob.results import markup, statistics, store
from entrob.results.drawing import RC, label, save
from entrob.results.leaderboard import BASELINE, Board

COLUMNS = ("rank", "robust", "robust_low", "robust_high", "structured", "diffuse", "dynamics")
COLUMNS += ("worst", "cvar", "nominal", "price", "overhead", "tasks", "unpassed", "open")


def write_pages(root: Path, board: Board, ranks: pd.DataFrame) -> list[str]:
    """Write ``regularizers/NAME.md`` and its figure for every method with a docstring of its own.

    Args:
      root: the suite's folder.
      board: its records.
      ranks: `leaderboard.ranking` of it.

    Returns:
      The names of the regularizers.

    Raises:
      EntrobError: a file cannot be written.
    """
    folder, names = root / "regularizers", []
    for name, facts in board.manifest["methods"].items():
        row = ranks[ranks.method == name]
        if row.empty:
            continue
        save(curves_figure(board.scores, name), folder, name, small=True)
        text = [f"# {name}", *_paragraphs(facts["doc"])]
        text += [f"Source: {facts['source'] or 'not given'}. Label: {facts['label']}."]
        text += [_setting(board, name, facts)]
        text += [markup.markdown(row[[c for c in COLUMNS if c in row]])]
        text += [f"![Robustness of {name}]({name}.png)", "[The leaderboard](../leaderboard.md)"]
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
    """How strong it was: coefficients that were tuned, or an adversary's strength."""
    if "strength" in facts:
        return f"Strength: {facts['strength']:g}, not tuned."
    tuned = {
        task: facts["coefficients"][name]
        for task, facts in board.manifest["tasks"].items()
        if name in facts["coefficients"]
    }
    chosen = ", ".join(f"{task} {value:g}" for task, value in tuned.items())
    return f"Default coefficient: {facts['coef']:g}; tuned: {chosen}."


def curves_figure(scores: pd.DataFrame, name: str) -> Figure:
    """Normalized score against the magnitude of every perturbation, beside `none`.

    A row of panels per task; the bands are normal 95 % ones over seeds.
    """
    tasks = scores[scores.method == name].task.unique()
    panels = {task: scores[scores.task == task].perturbation.unique() for task in tasks}
    width = max(map(len, panels.values()))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1.7 * width + 0.6, 1.7 * len(tasks)), layout="constrained")
        axes = figure.subplots(len(tasks), width, squeeze=False, sharey="row")
        for row, (task, perturbations) in zip(axes, panels.items()):
            for axis in row[len(perturbations) :]:
                axis.set_visible(False)
            for axis, perturbation in zip(row, perturbations):
                here = scores[(scores.task == task) & (scores.perturbation == perturbation)]
                for method, color in ((BASELINE, "#7a7a7a"), (name, "#0072b2")):
                    own = here[here.method == method]
                    table = own.pivot_table(index="seed", columns="magnitude", values="score")
                    mean, band = statistics.normal_band(table.to_numpy(), 0.95)
                    axis.plot(table.columns, mean, "o-", color=color, label=label(method))
                    low, high = mean - np.nan_to_num(band), mean + np.nan_to_num(band)
                    axis.fill_between(table.columns, low, high, color=color, alpha=0.2, lw=0)
                axis.set(xlabel=label(perturbation))
            row[0].set_ylabel(f"{label(task)}: score")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure
