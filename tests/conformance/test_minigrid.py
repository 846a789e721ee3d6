"""Our grid against Farama's `minigrid`: what is seen, what is paid, when an episode ends."""

import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal, Lava, Wall
from minigrid.envs.crossing import CrossingEnv
from minigrid.envs.fourrooms import FourRoomsEnv
from minigrid.minigrid_env import MiniGridEnv

from entrob.envs import make
from entrob.envs.minigrid import FORWARD, MiniGrid, empty_params

SIZES = [(10, 10), (5, 5), (7, 14), (18, 8)]
LAYOUTS = 60  # per size
LENGTH = 200  # actions
MINIGRID_DECAY = 0.9


class Farama(MiniGridEnv):
    """Farama's environment on a given layout."""

    def __init__(self, params, view=7):
        self.layout = params
        width, height = params.walls.shape
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: "get to the goal"),
            width=width,
            height=height,
            max_steps=int(params.max_steps_in_episode),
            see_through_walls=True,
            agent_view_size=view,
        )

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        for cells, kind in ((self.layout.lava, Lava), (self.layout.walls, Wall)):
            for x, y in [] if cells is None else np.argwhere(cells):
                self.grid.set(int(x), int(y), kind())
        self.put_obj(Goal(), *map(int, self.layout.goal_pos))
        self.agent_pos = tuple(map(int, self.layout.start_pos))
        self.agent_dir = int(self.layout.start_dir)
        self.mission = "get to the goal"


def play_farama(params, actions, view=7):
    """Observations [T+1, ...], rewards, terminated, truncated [T] up to the end of an episode."""
    return play(Farama(params, view), actions)


def play(env, actions):
    """The same, of any of Farama's environments."""
    observations = [env.reset()[0]["image"]]
    outcomes = []
    for action in actions:
        observation, *outcome, _ = env.step(int(action))
        observations.append(observation["image"])
        outcomes.append(outcome)
        if outcome[1] or outcome[2]:
            break
    reward, terminated, truncated = map(np.array, zip(*outcomes))
    return np.stack(observations), reward, terminated, truncated


@functools.partial(jax.jit, static_argnames="env")
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def play_ours(env, params, actions):
    """The same, of fixed length T, without auto-reset."""
    key = jax.random.key(0)

    def step(state, action):
        seen, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return state, (seen, reward, terminated, env.is_truncated(state, params))

    first, state = env.reset_env(key, params)
    seen, *outcomes = jax.lax.scan(step, state, actions)[1]
    return jnp.concatenate([first[None], seen]), *outcomes


def random_layouts(env, rng, n):
    """n stacked layouts: random walls and lava, start, goal, direction and time limit, MiniGrid's
    reward. Every second one has lava, some of it under walls."""
    width, height = env.width, env.height
    walls = rng.random((n, width, height)) < rng.uniform(0, 0.4, (n, 1, 1))
    walls[:, [0, -1]] = walls[:, :, [0, -1]] = True
    interior = np.stack(np.meshgrid(range(1, width - 1), range(1, height - 1)), -1).reshape(-1, 2)
    cells = np.stack([rng.choice(interior, 2, replace=False) for _ in range(n)])
    lava = (rng.random(walls.shape) < 0.1) & (np.arange(n) % 2 == 1)[:, None, None]
    for taken in (walls, lava):
        taken[np.arange(n)[:, None], cells[..., 0], cells[..., 1]] = False
    room = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), empty_params(width, height))
    return room.replace(
        walls=jnp.asarray(walls),
        lava=jnp.asarray(lava),
        start_pos=jnp.asarray(cells[:, 0], jnp.int32),
        goal_pos=jnp.asarray(cells[:, 1], jnp.int32),
        start_dir=jnp.asarray(rng.integers(0, 4, n), jnp.int32),
        reward_decay=jnp.full(n, MINIGRID_DECAY, jnp.float32),
        max_steps_in_episode=jnp.asarray(rng.integers(5, LENGTH + 50, n), jnp.int32),
    )


def shortest_path(params):
    """Fewest actions from the start to the goal, by breadth-first search; [] if there is no way."""
    walls, lava = np.asarray(params.walls), np.asarray(params.lava)
    goal = tuple(np.asarray(params.goal_pos).tolist())
    start = (*np.asarray(params.start_pos).tolist(), int(params.start_dir))
    queue, paths = deque([start]), {start: []}
    while queue:
        x, y, d = state = queue.popleft()
        if (x, y) == goal:
            return paths[state]
        dx, dy = FORWARD[d].tolist()
        front = (x, y, d) if walls[x + dx, y + dy] else (x + dx, y + dy, d)
        for action, after in enumerate([(x, y, (d - 1) % 4), (x, y, (d + 1) % 4), front]):
            if after not in paths and not lava[after[:2]]:
                paths[after] = [*paths[state], action]
                queue.append(after)
    return []


def each(params):
    """The layouts that are stacked in `params`, one by one, as NumPy arrays."""
    params = jax.tree.map(np.asarray, params)
    return [jax.tree.map(lambda x: x[i], params) for i in range(len(params.start_dir))]  # noqa: B023


