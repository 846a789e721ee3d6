"""Perturbations that set a field of ``params.noise``: of actions, observations and rewards.

They act on environments made with ``entrob.make(id, noise=True)``, see
`entrob.envs.wrappers.noise`.
"""

import jax
import jax.numpy as jnp

from entrob.envs.widening import Params
from entrob.envs.wrappers.noise import MAX_DELAY
from entrob.perturbations.base import perturbation


def _set(params: Params, **noise: jax.Array) -> Params:
    return params.replace(noise=params.noise.replace(**noise))


def _either(p: jax.Array, q: jax.Array) -> jax.Array:
    """The probability of at least one of two independent events; exactly p at q = 0."""
    return p + (1 - p) * q


@perturbation(
    "slip",
    unit="slip probability",
    category="action noise",
    instances_distinct=False,
    requires=("noise",),
)
def slip(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the action is replaced by a uniformly random one."""
    return _set(params, slip=_either(params.noise.slip, magnitude))


@perturbation(
    "sticky_action",
    unit="repeat probability",
    category="action noise",
    instances_distinct=False,
    requires=("noise",),
)
def sticky_action(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the last executed action is executed again."""
    return _set(params, sticky_action=_either(params.noise.sticky_action, magnitude))


@perturbation(
    "observation_dropout",
    unit="dropout probability",
    category="observation noise",
    instances_distinct=False,
    requires=("noise",),
)
def observation_dropout(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the whole observation reads as zeros."""
    return _set(params, observation_dropout=_either(params.noise.observation_dropout, magnitude))


@perturbation(
    "reward_noise",
    unit="noise of rewards (std)",
    high=10,
    category="observation noise",
    instances_distinct=False,
    training_only=True,
    requires=("noise",),
)
def reward_noise(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A Gaussian with standard deviation `magnitude` is added to every reward, in training only."""
    return _set(params, reward_noise=jnp.hypot(params.noise.reward_noise, magnitude))


@perturbation(
    "observation_noise",
    unit="noise of observations (spreads)",
    high=3,
    category="observation noise",
    instances_distinct=False,
    requires=("noise", "noise.observation_noise", "noise.observation_spread"),
)
def observation_noise(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A Gaussian of `magnitude` times its nominal spread is added to every number observed."""
    noise = params.noise
    add = lambda std, spread: jnp.hypot(std, magnitude * spread)
    blurred = jax.tree.map(add, noise.observation_noise, noise.observation_spread)
    return _set(params, observation_noise=blurred)


@perturbation(
    "observation_noise_raw",
    unit="noise of observations (std)",
    category="observation noise",
    instances_distinct=False,
    requires=("noise", "noise.observation_noise"),
)
def observation_noise_raw(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A Gaussian of std `magnitude`, in a number's own unit, is added to every number observed.

    So 0.01 is a centimeter of a position, 0.6 degrees of an angle.
    """
    noise = params.noise.observation_noise
    return _set(params, observation_noise=jax.tree.map(lambda x: jnp.hypot(x, magnitude), noise))


@perturbation(
    "action_noise",
    unit="noise of actions (std, half ranges)",
    category="action noise",
    instances_distinct=False,
    requires=("noise", "noise.action_noise"),
)
def action_noise(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A Gaussian of `magnitude` times half the range is added to the action, within its bounds."""
    return _set(params, action_noise=jnp.hypot(params.noise.action_noise, magnitude))


@perturbation(
    "action_delay",
    unit="delay of actions (steps)",
    high=MAX_DELAY,
    category="action noise",
    integer=True,
    instances_distinct=False,
    requires=("noise",),
)
def action_delay(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """The action executed is the one chosen `magnitude` steps ago; delays add up to at most 3."""
    delay = jnp.minimum(params.noise.action_delay + magnitude, MAX_DELAY)
    return _set(params, action_delay=delay)
