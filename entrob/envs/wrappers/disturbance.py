"""Disturbances: a wrapper through which an adversary's forces act on an environment.

`with_disturbance` returns an environment of a subclass of the given one's class, whose state has
one more field, `disturbance`: what is written there acts during the next step, and that step
clears it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from entrob.envs.environment import Environment, adopted
from entrob.envs.forces import Disturbance, disturbance_of
from entrob.envs.widening import Params, narrow, widen, wrap
from entrob.errors import EntrobError


class DisturbedEnvironment(Environment):
    """What `with_disturbance` puts before an environment's own class.

    With no force it steps as the wrapped environment does, to the last bit but for the sign of 0.
    """

    #: How its forces act.
    _exerted: Disturbance

    def disturbance_space(self, params: Params | None = None) -> spaces.Box:
        """Forces of strength 1, in the units of `Disturbance.meaning`; stronger ones are allowed.

        The bounds do not depend on the params.
        """
        unit = np.array(self._exerted.unit, np.float32)
        return spaces.Box(-unit, unit, unit.shape)

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, Any]:
        observation, state = super().reset_env(key, params)
        return observation, self._rested(state)

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Params
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        step, force = self._exerted.step, state.disturbance
        observation, after, *rest = step(
            super().step_env, key, narrow(state), action, force, params
        )
        return observation, self._rested(after), *rest

    def _rested(self, state: Any) -> Any:
        return widen(state, "Disturbed", disturbance=jnp.zeros(self.disturbance_space().shape))


@functools.cache
def _disturbed_class(native: type) -> type:
    return type(f"Disturbed{native.__name__}", (DisturbedEnvironment, native), {})


def with_disturbance(env: Any) -> Any:
    """Let forces act on an environment: write them into ``state.disturbance`` before a step.

    Noise and randomization go on top: they hand the forces through.

    Args:
      env: an environment that `disturbance_of` knows; without noise.

    Raises:
      EntrobError: no forces can act on it.
    """
    env = adopted(env)
    exerted = disturbance_of(env)
    if exerted is None:
        raise EntrobError(f"no forces can act on {env.name}")
    native: type = type(env)
    return wrap(env, _disturbed_class(native), _exerted=exerted)