def mixed_actions(params, rng):
    """int[n, T]: a third of the layouts at random, a third along a shortest path, a third in turns.

    The last third starts at random and then follows what was the shortest path from the start, so
    it bumps into walls; every eighth action is one that ours does not have and Farama's ignores.
    """
    n = len(params.start_dir)
    random = rng.choice([0, 1, 2, 2, 2], (n, LENGTH))
    along = random.copy()
    for row, layout in zip(along, each(params)):
        path = shortest_path(layout)[:LENGTH]
        row[: len(path)] = path
    kind = np.arange(n)[:, None] % 3
    switch = rng.integers(0, 2, (n, LENGTH)).cumsum(1) % 2 == 0
    actions = np.select([kind == 0, kind == 1], [random, along], np.where(switch, random, along))
    idle = (kind == 2) & (rng.random((n, LENGTH)) < 1 / 8)
    return np.where(idle, rng.integers(3, 7, (n, LENGTH)), actions)


def limits_at_the_optimum(params):
    """Every sixth layout gets its optimum as time limit, so that both ends of an episode meet."""
    optimum = np.array([len(shortest_path(layout)) for layout in each(params)])
    limits = np.asarray(params.max_steps_in_episode)
    met = (np.arange(len(limits)) % 6 == 1) & (optimum > 0)
    return params.replace(max_steps_in_episode=jnp.asarray(np.where(met, optimum, limits)))


@functools.cache
def played(size):
    """Both sides on all layouts of a size: [(ours, Farama's)], ours cut to Farama's length."""
    env, rng = MiniGrid(*size), np.random.default_rng(sum(size))
    params = limits_at_the_optimum(random_layouts(env, rng, LAYOUTS))
    actions = mixed_actions(params, rng)
    ours = jax.tree.map(np.asarray, play_ours(env, params, jnp.asarray(actions)))
    pairs = []
    for i, layout in enumerate(each(params)):
        theirs = play_farama(layout, actions[i])
        steps = len(theirs[1])
        pairs.append(((ours[0][i][: steps + 1], *(x[i][:steps] for x in ours[1:])), theirs))
    return pairs


@pytest.mark.parametrize("size", SIZES)
def test_observations_rewards_and_ends_are_those_of_minigrid(size):
    for ours, theirs in played(size):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[0].dtype == theirs[0].dtype == np.uint8
        np.testing.assert_array_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])
        assert ours[1].dtype == np.float32
        # One unit in the last place of the reward itself, not of 1.
        np.testing.assert_array_max_ulp(ours[1], theirs[1].astype(np.float32), maxulp=1)


def test_the_episodes_compared_end_in_every_way():
    ends = np.array([(t[1][-1] > 0, t[2][-1], t[3][-1]) for s in SIZES for _, t in played(s)])
    goal, terminated, limit = ends.T
    assert (terminated & ~goal).sum() >= 20  # in lava
    assert len(ends) >= 200
    assert (goal & ~limit).sum() >= 50
    assert (limit & ~goal).sum() >= 50
    assert (goal & limit).sum() >= 10


@pytest.mark.parametrize("view", [3, 5, 9])
def test_windows_of_other_sizes_are_those_of_minigrid(view):
    env, rng = MiniGrid(9, 7, view), np.random.default_rng(view)
    params = random_layouts(env, rng, 8)
    actions = rng.choice([0, 1, 2, 2, 2], (8, 60))
    ours = play_ours(env, params, jnp.asarray(actions))[0]
    for i, layout in enumerate(each(params)):
        theirs = play_farama(layout, actions[i], view)[0]
        np.testing.assert_array_equal(ours[i][: len(theirs)], theirs)


def test_the_reward_is_minigrids_at_every_time_of_every_limit():
    """Also just before the limit, where 1 - 0.9 * time / limit cancels."""
    env, params = MiniGrid(4, 4), empty_params(4, 4).replace(reward_decay=MINIGRID_DECAY)
    before = env.reset(jax.random.key(0), params.replace(start_pos=jnp.array([1, 2])))[1]

    @jax.jit
    @jax.vmap
    def reward(time, limit):
        enter = params.replace(max_steps_in_episode=limit)
        return env.step_env(jax.random.key(0), before.replace(time=time - 1), 2, enter)[2]

    limit, time = np.tril_indices(400)
    theirs = 1 - 0.9 * ((time + 1) / (limit + 1))
    np.testing.assert_array_max_ulp(
        np.asarray(reward(time + 1, limit + 1)), theirs.astype(np.float32), maxulp=1
    )


def test_the_sparse_reward_is_exactly_one_at_the_goal_and_zero_elsewhere():
    env, rng = MiniGrid(10, 10), np.random.default_rng(0)
    params = random_layouts(env, rng, LAYOUTS)
    params = params.replace(reward_decay=empty_params(10, 10).reward_decay.repeat(LAYOUTS))
    _, reward, terminated, _ = play_ours(env, params, jnp.asarray(mixed_actions(params, rng)))
    lava = np.asarray(params.lava).any((1, 2))
    assert terminated[~lava].any(1).sum() > 10
    np.testing.assert_array_equal(reward[~lava], terminated[~lava].astype(np.float32))
    assert set(np.unique(reward[lava])) == {0, 1} and (reward <= terminated).all()


