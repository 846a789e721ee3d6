import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import logsumexp

from entrob import theory


def numeric(mdp, policy, alpha, epsilon):
    """The least E[r] over state distributions of the set, by scipy."""
    d = np.asarray(theory.occupancy(mdp, policy)).sum(-1)
    least, reward = (1 - mdp.gamma) * mdp.mu, (policy * mdp.r).sum(-1)
    size = lambda x: alpha * (logsumexp((np.log(d) - np.log(x)) / alpha) - np.log(len(d)))
    found = scipy.optimize.minimize(
        lambda x: x @ reward,
        d,
        bounds=[(low + 1e-12, 1) for low in least],
        constraints=[
            {"type": "eq", "fun": lambda x: x.sum() - 1},
            {"type": "ineq", "fun": lambda x: epsilon - size(x)},
        ],
        method="SLSQP",
        options={"maxiter": 3000, "ftol": 1e-14},
    )
    return found.fun


@pytest.mark.parametrize("alpha, epsilon", [(0.2, 0.1), (1.0, 0.3), (3.0, 0.05), (0.5, 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_exact_minimum_is_scipys(random_mdp, random_policy, seed, alpha, epsilon):
    mdp = random_mdp(seed)
    policy = random_policy(mdp, seed)
    found = theory.worst_case_kernel(mdp, policy, alpha, epsilon)
    np.testing.assert_allclose(found.value, numeric(mdp, policy, alpha, epsilon), atol=2e-6)
    assert abs(found.gap) < 1e-12 and found.excess < 1e-12


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 30.0])
def test_the_kernel_attains_it_inside_the_set(mdp, policy, alpha):
    found = theory.worst_case_kernel(mdp, policy, alpha, 0.2)
    there = theory.tabular_mdp(found.P, mdp.r, mdp.gamma, mdp.mu)
    np.testing.assert_allclose(theory.expected_reward(there, policy), found.value, rtol=1e-12)
    d = theory.occupancy(mdp, policy).sum(-1)
    moved = theory.occupancy(there, policy).sum(-1)
    assert theory.kernel_gauge(d, moved, alpha) <= 0.2 + 1e-12
    assert abs(found.gap) < 1e-11


def test_no_kernel_of_the_set_is_worse(mdp, policy):
    alpha, epsilon = 0.5, 0.2
    found = theory.worst_case_kernel(mdp, policy, alpha, epsilon)
    d, rng, inside = theory.occupancy(mdp, policy).sum(-1), np.random.default_rng(0), 0
    for _ in range(300):
        share = rng.uniform(0, 0.7)
        P = (1 - share) * mdp.P + share * rng.dirichlet(np.full(8, 0.3), (8, 3))
        there = theory.tabular_mdp(P, mdp.r, mdp.gamma, mdp.mu)
        if theory.kernel_gauge(d, theory.occupancy(there, policy).sum(-1), alpha) <= epsilon:
            inside += 1
            assert theory.expected_reward(there, policy) >= found.value - 1e-12
    assert inside > 30


def test_the_bounds_are_in_order(random_mdp, random_policy):
    for seed in range(20):
        mdp = random_mdp(seed)
        policy = random_policy(mdp, seed, sharpness=seed / 5)
        for alpha, epsilon in [(0.05, 0.5), (1.0, 0.0), (5.0, 1.0)]:
            value = theory.worst_case_kernel(mdp, policy, alpha, epsilon).value
            plain, looser = (theory.kernel_bound(mdp, policy, alpha, epsilon, w) for w in (0, 1))
            assert looser <= plain <= value + 1e-12


def test_a_large_set_leaves_only_the_initial_share(mdp, policy):
    # All mass that is free goes to the poorest state.
    reward = (policy * mdp.r).sum(-1)
    found = theory.worst_case_kernel(mdp, policy, 1.0, 50.0)
    limit = (1 - mdp.gamma) * mdp.mu @ reward + mdp.gamma * reward.min()
    np.testing.assert_allclose(found.value, limit, rtol=1e-9)


def test_without_discount_nothing_can_change(mdp, policy):
    still = mdp._replace(gamma=np.float64(0))
    found = theory.worst_case_kernel(still, policy, 1.0, 1.0)
    np.testing.assert_allclose(found.value, theory.expected_reward(still, policy), rtol=1e-12)


def test_unvisited_states_take_mass_for_free():
    # State 1 is never visited and pays least: the adversary may send everything there.
    P = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    mdp = theory.tabular_mdp(P, [[1.0], [0.1]], 0.9, [1.0, 0.0])
    found = theory.worst_case_kernel(mdp, np.ones((2, 1)), 1.0, 5.0)
    np.testing.assert_allclose(found.value, 0.1 * 1.0 + 0.9 * 0.1, rtol=1e-6)


def test_batches(mdp):
    policies = np.random.default_rng(0).dirichlet(np.ones(3), (4, 8))
    with jax.enable_x64(True):
        worst = jax.jit(jax.vmap(lambda p: theory.worst_case_kernel(mdp, p, 0.3, 0.1).value))
        together = worst(jnp.asarray(policies))
    alone = [theory.worst_case_kernel(mdp, p, 0.3, 0.1).value for p in policies]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alpha": -1.0}, "alpha must be > 0"),
        ({"epsilon": -0.1}, "epsilon must be >= 0"),
        ({"r": np.zeros((8, 3))}, "r must be positive, its least value is 0"),
    ],
)
def test_bad_input(mdp, policy, change, message):
    changed = mdp._replace(r=change.pop("r", mdp.r))
    good = {"policy": policy, "alpha": 1.0, "epsilon": 0.1}
    for function in (theory.worst_case_kernel, theory.kernel_bound):
        with pytest.raises(ValueError, match=message):
            function(changed, **{**good, **change})
