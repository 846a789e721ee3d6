"""Exact evaluation against plain searches, sampled episodes and cases solved by hand."""

import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import make
from entrob.envs.minigrid import FORWARD, MiniGrid, empty_params
from entrob.evaluation.exact import (
    UNREACHABLE,
    Transitions,
    occupancy,
    optimal_steps,
    success_by_horizon,
    transitions,
)

KEY = jax.random.key(0)
SIZES = [(10, 10), (5, 9), (8, 4)]
LAYOUTS = 40
EPISODES, HORIZON = 20_000, 60


def random_layouts(env, rng, n):
    """n stacked layouts with walls and lava; start and goal are different free cells."""
    width, height = env.width, env.height
    walls = rng.random((n, width, height)) < rng.uniform(0, 0.5, (n, 1, 1))
    walls[:, [0, -1]] = walls[:, :, [0, -1]] = True
    interior = np.stack(np.meshgrid(range(1, width - 1), range(1, height - 1)), -1).reshape(-1, 2)
    cells = np.stack([rng.choice(interior, 2, replace=False) for _ in range(n)])
    lava = rng.random(walls.shape) < 0.05
    for taken in (walls, lava):
        taken[np.arange(n)[:, None], cells[..., 0], cells[..., 1]] = False
    room = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), empty_params(width, height))
    return room.replace(
        walls=jnp.asarray(walls),
        lava=jnp.asarray(lava),
        start_pos=jnp.asarray(cells[:, 0], jnp.int32),
        goal_pos=jnp.asarray(cells[:, 1], jnp.int32),
        start_dir=jnp.asarray(rng.integers(0, 4, n), jnp.int32),
    )


def search(params):
    """Breadth-first search from the start: fewest actions to the goal, `UNREACHABLE` if none."""
    walls, lava = np.asarray(params.walls), np.asarray(params.lava)
    goal = tuple(np.asarray(params.goal_pos).tolist())
    start = (*np.asarray(params.start_pos).tolist(), int(params.start_dir))
    queue, steps = deque([start]), {start: 0}
    while queue:
        x, y, d = state = queue.popleft()
        if (x, y) == goal:
            return steps[state]
        dx, dy = FORWARD[d].tolist()
        front = (x, y, d) if walls[x + dx, y + dy] else (x + dx, y + dy, d)
        for after in [(x, y, (d - 1) % 4), (x, y, (d + 1) % 4), front]:
            if after not in steps and not (lava & ~walls)[after[:2]]:
                steps[after] = steps[state] + 1
                queue.append(after)
    return UNREACHABLE


@pytest.mark.parametrize("size", SIZES)
def test_optimal_steps_are_those_of_a_plain_search(size):
    env = MiniGrid(*size)
    layouts = random_layouts(env, np.random.default_rng(sum(size)), LAYOUTS)
    got = jax.jit(jax.vmap(lambda p: optimal_steps(transitions(env, p))))(layouts)
    assert got.dtype == jnp.int32
    one = [jax.tree.map(lambda x: np.asarray(x)[i], layouts) for i in range(LAYOUTS)]  # noqa: B023
    expected = np.array([search(params) for params in one])
    np.testing.assert_array_equal(got, expected)
    # What the comparison rests on: layouts with a way, and layouts without.
    assert 3 < (expected < UNREACHABLE).sum() < LAYOUTS - 3


def test_the_empty_room_takes_14_moves_and_one_turn():
    env, params = make("minigrid/empty-8x8")
    assert optimal_steps(transitions(env, params)) == 15
    assert optimal_steps(transitions(env, params.replace(start_dir=jnp.array(3)))) == 16


def test_lava_ends_an_episode_without_success():
    env, params = make("minigrid/lava-crossing")
    table = transitions(env, params)
    above = ((1 - 1) * 7 + 2 - 1) * 4 + 1  # the cell (1, 2) facing down, lava in front
    assert table.terminated[above, 2] and not table.success[above, 2]
    assert not table.terminated[above, :2].any()
    # Forward alone ends at the wall; turned down at once, it ends in lava at the second step.
    down = jax.nn.one_hot(jnp.where(jnp.arange(env.num_states) % 4 == 0, 1, 2), 3)
    assert success_by_horizon(table, down, 200)[-1] == 0
    assert occupancy(table, down, 200).sum() == 3
    assert optimal_steps(table) == 14


def test_a_walled_goal_is_unreachable():
    env, params = make("minigrid/empty-8x8")
    params = params.replace(walls=params.walls.at[[7, 8], [8, 7]].set(True))
    table = transitions(env, params)
    assert optimal_steps(table) == UNREACHABLE
    uniform = jnp.full((env.num_states, 3), 1 / 3)
    assert (success_by_horizon(table, uniform, 200) == 0).all()
    np.testing.assert_allclose(occupancy(table, uniform, 200).sum(), 200, rtol=1e-5)


@functools.cache
def walled_room():
    """A room with two walls, and a random policy that often reaches its goal and often does not."""
    env, params = MiniGrid(6, 5), empty_params(6, 5)
    params = params.replace(walls=params.walls.at[[3, 2], [1, 3]].set(True))
    noise = jax.random.normal(jax.random.key(3), (env.num_states, 3))
    return env, params, jax.nn.softmax(noise + jnp.array([0.0, 0.5, 1.0]))