def of_farama(env, limit):
    """The layout that one of Farama's environments has drawn, as params."""
    kinds = np.array([getattr(cell, "type", "free") for cell in env.grid.grid])
    kinds = kinds.reshape(env.height, env.width).T
    (goal,) = np.argwhere(kinds == "goal")
    return empty_params(env.width, env.height, limit).replace(
        walls=jnp.asarray(kinds == "wall"),
        lava=jnp.asarray(kinds == "lava"),
        start_pos=jnp.asarray(env.agent_pos, jnp.int32),
        goal_pos=jnp.asarray(goal, jnp.int32),
        start_dir=jnp.asarray(env.agent_dir, jnp.int32),
        reward_decay=jnp.asarray(MINIGRID_DECAY, jnp.float32),
    )


@pytest.mark.parametrize("task", ["four rooms", "lava crossing"])
def test_layouts_that_minigrid_draws_are_played_alike(task):
    """Farama's own classes, seen through walls as here; a third of the actions are random."""
    four = task == "four rooms"
    theirs = FourRoomsEnv(max_steps=100) if four else CrossingEnv(9, 2, max_steps=100)
    theirs.see_through_walls = True
    layouts, rng = [], np.random.default_rng(four)
    for seed in range(12):
        theirs.reset(seed=seed)
        layouts.append(of_farama(theirs, 100))
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layouts)
    assert params.lava.any((1, 2)).all() != four
    actions = mixed_actions(params, rng)
    ours = play_ours(MiniGrid(theirs.width, theirs.height), params, jnp.asarray(actions))
    reached = burned = 0
    for seed in range(12):
        reset = theirs.reset
        theirs.reset = lambda reset=reset, seed=seed: reset(seed=seed)
        seen, reward, terminated, truncated = play(theirs, actions[seed])
        theirs.reset, steps = reset, len(reward)
        mine = [np.asarray(x[seed]) for x in ours]
        np.testing.assert_array_equal(mine[0][: steps + 1], seen)
        np.testing.assert_array_max_ulp(mine[1][:steps], reward.astype(np.float32), maxulp=1)
        np.testing.assert_array_equal(mine[2][:steps], terminated)
        np.testing.assert_array_equal(mine[3][:steps], truncated)
        reached += reward[-1] > 0
        burned += terminated[-1] and not reward[-1]
    assert reached >= 3 and (burned >= 2 or four)


def test_our_four_rooms_are_minigrids_with_its_doors_and_ends_set():
    class Fixed(FourRoomsEnv):
        """Draws the doors (9, 6), (6, 9), (12, 9), (9, 12), in its order, and facing right."""

        def _rand_int(self, low, high):
            return self.draws.pop(0)

    theirs = object.__new__(Fixed)
    theirs.draws = []
    _, params = make("minigrid/four-rooms")
    ends = [tuple(np.asarray(pos).tolist()) for pos in (params.start_pos, params.goal_pos)]
    FourRoomsEnv.__init__(theirs, agent_pos=ends[0], goal_pos=ends[1])
    theirs.draws = [6, 6, 12, 12, 0]
    theirs.reset()
    drawn = of_farama(theirs, 400)
    for field in ("walls", "start_pos", "goal_pos", "start_dir"):
        np.testing.assert_array_equal(getattr(drawn, field), getattr(params, field))
    assert params.lava is None and not drawn.lava.any()


def test_step_resets_and_keeps_the_final_observation():
    """gymnax's `step`: the next episode's first observation, the last one of this in `info`."""
    env, key = MiniGrid(5, 5), jax.random.key(0)
    params = empty_params(5, 5).replace(max_steps_in_episode=jnp.array(4))
    first, start = env.reset(key, params)
    ends = {
        "goal": ([2, 2, 1, 2, 2], 5, (True, False)),
        "limit": ([2, 2, 2, 2], 4, (False, True)),
        "both": ([2, 2, 1, 2, 2], 5, (True, True)),
    }
    for end, (actions, steps, flags) in ends.items():
        params = params.replace(max_steps_in_episode=jnp.array({"goal": 9}.get(end, steps)))
        theirs = play_farama(jax.tree.map(np.asarray, params), actions)
        state = start
        for i, action in enumerate(actions):
            seen, state, _, terminated, truncated, info = env.step(key, state, action, params)
            np.testing.assert_array_equal(info["final_observation"], theirs[0][i + 1])
        assert (bool(terminated), bool(truncated)) == flags
        assert (info["terminated"], info["truncated"]) == flags
        np.testing.assert_array_equal(seen, first)
        assert (info["final_observation"] != first).any()
        jax.tree.map(np.testing.assert_array_equal, state, start)
