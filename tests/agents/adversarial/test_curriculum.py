"""QARL's curriculum against scipy: divergences, temperatures, and the constrained step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats

from entrob.agents.adversarial import curriculum as curricula
from entrob.agents.adversarial.curriculum import RATE, STEP, TARGET, WINDOW

# Static nothing: one compilation serves all.
solve = jax.jit(chex.assert_max_traces(curricula.solve, n=1))
advance = jax.jit(chex.assert_max_traces(curricula.advance, n=1))


def density(shape):
    return scipy.stats.gamma(shape, scale=1 / RATE)


@pytest.mark.parametrize("p, q", [(50.0, 43.0), (2.0, 1.0), (0.7, 1.9)])
def test_kl_is_that_of_gamma_distributions(p, q):
    def integrand(x):
        return density(p).pdf(x) * (density(p).logpdf(x) - density(q).logpdf(x))

    end = density(p).ppf(1 - 1e-12)
    expected, _ = scipy.integrate.quad(integrand, 0, end, limit=200, epsabs=1e-8)
    assert float(curricula.kl(p, q)) == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_temperatures_are_gamma_distributed():
    tau = np.asarray(curricula.draw(jax.random.key(0), jnp.float32(3.0), (4000,)))
    assert scipy.stats.kstest(tau, density(3.0).cdf).pvalue > 0.01
    assert scipy.stats.kstest(tau, density(3.3).cdf).pvalue < 1e-3


def window(shape, bound, returns=None, seed=0):
    rng = np.random.default_rng(seed)
    tau = rng.gamma(shape, 1 / RATE, WINDOW)
    returns = np.zeros(WINDOW) if returns is None else returns(tau)
    full = curricula.Curriculum(shape, bound, WINDOW, tau, np.full(WINDOW, shape), returns)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), full), tau, returns


def expected_return(tried, shape, tau, returns):
    log_ratio = density(tried).logpdf(tau) - density(shape).logpdf(tau)
    weight = np.exp(log_ratio - log_ratio.max())
    return weight @ returns / weight.sum()


def divergence(p, q):
    return (p - q) * scipy.special.psi(p) - scipy.special.gammaln(p) + scipy.special.gammaln(q)


@pytest.mark.parametrize("shape", [50.0, 12.0, 3.0])
@pytest.mark.parametrize("bound", [-1e9, 0.0])
def test_a_step_is_the_constrained_minimum(shape, bound):
    """Returns rise with τ, so that a bound on them keeps the adversary from being too rational."""
    # 0 is where the return would be a third of the way to the end of the trust region.
    lowest = scipy.optimize.brentq(lambda k: divergence(k, shape) - STEP, 1e-3 * shape, shape)
    _, tau, _ = window(shape, bound)
    middle = expected_return(shape + (lowest - shape) / 3, shape, tau, tau * RATE)
    full, tau, returns = window(shape, bound, lambda tau: tau * RATE - middle)
    found = float(solve(full))
    best = scipy.optimize.minimize(
        lambda k: divergence(k[0], TARGET),
        [shape],
        bounds=[(1e-2, 100.0)],
        constraints=[
            {"type": "ineq", "fun": lambda k: STEP - divergence(k[0], shape)},
            {"type": "ineq", "fun": lambda k: expected_return(k[0], shape, tau, returns) - bound},
        ],
    ).x[0]
    assert found == pytest.approx(best, rel=0.02)
    assert divergence(found, shape) <= STEP * 1.001
    assert expected_return(found, shape, tau, returns) >= bound - 1e-3
    assert (found > lowest * 1.05) == (bound == 0.0)


def test_the_target_is_reached_and_then_kept():
    assert float(solve(window(1.3, -1e9)[0])) == pytest.approx(TARGET)
    assert float(solve(window(TARGET, -1e9)[0])) == pytest.approx(TARGET)


def test_what_cannot_be_borne_changes_nothing():
    assert float(solve(window(20.0, 1e9)[0])) == 20.0


def test_a_window_is_filled_over_rollouts_and_begins_anew():
    steps = (10, 4)
    tau, shapes = jnp.full(steps, 0.05), jnp.full(steps, 50.0)
    returns = jnp.arange(40.0).reshape(steps)
    ended = jnp.zeros(steps, bool).at[::2].set(True)  # 20 episodes
    first = advance(curricula.start(None), tau, shapes, returns, ended)
    assert int(first.count) == 20 and float(first.shape) == curricula.FIRST
    kept = np.asarray(returns)[::2].ravel()
    np.testing.assert_array_equal(first.returns[:20], kept)
    assert np.isnan(first.bound)
    second = advance(first, tau, shapes, returns, ended)
    assert int(second.count) == 0 and float(second.shape) < curricula.FIRST
    # What did not fit is left out, and the bound is what the window brought.
    np.testing.assert_array_equal(second.returns[20:], kept[:10])
    assert float(second.bound) == pytest.approx(np.concatenate([kept, kept[:10]]).mean())
