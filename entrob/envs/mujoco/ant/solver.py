"""What a body on legs does under soft constraints: Newton's method with an exact line search.

Legs meet only at the root, and so do the rows and columns of the matrices here: an arrow of blocks.
Arrays have the copies of the environment along their last axis.

Formulas: MuJoCo's documentation, "Computation", sections "Constraint model" and "Solver".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs.mujoco import dense

TINY = 1e-9
# Newton steps of a line search.
SEARCH = 5


class Vector(NamedTuple):
    """A number per degree of freedom: `root` float32[6, B], `legs` float32[L, 2, B]."""

    root: dense.Array
    legs: dense.Array


class Matrix(NamedTuple):
    """A symmetric positive definite matrix in which no leg has to do with another.

    Attributes:
      root: float32[6, 6, B].
      side: float32[6, L, 2, B].
      legs: float32[L, 2, 2, B].
    """

    root: dense.Array
    side: dense.Array
    legs: dense.Array


class Rows(NamedTuple):
    """Constraints: each presses with ``weight max(0, aim - a)`` at an acceleration a along it.

    Those of the hinges' ranges, then four for every contact, two to each side of its friction
    pyramid.

    Attributes:
      sign: float32[L, 2, B], the way each limit pushes.
      jacobian: float32[8, 4, c, B], along the root's degrees of freedom and those of one leg.
      own: float32[L, c, B], 1 for the leg of each contact; none for those of the root.
      weight: of limits float32[L, 2, B] and contacts float32[c, B], 0 where not active.
      aim: float32[L, 2, B] and float32[4, c, B].
    """

    sign: jax.Array
    jacobian: jax.Array
    own: jax.Array
    weight: tuple[jax.Array, jax.Array]
    aim: tuple[jax.Array, jax.Array]


def add(x: Vector, y: Vector, share: dense.Array = 1.0) -> Vector:
    """``x + share y``."""
    return Vector(x.root + share * y.root, x.legs + share * y.legs)


def inner(x: Vector, y: Vector) -> jax.Array:
    return jnp.sum(x.root * y.root, 0) + jnp.sum(x.legs * y.legs, (0, 1))


def times(a: Matrix, x: Vector) -> Vector:
    root = dense.along(a.root, x.root)
    root += dense.total(
        a.side[:, k, i] * x.legs[k, i] for k in range(len(x.legs)) for i in range(2)
    )
    legs = dense.weigh(x.root, a.side)
    return Vector(root, legs + dense.total(a.legs[:, :, i] * x.legs[:, None, i] for i in range(2)))


def solve(a: Matrix, b: Vector) -> Vector:
    """Solve a system: legs first, each by itself, then what they leave of the root."""
    first, cross, second = a.legs[:, 0, 0], a.legs[:, 0, 1], a.legs[:, 1, 1]
    ratio = cross / first
    left = second - ratio * cross

    def hinges(x):
        ankle = (x[..., 1, :] - ratio * x[..., 0, :]) / left
        return jnp.stack([(x[..., 0, :] - cross * ankle) / first, ankle], -2)

    taken, own = hinges(a.side), hinges(b.legs)
    pairs = [(k, i) for k in range(len(a.legs)) for i in range(2)]
    root = a.root - dense.total(a.side[:, None, k, i] * taken[:, k, i] for k, i in pairs)
    rest = b.root - dense.total(a.side[:, k, i] * own[k, i] for k, i in pairs)
    moved = dense.solve(root, rest)
    return Vector(moved, own - dense.weigh(moved, taken))


def along(rows: Rows, x: Vector) -> tuple[jax.Array, jax.Array]:
    """Acceleration along limits float32[L, 2, B] and contacts float32[4, c, B]."""
    root = dense.weigh(x.root, rows.jacobian[:6])
    own = [dense.weigh(x.legs[:, i], rows.own) for i in range(2)]
    return rows.sign * x.legs, root + dense.weigh(own, rows.jacobian[6:])


def minimize(mass: Matrix, force: Vector, rows: Rows, start: Vector, iterations: int) -> Vector:
    """The acceleration that minimizes ``a·mass·a/2 - force·a`` plus the constraints' cost.

    That is ``weight/2 max(0, aim - a)²`` over all rows; convex, so `start` decides only how soon
    the least is found.
    """
    flat = lambda x, y: jnp.concatenate([v.reshape(-1, v.shape[-1]) for v in (x, y)])
    weights = flat(rows.weight[0], jnp.broadcast_to(rows.weight[1], rows.aim[1].shape))

    def newton(_, carry):
        acc, smooth, excess = carry
        pull = [jnp.where(x < 0, w, 0.0) for x, w in zip(excess, rows.weight)]
        gradient = add(smooth, pressed(rows, [w * x for w, x in zip(pull, excess)]))
        step = jax.tree.map(jnp.negative, solve(_with(mass, rows, pull), gradient))
        turn, bent = along(rows, step), times(mass, step)
        level, bend = inner(step, smooth), inner(step, bent)
        share = _line_search(weights, flat(*excess), flat(*turn), level, bend)
        excess = tuple(x + share * y for x, y in zip(excess, turn))
        return add(acc, step, share), add(smooth, bent, share), excess

    excess = tuple(x - y for x, y in zip(along(rows, start), rows.aim))
    carry = start, add(times(mass, start), force, -1.0), excess
    return jax.lax.fori_loop(0, iterations, newton, carry)[0]


def pressed(rows: Rows, push: list[jax.Array]) -> Vector:
    """The sum of the rows, so much of each."""
    each = dense.total(rows.jacobian[:, e] * push[1][e] for e in range(4))  # [8, c, B]
    root = dense.total(each[:6, c] for c in range(each.shape[1]))
    legs = dense.total(rows.own[:, None, c] * each[None, 6:, c] for c in range(each.shape[1]))
    return Vector(root, rows.sign * push[0] + legs)


def _with(mass: Matrix, rows: Rows, pull: list[jax.Array]) -> Matrix:
    """The matrix of the cost's second derivatives: the mass and what pulls."""
    j, contacts = rows.jacobian, range(rows.jacobian.shape[2])
    weighted = j * pull[1]
    square = dense.total(weighted[:, None, e] * j[None, :, e] for e in range(4))  # [8, 8, c, B]
    root = dense.total(square[:6, :6, c] for c in contacts)
    side = dense.total(square[:6, None, 6:, c] * rows.own[:, None, c] for c in contacts)
    legs = dense.total(square[None, 6:, 6:, c] * rows.own[:, None, None, c] for c in contacts)
    limits = jnp.stack([dense.diagonal(x) for x in pull[0]])
    return Matrix(mass.root + root, mass.side + side, mass.legs + legs + limits)


