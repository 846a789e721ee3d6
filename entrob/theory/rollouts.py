"""What maximizing the entropy of n pooled rollouts leads to on the paper's 2×6 grid (§4.3, Fig. 3).

A rollout starts in one cell and makes a fixed number of moves: up, right, down, left; a move into
the border stays put.  F_n(π) = E[H(p̂_n)] is the expected entropy of the empirical distribution of
all cells visited, the first included, in n independent rollouts of a stationary Markov policy π.
As H is concave, pooling can only raise it: F_1 ≤ F_2 ≤ ... → F_∞ = H(E p̂).

F_n is exact for every n, without trajectories.  H is a sum over cells, Σ_c h(p̂(c)) with
h(x) = -x log x, so by linearity only the distribution of the number of visits to *one* cell is
needed; the pooled number is a sum of n independent copies, whose distribution is an n-fold
convolution.  So the 2.4 million cell sequences of 11 moves need not be enumerated, nor sampled;
`sampled_entropy` samples them all the same, as a check.

Known without computing: no F_n exceeds the entropy of n·(moves + 1) visits as even as integers
allow (`entropy_bound`).  With 11 moves from a corner, a path through all 12 cells attains log 12,
the most that any distribution on 12 cells has, for *every* n, and for finite n only such a path
does: every rollout must then visit each cell once, and no stationary policy mixes two of the six
paths.  Only n = ∞ has stochastic optima as well.  With 8 or 17 moves, say, the best depends on n.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from entrob.theory.mdp import as_float64, check_distribution, entropy, float64

ROWS, COLUMNS = 2, 6
CELLS = ROWS * COLUMNS
ACTIONS = ("up", "right", "down", "left")
MOVES = 11
"""The longest path that visits no cell twice."""
ROLLOUTS = (1, 2, 4, 8, 16, 32, math.inf)
AGREEMENT = 1e-6
"""Nats within which two policies count as equally good."""
_STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
_RARE = 1e-12  # a cell with fewer departures has no policy
_TINY = 1e-300  # h has an infinite slope at 0, where cells out of reach are
_FLOOR = -60.0  # least log π: an action can still come back from there


def next_cells() -> np.ndarray:
    """Cell that each action leads to: int64[12, 4]; cells are numbered row by row."""
    cells = np.stack(np.divmod(np.arange(CELLS), COLUMNS), -1)
    to = np.clip(cells[:, None] + _STEPS, 0, (ROWS - 1, COLUMNS - 1))
    return to[..., 0] * COLUMNS + to[..., 1]


_ONWARD = np.eye(CELLS)[next_cells()]  # [s, a, s']


def entropy_bound(rollouts: float, moves: int = MOVES) -> float:
    """Entropy, in nats, of rollouts·(moves + 1) visits as even as integers allow: no F_n is larger.

    Raises:
      ValueError: rollouts is neither a count nor infinity, moves is not a positive integer.
    """
    visits = _rollouts(rollouts) * (_count("moves", moves) + 1)
    if math.isinf(visits):
        return math.log(CELLS)
    counts = visits // CELLS + (np.arange(CELLS) < visits % CELLS)
    return -math.fsum(c / visits * math.log(c / visits) for c in counts if c)


@float64
def visit_counts(policy, start: int = 0, moves: int = MOVES) -> jax.Array:
    """P(a rollout visits cell c exactly k times): float64[12, moves + 2].

    Visits to a cell form a renewal process: the first one, then independent times of return.

    Args:
      policy: float64[12, 4], π(a|s).
      start: first cell, 0..11; 0 is the corner at the top left.
      moves: number of moves, at least 1.

    Raises:
      ValueError: not a policy, a start outside the grid or no moves.
    """
    policy, start, moves = _policy(policy), _start(start), _count("moves", moves)
    eye = np.eye(CELLS)
    onward = jnp.einsum("sat,sa->st", _ONWARD, policy)

    def walk(mass, _):  # [from the start or from c, c, where now], and what reaches c stops there
        mass = mass @ onward
        return mass * (1 - eye), jnp.diagonal(mass, axis1=1, axis2=2)

    outside = np.stack([eye[[start] * CELLS] * (1 - eye), eye])
    _, hits = jax.lax.scan(walk, jnp.array(outside), None, length=moves)
    first = jnp.concatenate([eye[None, start], hits[:, 0]]).T  # [c, time]
    lag = np.subtract.outer(np.arange(moves + 1), np.arange(moves + 1))
    after = jnp.where(lag > 0, hits[np.maximum(lag - 1, 0), 1].transpose(2, 0, 1), 0)

    def renew(time, _):  # from the time of a visit to the time of the next
        return jnp.einsum("cts,cs->ct", after, time), time.sum(-1)

    _, at_least = jax.lax.scan(renew, first, None, length=moves + 2)
    return -jnp.diff(jnp.concatenate([jnp.ones((1, CELLS)), at_least]), axis=0).T


class _Pooling(NamedTuple):
    """What F_n needs of n; the same shapes for every n, so that one compiled function serves all.

    Attributes:
      n: int64[], 0 for infinity.
      spectrum: complex128[frequencies], conjugate transform of h(k / visits) over k, weighted so
        that the real part of a sum over frequencies >= 0 is the inner product.
    """

    n: np.ndarray
    spectrum: np.ndarray


def _poolings(rollouts: Sequence[float], moves: int) -> _Pooling:
    """Stacked along a leading axis."""
    numbers = [0 if math.isinf(n) else int(n) for n in rollouts]
    # Odd, so that no frequency is its own mirror image; long enough that no sum wraps around.
    length = max(*numbers, 1) * (moves + 1) // 2 * 2 + 3
    h = np.zeros((len(numbers), length))
    for row, n in zip(h, numbers):
        share = np.arange(1, n * (moves + 1) + 1) / max(n * (moves + 1), 1)
        row[1 : len(share) + 1] = -share * np.log(share)
    weight = np.r_[1, np.full(length // 2, 2)] / length
    return _Pooling(np.array(numbers), np.conj(np.fft.rfft(h)) * weight)


def _pooled(counts: jax.Array, pooling: _Pooling, bits: int) -> jax.Array:
    """F_n from the distributions of a rollout's counts, for n < 2^bits: float64[]."""
    number = np.arange(counts.shape[1])
    frequency = np.arange(pooling.spectrum.shape[-1])
    angle = -2 * np.pi * np.outer(number, frequency) / (2 * len(frequency) - 1)
    square = jax.lax.complex(counts @ np.cos(angle), counts @ np.sin(angle))
    power = jnp.ones_like(square)
    for bit in range(bits):  # by squaring: n is traced, and a power of 0 must have a derivative
        power = power * jnp.where((pooling.n >> bit) & 1, square, 1)
        square = square * square
    finite = jnp.sum((power * pooling.spectrum).real)
    limit = entropy(jnp.maximum(_shares(counts), _TINY))
    return jnp.where(pooling.n == 0, limit, finite)


