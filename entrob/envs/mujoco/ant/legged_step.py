"""Stepping a body on legs by the Runge-Kutta method: what MJX does for any model, made for this one.

MuJoCo's equations as dense arrays over legs, hinges and contacts, the copies of the environment
along their last axis. They are written in the frame of the root, about its origin, where hips keep
their place: there acceleration and velocity are MuJoCo's with the root's linear part turned.
Of all contacts that an ant could have, fifty, hardly more than five touch at once: the nearest
are kept.

Sources: Featherstone, Rigid Body Dynamics Algorithms (2008), chapters 5 and 6; MuJoCo's
documentation, "Computation", for soft constraints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.ant import solver, track
from entrob.envs.mujoco.ant.legged import HINGES, ROOT, Knobs, Legged, Solid, weights
from entrob.envs.mujoco.ant.solver import Matrix, Rows, Vector

# Copies that a CPU takes at once: with more, what passes between operations outgrows its caches.
BLOCK = 16
# Stages of the classical Runge-Kutta method: how far the next stage is from the start, in
# timesteps (the last one has no next), and each one's weight.
NEXT = np.array([0.5, 0.5, 1.0, 0.0], np.float32)
WEIGHTS = np.array([1, 2, 2, 1], np.float32) / 6
TINY = 1e-9
# Rows of constraints per contact.
EDGES = 4


class State(NamedTuple):
    """What a simulation carries from one timestep to the next.

    Attributes:
      qpos: float32[nq], root's position and orientation quaternion, then the hinges' angles.
      qvel: float32[nv], their velocities.
      warmstart: float32[nv], the last accelerations, where the solver starts.
      seen: float32[3], the root's position where the last timestep evaluated forces last. MuJoCo
        leaves it behind as the body's position; one timestep's error away from `qpos`.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    seen: jax.Array


def simulate(legged: Legged, knobs: Knobs, state: State, ctrl: jax.Array, substeps: int) -> State:
    """Hold a control for a few timesteps of the model.

    Under `jax.vmap` all copies are computed side by side, along the last axis of every array.

    Args:
      legged: what moves.
      knobs: its changeable part.
      state: where to start.
      ctrl: float32[u].
      substeps: how many timesteps.
    """

    def run(knobs, state, ctrl):
        prepared = _prepare(legged, knobs, ctrl)
        step = lambda _, state: _timestep(legged, prepared, state)
        return jax.lax.fori_loop(0, substeps, step, state)

    if jax.default_backend() == "cpu":
        run = dense.in_blocks(run, BLOCK)
    copies = jax.tree.map(lambda x: jnp.asarray(x)[..., None], (knobs, state, ctrl))
    return jax.tree.map(lambda x: x[..., 0], dense.side_by_side(run)(*copies))


def _timestep(legged: Legged, prepared, state: State) -> State:
    dt = legged.host.opt.timestep

    def stage(carry, weights):
        qpos, qvel, acc, velocity, acceleration, _ = carry
        further, weight = weights
        acc = accelerate(legged, prepared, qpos, qvel, acc)
        sums = velocity + weight * qvel, acceleration + weight * acc
        seen = qpos[:3]
        qpos = integrate(state.qpos, qvel, further * dt)
        return (qpos, state.qvel + further * dt * acc, acc, *sums, seen), None

    zero = jnp.zeros_like(state.qvel)
    carry = (state.qpos, state.qvel, state.warmstart, zero, zero, state.seen)
    carry, _ = jax.lax.scan(stage, carry, (NEXT, WEIGHTS))
    _, _, acc, velocity, acceleration, seen = carry
    qpos = integrate(state.qpos, velocity, dt)
    return State(qpos, state.qvel + dt * acceleration, acc, seen)


def integrate(qpos: jax.Array, qvel: jax.Array, time) -> jax.Array:
    """Positions [nq, B] after moving at a constant velocity, the quaternion normalized."""
    w, v = qpos[3], qpos[4:7]
    turn = qvel[3:6] * time / 2
    half = jnp.sqrt(jnp.maximum(jnp.sum(turn * turn, 0), TINY**2))
    c, s = jnp.cos(half), jnp.sin(half) / half * turn
    quat = jnp.concatenate(
        [(w * c - jnp.sum(v * s, 0))[None], w * s + c * v + dense.cross(v, s)]
    )
    quat /= jnp.sqrt(jnp.sum(quat * quat, 0))
    return jnp.concatenate([qpos[:3] + qvel[:3] * time, quat, qpos[7:] + qvel[6:] * time])


