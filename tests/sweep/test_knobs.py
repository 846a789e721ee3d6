"""Knobs on numbers made by hand: what is tried, and what is taken."""

import dataclasses
import math

import numpy as np
import pytest

from entrob.regularizers import regularizers
from entrob.sweep.experiment import Method
from entrob.sweep.knobs import Knob, beyond, center, grid, knob_of, largest_keeping

FREE = Knob("coefficient", "policy_entropy", 0.01)
SHARE = Knob("coefficient", "steer", 0.5, (0.0, 1.0))
FULL = Method(
    "m",
    {"policy_entropy": 0.1},
    {"policy_entropy": {"schedule": None}},
    params={"goal_spread": 0.0},
    training={"reward_noise": 0.1},
    randomize={"slip": [0.0, 0.2]},
    adversary={"kind": "pr_mdp", "strength": 0.1},
    mixture=[["slip", 0.3, 1.0]],
    hyper={"clip": 0.1},
    temperature=1.5,
    fidelity="reference",
)


@pytest.mark.parametrize(
    ("knob", "field", "value"),
    [
        (FREE, "coefficients", {"policy_entropy": 0.7}),
        (Knob("strength"), "adversary", {"kind": "pr_mdp", "strength": 0.7}),
        (Knob("learning_rate"), "hyper", {"clip": 0.1, "learning_rate": 0.7}),
        (Knob("temperature"), "temperature", 0.7),
    ],
)
def test_a_candidate_is_its_method_but_for_one_number(knob, field, value):
    candidate = knob.candidate(FULL, 0.7)
    assert getattr(candidate, field) == value and candidate.name == "m@0.7"
    assert candidate == dataclasses.replace(FULL, value="0.7", **{field: value})


def test_a_grid_is_seven_values_half_a_decade_apart():
    values = grid(FREE, 0.01, 7)
    assert len(values) == 7 and values[3] == 0.01
    np.testing.assert_allclose(np.diff(np.log10(values)), 0.5, atol=0.005)


def test_a_bounded_grid_is_even_in_the_logit_and_within():
    values = np.array(grid(SHARE, 0.5, 7))
    assert len(values) == 7 and values[3] == 0.5 and (values > 0).all() and (values < 1).all()
    np.testing.assert_allclose(np.diff(np.log10(values / (1 - values))), 0.5, atol=0.02)
    np.testing.assert_allclose(values + values[::-1], 1.0, atol=1e-3)


@pytest.mark.parametrize("name", [n for n in regularizers.names() if ":" not in n])
def test_no_regularizer_is_tried_outside_its_domain_or_twice_alike(name, tiny):
    method = Method(name, {name: regularizers.get(name)().coef})
    knob = knob_of(method, tiny)
    low, high = knob.domain
    for at in (knob.middle, center(knob, {knob.middle: 1e-9}), center(knob, {knob.middle: 1e9})):
        values = grid(knob, at, 7)
        assert values and all(low <= v < high and v > 0 for v in values)
        keys = [knob.distinct(v) if knob.distinct else v for v in values]
        assert len(set(keys)) == len(keys)


def test_what_acts_alike_is_tried_once_and_what_acts_like_none_never():
    counted = dataclasses.replace(FREE, distinct=lambda value: int(10 * value))
    assert grid(counted, 0.3, 7) == (0.3, 0.949, 3.0, 9.49)
    assert beyond(counted, (0.3, 0.949), 2) == (3.0, 9.49)
    counted = dataclasses.replace(FREE, distinct=lambda value: min(int(10 * value), 50))
    assert beyond(counted, (0.3, 0.949), 5) == (3.0, 9.49)  # what is larger acts like the last


def test_a_grid_goes_on_where_it_ended_and_stays_within():
    values = grid(FREE, 0.01, 7)
    np.testing.assert_allclose(values + beyond(FREE, values, 4), grid(FREE, 0.1, 11), rtol=0.01)
    further = beyond(SHARE, grid(SHARE, 0.5, 7), 20)
    assert 0.969 < further[0] < further[-1] < 1 and len(further) < 20
    assert beyond(SHARE, further, 3) == ()


def test_values_are_centered_where_activity_is_a_tenth():
    assert center(FREE, {0.01: 0.001}) == 1.0
    assert center(FREE, {0.01: 0.5}) == 0.002
    assert center(FREE, {0.01: 0.01, 0.1: 0.03, 1.0: 0.3}) == pytest.approx(0.334, rel=0.01)
    noisy = {0.01: 0.01, 0.1: 0.2, 1.0: 0.05, 10.0: 0.9}  # the two in the middle are one level
    assert center(FREE, noisy) == pytest.approx(0.1)
    for unknown in ({}, {0.01: math.nan}, {0.01: 0.0}):
        assert center(FREE, unknown) == 0.01
    assert SHARE.domain[0] < center(SHARE, {0.5: 1e-6}) < 1


@pytest.mark.parametrize(
    ("scores", "taken"),
    [
        ((1.0, 1.0, 1.0, 1.0), (8.0, True, True)),
        ((0.9, 0.9, 0.9, 0.9), (1.0, False, False)),
        ((1.0, 1.0, 0.94, 0.5), (10**0.4515, True, False)),  # half way from 2 to 4
        ((1.0, 0.96, 0.98, 0.5), (4.0, True, False)),  # noise: the mean of the two keeps 97 %
        ((1.0, float("nan"), 0.0, 0.0), (1.02, True, False)),  # unknown fails
    ],
)
def test_the_largest_that_keeps_the_price_is_found_between_values(scores, taken):
    value, passed, open_ = largest_keeping(FREE, (1.0, 2.0, 4.0, 8.0), scores, 0.97)
    assert (passed, open_) == taken[1:]
    assert value == pytest.approx(taken[0], rel=0.01)


def test_the_price_of_what_is_taken_lies_on_the_curve():
    rng = np.random.default_rng(0)
    values = grid(SHARE, 0.5, 7)
    for _ in range(200):
        scores = np.sort(rng.uniform(0.8, 1.1, 7))[::-1]
        value, passed, open_ = largest_keeping(SHARE, values, scores, 0.97)
        curve = np.interp(SHARE.place(value), [SHARE.place(v) for v in values], scores)
        if passed and not open_:
            assert curve == pytest.approx(0.97, abs=5e-3)
        else:
            assert (scores.min() >= 0.97) if open_ else (scores.max() < 0.97)
