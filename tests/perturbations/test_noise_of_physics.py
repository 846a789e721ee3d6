"""The noises that physics needs, on a gymnax environment with a box for actions."""

import functools
from typing import ClassVar

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.envs.wrappers import with_noise
from entrob.errors import EntrobError
from entrob.perturbations import perturb

N = 4000
# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def rollout(env, params, actions):
    """(states, observations, rewards, ...) of one long rollout with given actions, auto-reset."""

    def step(state, inputs):
        key, action = inputs
        observation, after, *rest = env.step(key, state, action, params)
        return after, (after, observation, *rest)

    _, state = env.reset(jax.random.key(0), params)
    return jax.lax.scan(step, state, (jax.random.split(jax.random.key(1), len(actions)), actions))[
        1
    ]


def close(frequency, probability, n=N):
    """Within 4.5 standard deviations of a binomial: wrong once in 10^5 seeds, and ours is fixed."""
    return abs(frequency - probability) < 4.5 * np.sqrt(probability * (1 - probability) / n)


@struct.dataclass
class PlantState(environment.EnvState):
    time: jax.Array
    action: jax.Array


@struct.dataclass
class PlantParams(environment.EnvParams):
    max_steps_in_episode: int = 10**6


class Plant(environment.Environment):
    """Does nothing; shows the time, once as a whole number, and remembers the executed action."""

    low, high = jnp.array([-1.0, 0.0]), jnp.array([3.0, 0.5])

    @property
    def default_params(self):
        return PlantParams()

    def action_space(self, params):
        return spaces.Box(self.low, self.high, (2,))

    def _seen(self, time):
        return {"blurred": jnp.full(3, time, jnp.float32), "whole": time}

    def reset_env(self, key, params):
        time = jnp.zeros((), jnp.int32)
        return self._seen(time), PlantState(time, jnp.zeros(2))

    def step_env(self, key, state, action, params):
        time = state.time + 1
        return self._seen(time), PlantState(time, action), 0.0, jnp.zeros((), bool), {}


@functools.cache
def plant_and_params():
    return with_noise(Plant(), PlantParams())


def noisy_plant(name, magnitude, steps=10**6):
    env, params = plant_and_params()
    params = params.replace(max_steps_in_episode=steps)
    return env, perturb(jax.random.key(0), params, name, magnitude)


def within(values, mean, std):
    """Mean and standard deviation of a normal sample, each within 4.5 of its own."""
    n = values.size
    centered = abs(values.mean() - mean) < 4.5 * std / np.sqrt(n)
    return centered and abs(values.std() / std - 1) < 4.5 / np.sqrt(2 * n)


def test_observation_noise_is_gaussian_everywhere_and_leaves_the_state_alone():
    env, params = noisy_plant("observation_noise_raw", 0.25)
    after, seen, _, _, _, info = rollout(env, params, jnp.zeros((N, 2)))
    np.testing.assert_array_equal(after.time, np.arange(1, N + 1))
    np.testing.assert_array_equal(seen["whole"], after.time)  # whole numbers stay
    chex.assert_trees_all_equal(seen, info["final_observation"])
    error = np.asarray(seen["blurred"]) - np.asarray(after.time)[:, None]
    assert within(error, 0.0, 0.25)
    assert abs((np.abs(error) < 0.25).mean() - 0.6827) < 0.02
    assert np.abs(np.corrcoef(error.T)[np.triu_indices(3, 1)]).max() < 4.5 / np.sqrt(N)
    assert abs(np.corrcoef(error[1:, 0], error[:-1, 0])[0, 1]) < 4.5 / np.sqrt(N)
    # The first one of an episode too.
    keys = jax.random.split(jax.random.key(0), 1000)
    reset = jax.jit(jax.vmap(env.reset, (0, None)), compiler_options=QUICK)
    firsts = np.asarray(reset(keys, params)[0]["blurred"])
    assert within(firsts, 0.0, 0.25)


class Spread(Plant):
    """A plant that says how much what is seen of it varies."""

    observation_spread: ClassVar = {"whole": 3.0, "blurred": np.array([0.1, 2.0, 0.0])}


def test_observation_noise_is_measured_in_the_spread_of_each_number():
    env, params = with_noise(Spread(), PlantParams())
    np.testing.assert_allclose(params.noise.observation_spread["blurred"], [0.1, 2.0, 0.0])
    params = perturb(
        jax.random.key(0), params.replace(max_steps_in_episode=N), "observation_noise", 0.5
    )
    after, seen, *_ = rollout(env, params, jnp.zeros((N, 2)))
    np.testing.assert_array_equal(seen["whole"], after.time)
    error = np.asarray(seen["blurred"]) - np.asarray(after.time)[:, None]
    assert within(error[:, 0], 0.0, 0.05) and within(error[:, 1], 0.0, 1.0)
    assert not error[:, 2].any()  # what never varies is known
    # Onto noise in its own unit, variances add up.
    both = perturb(jax.random.key(0), params, "observation_noise_raw", 1.0)
    blurred = both.noise.observation_noise["blurred"]
    np.testing.assert_allclose(blurred, np.hypot([0.05, 1.0, 0.0], 1.0), rtol=1e-6)


def test_a_spread_that_is_not_like_an_observation_is_refused():
    class Wrong(Plant):
        observation_spread: ClassVar = {"whole": 3.0, "blurred": np.ones(4)}

    class Flat(Plant):
        observation_spread: ClassVar = np.ones(3)

    for plant in (Wrong(), Flat()):
        with pytest.raises(EntrobError, match="observation_spread must be like an observation"):
            with_noise(plant, PlantParams())


