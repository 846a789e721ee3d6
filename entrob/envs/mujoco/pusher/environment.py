"""Pusher: an arm pushes a puck over a table to a goal, on a straight way that blocks may bar.

The twin of Gymnasium's Pusher-v5 with the three blocks of the paper (Fig. 1), which are part of
the model and are switched, moved and resized by params. Lengths are in meters, angles in radians.
"""

import operator
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from entrob.envs.environment import Environment
from entrob.envs.forces import Disturbance, through_params
from entrob.envs.mujoco import physics
from entrob.envs.mujoco.pusher import chain, chain_step, portal
from entrob.envs.mujoco.pusher import contacts as touch
from entrob.errors import EntrobError, unknown
from entrob.ranges import FINITE, NOT_NEGATIVE, POSITIVE, Range

ARM = [
    *("r_shoulder_pan_joint", "r_shoulder_lift_joint", "r_upper_arm_roll_joint"),
    *("r_elbow_flex_joint", "r_forearm_roll_joint", "r_wrist_flex_joint", "r_wrist_roll_joint"),
]
SLIDES = ["obj_slidey", "obj_slidex"]
FINGERS = ["palm", "finger_l", "finger_r"]
BLOCKS = ["block0", "block1", "block2"]
# Timesteps of the model (10 ms) per step of the environment.
FRAME_SKIP = 5
# The paper's start (B.3) in the slides' order, y before x, from where the model has the puck.
PAPER_START = np.array([-0.3, 0.2], np.float32)
# Gymnasium draws the start from a rectangle until it is this far from the goal.
START_LOW, START_HIGH = np.array([-0.3, -0.2], np.float32), np.array([0.0, 0.2], np.float32)
START_CLEAR = 0.17
START_SPEED = 0.005
# Drawn at once, the first that is free is taken; all miss with probability 1e-13 without blocks.
TRIES = 32
# Where Gymnasium's flat goal lies: a little over the table.
GOAL_HEIGHT = -0.323
# Where a block stands that is off, in meters to the side.
AWAY = 100.0
# Nearer than this a block and the goal may touch.
SLACK = 1e-6


class _Contacts(NamedTuple):
    """What differs between versions of MuJoCo.

    Attributes:
      armature: the share of the slides' armature by which contacts of the puck are stiffer.
      mix: a pair's margin, from those of both geoms.
      finger_puck: see `physics.Pairs.touch`.
      block_puck: likewise.
    """

    armature: float
    mix: Callable
    finger_puck: Callable
    block_puck: Callable


CONTACTS = {
    "mujoco2": _Contacts(1.0, max, portal.capsule_cylinder, portal.box_cylinder),
    "mujoco3": _Contacts(0.0, operator.add, touch.capsule_cylinder, touch.box_puck),
}


@struct.dataclass
class PusherState(environment.EnvState):
    """The arm, the puck and what is seen of them.

    Attributes:
      time: int32[], steps since the episode began.
      qpos: float32[9], angles of the arm's joints, then the puck's slides along y and x.
      qvel: float32[9], their velocities.
      warmstart: float32[9], their last accelerations, where the solver starts.
      tip: float32[3], the finger tips' middle, as seen: at the last timestep's beginning.
      puck: float32[3], the puck's center, seen likewise.
    """

    time: jax.Array
    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    tip: jax.Array
    puck: jax.Array


