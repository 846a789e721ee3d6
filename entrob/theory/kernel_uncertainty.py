"""State entropy and changed dynamics: Theorem 3.3 and A.4.1 against the exact worst case.

The uncertainty set holds the kernels P̃ under which the policy's state distribution d̃ satisfies
α log mean_s (d(s)/d̃(s))^{1/α} ≤ ε.  For r > 0 the theorem bounds from below

    min E_ρ̃[r] ≥ exp(E_ρ[log r] + α (H(d) - log S) - ε).

The exact minimum: whatever the kernel, d̃ ≥ (1 - γ) μ; and every distribution above (1 - γ) μ is
reached, by P̃(·|s, a) = (d̃ - (1 - γ) μ)/γ for all pairs.  E_ρ̃[r] = Σ_s d̃(s) r^π(s) is linear in d̃
and the set is convex, so the minimum is a convex program in S variables, solved here by bisection
of its two multipliers, with a duality gap.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.mdp import (
    TabularMDP,
    as_float64,
    check_number,
    checked,
    checked_policy,
    float64,
    policy_entropy,
    state_distribution,
    state_entropy,
)
from entrob.theory.reward_uncertainty import soft_mean

_BISECTIONS = 58
_RANGE = 120.0  # of the multipliers' scaled logarithms, to either side


class WorstKernel(NamedTuple):
    """The worst dynamics of an uncertainty set.

    Attributes:
      P: float64[S, A, S], a kernel that attains the value.
      d: float64[S], the state distribution under it.
      value: float64[], E_ρ̃[r] under it.
      gap: float64[], value - a lower bound from Lagrange's dual: the minimum is within it.
      excess: float64[], how far the kernel is outside the set, in units of ε; rounding, >= 0.
    """

    P: jax.Array
    d: jax.Array
    value: jax.Array
    gap: jax.Array
    excess: jax.Array


@float64
def kernel_gauge(d, d_tilde, alpha) -> jax.Array:
    """α log mean_s (d(s) / d̃(s))^{1/α}, which the set of Theorem 3.3 bounds by ε: float64[].

    Args:
      d: float64[S], the nominal state distribution.
      d_tilde: float64[S], the changed one; 0 where d > 0 gives infinity.
      alpha: > 0.

    Raises:
      ValueError: shapes that disagree or alpha <= 0.
    """
    d = as_float64("d", d, (None,))
    d_tilde = as_float64("d_tilde", d_tilde, d.shape[-1:])
    alpha = check_number("alpha", alpha)
    # A state without nominal visits adds 0 to the mean: its ratio is 0, also over 0.
    ratio = jnp.where(d > 0, jnp.log(d) - jnp.log(d_tilde), -1e6)
    return soft_mean(ratio, alpha)


@float64
def kernel_bound(mdp: TabularMDP, policy, alpha, epsilon, with_policy: bool = False) -> jax.Array:
    """The lower bound of Theorem 3.3, or of A.4.1 with policy entropy added: float64[].

    exp(E_ρ[log r] + α (H(d) - log S) - ε); `with_policy` adds α (E_d[H(π)] - log A), which is never
    positive: the set stays as it is and the bound loosens.

    Args:
      mdp: one MDP with r > 0.
      policy: float64[S, A].
      alpha: coefficient, > 0.
      epsilon: size of the set, >= 0.
      with_policy: the bound of A.4.1.

    Raises:
      ValueError: rewards that are not positive, or another argument out of its range.
    """
    mdp, policy, alpha, epsilon = _checked(mdp, policy, alpha, epsilon)
    rho = state_distribution(mdp, policy)[:, None] * policy
    states, actions = rho.shape
    entropy = state_entropy(rho) - jnp.log(states)
    if with_policy:
        entropy = entropy + policy_entropy(rho) - jnp.log(actions)
    return jnp.exp(jnp.sum(rho * jnp.log(mdp.r)) + alpha * entropy - epsilon)


@float64
def worst_case_kernel(mdp: TabularMDP, policy, alpha, epsilon) -> WorstKernel:
    """The exact minimum over the uncertainty set of Theorem 3.3, and a kernel that attains it.

    With multipliers λ of the set and ν of Σ d̃ = 1, p = 1/α, the minimizer is

        d̃(s) = max((1 - γ) μ(s), (λ p d(s)^p / (r^π(s) - ν))^{1/(p + 1)}):

    ν < min r^π is found so that d̃ sums to 1, and λ so that d̃ is just inside the set.

    Arguments and errors as in `kernel_bound`.
    """
    return _worst_case_kernel(*_checked(mdp, policy, alpha, epsilon))


@jax.jit
def _worst_case_kernel(mdp: TabularMDP, policy, alpha, epsilon) -> WorstKernel:
    d = state_distribution(mdp, policy)
    reward = jnp.sum(policy * mdp.r, -1)
    least, p = (1 - mdp.gamma) * mdp.mu, 1 / alpha
    # Unvisited states may take mass for free; so may one visited this rarely.
    log_d = jnp.maximum(jnp.log(d), -50 * (1 + alpha))

    def at(t, u):
        """d̃ for λ p = exp((p + 1) t) and ν = min r^π - exp((p + 1) u)."""
        return jnp.exp(jnp.maximum(jnp.log(least), _log_free(t, u, reward, log_d, p)))

    def summing_to_one(t):
        # d̃ falls as u grows.
        return _bisect(lambda u: at(t, u).sum() <= 1, -_RANGE, _RANGE)

    def inside(t):
        return kernel_gauge(d, _normalized(at(t, summing_to_one(t)), least), alpha) <= epsilon

    t = _bisect(inside, -_RANGE, _RANGE)
    u = summing_to_one(t)
    d_tilde = _normalized(at(t, u), least)
    value = d_tilde @ reward
    gap = value - _dual(t, u, reward, log_d, least, p, epsilon)
    excess = jnp.maximum(0, kernel_gauge(d, d_tilde, alpha) - epsilon)
    target = (d_tilde - least) / jnp.where(mdp.gamma > 0, mdp.gamma, 1)
    P = jnp.where(mdp.gamma > 0, jnp.broadcast_to(target, mdp.P.shape), mdp.P)
    return WorstKernel(P, d_tilde, value, gap, excess)


def _dual(t, u, reward, log_d, least, p, epsilon) -> jax.Array:
    """Lagrange's dual at (λ, ν), a lower bound on the minimum for any multipliers: float64[]."""
    below = jnp.exp((p + 1) * u)
    log_lambda = (p + 1) * t - jnp.log(p)
    best = jnp.maximum(jnp.log(least), _log_free(t, u, reward, log_d, p))
    # Of a minimization over d̃ >= least, separately in every state.
    states = jnp.exp(best) * (reward - reward.min() + below)
    states += jnp.exp(log_lambda + p * (log_d - best))
    budget = jnp.exp(log_lambda + jnp.log(len(reward)) + p * epsilon)
    return states.sum() + reward.min() - below - budget


