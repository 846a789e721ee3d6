"""Returns and distances beside the paper's, and success against frames, on records made by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from entrob.report.figures.measures import distance_figure, measures_table
from entrob.report.figures.while_training import best_and_last, success_against_frames
from entrob.report.paper import Paper

PAPER = Paper(
    methods=("none", "state_entropy"),
    magnitudes={"wall": 1.0},
    measures={"return_mean": {"none": {"nominal": -9.1, "wall": -41.8}}},
    threshold=0.1,
)


@pytest.fixture
def runs():
    rows = [(f"{m}{s}", m, s) for m in ("none", "state_entropy") for s in range(4)]
    frame = pd.DataFrame(rows, columns=["run_id", "method", "seed"])
    frame["status"] = ["finished"] * 7 + ["diverged"]
    return frame.assign(frames=100)


@pytest.fixture
def evaluation(runs):
    rng = np.random.default_rng(0)
    rows = []
    for run in runs.itertuples():
        for magnitude in (0.0, 1.0, 2.0):
            distances = np.sort(rng.uniform(0, 0.3, 21))
            rows.append(
                {
                    "run_id": run.run_id,
                    "method": run.method,
                    "seed": run.seed,
                    "perturbation": "wall",
                    "magnitude": magnitude,
                    "return_mean": -10.0 * (1 + magnitude) + run.seed,
                    "final_distance": distances.mean(),
                    "final_distances": distances,
                }
            )
    return pd.DataFrame(rows)


def test_the_table_is_the_mean_over_finished_runs_with_students_interval(runs, evaluation):
    table = measures_table(runs, evaluation, PAPER).set_index(["measure", "condition", "method"])
    row = table.loc[("return", "wall", "none")]
    values = -20.0 + np.arange(4)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(row[["mean", "mean_low", "mean_high"]], [values.mean(), *interval])
    assert (row.seeds, row.paper) == (4, -41.8)
    assert table.loc[("return", "nominal", "state_entropy")].seeds == 3  # one diverged
    assert np.isnan(table.loc[("final distance (m)", "wall", "none")].paper)


def test_one_seed_has_no_interval_and_absent_measures_no_rows(runs, evaluation):
    one = evaluation[evaluation.seed == 0].drop(columns=["final_distance", "final_distances"])
    table = measures_table(runs, one, PAPER)
    assert set(table.measure) == {"return"} and table.mean_low.isna().all()
    assert distance_figure(runs, one, PAPER) is None
    unknown = evaluation.assign(final_distance=np.nan)
    unknown["final_distances"] = [np.zeros(0)] * len(unknown)
    assert distance_figure(runs, unknown, PAPER) is None


def test_distances_are_drawn_as_shares_of_episodes(runs, evaluation):
    figure = distance_figure(runs, evaluation, PAPER)
    assert [axis.get_title() for axis in figure.axes] == ["nominal", "wall 1"]
    lines = figure.axes[0].get_lines()
    assert len(lines) == (4 + 1) + (3 + 1) + 1  # runs and their mean by method, and the threshold
    for line in lines[:-1]:
        assert (np.diff(line.get_xdata()) >= 0).all() and 0 < line.get_ydata()[0] < 0.05


#: Frames, success nominal and at the wall.
POINTS = ((10, 0.2, 0.9), (20, 0.8, 0.1), (30, 0.8, 0.3), (40, 0.5, 0.6))


@pytest.fixture
def progress(runs):
    """`none` is best nominally in the middle, where it fails at the wall."""
    rows = []
    for run in runs.itertuples():
        for frames, nominal, wall in (
            (10, 0.2, 0.9),
            (20, 0.8, 0.1),
            (30, 0.8, 0.3),
            (40, 0.5, 0.6),
        ):
            who = {"run_id": run.run_id, "method": run.method, "frames": frames}
            rows.append({**who, "perturbation": "nominal", "magnitude": 0.0, "success": nominal})
            rows.append({**who, "perturbation": "wall", "magnitude": 1.0, "success": wall})
    return pd.DataFrame(rows)


def test_the_best_policy_is_chosen_by_nominal_success_alone_and_the_latest_of_equals(
    runs, progress
):
    table = best_and_last(runs, progress, PAPER).set_index(["method", "condition"])
    row = table.loc[("none", "wall")]
    assert (row["last"], row.best, row.best_frames, row.runs) == (0.6, 0.3, 30, 4)
    assert table.loc[("state_entropy", "nominal")].runs == 3
    assert best_and_last(runs, pd.DataFrame(), PAPER).empty


def test_success_against_frames_draws_every_run(runs, progress):
    figure = success_against_frames(runs, progress, PAPER)
    assert [axis.get_title() for axis in figure.axes] == ["nominal", "wall 1"]
    assert [len(axis.get_lines()) for axis in figure.axes] == [4 + 1 + 3 + 1] * 2
    mean = figure.axes[1].get_lines()[4]
    np.testing.assert_allclose(mean.get_ydata(), [0.9, 0.1, 0.3, 0.6])
    assert success_against_frames(runs, pd.DataFrame(), PAPER) is None