@struct.dataclass(kw_only=True)
class PusherParams(environment.EnvParams):
    """The task and the model; every field is a traced leaf.

    Attributes:
      goal_pos: float32[2], (x, y) of the goal.
      fixed_start: bool[], begin at the paper's start, the puck at (0.65, -0.35) and all at rest;
        otherwise at Gymnasium's, drawn at least 0.17 from the goal, and off the blocks.
      block_pos: float32[3, 2], (x, y) of the blocks' centers.
      block_size: float32[3, 2], half of the blocks' extents along x and y.
      block_on: float32[], whether the blocks stand.
      joint_damping: float32[7], of the arm's joints in N m s/rad.
      joint_range: float32[7, 2], least and largest angle of the arm's joints.
      puck_mass: float32[], in kg. Nearly all of the puck's inertia is its slides' armature of
        0.04 kg, which stays.
      contact_armature: float32[], in kg: contacts of the puck give way in inverse proportion to
        puck_mass + contact_armature. The slides' armature in the paper's MuJoCo, 0 since 3.0.
      puck_friction: float32[], the table's drag on the puck per speed, in N s/m: the damping of its
        slides.
      puck_force: float32[2], a force that pushes the puck along x and y, in N.
      actuator_gain: float32[7], torque per unit of action, in N m.
      near_weight: float32[], reward lost per meter between tip and puck.
      dist_weight: float32[], reward lost per meter between puck and goal.
      control_weight: float32[], reward lost per squared action; Gymnasium's is 0.1, the paper's 0.
      success_radius: float32[], how near the goal the puck must be.
      max_steps_in_episode: int32[], truncation.
    """

    goal_pos: Annotated[jax.Array, FINITE]
    fixed_start: jax.Array
    block_pos: Annotated[jax.Array, FINITE]
    block_size: Annotated[jax.Array, NOT_NEGATIVE]
    block_on: Annotated[jax.Array, Range(0, 1, whole=True)]
    joint_damping: Annotated[jax.Array, NOT_NEGATIVE]
    joint_range: Annotated[jax.Array, FINITE]
    puck_mass: Annotated[jax.Array, POSITIVE]
    contact_armature: Annotated[jax.Array, NOT_NEGATIVE]
    puck_friction: Annotated[jax.Array, NOT_NEGATIVE]
    puck_force: Annotated[jax.Array, FINITE]
    actuator_gain: Annotated[jax.Array, FINITE]
    near_weight: Annotated[jax.Array, FINITE]
    dist_weight: Annotated[jax.Array, FINITE]
    control_weight: Annotated[jax.Array, FINITE]
    success_radius: Annotated[jax.Array, POSITIVE]
    max_steps_in_episode: jax.Array | int = 100


