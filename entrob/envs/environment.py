"""What an environment may offer beyond gymnax's interface, with what holds where it does not."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment

from entrob.envs.widening import Params, wrap
from entrob.ranges import Range, check, declare, vars_of

#: Steps of an episode are counted in 32 bits, and so is one more.
declare(environment.EnvParams, max_steps_in_episode=Range(1, 2**31 - 2, whole=True))


class Environment(environment.Environment):  # type: ignore[misc]  # gymnax has no types
    """A gymnax environment, and its optional abilities with their defaults.

    One of ours, or a user's, derives from this class and overrides what it can do; any other gymnax
    environment becomes one by `adopted`, which `entrob.make` does.

    Attributes:
      finite: whether it has few states, time apart: then it has `states` and `state_index`, and its
        observations depend on nothing but the index and the params. It is evaluated exactly.
      few_views: whether it is like that but for random transitions, and observations that may read
        as zeros.
      network: name of the network that acts on its observations, see
        `entrob.agents.model.NETWORKS`; None: MinAtar's for images [H, W, C], else a perceptron.
      ends_at_success: whether a test episode ends with the first success though training goes on
        after it, as where success is the score and not the return.
      draws: whether a reset draws a new task, which takes longer than a step: then only those are
        reset that have ended.
      disturbance: how forces act on it, an `entrob.envs.forces.Disturbance`, or None.
      observation_spread: how much the numbers observed vary in the nominal environment, a tree like
        an observation; None: unknown, and noise can be given in raw units only.
      trace_axes: names of the numbers of a trace, as labels.
      entropy_features: ``(state, params) -> float32[q]``, what state entropy is measured on; None:
        the flat observation.
      trace: ``state -> float32[q]``, what is drawn of an episode; None: nothing.
      scene: ``params -> dict``, what stands where, for drawings; None: unknown.
      pictures: ``(params, states) -> uint8[T, height, width, 3]``, one for each of T states; None:
        nothing draws it.
      fps: pictures a second of an animation.
      cell: ``state -> int32[2]``, the cell (x, y) of a grid of the shape of ``params.walls``; None:
        its states are no cells.
    """

    finite: ClassVar[bool] = False
    few_views: ClassVar[bool] = False
    network: ClassVar[str | None] = None
    ends_at_success: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    disturbance: ClassVar[Any] = None
    observation_spread: ClassVar[Any] = None
    trace_axes: ClassVar[tuple[str, ...]] = ("x", "y")
    entropy_features: ClassVar[Callable[..., jax.Array] | None] = None
    trace: ClassVar[Callable[..., jax.Array] | None] = None
    scene: ClassVar[Callable[..., dict[str, Any]] | None] = None
    pictures: ClassVar[Callable[..., np.ndarray] | None] = None
    fps: ClassVar[int] = 10
    cell: ClassVar[Callable[..., jax.Array] | None] = None

    def is_success(self, state: Any, params: Params) -> jax.Array:
        """Whether a state counts as success: bool[]; never, without the notion."""
        return jnp.zeros((), bool)

    def goal_distance(self, state: Any, params: Params) -> jax.Array:
        """How far from success a state is, in meters: float32[]; NaN where nothing is known.

        Where success is a threshold of a distance, this is the distance.
        """
        return jnp.full((), jnp.nan)

    def check_params(self, params: Params) -> None:
        """Raise `entrob.EntrobError` unless the params describe a task that can be played.

        Each must be in the range that its field declares in its type, see `entrob.ranges`. One that
        must fit others is checked by an override, which calls this one first.
        """
        known = {name: x for name, x in vars_of(params).items() if not _unknown(x)}
        check(f"{self.name}: ", known, type(params))

    def states(self, params: Params) -> Any:
        """Every state of a `finite` one, time apart, in the order of `state_index`; [S, ...]."""
        raise NotImplementedError(f"{self.name} has no table of states")

    def state_index(self, state: Any) -> jax.Array:
        """The position of a state in `states`: int32[] in 0..S-1."""
        raise NotImplementedError(f"{self.name} has no table of states")


def _unknown(tree: Any) -> bool:
    """Whether a tree has values that are known only when a program runs."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


@functools.cache
def _adopted_class(native: type) -> type:
    return type(native.__name__, (native, Environment), {"__module__": native.__module__})


def adopted(env: Any) -> Environment:
    """Any gymnax environment as an `Environment`, with the defaults of what it does not have."""
    if isinstance(env, Environment):
        return env
    native: type = type(env)
    adoptee: Environment = wrap(env, _adopted_class(native))
    return adoptee


def offers(env: Environment, ability: str) -> bool:
    """Whether an environment has an optional ability of its own and not the default."""
    return getattr(type(env), ability) is not getattr(Environment, ability)


def entropy_features(env: Environment, state: Any, obs: jax.Array, params: Params) -> jax.Array:
    """The environment's entropy features, by default the flat observation: float32[q]."""
    if env.entropy_features is None:
        return jnp.ravel(obs).astype(jnp.float32)
    return env.entropy_features(state, params)
