"""Where MuJoCo 2 has the contacts of a cylinder, which is not where two shapes are closest.

It finds contacts that have no closed form by Minkowski portal refinement (libccd's MPR): the ray
from the one shape's center to the other's leaves their Minkowski difference somewhere, and there
depth and place of the contact are taken. Where the surface is curved and the ray is slanted this is
another contact than the nearest one, which `contacts` gives: a puck is pushed elsewhere, and a
second later lies elsewhere. So the paper's physics need the same search.

Source: G. Snethen, "XenoCollide: complex collision made simple", Game Programming Gems 7 (2008);
the order of tests, the tolerance and what is read off the last portal are libccd's and MuJoCo's,
which tests/conformance/test_pusher.py compares.

As in `contacts`, arrays may have further axes behind those named, and lengths are in meters.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs.mujoco.dense import total
from entrob.envs.mujoco.pusher.contacts import (
    TINY,
    Contacts,
    Shape,
    cross,
    dot,
    ends,
    into,
    norm,
    to_world,
)

# MuJoCo's ``mpr_tolerance``: a portal is final when no point lies farther out than this (meters).
TOLERANCE = 1e-6
# Portals tried; MuJoCo tries 50 after the origin is inside. More than 24 were not needed.
MOST = 32
# Before lengths are divided by: float32 has no smaller squares that count.
LEAST = 1e-20


class _Vertex(NamedTuple):
    """A point of the Minkowski difference: float32[3], and the first shape's point in it."""

    apart: jax.Array
    first: jax.Array


class _Search(NamedTuple):
    """A portal, the triangle of `corners`, and how far its search is.

    Attributes:
      corners: three vertices that with the center make a tetrahedron.
      tried: int32[], supports asked for.
      closed: bool, whether the ray passes through the triangle.
      over: bool, whether the search has ended.
      hit: bool, and with a contact.
    """

    corners: tuple[_Vertex, ...]
    tried: jax.Array
    closed: jax.Array
    over: jax.Array
    hit: jax.Array


def capsule_cylinder(capsule: Shape, cylinder: Shape, margin: float) -> Contacts:
    """A capsule against a solid cylinder: one contact, from the capsule to the cylinder.

    Args:
      capsule: in world coordinates.
      cylinder: likewise.
      margin: at which distance they touch; each shape is blown up by half of it.
    """
    radius, half = cylinder.size[0], cylinder.size[1]
    a, b = (into(cylinder, end) for end in ends(capsule))

    def support(way):
        """The vertex that is farthest in a direction of length 1."""
        first = jnp.where(dot(way, b - a) >= 0, b, a) + (capsule.size[0] + margin / 2) * way
        return _Vertex(first + _of_cylinder(way, radius, half) + margin / 2 * way, first)

    center = (a + b) / 2
    depth, place, hit = penetration(support, _Vertex(center, center))
    dist = jnp.where(hit, margin - depth, 1.0)
    return to_world(cylinder, dist, place, _normal(place, a, b, radius, half))


def box_cylinder(box: Shape, cylinder: Shape, margin: float) -> Contacts:
    """An upright cylinder against an upright box, at the same height: see `capsule_cylinder`.

    The contact is from the box to the cylinder, its normal at right angles to the latter's axis.
    """
    radius, half = cylinder.size[0], cylinder.size[1]
    center = -into(cylinder, box.pos)
    edges = [_turned(cylinder, box.mat[:, i]) * box.size[i] for i in range(3)]

    def support(way):
        first = _of_cylinder(way, radius, half) + margin / 2 * way
        corner = total(jnp.where(dot(way, edge) > 0, edge, -edge) for edge in edges)
        return _Vertex(first + corner + center + margin / 2 * way, first)

    depth, place, hit = penetration(support, _Vertex(center, jnp.zeros_like(center)))
    dist = jnp.where(hit, margin - depth, 1.0)
    # MuJoCo takes the cylinder's own normal at that place.
    return to_world(cylinder, dist, place, -_unit(place.at[2].set(0.0)))


def _of_cylinder(way: jax.Array, radius, half) -> jax.Array:
    """The point of a cylinder that is farthest in a direction."""
    flat = radius * way[:2] / jnp.maximum(norm(way[:2]), TINY)
    return jnp.concatenate([flat, (half * jnp.sign(way[2]))[None]])


def _turned(frame: Shape, way: jax.Array) -> jax.Array:
    """A direction, from the world's axes to a shape's."""
    return total(frame.mat[i] * way[i] for i in range(3))


def _normal(place: jax.Array, a: jax.Array, b: jax.Array, radius, half) -> jax.Array:
    """MuJoCo's normal at a place: the mean of both surfaces', unless at the cylinder's ends."""
    along = b - a
    share = dot(place - a, along) / jnp.maximum(dot(along, along), LEAST)
    ours = _unit(place - a - jnp.clip(share, 0, 1) * along)
    off_axis = norm(place[:2])
    theirs = jnp.concatenate([place[:2] / jnp.maximum(off_axis, TINY), jnp.zeros_like(place[2:])])
    height = jnp.abs(place[2])
    side = (height <= 0.95 * half) & (jnp.abs(half - height) >= jnp.abs(radius - off_axis) / 4)
    return _unit(jnp.where(side, ours - theirs, ours))


