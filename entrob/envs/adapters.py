"""Other libraries' environments: ``gymnax:<id>`` and ``brax:<name>``.

gymnax's are what ours are, so that adapter only looks them up. brax's environments are no longer
maintained, and brax takes seconds to import: nothing needs it until one is opened.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from entrob.envs.environment import Environment
from entrob.errors import EntrobError, unknown

#: gymnax's environments that are not offered, and why.
EXCLUDED = {"MNISTBandit-bsuite": "gymnax downloads its images when it is opened"}


def open_gymnax(name: str) -> environment.Environment:
    """One of gymnax's own environments.

    Raises:
      EntrobError: gymnax does not register it, or it is one of `EXCLUDED`.
    """
    import gymnax

    if name in EXCLUDED:
        raise EntrobError(f"gymnax:{name} is not offered: {EXCLUDED[name]}")
    if name not in gymnax.registered_envs:
        known = (f"gymnax:{known}" for known in gymnax.registered_envs)
        raise unknown("environment", f"gymnax:{name}", known)
    return gymnax.make(name)[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without brax's, and its jaxopt's, warnings that they are no longer maintained."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?i).*(not|no longer).*maintained")
        warnings.filterwarnings("ignore", "Accessing .* directly from `Data` is deprecated")
        yield


def _brax_environments() -> Any:
    # MJX prints that optional parts of its own are missing.
    with _quiet(), contextlib.redirect_stdout(io.StringIO()):
        from brax import envs
    return envs


def brax_names() -> list[str]:
    """The names that brax registers."""
    return list(_brax_environments()._envs)


@struct.dataclass
class BraxState(environment.EnvState):
    """A brax state.

    Attributes:
      time: int32[], steps since the episode began.
      brax: brax's own state, with everything that it computes from it.
    """

    time: jax.Array
    brax: Any = None


class Brax(Environment):
    """A brax environment as a gymnax one, with brax's default options.

    Observation: brax's, float32[d].
    Action: float32[a] in -1..1, the range that brax's own agents use.
    Reward, termination: brax's. Truncation: after 1000 steps, as in brax's training.

    On a CPU, compile what steps one with
    ``compiler_options=entrob.compiling.compiler_options()``: XLA is slow on long kinematic chains
    otherwise.

    Args:
      name: as brax registers it, e.g. ``"ant"``; raises `EntrobError` if it does not.

    Raises:
      EntrobError: from `step_env`, where brax calls what a newer JAX no longer has. brax 0.14.2
        does so in its swimmer.
    """

    def __init__(self, name: str):
        known = brax_names()
        if name not in known:
            raise unknown("environment", f"brax:{name}", [f"brax:{n}" for n in known])
        self._name = f"brax:{name}"
        with _quiet():
            self._env = _brax_environments().get_environment(name)
            self._seen = jax.eval_shape(self._env.reset, jax.random.PRNGKey(0)).obs

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=jnp.array(1000, jnp.int32))

    @property
    def num_actions(self) -> int:
        return self._env.action_size

    def action_space(self, params: environment.EnvParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.num_actions,))

    def observation_space(self, params: environment.EnvParams | None = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, self._seen.shape, self._seen.dtype)

    def reset_env(
        self, key: jax.Array, params: environment.EnvParams
    ) -> tuple[jax.Array, BraxState]:
        with _quiet():
            state = self._env.reset(key)
        return state.obs, BraxState(jnp.zeros((), jnp.int32), state)

    def step_env(
        self, key: jax.Array, state: BraxState, action: jax.Array, params: environment.EnvParams
    ) -> tuple[jax.Array, BraxState, jax.Array, jax.Array, dict[str, Any]]:
        # brax writes into these two dictionaries.
        before = state.brax
        before = before.replace(metrics=dict(before.metrics), info=dict(before.info))
        try:
            with _quiet():
                after = self._env.step(before, action)
        except TypeError as error:
            raise EntrobError(f"{self.name} does not run with this JAX: {error}") from error
        return after.obs, BraxState(state.time + 1, after), after.reward, after.done > 0, {}
