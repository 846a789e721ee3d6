"""Where capsules touch a floor and a wall that stands across it, without ends.

Neither changes along y, so everything happens in the x-z plane. The contacts are those of C
MuJoCo's plane-capsule, sphere-box and capsule-box, from afar (its margin) as from within.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Below this length (meters) a direction is noise.
TINY = 1e-6
Y = np.array([0, 1, 0], np.float32)


class Capsules(NamedTuple):
    """Capsules, of which a ball is one with both ends in one place.

    Attributes:
      ends: float32[n, 2, 3], both ends of the axes.
      radius: float32[n].
      body: int[n], whose they are.
    """

    ends: jax.Array
    radius: np.ndarray
    body: np.ndarray


class Contacts(NamedTuple):
    """Where bodies touch what stands still.

    Attributes:
      dist: float32[n], signed distance in meters; negative: how deep they overlap.
      pos: float32[n, 3], the points halfway.
      frame: float32[n, 3, 3], in rows: the normal, towards the body, and two tangents, along which
        friction acts.
      friction: float32[n], coefficients of sliding friction.
      body: int[n], whose contact it is.
    """

    dist: jax.Array
    pos: jax.Array
    frame: jax.Array
    friction: jax.Array
    body: np.ndarray


def floor(capsules: Capsules, friction: jax.Array) -> Contacts:
    """Both ends of every capsule against the plane z = 0: 2 n contacts."""
    ends = capsules.ends.reshape(-1, 3)
    radius, body = np.repeat(capsules.radius, 2), np.repeat(capsules.body, 2)
    dist = ends[:, 2] - radius
    pos = ends.at[:, 2].set(dist / 2)
    # The first tangent lies along the capsule.
    along = capsules.ends[:, 1] - capsules.ends[:, 0]
    length = _norm(along[:, :2])[:, None]
    side = jnp.where(length > TINY, along[:, :2] / jnp.maximum(length, TINY), Y[:2])
    zero, one = jnp.zeros_like(length), jnp.ones_like(length)
    frame = jnp.stack(
        [
            jnp.concatenate([zero, zero, one], 1),
            jnp.concatenate([side, zero], 1),
            jnp.concatenate([-side[:, 1:], side[:, :1], zero], 1),
        ],
        1,
    )
    return Contacts(dist, pos, jnp.repeat(frame, 2, 0), jnp.full(len(body), friction), body)


def wall(capsules: Capsules, center: jax.Array, half: jax.Array, friction: float) -> Contacts:
    """Every capsule against an upright box: 2 n contacts.

    The first is where a capsule's axis is nearest, the second, as long as there is one, as far
    along the axis as it stays over the same face: a leg that lies on the wall rests on two points.

    Args:
      capsules: what may touch it.
      center: float32[2], (x, z) of the wall's middle.
      half: float32[2], half of its extents.
      friction: coefficient of sliding friction.
    """
    axis = capsules.ends[..., ::2] - center
    first, second, lone = jax.vmap(lambda a, b: _shares(a, b, half))(axis[:, 0], axis[:, 1])
    share = jnp.stack([first, second], 1)[..., None]
    point = capsules.ends[:, None, 0] + share * (capsules.ends[:, 1] - capsules.ends[:, 0])[:, None]
    gap, normal = _from_box(point[..., ::2] - center, half)
    dist = gap - capsules.radius[:, None]
    dist = dist.at[:, 1].set(jnp.where(lone, jnp.inf, dist[:, 1]))
    zero = jnp.zeros_like(gap)
    x, z = normal[..., 0], normal[..., 1]
    normal, turned = jnp.stack([x, zero, z], -1), jnp.stack([-z, zero, x], -1)
    frame = jnp.stack([normal, jnp.broadcast_to(Y, normal.shape), turned], -2)
    # Halfway between the capsule's surface and the box's.
    pos = point - normal * ((gap + capsules.radius[:, None]) / 2)[..., None]
    body = np.repeat(capsules.body, 2)
    return Contacts(
        dist.ravel(),
        pos.reshape(-1, 3),
        frame.reshape(-1, 3, 3),
        jnp.full(len(body), friction),
        body,
    )


def _from_box(point: jax.Array, half: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signed distance float32[...] of points [..., 2] from a rectangle, and the way out."""
    beyond = jnp.abs(point) - half
    away = jnp.sign(point) * jnp.maximum(beyond, 0)
    gap = _norm(away)
    depth = jnp.max(beyond, -1)
    face = jax.nn.one_hot(jnp.argmax(beyond, -1), 2) * jnp.where(point < 0, -1.0, 1.0)
    outside = gap > TINY
    normal = jnp.where(outside[..., None], away / jnp.maximum(gap, TINY)[..., None], face)
    return jnp.where(outside, gap, depth), normal


def _shares(a: jax.Array, b: jax.Array, half: jax.Array):
    """Where between a and b (0..1) a segment touches a rectangle: first, second, lone bool[]."""
    way = b - a
    # Nearest is an end of the segment, or where it is nearest to a corner.
    corners = half * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
    corner = (corners - a) @ way / jnp.maximum(way @ way, TINY**2)
    shares = jnp.concatenate([jnp.array([0.0, 1.0]), jnp.clip(corner, 0, 1)])
    gap, _ = _from_box(a + shares[:, None] * way, half)
    first = shares[jnp.argmin(gap)]

    point = a + first * way
    out = jnp.abs(point) > half
    # Over a face: along it, away from this end. Over an edge: along the face that the segment is
    # closer to, inwards, unless the segment points at the edge.
    over_edge = out.all()
    along_x = jnp.where(over_edge, jnp.abs(way[0]) > jnp.abs(way[1]), out[1])
    move, size = (jnp.where(along_x, v[0], v[1]) for v in (way, half))
    at, from_ = (jnp.where(along_x, v[0], v[1]) for v in (point, a))
    inwards = jnp.where(at * move < 0, 1.0, -1.0)
    onwards = jnp.where(first < 0.5, 1.0, -1.0)
    direction = jnp.where(over_edge, inwards, onwards)
    pointed = way[0] * way[1] * point[0] * point[1] >= 0
    end = (direction + 1) / 2
    moves = jnp.abs(move) > TINY
    leaves = (jnp.sign(move) * direction * size - from_) / jnp.where(moves, move, 1.0)
    second = jnp.where(moves, jnp.clip(leaves, 0, 1), end)
    # A ball has no second; a segment that ends here has it here, and counts twice, as in MuJoCo.
    lone = ~out.any() | (over_edge & pointed) | (_norm(way) < TINY)
    return first, second, lone


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x, -1))
