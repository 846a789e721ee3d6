import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrob import theory
from entrob.theory.limits import leaf_cvar
from entrob.theory.regularized import Weights


def test_every_number_is_refuted(mdp, policy):
    kernel = np.random.default_rng(0).dirichlet(np.ones(8), (8, 3))
    there = theory.tabular_mdp(kernel, mdp.r, mdp.gamma, mdp.mu)
    d, moved = (np.asarray(theory.occupancy(m, policy)).sum(-1) for m in (mdp, there))
    apart = np.abs(d - moved).sum() / 2
    floors = []
    for omega in (-10.0, -apart, -apart / 2, 0.0, 0.1, 3.0):
        found = theory.refute(omega, mdp, policy, kernel)
        assert found.errors.max() >= found.floor - 1e-15
        np.testing.assert_allclose(found.floor, apart / 2)
        floors.append(found.errors.max())
    # The least refuted number is the middle one, and it meets the floor.
    np.testing.assert_allclose(min(floors), apart / 2)


def test_a_function_of_policy_and_kernel_is_refuted(mdp, policy):
    kernel = np.random.default_rng(1).dirichlet(np.ones(8), (8, 3))
    omega = lambda policy, P: -0.1 * np.sum(policy * np.log(policy)) + P.max()
    assert theory.refute(omega, mdp, policy, kernel).errors.max() > 0.01


def test_the_same_kernel_refutes_nothing(mdp, policy):
    found = theory.refute(0.0, mdp, policy, mdp.P)
    assert found.floor == 0 and found.errors.max() < 1e-15


@pytest.mark.parametrize("name", ["policy", "state", "state_action"])
@pytest.mark.parametrize("beta", [0.05, 0.6])
@given(log_alpha=st.floats(-2, 1), log_gap=st.floats(-1, 2))
@settings(max_examples=4, deadline=None)
def test_the_regularized_optimum_loses_what_was_asked_for(name, beta, log_alpha, log_gap):
    alpha, gap = 10**log_alpha, 10**log_gap
    w = {"policy": (alpha, 0), "state": (0, alpha), "state_action": (alpha, alpha)}[name]
    risky = theory.risky_mdp(Weights(*w), gap, beta)
    found = theory.solve(risky.mdp, name, alpha, tolerance=1e-12)
    policy = np.asarray(found.policy)
    safe = np.eye(policy.shape[1])[np.zeros(len(policy), int)]
    np.testing.assert_allclose(1 - policy[0, 0], risky.risky, atol=1e-4)
    np.testing.assert_allclose(risky.risky * risky.bad, beta, rtol=1e-9)
    lost = leaf_cvar(risky, safe, beta) - leaf_cvar(risky, policy, beta)
    np.testing.assert_allclose(lost, gap, rtol=1e-4)
    # Without regularization the safe action is best, by the mean and so by every CVaR.
    plain = theory.solve(risky.mdp, name, 1e-9 * alpha)
    assert plain.value <= 1e-6 and leaf_cvar(risky, safe, beta) == 0


def test_the_leaves_cvar_is_the_return_distributions():
    risky = theory.risky_mdp(Weights(0.0, 1.0), 3.0, 0.25, gamma=0.5)
    policy = np.asarray(theory.solve(risky.mdp, "state", 1.0).policy)
    low, high = theory.cvar_bounds(risky.mdp, policy, 0.25, atoms=4001)
    assert low <= leaf_cvar(risky, policy, 0.25) <= high and high - low < 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((Weights(0.0, 0.0), 1.0, 0.5), "the sum of the weights"),
        ((Weights(1.0, -1.0), 1.0, 0.5), "a weight"),
        ((Weights(1.0, 0.0), 0.0, 0.5), "gap must be > 0"),
        ((Weights(1.0, 0.0), 1.0, 1.0), "beta must be < 1"),
        ((Weights(1.0, 0.0), 1.0, 0.5, 1.0), "gamma must be < 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.risky_mdp(*arguments)
