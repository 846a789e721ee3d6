"""Fewest actions to the goal of a grid, as pure functions that compile and batch over layouts."""

import jax
import jax.numpy as jnp

from entrob.envs.minigrid import FORWARD, NUM_DIRECTIONS, EnvParams, MiniGrid

#: Number of actions to a goal that cannot be reached; leaves room to add to it.
UNREACHABLE = 2**30


def distances(env: MiniGrid, params: EnvParams) -> jax.Array:
    """Fewest actions from each position and direction to the goal.

    All states are relaxed at once until nothing changes (Bellman-Ford with unit costs), which
    takes as many sweeps as the farthest state takes actions.

    Args:
      env: the grid environment.
      params: one layout.

    Returns:
      int32[W, H, 4] indexed [x, y, direction]; 0 on the goal, `UNREACHABLE` on walls and where
      walls shut the goal off. Time limits are not considered.
    """
    del env  # the layout says it all; here for the sake of a uniform signature
    walls = jnp.asarray(params.walls)
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


def optimal_steps(env: MiniGrid, params: EnvParams) -> jax.Array:
    """Fewest actions from the start to the goal: int32[], `UNREACHABLE` if there is no way."""
    x, y = params.start_pos
    return distances(env, params)[x, y, params.start_dir]


def shortest_path(env: MiniGrid, params: EnvParams) -> jax.Array:
    """One shortest sequence of actions from the start to the goal.

    Args:
      env: the grid environment.
      params: one layout.

    Returns:
      int32[S], S = `env.num_states`, which no shortest path exceeds: the actions, then -1; all -1
      if there is no way. Where several actions are best, the lowest is taken.
    """
    steps = distances(env, params)

    def follow(state, _):
        pos, direction = state
        front = pos + jnp.asarray(FORWARD)[direction]
        x, y = pos
        left, right = (direction - 1) % NUM_DIRECTIONS, (direction + 1) % NUM_DIRECTIONS
        after = jnp.stack([steps[x, y, left], steps[x, y, right], steps[*front, direction]])
        here = steps[x, y, direction]
        moving = (here > 0) & (here < UNREACHABLE)
        action = jnp.where(moving, jnp.argmin(after), -1).astype(jnp.int32)
        pos = jnp.where(action == 2, front, pos)
        direction = jnp.select([action == 0, action == 1], [left, right], direction)
        return (pos, direction), action

    start = (jnp.asarray(params.start_pos, jnp.int32), jnp.asarray(params.start_dir, jnp.int32))
    return jax.lax.scan(follow, start, None, length=env.num_states)[1]
