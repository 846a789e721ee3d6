"""Stepping a legged body: Runge-Kutta, and a constraint solver for few contacts at a time.

MuJoCo's smooth dynamics come from MJX. What holds the joints within their ranges and the feet off
the floor is solved here: of all contacts that an ant could have, fifty, hardly more than five
touch at once, while MJX gives each of them its four rows of constraints. Formulas: MuJoCo's
documentation, "Computation", sections "Constraint model" and "Solver".

On the CPU every jit that steps such a body needs
``compiler_options={"xla_cpu_use_fusion_emitters": False}``.
"""

import copy
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import scipy.linalg
from mujoco import mjx

from entrob.envs.mujoco.ant.track import Contacts
from entrob.errors import EntrobError

# Stages of the classical Runge-Kutta method: how far the next stage is from the start, in
# timesteps (the last one has no next), and each one's weight.
NEXT = np.array([0.5, 0.5, 1.0, 0.0], np.float32)
WEIGHTS = np.array([1, 2, 2, 1], np.float32) / 6
TINY = 1e-9
# Degrees of freedom of the free root; its position has one number more.
ROOT = 6
# Rows of constraints per contact.
EDGES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Legged:
    """A model with a free root, hinges below it and one kind of contact, ready to be stepped.

    Attributes:
      host: the compiled model.
      model: the same on the device; a pytree whose leaves may be replaced.
      data: an empty `mjx.Data`.
      moves: bool[nbody, nv], which degrees of freedom move a body.
      margin: distance in meters below which a contact counts.
      contacts: how many contacts are kept, the nearest.
      iterations: Newton iterations of the solver.
    """

    host: mujoco.MjModel
    model: mjx.Model
    data: mjx.Data
    moves: np.ndarray
    margin: float
    contacts: int
    iterations: int


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


def build(host: mujoco.MjModel, margin: float, contacts: int, iterations: int) -> Legged:
    """Put a model on the device; see `Legged`.

    Raises:
      EntrobError: the model is not a free root with hinges, all with a range.
    """
    joints = host.jnt_type
    if joints[0] != mujoco.mjtJoint.mjJNT_FREE or (joints[1:] != mujoco.mjtJoint.mjJNT_HINGE).any():
        raise EntrobError("a legged model needs a free root joint and hinges, nothing else")
    if not host.jnt_limited[1:].all() or host.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
        raise EntrobError("a legged model needs ranges for its hinges and the RK4 integrator")
    moves = np.zeros((host.nbody, host.nv), bool)
    for body in range(1, host.nbody):
        moves[body] = moves[host.body_parentid[body]] | (host.dof_bodyid == body)
    bare = copy.copy(host)
    bare.geom_contype[:] = 0
    bare.geom_conaffinity[:] = 0
    return Legged(
        host, mjx.put_model(bare), mjx.make_data(bare), moves, margin, contacts, iterations
    )


def nearest(contacts: Contacts, count: int) -> Contacts:
    """The `count` contacts that are nearest or overlap most."""
    _, index = jax.lax.top_k(-contacts.dist, count)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], contacts)


class Constraints(NamedTuple):
    """What acceleration `a` is free to do: it costs ``weight/2 min(0, excess)²`` over all rows.

    The rows are those of the hinges, ``excess = side a[6:] - target``, then four for every
    contact, two to each side of its friction pyramid, ``excess = jacobian a - target``.

    Attributes:
      side: float32[h], 1 at the lower half of a hinge's range, else -1.
      jacobian: float32[4c, nv].
      weight: float32[h + 4c], 0 where a constraint is not active.
      target: float32[h + 4c].
    """

    side: jax.Array
    jacobian: jax.Array
    weight: jax.Array
    target: jax.Array


def constrain(legged: Legged, model: mjx.Model, data: mjx.Data, contacts: Contacts) -> Constraints:
    """The constraints of a state, with its bodies and velocities in place."""
    angle, (low, high) = data.qpos[ROOT + 1 :], model.jnt_range[1:].T
    below, above = angle - low, high - angle
    side = jnp.where(below < above, 1.0, -1.0)

    # How each degree of freedom moves the contact points.
    ang, lin = data.cdof[:, :3], data.cdof[:, 3:]
    arm = contacts.pos - data.subtree_com[1]
    moved = lin + jnp.cross(ang, arm[:, None])
    moved *= jnp.asarray(legged.moves, jnp.float32)[contacts.body][..., None]
    x, y, z = (moved[..., i] for i in range(3))
    out, *slides = (
        f[:, :1] * x + f[:, 1:2] * y + f[:, 2:] * z for f in jnp.unstack(contacts.frame, axis=1)
    )
    mu = contacts.friction
    edges = [out + sign * mu[:, None] * slide for slide in slides for sign in (1, -1)]
    jacobian = jnp.stack(edges, 1).reshape(-1, out.shape[-1])

    gap = jnp.concatenate([jnp.minimum(below, above), contacts.dist - legged.margin])
    give = model.body_invweight0[contacts.body, 0] * (1 + mu**2) * 2 * mu**2
    give = jnp.concatenate([model.dof_invweight0[ROOT:], give])
    stiffness, damping, impedance = _impedance(legged.host, gap)
    weight = jnp.where(gap < 0, impedance / (give * (1 - impedance)), 0.0)
    velocity = jnp.concatenate([side * data.qvel[ROOT:], jacobian @ data.qvel])
    target = -damping * velocity - _spread(stiffness * impedance * gap, len(side))
    return Constraints(side, jacobian, _spread(weight, len(side)), target)


