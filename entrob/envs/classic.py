"""gymnax's classic control and PointRobot, with every knob a traced leaf and a notion of success.

Each is a thin subclass: with its nominal params it steps as gymnax's does, bit for bit. What is
added are params that gymnax hard-codes, `is_success`, and `entropy_features`, in which positions
and velocities are in units of their bounds where these exist, so that none drowns the others.
``observation_spread`` is what `entrob.evaluation.spread.observation_spread` finds of policies that
PPO trains without a regularizer, by the settings of benchmarks/leaderboard.toml on calibration
seeds (the median over two to four), to two digits: what noise of observations is measured in.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments.classic_control import acrobot, cartpole, mountain_car, pendulum
from gymnax.environments.misc import point_robot

from entrob.envs.environment import Environment
from entrob.ranges import FINITE, NOT_NEGATIVE, POSITIVE, SHARE, Range, declare

#: m/s², what gymnax's Acrobot is written for.
ACROBOT_GRAVITY = 9.8

# What gymnax's params may be so that its equations mean something.
declare(
    cartpole.EnvParams,
    gravity=NOT_NEGATIVE, masscart=POSITIVE, masspole=POSITIVE, length=POSITIVE,
    force_mag=NOT_NEGATIVE, tau=POSITIVE, x_threshold=POSITIVE, theta_threshold_radians=POSITIVE,
)  # fmt: skip
declare(
    acrobot.EnvParams,
    available_torque=FINITE, dt=POSITIVE, torque_noise_max=NOT_NEGATIVE,
    link_length_1=POSITIVE, link_length_2=POSITIVE, link_mass_1=POSITIVE, link_mass_2=POSITIVE,
    link_com_pos_1=POSITIVE, link_com_pos_2=POSITIVE, link_moi=POSITIVE,
    max_vel_1=POSITIVE, max_vel_2=POSITIVE,
)  # fmt: skip
declare(
    mountain_car.EnvParams,
    min_position=FINITE, max_position=FINITE, max_speed=POSITIVE, goal_position=FINITE,
    goal_velocity=FINITE, force=NOT_NEGATIVE, gravity=NOT_NEGATIVE,
)  # fmt: skip
declare(
    pendulum.EnvParams,
    max_speed=POSITIVE, max_torque=POSITIVE, dt=POSITIVE, g=NOT_NEGATIVE, m=POSITIVE, l=POSITIVE,
)  # fmt: skip
declare(
    point_robot.EnvParams,
    max_force=POSITIVE, circle_radius=POSITIVE, goal_radius=POSITIVE,
)  # fmt: skip


def traced(params: Any) -> Any:
    """Params whose every leaf is an array, so that they can be stacked."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)


def consistent(params: cartpole.EnvParams) -> cartpole.EnvParams:
    """CartPole's params with what gymnax keeps beside the masses and the length following them."""
    return params.replace(
        total_mass=params.masscart + params.masspole,
        polemass_length=params.masspole * params.length,
    )


class CartPole(cartpole.CartPole, Environment):
    """gymnax's CartPole; success is a pole that stands until the time limit.

    `total_mass` and `polemass_length` of the params given are not read: they follow from the
    masses and the length.
    """

    #: Position in m, velocity, angle in rad, angular velocity.
    observation_spread = np.array([0.14, 0.15, 0.013, 0.2], np.float32)

    @property
    def default_params(self) -> cartpole.EnvParams:
        return traced(super().default_params)

    def step_env(self, key: jax.Array, state: Any, action: jax.Array, params: Any):
        return super().step_env(key, state, action, consistent(params))

    def is_success(self, state: Any, params: Any) -> jax.Array:
        """Whether the episode lasted to its limit without a fall: bool[]."""
        return self.is_truncated(state, params) & ~self.is_terminated(state, params)

    def entropy_features(self, state: Any, params: Any) -> jax.Array:
        """Position and angle in units of their limits, velocities in m/s and rad/s: float32[4]."""
        x, theta = state.x / params.x_threshold, state.theta / params.theta_threshold_radians
        return jnp.stack([x, state.x_dot, theta, state.theta_dot])


@struct.dataclass
class AcrobotParams(acrobot.EnvParams):
    """gymnax's, and what it hard-codes.

    Attributes:
      gravity: float32[], m/s².
      goal_height: float32[], height of the tip above the first joint, in links, beyond
        which an episode ends.
    """

    gravity: Annotated[jax.Array | float, POSITIVE] = ACROBOT_GRAVITY
    goal_height: Annotated[jax.Array | float, Range(-2, 2, below=True)] = 1.0


