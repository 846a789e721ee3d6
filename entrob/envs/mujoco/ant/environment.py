"""Ant: four legs run along the x axis, over a wall that they cannot see.

The twin of Gymnasium's Ant-v5 with the reward of the paper (Appendix B.4) and the wall of its
Figure 6, which is part of the model and is moved and resized by params. Lengths are in meters.
"""

import copy
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from entrob.envs.environment import Environment
from entrob.envs.forces import Disturbance, through_params
from entrob.envs.mujoco import physics
from entrob.envs.mujoco.ant import legged, legged_step
from entrob.errors import EntrobError
from entrob.ranges import FINITE, NOT_NEGATIVE, POSITIVE

TORSO, FLOOR, WALL = "torso", "floor", "wall"
LIMBS = [f"{part}{leg}" for leg in (1, 2, 3, 4) for part in ("thigh", "shin", "foot")]
# Timesteps of the model (10 ms) per step of the environment.
FRAME_SKIP = 5


@struct.dataclass
class AntState(environment.EnvState):
    """The body.

    Attributes:
      time: int32[], steps since the episode began.
      qpos: float32[15], the torso's position and orientation quaternion, then the angles of hip and
        ankle, leg by leg.
      qvel: float32[14], their velocities; the torso's angular one in its own frame.
      warmstart: float32[14], the last accelerations, where the solver starts.
      seen: float32[3], the torso's position as Gymnasium reads it for the reward: where the last
        timestep evaluated forces last, not where it ended.
    """

    time: jax.Array
    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    seen: jax.Array


@struct.dataclass(kw_only=True)
class AntParams(environment.EnvParams):
    """The task and the model; every field is a traced leaf.

    Attributes:
      wall_pos: float32[], x of the wall's near face; 4 leaves three meters between the feet and
        the wall, room to fall into a gait, and is passed early in an episode by an ant that runs.
      wall_depth: float32[], from there to its far face; the paper's is 1. It has no ends.
      wall_height: float32[], 0 is no wall; the paper's is 0.3.
      friction: float32[], of the floor, as a multiple of the model's.
      torso_mass: float32[], in kg, spread as in the model.
      actuator_gain: float32[8], as multiples of the model's 150 N m per unit of action; hip and
        ankle of a leg follow each other.
      torso_force: float32[3], a force on the torso's center along x, y and z, in N.
      forward_weight: float32[], reward per m/s.
      reset_noise: float32[], how far an episode's start is off the model's: uniform in every
        position within this, normal in every velocity with this deviation.
      max_steps_in_episode: int32[], truncation.
    """

    wall_pos: Annotated[jax.Array, FINITE]
    wall_depth: Annotated[jax.Array, POSITIVE]
    wall_height: Annotated[jax.Array, NOT_NEGATIVE]
    friction: Annotated[jax.Array, POSITIVE]
    torso_mass: Annotated[jax.Array, POSITIVE]
    actuator_gain: Annotated[jax.Array, FINITE]
    torso_force: Annotated[jax.Array, FINITE]
    forward_weight: Annotated[jax.Array, FINITE]
    reset_noise: Annotated[jax.Array, NOT_NEGATIVE]
    max_steps_in_episode: jax.Array | int = 1000


