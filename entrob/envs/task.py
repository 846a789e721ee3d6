"""A task: an environment built once, with and without what adds noise, and its nominal params."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from entrob.envs.environment import Environment
from entrob.envs.widening import Params
from entrob.envs.wrappers import with_noise
from entrob.errors import EntrobError
from entrob.ranges import FINITE, Range, declared


class Task(NamedTuple):
    """What agents are trained and tested in.

    Attributes:
      id: of the environment, as `entrob.make` takes it.
      env: the environment.
      params: its nominal params.
      noisy_env: the same environment in which noise can act; only perturbations that need it are
        tested in it, since noise makes a finite environment infinite.
      noisy_params: its nominal params, all noise off.
    """

    id: str
    env: Environment
    params: Params
    noisy_env: Environment
    noisy_params: Params

    def pair(self, noise: bool) -> tuple[Environment, Params]:
        """``(env, params)``, with noise or without."""
        return (self.noisy_env, self.noisy_params) if noise else (self.env, self.params)

    def with_params(self, values: dict[str, Any]) -> "Task":
        """The task with some of its params changed.

        Args:
          values: by name: a number, which an array is filled with, or a (nested) list of its shape.

        Raises:
          EntrobError: there is no such param, it is no number, the value has another shape, or the
            task cannot be played, see `Environment.check_params`.
        """
        new = {name: self._value(name, value) for name, value in values.items()}
        params = self.params.replace(**new)
        self.env.check_params(params)
        return self._replace(params=params, noisy_params=self.noisy_params.replace(**new))

    def _value(self, name: str, value: Any) -> Any:
        if not hasattr(self.params, name):
            raise EntrobError(f"{self.id} has no param {name!r}")
        try:
            old = jnp.asarray(getattr(self.params, name))
        except (TypeError, ValueError):
            raise EntrobError(f"{self.id}: param {name!r} is no number") from None
        try:
            given = np.broadcast_to(np.array(value), old.shape)
        except ValueError:
            shape = f"{self.id}: param {name!r} must be a number or of shape"
            raise EntrobError(f"{shape} {list(old.shape)}") from None
        if given.dtype == np.bool_ and old.dtype == np.bool_:
            return jnp.asarray(given)
        # Before they are cast, which rounds and wraps around.
        range_ = declared(type(self.params)).get(name, _range_of(old.dtype))
        range_.check(f"{self.id}: {name}", given)
        return jnp.asarray(given.astype(old.dtype))


def _range_of(dtype: np.dtype) -> Range:
    """What arrays of a dtype can hold, infinities apart."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return Range(0, 1, whole=True)
    if jnp.issubdtype(dtype, jnp.integer):
        ends = np.iinfo(dtype)
        return Range(int(ends.min), int(ends.max), whole=True)
    return FINITE


def task_of(id: str, env: Environment) -> Task:
    """The task of an environment in its nominal params; raises `EntrobError` if they make none.

    Args:
      id: what the environment was made by.
      env: an environment without noise.
    """
    params = env.default_params
    env.check_params(params)
    return Task(id, env, params, *with_noise(env, params))
