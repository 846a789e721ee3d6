import functools
import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr

from entrob.theory.rollout_optima import ROLLOUTS, rollout_optima
from entrob.theory.rollouts import (
    CELLS,
    MOVES,
    entropy_bound,
    next_cells,
    pooled_entropy,
    sampled_entropy,
    visit_counts,
)

CORNER = 0
UP, RIGHT, DOWN, LEFT = range(4)


def random_policy(seed, sharpness=1.0):
    weights = np.exp(sharpness * np.random.default_rng(seed).normal(size=(CELLS, 4)))
    return weights / weights.sum(-1, keepdims=True)


def deterministic(actions):
    """The policy with these actions, cell by cell."""
    return np.eye(4)[np.array(["URDL".index(a) for row in actions for a in row])]


def enumerate_counts(policy, start, moves):
    """Count vectors of all action sequences with their probabilities."""
    to = next_cells()
    for actions in itertools.product(range(4), repeat=moves):
        cell, chance = start, 1.0
        visits = np.zeros(CELLS)
        visits[cell] += 1
        for a in actions:
            chance *= policy[cell, a]
            cell = to[cell, a]
            visits[cell] += 1
        yield visits, chance


def neighbors(cell):
    return set(next_cells()[cell].tolist()) - {cell}


@functools.cache
def longest_paths():
    """All paths from the corner that visit every cell once."""

    def extend(path):
        if len(path) == CELLS:
            return [path]
        return [p for c in sorted(neighbors(path[-1]) - {*path}) for p in extend((*path, c))]

    return extend((CORNER,))


def test_moves_of_the_grid():
    to = next_cells()
    assert to.shape == (12, 4)
    assert to[0].tolist() == [0, 1, 6, 0]
    assert to[8].tolist() == [2, 9, 8, 7]
    assert to[11].tolist() == [5, 11, 11, 10]


