"""Stepping a chain of hinges and a sliding puck: what MJX does for any model, faster for this one.

MuJoCo's equations as dense arrays over links, joints and contacts, the copies of the environment
along their last axis. Sums along the chain are products with triangular matrices, and the solver
takes a fixed number of full Newton steps, so there is no loop until convergence.

Sources: Featherstone, Rigid Body Dynamics Algorithms (2008), chapters 5 and 6, in world coordinates
about the origin; MuJoCo's documentation, "Computation", for soft constraints and their solution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.dense import last
from entrob.envs.mujoco.physics import Pairs, State
from entrob.envs.mujoco.pusher.chain import Chain, Knobs
from entrob.envs.mujoco.pusher.contacts import Shape

# Copies that a CPU takes at once: with more, what passes between operations outgrows its caches.
BLOCK = 16


def simulate(
    chain: Chain, knobs: Knobs, state: State, ctrl: jax.Array, substeps: int
) -> tuple[State, jax.Array]:
    """Hold a control for a few timesteps of the model, by the Euler method.

    Under `jax.vmap` all copies are computed side by side, along the last axis of every array.

    Args:
      chain: what moves.
      knobs: its changeable part.
      state: where to start.
      ctrl: float32[h].
      substeps: how many timesteps, at least one.

    Returns:
      The next state, and the positions of the watched bodies float32[w, 3] in meters at the
      beginning of the last timestep: what MuJoCo leaves behind, and what Gymnasium observes.
    """

    def run(knobs, state, ctrl):
        def substep(_, carry):
            return _timestep(chain, knobs, carry[0], ctrl)

        seen = jnp.zeros((len(chain.watched), 3, ctrl.shape[-1]))
        return jax.lax.fori_loop(0, substeps, substep, (state, seen))

    if jax.default_backend() == "cpu":
        run = dense.in_blocks(run, BLOCK)
    copies = jax.tree.map(lambda x: jnp.asarray(x)[..., None], (knobs, state, ctrl))
    return jax.tree.map(lambda x: x[..., 0], dense.side_by_side(run)(*copies))


def _timestep(chain: Chain, knobs: Knobs, state: State, ctrl: jax.Array):
    """One timestep: the next state, and where the watched bodies are in this one."""
    h, step = len(chain.axis), chain.host.opt.timestep
    pose = _pose(chain, state.qpos)
    inertia, bias = _inertia_and_bias(chain, pose, state.qvel[:h])
    low, high = last(chain.host.actuator_ctrlrange.T)
    driven = jnp.concatenate([knobs.gain * jnp.clip(ctrl, low, high) - bias, knobs.push])
    force = driven - knobs.damping * state.qvel
    carried = jnp.concatenate([jnp.zeros_like(bias), knobs.puck_mass + jnp.zeros_like(force[h:])])
    mass = jnp.pad(inertia, [(0, 2), (0, 2), (0, 0)])
    mass += dense.diagonal(last(chain.host.dof_armature) + carried)
    rows = _constraints(chain, knobs, pose, state)

    # Each constraint wants w (aim - J a) of force where that is positive, so the acceleration a
    # solves M a = force + sum of those: linear once it is known which are positive.
    def newton(_, accel):
        held, pushed = _active(rows, accel)
        return dense.solve(
            mass + dense.diagonal(held[0]) + dense.outer(held[1], rows.jacobian),
            force + rows.sign * pushed[0] + dense.weigh(pushed[1], rows.jacobian),
        )

    accel = jax.lax.fori_loop(0, chain.iterations, newton, state.warmstart)
    held, pushed = _active(rows, accel)
    force += rows.sign * pushed[0] - held[0] * accel
    force += dense.weigh(pushed[1] - held[1] * dense.along(rows.jacobian, accel), rows.jacobian)
    # MuJoCo's Euler method takes damping implicitly.
    qvel = state.qvel + step * dense.solve(mass + dense.diagonal(step * knobs.damping), force)
    return State(state.qpos + step * qvel, qvel, accel), pose.seen


def _pad(x: jax.Array) -> jax.Array:
    """From the hinges' numbers [h, B] to all joints' [n, B]."""
    return jnp.pad(x, [(0, 2), (0, 0)])


class _Pose(NamedTuple):
    """Where everything is.

    Attributes:
      axis: [h, 3, B], of the hinges.
      anchor: [h, 3, B], a point on each.
      drift: [h, 3, B], velocity of what is at the origin, per speed of each hinge.
      turn: [h, 3, 3, B], the links' rotations since rest.
      shift: [3, B], the puck's way since rest.
      seen: [w, 3, B], positions of the watched bodies.
    """

    axis: jax.Array
    anchor: jax.Array
    drift: jax.Array
    turn: jax.Array
    shift: jax.Array
    seen: jax.Array


def _pose(chain: Chain, qpos: jax.Array) -> _Pose:
    h = len(chain.axis)
    unit = np.eye(3, dtype=np.float32)[..., None]
    skew = last(np.cross(chain.axis[:, None, :, 0], np.eye(3)).swapaxes(1, 2))
    angle = qpos[:h, None, None]
    turn = jnp.sin(angle) * skew + unit + (1 - jnp.cos(angle)) * dense.matmul(skew, skew)
    # Products of the rotations up to each link, by doubling.
    reach = 1
    while reach < h:
        turn = jnp.concatenate([turn[:reach], dense.matmul(turn[:-reach], turn[reach:])])
        reach *= 2
    between = dense.rotate(turn[:-1], np.diff(chain.anchor, axis=0))
    anchor = chain.anchor[0] + dense.dot(np.tri(h, h - 1, -1, np.float32), between)
    axis = dense.rotate(turn, chain.axis)
    shift = dense.dot(chain.slide[..., 0].T, qpos[h:])
    seen = []
    for body in chain.watched:
        k, place = chain.links[body], chain.bodies[body]
        if k >= 0:
            place = anchor[k] + dense.rotate(turn[k], place - chain.anchor[k])
        seen.append(place + shift if body == chain.puck else jnp.broadcast_to(place, shift.shape))
    return _Pose(axis, anchor, dense.cross(anchor, axis), turn, shift, jnp.stack(seen))


def _inertia_and_bias(chain: Chain, pose: _Pose, speed: jax.Array):
    """The hinges' inertia [h, h, B], and the torques [h, B] that keep them at their speed."""
    h = len(chain.axis)
    until, before = np.tri(h, dtype=np.float32), np.tri(h, h - 1, -1, np.float32)
    lever = dense.rotate(pose.turn, chain.center - chain.anchor)
    center = pose.anchor + lever
    inertia = dense.matmul(dense.matmul(pose.turn, chain.inertia), pose.turn.swapaxes(1, 2))

    # Accelerations while all joints keep their speed.
    own = pose.axis * speed[:, None]
    spin = dense.dot(until, own)
    rate = dense.dot(until, dense.cross(spin, own))

    def swing(arm, k):
        return dense.cross(rate[k], arm) + dense.cross(spin[k], dense.cross(spin[k], arm))

    accel = dense.dot(before, swing(jnp.diff(pose.anchor, axis=0), slice(-1)))
    accel += swing(lever, slice(None)) - last(chain.host.opt.gravity)
    push = chain.mass * accel
    twist = dense.rotate(inertia, rate) + dense.cross(spin, dense.rotate(inertia, spin))
    twist += dense.cross(center, push)

    # What each hinge carries: inertia about the origin, mass times center, forces and torques.
    square = dense.diagonal(jnp.ones((3, 1))) * jnp.sum(center**2, 1)[:, None, None]
    moment = chain.mass * center
    about = inertia + chain.mass[..., None] * square - moment[:, :, None] * center[:, None]
    links = jnp.concatenate([about, moment[:, None], push[:, None], twist[:, None]], 1)
    carried = dense.dot(until.T, links)
    about, (moment, push, twist) = carried[:, :3], carried[:, 3:].swapaxes(0, 1)
    mass = np.cumsum(chain.mass[::-1], 0)[::-1]
    linear = mass * pose.drift + dense.cross(pose.axis, moment)
    angular = dense.rotate(about, pose.axis) + dense.cross(moment, pose.drift)
    joint = dense.pairwise(pose.axis, angular) + dense.pairwise(pose.drift, linear)
    bias = jnp.sum(pose.axis * twist + pose.drift * push, 1)
    return jnp.where(until.T[..., None] > 0, joint, joint.swapaxes(0, 1)), bias


