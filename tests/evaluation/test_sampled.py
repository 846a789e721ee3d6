"""When a test episode ends, and that its return is what training counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.envs import Environment, environments, make
from entrob.evaluation.sampled import play
from entrob.evaluation.uniform import uniform_model

COUNT, HORIZON = 8, 60
PHYSICS = ("mujoco/pusher", "mujoco/ant")
#: Other packages may add to the registry.
CHEAP = [id for id in environments.names() if "MinAtar" not in id and id not in PHYSICS]
GRIDS = [id for id in CHEAP if id.startswith("minigrid")]
#: Grids differ in their params: one of them, and one of each other kind.
KINDS = [pytest.param(id, marks=pytest.mark.slow) if id in GRIDS[1:] else id for id in CHEAP]


def short(id, noise=False):
    env, params = make(id, noise=noise)
    return env, params.replace(max_steps_in_episode=jnp.asarray(HORIZON))


@functools.cache
def played(id, noise):
    """The uniform policy's episodes, leaves [COUNT]."""
    env, params = short(id, noise)
    model = uniform_model(env)

    act = lambda key, carry, state, obs: model.act(key, (), carry, obs)
    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.jit(jax.vmap(lambda key: play(env, act, (), params, key, HORIZON)))(keys)


def by_hand(id):
    """Returns until the environment itself ends the episode, and the first success's step."""
    env, params = short(id)
    model = uniform_model(env)

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)

        def step(carry, key):
            obs, state, alive = carry
            key_act, key_env = jax.random.split(key)
            dist, *_ = model.step((), (), obs[None], None)
            action = dist.sample(key_act)[0]
            obs, state, reward, terminated, _ = env.step_env(key_env, state, action, params)
            success = alive & env.is_success(state, params)
            out = jnp.where(alive, reward, 0.0), success
            return (obs, state, alive & ~(terminated | env.is_truncated(state, params))), out

        start = obs, state, jnp.bool_(True)
        _, (rewards, success) = jax.lax.scan(step, start, jax.random.split(key_steps, HORIZON))
        return rewards.sum(), jnp.where(success.any(), jnp.argmax(success) + 1, 0)

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), COUNT))


@pytest.mark.parametrize("id", KINDS)
def test_the_return_of_a_test_is_that_of_training(id):
    """A sum over the whole episode, also after the first success."""
    returns, first = by_hand(id)
    episodes = played(id, False)
    np.testing.assert_allclose(episodes.episode_return, returns, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(episodes.steps_to_success, first)


@pytest.mark.parametrize("id", KINDS)
def test_the_nominal_is_the_same_with_and_without_what_adds_noise(id):
    """It is tested once, without."""
    bare, noisy = played(id, False), played(id, True)
    np.testing.assert_array_equal(noisy.steps_to_success, bare.steps_to_success)
    # Two programs may round a continuous system's step differently.
    exact = getattr(make(id)[0], "finite", False)
    tolerance = {} if exact else {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(
        noisy.episode_return, bare.episode_return, **({"rtol": 0} | tolerance)
    )


def test_only_where_success_is_the_score_does_it_end_an_episode():
    assert [id for id in environments.names() if make(id)[0].ends_at_success] == [
        "mujoco/ant",
        "mujoco/pusher",
    ]


class Count(Environment):
    """Pays 1 a step and succeeds at every step from the third on; never terminates."""

    def reset_env(self, key, params):
        return jnp.zeros(1), jnp.int32(0)

    def step_env(self, key, state, action, params):
        return jnp.zeros(1), state + 1, jnp.float32(1), jnp.bool_(False), {}

    def is_success(self, state, params):
        return state >= 3

    def goal_distance(self, state, params):
        return 10.0 - state

    def is_truncated(self, state, params):
        return state >= params


@pytest.mark.parametrize(("declared", "paid"), [(True, 3), (False, 9)])
def test_a_task_declares_that_its_test_ends_at_success(declared, paid):
    env = Count()
    env.ends_at_success = declared
    act = lambda key, carry, state, obs: (0, carry)
    episode = play(env, act, (), jnp.int32(9), jax.random.key(0), 12)
    assert episode.episode_return == paid and episode.steps_to_success == 3
    assert episode.final_distance == 10 - paid  # where it ended, not after all steps


def test_the_robots_goals_count_over_the_whole_episode():
    """A robot that stands on its goal is paid at every step: 13 goals are no 1."""
    env, params = make("gymnax:PointRobot-misc")
    params = params.replace(goal_radius=jnp.float32(10.0), max_steps_in_episode=jnp.int32(20))
    model = uniform_model(env)
    act = lambda key, carry, state, obs: (
        model.step((), (), obs[None], None)[0].sample(key)[0],
        carry,
    )
    episode = play(env, act, (), params, jax.random.key(0), 20)
    assert episode.episode_return > 1 and episode.steps_to_success == 1