@pytest.mark.parametrize("start", [0, 8])
def test_everything_agrees_with_all_action_sequences(start):
    moves, policy = 4, random_policy(start)
    visits, chance = (np.array(x) for x in zip(*enumerate_counts(policy, start, moves)))
    by_number = [chance @ (visits == k) for k in range(moves + 2)]
    np.testing.assert_allclose(
        visit_counts(policy, start, moves), np.transpose(by_number), atol=1e-14
    )
    F = lambda n: float(pooled_entropy(policy, n, start, moves))
    np.testing.assert_allclose(F(1), chance @ entr(visits / 5).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(F(math.inf), entr(chance @ visits / 5).sum(), rtol=1e-12)
    vectors, which = np.unique(visits, axis=0, return_inverse=True)
    chance = np.bincount(which.ravel(), chance)
    pairs = entr((vectors[:, None] + vectors) / 10).sum(-1)
    np.testing.assert_allclose(F(2), chance @ pairs @ chance, rtol=1e-12)


def test_one_move_by_hand():
    p, policy = 0.3, np.tile([0.7, 0.3, 0.0, 0.0], (CELLS, 1))  # up stays in the corner
    F = lambda n: float(pooled_entropy(policy, n, CORNER, 1))
    both, one = math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    np.testing.assert_allclose(F(1), p * both)
    np.testing.assert_allclose(F(2), p**2 * both + 2 * p * (1 - p) * one)
    np.testing.assert_allclose(F(math.inf), entr([1 - p / 2, p / 2]).sum())


@given(seed=st.integers(0, 2**32 - 1), sharpness=st.floats(0, 6))
@settings(max_examples=15, deadline=None)
def test_pooling_only_raises_the_entropy(seed, sharpness):
    policy = random_policy(seed, sharpness)
    F = [float(pooled_entropy(policy, n)) for n in (1, 2, 5, math.inf)]
    assert (np.diff(F) > -1e-12).all()
    assert F[0] > 0
    assert F[-1] <= math.log(12) + 1e-12


def test_simulation_agrees():
    policy = random_policy(3, 1.5)
    for n in (1, 3):
        middle, low, high = sampled_entropy(jax.random.key(n), policy, n, 20_000)
        assert low < middle < high
        half = high - middle
        assert half < 0.01
        assert abs(middle - float(pooled_entropy(policy, n))) < 1.5 * half


def test_bound_on_the_entropy():
    np.testing.assert_allclose(entropy_bound(1), math.log(12))
    np.testing.assert_allclose(entropy_bound(1, 4), math.log(5))
    np.testing.assert_allclose(entropy_bound(2, 4), math.log(10))
    np.testing.assert_allclose(entropy_bound(1, 17), entr([1 / 18] * 6 + [2 / 18] * 6).sum())
    np.testing.assert_allclose(entropy_bound(2, 17), math.log(12))
    np.testing.assert_allclose(entropy_bound(math.inf, 17), math.log(12))


def test_going_around_the_grid_attains_the_bound_of_one_rollout():
    ring = deterministic(["RRRRRD", "ULLLLL"])
    for moves in (5, 11, 17):
        F = float(pooled_entropy(ring, 1, CORNER, moves))
        np.testing.assert_allclose(F, entropy_bound(1, moves))
        np.testing.assert_allclose(float(pooled_entropy(ring, 7, CORNER, moves)), F)


def test_no_stationary_policy_mixes_two_longest_paths():
    assert len(longest_paths()) == 6
    for pair in itertools.combinations(longest_paths(), 2):
        follow = {}
        for path in pair:
            for cell, successor in itertools.pairwise(path):
                follow.setdefault(cell, set()).add(successor)
        ends = [(CORNER,)]
        for _ in range(11):
            ends = [(*path, c) for path in ends for c in follow.get(path[-1], {path[-1]})]
        assert any(len({*path}) < CELLS for path in ends)


@pytest.fixture(scope="module")
def optima():
    found = rollout_optima(jax.random.key(0), (1, 2, math.inf), starts=8, iterations=200)
    return found._asdict()


def test_single_rollout_optimum_is_a_longest_path(optima):
    assert optima["bound"].tolist() == [math.log(12)] * 3
    np.testing.assert_allclose(optima["value"][:2], math.log(12), rtol=1e-12)
    assert optima["converged"].all()
    for policy in optima["policy"][:2].reshape(2, CELLS, 4):
        cell, path = CORNER, [CORNER]
        for _ in range(11):
            assert policy[cell].max() > 0.999
            cell = next_cells()[cell, policy[cell].argmax()]
            path.append(int(cell))
        assert tuple(path) in longest_paths()
        np.testing.assert_allclose(policy[cell], 0.25)  # where the path ends nothing is decided
    assert (optima["policy_entropy_high"][:2] < 1e-9).all()


def test_the_limit_has_random_optima(optima):
    np.testing.assert_allclose(optima["value"][-1], math.log(12), atol=1e-4)
    assert optima["policy_entropy"][-1] > 0.3
    assert optima["single"][-1] < math.log(12) - 0.3


def test_optima_are_consistent(optima):
    names = ("policy", "rollouts", "value", "uniform", "single", "limit")
    for policy, n, value, uniform, single, limit in zip(*(optima[name] for name in names)):
        policy = policy.reshape(CELLS, 4)
        again = [pooled_entropy(policy, m) for m in (n, 1, math.inf)]
        np.testing.assert_allclose(again, [value, single, limit], rtol=1e-12)
        np.testing.assert_allclose(pooled_entropy(np.full((CELLS, 4), 0.25), n), uniform)
    np.testing.assert_allclose(optima["visits"].sum((1, 2)), 1)
    np.testing.assert_allclose(entr(optima["visits"]).sum((1, 2)), optima["limit"], rtol=1e-12)
    np.testing.assert_allclose(optima["sampled"][:2, 1:], math.log(12), rtol=1e-12)
    assert np.isnan(optima["sampled"][2]).all()
    assert (optima["policy_entropy"] <= optima["policy_entropy_high"]).all()


def test_two_moves_by_hand():
    # One rollout can at best see 3 cells; on average the 4 cells besides the corner can be even.
    found = rollout_optima(jax.random.key(1), (1, math.inf), 0, 2, starts=4, iterations=300)
    even = math.log(3) / 3 + 2 / 3 * math.log(6)
    np.testing.assert_allclose(found.value, [math.log(3), even], atol=1e-6)
    assert found.converged[0] and abs(found.gap[0]) < 1e-12 and 0 <= found.gap[1] < 1e-3
    assert found.value[1] < found.bound[1]
    np.testing.assert_allclose(
        found.visits[1, :, :3], [[1 / 3, 1 / 6, 1 / 6], [1 / 6, 1 / 6, 0]], atol=1e-3
    )


def test_an_unfinished_ascent_says_so():
    found = rollout_optima(jax.random.key(1), (2,), 0, 3, starts=1, iterations=1)
    assert not found.converged[0] and found.gap[0] > 1e-3


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda p: pooled_entropy(p[:, :3], 1), "policy"),
        (lambda p: pooled_entropy(2 * p, 1), "policy"),
        (lambda p: pooled_entropy(p, 0), "rollouts"),
        (lambda p: pooled_entropy(p, 1.5), "rollouts"),
        (lambda p: pooled_entropy(p, 1, start=12), "start"),
        (lambda p: visit_counts(p, 0, moves=0), "moves"),
        (lambda p: entropy_bound(math.nan), "rollouts"),
        (lambda p: sampled_entropy(jax.random.key(0), p, math.inf, 9), "rollouts"),
        (lambda p: sampled_entropy(jax.random.key(0), p, 1, 1), "groups"),
        (lambda p: rollout_optima(jax.random.key(0), ()), "rollouts"),
        (lambda p: rollout_optima(jax.random.key(0), (4,), simulated=7), "simulated"),
        (lambda p: rollout_optima(jax.random.key(0), starts=0), "starts"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ValueError, match=name):
        call(random_policy(0))


def test_the_default_horizon_is_the_longest_path():
    assert len(ROLLOUTS) == 7 and MOVES + 1 == CELLS
