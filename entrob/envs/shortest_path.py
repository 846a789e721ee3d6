"""Fewest actions to the goal of a grid, as pure functions that compile and batch over layouts."""

import jax
import jax.numpy as jnp

from entrob.envs.minigrid import FORWARD, NUM_DIRECTIONS, EnvParams

#: Number of actions to a goal that cannot be reached; leaves room to add to it.
UNREACHABLE = 2**30


def closed(params: EnvParams) -> jax.Array:
    """The cells that no way to the goal leads through, walls and lava: bool[W, H]."""
    walls = jnp.asarray(params.walls)
    return walls if params.lava is None else walls | params.lava


def distances(params: EnvParams) -> jax.Array:
    """Fewest actions from each position and direction to the goal.

    All states are relaxed at once until nothing changes (Bellman-Ford with unit costs), which
    takes as many sweeps as the farthest state takes actions.

    Args:
      params: one layout.

    Returns:
      int32[W, H, 4] indexed [x, y, direction]; 0 on the goal, `UNREACHABLE` on walls, on lava and
      where they shut the goal off. Time limits are not considered.
    """
    walls = closed(params)
    goal_x, goal_y = params.goal_pos
    start = jnp.full((*walls.shape, NUM_DIRECTIONS), UNREACHABLE, jnp.int32)
    start = start.at[goal_x, goal_y].set(0)
    start = jnp.where(walls[..., None], UNREACHABLE, start)

    def sweep(carry):
        steps, _ = carry
        turned = jnp.minimum(jnp.roll(steps, 1, -1), jnp.roll(steps, -1, -1))
        # What wraps around comes from the border, which is wall.
        moved = [jnp.roll(steps[..., d], (-dx, -dy), (0, 1)) for d, (dx, dy) in enumerate(FORWARD)]
        new = jnp.minimum(steps, jnp.minimum(turned, jnp.stack(moved, -1)) + 1)
        new = jnp.where(walls[..., None], UNREACHABLE, new)
        return new, jnp.any(new != steps)

    return jax.lax.while_loop(lambda carry: carry[1], sweep, (start, jnp.bool_(True)))[0]


def optimal_steps(params: EnvParams) -> jax.Array:
    """Fewest actions from the start to the goal: int32[], `UNREACHABLE` if there is no way."""
    x, y = params.start_pos
    return distances(params)[x, y, params.start_dir]


def shortest_path(params: EnvParams) -> tuple[jax.Array, jax.Array]:
    """One shortest sequence of actions from the start to the goal.

    Args:
      params: one layout.

    Returns:
      ``(actions int32[S], pos int32[S, 2])``, S = 4 (W-2) (H-2) states, which no shortest path
      exceeds: the actions and where each is taken, then -1 and where the path ends; all -1 if there
      is no way. Where several actions are best, the lowest is taken.
    """
    steps = distances(params)

    def follow(state, _):
        pos, direction = state
        front = pos + jnp.asarray(FORWARD)[direction]
        x, y = pos
        left, right = (direction - 1) % NUM_DIRECTIONS, (direction + 1) % NUM_DIRECTIONS
        costs = jnp.stack([steps[x, y, left], steps[x, y, right], steps[*front, direction]])
        here = steps[x, y, direction]
        moving = (here > 0) & (here < UNREACHABLE)
        action = jnp.where(moving, jnp.argmin(costs), -1).astype(jnp.int32)
        after = jnp.where(action == 2, front, pos)
        direction = jnp.select([action == 0, action == 1], [left, right], direction)
        return (after, direction), (action, pos)

    start = (jnp.asarray(params.start_pos, jnp.int32), jnp.asarray(params.start_dir, jnp.int32))
    width, height = params.walls.shape
    states = (width - 2) * (height - 2) * NUM_DIRECTIONS
    return jax.lax.scan(follow, start, None, length=states)[1]
