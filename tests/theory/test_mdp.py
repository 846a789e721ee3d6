import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob import theory
from entrob.theory.mdp import reachable, values


def visited_shares(mdp, policy, steps=2000):
    """d by summing (1 - γ) γ^t P(s_t = s), without a linear solve."""
    moves = np.einsum("sat,sa->st", mdp.P, policy)
    p, d = mdp.mu, np.zeros_like(mdp.mu)
    for t in range(steps):
        d += (1 - mdp.gamma) * mdp.gamma**t * p
        p = p @ moves
    return d


def test_occupancy_is_the_discounted_share_of_visits(mdp, policy):
    rho = theory.occupancy(mdp, policy)
    assert rho.dtype == np.float64
    np.testing.assert_allclose(rho, visited_shares(mdp, policy)[:, None] * policy, atol=1e-14)
    np.testing.assert_allclose(rho.sum(), 1, atol=1e-14)


def test_batches_are_eliminated_to_the_same_solution(mdp):
    policies = np.random.default_rng(0).dirichlet(np.ones(3), (5, 8))
    with jax.enable_x64(True):
        together = jax.vmap(lambda p: theory.occupancy(mdp, p))(jnp.asarray(policies))
    for policy, rho in zip(policies, np.asarray(together)):
        np.testing.assert_allclose(rho, theory.occupancy(mdp, policy), atol=1e-14)


def test_values_and_occupancy_agree_on_the_reward(mdp, policy):
    with jax.enable_x64(True):
        V = values(jax.tree.map(jnp.asarray, mdp), jnp.asarray(policy), jnp.asarray(mdp.r))
    np.testing.assert_allclose((1 - mdp.gamma) * mdp.mu @ V, theory.expected_reward(mdp, policy))


def test_entropies_obey_the_chain_rule(mdp, policy):
    rho = np.asarray(theory.occupancy(mdp, policy))
    with jax.enable_x64(True):
        parts = theory.state_entropy(rho) + theory.policy_entropy(rho)
        np.testing.assert_allclose(theory.state_action_entropy(rho), parts, rtol=1e-13)
        assert theory.entropy(np.array([1.0, 0.0])) == 0
        np.testing.assert_allclose(theory.entropy(np.full(4, 0.25)), np.log(4), rtol=1e-15)


def test_without_discount_the_first_state_is_all(mdp, policy):
    d = theory.occupancy(mdp._replace(gamma=np.float64(0)), policy).sum(-1)
    np.testing.assert_allclose(d, mdp.mu)


def test_states_that_nothing_leads_to_are_not_reachable():
    # 0 -> 1 -> 1, and 2 -> 0: from 0, state 2 is never seen.
    P = np.eye(3)[[[1], [1], [0]]]
    mdp = theory.tabular_mdp(P, np.ones((3, 1)), 0.9, np.eye(3)[0])
    with jax.enable_x64(True):
        assert reachable(jax.tree.map(jnp.asarray, mdp)).tolist() == [True, True, False]
        rho = theory.occupancy(mdp, np.ones((3, 1)))
        assert rho[2, 0] == 0 and theory.policy_of(rho)[2, 0] == 1


BAD = {
    "P must sum to 1": {"P": np.full((2, 1, 2), 0.6)},
    "P has a negative": {"P": np.array([[[1.5, -0.5]], [[0, 1]]])},
    "P must have shape": {"P": np.ones((2, 1, 3)) / 3},
    "P has values that are not finite": {"P": np.full((2, 1, 2), np.nan)},
    r"r must have shape \[2, 1\], not \[2, 2\]": {"r": np.ones((2, 2))},
    "r has values": {"r": np.full((2, 1), np.inf)},
    r"gamma must be in \[0, 1\), not 1": {"gamma": 1.0},
    r"gamma must be in \[0, 1\), not -0.1": {"gamma": -0.1},
    "mu must sum to 1": {"mu": np.ones(2)},
    "mu must have shape": {"mu": np.ones(3) / 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_names_the_argument(message):
    good = {"P": np.full((2, 1, 2), 0.5), "r": np.ones((2, 1)), "gamma": 0.9, "mu": np.full(2, 0.5)}
    theory.tabular_mdp(**good)
    with pytest.raises(ValueError, match=message):
        theory.tabular_mdp(**{**good, **BAD[message]})


def test_a_policy_of_another_mdp_is_refused(mdp):
    with pytest.raises(ValueError, match="policy must have shape"):
        theory.occupancy(mdp, np.ones((2, 1)))
    with pytest.raises(ValueError, match="policy must sum to 1"):
        theory.occupancy(mdp, np.ones(mdp.r.shape))


def test_tracing_in_32_bits_is_refused(mdp, policy):
    with pytest.raises(ValueError, match=r"inside jax.enable_x64\(True\)"):
        jax.jit(lambda p: theory.occupancy(mdp, p))(jnp.asarray(policy))


@pytest.mark.slow  # a process of its own
def test_importing_and_calling_leave_float32_as_it_was():
    program = """
import jax, jax.numpy as jnp, numpy as np
f = jax.jit(lambda x: jnp.cumsum(jnp.sin(x) / 3))
x = jnp.linspace(0, 9, 1000)
before = np.asarray(f(x)), np.asarray(jnp.exp(x) @ x), jax.random.normal(jax.random.key(0), (9,))
from entrob import theory
mdp = theory.garnet(jax.random.key(0), 5, 2, 2)
theory.occupancy(mdp, theory.uniform_policy(mdp))
theory.solve(mdp, "state", 0.1)
jax.clear_caches()
after = np.asarray(f(x)), np.asarray(jnp.exp(x) @ x), jax.random.normal(jax.random.key(0), (9,))
assert not jax.config.jax_enable_x64 and jnp.ones(2).dtype == jnp.float32
assert all(np.array_equal(a, b) for a, b in zip(before, after))
assert theory.occupancy(mdp, theory.uniform_policy(mdp)).dtype == jnp.float64
"""
    subprocess.run([sys.executable, "-c", program], check=True)
