"""The noise wrapper: off means the bits of the environment, on means the declared frequencies."""

import functools

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.envs.minigrid import MiniGrid
from entrob.envs.wrappers import Noise, NoisyEnvironment, with_noise
from entrob.perturbations import perturb

N = 4000
# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}
# As sweeps compile.
USUAL = {**QUICK, "xla_backend_optimization_level": 3}


def build(id):
    return make(id) if id.startswith("minigrid") else gymnax.make(id)


def uncompiled(env, params, actions, seed=0):
    """(states, observations, rewards, ...) of one long rollout with given actions, auto-reset."""

    def step(state, inputs):
        key, action = inputs
        observation, after, *rest = env.step(key, state, action, params)
        return after, (after, observation, *rest)

    observation, state = env.reset(jax.random.key(seed), params)
    keys = jax.random.split(jax.random.key(seed + 1), len(actions))
    return observation, state, jax.lax.scan(step, state, (keys, actions))[1]


rollout = jax.jit(uncompiled, static_argnums=0, compiler_options=QUICK)


@functools.cache
def grid_and_params():
    """One environment for all tests, so that they share what is compiled."""
    return make("minigrid/empty-8x8", noise=True)


def noisy_grid(name=None, magnitude=0.0, steps=10**6):
    """A room without a reachable end, so that a rollout is one episode."""
    env, params = grid_and_params()
    walls = jnp.ones_like(params.walls).at[1, 1].set(False)
    params = params.replace(walls=walls, max_steps_in_episode=jnp.array(steps, jnp.int32))
    return env, perturb(jax.random.key(0), params, name, magnitude) if name else params


def turns(state, dirs):
    """The turn made at each step (0 left, 1 right, 2 none), from the directions alone."""
    change = np.diff(np.concatenate([[int(state.dir)], np.asarray(dirs)])) % 4
    return np.array([2, 1, -1, 0])[change]


def close(frequency, probability, n=N):
    """Within 4.5 standard deviations of a binomial: wrong once in 10^5 seeds, and ours is fixed."""
    return abs(frequency - probability) < 4.5 * np.sqrt(probability * (1 - probability) / n)


# Not Pendulum: it is chaotic, and XLA rounds differently in two programs.
IDS = [
    "minigrid/empty-8x8",
    pytest.param("CartPole-v1", marks=pytest.mark.slow),  # nothing that the grid lacks
    "DeepSea-bsuite",  # has a step of its own
    "MetaMaze-misc",  # has a last_action of its own
]


def same_bits(got, expected):
    """Equal names, dtypes and bits of all leaves, the added actions of the state left out."""

    def leaves(tree):
        return [
            (str(path), jnp.result_type(leaf), np.asarray(leaf).tobytes())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if str(path[-1]) not in (".executed_action", ".chosen_actions")
        ]

    assert leaves(got) == leaves(expected)


def test_off_each_step_has_the_bits_of_the_environment():
    env, params = build("Pendulum-v1")
    noisy_env, noisy_params = with_noise(env, params)
    key = jax.random.key(0)
    expected, got = env.reset_env(key, params), noisy_env.reset_env(key, noisy_params)
    same_bits(got, expected)
    for i in range(8):
        key, key_action = jax.random.split(jax.random.key(i))
        action = env.action_space(params).sample(key_action)
        expected = env.step_env(key, expected[1], action, params)
        got = noisy_env.step_env(key, got[1], action, noisy_params)
        same_bits(got, expected)


@pytest.mark.parametrize("id", IDS)
def test_off_a_compiled_rollout_has_the_bits_of_the_environment(id):
    env, params = build(id)
    noisy_env, noisy_params = with_noise(env, params)
    space = env.action_space(params)
    actions = jax.vmap(space.sample)(jax.random.split(jax.random.key(7), 120))
    compiled = jax.jit(uncompiled, static_argnums=0, compiler_options=USUAL)
    expected = compiled(env, params, actions)
    got = compiled(noisy_env, noisy_params, actions)
    same_bits(got, expected)
    _, _, (after, _, _, terminated, truncated, _) = got
    executed = np.asarray(after.executed_action)
    ended = np.asarray(terminated | truncated)  # then the state is that of the next episode
    np.testing.assert_array_equal(executed[~ended], np.asarray(actions)[~ended])
    assert (executed[ended] == 0).all()


