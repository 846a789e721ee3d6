import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrob import theory
from entrob.theory.coverage import entropy_modulus, slack


def test_estimates_are_unbiased_and_distributions(mdp, policy):
    with jax.enable_x64(True):
        draw = jax.jit(jax.vmap(lambda k: theory.estimate(k, mdp, policy, 50, 150)))
        found = jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(0), 100)))
    np.testing.assert_allclose(found.d.sum(-1), 1, atol=1e-12)
    d = theory.occupancy(mdp, policy).sum(-1)
    error = np.asarray(found.d).std(0) / 10
    assert (np.abs(np.mean(found.d, 0) - d) < 5 * error).all()
    off = np.mean(found.reward) - theory.expected_reward(mdp, policy)
    assert abs(off) < 5 * np.std(found.reward) / 10
    log_r = mdp._replace(r=np.log(mdp.r))
    off = np.mean(found.log_reward) - theory.expected_reward(log_r, policy)
    assert abs(off) < 5 * np.std(found.log_reward) / 10


@given(st.integers(2, 9), st.floats(0, 1), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_no_entropy_moves_further_than_its_modulus(states, share, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(states, 0.3), 2)
    q = (1 - share) * p + share * q
    h = lambda x: -np.sum(x[x > 0] * np.log(x[x > 0]))
    with jax.enable_x64(True):
        most = float(entropy_modulus(np.abs(p - q).sum() / 2, states))
    assert abs(h(p) - h(q)) <= most + 1e-12


def test_the_modulus_is_attained():
    p = np.eye(4)[0]
    q = np.array([0.7, 0.1, 0.1, 0.1])
    with jax.enable_x64(True):
        np.testing.assert_allclose(entropy_modulus(0.3, 4), theory.entropy(q) - theory.entropy(p))
        np.testing.assert_allclose(entropy_modulus(0.9, 4), np.log(4))


def test_the_slack_vanishes_with_more_trajectories():
    with jax.enable_x64(True):
        sizes = [float(slack(1.0, 8, 0.9, 0.1, 0.05, n, 300)) for n in (10, 1_000, 1_000_000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.01


def test_the_bounds_hold_and_a_bound_without_slack_would_not(mdp, policy):
    alpha, epsilon, delta, n = 0.1, 0.1, 0.05, 64
    reward = theory.worst_case_reward(mdp, policy, "state", alpha, epsilon).value
    kernel = theory.worst_case_kernel(mdp, policy, alpha, epsilon).value

    def bounds(key):
        found = theory.estimate(key, mdp, policy, n, 150)
        size = (alpha, epsilon, delta, n, 150)
        free = found.reward + alpha * (theory.entropy(found.d) - jnp.log(8.0)) - epsilon
        first = theory.reward_bound(found, mdp, *size)
        return first, theory.kernel_bound_sampled(found, mdp, *size), free

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), 400)
        first, second, free = jax.jit(jax.vmap(bounds))(keys)
    assert np.mean(first > reward) <= delta and np.mean(second > kernel) <= delta
    assert np.mean(np.asarray(free) > reward) > delta


def test_bad_input(mdp, policy):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="trajectories must be >= 1"):
        theory.estimate(key, mdp, policy, 0, 10)
    with pytest.raises(ValueError, match="horizon must be >= 1"):
        theory.estimate(key, mdp, policy, 10, 0)
    found = theory.estimate(key, mdp, policy, 2, 10)
    with pytest.raises(ValueError, match="delta must be > 0"):
        theory.reward_bound(found, mdp, 1.0, 0.1, 0.0, 2, 10)
    with pytest.raises(ValueError, match="r must be positive"):
        theory.kernel_bound_sampled(found, mdp._replace(r=-mdp.r), 1.0, 0.1, 0.1, 2, 10)
