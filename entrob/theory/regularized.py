"""The regularized objective: its value, its gradient and an upper bound on its optimum.

f(ρ) = E_ρ[r] + a E_d[H(π)] + b H(d), for weights a of policy and b of state entropy.  Weights
(α, 0), (0, α) and (α, α) are policy, state and state-action entropy with coefficient α, since
H(ρ) = H(d) + E_d[H(π)]; all others are mixtures.  f is concave over the occupancy polytope
{ρ ≥ 0, Σ_a ρ(s, a) - γ Σ ρ(s', a') P(s|s', a') = (1 - γ) μ(s)}.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.theory.mdp import (
    TabularMDP,
    check_number,
    policy_entropy,
    state_distribution,
    state_entropy,
)


class Weights(NamedTuple):
    """Coefficients of the two entropies, in units of reward per nat: float64[] each, >= 0."""

    policy: jax.Array | float
    state: jax.Array | float


REGULARIZERS: dict[str, Weights] = {
    "policy": Weights(1.0, 0.0),
    "state": Weights(0.0, 1.0),
    "state_action": Weights(1.0, 1.0),
}
"""Name of a regularizer Ω -> what α multiplies."""


def weights(regularizer: str | Mapping[str, float], alpha) -> Weights:
    """The weights of α·Ω.

    Args:
      regularizer: a key of `REGULARIZERS`, or a mixture ``{"policy": w, "state": w, ...}`` of them.
      alpha: coefficient, > 0.

    Raises:
      ValueError: an unknown name, a negative share, or alpha <= 0.
    """
    alpha = check_number("alpha", alpha)
    mixture = {regularizer: 1.0} if isinstance(regularizer, str) else regularizer
    total = Weights(0.0, 0.0)
    for name, share in mixture.items():
        if name not in REGULARIZERS:
            raise ValueError(f"unknown regularizer {name!r}: known are {', '.join(REGULARIZERS)}")
        part = check_number(f"the share of {name}", share, strict=False)
        total = Weights._make(t + part * w for t, w in zip(total, REGULARIZERS[name]))
    return Weights(alpha * total.policy, alpha * total.state)


def objective(mdp: TabularMDP, w: Weights, rho: jax.Array) -> jax.Array:
    """f(ρ): float64[]."""
    return jnp.sum(rho * mdp.r) + w.policy * policy_entropy(rho) + w.state * state_entropy(rho)


def gradient(mdp: TabularMDP, w: Weights, rho: jax.Array) -> jax.Array:
    """∂f/∂ρ(s, a) = r - a log π(a|s) - b (log d(s) + 1), for ρ > 0: float64[S, A]."""
    d = rho.sum(-1, keepdims=True)
    return mdp.r - w.policy * jnp.log(rho / d) - w.state * (jnp.log(d) + 1)


def upper_bound(mdp: TabularMDP, w: Weights, V: jax.Array, visited: jax.Array) -> jax.Array:
    """A number no policy's f exceeds, for any V: float64[].

    Lagrange's dual of maximizing f over the polytope.  With x = r + γ P V - V it is
    (1 - γ) μ·V + max_ρ {<x, ρ> + a E_d[H(π)] + b H(d)} over all distributions ρ, and the maximum is
    b LSE_s(y(s)/b) with y(s) = a LSE_a(x(s, a)/a).  A weight of 0 turns its LSE into a maximum.
    Occupancies of discounted MDPs sum to 1 by the constraints, so nothing is lost.

    Args:
      mdp: the MDP.
      w: weights.
      V: float64[S].
      visited: bool[S], the states that can be visited at all; no other carries mass.
    """
    x = mdp.r + mdp.gamma * mdp.P @ V - V[:, None]
    y = jnp.where(visited, soft_max(x, w.policy), -jnp.inf)
    return (1 - mdp.gamma) * mdp.mu @ V + soft_max(y, w.state)


def soft_max(x: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """t log Σ exp(x / t) over the last axis, and its limit max x at t = 0."""
    top = x.max(-1)
    t = jnp.where(temperature > 0, temperature, 1.0)
    excess = t * jnp.log(jnp.exp((x - top[..., None]) / t).sum(-1))
    return top + jnp.where(temperature > 0, excess, 0.0)


class Solution(NamedTuple):
    """An optimum with its certificate.

    Attributes:
      policy: float64[S, A], uniform in states that cannot be visited.
      rho: float64[S, A], its occupancy, recomputed from the policy.
      value: float64[], f(ρ): attained.
      gap: float64[], upper bound - value: the optimum is within it, whatever the solver did.
      iterations: int32[], steps taken.
      converged: bool[], whether the gap is within the tolerance asked for.
    """

    policy: jax.Array
    rho: jax.Array
    value: jax.Array
    gap: jax.Array
    iterations: jax.Array
    converged: jax.Array


def certified(
    mdp: TabularMDP, w: Weights, policy: jax.Array, bound: jax.Array, iterations, tolerance
) -> Solution:
    """The `Solution` of a policy and an upper bound on the optimum."""
    rho = state_distribution(mdp, policy)[:, None] * policy
    value = objective(mdp, w, rho)
    gap = bound - value
    return Solution(policy, rho, value, gap, iterations, gap <= tolerance)