@float64
def pooled_entropy(policy, rollouts: float, start: int = 0, moves: int = MOVES) -> jax.Array:
    """F_n(π) = E[H(p̂_n)], exactly, in nats: float64[], in 0..`entropy_bound`.

    Args:
      policy: float64[12, 4], π(a|s).
      rollouts: n, an integer of at least 1 or ``math.inf``.
      start: first cell, 0..11.
      moves: number of moves of a rollout, at least 1; it visits one cell more.

    Raises:
      ValueError: an argument out of range.
    """
    poolings = _poolings([_rollouts(rollouts)], _count("moves", moves))
    bits = int(poolings.n[0]).bit_length()
    return _evaluate(_policy(policy), poolings, bits, _start(start), int(moves))[0][0]


def sampled_entropy(
    key: jax.Array, policy, rollouts: int, groups: int, start: int = 0, moves: int = MOVES
) -> np.ndarray:
    """F_n by simulation, to check `pooled_entropy`: float64[3], mean and its 95 % normal interval.

    Args:
      key: a JAX key.
      policy, start, moves: as in `pooled_entropy`; known values, as NumPy simulates.
      rollouts: n, pooled in every group; finite.
      groups: independent groups, at least 2.

    Raises:
      ValueError: an argument out of range.
    """
    shape = _count("groups", groups, 2), _count("rollouts", rollouts)
    below = np.cumsum(_policy(policy), -1)[:, :-1]
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    to, eye = next_cells(), np.eye(CELLS)
    cell = np.full(shape, _start(start))
    visits = eye[cell].sum(1)
    for _ in range(_count("moves", moves)):
        cell = to[cell, (random.random(shape)[..., None] >= below[cell]).sum(-1)]
        visits += eye[cell].sum(1)
    h = scipy.special.entr(visits / visits.sum(-1, keepdims=True)).sum(-1)
    return h.mean() + 1.96 * h.std(ddof=1) / math.sqrt(len(h)) * np.array([0, -1, 1])


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
    n = np.array([_rollouts(m) for m in rollouts], float)
    if len(n) == 0:
        raise ValueError("rollouts must name at least one n")
    most = int(n[np.isfinite(n)].max(initial=1))
    start, moves, bits = _start(start), _count("moves", moves), most.bit_length()
    starts, iterations = _count("starts", starts), _count("iterations", iterations)
    simulated = _count("simulated", simulated, 2 * most)
    key, *keys = jax.random.split(key, len(n) + 1)
    # Drawn per cell that is reached: actions with the same effect start, and stay, equally likely.
    toward = jax.random.normal(key, (starts, CELLS, CELLS))
    logits = toward[:, np.arange(CELLS)[:, None], next_cells()]
    poolings = _poolings([*n, 1, math.inf], moves)
    own = jax.tree.map(lambda x: x[: len(n)], poolings)
    climb = functools.partial(_climb, iterations=iterations, bits=bits, start=start, moves=moves)
    ends = jax.vmap(jax.vmap(climb, (0, None)), (None, 0))(logits, own)
    policies, values, gaps, departures = (np.asarray(x) for x in ends)
    spread = (departures * np.asarray(entropy(policies))).sum(-1) / moves
    good = values >= values.max(1, keepdims=True) - AGREEMENT
    best = np.arange(len(n)), np.where(good, spread, np.inf).argmin(1)
    policy, gap, value = policies[best], gaps[best], values[best]
    evaluate = functools.partial(_evaluate, poolings=poolings, bits=bits, start=start, moves=moves)
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


