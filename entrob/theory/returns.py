"""The distribution of the discounted return, between bounds, and its lower tail."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.mdp import TabularMDP, as_float64, checked, checked_policy, float64


class ReturnDistribution(NamedTuple):
    """Two distributions on a grid, with the return's in between.

    Attributes:
      support: float64[N], ascending.
      low: float64[N], masses of a distribution that the return dominates (first order).
      high: float64[N], masses of one that dominates the return.
    """

    support: jax.Array
    low: jax.Array
    high: jax.Array


@float64
def return_distribution(
    mdp: TabularMDP, policy, atoms: int = 2001, horizon: int | None = None
) -> ReturnDistribution:
    """Bounds on the distribution of Σ_t γ^t r(s_t, a_t) from the initial state.

    The distribution functions obey F_s(z) = Σ_a π(a|s) Σ_s' P(s'|s, a) F_s'((z - r(s, a))/γ). Read
    at the grid point below the argument, and begun with all mass at the top, they stay below the
    true ones; read at the point above, and begun with all mass at the bottom, they stay above.
    Nothing is interpolated, so the bounds hold for any number of atoms; they narrow as it grows.

    Args:
      mdp: one MDP, not traced.
      policy: float64[S, A].
      atoms: N, grid points between the least and the largest possible return, >= 2.
      horizon: steps of the recursion; by default until γ^t < 1e-6.

    Raises:
      ValueError: not a policy of the MDP, or fewer than 2 atoms.
    """
    mdp = checked(mdp)
    policy = checked_policy(mdp, policy)
    if atoms < 2:
        raise ValueError(f"atoms must be >= 2, not {atoms}")
    gamma = float(mdp.gamma)
    if horizon is None:
        horizon = 1 if gamma == 0 else int(np.ceil(np.log(1e-6) / np.log(gamma)))
    ends = float(np.min(mdp.r)) / (1 - gamma), float(np.max(mdp.r)) / (1 - gamma)
    cell = max(ends[1] - ends[0], 1e-12) / (atoms - 1)
    # One cell more at both ends, so that a return at an end is inside.
    support = ends[0] + cell * np.arange(-1, atoms + 1)
    wanted = (support - mdp.r[:, :, None]) / max(gamma, 1e-300)
    index = (wanted - support[0]) / cell
    # What is above the grid in exact arithmetic must not fall below it by rounding, or vice versa.
    below = np.clip(np.floor(index - 1e-9), -1, atoms + 1).astype(int)
    above = np.clip(np.ceil(index + 1e-9), 0, atoms + 2).astype(int)
    below, above = _recur(mdp, policy, below, above, horizon)
    start = lambda F: jnp.diff(mdp.mu @ F, prepend=0.0)
    # Between grid points a distribution function is at most its value at the next one.
    return ReturnDistribution(jnp.asarray(support), jnp.roll(start(above), -1), start(below))


@jax.jit
def _recursion_step(mdp, policy, F, index):
    """One application of the recursion to F float64[S, N], read at `index` int[S, A, N]."""
    padded = jnp.pad(F, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    mixed = jnp.einsum("sat,tn->san", mdp.P, padded)
    return jnp.einsum("sa,san->sn", policy, jnp.take_along_axis(mixed, index + 1, -1))


def _recur(mdp, policy, below, above, horizon: int):
    """Distribution functions float64[S, N] below and above the true ones."""
    states, atoms = len(mdp.mu), below.shape[-1]
    low = jnp.zeros((states, atoms)).at[:, -1].set(1.0)
    high = jnp.ones((states, atoms)).at[:, 0].set(0.0)
    for _ in range(horizon):
        low = _recursion_step(mdp, policy, low, below)
        high = _recursion_step(mdp, policy, high, above)
    return low.at[:, -1].set(1.0), high.at[:, -1].set(1.0)


@float64
def cvar(support, mass, beta) -> jax.Array:
    """Mean of the lowest share β of a distribution, in the units of its support: float64[].

    CVaR_β = (1/β) ∫_0^β F⁻¹(u) du: the lower tail of a return, not the upper tail of a loss.

    Args:
      support: float64[N], in any order.
      mass: float64[N], sums to 1.
      beta: in (0, 1]; 1 gives the mean.

    Raises:
      ValueError: shapes that disagree, or beta out of range.
    """
    support = as_float64("support", support, (None,))
    mass = as_float64("mass", mass, support.shape[-1:])
    beta = as_float64("beta", beta)
    if not isinstance(beta, jax.core.Tracer) and not ((beta > 0) & (beta <= 1)).all():
        raise ValueError(f"beta must be in (0, 1], not {np.min(beta):g}")
    order = jnp.argsort(support)
    support, mass = jnp.asarray(support)[order], jnp.asarray(mass)[order]
    before = jnp.cumsum(mass) - mass
    taken = jnp.clip(beta - before, 0, mass)
    # What rounding leaves of β at the top belongs to the last atom.
    return (taken @ support + (beta - taken.sum()) * support[-1]) / beta


def cvar_bounds(mdp: TabularMDP, policy, beta, atoms: int = 2001) -> tuple[jax.Array, jax.Array]:
    """Bounds (low, high) on the lower-tail CVaR_β of the discounted return: float64[] each.

    Errors as in `return_distribution` and `cvar`.
    """
    found = return_distribution(mdp, policy, atoms)
    return cvar(found.support, found.low, beta), cvar(found.support, found.high, beta)
