"""Environments: gymnax `Environment`s whose every knob is a traced leaf of their params."""

from collections.abc import Callable

from entrob.envs.minigrid import MiniGrid
from entrob.registry import Registry

#: Environment id -> a function without arguments that builds the environment.
environments: Registry[Callable] = Registry("environment")
environments.register("minigrid/empty-8x8", lambda: MiniGrid(10, 10))
environments.register("minigrid/empty-16x16", lambda: MiniGrid(18, 18))


def make(id: str, noise: bool = False):
    """Build an environment and its nominal params.

    Args:
      id: a registered id, e.g. ``"minigrid/empty-8x8"``.
      noise: wrap the environment so that the diffuse perturbations (slip, sticky action,
        observation dropout, reward noise) can act; their params start at zero, which is off.

    Returns:
      ``(env, params)``, a gymnax `Environment` and its `EnvParams`.

    Raises:
      EntrobError: the id is not registered.
    """
    env = environments.get(id)()
    params = env.default_params
    if noise:
        from entrob.perturbations.noise import with_noise

        env, params = with_noise(env, params)
    return env, params
