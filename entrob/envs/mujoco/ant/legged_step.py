"""Stepping a body on legs by the Runge-Kutta method: what MJX does for any model, for this one.

`body` has MuJoCo's smooth dynamics, `constraints` the limits and contacts, `solver` what is
accelerated. All are dense arrays, the copies of the environment along their last axis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.ant import body, constraints, solver
from entrob.envs.mujoco.ant.legged import HINGES, ROOT, Knobs, Legged, Prepared, prepare
from entrob.envs.mujoco.ant.solver import Vector

# Copies that a CPU takes at once: with more, what passes between operations outgrows its caches.
BLOCK = 16
# Stages of the classical Runge-Kutta method: how far the next stage is from the start, in
# timesteps (the last one has no next), and each one's weight.
NEXT = np.array([0.5, 0.5, 1.0, 0.0], np.float32)
WEIGHTS = np.array([1, 2, 2, 1], np.float32) / 6
TINY = 1e-9


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
        held = prepare(legged, knobs, ctrl)
        step = lambda _, state: _timestep(legged, held, state)
        return jax.lax.fori_loop(0, substeps, step, state)

    if jax.default_backend() == "cpu":
        run = dense.in_blocks(run, BLOCK)
    copies = jax.tree.map(lambda x: jnp.asarray(x)[..., None], (knobs, state, ctrl))
    return jax.tree.map(lambda x: x[..., 0], dense.side_by_side(run)(*copies))


def _timestep(legged: Legged, held: Prepared, state: State) -> State:
    dt = legged.host.opt.timestep

    def stage(carry, weights):
        qpos, qvel, acc, velocity, acceleration, _ = carry
        further, weight = weights
        acc = accelerate(legged, held, qpos, qvel, acc)
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
    quat = jnp.concatenate([(w * c - jnp.sum(v * s, 0))[None], w * s + c * v + dense.cross(v, s)])
    quat /= jnp.sqrt(jnp.sum(quat * quat, 0))
    return jnp.concatenate([qpos[:3] + qvel[:3] * time, quat, qpos[7:] + qvel[6:] * time])


def accelerate(legged: Legged, held: Prepared, qpos, qvel, start) -> jax.Array:
    """Accelerations [nv, B] of a state; the solver starts at some."""
    place = body.pose(legged, qpos)
    into = place.turn.swapaxes(0, 1)
    speed = split(into, qvel)
    mass, bias = body.dynamics(legged, held.trunk, place, qvel)
    drag = legged.damping[0] * speed.root, legged.damping[1] * speed.legs
    # A free joint's first three forces are those on its body's origin.
    push = jnp.pad(dense.rotate(into, held.push), [(0, 3), (0, 0)])
    force = Vector(push - bias.root - drag[0], held.torque - bias.legs - drag[1])
    rows = constraints.constrain(legged, held, place, qpos, speed)
    acc = solver.minimize(mass, force, rows, split(into, start), legged.iterations)
    linear = dense.rotate(place.turn, acc.root[:3])
    return jnp.concatenate([linear, acc.root[3:], acc.legs.reshape(-1, linear.shape[-1])])


def split(into: jax.Array, x: jax.Array) -> Vector:
    """From MuJoCo's order and the world's frame [nv, B]."""
    root = jnp.concatenate([dense.rotate(into, x[:3]), x[3:ROOT]])
    return Vector(root, x[ROOT:].reshape(-1, HINGES, x.shape[-1]))
