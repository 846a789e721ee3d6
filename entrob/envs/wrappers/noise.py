"""Noise of actions, observations and rewards: one wrapper for any gymnax environment.

`with_noise` returns an environment of a subclass of the given one's class, whose params have one
more field, `noise`, and whose state has two more, `executed_action` and `chosen_actions`.
Everything else is inherited. What happens to an action, in this order: it is delayed, blurred,
replaced by a random one (slip), or by the last executed one (sticky action).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from entrob.envs.environment import Environment, adopted
from entrob.envs.widening import Params, narrow, widen, wrap
from entrob.errors import EntrobError

# Folded into the step's key to draw noise: far from the small numbers that an environment's own
# `split` uses, since fold_in(key, 0) is split(key)[0].
SALT = 0x6E6F6973
#: The longest delay of an action, in steps.
MAX_DELAY = 3


@struct.dataclass
class Noise:
    """How strong each noise is, 0 = off; every field float32[], but those of single numbers seen.

    Attributes:
      slip: probability in 0..1 that the action is replaced by a uniformly random one.
      sticky_action: probability in 0..1 that the last executed action is executed again instead;
        never at the first step of an episode (Machado et al. 2018, JAIR 61, section 5.2). It acts
        last, so it is the probability of a repetition whatever the other noises.
      observation_dropout: probability in 0..1 that a whole observation, also the first one of an
        episode, reads as zeros.
      reward_noise: standard deviation of a Gaussian added to every reward.
      observation_noise: standard deviations of Gaussians added to the numbers of every observation,
        also of the first one of an episode, independently, before any normalization: a tree like
        the observation, float32 of a leaf's shape, float32[] for a leaf of whole numbers, which has
        only dropout. None where all leaves are such.
      observation_spread: how much each of these numbers varies in the nominal environment, their
        standard deviation over the steps of a trained policy, a tree like `observation_noise`; what
        noise is measured in. None where the environment does not declare it.
      action_noise: standard deviation of a Gaussian added to every number of the action, as a
        fraction of half its range; the sum is clipped to the bounds. None where the action is no
        box with finite bounds.
      action_delay: the action executed is the one chosen that many steps ago, 0..3 in whole steps.
        Before that it is the first one of the episode, as if it had been chosen all along: some
        environments have no action that does nothing.
    """

    slip: jax.Array | float = 0.0
    sticky_action: jax.Array | float = 0.0
    observation_dropout: jax.Array | float = 0.0
    reward_noise: jax.Array | float = 0.0
    observation_noise: Any = 0.0
    observation_spread: Any = None
    action_noise: jax.Array | float | None = 0.0
    action_delay: jax.Array | float = 0.0


def _off(env: Any, params: Params) -> Noise:
    """The noise of an environment, all off; None for what cannot act on it."""
    off = jnp.zeros((), jnp.float32)
    # Not the observation space: two of gymnax's declare another dtype than they return.
    seen = jax.eval_shape(env.reset_env, jax.random.key(0), params)[0]
    blurred = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape) if _continuous(leaf) else off, seen)
    if not any(map(_continuous, jax.tree.leaves(seen))):
        blurred = None
    space = env.action_space(params)
    bounded = isinstance(space, spaces.Box) and np.isfinite([space.low, space.high]).all()
    spread = env.observation_spread
    if spread is not None:
        try:
            like = lambda zero, leaf: jnp.broadcast_to(jnp.asarray(leaf, jnp.float32), zero.shape)
            spread = jax.tree.map(like, blurred, spread)
        except ValueError:
            raise EntrobError(
                f"{env.name}: observation_spread must be like an observation"
            ) from None
    return Noise(off, off, off, off, blurred, spread, off if bounded else None, off)


def _continuous(leaf: Any) -> bool:
    """Whether an array, or what stands for it, is not of whole numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


