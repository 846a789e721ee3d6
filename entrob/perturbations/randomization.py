"""Domain randomization: a perturbation that is drawn anew in every episode, for training.

Nothing else in this package lets training see a perturbation. An agent trained so is the oracle
that has seen what the others are tested on; it is tested in the plain environment like they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from entrob.envs.environment import Environment, adopted
from entrob.envs.widening import Params, narrow, widen, wrap
from entrob.errors import EntrobError
from entrob.perturbations.base import check_magnitude, perturb, perturbations

# Folded into the reset's key to draw the perturbation, for the reason that noise has one.
SALT = 0x72616E64
#: What an environment computes from a state and its params.
READERS = (
    "is_truncated",
    "is_terminated",
    "is_terminal",
    "is_success",
    "goal_distance",
    "entropy_features",
    "trace",
    "discount",
    "get_obs",
)


@struct.dataclass
class Range:
    """The range that the magnitude of one perturbation is drawn from.

    Attributes:
      low: float32[], the smallest magnitude.
      high: float32[], the largest one, at least `low`.
    """

    low: jax.Array
    high: jax.Array


@struct.dataclass
class Mixture:
    """Perturbations of which an episode has one.

    Attributes:
      which: int32[C], their places in `RandomizedEnvironment.randomized`.
      magnitude: float32[C].
      weight: float32[C], at least 0; shares in which they are drawn.
    """

    which: jax.Array
    magnitude: jax.Array
    weight: jax.Array


class RandomizedEnvironment(Environment):
    """What `with_randomization` and `with_mixture` put before an environment's own class.

    `reset` draws magnitudes and instances from its key and keeps the perturbed params in the
    state, as `drawn`; steps and everything in `READERS` use them instead of the params given.
    """

    #: Every episode has its own observations and transitions, so no one table holds them.
    finite = False
    draws = True
    #: Names of the perturbations, in the order in which they act.
    randomized: tuple[str, ...]

    @property
    def default_params(self) -> Params:
        return widen(super().default_params, "Randomized", randomization=self._ranges)

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, Any]:
        drawn = self._draw(jax.random.fold_in(key, SALT), params)
        observation, state = super().reset_env(key, drawn)
        return observation, widen(state, "Randomized", drawn=drawn)

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Params
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        drawn = state.drawn
        observation, after, *rest = super().step_env(key, narrow(state), action, drawn)
        return observation, widen(after, "Randomized", drawn=drawn), *rest

    def _draw(self, key: jax.Array, params: Params) -> Params:
        """The nominal params, perturbed; all leaves are arrays, as a state's must be."""
        drawn = narrow(params)
        mixture = params.randomization
        if isinstance(mixture, Mixture):
            cell = jax.random.categorical(key, jnp.log(mixture.weight))
        for position, name in enumerate(self.randomized):
            key_magnitude, key_instance = jax.random.split(jax.random.fold_in(key, position))
            if isinstance(mixture, Mixture):
                here = mixture.which[cell] == position
                magnitude = jnp.where(here, mixture.magnitude[cell], 0.0)
            else:
                whole = perturbations.get(name, drawn).integer
                magnitude = _uniform(key_magnitude, mixture[name], whole)
            drawn = perturb(key_instance, drawn, name, magnitude)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), drawn)


def _uniform(key: jax.Array, ends: Range, whole: bool) -> jax.Array:
    """A magnitude in a range, a whole number if it must be one: float32[]."""
    low, high = ends.low, ends.high
    magnitude = jax.random.uniform(key, minval=low, maxval=high + whole)
    return jnp.clip(jnp.floor(magnitude) if whole else magnitude, low, high)


def _reader(inherited: Callable) -> Callable:
    """A method ``(state, params, ...)`` which, given params, uses the state's instead."""

    @functools.wraps(inherited)
    def method(self, state, *given, **named):
        # The wrapped environment calls it too, with drawn params and states without them.
        if hasattr(state, "drawn"):
            given = (state.drawn, *given[1:]) if given else ()
            named = {**named, "params": state.drawn} if "params" in named else named
        return inherited(self, state, *given, **named)

    return method


