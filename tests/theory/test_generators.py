import jax
import numpy as np
import pytest

import entrob
from entrob import theory
from entrob.evaluation.exact import optimal_steps, transitions


def test_garnet_has_its_successors_and_positive_rewards():
    mdp = theory.garnet(jax.random.key(1), 12, 3, 4)
    assert ((np.asarray(mdp.P) > 0).sum(-1) == 4).all()
    theory.tabular_mdp(*mdp)
    assert np.min(mdp.r) >= 0.05 and np.max(mdp.r) <= 1


def test_garnets_shares_are_gaps_of_uniform_numbers():
    # With two successors the larger share of 1 is uniform in [1/2, 1]: mean 3/4, variance 1/48.
    P = np.asarray(theory.garnet(jax.random.key(2), 40, 50, 2).P).max(-1).ravel()
    assert abs(P.mean() - 0.75) < 4 * np.sqrt(1 / 48 / P.size)
    assert abs(P.var() - 1 / 48) < 0.003


def test_dense_rows_are_uniform_on_the_simplex():
    # Each probability is Beta(1, S - 1): mean 1/S, variance (S - 1)/(S²(S + 1)).
    P = np.asarray(theory.dense(jax.random.key(3), 5, 400).P)[0]
    np.testing.assert_allclose(P.mean(0), 0.2, atol=0.03)
    np.testing.assert_allclose(P.var(0), 4 / (25 * 6), rtol=0.3)


def test_the_gridworld_is_the_environments():
    env, params = entrob.make("minigrid/empty-8x8")
    mdp = theory.gridworld(env, params, gamma=0.9)
    assert mdp.P.shape == (257, 3, 257)
    best = theory.solve(mdp, "policy", 1e-6, tolerance=1e-8)
    # One success, at the last of the fewest steps, discounted.
    steps = int(optimal_steps(transitions(env, params)))
    np.testing.assert_allclose(best.value, 0.1 * 0.9 ** (steps - 1), rtol=1e-3)


def test_slip_mixes_the_actions():
    env, params = entrob.make("minigrid/empty-8x8")
    sure, slippery = (theory.gridworld(env, params, slip=x) for x in (0, 0.3))
    np.testing.assert_allclose(slippery.P, 0.7 * sure.P + 0.3 * sure.P.mean(1, keepdims=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k: theory.garnet(k, 5, 2, 6), "branching"),
        (lambda k: theory.garnet(k, 0, 2, 1), "states"),
        (lambda k: theory.dense(k, 3, 0), "actions"),
        (lambda k: theory.gridworld(*entrob.make("minigrid/empty-8x8"), slip=2), "slip"),
        (lambda k: theory.gridworld(*entrob.make("gymnax:CartPole-v1")), "not finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))
