"""Every statement of the paper's theory on random instances: one row each.

A check is a function of one random instance that returns an `Outcome`; thousands of them make a
`Row`.  Errors are in units of reward (rewards lie in [0.05, 1]) unless the row says otherwise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory import coverage, kernel_uncertainty, limits, mirror_descent, reward_uncertainty
from entrob.theory.generators import dense, garnet, random_rows
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import (
    TabularMDP,
    occupancy,
    policy_entropy,
    state_action_entropy,
    state_distribution,
    state_entropy,
)
from entrob.theory.regularized import Weights, objective, weights

ROUNDING = 1e-9
"""What float64 leaves of an equality or inequality between numbers of order 1."""

STATES, ACTIONS, BRANCHING = 20, 4, 5


class Instance(NamedTuple):
    """What a check is given.

    Attributes:
      mdp: Garnet or dense, with even chances; γ is uniform in [0.5, 0.99].
      policy: float64[S, A], from nearly deterministic to nearly uniform.
      alpha: float64[], log-uniform in [0.01, 10].
      epsilon: float64[], uniform in [0, 1].
      key: for what a check draws itself.
    """

    mdp: TabularMDP
    policy: jax.Array
    alpha: jax.Array
    epsilon: jax.Array
    key: jax.Array


class Outcome(NamedTuple):
    """What a check found on one instance.

    Attributes:
      error: float64[], deviation from an equality, or excess over a bound; 0 is perfect.
      violated: bool[], whether the statement fails here.
      tightness: float64[], bound over exact value; NaN where the statement is an equality.
    """

    error: jax.Array
    violated: jax.Array
    tightness: jax.Array | float = jnp.nan


def instance(key: jax.Array, states: int = STATES, actions: int = ACTIONS) -> Instance:
    """Draw an instance."""
    keys = jax.random.split(key, 9)
    gamma = jax.random.uniform(keys[0], minval=0.5, maxval=0.99)
    sparse = garnet(keys[1], states, actions, min(BRANCHING, states), gamma)
    full = dense(keys[2], states, actions, gamma)
    mdp = jax.tree.map(lambda a, b: jnp.where(jax.random.bernoulli(keys[3]), a, b), sparse, full)
    sharpness = jnp.exp(jax.random.uniform(keys[4], minval=np.log(0.05), maxval=np.log(20)))
    policy = jax.nn.softmax(sharpness * jax.random.normal(keys[5], (states, actions)), -1)
    alpha = jnp.exp(jax.random.uniform(keys[6], minval=np.log(0.01), maxval=np.log(10)))
    return Instance(mdp, policy, alpha, jax.random.uniform(keys[7]), keys[8])


def reward_duality(i: Instance, regularizer: str) -> Outcome:
    """Theorem 3.1 and Table 1: closed form = numerical minimum, attained inside the set."""
    args = (i.mdp, i.policy, regularizer, i.alpha, i.epsilon)
    worst = reward_uncertainty.worst_case_reward(*args)
    found = reward_uncertainty.minimize_reward(*args)
    rho = occupancy(i.mdp, i.policy)
    inside = reward_uncertainty.in_uncertainty_set(i.mdp, i.policy, worst.reward, *args[2:])
    # Another member, on the boundary: nothing in the set may fall below the closed form.
    delta = i.alpha * jax.random.normal(i.key, rho.shape) + i.mdp.r
    delta += i.epsilon - reward_uncertainty.gauge(rho, delta, regularizer, i.alpha)
    other = jnp.sum(rho * (i.mdp.r - delta))
    attained = jnp.abs(jnp.sum(rho * worst.reward) - worst.value)
    error = jnp.maximum(attained, jnp.abs(found.value - worst.value))
    return Outcome(error, (error > 1e-6) | ~inside | (other < worst.value - ROUNDING))


def reward_as_printed(i: Instance) -> Outcome:
    """Theorem 3.1 with the worst reward as printed, without α log S: is the bound attained?"""
    args = (i.mdp, i.policy, "state", i.alpha, i.epsilon)
    worst = reward_uncertainty.worst_case_reward(*args)
    rho = occupancy(i.mdp, i.policy)
    printed = worst.reward + i.alpha * jnp.log(len(rho))
    error = jnp.abs(jnp.sum(rho * printed) - worst.value)
    return Outcome(error, error > 1e-6)


def nested_sets(i: Instance) -> Outcome:
    """Theorem 3.2: the sets grow with α, from max ≤ ε to mean ≤ ε."""
    delta = jax.random.normal(i.key, i.mdp.mu.shape)
    alphas = jnp.array([0, *np.logspace(-6, 6, 61), jnp.inf])
    gauges = jax.vmap(lambda a: reward_uncertainty.soft_mean(delta, a))(alphas)
    # 1e-4 away from the limits at both ends, as the expansions log(S) α and var/2α say.
    ends = jnp.maximum(jnp.abs(gauges[1] - delta.max()), jnp.abs(gauges[-2] - delta.mean()))
    error = jnp.maximum(jnp.diff(gauges).max(), 0)
    return Outcome(error, (error > ROUNDING) | (ends > 1e-4))


def kernel_bound(i: Instance, with_policy: bool) -> Outcome:
    """Theorem 3.3 and A.4.1: the bound is below the exact worst case over kernels."""
    args = (i.mdp, i.policy, i.alpha, i.epsilon)
    worst = kernel_uncertainty.worst_case_kernel(*args)
    bound = kernel_uncertainty.kernel_bound(*args, with_policy=with_policy)
    d = state_distribution(i.mdp._replace(P=worst.P), i.policy)
    rebuilt = jnp.abs(d @ jnp.sum(i.policy * i.mdp.r, -1) - worst.value)
    # A random kernel, if it is in the set at all, must not be worse.
    key_share, key_rows = jax.random.split(i.key)
    share = jax.random.uniform(key_share)
    mixed = (1 - share) * i.mdp.P + share * random_rows(key_rows, (len(d), 1, len(d)))
    other = state_distribution(i.mdp._replace(P=mixed), i.policy)
    gauge = kernel_uncertainty.kernel_gauge(state_distribution(i.mdp, i.policy), other, i.alpha)
    lower = other @ jnp.sum(i.policy * i.mdp.r, -1) < worst.value - ROUNDING
    unsolved = (worst.gap > 1e-8) | (worst.excess > ROUNDING) | (rebuilt > ROUNDING)
    error = jnp.maximum(bound - worst.value, 0)
    violated = (error > ROUNDING) | unsolved | ((gauge <= i.epsilon) & lower)
    return Outcome(error, violated, bound / worst.value)


def optimum(i: Instance, regularizer: str) -> Outcome:
    """The regularized optimum is found: its duality gap, and no random policy does better."""
    w = weights(regularizer, i.alpha)
    found = interior_point(i.mdp, w, 1e-8)
    rho = occupancy(i.mdp, i.policy)
    better = objective(i.mdp, w, rho) > found.value + found.gap + ROUNDING
    return Outcome(found.gap, ~found.converged | better)


def solvers_agree(i: Instance, regularizer: str) -> Outcome:
    """Interior point and mirror descent find the same optimum, where the second converges."""
    # Mirror descent is sublinear for strong state entropy: coefficients up to 1.
    alpha = jnp.minimum(i.alpha, 1.0)
    w = weights(regularizer, alpha)
    first = interior_point(i.mdp, w, 1e-9)
    second = mirror_descent.mirror_descent(i.mdp, w, 1e-7, 3_000)
    error = jnp.abs(first.value - second.value)
    return Outcome(jnp.where(second.converged, error, 0.0), (error > 1e-6) & second.converged)


def linear_rate(i: Instance, rate: float = 0.3, steps: int = 40) -> Outcome:
    """Mirror descent with policy entropy: after k steps at most its guaranteed share is left.

    The tightness is the measured contraction per step over 1 - (1 - γ) ητ / (1 + ητ).
    """
    alpha = jnp.clip(i.alpha, 0.05, 1.0)
    w = Weights(alpha, 0.0 * alpha)
    best = interior_point(i.mdp, w, 1e-12)
    eta = rate / alpha
    f = mirror_descent.trajectory(i.mdp, w, eta, steps)
    left = jnp.maximum(best.value + best.gap - f, 0)
    promised = 1 - (1 - i.mdp.gamma) * eta * alpha / (1 + eta * alpha)
    k = jnp.arange(steps)
    # The guarantee has a factor in front; it is that of the values, 1/(1 - γ), at the start.
    allowed = left[0] / (1 - i.mdp.gamma) * promised**k + 1e-10
    error = jnp.max(left - allowed)
    last = jnp.argmax(jnp.where(left > 1e-9, k, 0))
    measured = (left[last] / left[0]) ** (1 / jnp.maximum(last, 1))
    return Outcome(jnp.maximum(error, 0), error > 0, measured / promised)


def no_regularizer(i: Instance) -> Outcome:
    """Theorem 4.1: three entropies, their negatives, and 0 are all refuted as kernel robustness."""
    rho = occupancy(i.mdp, i.policy)
    entropies = jnp.stack([policy_entropy(rho), state_entropy(rho), state_action_entropy(rho)])
    claims = i.alpha * jnp.concatenate([entropies, -entropies, jnp.zeros(1)])
    kernel = random_rows(i.key, (*rho.shape, len(rho)))
    errors = jax.vmap(lambda o: limits.refute(o, i.mdp, i.policy, kernel).errors.max())(claims)
    floor = limits.refute(0.0, i.mdp, i.policy, kernel).floor
    error = jnp.maximum(floor - errors.min(), 0)
    return Outcome(error, (error > ROUNDING) | (floor < ROUNDING), floor / errors.min())


def sampled_bounds(
    i: Instance, trajectories: int, delta: float = 0.05, datasets: int = 32, horizon: int = 200
) -> tuple[Outcome, Outcome]:
    """Corollaries A.1 and A.2: the share of data sets whose bound exceeds the exact worst case.

    The error is that share, the tightness its mean bound over the exact worst case; for A.1, where
    values may have either sign, the tightness is the mean difference instead.
    """
    mdp = i.mdp._replace(gamma=jnp.minimum(i.mdp.gamma, 0.95))
    policy, alpha = i.policy, jnp.minimum(i.alpha, 1.0)
    size = (alpha, i.epsilon, delta, trajectories, horizon)
    reward = reward_uncertainty.worst_case_reward(mdp, policy, "state", alpha, i.epsilon).value
    kernel = kernel_uncertainty.worst_case_kernel(mdp, policy, alpha, i.epsilon).value

    def one(key):
        found = coverage.estimate(key, mdp, policy, trajectories, horizon)
        return (
            coverage.reward_bound(found, mdp, *size),
            coverage.kernel_bound_sampled(found, mdp, *size),
        )

    first, second = jax.lax.map(one, jax.random.split(i.key, datasets))
    share = lambda bounds, exact: jnp.mean(bounds > exact + ROUNDING)
    return (
        Outcome(share(first, reward), share(first, reward) > delta, jnp.mean(first) - reward),
        Outcome(share(second, kernel), share(second, kernel) > delta, jnp.mean(second) / kernel),
    )