class Prepared(NamedTuple):
    """What stays the same while a control is held.

    Attributes:
      trunk: `Solid` of all that does not move with a hinge.
      torque: [L, 2, B], of the motors.
      push: [3, B], in the world's frame.
      friction: [B], of the floor.
      yielding: inverse weights of the capsules [L, 3, B], the ball [B] and the hinges [L, 2, B].
      center: ([B], [B]), of the wall in x and z.
      half: ([B], [B]), of the wall's extents.
      walled: bool[B], whether there is one.
    """

    trunk: Solid
    torque: jax.Array
    push: jax.Array
    friction: jax.Array
    yielding: tuple[jax.Array, jax.Array, jax.Array]
    center: tuple[jax.Array, jax.Array]
    half: tuple[jax.Array, jax.Array]
    walled: jax.Array


def _prepare(legged: Legged, knobs: Knobs, ctrl: jax.Array) -> Prepared:
    host, (capsules, ball) = legged.host, legged.geoms
    low, high = dense.last(host.actuator_ctrlrange.T)
    torque = dense.dot(jnp.asarray(legged.motors), knobs.gain * jnp.clip(ctrl, low, high))
    root = int(host.jnt_bodyid[0])
    bodies, dofs = weights(legged.lightness, knobs.root_mass - host.body_mass[root])
    half = knobs.wall_depth / 2, knobs.wall_height / 2
    return Prepared(
        trunk=jax.tree.map(lambda x, y: x + knobs.root_mass * y, legged.trunk, legged.root),
        torque=torque,
        push=knobs.push,
        friction=knobs.friction,
        yielding=(
            bodies[host.geom_bodyid[capsules]],
            bodies[host.geom_bodyid[ball]],
            dofs[ROOT:].reshape(-1, HINGES, dofs.shape[-1]),
        ),
        center=(knobs.wall_pos + half[0], half[1]),
        half=half,
        walled=knobs.wall_height > 0,
    )


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
    own = unit + jnp.sin(angle) * skew + (1 - jnp.cos(angle)) * dense.matmul(skew, skew)
    hip = own[:, 0]
    ankle = dense.matmul(hip, own[:, 1])
    here = jnp.zeros_like(qpos[0])
    axis = jnp.stack([legged.axis[:, 0] + here, dense.rotate(hip, legged.axis[:, 1])], 1)
    thigh = legged.anchor[:, 0]
    knee = thigh + dense.rotate(hip, legged.anchor[:, 1] - thigh)
    anchor = jnp.stack([thigh + here, knee], 1)
    return Pose(turn, qpos[:3], (hip, ankle), axis, anchor, dense.cross(anchor, axis))


def _place(legged: Legged, pose: Pose, k: int, point: dense.Array) -> jax.Array:
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
    center = jnp.stack([_place(legged, pose, k, legged.center[:, k]) for k in range(HINGES)], 1)
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
    sums = [
        [x[:, 0] + x[:, 1], x[:, 1]] for x in (mass, moment, inertia)
    ]
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
    turned = dense.rotate(solid.inertia, rate) + dense.cross(spin, dense.rotate(solid.inertia, spin))
    return force, turned + dense.cross(solid.moment, at)


def _spatial(mass: jax.Array, moment: jax.Array, inertia: jax.Array) -> jax.Array:
    """Inertia of a rigid body about the origin, linear before angular: [6, 6, B]."""
    x, y, z = moment
    zero = jnp.zeros_like(x)
    skew = jnp.stack([jnp.stack([zero, -z, y]), jnp.stack([z, zero, -x]), jnp.stack([-y, x, zero])])
    top = jnp.concatenate([dense.diagonal(mass + jnp.zeros_like(moment)), -skew], 1)
    return jnp.concatenate([top, jnp.concatenate([skew, inertia], 1)])


