"""How forces act on environments: what another player may exert beside the agent's action.

Rewards are those of the agent's own action; the forces cost nothing. For gymnax's environments
there is a table, `DISTURBANCES`; one of ours has a `disturbance` itself, a `Disturbance`. None
acts before `entrob.envs.wrappers.with_disturbance`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from gymnax.environments.classic_control import (
    acrobot,
    cartpole,
    continuous_mountain_car,
    mountain_car,
    pendulum,
)
from gymnax.environments.misc import point_robot

from entrob.envs.environment import adopted


class Disturbance(NamedTuple):
    """How an environment is disturbed.

    Attributes:
      unit: k positive numbers, what strength 1 is along each axis: about as much as the agent's
        own strongest action does.
      meaning: the axes and their physical units, in words.
      step: ``(step, key, state, action, force float32[k], params)``, where `step` is the
        environment's own ``step_env``, whose five values it returns.
    """

    unit: tuple[float, ...]
    meaning: str
    step: Callable


def through_params(field: str) -> Callable:
    """A `Disturbance.step` that adds the force to a field of the params, of its shape."""

    def disturbed(step, key, state, action, force, params):
        force = getattr(params, field) + force
        return step(key, state, action, params.replace(**{field: force}))

    return disturbed


def _cartpole(step, key, state, action, force, params):
    """Positions move by the velocities at the step's beginning, so only these must be corrected.

    A horizontal force f on the pole's middle, l from its hinge, pushes x by f and turns the angle
    by f l cos θ; accelerations are linear in all forces (Barto, Sutton, Anderson 1983).
    """
    _, after, *rest = step(key, state, action, params)
    on_cart, on_pole = force
    # The environment derives the total from its parts when it steps; the field may be an old one.
    mass, total = params.masspole, params.masscart + params.masspole
    cos, share = jnp.cos(state.theta), mass / total
    push = (on_cart + on_pole) / total
    turn = cos * (on_pole / mass - push) / (params.length * (4 / 3 - share * cos**2))
    push -= share * params.length * turn * cos
    after = after.replace(
        x_dot=after.x_dot + params.tau * push, theta_dot=after.theta_dot + params.tau * turn
    )
    return jnp.stack([after.x, after.x_dot, after.theta, after.theta_dot]), after, *rest


def _pendulum(step, key, state, action, torque, params):
    """The torque's change of speed comes first; the reward is that of the speed before it."""
    gain = 3 / (params.m * params.l**2) * params.dt
    pushed = state.replace(theta_dot=state.theta_dot + gain * torque[0])
    observation, after, _, *rest = step(key, pushed, action, params)
    return observation, after, step(key, state, action, params)[2], *rest


def _mountain_car(step, key, state, action, force, params):
    """The car's velocity adds up gravity and force; here one more force comes first."""
    return step(key, state.replace(velocity=state.velocity + force[0]), action, params)


def _point_robot(step, key, state, action, velocity, params):
    """The robot drifts by the velocity, unless it was at the goal and begins elsewhere."""
    observation, after, *rest = step(key, state, action, params)
    drift = jnp.where(after.goals_reached == state.goals_reached, velocity, 0.0)
    after = after.replace(pos=after.pos + drift)
    return observation.at[:2].set(after.pos), after, *rest


_CAR = Disturbance((0.001,), "force on the car (velocity per step)", _mountain_car)

#: gymnax's environments, and subclasses of them -> `Disturbance`.
DISTURBANCES: dict[type, Disturbance] = {
    cartpole.CartPole: Disturbance(
        (10.0, 1.0), "horizontal forces on the cart and on the pole's middle (N)", _cartpole
    ),
    pendulum.Pendulum: Disturbance((2.0,), "torque (N m)", _pendulum),
    mountain_car.MountainCar: _CAR,
    continuous_mountain_car.ContinuousMountainCar: _CAR,
    acrobot.Acrobot: Disturbance(
        (1.0,), "torque on the second joint (N m)", through_params("available_torque")
    ),
    point_robot.PointRobot: Disturbance(
        (0.1, 0.1), "velocity along x and y (lengths per step)", _point_robot
    ),
}


def disturbance_of(env: Any) -> Disturbance | None:
    """How an environment, wrapped or not, can be disturbed; None if it cannot."""
    listed = (d for cls, d in DISTURBANCES.items() if isinstance(env, cls))
    return adopted(env).disturbance or next(listed, None)
