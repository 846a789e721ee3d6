import warnings

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr

from entrob import theory
from entrob.theory.mirror_descent import trajectory
from entrob.theory.regularized import REGULARIZERS, Weights, gradient, objective, upper_bound

NAMES = list(REGULARIZERS)


def conic(mdp, w):
    """The optimum by cvxpy's exponential cones."""
    states, actions = mdp.r.shape
    rho = cvxpy.Variable((states, actions), nonneg=True)
    d = cvxpy.sum(rho, axis=1)
    moved = sum(mdp.P[:, a].T @ rho[:, a] for a in range(actions))
    f = cvxpy.sum(cvxpy.multiply(rho, mdp.r)) + w.state * cvxpy.sum(cvxpy.entr(d))
    spread = cvxpy.reshape(d, (states, 1), order="C") @ np.ones((1, actions))
    f -= w.policy * cvxpy.sum(cvxpy.rel_entr(rho, spread))
    problem = cvxpy.Problem(cvxpy.Maximize(f), [d - mdp.gamma * moved == (1 - mdp.gamma) * mdp.mu])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return problem.value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*NAMES, "mixture"])
@pytest.mark.parametrize("alpha", [0.02, 0.5])
def test_two_solvers_and_cvxpy_agree(random_mdp, seed, name, alpha):
    mdp = random_mdp(seed)
    omega = {"policy": 0.3, "state_action": 0.7} if name == "mixture" else name
    first = theory.solve(mdp, omega, alpha)
    second = theory.solve(mdp, omega, alpha, "mirror_descent", tolerance=2e-7)
    w = {"policy": Weights(alpha, 0), "state": Weights(0, alpha)}.get(name, Weights(alpha, alpha))
    w = Weights(alpha, 0.7 * alpha) if name == "mixture" else w
    assert first.converged and second.converged and first.gap < 1e-9
    np.testing.assert_allclose(second.value, first.value, atol=1e-6)
    np.testing.assert_allclose(conic(mdp, w), first.value, atol=1e-6)


def test_the_upper_bound_holds_for_any_values(mdp):
    w = Weights(0.1, 0.3)
    best = theory.solve(mdp, {"policy": 0.1, "state": 0.3}, 1.0)
    with jax.enable_x64(True):
        bounds = [
            upper_bound(mdp, w, np.random.default_rng(i).normal(size=8) * 3, np.ones(8, bool))
            for i in range(50)
        ]
    assert min(bounds) >= best.value


def test_the_gradient_is_the_objectives(mdp, policy):
    with jax.enable_x64(True):
        w, rho = Weights(0.2, 0.7), theory.occupancy(mdp, policy)
        numeric = jax.grad(lambda x: objective(mdp, w, x))(rho)
        np.testing.assert_allclose(gradient(mdp, w, rho), numeric, rtol=1e-9)


def test_one_state_with_policy_entropy_is_a_softmax():
    r = np.array([[1.0, 0.2, -0.5]])
    mdp = theory.tabular_mdp(np.ones((1, 3, 1)), r, 0.9, [1.0])
    found = theory.solve(mdp, "policy", 0.3, tolerance=1e-12)
    np.testing.assert_allclose(found.policy[0], jax.nn.softmax(r[0] / 0.3), atol=1e-6)
    np.testing.assert_allclose(found.value, 0.3 * np.log(np.exp(r / 0.3).sum()), atol=1e-11)


def test_state_entropy_alone_spreads_over_states_that_can_be_chosen():
    # Every action leads to the state of its number, and rewards are equal.
    P = np.broadcast_to(np.eye(4), (4, 4, 4))
    mdp = theory.tabular_mdp(P, np.ones((4, 4)), 0.9, np.full(4, 0.25))
    found = theory.solve(mdp, "state", 2.0)
    np.testing.assert_allclose(found.value, 1 + 2 * np.log(4), atol=1e-8)


