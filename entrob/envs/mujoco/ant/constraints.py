"""What a body on legs may not do: leave its hinges' ranges, or enter the floor and a wall.

Of all contacts that an ant could have, fifty, hardly more than five touch at once: the nearest are
kept. Arrays have the copies of the environment along their last axis.

Source: MuJoCo's documentation, "Computation", section "Constraint model".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.ant import body, track
from entrob.envs.mujoco.ant.body import Pose
from entrob.envs.mujoco.ant.legged import HINGES, ROOT, Legged, Prepared
from entrob.envs.mujoco.ant.solver import Rows, Vector


class Touch(NamedTuple):
    """Contacts with the legs they belong to, positions and directions along the world's axes.

    Attributes:
      dist: float32[c, B], signed distance in meters.
      pos: float32[3, c, B], relative to the root's origin.
      normal: float32[3, c, B], towards the body.
      tangent: float32[3, c, B], see `track.Contacts`.
      friction: float32[c, B], coefficients of sliding friction.
      invweight: float32[c, B], of the body, as MuJoCo derives it.
      moved: float32[2, L, c, B], 1 for the hips and the ankles that move the contact.
    """

    dist: jax.Array
    pos: jax.Array
    normal: jax.Array
    tangent: jax.Array
    friction: jax.Array
    invweight: jax.Array
    moved: jax.Array


def constrain(legged: Legged, held: Prepared, pose: Pose, qpos: jax.Array, speed: Vector) -> Rows:
    """The constraints of a state.

    Args:
      legged: what moves.
      held: see `Prepared`.
      pose: where it is.
      qpos: float32[nq, B].
      speed: velocities in the root's frame.
    """
    angle = qpos[ROOT + 1 :].reshape(speed.legs.shape)
    below, above = angle - legged.limits[:, :, 0], legged.limits[:, :, 1] - angle
    sign = jnp.where(below < above, 1.0, -1.0)
    light = 1 / held.hinge_invweight
    limits = legged.soft.row(jnp.minimum(below, above), sign * speed.legs, light)

    touch = nearest(legged, held, pose)
    own = touch.moved[0]
    jacobian = _jacobian(pose, touch)
    leg = [dense.weigh(speed.legs[:, i], own) for i in range(HINGES)]
    along = dense.weigh(speed.root, jacobian[:ROOT]) + dense.weigh(leg, jacobian[ROOT:])
    square = touch.friction**2
    light = 1 / (touch.invweight * (1 + square) * 2 * square)
    contacts = legged.soft.row(touch.dist - legged.margin, along, light)
    return Rows(sign, jacobian, own, *zip(limits, contacts))


def _jacobian(pose: Pose, touch: Touch) -> jax.Array:
    """How fast each edge of each friction pyramid gets longer: float32[8, 4, c, B].

    Per speed of the root's degrees of freedom, and of hip and ankle of the contact's own leg.
    """
    into = pose.turn.swapaxes(0, 1)
    vectors = touch.pos, touch.normal, touch.tangent
    pos, normal, tangent = (_turned(into, x) for x in vectors)
    reach = []
    for k in range(HINGES):
        axis, drift = (
            dense.total(touch.moved[k, leg] * x[leg, k, :, None] for leg in range(len(x)))
            for x in (pose.axis, pose.drift)
        )
        reach.append(_cross(axis, pos) + drift)
    out, *slides = (
        jnp.concatenate([way, _cross(pos, way), jnp.stack([jnp.sum(way * x, 0) for x in reach])])
        for way in (normal, tangent, _cross(normal, tangent))
    )
    mu = touch.friction
    return jnp.stack([out + sign * mu * slide for slide in slides for sign in (1, -1)], 1)


def _cross(x: jax.Array, y: jax.Array) -> jax.Array:
    """Of vectors [3, c, B]."""
    return jnp.stack([x[i - 2] * y[i - 1] - x[i - 1] * y[i - 2] for i in range(3)])


def _turned(mat: jax.Array, x: jax.Array) -> jax.Array:
    """A matrix [3, 3, B] times vectors [3, c, B]."""
    return dense.total(mat[:, i, None] * x[i] for i in range(3))


def nearest(legged: Legged, held: Prepared, pose: Pose) -> Touch:
    """The contacts that are nearest or overlap most, as many as are kept."""
    x, _, z = pose.at
    capsules = _capsules(legged, pose)

    def flat():
        # Only the height over the floor matters, not the place on it.
        up = jnp.stack([jnp.zeros_like(z), jnp.zeros_like(z), z])
        floor = track.floor(capsules._replace(ends=capsules.ends + up[:, None]))
        return floor._replace(pos=floor.pos - up[:, None, None]), held.friction

    def upright():
        center = held.center[0] - x, held.center[1] - z
        wall = track.wall(capsules, center, held.half)
        # Out of reach, hence without a trace, where there is none.
        dist = jnp.where(held.walled, wall.dist, track.FAR)
        return wall._replace(dist=dist), jnp.full_like(x, legged.grip)

    def kept(*surfaces):
        return _nearest(legged, held, [surface() for surface in surfaces])

    ahead = jnp.abs(x - held.center[0]) - held.half[0] - legged.reach - legged.margin
    # Mostly there is no wall within reach of any copy, and nothing to compute.
    near = jnp.any(held.walled & (ahead < 0))
    return jax.lax.cond(near, lambda: kept(flat, upright), lambda: kept(flat))


def _nearest(legged: Legged, held: Prepared, surfaces: list) -> Touch:
    """Those among contacts with several surfaces, each of [2, n, B], and its friction [B]."""
    copies = held.friction.shape[-1]
    n = held.invweight.shape[0]
    rows = []
    for contacts, friction in surfaces:
        numbers = [contacts.dist[None], *contacts[1:]]
        for each in (friction, held.invweight):
            numbers.append(jnp.broadcast_to(each, (1, 2, n, copies)))
        rows.append(jnp.concatenate(numbers).reshape(-1, 2 * n, copies))
    fields = jnp.concatenate(rows, 1)
    index = _smallest(fields[0], legged.contacts)
    picked = dense.total(fields[:, i, None] * (index == i) for i in range(fields.shape[1]))
    # Candidates are in the order of legs and their capsules; the ball, the last, is of no leg.
    leg, level = index % n // (1 + HINGES), index % n % (1 + HINGES)
    own = leg == np.arange(legged.legs)[:, None, None]
    moved = jnp.stack([own & (level > k) for k in range(HINGES)]).astype(jnp.float32)
    friction, invweight = picked[10], picked[11]
    return Touch(picked[0], picked[1:4], picked[4:7], picked[7:10], friction, invweight, moved)


def _smallest(x: jax.Array, count: int) -> jax.Array:
    """Where the smallest of [n, B] are, in order: int32[count, B].

    One after the other in a loop, whose bounds XLA does not fuse over: it would otherwise search
    again for each number that is taken from there.
    """
    order = np.arange(len(x), dtype=np.int32)[:, None]

    def following(carry, _):
        x, last = carry
        x = jnp.where(order == last, jnp.inf, x)
        least, index = x[0], jnp.zeros_like(last)
        for i in range(1, len(x)):
            index = jnp.where(x[i] < least, i, index)
            least = jnp.minimum(x[i], least)
        return (x, index), index

    none = jnp.full(x.shape[1:], -1, jnp.int32)
    return jax.lax.scan(following, (x, none), length=count)[1]


def _capsules(legged: Legged, pose: Pose) -> track.Capsules:
    """Along the world's axes, from the root's origin; those of the legs, then the root's ball."""
    standing = jnp.broadcast_to(legged.ends[:, 0], (*legged.ends[:, 0].shape[:-1], len(pose.at[0])))
    turned = [
        body.place(legged, pose, k, legged.ends[:, k + 1].swapaxes(0, 1)) for k in range(HINGES)
    ]
    ends = jnp.stack([standing.swapaxes(0, 1), *turned], 2)  # [2, L, 3, 3, B]
    ends = ends.reshape(2, -1, *ends.shape[3:])
    ball = jnp.broadcast_to(legged.ball, (2, 1, *ends.shape[2:]))
    ends = dense.rotate(pose.turn, jnp.concatenate([ends, ball], 1)).swapaxes(1, 2)
    radius = np.append(
        legged.radius.reshape(-1, 1), np.full((1, 1), legged.ball_radius, np.float32), 0
    )
    return track.Capsules(ends, radius)
