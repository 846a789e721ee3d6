"""Entropy regularization as robustness to changed rewards: Theorems 3.1 and 3.2, Table 1.

For Δ = r - r̃ let  gauge_α(Δ) = α log mean exp(Δ / α),  a soft maximum, where the mean is

- state:         over states, of Δ^π(s) = Σ_a π(a|s) Δ(s, a);
- policy:        over actions, and the soft maxima of the states are averaged over d;
- state_action:  over all pairs.

The uncertainty set is {r̃ : gauge_α(r - r̃) ≤ ε}.  It is the paper's, LSE(Δ/α) ≤ ε/α + log N with N
= S, A or S·A, where LSE is the log of a sum.  By Fenchel duality of LSE and negative entropy,

    inf {E_ρ[r̃] : r̃ in the set} = E_ρ[r] + α (H - log N) - ε,

with H the regularizer's entropy.  It is attained at Δ = α log(N p) + ε, p = d, π or ρ; where p = 0
only in the limit, r̃ → ∞ there.  The paper prints worst cases without the constant α log N.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.mdp import (
    TabularMDP,
    as_float64,
    check_number,
    entropy,
    float64,
    occupancy,
    policy_entropy,
    policy_of,
)
from entrob.theory.regularized import REGULARIZERS


class WorstReward(NamedTuple):
    """The worst reward of an uncertainty set.

    Attributes:
      reward: float64[S, A], r̃; infinite where the minimum is only approached.
      value: float64[], E_ρ[r̃].
    """

    reward: jax.Array
    value: jax.Array


def soft_mean(x: jax.Array, alpha) -> jax.Array:
    """α log mean exp(x / α) over the last axis; its limits are max x (α = 0), mean x (α = ∞).

    It decreases in α, so the uncertainty sets grow with it (Theorem 3.2).
    """
    top = x.max(-1, keepdims=True)
    inner = jnp.clip(alpha, 1e-300, 1e300)
    shifted = (x - top) / inner
    # log mean exp = log(1 + mean(exp - 1)), which keeps its digits when all of x is close to top.
    soft = top[..., 0] + inner * jnp.log1p(jnp.mean(jnp.expm1(shifted), -1))
    limit = jnp.where(alpha > 0, x.mean(-1), top[..., 0])
    return jnp.where((alpha > 0) & (alpha < jnp.inf), soft, limit)


@float64
def gauge(rho, delta, regularizer: str, alpha) -> jax.Array:
    """gauge_α(Δ) of a change of reward: float64[], in units of reward.

    Args:
      rho: float64[S, A], the occupancy of the policy.
      delta: float64[S, A], r - r̃.
      regularizer: "policy", "state" or "state_action".
      alpha: coefficient, >= 0; 0 and infinity are the limits of Theorem 3.2.

    Raises:
      ValueError: an unknown regularizer, shapes that disagree, alpha < 0 or NaN.
    """
    rho = as_float64("rho", rho, (None, None))
    delta = as_float64("delta", delta, rho.shape[-2:])
    alpha = as_float64("alpha", alpha)
    if not isinstance(alpha, jax.core.Tracer) and not (alpha >= 0).all():
        raise ValueError(f"alpha must be >= 0, not {np.min(alpha):g}")
    if regularizer == "state":
        # Δ may be -∞ where π = 0.
        return soft_mean(jnp.sum(jnp.where(rho > 0, policy_of(rho) * delta, 0), -1), alpha)
    if regularizer == "policy":
        return rho.sum(-1) @ soft_mean(jnp.asarray(delta), alpha)
    _check_regularizer(regularizer)
    return soft_mean(jnp.ravel(delta), alpha)


@float64
def in_uncertainty_set(
    mdp: TabularMDP, policy, reward, regularizer: str, alpha, epsilon, tolerance: float = 1e-9
) -> jax.Array:
    """Whether a reward float64[S, A] is in the uncertainty set of a policy: bool[].

    Errors as in `worst_case_reward`.
    """
    epsilon = check_number("epsilon", epsilon, strict=False)
    alpha = check_number("alpha", alpha)
    rho = occupancy(mdp, policy)
    reward = as_float64("reward", reward, rho.shape)
    return gauge(rho, mdp.r - reward, regularizer, alpha) <= epsilon + tolerance


@float64
def worst_case_reward(mdp: TabularMDP, policy, regularizer: str, alpha, epsilon) -> WorstReward:
    """The worst reward in closed form (Theorem 3.1 and Table 1, constants corrected).

    Args:
      mdp: one MDP.
      policy: float64[S, A].
      regularizer: "policy", "state" or "state_action".
      alpha: coefficient, > 0, in units of reward per nat.
      epsilon: size of the set, >= 0, in units of reward.

    Raises:
      ValueError: an argument out of its range; the message names it.
    """
    alpha, epsilon = check_number("alpha", alpha), check_number("epsilon", epsilon, strict=False)
    rho = occupancy(mdp, policy)
    target, _ = _distribution(rho, regularizer)
    count = target.size if regularizer == "state_action" else target.shape[-1]
    delta = alpha * jnp.log(count * target) + epsilon
    reward = mdp.r - (delta[:, None] if regularizer == "state" else delta)
    value = jnp.sum(rho * mdp.r) + alpha * (_entropy(rho, regularizer) - jnp.log(count)) - epsilon
    return WorstReward(reward, value)


@float64
def minimize_reward(
    mdp: TabularMDP, policy, regularizer: str, alpha, epsilon, iterations: int = 60
) -> WorstReward:
    """The minimum over the uncertainty set found numerically, without the closed form.

    Adding a number to Δ adds it to the gauge, so every Δ can be shifted onto the boundary of the
    set; what is left is to maximize <ρ, Δ> - gauge(Δ) without constraints, by Newton's method with
    its steps shortened to α per coordinate.  The result is a member of the set, so its value is an
    upper bound on the minimum whatever the number of iterations.  Arguments and errors as in
    `worst_case_reward`.
    """
    alpha, epsilon = check_number("alpha", alpha), check_number("epsilon", epsilon, strict=False)
    rho = occupancy(mdp, policy)
    reward = mdp.r - _least(rho, regularizer, alpha, epsilon, iterations)
    return WorstReward(reward, jnp.sum(rho * reward))


@functools.partial(jax.jit, static_argnames=("regularizer", "iterations"))
def _least(rho: jax.Array, regularizer: str, alpha, epsilon, iterations: int) -> jax.Array:
    """The Δ of `minimize_reward`: float64[S, A]."""
    target, axes = _distribution(rho, regularizer)
    expand = (lambda x: x[:, None]) if regularizer == "state" else lambda x: x
    # States that are never visited have no gradient.
    target = jnp.where(jnp.isfinite(target), target, 0)

    def newton(delta, _):
        soft = jax.nn.softmax(delta / alpha, axes)
        # The Hessian is (diag(p) - ppᵀ)/α; constants are in its kernel.
        step = alpha * (target / soft - 1)
        return delta + step / jnp.maximum(1, jnp.abs(step).max() / alpha), None

    delta = jax.lax.scan(newton, jnp.zeros(target.shape), length=iterations)[0]
    delta = expand(delta) * jnp.ones(rho.shape)
    return delta + epsilon - gauge(rho, delta, regularizer, alpha)


def _distribution(rho: jax.Array, regularizer: str) -> tuple[jax.Array, int | tuple[int, ...]]:
    """What the regularizer takes the entropy of, and the axes over which it sums to 1."""
    _check_regularizer(regularizer)
    if regularizer == "state":
        return rho.sum(-1), -1
    return (policy_of(rho), -1) if regularizer == "policy" else (rho, (-2, -1))


def _entropy(rho: jax.Array, regularizer: str) -> jax.Array:
    if regularizer == "policy":
        return policy_entropy(rho)
    return entropy(rho.sum(-1) if regularizer == "state" else rho.ravel())


def _check_regularizer(regularizer: str) -> None:
    if regularizer not in REGULARIZERS:
        raise ValueError(
            f"unknown regularizer {regularizer!r}: known are {', '.join(REGULARIZERS)}"
        )
