import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrob import theory


def simulate(mdp, policy, episodes=4000, steps=150):
    rng = np.random.default_rng(0)
    states, actions = mdp.r.shape
    s = rng.choice(states, episodes, p=mdp.mu)
    total = np.zeros(episodes)
    for t in range(steps):
        a = (rng.random((episodes, 1)) > policy.cumsum(-1)[s]).sum(-1).clip(max=actions - 1)
        total += mdp.gamma**t * mdp.r[s, a]
        s = (rng.random((episodes, 1)) > mdp.P.cumsum(-1)[s, a]).sum(-1).clip(max=states - 1)
    return np.sort(total)


def test_the_bounds_hold_the_simulated_distribution(mdp, policy):
    found = theory.return_distribution(mdp, policy, atoms=2001)
    returns = simulate(mdp, policy)
    at = lambda mass, z: np.cumsum(mass)[np.searchsorted(found.support, z, side="right") - 1]
    z = np.quantile(returns, np.linspace(0.01, 0.99, 50))
    seen = np.searchsorted(returns, z, side="right") / len(returns)
    # The Dvoretzky-Kiefer-Wolfowitz band at 1e-6.
    band = np.sqrt(np.log(2e6) / (2 * len(returns)))
    assert (at(found.high, z) <= seen + band).all() and (seen - band <= at(found.low, z)).all()


def test_the_bounds_hold_the_mean_and_narrow(mdp, policy):
    mean = float(theory.expected_reward(mdp, policy)) / 0.1
    widths = []
    for atoms in (201, 2001):
        low, high = theory.cvar_bounds(mdp, policy, 1.0, atoms)
        assert low <= mean <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 8


def test_a_certain_return():
    mdp = theory.tabular_mdp(np.eye(2)[:, None], [[1.0], [3.0]], 0.5, [0.25, 0.75])
    low, high = theory.cvar_bounds(mdp, np.ones((2, 1)), 0.5, atoms=801)
    # A quarter earns 2, the rest 6: the lower half is (2 + 6)/2.
    assert low <= 4 <= high and high - low < 0.06
    flat = mdp._replace(r=np.ones((2, 1)), gamma=np.float64(0))
    np.testing.assert_allclose(theory.cvar_bounds(flat, np.ones((2, 1)), 0.1), 1, atol=1e-6)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_cvar_is_rockafellar_and_uryasevs_maximum(support, beta):
    support = np.array(support)
    mass = np.random.default_rng(len(support)).dirichlet(np.ones(len(support)))
    # CVaR_β = max_z z - E[(z - X)+] / β, attained at an atom.
    best = max(z - mass @ np.maximum(z - support, 0) / beta for z in support)
    np.testing.assert_allclose(theory.cvar(support, mass, beta), best, atol=1e-9)


def test_bad_input(mdp, policy):
    with pytest.raises(ValueError, match="atoms"):
        theory.return_distribution(mdp, policy, atoms=1)
    with pytest.raises(ValueError, match="beta must be in"):
        theory.cvar([1.0, 2.0], [0.5, 0.5], 0.0)
    with pytest.raises(ValueError, match="mass must have shape"):
        theory.cvar([1.0, 2.0], [1.0], 0.5)
