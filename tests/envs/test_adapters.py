"""Other libraries' environments: every one that is registered runs under jit and vmap."""

import functools
import subprocess
import sys
import warnings

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from entrob.compiling import compiler_options
from entrob.envs import adapters, environments, make
from entrob.errors import EntrobError
from entrob.perturbations import perturb

GYMNAX = [id for id in gymnax.registered_envs if id not in adapters.EXCLUDED]
FAST = ["fast"]  # and the inverted pendulum, of which more is asked below
SLOW = ["ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_double_pendulum"]
SLOW += ["inverted_pendulum", "pusher", "reacher", "walker2d"]
# brax 0.14.2 calls a function of JAX in a way that is gone: passing will tell when it is mended.
BROKEN = ["swimmer"]
BREAKS = [pytest.mark.xfail(raises=EntrobError, strict=True)]
BRAX = [
    *FAST,
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    *(pytest.param(name, marks=[*BREAKS, pytest.mark.slow]) for name in BROKEN),
]
COPIES, STEPS = 3, 4
# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}


def smoke(env, params):
    """A few steps of a few copies with random actions, compiled as one program."""
    space = env.action_space(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @functools.partial(jax.vmap, in_axes=(0, None))
    def play(key, params):
        def step(state, key):
            key_action, key_step = jax.random.split(key)
            action = space.sample(key_action)
            observation, state, reward, terminated, _ = env.step_env(
                key_step, state, action, params
            )
            truncated = env.is_truncated(state, params)
            return state, (observation, reward, terminated, truncated, state.time)

        observation, state = env.reset_env(key, params)
        return observation, jax.lax.scan(step, state, jax.random.split(key, STEPS))[1]

    first, rest = play(jax.random.split(jax.random.key(0), COPIES), params)
    observation, reward, terminated, truncated, time = rest
    shape = env.observation_space(params).shape
    assert first.shape == (COPIES, *shape) and observation.shape == (COPIES, STEPS, *shape)
    assert first.dtype == observation.dtype
    assert np.isfinite(observation).all() and np.isfinite(reward).all()
    assert reward.shape == terminated.shape == truncated.shape == time.shape == (COPIES, STEPS)
    assert terminated.dtype == truncated.dtype == bool
    np.testing.assert_array_equal(time, np.tile(np.arange(1, STEPS + 1), (COPIES, 1)))
    return first, rest


#: Take long to compile: in fast tests they are traced.
LONG = ("Freeway-MinAtar", "Seaquest-MinAtar")


@pytest.mark.parametrize("id", LONG)
def test_what_takes_long_to_compile_is_traced(id):
    env, params = make(f"gymnax:{id}")
    key, space = jax.random.key(0), env.observation_space(params)
    observation, state = jax.eval_shape(env.reset_env, key, params)
    step = jax.eval_shape(env.step_env, key, state, env.action_space(params).sample(key), params)
    assert observation.shape == step[0].shape == space.shape
    assert observation.dtype == step[0].dtype
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    assert shapes(step[1]) == shapes(state) and step[2].shape == step[3].shape == ()


# Of those that are tasks of entrob's own, too, more is asked in test_tasks.py.
@pytest.mark.parametrize(
    "id",
    [
        pytest.param(id, marks=pytest.mark.slow)
        if id in LONG or f"gymnax:{id}" in environments.names()
        else id
        for id in GYMNAX
    ],
)
def test_every_gymnax_environment_runs(id):
    env, params = make(f"gymnax:{id}")
    assert isinstance(env, environment.Environment)
    space = env.action_space(params)
    if isinstance(space, spaces.Box):  # as a policy over a box needs it
        assert np.isfinite([space.low, space.high]).all()
    else:
        assert isinstance(space, spaces.Discrete)
    smoke(env, params)


def test_all_of_brax_is_tested():
    assert sorted(adapters.brax_names()) == sorted([*FAST, *SLOW, *BROKEN])


@pytest.mark.parametrize("name", BRAX)
def test_every_brax_environment_runs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that it is not maintained is no news to our users
        env, params = make(f"brax:{name}")
        assert isinstance(env, environment.Environment) and env.name == f"brax:{name}"
        first, (observation, *_) = smoke(env, params)
    assert (np.asarray(observation) != np.asarray(first)[:, None]).any()


@pytest.fixture(scope="module")
def pendulum():
    """The pendulum of brax, and its compiled reset, step_env and step."""
    env, params = make("brax:inverted_pendulum")
    compiled = lambda f: jax.jit(f, compiler_options=QUICK)
    return env, params, compiled(env.reset_env), compiled(env.step_env), compiled(env.step)


def test_a_brax_environment_ends_as_brax_says_and_at_1000_steps(pendulum):
    env, params, reset, step_env, _ = pendulum
    key = jax.random.key(0)
    _, state = reset(key, params)
    ends = []
    for _ in range(5):  # pushed one way, the pole falls
        _, state, _, terminated, _ = step_env(key, state, jnp.ones(1), params)
        assert bool(terminated) == (abs(float(state.brax.obs[1])) > 0.2)
        ends.append(bool(terminated))
    assert not ends[0] and ends[-1]
    assert not env.is_truncated(state.replace(time=999), params)
    assert env.is_truncated(state.replace(time=1000), params)


def test_a_brax_environment_is_reset_by_gymnax(pendulum):
    _, params, reset, _, step = pendulum
    params = params.replace(max_steps_in_episode=jnp.array(2, jnp.int32))
    key = jax.random.key(1)
    _, state = reset(key, params)
    times = []
    for _ in range(4):
        observation, state, *_, truncated, info = step(key, state, jnp.zeros(1), params)
        times.append((int(state.time), bool(truncated)))
    assert times == [(1, False), (0, True), (1, False), (0, True)]
    np.testing.assert_array_equal(observation, state.brax.obs)
    assert (info["final_observation"] != observation).any()


def test_a_step_leaves_the_state_it_began_with_alone():
    """brax writes into dictionaries of the state; outside of jit they would be the caller's."""

    class Counting:
        action_size = 1

        def step(self, state, action):
            state.metrics.update(steps=state.metrics["steps"] + 1)
            state.info["seen"] = True
            return state

    from brax.envs.base import State

    env = object.__new__(adapters.Brax)
    env._env = Counting()
    zero = jnp.zeros(())
    before = State(None, jnp.zeros(2), zero, zero, {"steps": 0}, {})
    state = adapters.BraxState(jnp.int32(0), before)
    after = env.step_env(jax.random.key(0), state, jnp.zeros(1), None)[1]
    assert after.time == 1 and after.brax.metrics == {"steps": 1}
    assert (before.metrics, before.info) == ({"steps": 0}, {})


def test_the_noise_of_entrob_acts_on_brax_environments():
    env, params = make("brax:fast", noise=True)
    key = jax.random.key(0)
    params = perturb(key, params, "action_delay", 1)
    _, state = env.reset_env(key, params)
    speeds = []
    for action in (-1.0, 1.0, 1.0):  # it moves where actions are positive
        observation, state, *_ = env.step_env(key, state, jnp.full(1, action), params)
        speeds.append(float(observation[1]))
    np.testing.assert_allclose(speeds, [0, 0, 0.02], atol=1e-7)


@pytest.mark.slow  # a process of its own; no module of ours but envs/adapters.py names brax
def test_everything_else_works_without_brax():
    code = f"""
import sys
sys.modules["brax"] = None  # so importing it fails
import jax, entrob
for id in {[*environments.names(), "gymnax:CartPole-v1"]}:
    env, params = entrob.make(id)
    jax.eval_shape(env.reset_env, jax.random.key(0), params)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("id", "words"),
    [
        (
            "gymnax:CartPol-v1",
            "unknown environment 'gymnax:CartPol-v1': did you mean 'gymnax:CartPole",
        ),
        ("gymnax:", "unknown environment 'gymnax:'"),
        ("gymnax:MNISTBandit-bsuite", "is not offered: gymnax downloads its images"),
        ("brax:aant", "unknown environment 'brax:aant': did you mean 'brax:ant'"),
        ("bracks:ant", "unknown library of environments 'bracks': did you mean 'brax'"),
        (":ant", "unknown library of environments ''"),
        ("CartPole-v1", "unknown environment 'CartPole-v1'"),
        ("minigrid/emty-8x8", "did you mean 'minigrid/empty-8x8'"),
    ],
)
def test_unknown_names(id, words):
    with pytest.raises(EntrobError, match=words) as caught:
        make(id)
    assert "\n" not in str(caught.value)
