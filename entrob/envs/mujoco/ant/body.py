"""Where a body on legs is, and what moves it: MuJoCo's smooth dynamics, made for this one.

Dense arrays over legs and hinges, the copies of the environment along their last axis, in the frame
of the root, about its origin, where hips keep their place: there acceleration and velocity are
MuJoCo's with the root's linear part turned.

Source: Featherstone, Rigid Body Dynamics Algorithms (2008), chapters 5 and 6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.ant.legged import HINGES, ROOT, Legged, Solid
from entrob.envs.mujoco.ant.solver import Matrix, Vector


class Pose(NamedTuple):
    """Where everything is, in the root's frame but for `turn`.

    Attributes:
      turn: [3, 3, B], from the root's frame to the world's.
      at: [3, B], the root's origin in the world.
      turns: ([L, 3, 3, B], [L, 3, 3, B]), of the links behind hip and ankle, since rest.
      axis: [L, 2, 3, B], of the hinges.
      anchor: [L, 2, 3, B], a point on each.
      drift: [L, 2, 3, B], velocity of what is at the origin, per speed of each hinge.
    """

    turn: jax.Array
    at: jax.Array
    turns: tuple[jax.Array, jax.Array]
    axis: jax.Array
    anchor: jax.Array
    drift: jax.Array


def pose(legged: Legged, qpos: jax.Array) -> Pose:
    """Where everything is at [nq, B]; the quaternion may be of any length."""
    w, x, y, z = qpos[3:7] / jnp.sqrt(jnp.sum(qpos[3:7] ** 2, 0))
    turn = jnp.stack(
        [
            jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            jnp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )
    unit = np.eye(3, dtype=np.float32)[..., None]
    skew = dense.last(np.cross(legged.axis[..., None, :, 0], np.eye(3)).swapaxes(-1, -2))
    angle = qpos[ROOT + 1 :].reshape(-1, HINGES, 1, 1, qpos.shape[-1])
    own = (
        jnp.asarray(unit) + jnp.sin(angle) * skew + (1 - jnp.cos(angle)) * dense.matmul(skew, skew)
    )
    hip = own[:, 0]
    ankle = dense.matmul(hip, own[:, 1])
    here = jnp.zeros_like(qpos[0])
    axis = jnp.stack([legged.axis[:, 0] + here, dense.rotate(hip, legged.axis[:, 1])], 1)
    thigh = legged.anchor[:, 0]
    knee = thigh + dense.rotate(hip, legged.anchor[:, 1] - thigh)
    anchor = jnp.stack([thigh + here, knee], 1)
    return Pose(turn, qpos[:3], (hip, ankle), axis, anchor, dense.cross(anchor, axis))


def place(legged: Legged, pose: Pose, k: int, point: dense.Array) -> jax.Array:
    """Points [L, 3, 1] of the links behind hip (0) or ankle (1) at rest, in the root's frame."""
    return pose.anchor[:, k] + dense.rotate(pose.turns[k], point - legged.anchor[:, k])


