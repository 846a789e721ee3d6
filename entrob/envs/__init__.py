"""Environments: gymnax `Environment`s whose every knob is a traced leaf of their params."""

import contextlib
import importlib
import inspect
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from entrob.envs import adapters, classic, layouts, minatar
from entrob.envs.minigrid import MiniGrid
from entrob.errors import EntrobError, unknown
from entrob.registry import Registry

#: Environment id -> a function that builds the environment, of options that all have defaults.
environments: Registry[Callable] = Registry("environment")
environments.register("minigrid/empty-8x8", lambda: MiniGrid(10, 10))
environments.register("minigrid/empty-16x16", lambda: MiniGrid(18, 18))
environments.register("minigrid/two-paths", lambda: layouts.drawn(layouts.TWO_PATHS))
environments.register("minigrid/four-rooms", lambda: layouts.drawn(layouts.FOUR_ROOMS, 400))
environments.register("minigrid/lava-crossing", lambda: layouts.drawn(layouts.LAVA_CROSSING))
environments.register("mujoco/ant", lambda **options: _built(_mujoco("ant").Ant, options))
environments.register("mujoco/pusher", lambda **options: _built(_mujoco("pusher").Pusher, options))
# gymnax's, with what our perturbations and evaluation need of them.
environments.register("gymnax:CartPole-v1", classic.CartPole)
environments.register("gymnax:Acrobot-v1", classic.Acrobot)
environments.register("gymnax:MountainCar-v0", classic.MountainCar)
environments.register("gymnax:Pendulum-v1", classic.Pendulum)
environments.register("gymnax:PointRobot-misc", classic.PointRobot)
environments.register("gymnax:Asterix-MinAtar", minatar.Asterix)
environments.register("gymnax:SpaceInvaders-MinAtar", minatar.SpaceInvaders)

#: What stands before the colon of an id -> a function that opens another library's environment.
libraries: Registry[Callable] = Registry("library of environments")
libraries.register("gymnax", adapters.open_gymnax)
libraries.register("brax", adapters.Brax)


def _mujoco(module: str):
    """A module of `entrob.envs.mujoco`, imported when it is needed: MuJoCo is optional."""
    try:
        # MJX prints that optional parts of its own are missing.
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(f"entrob.envs.mujoco.{module}")
    except ImportError as error:
        if not (error.name or "").startswith("mujoco"):
            raise
        raise EntrobError(
            f"mujoco/{module} needs mujoco and mujoco-mjx, which are not installed"
        ) from error


def _built(builder: Callable, options: dict[str, Any], *args: Any):
    """What a builder makes of options; raises `EntrobError` for one that it does not take."""
    takes = list(inspect.signature(builder).parameters.values())[len(args) :]
    known = [p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [name for name in options if name not in known]
    if wrong and not any(p.kind is p.VAR_KEYWORD for p in takes):
        if not known:
            raise EntrobError(f"this environment takes no option such as {wrong[0]!r}")
        raise unknown("option of the environment", wrong[0], known)
    return builder(*args, **options)


def make(id: str, noise: bool = False, disturbed: bool = False, **options: Any):
    """Build an environment and its nominal params.

    Args:
      id: a registered id, e.g. ``"minigrid/empty-8x8"``, or another library's environment, as
        ``"gymnax:CartPole-v1"`` or ``"brax:ant"``.
      noise: wrap the environment so that noises (slip, action delay, observation noise,
        ...) can act; their params start at zero, which is off.
      disturbed: wrap it so that an adversary's forces can act, see
        `entrob.envs.wrappers.with_disturbance`.
      **options: what the environment is built with, e.g. ``contacts="mujoco3"`` for
        ``"mujoco/pusher"``.

    Returns:
      ``(env, params)``, a gymnax `Environment` and its `EnvParams`.

    Raises:
      EntrobError: the id is not registered, the library is not installed, no forces can act, or
        the environment does not take an option.
    """
    library, colon, name = id.partition(":")
    if colon and id not in environments:
        env = _built(libraries.get(library), options, name)
    else:
        env = _built(environments.get(id), options)
    if disturbed:
        from entrob.envs.wrappers.disturbance import with_disturbance

        env = with_disturbance(env)
    params = env.default_params
    if noise:
        from entrob.envs.wrappers.noise import with_noise

        env, params = with_noise(env, params)
    return env, params


def is_success(env: Any, state: Any, params: Any) -> jax.Array:
    """Whether a state counts as success: bool[]; never, in an environment without the notion."""
    return env.is_success(state, params) if hasattr(env, "is_success") else jnp.zeros((), bool)


def ends_at_success(env: Any) -> bool:
    """Whether a test episode ends with the first success though training goes on after it.

    An environment in which success is the score says so by a field ``ends_at_success = True``, as
    Pusher and Ant do, of which the paper reports whether an episode ever succeeds. Elsewhere the
    return is the score, of the whole episode.
    """
    return getattr(env, "ends_at_success", False)


def goal_distance(env: Any, state: Any, params: Any) -> jax.Array:
    """How far from success a state is, in meters: float32[]; NaN where the environment knows none.

    An environment whose success is a threshold of a distance says so by ``goal_distance``.
    """
    known = hasattr(env, "goal_distance")
    return env.goal_distance(state, params) if known else jnp.full((), jnp.nan)


def entropy_features(env: Any, state: Any, obs: jax.Array, params: Any) -> jax.Array:
    """The environment's entropy features, by default the flat observation: float32[q]."""
    if hasattr(env, "entropy_features"):
        return env.entropy_features(state, params)
    return jnp.ravel(obs).astype(jnp.float32)
