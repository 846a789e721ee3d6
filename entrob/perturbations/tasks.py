"""Perturbations of gymnax's tasks: their bodies, forces and goals, and the pace of the games.

`mass`, `length` and `gravity` are multiplied by a factor that is log-uniform between ``1 +
magnitude`` and its inverse, goals are moved by up to `magnitude` to either side: all instances of a
test differ, half of them to either side. The ``_exact`` form of each takes one of the two ends.
Lost force and pace know one direction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from entrob.envs.classic import consistent
from entrob.envs.widening import Params
from entrob.perturbations.base import Category, perturbation, stratum

#: ``(params, by) -> params``, changed by a factor or by a shift.
Change = Callable[[Params, jax.Array], Params]


def _within(key: jax.Array) -> jax.Array:
    """Uniform in -1..1: float32[]."""
    return 2 * stratum(key) - 1


def _end(key: jax.Array) -> jax.Array:
    """-1 or 1: float32[]."""
    return jnp.where(stratum(key) < 0.5, -1.0, 1.0)


def _both_ways(
    name: str,
    category: Category,
    unit: str,
    high: float,
    requires: tuple[str, ...],
    by: Callable[[jax.Array, jax.Array], jax.Array],
    text: tuple[str, str],
) -> Callable[[Change], Change]:
    """Register a change as `name` and as ``name_exact``.

    Args:
      name, category, unit, high, requires: as of a `Perturbation`.
      by: ``(side in -1..1, magnitude) -> by``, what `Change` takes.
      text: what follows the change's docstring in the help of either.
    """

    def register(change: Change) -> Change:
        for suffix, side, more in zip(("", "_exact"), (_within, _end), text, strict=True):

            @perturbation(
                name + suffix,
                category=category,
                unit=unit,
                high=high,
                stratified=True,
                requires=requires,
                doc=f"{(change.__doc__ or '').partition(chr(10))[0].rstrip('.')} {more}.",
            )
            def perturbed(key, params, magnitude, side=side):
                return change(params, by(side(key), magnitude))

        return change

    return register


def _ratio(name: str, high: float, *requires: str) -> Callable[[Change], Change]:
    """Register ``(params, factor) -> params``."""
    text = "log-uniform up to `1 + magnitude` or its inverse", "`1 + magnitude` or its inverse"
    by = lambda side, magnitude: (1 + magnitude) ** side
    return _both_ways(name, "dynamics", "factor - 1, or inverse", high, requires, by, text)


def _shift(unit: str, high: float, *requires: str) -> Callable[[Change], Change]:
    """Register ``(params, distance) -> params`` as a shift of the goal."""
    text = "by up to `magnitude` to either side", "by `magnitude` to either side"
    by = lambda side, magnitude: side * magnitude
    return _both_ways("goal_shift", "shifts", unit, high, requires, by, text)


CARTPOLE, ACROBOT, PENDULUM = ("masspole", "masscart"), ("link_mass_1", "link_moi"), ("g", "m", "l")


def _register_gravity(task: str, high: float, beside: str) -> None:
    """Register `gravity` for the params that call it so, up to `high`."""

    def gravity(params: Params, factor: jax.Array) -> Params:
        return params.replace(gravity=params.gravity * factor)

    gravity.__doc__ = f"{task}: gravity times a factor."
    _ratio("gravity", high, "gravity", beside)(gravity)


_register_gravity("CartPole", 9, "masspole")
_register_gravity("Acrobot", 1, "link_moi")
_register_gravity("MountainCar", 1, "max_speed")


@_ratio("gravity", 1, *PENDULUM)
def pendulum_gravity(params: Params, factor: jax.Array) -> Params:
    """Pendulum: gravity times a factor."""
    return params.replace(g=params.g * factor)


@_ratio("mass", 99, *CARTPOLE)
def pole_mass(params: Params, factor: jax.Array) -> Params:
    """CartPole: the pole's mass times a factor, at 10 the cart's,"""
    return consistent(params.replace(masspole=params.masspole * factor))


@_ratio("mass", 9, *ACROBOT)
def link_mass(params: Params, factor: jax.Array) -> Params:
    """Acrobot: both links' masses and moments of inertia times a factor."""
    return params.replace(
        link_mass_1=params.link_mass_1 * factor,
        link_mass_2=params.link_mass_2 * factor,
        link_moi=params.link_moi * factor,
    )


