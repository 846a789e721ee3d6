"""The grid as a gymnax environment: spaces, traced params, the table of states, names."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import environments, make
from entrob.envs.minigrid import MiniGrid, empty_params
from entrob.errors import EntrobError

KEY = jax.random.key(0)
SIZES = [(10, 10), (4, 4), (6, 9), (18, 5)]


def at(x, y, direction, env, params):
    state = env.reset(KEY, params)[1]
    return state.replace(pos=jnp.array([x, y]), dir=jnp.array(direction))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", [3, 7])
def test_spaces_contain_what_the_environment_returns(size, view):
    env = MiniGrid(*size, view)
    params = env.default_params
    space = env.observation_space(params)
    seen, state = env.reset(KEY, params)
    assert seen.shape == space.shape == (view, view, 3)
    assert seen.dtype == space.dtype
    inside = jax.vmap(lambda s: space.contains(env.get_obs(s, params)))
    assert jax.jit(inside)(env.states(params)).all()
    assert env.action_space(params).n == env.num_actions == 3
    states = env.state_space(params).spaces
    assert states.keys() == vars(state).keys()
    for name, leaf in vars(env.states(params)).items():
        assert jax.vmap(states[name].contains)(leaf).all(), name
    # The types of a state do not change from step to step, as scan requires.
    after = env.step_env(KEY, state, 2, params)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


def test_a_step_is_what_it_says():
    env, params = make("minigrid/empty-8x8")
    state = at(3, 4, 0, env, params)
    for action, pos, direction in [(0, (3, 4), 3), (1, (3, 4), 1), (2, (4, 4), 0)]:
        _, after, reward, terminated, _ = env.step_env(KEY, state, action, params)
        assert tuple(np.asarray(after.pos)) == pos
        assert after.dir == direction
        assert after.time == 1
        assert reward == 0
        assert not terminated
    blocked = params.replace(walls=params.walls.at[4, 4].set(True))
    after = env.step_env(KEY, state, 2, blocked)[1]
    assert tuple(np.asarray(after.pos)) == (3, 4)


def test_one_compilation_serves_all_layouts():
    """Every field of the params is traced: no layout, reward or limit compiles anew."""
    env, nominal = make("minigrid/empty-8x8")
    rng = np.random.default_rng(0)

    def layouts(n):
        stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), nominal)
        walls = nominal.walls | (rng.random((n, 10, 10)) < 0.2)
        return stacked.replace(
            walls=walls.at[:, 1, 1].set(False).at[:, 2, 1].set(False),
            start_dir=jnp.asarray(rng.integers(0, 4, n), jnp.int32),
            goal_pos=jnp.asarray(rng.integers(1, 9, (n, 2)), jnp.int32),
            reward_decay=jnp.asarray(rng.random(n), jnp.float32),
            max_steps_in_episode=jnp.asarray(rng.integers(1, 9, n), jnp.int32),
        )

    @jax.jit
    @chex.assert_max_traces(n=1)
    def play(params):
        def one(params):
            state = env.reset(KEY, params)[1]
            seen, state, reward, terminated, truncated, _ = env.step(KEY, state, 2, params)
            return seen, state, reward, terminated, truncated

        return jax.vmap(one)(params)

    first, second = layouts(64), layouts(64)
    for params in (first, second):
        together = play(params)
        for i in (0, 17, 63):
            one = jax.tree.map(lambda x: x[i], params)  # noqa: B023
            state = env.reset(KEY, one)[1]
            alone = env.step(KEY, state, 2, one)[:5]
            chex.assert_trees_all_equal(jax.tree.map(lambda x: x[i], together), alone)  # noqa: B023
    assert (play(first)[0] != play(second)[0]).any()


@pytest.mark.parametrize("size", SIZES)
def test_states_are_all_states_in_the_order_of_their_index(size):
    env = MiniGrid(*size)
    params = env.default_params
    states = env.states(params)
    assert env.num_states == (size[0] - 2) * (size[1] - 2) * 4
    np.testing.assert_array_equal(jax.vmap(env.state_index)(states), np.arange(env.num_states))
    assert not params.walls[states.pos[:, 0], states.pos[:, 1]].any()
    assert (states.time == 0).all()


def test_entropy_features_are_the_position_and_the_direction_one_hot():
    env, params = make("minigrid/empty-8x8")
    features = env.entropy_features(at(3, 5, 2, env, params), params)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, [3, 5, 0, 0, 1, 0])
    every = jax.vmap(lambda s: env.entropy_features(s, params))(env.states(params))
    assert len(np.unique(every, axis=0)) == env.num_states


def test_the_nominal_rooms_are_what_they_are_called():
    for name, interior in [("minigrid/empty-8x8", 8), ("minigrid/empty-16x16", 16)]:
        env, params = make(name)
        assert params.walls.shape == (env.width, env.height) == (interior + 2, interior + 2)
        assert (~params.walls).sum() == interior**2
        assert tuple(np.asarray(params.goal_pos)) == (interior, interior)
        assert tuple(np.asarray(params.start_pos)) == (1, 1)
        assert params.max_steps_in_episode == 200
        leaves = {name for name, leaf in vars(params).items() if isinstance(leaf, jax.Array)}
        assert leaves == set(vars(params)) - {"lava"}
        assert params.lava is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("minigrid/empty-8x9", "minigrid/empty-8x8"),
        ("minigrid/empty-16", "minigrid/empty-16x16"),
    ],
)
def test_an_unknown_id_names_the_nearest_one(name, near):
    with pytest.raises(EntrobError, match=f"unknown environment '{name}': did you mean '{near}'"):
        make(name)


def test_an_id_unlike_any_lists_them_all():
    with pytest.raises(EntrobError) as error:
        make("%%%")
    assert all(name in str(error.value) for name in environments.names())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(3, 10), (10, 3), (10, 10, 6), (10, 10, 1)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"at least 4 .* odd"):
        MiniGrid(*size)


def test_decays_are_read_in_thousandths():
    env = MiniGrid(4, 4)
    params = empty_params(4, 4).replace(max_steps_in_episode=jnp.array(8))
    before = at(1, 2, 0, env, params)
    for decay, paid in [(0.0, 1.0), (0.5, 0.9375), (1.0, 0.875), (0.1254, 0.984375)]:
        reward = env.step_env(KEY, before, 2, params.replace(reward_decay=decay))[2]
        assert reward == paid