def penetration(support: Callable[[jax.Array], _Vertex], center: _Vertex):
    """How deep two convex shapes overlap, along the ray from the center to the origin.

    Args:
      support: ``way -> vertex``, the Minkowski difference's farthest in a direction float32[3].
      center: of the Minkowski difference.

    Returns:
      depth in meters, place float32[3], and whether they overlap, bool.
    """
    begun = _begin(support, center)

    def going(search):
        return ~jnp.all(search.over) & (search.tried < MOST)

    search = jax.lax.while_loop(going, lambda s: _try_another(support, center, s), begun)
    one, two, three = search.corners
    depth = _distance(*(corner.apart for corner in search.corners))
    vertices = center, one, two, three
    parts = jnp.stack(
        [
            _volume(one, two, three),
            _volume(three, two, center),
            _volume(center, one, three),
            _volume(two, one, center),
        ]
    )
    parts = parts / jnp.where(jnp.abs(jnp.sum(parts, 0)) > LEAST, jnp.sum(parts, 0), 1)
    place = total(part * vertex.first for part, vertex in zip(parts, vertices))
    return depth, place, search.hit


def _begin(support: Callable, center: _Vertex) -> _Search:
    """Two vertices: the farthest along the ray, and the farthest beside it."""
    ray = _unit(-center.apart)
    one = support(ray)
    beside = _unit(cross(center.apart, one.apart))
    two = support(beside)
    across = cross(one.apart - center.apart, two.apart - center.apart)
    turned = dot(across, center.apart) > 0
    first, second = _either(turned, two, one), _either(turned, one, two)
    apart = (dot(one.apart, ray) <= 0) | (dot(two.apart, beside) <= 0)
    no = jnp.zeros_like(apart)
    return _Search((first, second, second), jnp.int32(0), no, apart, no)


def _try_another(support: Callable, center: _Vertex, search: _Search) -> _Search:
    """Put the vertex that is farthest out in the place of one corner, unless that is as far."""
    one, two, three = search.corners
    closed = search.closed
    way = _unit(
        jnp.where(
            closed,
            cross(two.apart - one.apart, three.apart - one.apart),
            cross(one.apart - center.apart, two.apart - center.apart),
        )
    )
    new = support(way)
    reach = dot(new.apart, way)

    # While the portal is open, the new vertex closes it, or the ray passes beside it.
    beside_two = _volume(one, new, center) < 0
    beside_one = ~beside_two & (_volume(new, two, center) < 0)
    # When it is closed, the new vertex makes three triangles, and the ray passes one of them.
    rim = cross(new.apart, center.apart)
    in_one, in_two, in_three = (dot(corner.apart, rim) > 0 for corner in search.corners)
    final = closed & (reach - _farthest(search.corners, way) <= TOLERANCE)
    inside = dot(one.apart, way) >= 0

    over = search.over | final | (~inside & (reach < 0)) | (~closed & (reach <= 0))
    hit = jnp.where(search.over, search.hit, final & inside)
    takes_one = jnp.where(closed, jnp.where(in_one, in_two, ~in_three), beside_one)
    takes_two = jnp.where(closed, ~in_one & in_three, beside_two)
    takes_three = jnp.where(closed, in_one & ~in_two, ~beside_one & ~beside_two)
    takes = (takes_one, takes_two, takes_three)
    corners = tuple(
        _either(take & ~over, new, corner) for take, corner in zip(takes, search.corners)
    )
    return _Search(corners, search.tried + 1, closed | (~over & takes_three), over, hit)


def _farthest(corners: tuple[_Vertex, ...], way: jax.Array) -> jax.Array:
    one, two, three = (dot(corner.apart, way) for corner in corners)
    return jnp.maximum(jnp.maximum(one, two), three)


def _distance(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """From the origin to a triangle, which may be a sliver."""
    out = _unit(cross(b - a, c - a))
    over = [dot(out, cross(x, y)) >= 0 for x, y in ((a, b), (b, c), (c, a))]
    edges = [norm(_nearest_on(x, y)) for x, y in ((a, b), (b, c), (c, a))]
    nearest_edge = jnp.minimum(jnp.minimum(*edges[:2]), edges[2])
    return jnp.where(over[0] & over[1] & over[2], jnp.abs(dot(out, a)), nearest_edge)


def _nearest_on(a: jax.Array, b: jax.Array) -> jax.Array:
    """The point of a segment that is nearest to the origin: float32[3]."""
    along = b - a
    return a + jnp.clip(-dot(a, along) / jnp.maximum(dot(along, along), LEAST), 0, 1) * along


def _volume(a: _Vertex, b: _Vertex, c: _Vertex) -> jax.Array:
    """Six times that of the tetrahedron with the origin."""
    return dot(cross(a.apart, b.apart), c.apart)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.sqrt(jnp.maximum(dot(x, x), LEAST))


def _either(which: jax.Array, one: _Vertex, two: _Vertex) -> _Vertex:
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), one, two)