class _Rows(NamedTuple):
    """Constraints: limits [h, B] of the hinges, and contacts [c, B].

    Attributes:
      sign: [n, B], the way each limit pushes; 0 for the slides.
      weight: force per acceleration that is lacking, of limits [n, B] and contacts; 0 if inactive.
      aim: the least acceleration along each, of limits [n, B] and contacts.
      jacobian: [c, n, B], of the contacts.
    """

    sign: jax.Array
    weight: tuple[jax.Array, jax.Array]
    aim: tuple[jax.Array, jax.Array]
    jacobian: jax.Array


def _constraints(chain: Chain, knobs: Knobs, pose: _Pose, state: State) -> _Rows:
    h, host = len(chain.axis), chain.host
    below = state.qpos[:h] - knobs.limits[:, 0]
    above = knobs.limits[:, 1] - state.qpos[:h]
    sign = jnp.where(below < above, 1.0, -1.0)
    light = 1 / last(host.dof_invweight0[:h])
    limits = chain.soft.row(jnp.minimum(below, above), sign * state.qvel[:h], light)
    contacts = [_contacts(chain, knobs, pose, state, pairs) for pairs in chain.pairs]
    jacobian, *rows = (jnp.concatenate(x) for x in zip(*contacts))
    weight, aim = ((_pad(x), y) for x, y in zip(limits, rows))
    return _Rows(_pad(sign), weight, aim, jacobian)