@functools.cache
def sampled():
    """Episodes played in the environment: steps to success int[N], `HORIZON` + 1 if none, and
    the visits of each state by each episode int[N, S]."""
    env, params, probs = walled_room()

    def episode(key):
        def step(carry, key):
            state, alive, visits = carry
            index = env.state_index(state)
            visits = visits.at[index].add(alive)
            action = jax.random.categorical(key, jnp.log(probs[index]))
            _, after, _, terminated, _ = env.step_env(key, state, action, params)
            return (after, alive & ~terminated, visits), alive & terminated

        start = env.reset_env(key, params)[1]
        carry = (start, jnp.bool_(True), jnp.zeros(env.num_states, jnp.int32))
        (_, alive, visits), ends = jax.lax.scan(step, carry, jax.random.split(key, HORIZON))
        return jnp.where(alive, HORIZON + 1, jnp.argmax(ends) + 1), visits

    keys = jax.random.split(KEY, EPISODES)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys))


def test_success_is_that_of_sampled_episodes():
    env, params, probs = walled_room()
    exact = np.asarray(success_by_horizon(transitions(env, params), probs, HORIZON))
    steps, _ = sampled()
    share = (steps[:, None] <= np.arange(1, HORIZON + 1)).mean(0)
    # Dvoretzky-Kiefer-Wolfowitz: the largest gap exceeds this once in 10^6 samples of episodes.
    tolerance = np.sqrt(np.log(2e6) / (2 * EPISODES))
    assert tolerance < 0.02
    np.testing.assert_allclose(share, exact, atol=tolerance)
    assert 0.2 < exact[-1] < 0.8  # neither end would tell much
    assert (np.diff(exact) >= 0).all()


def test_occupancy_is_that_of_sampled_episodes():
    env, params, probs = walled_room()
    expected = np.asarray(occupancy(transitions(env, params), probs, HORIZON))
    _, visits = sampled()
    # Five standard errors; a state that no episode saw is one of fewer than 10 / N visits.
    error = 5 * visits.std(0) / np.sqrt(EPISODES) + 10 / EPISODES
    assert (abs(visits.mean(0) - expected) < error).all()
    assert (expected > 0.1).sum() > 10


@pytest.mark.parametrize("horizon", [1, 7, HORIZON])
def test_occupancy_sums_to_the_expected_episode_length(horizon):
    """Σ_t P(not ended after t steps), t = 0..horizon-1; here only success ends an episode."""
    env, params, probs = walled_room()
    table = transitions(env, params)
    length = horizon - success_by_horizon(table, probs, horizon)[:-1].sum()
    np.testing.assert_allclose(occupancy(table, probs, horizon).sum(), length, rtol=1e-5)
    steps, _ = sampled()
    lengths = np.minimum(steps, horizon)
    error = 5 * lengths.std() / np.sqrt(EPISODES) + 1e-5
    assert abs(lengths.mean() - length) < error


def test_a_shortest_path_succeeds_at_the_optimum_and_never_before():
    env, params = make("minigrid/empty-8x8")
    table = transitions(env, params)
    # Forward along the top, down the right side: 7 moves, a turn to the right, 7 moves.
    states = env.states(params)
    turn = (states.pos[:, 0] == 8) & (states.dir == 0)
    probs = jax.nn.one_hot(jnp.where(turn, 1, 2), 3)
    success = success_by_horizon(table, probs, 200)
    np.testing.assert_array_equal(success, np.arange(1, 201) >= 15)
    path = [(x, 1, 0) for x in range(1, 9)] + [(8, y, 1) for y in range(1, 8)]
    expected = np.zeros(env.num_states)
    for x, y, d in path:
        expected[((x - 1) * 8 + y - 1) * 4 + d] = 1
    np.testing.assert_array_equal(occupancy(table, probs, 200), expected)
    # Cut short, only the first states are visited.
    assert occupancy(table, probs, 4).sum() == 4


def trap():
    """Two states: in 0, action 0 ends in failure and 1 leads on; in 1, 0 succeeds and 1 waits."""
    return Transitions(
        next_index=jnp.array([[0, 1], [1, 1]]),
        terminated=jnp.array([[True, False], [True, False]]),
        success=jnp.array([[False, False], [True, False]]),
        start=jnp.array(0),
    )


def test_an_end_without_success_is_none():
    probs = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    steps = np.arange(1, 31)
    expected = 0.75 * (1 - 0.5 ** (steps - 1.0))
    np.testing.assert_allclose(success_by_horizon(trap(), probs, 30), expected, rtol=1e-6)
    # Once in state 0, then with probability 0.75 in state 1 for 2 steps on average.
    np.testing.assert_allclose(occupancy(trap(), probs, 30), [1, 1.5], rtol=1e-6)


def test_a_failure_is_no_way_to_the_goal():
    assert optimal_steps(trap()) == 2
    shut = trap()._replace(next_index=jnp.array([[0, 0], [1, 1]]))
    assert optimal_steps(shut) == UNREACHABLE


def test_the_table_is_that_of_the_environment():
    env, params, _ = walled_room()
    table = transitions(env, params)
    assert table.start == 0
    goal, right = (3 * 3 + 2) * 4, 0  # the cell (4, 3), entered facing right from (3, 3)
    before = (2 * 3 + 2) * 4 + right
    np.testing.assert_array_equal(table.next_index[before], [before + 3, before + 1, goal + right])
    np.testing.assert_array_equal(table.terminated[before], [False, False, True])
    np.testing.assert_array_equal(table.success[before], [False, False, True])
    blocked = (1 * 3 + 0) * 4 + right  # (2, 1) facing the wall at (3, 1)
    assert table.next_index[blocked, 2] == blocked