def test_slip_reaches_the_dynamics_with_its_frequency():
    env, params = noisy_grid("slip", 0.3)
    _, state, (after, *_) = rollout(env, params, jnp.zeros(N, jnp.int32))
    made = turns(state, after.dir)
    np.testing.assert_array_equal(made, after.executed_action)
    assert close((made != 0).mean(), 0.3 * 2 / 3)  # a random action is the same in one of three
    assert close((made == 1).mean(), 0.1)


def test_sticky_action_reaches_the_dynamics_with_its_frequency():
    env, params = noisy_grid("sticky_action", 0.25)
    intended = np.arange(N) % 2
    _, state, (after, *_) = rollout(env, params, jnp.asarray(intended, jnp.int32))
    made = turns(state, after.dir)
    # Repeating contradicts the intention only if the last action followed its own: q = p (1 - q).
    repeats = made[1:] == made[:-1]
    followed = made[:-1] == intended[:-1]
    assert close(repeats[followed].mean(), 0.25, followed.sum())
    assert abs((made != intended).mean() - 0.2) < 0.02


def test_sticky_action_never_acts_at_the_first_step_of_an_episode():
    env, params = noisy_grid("sticky_action", 1.0, steps=5)
    intended = np.random.default_rng(0).integers(0, 2, 50)
    _, _, (after, _, _, _, truncated, _) = rollout(env, params, jnp.asarray(intended, jnp.int32))
    np.testing.assert_array_equal(np.flatnonzero(truncated), np.arange(4, 50, 5))
    executed = np.asarray(after.executed_action).reshape(10, 5)
    first = intended.reshape(10, 5)[:, 0]
    # The last column shows the state after the reset.
    np.testing.assert_array_equal(executed[:, :4], np.repeat(first[:, None], 4, 1))
    assert len(set(first)) == 2


def test_sticky_action_overrules_slip():
    env, params = noisy_grid("sticky_action", 1.0)
    params = perturb(jax.random.key(0), params, "slip", 1.0)
    executed = rollout(env, params, jnp.zeros(50, jnp.int32))[2][0].executed_action
    assert len(np.unique(executed)) == 1


def test_observation_dropout_hides_whole_observations_and_nothing_else():
    env, params = noisy_grid("observation_dropout", 0.4)
    actions = jax.random.randint(jax.random.key(3), (N,), 0, 3)
    _, _, (after, seen, _, _, _, info) = rollout(env, params, actions)
    clean_env, clean = noisy_grid()
    _, _, (clean_after, clean_seen, *_) = rollout(clean_env, clean, actions)
    hidden = ~np.asarray(seen).any((1, 2, 3))
    assert close(hidden.mean(), 0.4)
    np.testing.assert_array_equal(np.asarray(seen)[~hidden], np.asarray(clean_seen)[~hidden])
    np.testing.assert_array_equal(seen, info["final_observation"])
    chex.assert_trees_all_equal(after, clean_after)


def test_observation_dropout_hides_first_observations_too():
    env, params = noisy_grid("observation_dropout", 0.4)
    keys = jax.random.split(jax.random.key(0), 1000)
    first = jax.jit(jax.vmap(env.reset, (0, None)), compiler_options=QUICK)(keys, params)[0]
    assert close((~np.asarray(first).any((1, 2, 3))).mean(), 0.4, 1000)


def test_reward_noise_is_gaussian_with_its_standard_deviation():
    env, params = with_noise(*gymnax.make("CartPole-v1"))
    params = perturb(jax.random.key(0), params, "reward_noise", 2.5)
    _, _, (_, _, reward, *_) = rollout(env, params, jnp.zeros(N, jnp.int32))
    error = np.asarray(reward) - 1.0
    assert abs(error.mean()) < 4.5 * 2.5 / np.sqrt(N)
    assert abs(error.std() / 2.5 - 1) < 4.5 / np.sqrt(2 * N)
    assert abs((np.abs(error) < 2.5).mean() - 0.6827) < 0.04


