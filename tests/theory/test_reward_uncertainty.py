import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from entrob import theory
from entrob.theory.regularized import REGULARIZERS
from entrob.theory.reward_uncertainty import soft_mean

NAMES = list(REGULARIZERS)


def constraint(name, rho, policy, delta, alpha, epsilon):
    """ε/α + log N - LSE(Δ/α) as the paper writes it, ≥ 0 inside the set, in NumPy."""
    if name == "state":
        return epsilon / alpha + np.log(len(rho)) - logsumexp((policy * delta).sum(-1) / alpha)
    if name == "policy":
        inner = logsumexp(delta / alpha, axis=-1)
        return epsilon / alpha + np.log(rho.shape[1]) - rho.sum(-1) @ inner
    return epsilon / alpha + np.log(rho.size) - logsumexp(delta / alpha)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_the_closed_form_is_the_constrained_minimum(mdp, policy, name, alpha):
    rho = np.asarray(theory.occupancy(mdp, policy))
    worst = theory.worst_case_reward(mdp, policy, name, alpha, 0.3)
    inside = lambda x: constraint(name, rho, policy, x.reshape(rho.shape), alpha, 0.3)
    found = scipy.optimize.minimize(
        lambda x: -rho.ravel() @ x,
        np.zeros(rho.size),
        jac=lambda x: -rho.ravel(),
        constraints={"type": "ineq", "fun": inside},
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-13},
    )
    np.testing.assert_allclose((rho * mdp.r).sum() + found.fun, worst.value, atol=1e-5)
    np.testing.assert_allclose(inside(np.ravel(mdp.r - worst.reward)), 0, atol=1e-12)
    np.testing.assert_allclose((rho * worst.reward).sum(), worst.value, rtol=1e-12)
    newton = theory.minimize_reward(mdp, policy, name, alpha, 0.3)
    np.testing.assert_allclose(newton.value, worst.value, atol=1e-12)
    assert theory.in_uncertainty_set(mdp, policy, newton.reward, name, alpha, 0.3)


@pytest.mark.parametrize("name", NAMES)
def test_no_member_is_worse(mdp, policy, name):
    rho = np.asarray(theory.occupancy(mdp, policy))
    worst = theory.worst_case_reward(mdp, policy, name, 0.5, 0.2)
    rng = np.random.default_rng(0)
    members = 0
    for _ in range(200):
        delta = rng.normal(size=rho.shape) * rng.exponential()
        delta += 0.2 - float(theory.gauge(rho, delta, name, 0.5)) - 1e-9
        assert theory.in_uncertainty_set(mdp, policy, mdp.r - delta, name, 0.5, 0.2)
        members += (rho * (mdp.r - delta)).sum() >= worst.value
    assert members == 200


def test_the_papers_worst_reward_needs_its_constant(mdp, policy):
    """Theorem 3.1 prints r̃ without α log S; without it the bound is missed by exactly that."""
    rho = np.asarray(theory.occupancy(mdp, policy))
    d = rho.sum(-1, keepdims=True)
    alpha, epsilon = 0.4, 0.1
    printed = mdp.r - alpha * np.log(d) / (3 * policy) - epsilon
    value = theory.worst_case_reward(mdp, policy, "state", alpha, epsilon).value
    np.testing.assert_allclose((rho * printed).sum() - value, alpha * np.log(8), rtol=1e-10)
    corrected = printed - alpha * np.log(8)
    np.testing.assert_allclose((rho * corrected).sum(), value, rtol=1e-10)
    assert theory.in_uncertainty_set(mdp, policy, corrected, "state", alpha, epsilon)


def test_regularized_and_robust_optima_are_the_same(mdp):
    """What the theorem is for: the regularized optimum has the best worst case."""
    alpha, epsilon = 0.3, 0.2
    best = theory.solve(mdp, "state", alpha)
    worst = lambda p: float(theory.worst_case_reward(mdp, p, "state", alpha, epsilon).value)
    robust = worst(np.asarray(best.policy))
    np.testing.assert_allclose(robust, best.value - alpha * np.log(8) - epsilon, atol=1e-9)
    policies = np.random.default_rng(0).dirichlet(np.ones(3), (100, 8))
    assert max(worst(p) for p in policies) <= robust + 1e-9


def test_where_nothing_is_visited_the_worst_reward_is_infinite():
    P = np.eye(2)[[[0, 1], [0, 1]]]
    mdp = theory.tabular_mdp(P, np.ones((2, 2)), 0.9, [1.0, 0.0])
    stay = np.array([[1.0, 0.0], [1.0, 0.0]])
    worst = theory.worst_case_reward(mdp, stay, "state", 1.0, 0.0)
    assert np.isposinf(worst.reward[1]).all() and np.isfinite(worst.value)
    np.testing.assert_allclose(worst.value, 1 - np.log(2))
    assert np.isposinf(theory.worst_case_reward(mdp, stay, "policy", 1.0, 0.0).reward[0, 1])


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=6),
    st.floats(-2, 2),
    st.floats(0.01, 3),
)
@settings(max_examples=100, deadline=None)
def test_sets_grow_with_alpha(delta, log_alpha, factor):
    delta, alpha = np.array(delta), 10**log_alpha
    with jax.enable_x64(True):
        sizes = [
            float(soft_mean(delta, jnp.float64(a))) for a in (0, alpha, alpha + factor, np.inf)
        ]
    assert sizes == sorted(sizes, reverse=True) or np.ptp(delta) < 1e-12
    np.testing.assert_allclose([sizes[0], sizes[3]], [delta.max(), delta.mean()], atol=1e-12)
    direct = alpha * (logsumexp(delta / alpha) - np.log(len(delta)))
    np.testing.assert_allclose(sizes[1], direct, atol=1e-9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"epsilon": -0.1}, "epsilon must be >= 0"),
        ({"regularizer": "reward"}, "unknown regularizer 'reward'"),
        ({"policy": np.ones((8, 3))}, "policy must sum to 1"),
    ],
)
def test_bad_input(mdp, policy, change, message):
    good = {"mdp": mdp, "policy": policy, "regularizer": "state", "alpha": 1.0, "epsilon": 0.1}
    for function in (theory.worst_case_reward, theory.minimize_reward):
        with pytest.raises(ValueError, match=message):
            function(**{**good, **change})