def _log_free(t, u, reward, log_d, p) -> jax.Array:
    """log d̃ where (1 - γ) μ does not bind: float64[S].

    In logarithms throughout: with p = 100 the multipliers have thousands of digits.
    """
    log_above = jnp.logaddexp(jnp.log(reward - reward.min()), (p + 1) * u)
    return t + (p * log_d - log_above) / (p + 1)


def _normalized(d: jax.Array, least: jax.Array) -> jax.Array:
    """d with what exceeds `least` scaled so that it sums to 1."""
    free = d - least
    total = jnp.where(free.sum() > 0, free.sum(), 1)
    return least + free * (1 - least.sum()) / total


def _bisect(holds, low: float, high: float) -> jax.Array:
    """The least x in the range where `holds`, which is false below it and true above."""

    def halve(ends, _):
        middle = (ends[0] + ends[1]) / 2
        yes = holds(middle)
        return (jnp.where(yes, ends[0], middle), jnp.where(yes, middle, ends[1])), None

    ends = (jnp.array(low), jnp.array(high))
    return jax.lax.scan(halve, ends, length=_BISECTIONS)[0][1]


def _checked(mdp: TabularMDP, policy, alpha, epsilon):
    mdp = checked(mdp)
    if not isinstance(mdp.r, jax.core.Tracer) and not (mdp.r > 0).all():
        raise ValueError(f"r must be positive, its least value is {np.min(mdp.r):g}")
    alpha, epsilon = check_number("alpha", alpha), check_number("epsilon", epsilon, strict=False)
    return mdp, checked_policy(mdp, policy), alpha, epsilon
