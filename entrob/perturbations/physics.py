"""Perturbations of bodies and forces, for Pusher and Ant.

Pusher's params have `block_pos`, `block_size` (half extents) and `goal_pos` float32[..., 2], (x, y)
on the table, and `block_on`; Ant's have `wall_height` and `torso_mass`. Lengths are in meters,
everything else is a fraction of what the model has, so that 0 is the model. Sources: the paper's
Appendix B.3 and B.4, and what its authors prepared without reporting it (joint damping and range).
"""

import jax
import jax.numpy as jnp

from entrob.envs.widening import Params
from entrob.perturbations.base import perturbation

TABLE = ("block_pos", "block_size", "block_on", "goal_pos")
#: Angles tried for a goal that no block covers.
TRIES = 32
#: Angle of every arm joint when an episode begins, in radians.
START = 0.0
LEGS = 4


def _room(params: Params, points: jax.Array) -> jax.Array:
    """By what each block's size can be multiplied until a point is on its edge: float[..., B]."""
    offset = jnp.abs(points[..., None, :] - params.block_pos)
    return jnp.max(offset / params.block_size, axis=-1)


@perturbation(
    "wall",
    category="routes",
    unit="block width (paper's = 1)",
    high=2,
    paper=1,
    instances_distinct=False,
    requires=TABLE,
)
def wall(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pusher: three blocks on the straight way, `magnitude` times as wide as the paper's 3 cm.

    A block that would cover the goal ends at it. The puck's fixed start is 8 cm off the widest
    block; whether a drawn start is free is the environment's business.
    """
    scale = jnp.minimum(magnitude, _room(params, params.goal_pos))
    return params.replace(
        block_size=params.block_size * scale[:, None], block_on=jnp.ones_like(params.block_on)
    )


@perturbation(
    "goal_shift",
    category="shifts",
    unit="goal radius (m)",
    high=0.2,
    paper=0.15,
    requires=TABLE,
)
def goal_shift(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pusher: the goal uniform on the circle of radius `magnitude` meters around the nominal one.

    With one key the goal is in the same direction at every radius. Directions in which a block that
    stands would cover the goal are drawn again.
    """
    angle = jax.random.uniform(key, (TRIES,), maxval=2 * jnp.pi)
    goals = params.goal_pos + magnitude * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    free = (params.block_on == 0) | (_room(params, goals) >= 1).all(-1)
    # The first one that is free; if none is, the first.
    return params.replace(goal_pos=goals[jnp.argmax(free)])


@perturbation(
    "joint_damping",
    unit="damping added (fraction)",
    high=9,
    category="dynamics",
    instances_distinct=False,
    requires=("joint_damping",),
)
def joint_damping(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pusher: every arm joint is damped `1 + magnitude` times as much.

    The model's damping is 1 N m s/rad in the two shoulder joints and 0.1 in the other five. The
    paper's authors prepared 0.5: for those five it is magnitude 4; a fraction, unlike one value for
    all, never makes the shoulder looser.
    """
    return params.replace(joint_damping=params.joint_damping * (1 + magnitude))


@perturbation(
    "joint_range",
    unit="joint range lost (fraction)",
    high=0.5,
    category="dynamics",
    instances_distinct=False,
    requires=("joint_range",),
)
def joint_range(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pusher: the range of every arm joint loses the fraction `magnitude`, half at either end.

    An end stops short of the angle 0 at which episodes begin: the elbow and the wrist, which begin
    at the upper end of their ranges, keep that end. The paper's authors prepared 0.05 to 0.2.
    """
    low, high = params.joint_range[..., 0], params.joint_range[..., 1]
    cut = magnitude * (high - low) / 2
    ends = [jnp.clip(START, low, low + cut), jnp.clip(START, high - cut, high)]
    return params.replace(joint_range=jnp.stack(ends, -1))


@perturbation(
    "puck_mass",
    unit="puck inertia added (fraction)",
    high=4,
    category="dynamics",
    instances_distinct=False,
    requires=("puck_mass", "contact_armature"),
)
def puck_mass(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Pusher: the puck has `1 + magnitude` times its inertia, and contacts as much stiffer.

    The puck itself has 8 mg and is kept in motion by the 40 g of its slides' armature: what is
    added to its mass is a fraction of both. Where contacts leave the armature out, as since MuJoCo
    3.0, it is a fraction of the mass alone, which only contacts feel.
    """
    inertia = params.puck_mass + params.contact_armature
    return params.replace(puck_mass=params.puck_mass + magnitude * inertia)


@perturbation(
    "actuator_gain",
    unit="gain lost (fraction)",
    category="dynamics",
    instances_distinct=False,
    requires=("actuator_gain",),
)
def actuator_gain(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Every actuator loses the fraction `magnitude` of its gain; 1 is a limp body."""
    return params.replace(actuator_gain=params.actuator_gain * (1 - magnitude))


@perturbation(
    "hurdle",
    category="routes",
    unit="hurdle height (m)",
    high=0.6,
    paper=0.3,
    instances_distinct=False,
    requires=("wall_height",),
)
def hurdle(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Ant: a wall across the track, `magnitude` meters high, that the ant does not observe."""
    return params.replace(wall_height=jnp.maximum(params.wall_height, magnitude))


@perturbation(
    "leg_failure",
    unit="gain lost in one leg (fraction)",
    category="dynamics",
    requires=("actuator_gain", "torso_mass"),
)
def leg_failure(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Ant: the hip and the ankle of one random leg lose the fraction `magnitude` of their gain."""
    # The model's actuators come leg by leg, hip before ankle.
    leg = jnp.arange(LEGS) == jax.random.randint(key, (), 0, LEGS)
    left = 1 - magnitude * jnp.repeat(leg, 2)
    return params.replace(actuator_gain=params.actuator_gain * left)


@perturbation(
    "friction",
    unit="friction lost (fraction)",
    high=0.9,
    category="dynamics",
    instances_distinct=False,
    requires=("friction",),
)
def friction(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Ant: the floor loses the fraction `magnitude` of its friction."""
    return params.replace(friction=params.friction * (1 - magnitude))


@perturbation(
    "torso_mass",
    unit="torso mass added (fraction)",
    high=2,
    category="dynamics",
    instances_distinct=False,
    requires=("torso_mass",),
)
def torso_mass(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Ant: the torso is `1 + magnitude` times as heavy."""
    return params.replace(torso_mass=params.torso_mass * (1 + magnitude))
