"""Other measures than success beside the paper's: returns, and where episodes end.

Success counts what lies within a threshold: a puck at 0.105 m fails like one at 0.3 m.
"""

import matplotlib
import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.figure import Figure

from entrob.evaluation.records import MEASURES
from entrob.perturbations.base import NOMINAL
from entrob.report.figures.drawing import RC, label, legend_below, style
from entrob.report.paper import Paper
from entrob.report.tables import at_headline, finished, method_order, perturbation_order


def conditions(evaluation: pd.DataFrame, paper: Paper) -> dict[str, pd.DataFrame]:
    """Rows of the nominal task, one per run, and of the paper's perturbations at its magnitudes."""
    nominal = evaluation[evaluation["magnitude"] == 0].drop_duplicates("run_id")
    names = [n for n in perturbation_order(evaluation, paper) if n in paper.magnitudes]
    rest = evaluation[evaluation["magnitude"] != 0]
    names = [name for name in names if name in set(rest["perturbation"])]
    return {NOMINAL: nominal, **{name: at_headline(rest, name, paper) for name in names}}


def measures_table(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """Returns and final distances of every method under the paper's conditions, the paper's beside.

    Returns:
      A row per measure × condition × method: ``measure``, ``condition``, ``method``, ``mean`` over
      seeds with its 95 % t-interval ``mean_low``, ``mean_high`` (NaN with one seed), ``seeds`` and
      ``paper`` (NaN where it reports none).
    """
    evaluation = finished(runs, evaluation)
    methods = method_order(runs["method"], paper)
    rows = []
    for column, measure in MEASURES.items():
        if column not in evaluation or evaluation[column].isna().all():
            continue
        for condition, frame in conditions(evaluation, paper).items():
            for method in methods:
                values = frame.loc[frame["method"] == method, column].dropna().to_numpy(float)
                if not len(values):
                    continue
                published = paper.measures.get(column, {}).get(method, {}).get(condition, np.nan)
                interval = t_interval(values)
                rows.append(
                    [measure, condition, method, values.mean(), *interval, len(values), published]
                )
    columns = ["measure", "condition", "method", "mean", "mean_low", "mean_high", "seeds", "paper"]
    return pd.DataFrame(rows, columns=columns)


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean: (low, high), NaN with fewer than two values."""
    if len(values) < 2:
        return np.nan, np.nan
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
    return values.mean() - half, values.mean() + half


@matplotlib.rc_context(RC)
def distance_figure(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> Figure | None:
    """Share of episodes that end within each distance of the goal; every run a thin line.

    A panel per condition, the mean over runs thick; the threshold of success is where the dotted
    line stands, if the paper's table says which.

    Args:
      runs: tidy records; diverged runs are left out.
      evaluation: with ``final_distances``, quantiles of each row's episodes in meters, ascending.
      paper: the facts that order methods and choose conditions.

    Returns:
      The figure, None if the records hold no distances.
    """
    evaluation = finished(runs, evaluation)
    if "final_distance" not in evaluation or evaluation["final_distance"].isna().all():
        return None
    methods = method_order(runs["method"], paper)
    panels = conditions(evaluation, paper)
    figure = Figure(figsize=(1 + 3.1 * len(panels), 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (condition, rows) in zip(axes, panels.items(), strict=True):
        for method in methods:
            own = rows.loc[rows["method"] == method, "final_distances"]
            if own.empty:
                continue
            distances = np.stack([np.asarray(x, float) for x in own])
            share = (np.arange(distances.shape[1]) + 0.5) / distances.shape[1]
            look = style(method, methods)
            for line in distances:
                axis.plot(line, share, color=look["color"], lw=0.7, alpha=0.5)
            # Quantiles of all runs' episodes together.
            together = np.quantile(distances, share)
            axis.plot(together, share, color=look["color"], ls=look["linestyle"], lw=2)
        if np.isfinite(paper.threshold):
            axis.axvline(paper.threshold, color="0.3", ls=":", lw=1)
        magnitude = "" if condition == NOMINAL else f" {rows['magnitude'].iloc[0]:g}"
        axis.set(xlabel="final distance to the goal (m)", xlim=(0, None), ylim=(0, 1))
        axis.set_title(label(condition) + magnitude)
    axes[0].set_ylabel("share of episodes that end nearer")
    note = "thick: all runs' episodes together, thin: every run"
    note += "; dotted: success" if np.isfinite(paper.threshold) else ""
    legend_below(figure, methods, methods, runs, note)
    return figure