@functools.cache
def _randomized_class(native: type, names: tuple[str, ...]) -> type:
    methods = {
        m: _reader(method) for m in READERS if (method := getattr(native, m, None)) is not None
    }
    body = {"randomized": names, **methods}
    return type(f"Randomized{native.__name__}", (RandomizedEnvironment, native), body)


def with_randomization(
    env: Any, params: Params, name: str, low: float, high: float
) -> tuple[Any, Params]:
    """Draw a perturbation's magnitude and instance anew at every reset; for training only.

    Applied to its own result, it adds a perturbation, which acts after the earlier ones.

    Args:
      env: any gymnax `Environment`; it is not changed. For noise, one that has it.
      params: its nominal `EnvParams`.
      name: a registered perturbation that fits them.
      low: smallest magnitude.
      high: largest magnitude. Magnitudes are uniform over [low, high], over its whole numbers
        where the perturbation is `integer`; 0 is the nominal environment.

    Returns:
      ``(env, params)``: the params have one more field, `randomization`, a `Range` by name whose
      `low` and `high` are traced leaves; the state has one more, `drawn`, the perturbed params of
      the episode.

    Raises:
      EntrobError: the name is unknown, does not fit the params or is randomized already, the range
        is empty or not within the perturbation's, or noise was added after randomization.
    """
    env = adopted(env)
    entry = perturbations.get(name, params)
    least, most = (check_magnitude(entry, params, magnitude) for magnitude in (low, high))
    if least > most:
        raise EntrobError(f"cannot draw {name!r} from {least:g} to {most:g}: the range is empty")
    native: type = type(env)
    names, ranges = (), {}
    if "randomized" in vars(native):
        native, names, ranges = native.__bases__[1], env.randomized, params.randomization
        params = narrow(params)
    elif isinstance(env, RandomizedEnvironment):
        raise EntrobError(f"{env.name} must be given noise before it is randomized, not after")
    if name in names:
        raise EntrobError(f"{name!r} is randomized already")
    ranges = {**ranges, name: Range(least, most)}
    randomized = wrap(env, _randomized_class(native, (*names, name)), _ranges=ranges)
    return randomized, widen(params, "Randomized", randomization=ranges)


def with_mixture(
    env: Any, params: Params, cells: Sequence[tuple[str, float]]
) -> tuple[Any, Params]:
    """Draw one of several perturbations, and its instance, anew at every reset; for training only.

    Args:
      env: any gymnax `Environment`, not randomized; with noise if one of the cells needs it.
      params: its nominal `EnvParams`.
      cells: names and magnitudes; a name may have several magnitudes.

    Returns:
      ``(env, params)``: the params have one more field, `randomization`, a `Mixture` whose weights
      are all 1; the state has one more, `drawn`, the perturbed params of the episode.

    Raises:
      EntrobError: there are no cells, a name is unknown or does not fit the params, a magnitude is
        out of range, or the environment is randomized already.
    """
    env = adopted(env)
    if isinstance(env, RandomizedEnvironment):
        raise EntrobError(f"{env.name} is randomized already")
    if not cells:
        raise EntrobError("a mixture needs at least one perturbation")
    names = tuple(dict.fromkeys(name for name, _ in cells))
    magnitudes = [check_magnitude(perturbations.get(name, params), params, m) for name, m in cells]
    which = jnp.array([names.index(name) for name, _ in cells], jnp.int32)
    mixture = Mixture(which, jnp.stack(magnitudes), jnp.ones(len(cells)))
    native: type = type(env)
    randomized = wrap(env, _randomized_class(native, names), _ranges=mixture)
    return randomized, widen(params, "Randomized", randomization=mixture)
