"""Distances against a plain breadth-first search, and paths against the environment itself."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.envs.minigrid import FORWARD, MiniGrid, empty_params
from entrob.envs.shortest_path import UNREACHABLE, distances, optimal_steps, shortest_path

SIZES = [(4, 4), (10, 10), (6, 13), (12, 5)]
LAYOUTS = 30


def random_layouts(width, height, n, seed=0):
    """n stacked layouts with walls and lava, free at the start and the goal, which may meet."""
    rng = np.random.default_rng(seed)
    walls = rng.random((n, width, height)) < rng.uniform(0, 0.5, (n, 1, 1))
    walls[:, [0, -1]] = walls[:, :, [0, -1]] = True
    start, goal = rng.integers(1, (width - 1, height - 1), (2, n, 2))
    each, lava = np.arange(n), rng.random(walls.shape) < rng.uniform(0, 0.1, (n, 1, 1))
    for cells in (walls, lava):
        cells[each, start[:, 0], start[:, 1]] = cells[each, goal[:, 0], goal[:, 1]] = False
    room = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), empty_params(width, height))
    return room.replace(
        walls=jnp.asarray(walls),
        lava=jnp.asarray(lava),
        start_pos=jnp.asarray(start, jnp.int32),
        goal_pos=jnp.asarray(goal, jnp.int32),
        start_dir=jnp.asarray(rng.integers(0, 4, n), jnp.int32),
    )


def search(closed, goal):
    """Distances by breadth-first search backwards from the goal."""
    steps = np.full((*closed.shape, 4), UNREACHABLE)
    queue = deque((*goal, d) for d in range(4))
    for state in queue:
        steps[state] = 0
    while queue:
        x, y, d = queue.popleft()
        dx, dy = FORWARD[d]
        for before in [(x, y, (d + 1) % 4), (x, y, (d - 1) % 4), (x - dx, y - dy, d)]:
            if not closed[before[:2]] and steps[before] == UNREACHABLE:
                steps[before] = steps[x, y, d] + 1
                queue.append(before)
    return steps


@pytest.mark.parametrize("size", SIZES)
def test_distances_are_those_of_a_plain_search(size):
    layouts = random_layouts(*size, LAYOUTS)
    got = jax.jit(jax.vmap(distances))(layouts)
    assert got.dtype == jnp.int32
    expected = [
        search(closed, tuple(goal))
        for closed, goal in zip(
            np.asarray(layouts.walls | layouts.lava), np.asarray(layouts.goal_pos)
        )
    ]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_path_is_as_long_as_optimal_and_leads_to_the_goal(size):
    env, layouts = MiniGrid(*size), random_layouts(*size, LAYOUTS, seed=1)

    @jax.vmap
    def follow(params):
        """Play the path through the environment; padding does nothing."""
        path, visited = shortest_path(params)

        def step(state, planned):
            action, pos = planned
            _, after, _, terminated, _ = env.step_env(jax.random.key(0), state, action, params)
            after = jax.tree.map(lambda new, old: jnp.where(action < 0, old, new), after, state)
            return after, (terminated & (action >= 0), jnp.all(state.pos == pos))

        start = env.reset_env(jax.random.key(0), params)[1]
        end, (terminated, there) = jax.lax.scan(step, start, (path, visited))
        return path, terminated, there, env.is_success(end, params), optimal_steps(params)

    path, terminated, there, success, optimum = map(np.asarray, jax.jit(follow)(layouts))
    assert there.all()
    solvable = optimum < UNREACHABLE
    assert path.shape == (LAYOUTS, env.num_states)
    np.testing.assert_array_equal((path >= 0).sum(1), np.where(solvable, optimum, 0))
    np.testing.assert_array_equal(success, solvable)
    # All padding comes last, and only the last action enters the goal.
    assert (np.diff((path >= 0).astype(int), axis=1) <= 0).all()
    assert set(path[path < 0]) == {-1}
    for ends, steps in zip(terminated[solvable], optimum[solvable]):
        np.testing.assert_array_equal(np.flatnonzero(ends), [steps - 1] if steps else [])


def test_random_layouts_cover_both_cases():
    """What the tests above rest on: some layouts have a way and some have none."""
    layouts = random_layouts(10, 10, LAYOUTS, seed=1)
    solvable = jax.vmap(optimal_steps)(layouts) < UNREACHABLE
    assert 5 < solvable.sum() < LAYOUTS


def test_empty_room_takes_14_moves_and_one_turn():
    _, params = make("minigrid/empty-8x8")
    assert optimal_steps(params) == 15
    path, _ = shortest_path(params)
    assert sorted(np.asarray(path[:15])) == [1] + [2] * 14
    # Facing up, the way along the top row takes a turn more.
    assert optimal_steps(params.replace(start_dir=3)) == 16


@pytest.mark.parametrize("shut", ["around", "on"])
def test_a_walled_goal_is_unreachable(shut):
    _, params = make("minigrid/empty-8x8")
    cells = ([7, 8], [8, 7]) if shut == "around" else ([8], [8])
    params = params.replace(walls=params.walls.at[cells].set(True))
    assert optimal_steps(params) == UNREACHABLE
    assert (shortest_path(params)[0] == -1).all()
    assert (distances(params)[8, 8] == (0 if shut == "around" else UNREACHABLE)).all()


def test_who_starts_on_the_goal_is_there():
    _, params = make("minigrid/empty-8x8")
    assert optimal_steps(params.replace(start_pos=params.goal_pos)) == 0