def accelerate(legged: Legged, prepared: Prepared, qpos, qvel, start) -> jax.Array:
    """Accelerations [nv, B] of a state; the solver starts at some."""
    place = pose(legged, qpos)
    into = place.turn.swapaxes(0, 1)
    speed = _split(into, qvel)
    mass, bias = dynamics(legged, prepared.trunk, place, qvel)
    drag = legged.damping[0] * speed.root, legged.damping[1] * speed.legs
    # A free joint's first three forces are those on its body's origin.
    push = jnp.pad(dense.rotate(into, prepared.push), [(0, 3), (0, 0)])
    force = Vector(push - bias.root - drag[0], prepared.torque - bias.legs - drag[1])
    rows = constrain(legged, prepared, place, qpos, speed)
    acc = solver.minimize(mass, force, rows, _split(into, start), legged.iterations)
    linear = dense.rotate(place.turn, acc.root[:3])
    return jnp.concatenate([linear, acc.root[3:], acc.legs.reshape(-1, linear.shape[-1])])


def _split(into: jax.Array, x: jax.Array) -> Vector:
    """From MuJoCo's order and the world's frame [nv, B]."""
    root = jnp.concatenate([dense.rotate(into, x[:3]), x[3:ROOT]])
    return Vector(root, x[ROOT:].reshape(-1, HINGES, x.shape[-1]))


def constrain(legged: Legged, prepared: Prepared, pose: Pose, qpos, speed: Vector) -> Rows:
    """The constraints of a state."""
    angle = qpos[ROOT + 1 :].reshape(speed.legs.shape)
    below, above = angle - legged.limits[:, :, 0], legged.limits[:, :, 1] - angle
    sign = jnp.where(below < above, 1.0, -1.0)
    gap = jnp.minimum(below, above)
    limits = legged.soft.row(gap, sign * speed.legs, 1 / prepared.yielding[2])

    contacts = _nearest(legged, prepared, pose)
    into = pose.turn.swapaxes(0, 1)
    pos, normal, tangent = (_turned(into, x) for x in (contacts.pos, contacts.normal, contacts.tangent))
    directions = normal, tangent, _cross(normal, tangent)
    # How each hinge of a contact's leg moves it.
    moved = [
        _cross(contacts.axis[k], pos) + contacts.drift[k] for k in range(HINGES)
    ]
    out, *slides = (
        jnp.concatenate([d, _cross(pos, d), *(jnp.sum(d * m, 0)[None] for m in moved)])
        for d in directions
    )
    mu = contacts.friction
    jacobian = jnp.stack([out + way * mu * slide for slide in slides for way in (1, -1)], 1)
    own = [dense.weigh(speed.legs[:, i], contacts.own) for i in range(HINGES)]
    along = dense.weigh(speed.root, jacobian[:ROOT]) + dense.weigh(own, jacobian[ROOT:])
    light = 1 / (contacts.yielding * (1 + mu**2) * 2 * mu**2)
    weight, aim = legged.soft.row(contacts.dist - legged.margin, along, light)
    return Rows(sign, jacobian, contacts.own, (limits[0], weight), (limits[1], aim))


def _cross(x, y):
    """Of vectors [3, ..., B]."""
    return jnp.stack([x[i - 2] * y[i - 1] - x[i - 1] * y[i - 2] for i in range(3)])


def _turned(mat, x):
    """A matrix [3, 3, B] times vectors [3, c, B]."""
    return dense.total(mat[:, m, None] * x[m] for m in range(3))


class _Nearest(NamedTuple):
    """The contacts that are kept; positions and directions in the world's, from the root.

    Attributes:
      dist: [c, B].
      pos: [3, c, B], relative to the root's origin.
      normal: [3, c, B].
      tangent: [3, c, B].
      friction: [c, B].
      yielding: [c, B], inverse weight of the body.
      own: [L, c, B], 1 for the leg that it moves with.
      axis: [2, 3, c, B], of that leg's hinges as far as they move it, in the root's frame.
      drift: [2, 3, c, B].
    """

    dist: jax.Array
    pos: jax.Array
    normal: jax.Array
    tangent: jax.Array
    friction: jax.Array
    yielding: jax.Array
    own: jax.Array
    axis: jax.Array
    drift: jax.Array