class Acrobot(acrobot.Acrobot, Environment):
    """gymnax's Acrobot at any gravity and goal height; success is reaching that height."""

    #: Cosine and sine of both angles, angular velocities in rad/s.
    observation_spread = np.array([0.51, 0.65, 0.7, 0.68, 2.4, 3.7], np.float32)

    @property
    def default_params(self) -> AcrobotParams:
        return traced(AcrobotParams())

    def step_env(self, key: jax.Array, state: Any, action: jax.Array, params: AcrobotParams):
        # In a time that runs √k times as fast, k times the gravity is the nominal one, velocities
        # are divided by √k and torques by k: the equations of motion are homogeneous.
        k = params.gravity / ACROBOT_GRAVITY
        rate = jnp.sqrt(k)
        nominal = params.replace(
            dt=params.dt * rate,
            available_torque=params.available_torque / k,
            torque_noise_max=params.torque_noise_max / k,
            max_vel_1=params.max_vel_1 / rate,
            max_vel_2=params.max_vel_2 / rate,
        )
        slower = state.replace(
            velocity_1=state.velocity_1 / rate, velocity_2=state.velocity_2 / rate
        )
        _, state, _, _, info = super().step_env(key, slower, action, nominal)
        state = state.replace(
            velocity_1=state.velocity_1 * rate, velocity_2=state.velocity_2 * rate
        )
        reached = self.is_terminated(state, params)
        info = {**info, "discount": self.discount(state, params)}
        return self.get_obs(state), state, -1.0 * (1 - reached), reached, info

    def is_terminated(self, state: Any, params: AcrobotParams) -> jax.Array:
        """Whether the tip is above the goal height: bool[]."""
        height = -jnp.cos(state.joint_angle1) - jnp.cos(state.joint_angle2 + state.joint_angle1)
        return height > params.goal_height

    def is_success(self, state: Any, params: AcrobotParams) -> jax.Array:
        """Whether the tip is above the goal height: bool[]."""
        return self.is_terminated(state, params)

    def entropy_features(self, state: Any, params: AcrobotParams) -> jax.Array:
        """Cosine and sine of both angles, velocities in units of their limits: float32[6]."""
        limits = jnp.stack([params.max_vel_1, params.max_vel_2])
        seen = self.get_obs(state)
        return jnp.concatenate([seen[:4], seen[4:] / limits])


class MountainCar(mountain_car.MountainCar, Environment):
    """gymnax's MountainCar; success is reaching the goal."""

    #: Position and velocity, which have no units.
    observation_spread = np.array([0.42, 0.034], np.float32)

    @property
    def default_params(self) -> mountain_car.EnvParams:
        return traced(super().default_params)

    def is_success(self, state: Any, params: Any) -> jax.Array:
        """Whether the car is at the goal: bool[]."""
        return self.is_terminated(state, params)

    def entropy_features(self, state: Any, params: Any) -> jax.Array:
        """Position, and velocity in units of its limit: float32[2]."""
        return jnp.stack([state.position, state.velocity / params.max_speed])


class Pendulum(pendulum.Pendulum, Environment):
    """gymnax's Pendulum, which has no notion of success."""

    #: Cosine and sine of the angle, angular velocity in rad/s.
    observation_spread = np.array([0.51, 0.32, 1.7], np.float32)

    @property
    def default_params(self) -> pendulum.EnvParams:
        return traced(super().default_params)

    def entropy_features(self, state: Any, params: Any) -> jax.Array:
        """Cosine and sine of the angle, velocity in units of its limit: float32[3]."""
        angle = [jnp.cos(state.theta), jnp.sin(state.theta)]
        return jnp.stack([*angle, state.theta_dot / params.max_speed])


@struct.dataclass
class PointRobotParams(point_robot.EnvParams):
    """gymnax's, and where on their circle goals lie.

    Attributes:
      goal_rotation: float32[], radians by which the half circle that goals are drawn from is turned
        to the left; at 0 it is the upper one.
      goal_spread: float32[], the share of that half circle, around its middle, that they
        are drawn from. At 0 the goal is fixed, so that a policy without memory can know it.
    """

    goal_rotation: Annotated[jax.Array | float, FINITE] = 0.0
    goal_spread: Annotated[jax.Array | float, SHARE] = 1.0


class PointRobot(point_robot.PointRobot, Environment):
    """gymnax's PointRobot; success is having been at the goal, which is drawn and not observed."""

    #: Position (x, y), the last reward and action (x, y), and the time, with the goal fixed.
    observation_spread = np.array([0.26, 0.25, 0.33, 0.067, 0.026, 0.58], np.float32)

    @property
    def default_params(self) -> PointRobotParams:
        return traced(PointRobotParams())

    def reset_env(self, key: jax.Array, params: PointRobotParams):
        observation, state = super().reset_env(key, params)
        x, y = state.goal
        # Turned from where gymnax draws it, by exactly nothing with the nominal params.
        from_middle = jnp.arctan2(y, x) - jnp.pi / 2
        turn = params.goal_rotation + (params.goal_spread - 1) * from_middle
        cos, sin = jnp.cos(turn), jnp.sin(turn)
        goal = jnp.stack([cos * x - sin * y, sin * x + cos * y])
        return observation, state.replace(goal=goal)

    def is_success(self, state: Any, params: PointRobotParams) -> jax.Array:
        """Whether a goal has been reached in this episode: bool[]."""
        return state.goals_reached > 0

    def entropy_features(self, state: Any, params: PointRobotParams) -> jax.Array:
        """The position, without the last action and the time that are observed: float32[2]."""
        return state.pos
