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
_STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
_TINY = 1e-300  # h has an infinite slope at 0, where cells out of reach are


def next_cells() -> np.ndarray:
    """Cell that each action leads to: int64[12, 4]; cells are numbered row by row."""
    cells = np.stack(np.divmod(np.arange(CELLS), COLUMNS), -1)
    to = np.clip(cells[:, None] + _STEPS, 0, (ROWS - 1, COLUMNS - 1))
    return to[..., 0] * COLUMNS + to[..., 1]


ONWARD = np.eye(CELLS)[next_cells()]  # [s, a, s']


def entropy_bound(rollouts: float, moves: int = MOVES) -> float:
    """Entropy, in nats, of rollouts·(moves + 1) visits as even as integers allow: no F_n is larger.

    Raises:
      ValueError: rollouts is neither a count nor infinity, moves is not a positive integer.
    """
    visits = check_rollouts(rollouts) * (check_count("moves", moves) + 1)
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
    policy, start, moves = _policy(policy), check_start(start), check_count("moves", moves)
    eye = np.eye(CELLS)
    onward = jnp.einsum("sat,sa->st", ONWARD, policy)

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


class Pooling(NamedTuple):
    """What F_n needs of n; the same shapes for every n, so that one compiled function serves all.

    Attributes:
      n: int64[], 0 for infinity.
      spectrum: complex128[frequencies], conjugate transform of h(k / visits) over k, weighted so
        that the real part of a sum over frequencies >= 0 is the inner product.
    """

    n: np.ndarray
    spectrum: np.ndarray


def make_poolings(rollouts: Sequence[float], moves: int) -> Pooling:
    """What F_n needs for each n, stacked along a leading axis."""
    numbers = [0 if math.isinf(n) else int(n) for n in rollouts]
    # Odd, so that no frequency is its own mirror image; long enough that no sum wraps around.
    length = max(*numbers, 1) * (moves + 1) // 2 * 2 + 3
    h = np.zeros((len(numbers), length))
    for row, n in zip(h, numbers):
        share = np.arange(1, n * (moves + 1) + 1) / max(n * (moves + 1), 1)
        row[1 : len(share) + 1] = -share * np.log(share)
    weight = np.r_[1, np.full(length // 2, 2)] / length
    return Pooling(np.array(numbers), np.conj(np.fft.rfft(h)) * weight)


def pooled(counts: jax.Array, pooling: Pooling, bits: int) -> jax.Array:
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
    limit = entropy(jnp.maximum(shares(counts), _TINY))
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
    poolings = make_poolings([check_rollouts(rollouts)], check_count("moves", moves))
    bits = int(poolings.n[0]).bit_length()
    return evaluate_all(_policy(policy), poolings, bits, check_start(start), int(moves))[0][0]


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
    shape = check_count("groups", groups, 2), check_count("rollouts", rollouts)
    below = np.cumsum(_policy(policy), -1)[:, :-1]
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    to, eye = next_cells(), np.eye(CELLS)
    cell = np.full(shape, check_start(start))
    visits = eye[cell].sum(1)
    for _ in range(check_count("moves", moves)):
        cell = to[cell, (random.random(shape)[..., None] >= below[cell]).sum(-1)]
        visits += eye[cell].sum(1)
    h = scipy.special.entr(visits / visits.sum(-1, keepdims=True)).sum(-1)
    return h.mean() + 1.96 * h.std(ddof=1) / math.sqrt(len(h)) * np.array([0, -1, 1])


@functools.partial(jax.jit, static_argnames=("bits", "start", "moves"))
def evaluate_all(policy: jax.Array, poolings: Pooling, bits: int, start: int, moves: int) -> tuple:
    """F_n of one policy for each n, and its E p̂: (float64[N], float64[12])."""
    counts = visit_counts(policy, start, moves)
    return jax.vmap(pooled, (None, 0, None))(counts, poolings, bits), shares(counts)


def shares(counts: jax.Array) -> jax.Array:
    """E p̂ from the distributions of the numbers of visits: float64[..., 12]."""
    return counts @ jnp.arange(counts.shape[-1]) / (counts.shape[-1] - 1)


def _policy(policy) -> jax.Array:
    policy = as_float64("policy", policy, (CELLS, 4))
    check_distribution("policy", policy)
    return policy


def check_start(start: int) -> int:
    """The cell; raises `ValueError` outside of the grid."""
    if start not in range(CELLS):
        raise ValueError(f"start must be in 0..{CELLS - 1}, not {start}")
    return int(start)


def check_count(name: str, number: float, least: int = 1) -> int:
    """The number as an integer; raises `ValueError` if it is none or below `least`."""
    if not (math.isfinite(number) and number == int(number) and number >= least):
        raise ValueError(f"{name} must be an integer of at least {least}, not {number}")
    return int(number)


def check_rollouts(rollouts: float) -> float:
    """n, an integer of at least 1 or infinity; raises `ValueError` otherwise."""
    return rollouts if rollouts == math.inf else check_count("rollouts", rollouts)
