"""From gymnax's spaces to Gymnasium's, and from actions of the latter to the former's."""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnax.environments import spaces

from entrob.errors import EntrobError
from entrob.gymnasium.instances import Params, short


def observation_space(env: Any, nominal: Params, params: Params) -> gymnasium.Space[Any]:
    """Gymnasium's space of what one copy returns: its shape, dtype, and declared bounds.

    Bounds are dropped where the params of a copy or of all have noise of observations, and
    stretched to 0 where dropout acts. The dtype is what is returned: gymnax declares another one at
    times.
    """
    space = env.observation_space(nominal)
    seen = jax.eval_shape(env.reset_env, jax.random.key(0), nominal)[0]
    if isinstance(space, spaces.Discrete):
        return gymnasium.spaces.Discrete(int(space.n))
    if not (isinstance(space, spaces.Box) and isinstance(seen, jax.ShapeDtypeStruct)):
        raise EntrobError(f"{env.name}: observations that are no one array have no space here")
    if seen.dtype == bool:
        return gymnasium.spaces.MultiBinary(seen.shape)
    low, high = (np.broadcast_to(np.asarray(b), seen.shape) for b in (space.low, space.high))
    noise = getattr(params, "noise", None)
    if noise is not None and np.any(noise.observation_dropout):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    if noise is not None and any(np.any(std) for std in jax.tree.leaves(noise.observation_noise)):
        low, high = np.full(seen.shape, -np.inf), np.full(seen.shape, np.inf)
    low, high = low.astype(seen.dtype), high.astype(seen.dtype)
    return gymnasium.spaces.Box(low, high, seen.shape, seen.dtype)


def action_space(env: Any, nominal: Params) -> gymnasium.Space[Any]:
    space = env.action_space(nominal)
    if isinstance(space, spaces.Discrete):
        return gymnasium.spaces.Discrete(int(space.n))
    if not isinstance(space, spaces.Box):
        raise EntrobError(f"{env.name}: actions that are no one number or array have no space here")
    low, high = (np.full(space.shape, b, space.dtype) for b in (space.low, space.high))
    return gymnasium.spaces.Box(low, high, space.shape, np.dtype(space.dtype).type)


def checked_action(space: gymnasium.Space[Any], action: Any, batch: tuple[int, ...]) -> np.ndarray:
    """Actions [*batch, ...] of one copy's space; boxes' are clipped to their bounds.

    Raises:
      EntrobError: another shape, no numbers, NaN, or no such discrete action.
    """
    try:
        array = np.asarray(action)
    except ValueError:  # rows of several lengths
        array = np.empty(0)
    if array.shape == (*batch, *(space.shape or ())):
        if isinstance(space, gymnasium.spaces.Box):
            if array.dtype.kind in "iuf" and np.isfinite(array).all():
                return np.asarray(np.clip(array, space.low, space.high), space.dtype)
        elif isinstance(space, gymnasium.spaces.Discrete) and (
            array.dtype.kind in "iu" and ((array >= 0) & (array < space.n)).all()
        ):
            return array.astype(np.int32)
    each = f"{batch[0]} actions" if batch else "an action"
    raise EntrobError(f"step takes {each} of {short(space)}, not {short(action)}")
