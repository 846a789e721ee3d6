"""Environments: gymnax `Environment`s whose every knob is a traced leaf of their params."""

import contextlib
import importlib.util
import inspect
import io
from collections.abc import Callable
from typing import Any, TypeVar

from entrob.envs import adapters, classic, layouts, minatar
from entrob.envs.environment import Environment, adopted, entropy_features
from entrob.envs.minigrid import MiniGrid
from entrob.envs.task import Task, task_of
from entrob.envs.widening import Params
from entrob.envs.wrappers import with_disturbance, with_noise
from entrob.errors import EntrobError, unknown
from entrob.registry import Registry, add_working_directory, imported

B = TypeVar("B", bound=Callable[..., Any])

__all__ = [
    "Environment",
    "Task",
    "adopted",
    "build",
    "entropy_features",
    "environments",
    "libraries",
    "make",
    "make_task",
    "register",
    "task_of",
]

#: Environment id -> a function that builds the environment, of options that all have defaults.
environments: Registry[Callable[..., Any]] = Registry("environment")
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
libraries: Registry[Callable[..., Any]] = Registry("library of environments")
libraries.register("gymnax", adapters.open_gymnax)
libraries.register("brax", adapters.Brax)


def _mujoco(module: str) -> Any:
    """A module of `entrob.envs.mujoco`, imported when it is needed, which takes seconds."""
    # MJX prints that optional parts of its own are missing.
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(f"entrob.envs.mujoco.{module}")


def _built(builder: Callable[..., Any], options: dict[str, Any], *args: Any) -> Any:
    """What a builder makes of options; raises `EntrobError` for one that it does not take."""
    takes = list(inspect.signature(builder).parameters.values())[len(args) :]
    known = [p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [name for name in options if name not in known]
    if wrong and not any(p.kind is p.VAR_KEYWORD for p in takes):
        if not known:
            raise EntrobError(f"this environment takes no option such as {wrong[0]!r}")
        raise unknown("option of the environment", wrong[0], known)
    return builder(*args, **options)


def register(name: str, builder: B) -> B:
    """Make an environment known by a name, on the command line, in experiment files and `make`.

    Args:
      name: its id, e.g. ``"mine/maze"``.
      builder: its class, or a function that builds it, of options that all have defaults. Any
        gymnax `Environment` will do; see `Environment` for what it may offer beyond that.

    Returns:
      The builder, so that this serves as ``functools.partial(register, name)`` on a class, too.

    Raises:
      EntrobError: the name is taken by another builder.
    """
    environments.register(name, builder)
    return builder


def build(id: str, **options: Any) -> Environment:
    """An environment without noise; see `make`."""
    library, colon, name = id.partition(":")
    if not colon or id in environments:
        return adopted(_built(environments.get(id), options))
    if library in libraries or not _importable(library):
        return adopted(_built(libraries.get(library), options, name))
    return adopted(_built(imported("environment", id), options))


def _importable(module: str) -> bool:
    add_working_directory()
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def make(
    id: str, noise: bool = False, disturbed: bool = False, **options: Any
) -> tuple[Environment, Params]:
    """Build an environment and its nominal params.

    Args:
      id: a registered id, e.g. ``"minigrid/empty-8x8"``, another library's environment, as
        ``"gymnax:CartPole-v1"`` or ``"brax:ant"``, or a user's, as ``"my_package.my_module:Maze"``.
      noise: wrap the environment so that noises (slip, action delay, observation noise,
        ...) can act; their params start at zero, which is off.
      disturbed: wrap it so that an adversary's forces can act, see
        `entrob.envs.wrappers.with_disturbance`.
      **options: what the environment is built with, e.g. ``contacts="mujoco3"`` for
        ``"mujoco/pusher"``.

    Returns:
      ``(env, params)``, an `Environment` and its `EnvParams`.

    Raises:
      EntrobError: the id is not registered, its library or module is not known or does not
        import, no forces can act, or the environment does not take an option.
    """
    env = build(id, **options)
    if disturbed:
        env = with_disturbance(env)
    params = env.default_params
    return with_noise(env, params) if noise else (env, params)


def make_task(id: str, **options: Any) -> Task:
    """Build an environment once, for training and for all tests; arguments and errors of `make`."""
    return task_of(id, build(id, **options))
