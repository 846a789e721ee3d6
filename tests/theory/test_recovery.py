import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob import theory
from entrob.theory import recovery


@pytest.mark.parametrize("structured", [False, True])
def test_the_robust_optimum_is_a_saddle_point(random_mdp, structured):
    mdp = random_mdp(0, 6, 2, 3)
    rho, value, error = recovery.robust_to_rewards(mdp, structured)
    assert error < 1e-9
    np.testing.assert_allclose(rho, theory.occupancy(mdp, theory.policy_of(rho)), atol=1e-8)
    attained = (rho * mdp.r).sum() - recovery.struck(jnp.asarray(rho), structured)
    np.testing.assert_allclose(attained, value, atol=1e-6)
    for policy in np.random.default_rng(0).dirichlet(np.ones(2), (200, 6)):
        other = np.asarray(theory.occupancy(mdp, policy))
        found = (other * mdp.r).sum() - recovery.struck(jnp.asarray(other), structured)
        assert found <= value + 1e-6


def test_the_adversary_strikes_where_most_is():
    with jax.enable_x64(True):
        rho = jnp.asarray(np.array([[0.3, 0.2], [0.4, 0.0], [0.05, 0.05]]))
        both = [float(recovery.struck(rho, s)) for s in (False, True)]
    # Four states of which there are three, and eight pairs of six: everything.
    np.testing.assert_allclose(both, 1)
    wide = jnp.full((20, 4), 1 / 80)
    np.testing.assert_allclose(recovery.struck(wide, True), 0.2, rtol=1e-6)
    np.testing.assert_allclose(recovery.struck(wide, False), 0.2, rtol=1e-6)


def test_no_regularizer_recovers_more_than_there_is(monkeypatch):
    monkeypatch.setattr(recovery, "STATES", 6)
    monkeypatch.setattr(recovery, "FACTORS", 3)
    monkeypatch.setattr(recovery, "RADII", {"tv": 0.5})
    found = recovery.recover(jax.random.key(0), 3, np.array([0.01, 0.3]))
    assert found.regularized.shape == (2, 2, 3, 2, 3)
    highest = (found.robust + found.certificate)[..., None, None, :]
    assert (found.regularized <= highest + 1e-7).all()
    assert (found.nominal <= found.robust + found.certificate + 1e-9).all()
    assert (found.price >= -1e-7).all()
    share = recovery.shares(found)
    assert share.shape == (2, 2, 3, 2, 3)
    assert (share[..., 1] <= share[..., 0] + 1e-12).all()
    assert (share[..., 0] <= share[..., 2] + 1e-12).all() and (share[..., 0] <= 1 + 1e-6).all()


def test_shares_of_known_values():
    alphas, ones = np.array([1.0]), np.ones((2, 4, 2))
    found = recovery.Recovery(
        alphas, np.full((2, 4, 3, 1, 2), 1.5), ones, 3 * ones, 0 * ones, np.zeros((2, 4, 3, 1, 2))
    )
    np.testing.assert_allclose(recovery.shares(found), 0.25)
