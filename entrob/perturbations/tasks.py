"""Perturbations of gymnax's tasks: their bodies, forces and goals, and the pace of the games.

`mass`, `length` and `gravity` are multiplied or divided by ``1 + magnitude``, as the key decides,
so that worst case and CVaR tell more from less; lost force and pace know one direction.
"""

import jax
import jax.numpy as jnp

from entrob.envs.classic import consistent
from entrob.perturbations.base import Params, perturbation


def _sign(key: jax.Array) -> jax.Array:
    """-1 or 1: float32[]."""
    return jax.random.rademacher(key, (), jnp.float32)


def _factor(key: jax.Array, magnitude: jax.Array) -> jax.Array:
    """``1 + magnitude`` or its inverse: float32[]."""
    return jnp.where(_sign(key) > 0, 1 + magnitude, 1 / (1 + magnitude))


RATIO = "factor above 1, or its inverse"


@perturbation("gravity", unit=RATIO, kind="dynamics", requires=("gravity",))
def gravity(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """CartPole, Acrobot, MountainCar: gravity times or divided by `1 + magnitude`."""
    return params.replace(gravity=params.gravity * _factor(key, magnitude))


@perturbation("gravity", unit=RATIO, kind="dynamics", requires=("g", "m", "l"))
def pendulum_gravity(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pendulum: gravity times or divided by `1 + magnitude`."""
    return params.replace(g=params.g * _factor(key, magnitude))


@perturbation("mass", unit=RATIO, high=9, kind="dynamics", requires=("masspole", "masscart"))
def pole_mass(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """CartPole: the pole's mass times or divided by `1 + magnitude`; at 9 it is the cart's."""
    return consistent(params.replace(masspole=params.masspole * _factor(key, magnitude)))


@perturbation("mass", unit=RATIO, kind="dynamics", requires=("link_mass_1", "link_moi"))
def link_mass(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Acrobot: both links' masses and moments of inertia times or divided by `1 + magnitude`."""
    factor = _factor(key, magnitude)
    return params.replace(
        link_mass_1=params.link_mass_1 * factor,
        link_mass_2=params.link_mass_2 * factor,
        link_moi=params.link_moi * factor,
    )


@perturbation("mass", unit=RATIO, kind="dynamics", requires=("g", "m", "l"))
def pendulum_mass(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pendulum: its mass times or divided by `1 + magnitude`."""
    return params.replace(m=params.m * _factor(key, magnitude))


@perturbation("length", unit=RATIO, high=3, kind="dynamics", requires=("masspole", "masscart"))
def pole_length(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """CartPole: the pole's length times or divided by `1 + magnitude`."""
    return consistent(params.replace(length=params.length * _factor(key, magnitude)))


@perturbation("length", unit=RATIO, kind="dynamics", requires=("link_mass_1", "link_moi"))
def link_length(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Acrobot: both links' lengths times or divided by `1 + magnitude`, their masses the same.

    Centers of mass move along, moments of inertia go with the square.
    """
    factor = _factor(key, magnitude)
    names = ("link_length_1", "link_length_2", "link_com_pos_1", "link_com_pos_2")
    longer = {name: getattr(params, name) * factor for name in names}
    return params.replace(**longer, link_moi=params.link_moi * factor**2)


@perturbation("length", unit=RATIO, kind="dynamics", requires=("g", "m", "l"))
def pendulum_length(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pendulum: its length times or divided by `1 + magnitude`, its mass the same."""
    return params.replace(l=params.l * _factor(key, magnitude))


def _register_force(task: str, field: str, beside: str) -> None:
    """Register `force` for the params whose strength of action is called `field`."""

    @perturbation(
        "force",
        unit="force lost (fraction)",
        high=0.9,
        kind="dynamics",
        instances_distinct=False,
        requires=(field, beside),
        doc=f"{task}: the strongest action loses the fraction `magnitude` of its strength.",
    )
    def force(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
        return params.replace(**{field: getattr(params, field) * (1 - magnitude)})


_register_force("CartPole", "force_mag", "masspole")
_register_force("Acrobot", "available_torque", "link_moi")
_register_force("MountainCar", "force", "goal_position")
_register_force("Pendulum", "max_torque", "g")
_register_force("PointRobot", "max_force", "goal_radius")


@perturbation("goal_shift", unit="height of the goal (links)", high=0.5, requires=("goal_height",))
def goal_height(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Acrobot: the goal `magnitude` links higher or lower."""
    return params.replace(goal_height=params.goal_height + _sign(key) * magnitude)


@perturbation(
    "goal_shift",
    unit="way to the goal (car positions)",
    high=0.09,
    requires=("goal_position", "max_speed"),
)
def goal_position(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """MountainCar: the goal `magnitude` to the right or left; the track ends 0.1 beyond it."""
    return params.replace(goal_position=params.goal_position + _sign(key) * magnitude)


@perturbation(
    "goal_shift",
    unit="turn of the goals (rad)",
    high=3,
    requires=("goal_rotation",),
)
def goal_rotation(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """PointRobot: the half circle of goals turned by `magnitude` radians to the left or right."""
    return params.replace(goal_rotation=params.goal_rotation + _sign(key) * magnitude)


def _register_pace(task: str, name: str, what: str, field: str, beside: str, most: int) -> None:
    """Register a perturbation that takes frames off an interval of a game, which stays above 0."""

    @perturbation(
        name,
        unit="frames fewer in between",
        high=most,
        kind="dynamics",
        integer=True,
        instances_distinct=False,
        requires=(field, beside),
        doc=f"{task}: {what} come `magnitude` frames sooner after one another.",
    )
    def pace(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
        interval = getattr(params, field)
        sooner = jnp.maximum(interval - magnitude.astype(interval.dtype), 1)
        return params.replace(**{field: sooner})


_register_pace("Asterix", "enemy_speed", "moves", "init_move_interval", "ramp_interval", 4)
_register_pace("Asterix", "enemy_rate", "enemies and gold", "init_spawn_speed", "ramp_interval", 9)
_register_pace(
    "SpaceInvaders", "enemy_speed", "moves", "enemy_move_interval", "enemy_shot_interval", 10
)
_register_pace(
    "SpaceInvaders", "enemy_rate", "bullets", "enemy_shot_interval", "enemy_move_interval", 9
)


@perturbation(
    "reload",
    unit="frames more between shots",
    high=15,
    kind="dynamics",
    integer=True,
    instances_distinct=False,
    # Asterix has a param of that name too, which its game does not read.
    requires=("shot_cool_down", "enemy_shot_interval"),
)
def reload(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """SpaceInvaders: the cannon takes `magnitude` frames more before it shoots again."""
    frames = params.shot_cool_down + magnitude.astype(params.shot_cool_down.dtype)
    return params.replace(shot_cool_down=frames)