@_ratio("mass", 1, *PENDULUM)
def pendulum_mass(params: Params, factor: jax.Array) -> Params:
    """Pendulum: its mass times a factor."""
    return params.replace(m=params.m * factor)


@_ratio("length", 9, *CARTPOLE)
def pole_length(params: Params, factor: jax.Array) -> Params:
    """CartPole: the pole's length times a factor."""
    return consistent(params.replace(length=params.length * factor))


@_ratio("length", 1, *ACROBOT)
def link_length(params: Params, factor: jax.Array) -> Params:
    """Acrobot: both links' lengths, not their masses, times a factor.

    Centers of mass move along, moments of inertia go with the square.
    """
    names = ("link_length_1", "link_length_2", "link_com_pos_1", "link_com_pos_2")
    longer = {name: getattr(params, name) * factor for name in names}
    return params.replace(**longer, link_moi=params.link_moi * factor**2)


@_ratio("length", 1, *PENDULUM)
def pendulum_length(params: Params, factor: jax.Array) -> Params:
    """Pendulum: its length, not its mass, times a factor."""
    return params.replace(l=params.l * factor)


def _register_force(task: str, field: str, beside: str, high: float = 0.9) -> None:
    """Register `force` for the params whose strength of action is called `field`, up to `high`."""

    @perturbation(
        "force",
        unit="force lost (fraction)",
        high=high,
        category="dynamics",
        instances_distinct=False,
        requires=(field, beside),
        doc=f"{task}: the strongest action loses the fraction `magnitude` of its strength.",
    )
    def force(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
        return params.replace(**{field: getattr(params, field) * (1 - magnitude)})


_register_force("CartPole", "force_mag", "masspole", 0.99)
_register_force("Acrobot", "available_torque", "link_moi")
_register_force("MountainCar", "force", "goal_position")
_register_force("Pendulum", "max_torque", "g")
_register_force("PointRobot", "max_force", "goal_radius")


@_shift("height of the goal (links)", 0.95, "goal_height")
def goal_height(params: Params, distance: jax.Array) -> Params:
    """Acrobot: the goal higher or lower, in links,"""
    return params.replace(goal_height=params.goal_height + distance)


@_shift("way to the goal (car positions)", 0.09, "goal_position", "max_speed")
def goal_position(params: Params, distance: jax.Array) -> Params:
    """MountainCar: the goal to the right or left; the track ends 0.1 beyond it; moved"""
    return params.replace(goal_position=params.goal_position + distance)


@_shift("turn of the goals (rad)", 3, "goal_rotation")
def goal_rotation(params: Params, distance: jax.Array) -> Params:
    """PointRobot: the half circle of goals turned, in radians,"""
    return params.replace(goal_rotation=params.goal_rotation + distance)


def _register_pace(task: str, name: str, what: str, field: str, beside: str, most: int) -> None:
    """Register a perturbation that takes frames off an interval of a game, which stays above 0."""

    @perturbation(
        name,
        unit="frames fewer in between",
        high=most,
        category="dynamics",
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
    category="dynamics",
    integer=True,
    instances_distinct=False,
    # Asterix has a param of that name too, which its game does not read.
    requires=("shot_cool_down", "enemy_shot_interval"),
)
def reload(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """SpaceInvaders: the cannon takes `magnitude` frames more before it shoots again."""
    frames = params.shot_cool_down + magnitude.astype(params.shot_cool_down.dtype)
    return params.replace(shot_cool_down=frames)