def _spread(x: jax.Array, hinges: int) -> jax.Array:
    """From an entry per hinge and contact to one per row."""
    return jnp.concatenate([x[:hinges], jnp.repeat(x[hinges:], EDGES)])


def _impedance(host: mujoco.MjModel, gap: jax.Array) -> tuple[float, float, jax.Array]:
    """Stiffness, damping and impedance float32[r] of constraints violated by `-gap`."""
    (time, ratio), (least, most, width, mid, power) = host.geom_solref[0], host.geom_solimp[0]
    time, power = max(time, 2 * host.opt.timestep), int(power)
    x = jnp.minimum(jnp.abs(gap) / width, 1.0)
    rise = x**power / mid ** (power - 1)
    fall = 1 - (1 - x) ** power / (1 - mid) ** (power - 1)
    impedance = least + jnp.where(x < mid, rise, fall) * (most - least)
    return 1 / (most * time * ratio) ** 2, 2 / (most * time), impedance


def solve(legged: Legged, mass, force, constraints: Constraints, start) -> jax.Array:
    """The acceleration that minimizes ``a·mass·a/2 - force·a`` plus the constraints' cost.

    Newton's method with an exact line search; convex, so `start` decides only how soon it is there.
    """
    side, jacobian, weight, target = constraints
    hinges = len(side)

    def rows(acc):
        return jnp.concatenate([side * acc[ROOT:], jacobian @ acc])

    def newton(_, carry):
        acc, smooth, excess = carry
        pull = jnp.where(excess < 0, weight, 0.0)
        push = pull * excess
        limit = jnp.pad(side * push[:hinges], (ROOT, 0))
        gradient = smooth + limit + push[hinges:] @ jacobian
        hessian = mass + (jacobian.T * pull[hinges:]) @ jacobian
        hessian += jnp.diag(jnp.pad(pull[:hinges], (ROOT, 0)))
        factor = jax.scipy.linalg.cho_factor(hessian)
        step = -jax.scipy.linalg.cho_solve(factor, gradient)
        along, bent = rows(step), mass @ step
        level, bend = step @ smooth, step @ bent
        share = _line_search(weight, excess, along, level, bend)
        return acc + share * step, smooth + share * bent, excess + share * along

    carry = start, mass @ start - force, rows(start) - target
    return jax.lax.fori_loop(0, legged.iterations, newton, carry)[0]


def _line_search(weight, excess, along, level, bend) -> jax.Array:
    """How much of a step to take: float32[], where the cost's slope along it is 0.

    The slope ``level + share bend + sum of weight min(0, excess + share along) along`` rises and is
    linear between the shares at which a constraint sets in or ends.
    """

    def slope(share):
        pressed = jnp.minimum(excess + share[:, None] * along, 0)
        return level + share * bend + pressed @ (weight * along)

    turns = jnp.where(weight * excess * along < 0, -excess / jnp.where(along == 0, 1, along), 0)
    below = slope(turns) <= 0
    low = jnp.max(jnp.where(below, turns, 0))
    high = jnp.min(jnp.where(below, jnp.inf, turns))
    between = jnp.where(jnp.isinf(high), low + 1, (low + high) / 2)
    pull = jnp.where(excess + between * along < 0, weight, 0.0) * along
    return -(level + pull @ excess) / (bend + pull @ along + TINY)


def accelerate(legged: Legged, model: mjx.Model, touch, qpos, qvel, ctrl, push, start) -> jax.Array:
    """Accelerations of a state: float32[nv].

    Args:
      touch: function of a `mjx.Data` with bodies and geoms in place to `Contacts`.
      push: float32[3], force on the torso's origin along the world's axes, in N.
    """
    # GPUs would otherwise multiply matrices with ten bits.
    with jax.default_matmul_precision("highest"):
        return _accelerate(legged, model, touch, qpos, qvel, ctrl, push, start)