def _nearest(legged: Legged, prepared: Prepared, pose: Pose) -> _Nearest:
    """The contacts that are nearest or overlap most."""
    host, copies = legged.host, pose.at.shape[-1]
    capsules = _capsules(legged, pose)
    n = capsules.radius.shape[0]
    yielding = jnp.concatenate([prepared.yielding[0].reshape(-1, copies), prepared.yielding[1][None]])

    def gathered(found: list, friction: list) -> _Nearest:
        dist = jnp.concatenate([x.dist.reshape(-1, copies) for x in found])
        vectors = [
            jnp.concatenate([v.reshape(3, -1, copies) for v in vs], 1)
            for vs in zip(*(x[1:] for x in found))
        ]
        mu = jnp.concatenate([jnp.broadcast_to(f, (2 * n, copies)) for f in friction])
        fields = jnp.concatenate([dist[None], *vectors, mu[None], jnp.tile(yielding, (2 * len(found), 1))[None]])
        # How many are nearer, those before it if as near.
        order = np.arange(len(dist))[:, None]
        nearer = dense.total(
            ((d < dist) | ((d == dist) & (i < order))).astype(jnp.float32)
            for i, d in enumerate(dist)
        )
        slots = np.arange(legged.contacts, dtype=np.float32)[:, None]
        chosen = (nearer[:, None] == slots).astype(jnp.float32)  # [2 n, c, B]
        picked = dense.total(fields[:, i, None] * chosen[i] for i in range(len(dist)))
        whose = jnp.sum(chosen.reshape(-1, n, *chosen.shape[1:]), 0)[:-1]
        whose = whose.reshape(legged.legs, HINGES + 1, *chosen.shape[1:])
        ankle = whose[:, 2]
        own = whose[:, 1] + ankle
        hinged = [
            [dense.total(m[l] * x[l, k, :, None] for l in range(legged.legs)) for k, m in enumerate((own, ankle))]
            for x in (pose.axis, pose.drift)
        ]
        return _Nearest(
            picked[0], picked[1:4], picked[4:7], picked[7:10], picked[10], picked[11], own,
            *map(jnp.stack, hinged),
        )

    at = pose.at
    lowered = capsules._replace(ends=capsules.ends + jnp.stack([0 * at[0], 0 * at[0], at[2]])[:, None])

    def flat():
        found = track.floor(lowered)
        found = found._replace(pos=found.pos.at[2].add(-at[2]))
        return [found], [prepared.friction]

    def both():
        found, friction = flat()
        center = prepared.center[0] - at[0], prepared.center[1] - at[2]
        wall = track.wall(capsules, center, prepared.half)
        # Out of reach, hence without a trace, where there is none.
        wall = wall._replace(dist=jnp.where(prepared.walled, wall.dist, track.FAR))
        return [*found, wall], [*friction, legged.grip]

    ahead = jnp.abs(at[0] - prepared.center[0]) - prepared.half[0] - legged.reach - legged.margin
    return jax.lax.cond(
        jnp.any(prepared.walled & (ahead < 0)),
        lambda: gathered(*both()),
        lambda: gathered(*flat()),
    )


def _capsules(legged: Legged, pose: Pose) -> track.Capsules:
    """In the world's axes, relative to the root's origin; legs' first, the ball's last."""
    here = jnp.zeros_like(pose.at[0])
    ends = [
        jnp.stack(
            [legged.ends[:, 0, e] + here]
            + [_place(legged, pose, k, legged.ends[:, k + 1, e]) for k in range(HINGES)],
            1,
        )
        for e in range(2)
    ]
    ends = jnp.stack([jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 1, 0) for x in ends])  # 2, 3, n, B
    ball = jnp.broadcast_to((legged.ball + here)[None, :, None], (2, 3, 1, here.shape[0]))
    ends = jnp.concatenate([ends, ball], 2)
    ends = jnp.stack([_turned(pose.turn, x) for x in ends])
    radius = np.append(legged.radius.reshape(-1, 1), np.float32([[legged.ball_radius]]), 0)
    return track.Capsules(ends, radius)