def test_the_noises_are_independent_of_each_other():
    env, params = noisy_grid("slip", 0.5)
    params = perturb(jax.random.key(0), params, "observation_dropout", 0.5)
    params = perturb(jax.random.key(0), params, "reward_noise", 1.0)
    _, _, (after, seen, reward, *_) = rollout(env, params, jnp.zeros(N, jnp.int32))
    slipped = np.asarray(after.executed_action) != 0
    hidden = ~np.asarray(seen).any((1, 2, 3))
    correlations = np.corrcoef([slipped, hidden, np.asarray(reward)])[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(N)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_slip_draws_uniformly_from_a_box(shape):
    env, params = with_noise(*gymnax.make("Pendulum-v1"))
    params = perturb(jax.random.key(0), params, "slip", 1.0)
    after = rollout(env, params, jnp.zeros((N, *shape)))[2][0]
    torque = np.asarray(after.executed_action)
    assert torque.shape == (N, 1)
    going_on = np.asarray(after.time) > 0
    np.testing.assert_array_equal(torque[going_on, 0], np.asarray(after.last_u)[going_on])
    counts = np.histogram(torque[going_on], bins=4, range=(-2, 2))[0]
    assert counts.sum() == going_on.sum()
    assert close(counts.min() / going_on.sum(), 0.25, going_on.sum())


def test_it_is_the_same_environment_and_more():
    bare_env, bare = make("minigrid/empty-8x8")
    env, params = with_noise(bare_env, bare)
    assert isinstance(env, MiniGrid)
    assert isinstance(params, type(bare))
    assert not isinstance(bare_env, NoisyEnvironment)
    assert with_noise(env, params) == (env, params)
    assert type(with_noise(bare_env, bare)[1]) is type(params)  # one class, one pytree structure
    assert (env.name, env.view) == (bare_env.name, bare_env.view)
    chex.assert_trees_all_equal(env.default_params, params)
    off = jnp.zeros((), jnp.float32)
    # Neither whole numbers nor discrete actions can be blurred.
    chex.assert_trees_all_equal(params.noise, Noise(off, off, off, off, None, None, None, off))
    moved = params.replace(goal_pos=jnp.array([2, 2], jnp.int32))
    assert moved.noise is params.noise
    states = env.states(params)
    assert states.executed_action.shape == (env.num_states,)
    assert states.chosen_actions.shape == (env.num_states, 3)
    np.testing.assert_array_equal(jax.vmap(env.state_index)(states), np.arange(env.num_states))
    chex.assert_trees_all_equal(
        jax.vmap(env.entropy_features, (0, None))(states, params),
        jax.vmap(bare_env.entropy_features, (0, None))(bare_env.states(bare), bare),
    )
    step = jax.jit(jax.vmap(env.step_env, (None, 0, None, None)), compiler_options=QUICK)
    after = step(jax.random.key(0), states, 2, params)[1]
    assert (after.executed_action == 2).all()
    with pytest.raises(NotImplementedError, match="has no table of states"):
        cart, cart_params = with_noise(*gymnax.make("CartPole-v1"))
        cart.states(cart_params)


def test_one_compilation_serves_all_noise_levels():
    env, params = noisy_grid()

    @functools.partial(jax.jit, compiler_options=QUICK)
    @chex.assert_max_traces(n=1)
    def mean_turn(params):
        return uncompiled(env, params, jnp.zeros(20, jnp.int32))[2][0].executed_action.mean()

    levels = [mean_turn(perturb(jax.random.key(0), params, "slip", m)) for m in (0, 0.5, 1.0)]
    assert levels[0] == 0
    assert levels[2] > 0
    chex.clear_trace_counter()


def test_action_delay_reaches_the_dynamics_of_a_grid():
    env, params = noisy_grid("action_delay", 2)
    intended = np.random.default_rng(0).integers(0, 3, 200)
    _, state, (after, *_) = rollout(env, params, jnp.asarray(intended, jnp.int32))
    delayed = np.concatenate([intended[[0, 0]], intended[:-2]])
    np.testing.assert_array_equal(turns(state, after.dir), delayed)