def _accelerate(legged, model, touch, qpos, qvel, ctrl, push, start):
    data = legged.data.replace(qpos=qpos, qvel=qvel, ctrl=ctrl)
    data = mjx.com_pos(model, mjx.kinematics(model, data))
    data = mjx.transmission(model, mjx.crb(model, data))
    data = mjx.fwd_actuation(model, mjx.fwd_velocity(model, data))
    force = data.qfrc_passive - data.qfrc_bias + data.qfrc_actuator
    # A free joint's first three forces are those on its body's origin.
    force = force.at[:3].add(push)
    contacts = nearest(touch(data), legged.contacts)
    constraints = constrain(legged, model, data, contacts)
    return solve(legged, data._impl.M, force, constraints, start)


def simulate(
    legged: Legged,
    model: mjx.Model,
    touch,
    state: State,
    ctrl: jax.Array,
    push: jax.Array,
    substeps: int,
) -> State:
    """Hold a control for a few timesteps of the model, by the Runge-Kutta method of order 4.

    Args:
      legged: what to step.
      model: `legged.model`, some of its leaves replaced.
      touch: see `accelerate`.
      state: where to start.
      ctrl: float32[nu].
      push: see `accelerate`.
      substeps: how many timesteps.
    """
    dt = legged.host.opt.timestep

    def timestep(_, state):
        def stage(carry, weights):
            qpos, qvel, acc, velocity, acceleration, _ = carry
            further, weight = weights
            acc = accelerate(legged, model, touch, qpos, qvel, ctrl, push, acc)
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

    return jax.lax.fori_loop(0, substeps, timestep, state)


def integrate(qpos: jax.Array, qvel: jax.Array, time) -> jax.Array:
    """Positions after moving at a constant velocity: float32[nq], the quaternion normalized."""
    w, v = qpos[3], qpos[4:7]
    turn = qvel[3:6] * time / 2
    half = jnp.sqrt(jnp.maximum(turn @ turn, TINY**2))
    c, s = jnp.cos(half), jnp.sin(half) / half * turn
    quat = jnp.append(w * c - v @ s, w * s + c * v + jnp.cross(v, s))
    quat /= jnp.linalg.norm(quat)
    return jnp.concatenate([qpos[:3] + qvel[:3] * time, quat, qpos[7:] + qvel[6:] * time])


def lightness(host: mujoco.MjModel, body: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What MuJoCo's compiler derives from a model's inertia, as a function of one body's mass.

    The inertia matrix is affine in that mass, so that one change of coordinates makes it diagonal
    whatever the mass. Constraints give way in proportion to these numbers.

    Returns:
      ``rise`` float[nv], how each coordinate's inertia grows with the mass, and each coordinate's
      share float[nbody, nv] in ``body_invweight0[:, 0]`` and float[nv, nv] in ``dof_invweight0``.
    """
    base, more = (_inertia(host, body, factor) for factor in (1, 2))
    rise, modes = scipy.linalg.eigh((more - base) / host.body_mass[body], base)
    data = mujoco.MjData(host)
    mujoco.mj_forward(host, data)
    bodies, jacobian = np.zeros((host.nbody, host.nv)), np.zeros((3, host.nv))
    for i in range(1, host.nbody):
        mujoco.mj_jacBodyCom(host, data, jacobian, None, i)
        bodies[i] = np.mean((jacobian @ modes) ** 2, axis=0)
    dofs = modes**2
    # The root's three translations count alike, and so do its three rotations.
    dofs[:3], dofs[3:6] = dofs[:3].mean(0), dofs[3:6].mean(0)
    return rise, bodies, dofs


def weights(lightness: tuple[np.ndarray, ...], extra: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``body_invweight0[:, 0]`` and ``dof_invweight0`` with so much more mass in kg."""
    rise, bodies, dofs = (jnp.asarray(part, jnp.float32) for part in lightness)
    light = 1 / (1 + extra * rise)
    return bodies @ light, dofs @ light


def _inertia(host: mujoco.MjModel, body: int, factor: float) -> np.ndarray:
    """The inertia matrix at rest, a body being so much heavier: float[nv, nv]."""
    host = copy.copy(host)
    host.body_mass[body] *= factor
    host.body_inertia[body] *= factor
    data = mujoco.MjData(host)
    mujoco.mj_forward(host, data)
    matrix = np.zeros((host.nv, host.nv))
    for row, unit in zip(matrix, np.eye(host.nv)):
        mujoco.mj_mulM(host, data, row, unit)
    return matrix
