"""Exact robust MDPs: optimal values, policies and worst kernels, with certificates.

The adversary picks rows from the sets of `divergences`, or pays for leaving the nominal rows:

    V(s) = max_a r(s, a) + γ Σ_i u_i(s, a) inf_q {q·V + cost(q, w_i)},  P(·|s, a) = Σ_i u_i w_i.

In an (s, a)-rectangular set (Iyengar 2005; Nilim and El Ghaoui 2005) every pair has a factor of
its own, w = P.  In a factor model (r-rectangular, Goyal and Grand-Clément 2023; d-rectangular in
arXiv 2411.18612) pairs share R factors, so that the adversary moves them together.  The infimum
separates over factors because every pair wants the same thing, w_i·V small; the operator is a
γ-contraction, its fixed point the exact robust value, and a deterministic policy is optimal.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.divergences import AMBIGUITIES, check_ambiguity
from entrob.theory.generators import dense, random_rows
from entrob.theory.mdp import (
    TOLERANCE,
    TabularMDP,
    as_float64,
    check_distribution,
    check_number,
    checked,
    checked_policy,
    float64,
    values,
)


class FactoredMDP(NamedTuple):
    """An MDP whose rows are mixtures of a few factors.

    Attributes:
      mdp: the nominal MDP, P = u w.
      u: float64[S, A, R], share of each factor in a pair's row; sums to 1 over R.
      w: float64[R, S], distributions of the next state.
    """

    mdp: TabularMDP
    u: jax.Array
    w: jax.Array


class RobustSolution(NamedTuple):
    """Robust values with their certificate.

    Attributes:
      values: float64[S], V: discounted returns from each state under the worst kernel, in units of
        reward / (1 - γ); with a penalty they contain its discounted cost.
      value: float64[], (1 - γ) μ·V, comparable with E_ρ[r]; within (1 - γ) error of the truth.
      policy: float64[S, A], greedy for V (its robust values are within 2 error of the best), or
        the policy that was evaluated.
      kernel: float64[S, A, S], attains the infimum for V.
      error: float64[], bound on the largest |V - truth|: the Bellman residual plus γ times the
        inner gap, divided by 1 - γ.
      iterations: int32[], kernels evaluated.
      converged: bool[], whether error is within the tolerance asked for.
    """

    values: jax.Array
    value: jax.Array
    policy: jax.Array
    kernel: jax.Array
    error: jax.Array
    iterations: jax.Array
    converged: jax.Array


class Look(NamedTuple):
    """One application of the robust operator.

    Attributes:
      Q: float64[S, A].
      kernel: float64[S, A, S], the worst.
      cost: float64[S, A], what the penalty adds to the next value.
      gap: float64[], the largest inner gap.
    """

    Q: jax.Array
    kernel: jax.Array
    cost: jax.Array
    gap: jax.Array


class Iterate(NamedTuple):
    """Where policy iteration stands.

    Attributes:
      V: float64[S].
      policy: float64[S, A].
      look: from V.
      before: float64[], sum of the previous V of this policy, infinite for its first.
      steps: int32[].
      finished: bool[], whether nothing can change any more.
    """

    V: jax.Array
    policy: jax.Array
    look: Look
    before: jax.Array
    steps: jax.Array
    finished: jax.Array


@float64
def factored(
    key: jax.Array,
    states: int,
    actions: int,
    factors: int,
    branching: int | None = None,
    gamma=0.9,
) -> FactoredMDP:
    """A random factor model: every pair mixes some of the factors, every factor some states.

    Shares and factors are uniform on the simplices of `branching` random entries.  Rewards are
    uniform in [0.05, 1] and the first state is uniform, as in `generators.dense`.

    Args:
      key: a JAX key.
      states: S, at least 1.
      actions: A, at least 1.
      factors: R, at least 1.
      branching: factors of a pair and states of a factor, at least 1; None: all of them.
      gamma: discount in [0, 1).

    Raises:
      ValueError: a count out of range.
    """
    check_number("factors", factors, 1, strict=False)
    if branching is not None and not 1 <= branching <= min(factors, states):
        raise ValueError(f"branching must be in 1..{min(factors, states)}, not {branching}")
    rest, shares, rows = jax.random.split(key, 3)
    mdp = dense(rest, states, actions, gamma)
    u = random_rows(shares, (states, actions, factors), branching)
    w = random_rows(rows, (factors, states), branching)
    P = u @ w
    return FactoredMDP(mdp._replace(P=P / P.sum(-1, keepdims=True)), u, w)


@float64
def robust_value_iteration(
    model: TabularMDP | FactoredMDP,
    ambiguity: str,
    size,
    tolerance: float = 1e-9,
    max_iterations: int = 200,
) -> RobustSolution:
    """The best value against the worst kernel, by policy iteration (Hoffman and Karp 1966).

    A policy is evaluated by policy iteration of the adversary: solve for the values of its present
    kernel, take the worst kernel for these values, which lowers them, until nothing is lost any
    more; then the policy becomes greedy, which raises them.  Both sequences are monotone.

    Args:
      model: one MDP, with a set for every pair's row, or a factor model, with one per factor.
      ambiguity: a key of `divergences.AMBIGUITIES`; those with a penalty make it an RRMDP.
      size: radius >= 0 of the ball, or λ > 0, in units of value, of the penalty; may be traced.
      tolerance: stop at this `RobustSolution.error`.
      max_iterations: linear systems to solve at most.

    Raises:
      ValueError: an unknown ambiguity, a size out of range, a model that is none.
    """
    mdp, u, w, size = _checked(model, ambiguity, size)
    first = jax.nn.one_hot(jnp.argmax(mdp.r, -1), mdp.r.shape[-1], dtype=float)
    return _solve(mdp, u, w, size, first, tolerance, max_iterations, ambiguity, improve=True)


@float64
def robust_policy_evaluation(
    model: TabularMDP | FactoredMDP,
    policy,
    ambiguity: str,
    size,
    tolerance: float = 1e-9,
    max_iterations: int = 200,
) -> RobustSolution:
    """The value of a fixed policy against its worst kernel: float64[S] and its certificate.

    Args:
      model: as in `robust_value_iteration`.
      policy: float64[S, A], stochastic or not.
      ambiguity: a key of `divergences.AMBIGUITIES`.
      size: radius or λ; may be traced.
      tolerance: stop at this `RobustSolution.error`.
      max_iterations: linear systems to solve at most.

    Raises:
      ValueError: as in `robust_value_iteration`, or not a policy.
    """
    mdp, u, w, size = _checked(model, ambiguity, size)
    policy = jnp.asarray(checked_policy(mdp, policy))
    return _solve(mdp, u, w, size, policy, tolerance, max_iterations, ambiguity, improve=False)


def _checked(
    model: TabularMDP | FactoredMDP, ambiguity: str, size
) -> tuple[TabularMDP, jax.Array | None, jax.Array, jax.Array]:
    """MDP, shares (None: one factor per pair), factors [R, S] and size."""
    size = check_ambiguity(ambiguity, size)
    if isinstance(model, TabularMDP):
        mdp = checked(model)
        return mdp, None, mdp.P.reshape(-1, mdp.P.shape[-1]), size
    mdp = checked(model.mdp)
    w = as_float64("w", model.w, (None, mdp.P.shape[-1]))
    u = as_float64("u", model.u, (*mdp.r.shape, len(w)))
    check_distribution("w", w)
    check_distribution("u", u)
    if not any(isinstance(x, jax.core.Tracer) for x in (u, w, mdp.P)):
        off = np.abs(u @ w - mdp.P).max()
        if off > TOLERANCE:
            raise ValueError(f"P of the factored model is not u w; it is off by {off:.3g}")
    return mdp, u, w, size


@functools.partial(jax.jit, static_argnames=("ambiguity", "improve"))
def _solve(mdp, u, w, size, policy, tolerance, max_iterations, ambiguity, improve):
    """The `RobustSolution` of a policy or, with `improve`, of the best one, started from it."""
    look = lambda V: _look(mdp, u, w, ambiguity, size, V)
    mean = lambda Q, policy: jnp.sum(policy * Q, -1)
    greedy = lambda Q: jax.nn.one_hot(jnp.argmax(Q, -1), Q.shape[-1], dtype=float)
    residual = lambda new, V: jnp.abs(new - V).max() / (1 - mdp.gamma)

    def error(it):
        new = it.look.Q.max(-1) if improve else mean(it.look.Q, it.policy)
        return residual(new, it.V) + mdp.gamma * it.look.gap / (1 - mdp.gamma)

    def advance(it):
        # A sum that does not fall any more is one that only rounding moves.
        rest = residual(mean(it.look.Q, it.policy), it.V)
        evaluated = (rest <= tolerance / 2) | (it.V.sum() >= it.before)
        policy = jnp.where(evaluated, greedy(it.look.Q), it.policy) if improve else it.policy
        reward = mdp.r + mdp.gamma * it.look.cost
        V = values(mdp._replace(P=it.look.kernel), policy, reward)
        before = jnp.where(evaluated, jnp.inf, it.V.sum())
        finished = evaluated & (policy == it.policy).all()
        return Iterate(V, policy, look(V), before, it.steps + 1, finished)

    def unfinished(it):
        return (error(it) > tolerance) & ~it.finished & (it.steps < max_iterations)

    V = values(mdp, policy, mdp.r)
    first = Iterate(V, policy, look(V), jnp.array(jnp.inf), jnp.array(0), jnp.array(False))
    last = jax.lax.while_loop(unfinished, advance, first)
    bound = error(last)
    return RobustSolution(
        values=last.V,
        value=(1 - mdp.gamma) * mdp.mu @ last.V,
        policy=greedy(last.look.Q) if improve else policy,
        kernel=last.look.kernel,
        error=bound,
        iterations=last.steps,
        converged=bound <= tolerance,
    )


def _look(mdp: TabularMDP, u, w: jax.Array, ambiguity: str, size, V: jax.Array) -> Look:
    """The worst rows for V, mixed by the shares u."""
    worst = jax.vmap(AMBIGUITIES[ambiguity].worst, (0, None, None))(w, V, size)
    pairs = mdp.r.shape
    mix = lambda x: x.reshape(*pairs, *x.shape[1:]) if u is None else jnp.tensordot(u, x, 1)
    Q = mdp.r + mdp.gamma * mix(worst.value)
    return Look(Q, mix(worst.row), mix(worst.cost), worst.gap.max())
