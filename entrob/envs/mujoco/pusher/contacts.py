"""Where two shapes touch, in closed form, for the pairs that MJX lacks or sees too late.

MJX has no contact between a cylinder and a box, finds capsule against cylinder by ten steps of
gradient descent from two starts (which count the same contact twice), and reports a capsule near
a box only once they overlap, not from the margin on. Here all of these are computed from the
distance between a segment and a convex set; they agree with C MuJoCo's single contact per pair.

Every function takes two shapes and the margin below which a contact counts, which matters in
`portal` and not here. It returns ``(dist, pos, normal)``: the signed distance in meters (negative:
how deep they overlap), the point halfway, and the unit normal from the first shape to the second:
float32[c], [c, 3], [c, 3] for c contacts. All arrays may have further axes behind those named,
which broadcast: what is computed for many pairs and copies at once runs fastest with those last,
where a processor's vector instructions reach them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco.dense import Array, total

# A slope is evaluated at so many points, twice: the second time between the two that bracket
# its root. A finger of 20 cm is thus resolved to 1 mm, and the last step interpolates.
POINTS = 15
# Directions tried for the shortest way out of a cylinder, to each side.
DIRECTIONS = 12
# Below this distance (meters) a direction from one point to another is noise.
TINY = 1e-6

Contacts = tuple[jax.Array, jax.Array, jax.Array]


class Shape(NamedTuple):
    """One geom.

    Attributes:
      pos: float32[3], center in world coordinates.
      mat: float32[3, 3], axes of the geom in its columns.
      size: float32[3], MuJoCo's sizes of the type.
    """

    pos: Array
    mat: Array
    size: Array


def plane_capsule(plane: Shape, capsule: Shape, margin: float = 0.0) -> Contacts:
    """Both ends of a capsule's axis against a plane: two contacts."""
    found = (_plane_ball(plane, end, capsule.size[0]) for end in ends(capsule))
    dist, pos, normal = (jnp.stack(x) for x in zip(*found))
    return dist, pos, normal


def plane_sphere(plane: Shape, sphere: Shape, margin: float = 0.0) -> Contacts:
    """A sphere against a plane: one contact."""
    dist, pos, normal = _plane_ball(plane, sphere.pos, sphere.size[0])
    return dist[None], pos[None], normal[None]


def box_sphere(box: Shape, sphere: Shape, margin: float = 0.0) -> Contacts:
    """A sphere against a box: one contact."""
    center = into(box, sphere.pos)
    return _box_contact(box, center, center, center, sphere.size[0])


def box_capsule(box: Shape, capsule: Shape, margin: float = 0.0) -> Contacts:
    """A capsule against a box: one contact, in the middle of where they are closest."""
    a, b = (into(box, end) for end in ends(capsule))
    along = b - a

    def slope(t):
        return dot(_beyond(a[:, None] + t * along[:, None], box.size[:, None]), along[:, None])

    return _box_contact(box, a + _root(slope, a[0]) * along, a, b, capsule.size[0])


def capsule_cylinder(capsule: Shape, cylinder: Shape, margin: float = 0.0) -> Contacts:
    """A capsule against a solid cylinder: one contact, from the capsule to the cylinder."""
    radius, half = cylinder.size[0], cylinder.size[1]
    a, b = (into(cylinder, end) for end in ends(capsule))
    along = b - a

    def parts(point):
        """Distance to the axis, and how far beyond the side and beyond the ends."""
        off_axis = norm(point[:2])
        return off_axis, jnp.maximum(off_axis - radius, 0), jnp.maximum(abs(point[2]) - half, 0)

    def slope(t):
        point = a[:, None] + t * along[:, None]
        off_axis, side, end = parts(point)
        sideways = side * dot(point[:2], along[:2, None]) / jnp.maximum(off_axis, TINY)
        return sideways + end * jnp.sign(point[2]) * along[2]

    point = a + _root(slope, a[0]) * along
    off_axis, side, end = parts(point)
    sideways = side * point[:2] / jnp.maximum(off_axis, TINY)
    away = jnp.concatenate([sideways, (end * jnp.sign(point[2]))[None]])
    gap = norm(away)
    depth, out = _way_out(a, b, radius, half)
    outside = gap > TINY
    dist = jnp.where(outside, gap, -depth) - capsule.size[0]
    normal = -jnp.where(outside, away / jnp.maximum(gap, TINY), out)
    return to_world(cylinder, dist, point + normal * (capsule.size[0] + dist / 2), normal)


def box_puck(box: Shape, puck: Shape, margin: float = 0.0) -> Contacts:
    """An upright cylinder against a box with upright sides, at the same height: one contact."""
    # Only the sides count: above and below there is no way out.
    offset = into(box, puck.pos)
    center = jnp.concatenate([offset[:2], jnp.zeros_like(offset[2:])])
    upright = jnp.concatenate([box.size[:2], jnp.full_like(box.size[2:], jnp.inf)])
    return _box_contact(box._replace(size=upright), center, center, center, puck.size[0])


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Over the first axis."""
    return total(x[i] * y[i] for i in range(len(x)))


def norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(dot(x, x))


def cross(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.stack([x[i - 2] * y[i - 1] - x[i - 1] * y[i - 2] for i in range(3)])


def _turn(mat: jax.Array, x: jax.Array) -> jax.Array:
    """A matrix times a vector."""
    return total(mat[:, i] * x[i] for i in range(3))


def into(frame: Shape, point: jax.Array) -> jax.Array:
    """A point, from the world's coordinates to a shape's."""
    offset = point - frame.pos
    return total(frame.mat[i] * offset[i] for i in range(3))


def to_world(frame: Shape, dist: jax.Array, pos: jax.Array, normal: jax.Array) -> Contacts:
    """One contact, from a shape's coordinates to the world's."""
    pos, normal = frame.pos + _turn(frame.mat, pos), _turn(frame.mat, normal)
    return dist[None], pos[None], normal[None]


def ends(capsule: Shape) -> tuple[jax.Array, jax.Array]:
    """Both ends of a capsule's axis, in world coordinates: float32[3] each."""
    axis = capsule.mat[:, 2] * capsule.size[1]
    return capsule.pos - axis, capsule.pos + axis