class Ant(Environment):
    """A torso on four legs that runs forward (Gymnasium's Ant-v5).

    Observation: float32[27]: the torso's height and orientation quaternion, the eight angles, then
    the torso's linear and angular and the angles' velocities. By default Gymnasium's adds 78
    contact forces, which the paper does not mention and which would show the wall to who touches
    it: they are left out.
    Action: float32[8] in -1..1, torques of hip and ankle of the legs, in Gymnasium's order.
    Reward: ``forward_weight`` times the torso's velocity along x, and nothing else (paper, B.4).
    Termination: never; success, the torso's center past the wall's far face, is for evaluation.
    Truncation: after `max_steps_in_episode` steps of 50 ms.

    On a CPU, compile what steps one with
    ``compiler_options=entrob.compiling.compiler_options()``.

    Args:
      model: the model, as `physics.load` takes it, with the names of ours.
      contacts: how many contacts are felt at once, the nearest.
      iterations: Newton iterations of the constraint solver.
      margins_add_up: contacts count below the sum of both geoms' margins, 2 cm, as in MuJoCo since
        3.5; otherwise below the larger, 1 cm, as in the paper's. See contacts.md beside this file.

    Raises:
      EntrobError: the model does not load, lacks a body or geom, or is not legged; a number is not
        positive.
    """

    #: The paper reports whether an episode ever succeeds.
    ends_at_success = True
    #: What an adversary may do; 10 N are a little more than the ant's weight.
    disturbance = Disturbance((10.0,) * 3, "force on the torso (N)", through_params("torso_force"))
    #: What `trace` gives.
    trace_axes = ("x", "z")
    fps = 20  # a step takes 50 ms

    def __init__(
        self,
        model: str = "ant.xml",
        contacts: int = 8,
        iterations: int = 5,
        margins_add_up: bool = False,
    ):
        if contacts < 1 or iterations < 1:
            raise EntrobError("contacts and iterations must be positive")
        host = physics.load(model)
        self._torso = int(physics.ids(host, "body", [TORSO])[0])
        ball, self._floor, self._wall = physics.ids(host, "geom", [TORSO, FLOOR, WALL])
        # All geoms have the same.
        margin = (2 if margins_add_up else 1) * float(host.geom_margin[ball])
        limbs = physics.ids(host, "geom", LIMBS).reshape(-1, 3)
        self.legged = legged.build(host, limbs, ball, self._wall, margin, contacts, iterations)

    @property
    def name(self) -> str:
        return "Ant"

    @property
    def num_actions(self) -> int:
        return self.legged.host.nu

    @property
    def default_params(self) -> AntParams:
        host = self.legged.host
        nominal = {
            "wall_pos": 4.0,
            "wall_depth": 1.0,
            "wall_height": 0.0,
            "friction": 1.0,
            "torso_mass": host.body_mass[self._torso],
            "actuator_gain": host.actuator_gainprm[:, 0],
            "torso_force": np.zeros(3),
            "forward_weight": 1.0,
            "reset_noise": 0.1,
        }
        return AntParams(
            **{name: jnp.asarray(value, jnp.float32) for name, value in nominal.items()},
            max_steps_in_episode=jnp.array(1000, jnp.int32),
        )

    def action_space(self, params: AntParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.num_actions,))

    def observation_space(self, params: AntParams | None = None) -> spaces.Box:
        host = self.legged.host
        return spaces.Box(-jnp.inf, jnp.inf, (host.nq - 2 + host.nv,))

    def reset_env(self, key: jax.Array, params: AntParams) -> tuple[jax.Array, AntState]:
        """Begin an episode: (observation float32[27], state)."""
        host = self.legged.host
        key_pos, key_vel = jax.random.split(key)
        off = jax.random.uniform(key_pos, (host.nq,), minval=-1.0)
        # As in Gymnasium the quaternion is left as drawn; the first timestep normalizes it.
        qpos = jnp.asarray(host.qpos0, jnp.float32) + params.reset_noise * off
        qvel = params.reset_noise * jax.random.normal(key_vel, (host.nv,))
        state = AntState(
            time=jnp.zeros((), jnp.int32),
            qpos=qpos,
            qvel=qvel,
            warmstart=jnp.zeros(host.nv),
            seen=qpos[:3],
        )
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: AntState, action: jax.Array, params: AntParams
    ) -> tuple[jax.Array, AntState, jax.Array, jax.Array, dict[str, Any]]:
        """Five timesteps: (observation, state, reward float32[], terminated bool[], info)."""
        before = legged_step.State(state.qpos, state.qvel, state.warmstart, state.seen)
        after = legged_step.simulate(self.legged, self.knobs(params), before, action, FRAME_SKIP)
        velocity = (after.seen[0] - before.seen[0]) / self.dt
        state = AntState(time=state.time + 1, **after._asdict())
        reward = params.forward_weight * velocity
        return self.get_obs(state, params), state, reward, jnp.zeros((), bool), {}

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return self.legged.host.opt.timestep * FRAME_SKIP

    def knobs(self, params: AntParams) -> legged.Knobs:
        """What the params make of the model."""
        return legged.Knobs(
            root_mass=params.torso_mass,
            gain=params.actuator_gain,
            friction=params.friction * self.legged.host.geom_friction[self._floor, 0],
            push=params.torso_force,
            wall_pos=params.wall_pos,
            wall_depth=params.wall_depth,
            wall_height=params.wall_height,
        )

    def get_obs(self, state: AntState, params: AntParams, key=None) -> jax.Array:
        """What Gymnasium's Ant-v5 observes without contact forces: float32[27]."""
        return jnp.concatenate([state.qpos[2:], state.qvel])

    def is_success(self, state: AntState, params: AntParams) -> jax.Array:
        """Whether the torso's center is past the wall's far face, or its place: bool[]."""
        return state.qpos[0] > params.wall_pos + params.wall_depth

    def entropy_features(self, state: AntState, params: AntParams) -> jax.Array:
        """What state entropy is measured on (paper, B.4): height, orientation, float32[5].

        Of the two unit quaternions of an orientation the one with a positive real part: the
        estimate goes by distances, and they are as far apart as can be.
        """
        quat = state.qpos[3:7] / jnp.linalg.norm(state.qpos[3:7])
        return jnp.append(state.qpos[2], jnp.where(quat[0] < 0, -quat, quat))

    def trace(self, state: AntState) -> jax.Array:
        """What is drawn of an episode: the torso's (x, z), float32[2]."""
        return state.qpos[:3:2]

    def pictures(self, params: AntParams, states: AntState) -> np.ndarray:
        """The ant on its track from the side, drawn for each state: uint8[T, 360, 480, 3]."""
        from entrob.envs.mujoco.render import draw_episode  # draws this class

        return draw_episode(self, params, states)

    def scene(self, params: AntParams) -> dict[str, Any]:
        """What stands on the track, seen from the side, for plots.

        Returns:
          ``blocks`` float[n, 4], (x, z, half extent along x, along z) of the wall if there is one;
          ``goal`` None and ``radius`` 0: there is no point to reach.
        """
        depth, height = float(params.wall_depth), float(params.wall_height)
        block = [float(params.wall_pos) + depth / 2, height / 2, depth / 2, height / 2]
        blocks = np.array([block] if height > 0 else [], np.float32).reshape(-1, 4)
        return {"blocks": blocks, "goal": None, "radius": 0.0}

    def world(self, params: AntParams) -> mujoco.MjModel:
        """The model that the params describe, wall and all, for C MuJoCo: to step or to draw it."""
        host = copy.copy(self.legged.host)
        height = float(params.wall_height)
        half = host.geom_size[self._wall]
        half[0], half[2] = float(params.wall_depth) / 2, height / 2
        host.geom_pos[self._wall] = float(params.wall_pos) + half[0], 0, half[2]
        host.geom_rbound[self._wall] = np.linalg.norm(half)
        host.geom_conaffinity[self._wall] = height > 0
        host.geom_rgba[self._wall, 3] = height > 0
        # The tree that finds near geoms was made for the wall of the file.
        host.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        host.geom_friction[self._floor, 0] *= float(params.friction)
        host.body_inertia[self._torso] *= float(params.torso_mass) / host.body_mass[self._torso]
        host.body_mass[self._torso] = float(params.torso_mass)
        host.actuator_gainprm[:, 0] = params.actuator_gain
        mujoco.mj_setConst(host, mujoco.MjData(host))
        return host

    def check_params(self, params: AntParams) -> None:
        """Raise `EntrobError` unless the params describe a task that can be played."""
        super().check_params(params)
        # However the body is turned, it is within its reach, and a little off in x.
        clear = self.legged.reach + np.asarray(params.reset_noise)
        if not np.all(np.asarray(params.wall_pos) > clear):
            raise EntrobError(f"the wall overlaps the start: wall_pos must be above {clear:.2f}")