@functools.partial(jax.jit, static_argnames=("bits", "start", "moves"))
def _evaluate(policy: jax.Array, poolings: _Pooling, bits: int, start: int, moves: int) -> tuple:
    """F_n of one policy for each n, and its E p̂."""
    counts = visit_counts(policy, start, moves)
    return jax.vmap(_pooled, (None, 0, None))(counts, poolings, bits), _shares(counts)


@functools.partial(jax.jit, static_argnames=("bits", "start", "moves", "iterations"))
def _climb(
    logits: jax.Array, pooling: _Pooling, bits: int, start: int, moves: int, iterations: int
) -> tuple:
    """Policy, F_n, gap and departures at the end of a natural-gradient ascent from `logits`.

    The natural gradient for log π(a|s) is the advantage ∂F/∂π(a|s) - Σ_b π(b|s) ∂F/∂π(b|s) over the
    departures from s (Kakade 2001): log π falls linearly where an action is worse, so the policy
    can become deterministic.  A step that would lower F_n is shortened instead of taken.
    """

    def evaluate(log_policy):
        policy = jnp.exp(log_policy)
        F = lambda p: _pooled(visit_counts(p, start, moves), pooling, bits)
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
    onward = jnp.einsum("sat,sa->st", _ONWARD, policy)
    go = lambda d, _: (d @ onward, d)
    return jax.lax.scan(go, jnp.eye(CELLS)[start], None, length=moves)[1].sum(0)


def _shares(counts: jax.Array) -> jax.Array:
    """E p̂ from the distributions of the numbers of visits: float64[..., 12]."""
    return counts @ jnp.arange(counts.shape[-1]) / (counts.shape[-1] - 1)


def _policy(policy) -> jax.Array:
    policy = as_float64("policy", policy, (CELLS, 4))
    check_distribution("policy", policy)
    return policy


def _start(start: int) -> int:
    if start not in range(CELLS):
        raise ValueError(f"start must be in 0..{CELLS - 1}, not {start}")
    return int(start)


def _count(name: str, number: float, least: int = 1) -> int:
    if not (math.isfinite(number) and number == int(number) and number >= least):
        raise ValueError(f"{name} must be an integer of at least {least}, not {number}")
    return int(number)


def _rollouts(rollouts: float) -> float:
    return rollouts if rollouts == math.inf else _count("rollouts", rollouts)