def test_a_dropped_observation_is_zero_whatever_its_noise():
    env, params = noisy_plant("observation_noise_raw", 1.0)
    params = perturb(jax.random.key(0), params, "observation_dropout", 1.0)
    seen = rollout(env, params, jnp.zeros((20, 2)))[1]
    assert not np.asarray(seen["blurred"]).any()


def test_action_noise_is_a_fraction_of_half_the_range_of_each_component():
    env, params = noisy_plant("action_noise", 0.1)
    middle = (Plant.low + Plant.high) / 2
    after, *_ = rollout(env, params, jnp.tile(middle, (N, 1)))
    np.testing.assert_array_equal(after.action, after.executed_action)
    error = np.asarray(after.action - middle)
    assert within(error[:, 0], 0.0, 0.1 * 2.0)
    assert within(error[:, 1], 0.0, 0.1 * 0.25)
    assert abs(np.corrcoef(error.T)[0, 1]) < 4.5 / np.sqrt(N)


def test_action_noise_stays_within_the_bounds():
    env, params = noisy_plant("action_noise", 1.0)
    after = rollout(env, params, jnp.tile(Plant.high, (N, 1)))[0]
    action = np.asarray(after.action)
    assert (action >= Plant.low).all() and (action <= Plant.high).all()
    assert close((action == Plant.high).mean(0)[0], 0.5)
    assert close((action == Plant.low).mean(0)[0], 0.0228)  # two standard deviations down


def test_a_sticky_action_repeats_the_noise_of_the_action():
    env, params = noisy_plant("action_noise", 0.5)
    params = perturb(jax.random.key(0), params, "sticky_action", 1.0)
    action = np.asarray(rollout(env, params, jnp.zeros((50, 2)))[0].action)
    assert (action == action[0]).all()
    assert action[0].any()


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
def test_action_delay_executes_what_was_chosen_that_many_steps_ago(delay):
    """And before that the first action of the episode, whatever the one before ended with."""
    env, params = noisy_plant("action_delay", delay, steps=7)
    chosen = jax.random.uniform(jax.random.key(0), (21, 2))
    after, _, _, _, truncated, _ = rollout(env, params, chosen)
    assert np.flatnonzero(truncated).tolist() == [6, 13, 20]
    step = np.arange(21)
    begin = step - step % 7
    expected = np.asarray(chosen)[np.maximum(step - delay, begin)]
    shown = ~np.asarray(truncated)  # then the state is that of the next episode
    np.testing.assert_array_equal(np.asarray(after.action)[shown], expected[shown])
    assert len(set(expected[:7, 0].tolist())) == 7 - delay


def test_slip_sets_in_after_the_delay():
    env, params = noisy_plant("action_delay", 3)
    params = perturb(jax.random.key(0), params, "slip", 0.5)
    action = np.asarray(rollout(env, params, jnp.ones((N, 2)) * 0.25)[0].action)
    slipped = (action != 0.25).any(1)
    assert close(slipped.mean(), 0.5)
    assert abs(np.corrcoef(slipped[1:], slipped[:-1])[0, 1]) < 4.5 / np.sqrt(N)  # not delayed
    # Uniform over a box whose bounds differ by component.
    assert close((action[slipped] < (Plant.low + Plant.high) / 2).mean(0)[0], 0.5, slipped.sum())
    assert (action >= Plant.low).all() and (action <= Plant.high).all()


def test_noises_of_physics_compose():
    params = with_noise(Plant(), PlantParams())[1]
    key = jax.random.key(0)
    for name in ("observation_noise_raw", "action_noise"):
        twice = perturb(key, perturb(key, params, name, 0.3), name, 0.4)
        noise = getattr(twice.noise, name.removesuffix("_raw"))
        noise = noise["blurred"] if name == "observation_noise_raw" else noise
        np.testing.assert_allclose(noise, np.full(np.shape(noise), 0.5), rtol=1e-6)
    delay = [perturb(key, perturb(key, params, "action_delay", a), "action_delay", b).noise
             for a, b in ((1, 2), (2, 3))]  # fmt: skip
    assert [float(noise.action_delay) for noise in delay] == [3, 3]


@pytest.mark.parametrize(
    ("id", "name", "words"),
    [
        ("CartPole-v1", "action_noise", "the actions of this environment are no box with bounds"),
        ("FourRooms-misc", "observation_noise", "observations are whole numbers, see observation_"),
        ("minigrid/empty-8x8", "observation_noise", "observations are whole numbers"),
        ("CartPole-v1", "observation_noise", "declare its observation_spread, see observation_no"),
        ("Pendulum-v1", "wall", "needs params with 'walls' or "),
    ],
)
def test_noise_that_cannot_act_is_refused(id, name, words):
    _, params = with_noise(*(make(id) if id.startswith("minigrid") else gymnax.make(id)))
    with pytest.raises(EntrobError, match=words) as caught:
        perturb(jax.random.key(0), params, name, 0.1)
    assert "\n" not in str(caught.value)


def test_a_box_without_bounds_has_no_action_noise():
    class Free(Plant):
        high = jnp.array([jnp.inf, 0.5])

    noise = with_noise(Free(), PlantParams())[1].noise
    assert noise.action_noise is None and noise.observation_noise is not None


@pytest.mark.parametrize(("name", "bad"), [("action_delay", 1.5), ("action_delay", 4)])
def test_a_delay_is_a_whole_number_of_at_most_3_steps(name, bad):
    _, params = with_noise(*gymnax.make("CartPole-v1"))
    with pytest.raises(EntrobError, match=r"must be a whole number in 0\.\.3"):
        perturb(jax.random.key(0), params, name, bad)