def _line_search(weight, excess, along, level, bend) -> jax.Array:
    """How much of a step to take: float32[B], where the cost's slope along it is 0.

    The slope ``level + share bend + sum of weight min(0, excess + share along) along`` rises and is
    linear between the shares at which a constraint sets in or ends. Newton's method, which begins
    with all of the step, finds its root exactly once it is on the right piece, and is kept between
    shares on either side of it.
    """
    moved = weight * along
    curved = moved * along

    def closer(_, carry):
        share, low, high = carry
        pressed = [e + share * a for e, a in zip(excess, along)]
        slope = level + share * bend
        slope += dense.total(m * jnp.minimum(x, 0) for m, x in zip(moved, pressed))
        rise = bend + dense.total(jnp.where(x < 0, c, 0) for c, x in zip(curved, pressed))
        low, high = jnp.where(slope < 0, share, low), jnp.where(slope < 0, high, share)
        share -= slope / (rise + TINY)
        inside = (low <= share) & (share <= high)
        between = jnp.where(jnp.isinf(high), 2 * low + 1, (low + high) / 2)
        return jnp.where(inside, share, between), low, high

    zero = jnp.zeros_like(level)
    return jax.lax.fori_loop(0, SEARCH, closer, (zero + 1, zero, zero + jnp.inf))[0]