def _contacts(chain: Chain, knobs: Knobs, pose: _Pose, state: State, pairs: Pairs):
    """Jacobian [c, n, B], weight and aim [c, B] of the contacts of one kind."""
    h, host = len(chain.axis), chain.host
    one, two = (list(dict.fromkeys(geoms.tolist())) for geoms in pairs.geoms.T)
    first = jax.tree.map(lambda x: x[..., :, None, :], _shape(chain, knobs, pose, one))
    second = jax.tree.map(lambda x: x[..., None, :, :], _shape(chain, knobs, pose, two))
    dist, pos, normal = pairs.touch(first, second, pairs.margin)
    dist = dist.reshape(-1, dist.shape[-1])
    pos, normal = (jnp.moveaxis(x, 1, -2).reshape(-1, 3, x.shape[-1]) for x in (pos, normal))

    jacobian: dense.Array = 0.0
    invweight: jax.Array | float = 0.0
    for geoms, way in ((one, -1.0), (two, 1.0)):
        body = host.geom_bodyid[geoms[0]]
        link, own = chain.links[body], host.body_invweight0[body, 0]
        if link >= 0:
            moved = (np.arange(h) <= link).astype(np.float32)[:, None]
            row = dense.pairwise(dense.cross(pos, normal), pose.axis)
            row = moved * (row + dense.pairwise(normal, pose.drift))
            jacobian += way * jnp.pad(row, [(0, 0), (0, 2), (0, 0)])
        elif body == chain.puck:
            # What MuJoCo derives when it compiles a model: the inverse inertia of a translation,
            # averaged over three directions, of which the slides allow two.
            own = 2 / 3 / (knobs.puck_mass + knobs.contact_armature)
            row = dense.pairwise(normal, chain.slide)
            jacobian += way * jnp.pad(row, [(0, 0), (h, 0), (0, 0)])
        invweight += own
    speed = dense.along(jacobian, state.qvel)
    return jacobian, *chain.soft.row(dist - pairs.margin, speed, 1 / invweight)


def _shape(chain: Chain, knobs: Knobs, pose: _Pose, geoms: list[int]) -> Shape:
    """Geoms of one body, for `contacts`: [3, g, B], [3, 3, g, B], [3, g, B]."""
    body = chain.host.geom_bodyid[geoms[0]]
    pos, mat, size = (x[..., geoms, :] for x in chain.geoms)
    link = chain.links[body]
    if geoms[0] in chain.movable:
        moved = np.array([chain.movable.index(g) for g in geoms])
        pos, size = (x[moved].swapaxes(0, 1) for x in (knobs.place, knobs.size))
    elif link >= 0:
        turn, offset = pose.turn[link][:, :, None], pos - chain.anchor[link][:, None]
        pos = pose.anchor[link][:, None] + dense.total(turn[:, i] * offset[i] for i in range(3))
        mat = dense.total(turn[:, None, i] * mat[i] for i in range(3))
    elif body == chain.puck:
        pos = pos + pose.shift[:, None]
    return Shape(pos, mat, size)


def _active(rows: _Rows, accel: jax.Array):
    """Of limits and contacts: the weights of those that push, and these times their aims."""
    along = rows.sign * accel, dense.along(rows.jacobian, accel)
    held = [jnp.where(aim > a, w, 0.0) for aim, a, w in zip(rows.aim, along, rows.weight)]
    return held, [w * aim for w, aim in zip(held, rows.aim)]