class NoisyEnvironment(Environment):
    """What `with_noise` puts before an environment's own class.

    With all noise at zero, `reset` and `step` compute what the wrapped environment computes under
    the same keys, bit for bit; only integer rewards become float32. Two compiled programs may still
    round a continuous system differently (gymnax's Pendulum and Swimmer, by an ulp a step).
    """

    #: Noise makes transitions random, so no table holds them.
    finite = False

    @property
    def few_views(self) -> bool:  # type: ignore[override]
        """Where no number of an observation can be noisy, only dropout changes what is seen."""
        return super().finite and self._noise_off.observation_noise is None

    @property
    def default_params(self) -> Params:
        return widen(super().default_params, "Noisy", noise=self._noise_off)

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, Any]:
        noise = params.noise
        observation, state = super().reset_env(key, params)
        hidden = jax.random.uniform(jax.random.fold_in(key, SALT))
        error = jax.random.fold_in(key, SALT + 1)
        observation = _blur(error, observation, noise.observation_noise)
        observation = _drop(observation, hidden < noise.observation_dropout)
        return observation, widen(state, "Noisy", **self._no_actions(params))

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Params
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        noise, action = params.noise, jnp.asarray(action)
        space = self.action_space(params)
        key_events, key_action, key_reward = jax.random.split(jax.random.fold_in(key, SALT), 3)
        key_error, key_blur = jax.random.split(jax.random.fold_in(key, SALT + 1))
        slipped, stuck, hidden = jax.random.uniform(key_events, (3,))

        def like_action(other):  # agents may leave out an axis of length 1
            return other.reshape(action.shape).astype(action.dtype)

        def like_space(other):
            return other.reshape(space.shape).astype(space.dtype)

        chosen = like_space(action)
        earlier = jnp.where(state.time > 0, state.chosen_actions, chosen)
        chosen_actions = jnp.concatenate([chosen[None], earlier])
        delay = jnp.round(noise.action_delay).astype(jnp.int32)
        action = jnp.where(delay > 0, like_action(chosen_actions[delay]), action)
        if noise.action_noise is not None:
            std = noise.action_noise * (space.high - space.low) / 2
            moved = like_space(action) + std * jax.random.normal(key_error, space.shape)
            moved = like_action(jnp.clip(moved, space.low, space.high))
            action = jnp.where(noise.action_noise > 0, moved, action)
        random_action = like_action(space.sample(key_action))
        action = jnp.where(slipped < noise.slip, random_action, action)
        stuck = (stuck < noise.sticky_action) & (state.time > 0)
        action = jnp.where(stuck, like_action(state.executed_action), action)

        observation, state, reward, terminated, info = super().step_env(
            key, narrow(state), action, params
        )
        observation = _blur(key_blur, observation, noise.observation_noise)
        observation = _drop(observation, hidden < noise.observation_dropout)
        error = noise.reward_noise * jax.random.normal(key_reward)
        # Adding 0 would still turn -0.0 into 0.0.
        reward = jnp.where(noise.reward_noise > 0, reward + error, reward)
        state = widen(
            state,
            "Noisy",
            executed_action=like_space(action),
            chosen_actions=chosen_actions[:MAX_DELAY],
        )
        return observation, state, reward, terminated, info

    def states(self, params: Params) -> Any:
        """As in the wrapped environment, without actions."""
        native = super().states(params)
        repeat = lambda x: jnp.broadcast_to(x, (len(native.time), *x.shape))
        none = jax.tree.map(repeat, self._no_actions(params))
        return widen(native, "Noisy", **none)

    def _no_actions(self, params: Params) -> dict[str, jax.Array]:
        """What a state holds before the first action; no step reads it."""
        space = self.action_space(params)
        return {
            "executed_action": jnp.zeros(space.shape, space.dtype),
            "chosen_actions": jnp.zeros((MAX_DELAY, *space.shape), space.dtype),
        }


@functools.cache
def _noisy_class(native: type) -> type:
    return type(f"Noisy{native.__name__}", (NoisyEnvironment, native), {})


def _drop(observation: Any, hidden: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(hidden, jnp.zeros_like(leaf), leaf), observation)


def _blur(key: jax.Array, observation: Any, stds: Any) -> Any:
    """The observation with Gaussian noise on every leaf that is not of whole numbers."""
    if stds is None:
        return observation
    leaves, tree = jax.tree.flatten(observation)

    def blur(key, leaf, std):
        if not _continuous(leaf):
            return leaf
        error = std * jax.random.normal(key, leaf.shape)
        return jnp.where(std > 0, (leaf + error).astype(leaf.dtype), leaf)

    keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))
    return jax.tree.map(blur, keys, observation, stds)


def with_noise(env: Any, params: Params) -> tuple[Any, Params]:
    """Let noise act on an environment.

    A subclass and not a wrapper object: see `entrob.envs.widening`.

    Args:
      env: any gymnax `Environment` with one `Discrete` or `Box` action; it is not changed. Its
        field ``observation_spread``, if it has one, is a tree like an observation: see `Noise`.
      params: its `EnvParams`.

    Returns:
      ``(env, params)``: the environment with noise, and the params with `noise: Noise`, all off.
      A pair that has noise already is returned as it is.

    Raises:
      EntrobError: ``observation_spread`` is not like an observation.
    """
    if isinstance(env, NoisyEnvironment) and hasattr(params, "noise"):
        return env, params
    env = adopted(env)
    off = _off(env, params)
    native: type = type(env)
    noisy = wrap(env, _noisy_class(native), _noise_off=off)
    return noisy, widen(params, "Noisy", noise=off)
