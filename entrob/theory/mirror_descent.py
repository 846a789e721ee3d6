"""Policy mirror descent for the regularized objective.

With Q_k(s, a) = g(s, a) + γ P V_k, where V_k is the value of π_k for the reward
g = r - b (log d_k + 1) with policy entropy weighted a, the step

    π_{k+1}(·|s) ∝ π_k(·|s)^{1/(1 + ηa)} exp(η Q_k(s, ·) / (1 + ηa))

maximizes η (<Q_k, π> + a H(π)) - KL(π | π_k) in every state (Lan 2021; Zhan et al. 2021).  For
b = 0 it contracts linearly, by at least 1 - (1 - γ) ηa / (1 + ηa) a step, to the rate γ of policy
iteration as η grows.  With state entropy the gradient g changes with the policy, so that η is
limited: it shrinks when a step would lose and grows when steps succeed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.theory.linear import solve
from entrob.theory.mdp import TabularMDP, reachable
from entrob.theory.regularized import Solution, Weights, certified, objective, upper_bound

GROWTH, SHRINK = 1.5, 0.4
"""What a step size is multiplied by after success and after failure."""

ROUNDING = 1e-13
"""A loss this small is no failure: at a vertex f changes by rounding alone."""


class Step(NamedTuple):
    """State of the iteration.

    Attributes:
      log_policy: float64[S, A].
      value: float64[], f of the policy.
      bound: float64[], the least upper bound so far.
      Q: float64[S, A], as in the module's text, for this policy.
      rate: float64[], η.
      count: int32[], steps tried.
    """

    log_policy: jax.Array
    value: jax.Array
    bound: jax.Array
    Q: jax.Array
    rate: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count


@jax.jit
def mirror_descent(
    mdp: TabularMDP,
    w: Weights,
    tolerance: float = 1e-8,
    max_iterations: int = 20_000,
    rate: float | None = None,
) -> Solution:
    """Maximize the regularized objective by policy mirror descent.

    Args:
      mdp: one MDP; nothing is checked.
      w: weights, at least one of them > 0.
      tolerance: stop at this gap, in units of reward.
      max_iterations: stop here in any case.
      rate: a fixed η; by default it adapts.
    """
    visited = reachable(mdp)
    step = lambda s: _step(mdp, w, visited, s, rate)
    first = start(mdp, w, visited, rate)
    unfinished = lambda s: (s.bound - s.value > tolerance) & (s.count < max_iterations)
    last = jax.lax.while_loop(unfinished, step, first)
    policy = jax.nn.softmax(last.log_policy, -1)
    return certified(mdp, w, policy, last.bound, last.count, tolerance)


@functools.partial(jax.jit, static_argnames="steps")
def trajectory(mdp: TabularMDP, w: Weights, rate: float, steps: int) -> jax.Array:
    """f after 0..steps-1 steps at a fixed η: float64[steps]."""
    visited = reachable(mdp)
    advance = lambda s, _: (_step(mdp, w, visited, s, rate), s.value)
    return jax.lax.scan(advance, start(mdp, w, visited, rate), length=steps)[1]


def start(mdp: TabularMDP, w: Weights, visited: jax.Array, rate: float | None) -> Step:
    """The uniform policy."""
    log_policy = jnp.full(mdp.r.shape, -jnp.log(mdp.r.shape[1] * 1.0))
    value, bound, Q = _evaluate(mdp, w, visited, log_policy)
    first = 1.0 / (w.policy + w.state) if rate is None else rate
    return Step(log_policy, value, bound, Q, jnp.asarray(first, float), jnp.array(0))


def _evaluate(
    mdp: TabularMDP, w: Weights, visited: jax.Array, log_policy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """f, an upper bound and Q of a policy."""
    policy = jnp.exp(log_policy)
    flow = jnp.eye(len(mdp.mu)) - mdp.gamma * jnp.einsum("sat,sa->st", mdp.P, policy)
    d = solve(flow.T, (1 - mdp.gamma) * mdp.mu)
    d = jnp.where(visited, d, 1.0)
    reward = mdp.r - w.state * (jnp.log(d) + 1)[:, None]
    gain = jnp.sum(policy * (reward - w.policy * log_policy), -1)
    V = solve(flow, gain)
    value = objective(mdp, w, (d * visited)[:, None] * policy)
    return value, upper_bound(mdp, w, V, visited), reward + mdp.gamma * mdp.P @ V


def _step(mdp: TabularMDP, w: Weights, visited: jax.Array, s: Step, rate: float | None) -> Step:
    held = (s.log_policy + s.rate * s.Q) / (1 + s.rate * w.policy)
    log_policy = jax.nn.log_softmax(held, -1)
    value, bound, Q = _evaluate(mdp, w, visited, log_policy)
    bound = jnp.minimum(s.bound, bound)
    if rate is not None:
        return Step(log_policy, value, bound, Q, s.rate, s.count + 1)
    keep = value >= s.value - ROUNDING
    pick = lambda new, old: jnp.where(keep, new, old)
    return Step(
        log_policy=pick(log_policy, s.log_policy),
        value=pick(value, s.value),
        bound=bound,
        Q=pick(Q, s.Q),
        rate=s.rate * jnp.where(keep, GROWTH, SHRINK),
        count=s.count + 1,
    )
