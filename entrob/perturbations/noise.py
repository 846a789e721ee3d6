"""Diffuse perturbations: one wrapper that adds noise to any gymnax environment.

`with_noise` returns an environment of a subclass of the given one's class, whose params have one
more field, `noise`, and whose state has one more, `executed_action`. Everything else is inherited.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from entrob.perturbations.base import Params, perturbation

# Folded into the step's key to draw noise: far from the small numbers that an environment's own
# `split` uses, since fold_in(key, 0) is split(key)[0].
SALT = 0x6E6F6973


@struct.dataclass
class Noise:
    """How strong each noise is; every field float32[], 0 = off.

    Attributes:
      slip: probability in 0..1 that the action is replaced by a uniformly random one.
      sticky_action: probability in 0..1 that the last executed action is executed again instead;
        never at the first step of an episode (Machado et al. 2018, JAIR 61, section 5.2). It acts
        after the slip, so it is the probability of a repetition whatever the slip.
      observation_dropout: probability in 0..1 that a whole observation, also the first one of an
        episode, reads as zeros.
      reward_noise: standard deviation of a Gaussian added to every reward.
    """

    slip: jax.Array = 0.0
    sticky_action: jax.Array = 0.0
    observation_dropout: jax.Array = 0.0
    reward_noise: jax.Array = 0.0


@functools.cache
def _noisy_params(native: type) -> type:
    """The params class with a field `noise`."""

    @struct.dataclass
    class NoisyParams(native):
        noise: Noise = None

    return NoisyParams


@functools.cache
def _noisy_state(native: type) -> type:
    """The state class with a field `executed_action`.

    Not called `last_action`: four gymnax environments have a field of that name.
    """

    @struct.dataclass
    class NoisyState(native):
        executed_action: jax.Array = None

    return NoisyState


def _fields(cls: type, value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}


def _add_noise(params: Params) -> Params:
    """The params with noise that is off."""
    off = jnp.zeros((), jnp.float32)
    noise = Noise(off, off, off, off)
    return _noisy_params(type(params))(**_fields(type(params), params), noise=noise)


def _widen(state: Any, executed_action: jax.Array) -> Any:
    native = type(state)
    return _noisy_state(native)(**_fields(native, state), executed_action=executed_action)


def _narrow(state: Any) -> Any:
    native = type(state).__base__
    return native(**_fields(native, state))


class NoisyEnvironment:
    """What `with_noise` puts before an environment's own class.

    With all noise at zero, `reset` and `step` compute what the wrapped environment computes under
    the same keys, bit for bit; only integer rewards become float32. Two compiled programs may still
    round a continuous system differently (gymnax's Pendulum and Swimmer, by an ulp a step).
    """

    #: Noise makes observations and transitions random, so no table holds them.
    finite = False

    @property
    def default_params(self) -> Params:
        return _add_noise(super().default_params)

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, Any]:
        observation, state = super().reset_env(key, params)
        hidden = jax.random.uniform(jax.random.fold_in(key, SALT))
        observation = _drop(observation, hidden < params.noise.observation_dropout)
        return observation, _widen(state, self._no_action(params))

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Params
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        noise, action = params.noise, jnp.asarray(action)
        space = self.action_space(params)
        key_events, key_action, key_reward = jax.random.split(jax.random.fold_in(key, SALT), 3)
        slipped, stuck, hidden = jax.random.uniform(key_events, (3,))

        def like_action(other):  # agents may leave out an axis of length 1
            return other.reshape(action.shape).astype(action.dtype)

        random_action = like_action(space.sample(key_action))
        action = jnp.where(slipped < noise.slip, random_action, action)
        stuck = (stuck < noise.sticky_action) & (state.time > 0)
        action = jnp.where(stuck, like_action(state.executed_action), action)

        observation, state, reward, terminated, info = super().step_env(
            key, _narrow(state), action, params
        )
        observation = _drop(observation, hidden < noise.observation_dropout)
        error = noise.reward_noise * jax.random.normal(key_reward)
        # Adding 0 would still turn -0.0 into 0.0.
        reward = jnp.where(noise.reward_noise > 0, reward + error, reward)
        executed = action.reshape(space.shape).astype(space.dtype)
        return observation, _widen(state, executed), reward, terminated, info

    @property
    def states(self):
        """As in the wrapped environment; no attribute, by `AttributeError`, if it has none."""
        native_states = super().states

        def states(params):
            native = native_states(params)
            none = self._no_action(params)
            return _widen(native, jnp.broadcast_to(none, (len(native.time), *none.shape)))

        return states

    def _no_action(self, params: Params) -> jax.Array:
        """A placeholder before the first action; no step reads it."""
        space = self.action_space(params)
        return jnp.zeros(space.shape, space.dtype)


@functools.cache
def _noisy_class(native: type) -> type:
    return type(f"Noisy{native.__name__}", (NoisyEnvironment, native), {})


def _drop(observation: Any, hidden: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(hidden, jnp.zeros_like(leaf), leaf), observation)


def with_noise(env: Any, params: Params) -> tuple[Any, Params]:
    """Let the diffuse perturbations act on an environment.

    A subclass and not a wrapper object: whatever the environment offers beyond gymnax's interface,
    and a `step` of its own, keep working, and so does `isinstance`.

    Args:
      env: any gymnax `Environment` with one `Discrete` or bounded `Box` action; it is not changed.
      params: its `EnvParams`.

    Returns:
      ``(env, params)``: the environment with noise, and the params with `noise: Noise`, all off.
      A pair that has noise already is returned as it is.
    """
    if isinstance(env, NoisyEnvironment) and hasattr(params, "noise"):
        return env, params
    noisy = object.__new__(_noisy_class(type(env)))
    vars(noisy).update(vars(env))
    return noisy, _add_noise(params)


def _set(params: Params, **noise: jax.Array) -> Params:
    return params.replace(noise=params.noise.replace(**noise))


def _either(p: jax.Array, q: jax.Array) -> jax.Array:
    """The probability of at least one of two independent events; exactly p at q = 0."""
    return p + (1 - p) * q


@perturbation("slip", kind="diffuse", instances_distinct=False, requires=("noise",))
def slip(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the action is replaced by a uniformly random one."""
    return _set(params, slip=_either(params.noise.slip, magnitude))


@perturbation("sticky_action", kind="diffuse", instances_distinct=False, requires=("noise",))
def sticky_action(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the last executed action is executed again."""
    return _set(params, sticky_action=_either(params.noise.sticky_action, magnitude))


@perturbation("observation_dropout", kind="diffuse", instances_distinct=False, requires=("noise",))
def observation_dropout(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """With probability `magnitude` the whole observation reads as zeros."""
    return _set(params, observation_dropout=_either(params.noise.observation_dropout, magnitude))


@perturbation(
    "reward_noise",
    high=10,
    kind="diffuse",
    instances_distinct=False,
    training_only=True,
    requires=("noise",),
)
def reward_noise(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A Gaussian with standard deviation `magnitude` is added to every reward, in training only."""
    return _set(params, reward_noise=jnp.hypot(params.noise.reward_noise, magnitude))