class Pusher(Environment):
    """A seven-joint arm that pushes a puck to a goal (Gymnasium's Pusher-v5).

    Observation: float32[23]: the arm's seven angles and velocities, then the positions of tip, puck
    and goal, three each. As in Gymnasium, positions are those at the beginning of the step's last
    timestep, 10 ms older than the angles. Blocks are not observed.
    Action: float32[7] in -2..2, torques.
    Reward: ``-near_weight |tip - puck| - dist_weight |puck - goal| - control_weight |action|²``, of
    the observed positions.
    Termination: never; success, the puck within `success_radius` of the goal, is for evaluation.
    Truncation: after `max_steps_in_episode` steps.

    On a CPU this runs twice as fast, and compiles in half the time, in programs compiled with
    ``compiler_options=entrob.compiling.compiler_options()``: XLA otherwise splits small operations
    among threads. To use several cores, give each a shard of the copies or a process.

    Args:
      model: the model, as `physics.load` takes it, with the names of ours.
      contacts: ``"mujoco2"``, contacts as the paper had them, or ``"mujoco3"``, as MuJoCo has them
        today: those of the puck are softer by mass / (mass + armature) = 1/5,000, so that fingers
        pass through it. See contacts.md beside this file.
      iterations: Newton steps of the constraint solver per timestep; more than 4 change nothing.

    Raises:
      EntrobError: the model does not load, or lacks a body, joint or geom; unknown contacts.
    """

    #: The paper reports whether an episode ever succeeds.
    ends_at_success = True
    fps = 20  # a step takes 50 ms
    #: What an adversary may do; against the table's drag 0.1 N move the puck at 0.2 m/s.
    disturbance = Disturbance((0.1, 0.1), "force on the puck (N)", through_params("puck_force"))

    def __init__(self, model: str = "pusher.xml", contacts: str = "mujoco2", iterations: int = 4):
        if contacts not in CONTACTS:
            raise unknown("contacts", contacts, CONTACTS)
        host = physics.load(model)
        joints = physics.ids(host, "joint", ARM + SLIDES)
        if not np.array_equal(joints, np.arange(host.njnt)):
            raise EntrobError(f"model {model!r}: joints must be {', '.join(ARM + SLIDES)}, in turn")
        era = CONTACTS[contacts]
        touching = [
            physics.pairs(host, touch.plane_capsule, ["table"], FINGERS, era.mix),
            physics.pairs(host, era.finger_puck, FINGERS, ["puck"], era.mix),
            physics.pairs(host, touch.box_capsule, BLOCKS, FINGERS, era.mix),
            physics.pairs(host, era.block_puck, BLOCKS, ["puck"], era.mix),
        ]
        self._blocks = physics.ids(host, "geom", BLOCKS)
        self._armature = era.armature * host.dof_armature[len(ARM)]
        self._tip, self._puck = physics.ids(host, "body", ["tips_arm", "object"])
        self.chain = chain.build(host, touching, self._blocks, (self._tip, self._puck), iterations)
        # Every episode begins with the arm at 0, so where tip and puck are then is known here.
        self._rest = self.chain.bodies[[self._tip, self._puck], :, 0]

    @property
    def name(self) -> str:
        return "Pusher"

    @property
    def num_actions(self) -> int:
        return len(ARM)

    @property
    def default_params(self) -> PusherParams:
        host, arm, blocks = self.chain.host, slice(len(ARM)), self._blocks
        nominal = {
            "goal_pos": [0.45, -0.05],
            "fixed_start": True,
            "block_pos": host.geom_pos[blocks, :2],
            "block_size": host.geom_size[blocks, :2],
            "block_on": 0.0,
            "joint_damping": host.dof_damping[arm],
            "joint_range": host.jnt_range[arm],
            "puck_mass": host.body_mass[self._puck],
            "contact_armature": self._armature,
            "puck_friction": host.dof_damping[len(ARM)],
            "puck_force": [0.0, 0.0],
            "actuator_gain": host.actuator_gainprm[:, 0],
            "near_weight": 0.5,
            "dist_weight": 1.0,
            "control_weight": 0.0,
            "success_radius": 0.1,
        }
        nominal = {name: np.asarray(value) for name, value in nominal.items()}
        return PusherParams(
            **{
                name: jnp.asarray(value, value.dtype if value.dtype == bool else jnp.float32)
                for name, value in nominal.items()
            },
            max_steps_in_episode=jnp.array(100, jnp.int32),
        )

    def action_space(self, params: PusherParams | None = None) -> spaces.Box:
        return spaces.Box(-2.0, 2.0, (len(ARM),))

    def observation_space(self, params: PusherParams | None = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (23,))

    def reset_env(self, key: jax.Array, params: PusherParams) -> tuple[jax.Array, PusherState]:
        """Begin an episode: (observation float32[23], state)."""
        slides, speed = self._draw_start(key, params)
        slides = jnp.where(params.fixed_start, PAPER_START, slides)
        speed = jnp.where(params.fixed_start, 0.0, speed)
        state = PusherState(
            time=jnp.zeros((), jnp.int32),
            qpos=jnp.concatenate([jnp.zeros(len(ARM)), slides]),
            qvel=jnp.concatenate([speed, jnp.zeros(len(SLIDES))]),
            warmstart=jnp.zeros(len(ARM) + len(SLIDES)),
            tip=jnp.asarray(self._rest[0]),
            puck=self._rest[1] + jnp.append(slides[::-1], 0.0),
        )
        return self.get_obs(state, params), state

    def _draw_start(self, key: jax.Array, params: PusherParams) -> tuple[jax.Array, jax.Array]:
        """Gymnasium's start, off the blocks: the slides float32[2], the arm's velocities [7]."""
        key_slides, key_speed = jax.random.split(key)
        slides = jax.random.uniform(key_slides, (TRIES, 2), minval=START_LOW, maxval=START_HIGH)
        puck = self._rest[1][:2] + slides[:, ::-1]
        clear = jnp.linalg.norm(puck - params.goal_pos, axis=-1) > START_CLEAR
        off = _gaps(puck[:, None], params).min(-1) > self.puck_radius
        free = clear & (off | (params.block_on == 0))
        speed = jax.random.uniform(key_speed, (len(ARM),), minval=-START_SPEED, maxval=START_SPEED)
        # The first one that is free; if none is, the first.
        return slides[jnp.argmax(free)], speed

    def step_env(
        self, key: jax.Array, state: PusherState, action: jax.Array, params: PusherParams
    ) -> tuple[jax.Array, PusherState, jax.Array, jax.Array, dict[str, Any]]:
        """Five timesteps: (observation, state, reward float32[], terminated bool[], info)."""
        before = physics.State(state.qpos, state.qvel, state.warmstart)
        knobs = self._knobs(params)
        after, (tip, puck) = chain_step.simulate(self.chain, knobs, before, action, FRAME_SKIP)
        state = PusherState(state.time + 1, after.qpos, after.qvel, after.warmstart, tip, puck)
        near = jnp.linalg.norm(state.puck - state.tip)
        dist = jnp.linalg.norm(state.puck - self._goal(params))
        reward = -params.near_weight * near - params.dist_weight * dist
        reward -= params.control_weight * jnp.sum(jnp.square(action))
        return self.get_obs(state, params), state, reward, jnp.zeros((), bool), {}

    def _knobs(self, params: PusherParams) -> chain.Knobs:
        # Blocks that are off stand where nothing meets them.
        away = jnp.where(params.block_on > 0, 0.0, AWAY) * np.array([1.0, 0.0], np.float32)
        height, half_height = self.chain.host.geom_pos[:, 2:], self.chain.host.geom_size[:, 2:]
        drag = jnp.stack([params.puck_friction] * len(SLIDES))
        return chain.Knobs(
            damping=jnp.concatenate([params.joint_damping, drag]),
            limits=params.joint_range,
            gain=params.actuator_gain,
            puck_mass=params.puck_mass,
            contact_armature=params.contact_armature,
            place=jnp.concatenate([params.block_pos + away, height[self._blocks]], 1),
            size=jnp.concatenate([params.block_size, half_height[self._blocks]], 1),
            # The slides are y before x.
            push=params.puck_force[::-1],
        )

    def _goal(self, params: PusherParams) -> jax.Array:
        return jnp.append(params.goal_pos, GOAL_HEIGHT)

    def get_obs(self, state: PusherState, params: PusherParams, key=None) -> jax.Array:
        """What Gymnasium's Pusher-v5 observes: float32[23]."""
        arm = state.qpos[: len(ARM)], state.qvel[: len(ARM)]
        return jnp.concatenate([*arm, state.tip, state.puck, self._goal(params)])

    def is_success(self, state: PusherState, params: PusherParams) -> jax.Array:
        """Whether the puck is within `success_radius` of the goal: bool[]."""
        return self.goal_distance(state, params) < params.success_radius

    def goal_distance(self, state: PusherState, params: PusherParams) -> jax.Array:
        """From the puck's center to the goal's, in meters: float32[]."""
        return jnp.linalg.norm(state.puck[:2] - params.goal_pos)

    def entropy_features(self, state: PusherState, params: PusherParams) -> jax.Array:
        """What state entropy is measured on (paper, B.3): the puck's (x, y), float32[2]."""
        return state.puck[:2]

    def trace(self, state: PusherState) -> jax.Array:
        """What is drawn of an episode: the puck's (x, y), float32[2]."""
        return state.puck[:2]

    @property
    def puck_radius(self) -> float:
        """The puck's radius in meters."""
        geom = self.chain.host.body_geomadr[self._puck]
        return float(self.chain.host.geom_size[geom, 0])

    def pictures(self, params: PusherParams, states: PusherState) -> np.ndarray:
        """The table from above, drawn for each state: uint8[T, 360, 480, 3]."""
        from entrob.envs.mujoco.render import draw_episode  # draws this class

        return draw_episode(self, params, states)

    def scene(self, params: PusherParams) -> dict[str, Any]:
        """What stands on the table, for plots.

        Returns:
          ``blocks`` float[n, 4], (x, y, half extent along x, along y) of those that stand;
          ``goal`` (x, y); ``radius``, that of success.
        """
        blocks = np.concatenate([params.block_pos, params.block_size], axis=-1)
        return {
            "blocks": blocks if params.block_on > 0 else blocks[:0],
            "goal": (float(params.goal_pos[0]), float(params.goal_pos[1])),
            "radius": float(params.success_radius),
        }

    def check_params(self, params: PusherParams) -> None:
        """Raise `EntrobError` unless the params describe a task that can be played."""
        super().check_params(params)
        low, high = np.asarray(params.joint_range).T
        if not np.all(low < high):
            raise EntrobError("joint_range must rise from its first number to its second")
        if params.block_on == 0:
            return
        inside = jnp.abs(params.goal_pos - params.block_pos) < params.block_size - SLACK
        start = self._rest[1][:2] + PAPER_START[::-1]
        on_start = (_gaps(start, params) < self.puck_radius) & params.fixed_start
        for what, overlaps in {"the goal": inside.all(-1), "the puck's start": on_start}.items():
            if overlaps.any():
                raise EntrobError(f"block {int(np.argmax(overlaps))} overlaps {what}")


def _gaps(point: jax.Array, params: PusherParams) -> jax.Array:
    """Distance from points [..., 1, 2] or [2] to each block, 0 inside: float[..., 3]."""
    beyond = jnp.abs(point - params.block_pos) - params.block_size
    return jnp.linalg.norm(jnp.maximum(beyond, 0.0), axis=-1)
