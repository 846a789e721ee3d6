"""How policies of earlier frames fare: success against frames, nominal and perturbed.

A run's last policy need not be its best: robustness may rise and fall while nominal success stays.
The records are those of `entrob.sweep.snapshots`: a row per run × frames × condition.
"""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from entrob.perturbations.base import NOMINAL
from entrob.report.figures.drawing import RC, label, legend_below, style
from entrob.report.paper import Paper
from entrob.report.tables import finished, method_order


@matplotlib.rc_context(RC)
def success_against_frames(
    runs: pd.DataFrame, progress: pd.DataFrame, paper: Paper
) -> Figure | None:
    """A panel per condition: success of the policies of so many frames, every run a thin line.

    The thick line is the mean over runs.  There are no bands: each run is shown.

    Args:
      runs: tidy records; diverged runs are left out.
      progress: records of earlier policies.
      paper: the facts that order methods and give the paper's final numbers, hollow diamonds at
        the end of the axis.

    Returns:
      The figure, None if no earlier policy was tested.
    """
    progress = finished(runs, progress) if len(progress) else progress
    if not len(progress):
        return None
    methods = method_order(progress["method"], paper)
    panels = list(progress.groupby(["perturbation", "magnitude"], sort=False))
    panels.sort(key=lambda panel: panel[0][0] != NOMINAL)
    figure = Figure(figsize=(1 + 3.6 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, ((condition, magnitude), rows) in zip(axes, panels, strict=True):
        for method in methods:
            look = style(method, methods)
            table = rows[rows["method"] == method].pivot(
                index="frames", columns="run_id", values="success"
            )
            x = table.index.to_numpy() / 1e6
            axis.plot(x, table.to_numpy(), color=look["color"], lw=0.7, alpha=0.5)
            line = {"color": look["color"], "linestyle": look["linestyle"], "lw": 2}
            axis.plot(x, table.mean(axis=1), **line, clip_on=False)
            if number := paper.number(method, condition):
                mark = {"marker": "d", "mfc": "white", "color": look["color"], "ls": ""}
                axis.plot(1.03 * x[-1], number.mean, **mark, clip_on=False)
        at = "" if condition == NOMINAL else f" {magnitude:g}"
        axis.set(xlabel="training frames (millions)", ylim=(0, 1), title=label(condition) + at)
    axes[0].set_ylabel("success rate")
    note = "thick: mean over runs, thin: every run"
    note += "; diamonds: the paper's final means" if paper.numbers else ""
    legend_below(figure, methods, methods, runs, note)
    return figure


def best_and_last(runs: pd.DataFrame, progress: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """Success of the last policy, and of that with the best *nominal* success, by method.

    Which policy is taken is decided by the nominal task alone, as nobody knows the perturbation
    beforehand; of equally good ones the latest. What is chosen as the best of many is a little
    too good nominally, not under the perturbations.

    Returns:
      A row per method × condition: ``method``, ``condition``, ``magnitude``, ``runs``, ``last`` and
      ``best`` (means over runs), ``best_frames`` (median frames of the best).
    """
    columns = ["method", "condition", "magnitude", "runs", "last", "best", "best_frames"]
    progress = finished(runs, progress) if len(progress) else progress
    if not len(progress):
        return pd.DataFrame(columns=columns)
    nominal = progress[progress["perturbation"] == NOMINAL]
    ranked = nominal.sort_values(["success", "frames"], kind="stable")
    best = ranked.groupby("run_id")["frames"].last()
    last = nominal.groupby("run_id")["frames"].max()
    rows = []
    for method in method_order(progress["method"], paper):
        own = progress[progress["method"] == method]
        for (condition, magnitude), some in own.groupby(["perturbation", "magnitude"], sort=False):
            table = some.set_index(["run_id", "frames"])["success"]
            ids = some["run_id"].unique()
            means = [np.mean([table[run, at[run]] for run in ids]) for at in (last, best)]
            row = [method, condition, magnitude, len(ids), *means, int(best[ids].median())]
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)