def test_a_small_coefficient_gives_the_plain_optimum(mdp):
    V = np.zeros(8)
    for _ in range(2000):
        V = (mdp.r + mdp.gamma * mdp.P @ V).max(-1)
    for name in NAMES:
        found = theory.solve(mdp, name, 1e-9)
        np.testing.assert_allclose(found.value, (1 - mdp.gamma) * mdp.mu @ V, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_states_never_visited_are_left_out(random_mdp, name):
    mdp = random_mdp(1)
    # A ninth state from which one can leave, and to which nothing leads.
    P = np.zeros((9, 3, 9))
    P[:8, :, :8], P[8, :, 0] = mdp.P, 1
    wider = theory.tabular_mdp(P, np.vstack([mdp.r, np.full(3, 9.0)]), 0.9, [*mdp.mu, 0])
    found, plain = theory.solve(wider, name, 0.2), theory.solve(mdp, name, 0.2)
    np.testing.assert_allclose(found.value, plain.value, atol=1e-8)
    assert found.rho[8].sum() == 0 and np.isfinite(found.policy).all()


@pytest.mark.parametrize("gamma", [0.0, 0.999])
def test_discounts_at_both_ends(random_mdp, gamma):
    mdp = random_mdp(2, gamma=gamma)
    for name in NAMES:
        assert theory.solve(mdp, name, 0.1, tolerance=1e-8).gap <= 1e-8


def test_optima_in_a_batch_are_those_one_by_one(random_mdp):
    mdps = [random_mdp(seed) for seed in range(4)]
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *mdps)
        solve = jax.jit(jax.vmap(lambda m: theory.solve(m, "state_action", 0.1)))
        together = solve(stacked)
    for i, mdp in enumerate(mdps):
        alone = theory.solve(mdp, "state_action", 0.1)
        np.testing.assert_allclose(together.value[i], alone.value, atol=2e-9)


def test_an_unfinished_solver_says_so_and_returns_its_gap(mdp):
    with pytest.warns(theory.NotSolved, match=r"after 2 steps at a gap of"):
        found = theory.solve(mdp, "state", 0.1, max_iterations=2)
    best = theory.solve(mdp, "state", 0.1)
    assert not found.converged and found.value <= best.value <= found.value + found.gap
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theory.solve(mdp, "state", 0.1)


def test_mirror_descent_is_at_least_as_fast_as_promised(mdp):
    alpha, rate = 0.2, 0.5
    w = Weights(alpha, 0.0)
    best = theory.solve(mdp, "policy", alpha, tolerance=1e-12)
    with jax.enable_x64(True):
        f = trajectory(jax.tree.map(jnp.asarray, mdp), w, rate / alpha, 60)
    left = np.maximum(best.value - np.asarray(f), 1e-13)
    promised = 1 - (1 - mdp.gamma) * rate / (1 + rate)
    assert (np.diff(f) >= -1e-13).all()
    assert (left <= left[0] / (1 - mdp.gamma) * promised ** np.arange(60) + 1e-12).all()
    assert left[30] < 1e-4 * left[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("state", 0.0), "alpha must be > 0"),
        (("state", -1.0), "alpha must be > 0"),
        (("entropy", 1.0), "unknown regularizer 'entropy'"),
        (({"state": -1}, 1.0), "the share of state"),
        (("state", 1.0, "simplex"), "unknown method 'simplex'"),
        (("state", 1.0, "interior_point", 0.0), "tolerance must be > 0"),
    ],
)
def test_bad_input(mdp, arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.solve(mdp, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_thousand_states(name):
    mdp = jax.tree.map(np.asarray, theory.garnet(jax.random.key(0), 2000, 4, 5, 0.95))
    found = theory.solve(mdp, name, 0.1)
    assert found.converged and found.gap < 1e-9
    # The value of the policy, computed anew: the gap then bounds how much any other can have.
    policy = np.asarray(found.policy)
    moves = np.einsum("sat,sa->st", mdp.P, policy)
    d = np.linalg.solve(np.eye(2000) - 0.95 * moves.T, 0.05 * mdp.mu)
    entropies = {"state": entr(d).sum(), "policy": d @ entr(policy).sum(-1)}
    entropies["state_action"] = entropies["state"] + entropies["policy"]
    value = (d[:, None] * policy * mdp.r).sum() + 0.1 * entropies[name]
    np.testing.assert_allclose(found.value, value, atol=1e-9)
