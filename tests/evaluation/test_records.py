"""The fields of a record, worked out by hand."""

import numpy as np
import pytest

from entrob.envs.shortest_path import UNREACHABLE
from entrob.evaluation.batch import Outcome
from entrob.evaluation.records import records

HORIZON = 10
#: One run on five instances: solved in 3 and in 10 steps, failed twice, and one without a way.
OUTCOME = Outcome(
    steps_to_success=np.array([[3, 10, 0, 0, 0]], np.int32),
    episode_return=np.array([[1.0, 0.5, 0.0, 0.0, 0.0]], np.float32),
    final_distance=np.array([[0.1, 0.1, 0.4, 0.3, 0.6]], np.float32),
    exact=np.array([[0.9, 0.4, 0.2, 0.1, 0.0]], np.float32),
    occupancy=np.zeros((1, 0), np.float32),
    trace=None,
    optimum=np.array([3, 8, 2, 10, UNREACHABLE], np.int32),
)


def test_every_field():
    (row,) = records(OUTCOME, HORIZON, cvar_fraction=0.5)
    assert row["episodes"] == 5
    assert row["success"] == pytest.approx(2 / 5)
    assert row["solvable"] == pytest.approx(4 / 5)
    assert row["success_solvable"] == pytest.approx(2 / 4)
    assert row["steps_to_success"].dtype == np.int32
    assert row["steps_to_success"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert row["return_mean"] == pytest.approx(0.3)
    assert row["return_q50"] == 0.0 and row["return_q75"] == 0.5
    assert row["return_q95"] == pytest.approx(0.9)  # 0.8 of the way from 0.5 to 1
    # Steps above the optimum on the four solvable ones: 0, 2, 10 - 2 and 10 - 10.
    assert row["regret_mean"] == pytest.approx((0 + 2 + 8 + 0) / 4)
    assert row["exact_success"] == pytest.approx((0.9 + 0.4 + 0.2 + 0.1) / 5)
    assert row["exact_worst"] == pytest.approx(0.1)
    assert row["exact_cvar"] == pytest.approx((0.1 + 0.2) / 2)
    np.testing.assert_allclose(row["instance_success"][:4], OUTCOME.exact[0, :4])
    assert np.isnan(row["instance_success"][4])
    assert row["final_distance"] == pytest.approx(0.3)
    # Quantiles in the middles of fifty shares: 0.01, 0.03, ... of the way along five distances.
    assert row["final_distances"].shape == (50,) and row["final_distances"].dtype == np.float32
    np.testing.assert_allclose(row["final_distances"][[0, 25]], [0.1, 0.3 + 0.04 * 0.1], rtol=1e-5)


def test_success_at_every_horizon_is_the_cumulated_histogram():
    (row,) = records(OUTCOME, HORIZON)
    curve = np.cumsum(row["steps_to_success"]) / row["episodes"]
    by_hand = [np.mean((OUTCOME.steps_to_success[0] > 0) & (OUTCOME.steps_to_success[0] <= t))
               for t in range(1, HORIZON + 1)]  # fmt: skip
    np.testing.assert_allclose(curve, by_hand)


def test_an_optimum_beyond_the_horizon_counts_as_unsolvable():
    (row,) = records(OUTCOME._replace(optimum=np.array([3, 10, 11, 12, 2], np.int32)), HORIZON)
    assert row["solvable"] == pytest.approx(3 / 5)


def test_where_nothing_is_solvable():
    none = OUTCOME._replace(
        steps_to_success=np.zeros((1, 5), np.int32),
        exact=np.zeros((1, 5), np.float32),
        optimum=np.full(5, UNREACHABLE, np.int32),
    )
    (row,) = records(none, HORIZON)
    assert row["success"] == row["solvable"] == row["exact_success"] == 0
    for field in ("success_solvable", "regret_mean", "exact_worst", "exact_cvar"):
        assert np.isnan(row[field])
    assert np.isnan(row["instance_success"]).all()


def test_where_the_environment_is_not_finite():
    unknown = OUTCOME._replace(
        exact=np.full((1, 5), np.nan, np.float32), optimum=np.full(5, -1, np.int32)
    )
    (row,) = records(unknown, HORIZON)
    assert row["solvable"] == 1 and row["success"] == row["success_solvable"] == pytest.approx(0.4)
    for field in ("regret_mean", "exact_success", "exact_worst", "exact_cvar"):
        assert np.isnan(row[field])


def test_a_record_per_run():
    two = OUTCOME._replace(
        steps_to_success=np.array([[3, 10, 0, 0, 0], [1, 1, 1, 1, 0]], np.int32),
        episode_return=np.zeros((2, 5), np.float32),
        final_distance=np.full((2, 5), np.nan, np.float32),
        exact=np.stack([OUTCOME.exact[0], np.ones(5, np.float32)]),
    )
    first, second = records(two, HORIZON)
    assert first["success"] == pytest.approx(0.4) and second["success"] == pytest.approx(0.8)
    assert second["steps_to_success"][0] == 4 and second["exact_worst"] == 1
    assert np.isnan(second["final_distance"]) and second["final_distances"].size == 0
