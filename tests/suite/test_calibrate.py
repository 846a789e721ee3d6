"""The rule that chooses magnitudes, on curves that are known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.perturbations import perturbations
from entrob.suite.calibrate import (
    LEAST,
    MOST,
    calibration,
    chosen,
    fine_grid,
    losses,
    magnitudes_by_rule,
)
from entrob.sweep.experiment import FIRST_CALIBRATION_SEED, FIRST_TUNING_SEED

GRID = np.linspace(0.05, 1, 20)


def test_a_linear_curve_is_cut_evenly_between_a_tenth_and_nine_tenths():
    rule = magnitudes_by_rule(GRID, GRID)
    # Aims: 0.1 and 0.9, each less a margin of a tenth, and the middle.
    assert rule.magnitudes == (0.2, 0.5, 0.8) and rule.largest == 1
    np.testing.assert_allclose(rule.losses, rule.magnitudes, atol=1e-12)
    assert magnitudes_by_rule(GRID, GRID, count=2).magnitudes == (0.2, 0.8)


@pytest.mark.parametrize(
    "curve",
    [
        lambda m: m**2,
        lambda m: 1 - np.exp(-20 * m),
        lambda m: 0.3 * m,
        lambda m: 1 / (1 + np.exp(-30 * (m - 0.6))),
        lambda m: np.where(m > 0.4, 0.5, 0.0),
    ],
)
def test_every_magnitude_loses_between_the_bounds_and_no_two_the_same(curve):
    rule = magnitudes_by_rule(GRID, curve(GRID))
    assert 1 <= len(rule.magnitudes) <= 3
    assert all(LEAST <= loss <= MOST for loss in rule.losses)
    assert (np.diff(rule.losses) >= 0.05).all() and (np.diff(rule.magnitudes) > 0).all()
    assert all(0 < m <= 1 for m in rule.magnitudes)


def test_a_steep_curve_takes_small_magnitudes():
    rule = magnitudes_by_rule(GRID, 1 - np.exp(-20 * GRID))
    assert max(rule.magnitudes) < 0.1


def test_what_harms_nobody_has_no_magnitudes_and_says_what_it_costs():
    rule = magnitudes_by_rule(GRID, 0.09 * GRID)
    assert rule == ((), (), pytest.approx(0.09))
    assert magnitudes_by_rule(GRID, -GRID).magnitudes == ()
    nothing = magnitudes_by_rule(GRID, np.full(20, np.nan))
    assert nothing.magnitudes == () and np.isnan(nothing.largest)


def test_noise_does_not_make_a_curve_turn():
    rng = np.random.default_rng(0)
    rule = magnitudes_by_rule(GRID, GRID + rng.normal(0, 0.05, 20))
    np.testing.assert_allclose(rule.magnitudes, (0.2, 0.5, 0.8), atol=0.08)
    # In any order, and a condition that was not measured is left out.
    order = rng.permutation(20)
    loss = GRID.copy()
    loss[3] = np.nan
    assert magnitudes_by_rule(GRID[order], loss[order]).magnitudes == (0.2, 0.5, 0.8)


def test_whole_numbers_are_those_that_were_tried():
    steps = np.arange(1, 9)
    assert magnitudes_by_rule(steps, steps / 10, integer=True).magnitudes == (2, 4, 7)
    # `two_paths`: walls of 1 to 7 cells are one and the same.
    same = magnitudes_by_rule(steps, np.where(steps < 8, 0.4, 1.0), integer=True)
    assert same.magnitudes == (1,) and same.losses == (pytest.approx(0.4),)
    # From nothing to everything: no number lies between, and none is made up.
    assert magnitudes_by_rule(steps, np.where(steps < 4, 0.0, 1.0), integer=True).magnitudes == ()


def test_losses_are_shares_of_what_none_has_above_random():
    rows = [("nominal", 0, 90.0), ("nominal", 0, 110.0), ("slip", 0.5, 60.0), ("slip", 0.5, 60.0)]
    rows += [("wall", 4, 20.0), ("wall", 4, 20.0)]
    records = pd.DataFrame(rows, columns=["perturbation", "magnitude", "return_mean"])
    table = losses(records, "return_mean", floor=20.0, top=120.0).set_index("perturbation")
    assert table.loss.to_dict() == {"slip": 0.5, "wall": 1.0}
    assert table.score.to_dict() == {"slip": 0.4, "wall": 0.0}
    unlearned = losses(records, "return_mean", floor=100.0)
    assert unlearned.loss.isna().all() and unlearned.score.isna().all()


def test_fine_grids_cover_the_range():
    _, params = make("minigrid/empty-8x8", noise=True)
    assert fine_grid(perturbations.get("wall", params), params) == tuple(range(1, 9))
    slip = fine_grid(perturbations.get("slip", params), params)
    assert len(slip) == 19 and slip[-1] == 1 and slip[0] == pytest.approx(1 / 64, rel=1e-2)
    np.testing.assert_allclose(np.divide(slip[1:11], slip[:10]), 2**0.5, rtol=1e-2)
    np.testing.assert_allclose(np.diff(slip[10:]), 1 / 16, rtol=0.02)


def test_calibration_shares_no_seed_and_no_instance_with_what_is_reported(tiny):
    made = calibration(tiny, 20)
    assert made.first_seed == made.evaluation_seed == FIRST_CALIBRATION_SEED > FIRST_TUNING_SEED
    assert made.seeds == 20 and [m.name for m in made.methods] == ["none"]
    assert made.perturbations == {"wall": tuple(range(1, 9))}
    assert made.evaluation_seed != tiny.evaluation_seed
    with pytest.raises(EntrobError, match="calibration seeds must be a whole number"):
        calibration(tiny, 0)


def test_the_rule_for_a_task(tiny):
    experiment = dataclasses.replace(tiny, perturbations={"wall": (8.0,), "slip": (1.0,)})
    rows = [("wall", m, m / 10) for m in range(1, 9)] + [("slip", m, 0.05 * m) for m in GRID]
    table = pd.DataFrame(rows, columns=["perturbation", "magnitude", "loss"])
    found, harmless = chosen(table, experiment)
    assert found == {"wall": (2, 4, 7)} and harmless == {"slip": pytest.approx(0.05)}
