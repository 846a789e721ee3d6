"""Where capsules touch a floor and a wall that stands across it, without ends.

Neither changes along y, so everything happens in the x-z plane. The contacts are those of C
MuJoCo's plane-capsule, sphere-box and capsule-box, from afar (its margin) as from within.

Arrays have the copies of the environment along their last axis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs.mujoco import dense

# Below this length (meters) a direction is noise.
TINY = 1e-6
# Where a contact is that there is not (meters).
FAR = 1e3


class Capsules(NamedTuple):
    """Capsules, of which a ball is one with both ends in one place.

    Attributes:
      ends: float32[2, 3, n, B], both ends of the axes.
      radius: float32[n, 1].
    """

    ends: jax.Array
    radius: dense.Array


class Contacts(NamedTuple):
    """Where bodies touch what stands still.

    Attributes:
      dist: float32[2, n, B], signed distance in meters; negative: how deep they overlap.
      pos: float32[3, 2, n, B], the points halfway.
      normal: float32[3, 2, n, B], towards the body.
      tangent: float32[3, 2, n, B], one of the two directions along which friction acts; the other
        is the normal's cross product with it.
    """

    dist: jax.Array
    pos: jax.Array
    normal: jax.Array
    tangent: jax.Array


def floor(capsules: Capsules) -> Contacts:
    """Both ends of every capsule against the plane z = 0; the second of a ball is far."""
    x, y, z = (capsules.ends[:, i] for i in range(3))
    # The first tangent lies along the capsule.
    along = [v[1] - v[0] for v in (x, y)]
    length = jnp.sqrt(along[0] ** 2 + along[1] ** 2)
    flat, short = length > TINY, 1 / jnp.maximum(length, TINY)
    side = jnp.where(flat, along[0] * short, 0.0), jnp.where(flat, along[1] * short, 1.0)
    dist = z - capsules.radius
    ball = (jnp.square(capsules.ends[1] - capsules.ends[0])).sum(0) < TINY**2
    dist = jnp.stack([dist[0], jnp.where(ball, FAR, dist[1])])
    zero, one = jnp.zeros_like(z), jnp.ones_like(z)
    return Contacts(
        dist,
        jnp.stack([x, y, dist / 2]),
        jnp.stack([zero, zero, one]),
        jnp.stack([side[0] + zero, side[1] + zero, zero]),
    )


def wall(capsules: Capsules, center: tuple, half: tuple) -> Contacts:
    """Every capsule against an upright box: 2 n contacts.

    The first is where a capsule's axis is nearest, the second, as long as there is one, as far
    along the axis as it stays over the same face: a leg that lies on the wall rests on two points.

    Args:
      capsules: what may touch it.
      center: (x, z) of the wall's middle, float32[B] each.
      half: half of its extents, the same.
    """
    a, b = capsules.ends
    first, second, lone = _shares(
        (a[0] - center[0], a[2] - center[1]), (b[0] - center[0], b[2] - center[1]), half
    )
    share = jnp.stack([first, second])
    point = [p + share * (q - p) for p, q in zip(a, b)]
    gap, x, z = _from_box(point[0] - center[0], point[2] - center[1], half)
    dist = gap - capsules.radius
    dist = jnp.stack([dist[0], jnp.where(lone, FAR, dist[1])])
    zero, one = jnp.zeros_like(gap), jnp.ones_like(gap)
    # Halfway between the capsule's surface and the box's.
    out = (gap + capsules.radius) / 2
    return Contacts(
        dist,
        jnp.stack([point[0] - x * out, point[1], point[2] - z * out]),
        jnp.stack([x, zero, z]),
        jnp.stack([zero, one, zero]),
    )


def _from_box(x: jax.Array, z: jax.Array, half: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Signed distance of points from a rectangle about the origin, and the way out (x, z)."""
    beyond = jnp.abs(x) - half[0], jnp.abs(z) - half[1]
    away = jnp.sign(x) * jnp.maximum(beyond[0], 0), jnp.sign(z) * jnp.maximum(beyond[1], 0)
    gap = jnp.sqrt(away[0] ** 2 + away[1] ** 2)
    sideways = beyond[0] >= beyond[1]
    face = [jnp.where(v < 0, -1.0, 1.0) for v in (x, z)]
    outside, short = gap > TINY, 1 / jnp.maximum(gap, TINY)
    return (
        jnp.where(outside, gap, jnp.maximum(*beyond)),
        jnp.where(outside, away[0] * short, jnp.where(sideways, face[0], 0.0)),
        jnp.where(outside, away[1] * short, jnp.where(sideways, 0.0, face[1])),
    )


def _shares(a: tuple, b: tuple, half: tuple):
    """Where between a and b (0..1) segments touch a rectangle: first, second, lone bool."""
    way = b[0] - a[0], b[1] - a[1]
    square = way[0] ** 2 + way[1] ** 2
    # Nearest is an end of the segment, or where it is nearest to a corner.
    zero = jnp.zeros_like(square)
    shares = [zero, zero + 1]
    for x in (-1, 1):
        for z in (-1, 1):
            ahead = (x * half[0] - a[0]) * way[0] + (z * half[1] - a[1]) * way[1]
            shares.append(jnp.clip(ahead / jnp.maximum(square, TINY**2), 0, 1))
    least, first = FAR + zero, zero
    for share in shares:
        gap, *_ = _from_box(a[0] + share * way[0], a[1] + share * way[1], half)
        least, first = jnp.minimum(least, gap), jnp.where(gap < least, share, first)

    point = a[0] + first * way[0], a[1] + first * way[1]
    out = [jnp.abs(p) > h for p, h in zip(point, half)]
    # Over a face: along it, away from this end. Over an edge: along the face that the segment is
    # closer to, inwards, unless the segment points at the edge.
    over_edge = out[0] & out[1]
    along_x = jnp.where(over_edge, jnp.abs(way[0]) > jnp.abs(way[1]), out[1])
    pairs = (way, half, point, a)
    move, size, at, from_ = (jnp.where(along_x, x, z) for x, z in pairs)
    inwards = jnp.where(at * move < 0, 1.0, -1.0)
    onwards = jnp.where(first < 0.5, 1.0, -1.0)
    direction = jnp.where(over_edge, inwards, onwards)
    pointed = way[0] * way[1] * point[0] * point[1] >= 0
    end = (direction + 1) / 2
    moves = jnp.abs(move) > TINY
    leaves = (jnp.sign(move) * direction * size - from_) / jnp.where(moves, move, 1.0)
    second = jnp.where(moves, jnp.clip(leaves, 0, 1), end)
    # A ball has no second; a segment that ends here has it here, and counts twice, as in MuJoCo.
    lone = ~(out[0] | out[1]) | (over_edge & pointed) | (square < TINY**2)
    return first, second, lone