def dynamics(legged: Legged, trunk: Solid, pose: Pose, qvel: jax.Array):
    """Inertia `Matrix`, and the `Vector` of forces that keep all joints at their velocity.

    Args:
      legged: what moves.
      trunk: see `Prepared`.
      pose: where it is.
      qvel: [nv, B]; the root's linear velocity does not matter.
    """
    # The links' inertia about the root's origin.
    center = jnp.stack([place(legged, pose, k, legged.center[:, k]) for k in range(HINGES)], 1)
    turns = jnp.stack(pose.turns, 1)
    inertia = dense.matmul(dense.matmul(turns, legged.links.inertia), turns.swapaxes(-2, -3))
    mass, moment = legged.links.mass, legged.links.mass[..., None, :] * center
    square = jnp.sum(moment * center, -2)[:, :, None, None] * np.eye(3, dtype=np.float32)[..., None]
    inertia += square - moment[..., :, None, :] * center[..., None, :, :]

    # Accelerations while all joints keep their velocity; of each body's point at the origin.
    spin, speed = qvel[3:6], qvel[6:].reshape(-1, HINGES, 1, qvel.shape[-1])
    gravity = dense.last(legged.host.opt.gravity)
    still = -dense.total(pose.turn[m] * gravity[m] for m in range(3))
    force, twist = _push(trunk, still, jnp.zeros_like(spin), spin)
    rate = jnp.zeros_like(pose.axis[:, 0])
    at = still + rate
    spin = spin + rate
    pushes = []
    for k in range(HINGES):
        own, arm = pose.axis[:, k] * speed[:, k], pose.anchor[:, k]
        at += _swing(rate, spin, arm)
        rate = rate + dense.cross(spin, own)
        spin = spin + own
        at -= _swing(rate, spin, arm)
        link = Solid(mass[:, k, None], moment[:, k], inertia[:, k])
        pushes.append(_push(link, at, rate, spin))

    # What each hinge carries, and the root.
    sums = [[x[:, 0] + x[:, 1], x[:, 1]] for x in (mass, moment, inertia)]
    mass, moment, inertia = (jnp.stack(x, 1) for x in sums)
    pushed, twisted = (jnp.stack([x[0] + x[1], x[1]], 1) for x in zip(*pushes))
    linear = mass[..., None, :] * pose.drift + dense.cross(pose.axis, moment)
    angular = dense.rotate(inertia, pose.axis) + dense.cross(moment, pose.drift)

    def joint(i, k):
        terms = pose.axis[:, i] * angular[:, k] + pose.drift[:, i] * linear[:, k]
        return jnp.sum(terms, 1)

    hip, both, ankle = joint(0, 0), joint(0, 1), joint(1, 1)
    hip, ankle = hip + legged.armature[1][:, 0], ankle + legged.armature[1][:, 1]
    legs = jnp.stack([jnp.stack([hip, both], 1), jnp.stack([both, ankle], 1)], 1)
    side = jnp.moveaxis(jnp.concatenate([linear, angular], 2), 2, 0)
    whole = [x + jnp.sum(y[:, 0], 0) for x, y in zip(trunk, (mass, moment, inertia))]
    bias = Vector(
        jnp.concatenate([force + jnp.sum(pushed[:, 0], 0), twist + jnp.sum(twisted[:, 0], 0)]),
        jnp.sum(pose.axis * twisted + pose.drift * pushed, 2),
    )
    return Matrix(_spatial(*whole) + dense.diagonal(legged.armature[0]), side, legs), bias


def _swing(rate: jax.Array, spin: jax.Array, arm: jax.Array) -> jax.Array:
    """Acceleration of a point of a turning body relative to another, `arm` before it."""
    return dense.cross(rate, arm) + dense.cross(spin, dense.cross(spin, arm))


def _push(solid: Solid, at: jax.Array, rate: jax.Array, spin: jax.Array):
    """Force and torque about the origin that a body needs to move so."""
    force = solid.mass * at + _swing(rate, spin, solid.moment)
    turned = dense.rotate(solid.inertia, rate) + dense.cross(
        spin, dense.rotate(solid.inertia, spin)
    )
    return force, turned + dense.cross(solid.moment, at)


def _spatial(mass: jax.Array, moment: jax.Array, inertia: jax.Array) -> jax.Array:
    """Inertia of a rigid body about the origin, linear before angular: [6, 6, B]."""
    x, y, z = moment
    zero = jnp.zeros_like(x)
    skew = jnp.stack([jnp.stack([zero, -z, y]), jnp.stack([z, zero, -x]), jnp.stack([-y, x, zero])])
    top = jnp.concatenate([dense.diagonal(mass + jnp.zeros_like(moment)), -skew], 1)
    return jnp.concatenate([top, jnp.concatenate([skew, inertia], 1)])