def _plane_ball(plane: Shape, center: jax.Array, radius: jax.Array) -> Contacts:
    normal = plane.mat[:, 2]
    dist = dot(center - plane.pos, normal) - radius
    return dist, center - normal * (radius + dist / 2), normal + jnp.zeros_like(center)


def _beyond(point: jax.Array, half: jax.Array) -> jax.Array:
    """From the nearest point of a box to `point`, in the box's coordinates; 0 inside."""
    return point - jnp.clip(point, -half, half)


def _root(slope: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
    """Where in 0..1 a function with this nondecreasing slope is least, with the shape of `like`.

    In the middle, where it is least on a whole interval. `slope` is asked at several points at
    once, along a new first axis.
    """
    ramp = np.linspace(0, 1, POINTS, dtype=np.float32).reshape(-1, *(1,) * like.ndim)
    low, high = jnp.zeros_like(like), jnp.ones_like(like)
    for _ in range(2):
        t = low + (high - low) * ramp
        g = slope(t)
        low = jnp.max(jnp.where(g <= 0, t, low), axis=0)
        high = jnp.min(jnp.where(g >= 0, t, high), axis=0)
    g_low, g_high = slope(jnp.stack([low, high]))
    bracketed = (g_low < 0) & (g_high > 0)
    share = jnp.where(bracketed, -g_low / jnp.where(bracketed, g_high - g_low, 1), 0.5)
    return low + share * (high - low)


def _box_contact(box: Shape, point: jax.Array, a: jax.Array, b: jax.Array, radius) -> Contacts:
    """One contact between a box and a capsule from `a` to `b` (box's coordinates), nearest at
    `point`."""
    away = _beyond(point, box.size)
    gap = norm(away)
    # Inside: through the face that takes the whole segment out soonest.
    depths = [*(box.size - jnp.minimum(a, b)), *(box.size + jnp.maximum(a, b))]
    depth, out = depths[0], jnp.zeros_like(away).at[0].set(1.0)
    for face in range(1, 6):
        way = np.zeros((3, *(1,) * (away.ndim - 1)), np.float32)
        way[face % 3] = 1 if face < 3 else -1
        nearer = depths[face] < depth
        depth, out = jnp.where(nearer, depths[face], depth), jnp.where(nearer, way, out)
    outside = gap > TINY
    dist = jnp.where(outside, gap, -depth) - radius
    normal = jnp.where(outside, away / jnp.maximum(gap, TINY), out)
    return to_world(box, dist, point - normal * (radius + dist / 2), normal)


def _way_out(a: jax.Array, b: jax.Array, radius, half) -> tuple[jax.Array, jax.Array]:
    """The shortest way to take a segment out of a cylinder it cuts: (depth, direction float32[3]).

    For a direction n the way is ``h(-n) - min(n·a, n·b)`` with the cylinder's support h; its minima
    over n are at horizontal, vertical and, as the segment's ends then count alike, at right
    angles to the segment.
    """
    along = b - a
    flat, level_length = along[:2], norm(along[:2])
    t = jnp.clip(-dot(a[:2], flat) / jnp.maximum(dot(flat, flat), TINY**2), 0, 1)
    nearest = a[:2] + t * flat
    off_axis = norm(nearest)
    zero = jnp.zeros_like(t)
    level = jnp.stack([flat[1], -flat[0], zero]) / jnp.maximum(level_length, TINY)
    level = jnp.where(level_length > TINY, level, jnp.stack([zero + 1, zero, zero]))
    sideways = jnp.concatenate([nearest, zero[None]]) / jnp.maximum(off_axis, TINY)
    sideways = jnp.where(off_axis > TINY, sideways, level)
    upward = cross(level, along / jnp.maximum(norm(along), TINY))

    angle = np.linspace(0, 2 * np.pi, 4 * DIRECTIONS, endpoint=False, dtype=np.float32)
    angle = angle.reshape(-1, *(1,) * t.ndim)
    around = np.cos(angle) * level[:, None] + np.sin(angle) * upward[:, None]
    vertical = [jnp.stack([zero, zero, zero + s])[:, None] for s in (1, -1)]
    n = jnp.concatenate([sideways[:, None], *vertical, around], axis=1)
    ends = jnp.minimum(dot(n, a[:, None]), dot(n, b[:, None]))
    way = radius * norm(n[:2]) + half * jnp.abs(n[2]) - ends
    least = jnp.min(way, axis=0)
    # The first of those that are least, without a gather.
    index = np.arange(len(way), dtype=np.float32).reshape(-1, *(1,) * t.ndim)
    first = jnp.min(jnp.where(way == least, index, len(way)), axis=0)
    return least, jnp.sum(jnp.where(index == first, n, 0), axis=1)
