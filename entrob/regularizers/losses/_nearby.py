"""Observations near those of a batch: within a ball, or with one cell of a grid changed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.minigrid import EMPTY, GOAL, WALL
from entrob.rollout import PolicyOutput, Rollout

#: What a cell of a grid may be changed to.
CODES = np.array([EMPTY, WALL, GOAL], np.uint8)


class Sites(NamedTuple):
    """Observations at which a policy is looked at: the batch's, or those of all states.

    Attributes:
      policy: on these observations.
      obs: [S, ...].
      spread: float32[...], standard deviation of each component over the batch.
      mean: ``float32[S] -> float32[]``, the mean over the batch.
    """

    policy: PolicyOutput
    obs: jax.Array
    spread: jax.Array
    mean: Callable


def sites(policy: PolicyOutput, batch: Rollout) -> Sites:
    """Each state once where those are few, which is cheaper; else the batch's observations."""
    spread = jnp.asarray(batch.obs, jnp.float32).std(0)
    finite = batch.context.finite
    if finite is None:
        return Sites(policy, batch.obs, spread, jnp.mean)
    obs = finite.observations
    mean = lambda x: jnp.mean(finite.of_states(x, batch.index))
    return Sites(policy.at(obs), obs, spread, mean)


def frozen(policy: PolicyOutput) -> PolicyOutput:
    """The same policy, through which no gradient flows."""
    dist, value, params = jax.lax.stop_gradient((policy.dist, policy.value, policy.params))
    return policy._replace(dist=dist, value=value, params=params)


def is_grid(obs: jax.Array) -> bool:
    """Whether observations are windows of MiniGrid's codes, uint8[B, V, V, 3]."""
    return obs.dtype == jnp.uint8 and obs.ndim == 4 and obs.shape[-1] == 3


def ascend(
    key: jax.Array, obs: jax.Array, bound: jax.Array, score: Callable, steps: int
) -> jax.Array:
    """Projected gradient ascent from a random start: float32[B, ...].

    Every component moves by its bound · 2/steps in the direction of the gradient's sign, within
    obs ± bound.

    Args:
      key: PRNG key of the start, uniform in the box.
      obs: [B, ...].
      bound: float32[...].
      score: ``obs -> float32[B]``, to be increased.
      steps: of ascent.
    """
    center = jnp.asarray(obs, jnp.float32)
    slope = jax.grad(lambda x: score(x).sum())

    def step(x, _):
        x = x + 2 / steps * bound * jnp.sign(slope(x))
        return jnp.clip(x, center - bound, center + bound), None

    start = center + bound * jax.random.uniform(key, center.shape, minval=-1.0, maxval=1.0)
    return jax.lax.scan(step, start, None, length=steps)[0]


def worst_cell(key: jax.Array, obs: jax.Array, score: Callable, cells: int | None) -> jax.Array:
    """Windows with the one changed cell that scores highest: uint8[B, V, V, 3].

    A cell becomes empty, wall or goal; the agent's own, always empty, does not change. Where
    nothing scores above 0 the window stays as it is.

    Args:
      key: PRNG key of the cells that are tried, the same for all windows.
      obs: uint8[B, V, V, 3].
      score: ``obs -> float32[B]``.
      cells: how many are tried, at random without replacement; None for all V² - 1.
    """
    view = obs.shape[1]
    others = np.arange(view**2).reshape(view, view) != view // 2 * view + view - 1
    places = jnp.asarray(np.argwhere(others))
    if cells is not None and cells < len(places):
        places = jax.random.choice(key, places, (cells,), replace=False)
    places, codes = jnp.repeat(places, len(CODES), 0), jnp.tile(CODES, (len(places), 1))

    def look(carry, change):
        best, worst = carry
        (x, y), code = change
        changed = obs.at[:, x, y].set(code)
        scored = score(changed)
        better = scored > best
        return (
            jnp.where(better, scored, best),
            jnp.where(better[:, None, None, None], changed, worst),
        ), None

    nothing = jnp.zeros(obs.shape[0])
    return jax.lax.scan(look, (nothing, obs), (places, codes))[0][1]
