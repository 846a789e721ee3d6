"""Scores, prices and recovered shares on records made by hand."""

import numpy as np
import pandas as pd
import pytest

from entrob.perturbations import NOMINAL
from entrob.statistics.board import weighted
from entrob.suite.scores import Scale, cell_rows, priced, recovered, return_scale, scored

RETURN = return_scale(random=-100.0, none=100.0)


def records(values, status=()):
    """Records with returns by (method, seed): nominal, then under slip 0.3."""
    rows, runs = [], []
    for (method, seed), returns in values.items():
        id = f"{method}/{seed}"
        runs.append({"run_id": id, "status": "diverged" if id in status else "finished"})
        for (name, m), value in zip([(NOMINAL, 0.0), ("slip", 0.3)], returns):
            who = {"run_id": id, "method": method, "seed": seed}
            rows.append({**who, "perturbation": name, "magnitude": m, "return_mean": value})
    return pd.DataFrame(runs), pd.DataFrame(rows)


def test_returns_count_from_random_to_none():
    runs, evaluation = records({("none", 0): (100.0, 0.0), ("m", 0): (200.0, -100.0)})
    scores = scored(runs, evaluation, RETURN)
    assert scores.score.tolist() == [1.0, 0.5, 1.5, 0.0] and not scores.exact.any()


def test_a_scale_without_learning_is_of_unit_length():
    assert return_scale(5.0, 5.0) == Scale("return", 5.0, 6.0)


def test_a_diverged_run_counts_zero_or_the_worst_below():
    values = {("none", 0): (100.0, -140.0), ("m", 0): (300.0, 300.0), ("m", 1): (np.nan, 0.0)}
    runs, evaluation = records(values, status=["m/0"])
    by = scored(runs, evaluation, RETURN).set_index(["run_id", "perturbation"]).score
    assert by["m/0", NOMINAL] == 0.0 and by["m/0", "slip"] == pytest.approx(-0.2)
    assert by["m/1", NOMINAL] == 0.0 and by["m/1", "slip"] == 0.5


def test_success_is_exact_where_it_is_known_and_sampled_under_noise():
    frame = pd.DataFrame(
        {
            "run_id": ["a", "a"],
            "method": "none",
            "seed": 0,
            "perturbation": ["wall", "slip"],
            "magnitude": [3.0, 0.3],
            "exact_success": [0.5, np.nan],
            "instance_success": [[0.5, np.nan, 1.0], [np.nan] * 3],
            "success_solvable": [0.1, 0.25],
        }
    )
    runs = pd.DataFrame({"run_id": ["a"], "status": ["finished"]})
    scores = scored(runs, frame, Scale("success"))
    assert scores.score.tolist() == [0.75, 0.25] and scores.exact.tolist() == [True, False]


def test_prices_are_paired_by_seed_and_average_to_the_share_given_up():
    values = {("none", seed): (100.0, 0.0) for seed in (0, 1)}
    values |= {("m", 0): (80.0, 0.0), ("m", 1): (20.0, 0.0)}
    priced_ = priced(scored(*records(values), RETURN))
    own = priced_[(priced_.method == "m") & (priced_.perturbation == NOMINAL)]
    assert own.price.tolist() == pytest.approx([0.1, 0.4])
    assert priced_[priced_.perturbation == "slip"].price.isna().all()
    base = priced_[(priced_.method == "none") & (priced_.perturbation == NOMINAL)]
    assert base.price.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("score", "share"), [(0.5, 0.0), (0.9, 1.0), (0.7, 0.5), (0.3, -0.5)])
def test_a_share_of_one_is_the_reference_and_of_zero_is_none(score, share):
    none, evaluation = records({("none", 0): (100.0, 0.0)})
    calibration = scored(none, evaluation, RETURN)
    references = {("slip", 0.3): 0.9}
    rows = cell_rows("task", calibration, {"slip": (0.3,)}, {"slip": "action noise"}, references)
    cells = weighted(rows)
    assert cells.kept.tolist() == [True] and cells.gap.tolist() == pytest.approx([0.4])
    runs, evaluation = records({("m", 0): (100.0, -100 + 200 * score)})
    base = calibration.groupby(["perturbation", "magnitude"]).score.mean()
    found = recovered(scored(runs, evaluation, RETURN), cells, base)
    assert found.loc["m/0", "action noise"] == pytest.approx(share)


def test_a_cell_without_a_reference_does_not_count():
    none, evaluation = records({("none", 0): (100.0, 0.0)})
    rows = cell_rows(
        "task", scored(none, evaluation, RETURN), {"slip": (0.3,)}, {"slip": "action noise"},
        {("slip", 0.3): np.nan},
    )  # fmt: skip
    assert weighted(rows).kept.tolist() == [False]
