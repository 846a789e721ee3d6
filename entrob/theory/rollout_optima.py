"""The policies that maximize the entropy of n pooled rollouts on the 2×6 grid (§4.3, Figure 3)."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.mdp import entropy, float64
from entrob.theory.rollouts import (
    CELLS,
    COLUMNS,
    MOVES,
    ONWARD,
    ROWS,
    Pooling,
    check_count,
    check_rollouts,
    check_start,
    entropy_bound,
    evaluate_all,
    make_poolings,
    next_cells,
    pooled,
    sampled_entropy,
    visit_counts,
)

ROLLOUTS = (1, 2, 4, 8, 16, 32, math.inf)
AGREEMENT = 1e-6
"""Nats within which two policies count as equally good."""
_RARE = 1e-12  # a cell with fewer departures has no policy
_FLOOR = -60.0  # least log π: an action can still come back from there


class RolloutOptima(NamedTuple):
    """Optima of F_n, one row per n; entropies in nats, float64 where nothing else is said.

    Attributes:
      rollouts: [N], n; infinity for the limit.
      value: [N], F_n of the policy found, exact.
      bound: [N], no policy has more (`entropy_bound`); value = bound certifies an optimum.
      gap: [N], first-order gap max_π' <∇F_n(π), π' - π>, 0 where no change of first order helps.
        F_n is not concave: this does not bound the distance to the optimum.
      converged: bool[N], whether gap or bound - value is within the tolerance asked for.
      sampled: [N, 3], F_n by simulation and its 95 % interval; NaN at n = ∞.
      uniform: [N], F_n of the uniform policy.
      single, limit: [N], F_1 and F_∞ of the policy found.
      policy_entropy: [N], E_d H(π(·|s)), d the cells that moves are made from.
      policy_entropy_high: [N], the same for the most random of the policies found that are equally
        good (1e-6 nats): more than `policy_entropy` where the optimum is not unique.
      agreeing: int64[N], from how many of the starts such policies were found.
      policy: [N, 2, 6, 4], uniform in cells that no move is made from.
      visits: [N, 2, 6], expected share of the visits, E p̂.
    """

    rollouts: np.ndarray
    value: np.ndarray
    bound: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
    sampled: np.ndarray
    uniform: np.ndarray
    single: np.ndarray
    limit: np.ndarray
    policy_entropy: np.ndarray
    policy_entropy_high: np.ndarray
    agreeing: np.ndarray
    policy: np.ndarray
    visits: np.ndarray


@float64
def rollout_optima(
    key: jax.Array,
    rollouts: Sequence[float] = ROLLOUTS,
    start: int = 0,
    moves: int = MOVES,
    starts: int = 16,
    iterations: int = 1500,
    simulated: int = 64_000,
    tolerance: float = 1e-4,
) -> RolloutOptima:
    """Maximize F_n over stationary Markov policies for several n, from random policies.

    Of the ends that are equally good (1e-6 nats) the least random policy is kept, so
    `RolloutOptima.policy_entropy` is what an optimum needs rather than what it allows.

    Args:
      key: a JAX key.
      rollouts: the n, integers of at least 1 or ``math.inf``.
      start: first cell, 0..11; 0 is the corner at the top left.
      moves: number of moves, at least 1.
      starts: policies to begin with, at least 1.
      iterations: steps from each of them, at least 1.
      simulated: rollouts behind each row of `sampled`, at least twice the largest finite n.
      tolerance: in nats, for `converged`.

    Raises:
      ValueError: an argument out of range.
    """
    n = np.array([check_rollouts(m) for m in rollouts], float)
    if len(n) == 0:
        raise ValueError("rollouts must name at least one n")
    most = int(n[np.isfinite(n)].max(initial=1))
    start, moves, bits = check_start(start), check_count("moves", moves), most.bit_length()
    starts, iterations = check_count("starts", starts), check_count("iterations", iterations)
    simulated = check_count("simulated", simulated, 2 * most)
    key, *keys = jax.random.split(key, len(n) + 1)
    # Drawn per cell that is reached: actions with the same effect start, and stay, equally likely.
    toward = jax.random.normal(key, (starts, CELLS, CELLS))
    logits = toward[:, np.arange(CELLS)[:, None], next_cells()]
    poolings = make_poolings([*n, 1, math.inf], moves)
    own = jax.tree.map(lambda x: x[: len(n)], poolings)
    climb = functools.partial(_climb, iterations=iterations, bits=bits, start=start, moves=moves)
    ends = jax.vmap(jax.vmap(climb, (0, None)), (None, 0))(logits, own)
    policies, values, gaps, departures = (np.asarray(x) for x in ends)
    spread = (departures * np.asarray(entropy(policies))).sum(-1) / moves
    good = values >= values.max(1, keepdims=True) - AGREEMENT
    best = np.arange(len(n)), np.where(good, spread, np.inf).argmin(1)
    policy, gap, value = policies[best], gaps[best], values[best]
    evaluate = functools.partial(
        evaluate_all, poolings=poolings, bits=bits, start=start, moves=moves
    )
    shown = np.concatenate([policy, np.full((1, CELLS, 4), 0.25)])
    cross, visits = (np.asarray(x) for x in jax.vmap(evaluate)(shown))
    sampled = np.full((len(n), 3), np.nan)
    for i in np.flatnonzero(np.isfinite(n)):
        groups = simulated // int(n[i])
        sampled[i] = sampled_entropy(keys[i], policy[i], int(n[i]), groups, start, moves)
    bound = np.array([entropy_bound(m, moves) for m in n])
    return RolloutOptima(
        rollouts=n,
        value=value,
        bound=bound,
        gap=gap,
        converged=np.minimum(gap, bound - value) <= tolerance,
        sampled=sampled,
        uniform=cross[-1, : len(n)],
        single=cross[:-1, -2],
        limit=cross[:-1, -1],
        policy_entropy=spread[best],
        policy_entropy_high=np.where(good, spread, -np.inf).max(1),
        agreeing=good.sum(1),
        policy=policy.reshape(-1, ROWS, COLUMNS, 4),
        visits=visits[:-1].reshape(-1, ROWS, COLUMNS),
    )


@functools.partial(jax.jit, static_argnames=("bits", "start", "moves", "iterations"))
def _climb(
    logits: jax.Array, pooling: Pooling, bits: int, start: int, moves: int, iterations: int
) -> tuple:
    """Policy, F_n, gap and departures at the end of a natural-gradient ascent from `logits`.

    The natural gradient for log π(a|s) is the advantage ∂F/∂π(a|s) - Σ_b π(b|s) ∂F/∂π(b|s) over the
    departures from s (Kakade 2001): log π falls linearly where an action is worse, so the policy
    can become deterministic.  A step that would lower F_n is shortened instead of taken.
    """

    def evaluate(log_policy):
        policy = jnp.exp(log_policy)
        F = lambda p: pooled(visit_counts(p, start, moves), pooling, bits)
        value, slope = jax.value_and_grad(F)(policy)
        advantage = slope - jnp.sum(policy * slope, -1, keepdims=True)
        departures = _departures(policy, start, moves)
        # A cell hardly ever departed from has no reliable direction yet.
        return value, advantage / (departures + 1e-3)[:, None], advantage.max(-1).sum()

    def step(at, _):
        log_policy, value, direction, gap, size = at
        tried = jax.nn.log_softmax(jnp.maximum(log_policy + size * direction, _FLOOR))
        new = evaluate(tried)
        better = new[0] >= value
        kept = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (tried, *new), (log_policy, value, direction, gap)
        )
        return (*kept, jnp.where(better, 1.5, 0.4) * size), None

    at = (jax.nn.log_softmax(logits), -jnp.inf, jnp.zeros((CELLS, 4)), jnp.inf, 10.0)
    (log_policy, value, _, gap, _), _ = jax.lax.scan(step, at, None, length=iterations + 1)
    policy = jnp.exp(log_policy)
    departures = _departures(policy, start, moves)
    return jnp.where(departures[:, None] > _RARE, policy, 0.25), value, gap, departures


def _departures(policy: jax.Array, start: int, moves: int) -> jax.Array:
    """Expected number of moves made from each cell: float64[12]."""
    onward = jnp.einsum("sat,sa->st", ONWARD, policy)
    go = lambda d, _: (d @ onward, d)
    return jax.lax.scan(go, jnp.eye(CELLS)[start], None, length=moves)[1].sum(0)
