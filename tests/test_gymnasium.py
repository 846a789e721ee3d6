"""Environments for Gymnasium: its own checks, and that they play what ours play."""

import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import entrob
from entrob.envs import environments
from entrob.envs.render import render_grid
from entrob.errors import EntrobError
from entrob.gymnasium import Env, VectorEnv, gymnasium_id, register
from entrob.gymnasium.stepping import advance_many, advance_one
from entrob.perturbations import instance_keys, perturbations
from entrob.sweep import measure

GRID, CARTPOLE, PENDULUM = "minigrid/empty-8x8", "gymnax:CartPole-v1", "gymnax:Pendulum-v1"
LEFT, FORWARD = 0, 2
# What Gymnasium calls unusual and is so: unbounded observations, actions in other units than ±1.
UNUSUAL = (
    "space (minimum|maximum) value is -?infinity|recommend using a symmetric and normalized space"
)


def key_of(seed, count=200):
    """The keys of a test's instances that nothing stratifies."""
    return jax.random.split(jax.random.split(jax.random.key(seed))[0], count)


def assert_same(one, other, **tolerance):
    """Two trees have the same form, and the same numbers to a tolerance, by default exactly."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: check(a, b, **tolerance), one, other)


def first(params):
    return jax.tree.map(lambda leaf: leaf[0], params)


@pytest.mark.parametrize(
    "environment, id",
    [
        (GRID, "entrob/minigrid-empty-8x8-v0"),
        ("mujoco/pusher", "entrob/mujoco-pusher-v0"),
        (CARTPOLE, "entrob/gymnax-CartPole-v1"),
        ("gymnax:Asterix-MinAtar", "entrob/gymnax-Asterix-MinAtar-v0"),
        ("mine/a maze@2", "entrob/mine-a-maze-2-v0"),
    ],
)
def test_ids(environment, id):
    assert gymnasium_id(environment) == id


def test_every_environment_is_registered():
    for environment in environments.names():
        spec = gymnasium.spec(gymnasium_id(environment))
        assert spec.kwargs == {"environment": environment}


@pytest.mark.parametrize(
    "id, arguments",
    [
        ("entrob/minigrid-empty-8x8-v0", {"perturbations": {"wall": 6}, "instance": 3}),
        ("entrob/gymnax-CartPole-v1", {}),
        ("entrob/gymnax-CartPole-v1", {"perturbations": {"observation_noise": 1.0, "slip": 0.5}}),
        ("entrob/gymnax-Pendulum-v1", {"perturbations": {"observation_dropout": 1.0}}),
        ("entrob/gymnax-Asterix-MinAtar-v0", {}),
    ],
)
def test_gymnasium_finds_nothing_wrong(id, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", f"(?s).*({UNUSUAL})")
        env = gymnasium.make(id, **arguments)
        check_env(env.unwrapped)
        observation, _ = env.reset(seed=0)
        for _ in range(5):
            assert observation in env.observation_space
            assert observation.dtype == env.observation_space.dtype
            observation[...] = 0  # it is the caller's
            observation, *_ = env.step(env.action_space.sample())


@pytest.mark.parametrize("id", [GRID, CARTPOLE, PENDULUM])
def test_it_plays_what_the_environment_plays(id):
    """Step by step as our `step_env` with the keys that the module says it uses."""
    env, params = entrob.make(id)
    ours = Env(id)
    key = jax.random.key(seeding.np_random(7)[0].integers(2**32, dtype=np.uint32))
    key_reset, key_steps = jax.random.split(key)
    observation, state = env.reset_env(key_reset, params)
    got, _ = ours.reset(seed=7)
    np.testing.assert_allclose(got, observation, rtol=1e-6)
    step = jax.jit(env.step_env)
    ours.action_space.seed(0)
    for t in range(8):
        action = ours.action_space.sample()
        key = jax.random.fold_in(key_steps, t)
        observation, state, reward, terminated, _ = step(key, state, jnp.asarray(action), params)
        got, got_reward, got_terminated, truncated, _ = ours.step(action)
        np.testing.assert_allclose(got, observation, rtol=1e-5, atol=1e-6)
        assert got_reward == pytest.approx(float(reward), rel=1e-5)
        assert got_terminated == bool(terminated) and truncated is False
    assert_same(ours.state, state, rtol=1e-5, atol=1e-6)


def test_the_goal_terminates_and_does_not_truncate():
    env = Env(GRID)
    env.reset()
    way = [FORWARD] * 7 + [1] + [FORWARD] * 7
    for action in way[:-1]:
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    observation, reward, terminated, truncated, info = env.step(way[-1])
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True})
    assert int(env.state.time) == len(way)
    np.testing.assert_array_equal(observation, env.environment.get_obs(env.state, env.params))


@pytest.mark.parametrize("id, action", [(GRID, LEFT), (PENDULUM, np.zeros(1, np.float32))])
def test_the_time_limit_truncates_and_shows_the_last_observation(id, action):
    """gymnax's own `step` returns the first observation of the next episode there."""
    env = Env(id)
    beginning, _ = env.reset(seed=0)
    if id == GRID:
        env.step(FORWARD)
    for _ in range(199 - (id == GRID)):
        *_, terminated, truncated, _ = env.step(action)
        assert not terminated and not truncated
    observation, _, terminated, truncated, info = env.step(action)
    assert truncated is True and terminated is False and not info.get("success")
    assert int(env.state.time) == 200
    last = env.environment.get_obs(env.state, env.params)
    np.testing.assert_allclose(observation, last, rtol=1e-6)
    assert (observation != beginning).any()
    with pytest.raises(EntrobError, match=r"the episode is over: call reset\(\) first"):
        env.step(action)
    env.reset()
    env.step(action)


@pytest.mark.parametrize("id, name, magnitude", [(GRID, "wall", 6), (CARTPOLE, "length", 0.5)])
def test_an_instance_is_that_of_a_test(id, name, magnitude):
    env = Env(id, {name: magnitude}, instance=3)
    _, nominal = entrob.make(id)
    keys = instance_keys(
        jax.random.split(jax.random.key(0))[0], perturbations.get(name, nominal), 200
    )
    assert_same(env.params, entrob.perturb(keys[3], nominal, name, magnitude))
    unlike = [Env(id, {name: magnitude}, instance=i).params for i in range(4, 9)]
    differs = lambda other: any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(env.params), jax.tree.leaves(other))
    )
    assert any(map(differs, unlike))


def test_instances_are_those_that_an_experiment_tests(tiny):
    """The evaluator itself is asked; 4 instances, a seed of 0."""
    theirs = measure.Tester(tiny).evaluator.condition(tiny.task, "wall", 8.0)
    envs = VectorEnv(tiny.environment, 4, {"wall": 8}, count=4)
    assert_same(envs.params, theirs.params)


def test_several_perturbations_are_drawn_apart_and_the_first_as_if_alone():
    both = Env(GRID, {"wall": 6, "random_walls": 4}, instance=2).params
    alone = entrob.perturb(key_of(0)[2], entrob.make(GRID)[1], "wall", 6)
    assert (both.walls | ~alone.walls).all() and both.walls.sum() == alone.walls.sum() + 4
    own = jax.random.fold_in(jax.random.split(jax.random.key(0))[0], 1)
    second = entrob.perturb(jax.random.split(own, 200)[2], alone, "random_walls", 4)
    np.testing.assert_array_equal(both.walls, second.walls)


def test_other_seeds_and_magnitude_0():
    _, nominal = entrob.make(GRID)
    assert_same(Env(GRID, {"wall": 0}, instance=5).params, nominal)
    other = Env(GRID, {"random_walls": 4}, instance=1, evaluation_seed=9).params
    assert_same(other, entrob.perturb(key_of(9)[1], nominal, "random_walls", 4))


def test_noise_acts_where_a_perturbation_needs_it():
    hidden = Env(PENDULUM, {"observation_dropout": 1.0})
    assert not hidden.reset(seed=0)[0].any()
    slippery = Env(CARTPOLE, {"slip": 0.25})
    assert slippery.params.noise.slip == 0.25
    np.testing.assert_array_equal(
        slippery.observation_space.high, Env(CARTPOLE).observation_space.high
    )
    blurred = Env(PENDULUM, {"observation_noise_raw": 1.0})
    assert np.isinf(blurred.observation_space.high).all()
    seen = np.array([blurred.reset()[0] for _ in range(10)])
    assert (abs(seen[:, :2]) > 1).any()  # no cosine or sine


def test_reset_goes_over_to_another_instance():
    env = Env(GRID, {"wall": 6}, instance=3)
    env.reset(options={"instance": 5})
    assert_same(env.params, Env(GRID, {"wall": 6}, instance=5).params)
    envs = VectorEnv(GRID, 2, {"wall": 6})
    envs.reset(options={"instances": [5, 0]})
    assert_same(first(envs.params), env.params)


def test_copies_share_compiled_programs():
    make = lambda i: (Env(GRID, {"wall": 6}, i), VectorEnv(GRID, 2, {"wall": 6}, [i, 0]))
    for env in make(0):
        env.reset()
        env.step(env.action_space.sample())
    before = advance_one._cache_size(), advance_many._cache_size()
    for env in make(1):
        env.reset()
        env.step(env.action_space.sample())
    assert (advance_one._cache_size(), advance_many._cache_size()) == before


def test_seeds():
    env = Env(CARTPOLE)
    one, two = env.reset(seed=1)[0], env.reset()[0]
    assert (one != two).any()
    np.testing.assert_array_equal(env.reset(seed=1)[0], one)
    np.testing.assert_array_equal(env.reset()[0], two)
    assert (env.reset(seed=2)[0] != one).any()
    unseeded = [Env(CARTPOLE).reset()[0] for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).any()


@pytest.mark.parametrize(
    "id, wanted, steps, tolerance",
    [
        ("minigrid/lava-crossing", {"random_walls": 3}, 205, {}),
        (CARTPOLE, {"length": 0.5}, 60, {"rtol": 1e-4, "atol": 1e-5}),
    ],
)
def test_a_vector_environment_is_its_copies(id, wanted, steps, tolerance):
    """Gymnasium's own vector of our scalar environments is the oracle, resets included."""
    instances = [4, 0, 4]
    ours = VectorEnv(id, 3, wanted, instances)
    theirs = SyncVectorEnv([lambda i=i: Env(id, wanted, i) for i in instances])
    assert ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert theirs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=5), theirs.reset(seed=5), **tolerance)
    ours.action_space.seed(1)
    ends = np.zeros(2, int)
    for _ in range(steps):
        actions = ours.action_space.sample()
        if tolerance == {}:
            actions[2] = LEFT  # in place, until the time limit
        mine, other = ours.step(actions), theirs.step(actions)
        assert_same(mine, other, **tolerance)
        for one, two in zip(mine[:4], other[:4]):
            assert one.dtype == two.dtype
        ends += [mine[2].sum(), mine[3].sum()]
    assert ends[0] > 3 and ends[1] == (id != CARTPOLE)
    assert_same(ours.reset(seed=[1, None, 3]), theirs.reset(seed=[1, None, 3]), **tolerance)
    assert ours.np_random_seed == theirs.np_random_seed == (1, 6, 3)


def test_make_vec():
    envs = gymnasium.make_vec(
        "entrob/minigrid-empty-8x8-v0", num_envs=8, perturbations={"wall": 6}, count=3
    )
    assert isinstance(envs, VectorEnv) and envs.num_envs == 8
    observations, infos = envs.reset(seed=0)
    assert observations.shape == (8, 7, 7, 3) and observations in envs.observation_space
    assert infos["success"].shape == infos["_success"].shape == (8,)
    np.testing.assert_array_equal(envs.params.walls[0], envs.params.walls[3])  # 0, 1, 2, 0, ...


def test_pictures():
    env = gymnasium.make("entrob/minigrid-four-rooms-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(1)
    own = env.unwrapped
    picture = render_grid(own.environment, own.params, own.state)
    np.testing.assert_array_equal(env.render(), picture)
    envs = VectorEnv(GRID, 2, {"wall": 6}, render_mode="rgb_array")
    envs.reset()
    one, two = envs.render()
    assert one.shape == two.shape == (320, 320, 3)
    alone = Env(GRID, {"wall": 6}, instance=1, render_mode="rgb_array")
    alone.reset()
    np.testing.assert_array_equal(two, alone.render())
    assert VectorEnv(GRID).render() is None and Env(GRID).render() is None


def test_an_environment_that_is_registered_later(monkeypatch):
    monkeypatch.setattr(environments, "_entries", dict(environments._entries))
    environments.register("mine/room:a", lambda size=6: entrob.envs.MiniGrid(size, size))
    id = register("mine/room:a")
    try:
        assert register("mine/room:a") == id
        assert gymnasium.make(id).unwrapped.environment.width == 6
        assert Env("mine/room:a", size=8).environment.width == 8
        with pytest.raises(EntrobError, match="which is another's"):
            register("mine/room/a")
    finally:
        del gymnasium.registry[id]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["minigrid/empty-8x9"], "unknown environment 'minigrid/empty-8x9': did you mean"),
        ([3], "an environment is given by its id, not by 3"),
        ([GRID, {"wal": 6}], "unknown perturbation 'wal': did you mean 'wall'"),
        ([GRID, {"wall": 99}], "the magnitude of perturbation 'wall' must be"),
        ([GRID, ["wall"]], "perturbations are names with magnitudes, not ['wall']"),
        ([CARTPOLE, {"wall": 1}], "perturbation 'wall' needs params with"),
        ([GRID, {"observation_noise": 1.0}], "observations are whole numbers"),
        ([GRID, {}, 200], "instance must be a whole number in 0..199, not 200"),
        ([GRID, {}, -1], "instance must be a whole number in 0..199, not -1"),
        ([GRID, {}, 1.5], "instance must be a whole number in 0..199, not 1.5"),
        ([GRID, {}, True], "instance must be a whole number in 0..199, not True"),
        ([GRID, {}, 0, 0], "count must be a whole number in 1..inf, not 0"),
        ([GRID, {}, 0, 5, -1], "evaluation_seed must be a whole number in 0..4294967295, not -1"),
        ([GRID, {}, 0, 5, 0, "ansi"], "render_mode must be None or 'rgb_array', not 'ansi'"),
        ([CARTPOLE, {}, 0, 5, 0, "rgb_array"], "render_mode must be None, not 'rgb_array'"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EntrobError) as error:
        Env(*arguments)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"size": 5}, "this environment takes no option such as 'size'"),
        ({"noise": True}, "no option 'noise' here: noise comes with what needs it"),
        ({"instances": [0]}, "takes no option"),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(EntrobError, match=says):
        Env(GRID, **options)


@pytest.mark.parametrize(
    "id, action",
    [
        *((GRID, action) for action in (3, -1, 1.0, [1], "left", None, [[0], [0, 1]])),
        *((PENDULUM, action) for action in (0.5, [np.nan], [0.0, 0.0], ["a"])),
    ],
)
def test_bad_actions(id, action):
    env = Env(id)
    env.reset()
    with pytest.raises(EntrobError, match="step takes an action of"):
        env.step(action)


def test_actions_of_other_types_and_beyond_the_bounds():
    env = Env(PENDULUM)
    expected = [env.reset(seed=0), env.step(np.float32([2.0]))]
    assert_same([env.reset(seed=0), env.step([5])], expected)
    grid = Env(GRID)
    grid.reset()
    for action in (1, np.int64(1), np.uint8(1), np.array(1)):
        grid.step(action)
    assert int(grid.state.dir) == 0


def test_bad_use():
    env, envs = Env(GRID), VectorEnv(GRID, 2)
    for early in (lambda: env.step(0), lambda: envs.step([0, 0]), lambda: env.state):
        with pytest.raises(EntrobError, match=r"no episode has begun: call reset\(\) first"):
            early()
    with pytest.raises(EntrobError, match="reset takes no option 'wall', only 'instance'"):
        env.reset(options={"wall": 3})
    with pytest.raises(EntrobError, match=r"instance must be a whole number in 0\.\.199"):
        env.reset(options={"instance": 200})
    for instances in ([0], [[0, 1]], 3, [[0], [0, 1], 2]):
        with pytest.raises(EntrobError, match="instances must be 2 numbers"):
            VectorEnv(GRID, 2, instances=instances)
    with pytest.raises(EntrobError, match="num_envs must be a whole number"):
        VectorEnv(GRID, 0)
    envs.reset()
    for actions in ([0], [0, 3], [[0], [0]], 0):
        with pytest.raises(EntrobError, match="step takes 2 actions of Discrete"):
            envs.step(actions)
    for seeds in ([1, 2, 3], 0.5):
        with pytest.raises(EntrobError, match="seeds must be 2 numbers"):
            envs.reset(seed=seeds)
    with pytest.raises(EntrobError, match="seed must be a whole number in 0"):
        envs.reset(seed=[0, -1])


def pusher(**more):
    id = "entrob/mujoco-pusher-v0"
    return gymnasium.make(id, perturbations={"goal_shift": 0.2}, instance=7, **more).unwrapped


def test_physics_has_options_distances_and_pictures():
    env = pusher(render_mode="rgb_array")
    goal = entrob.perturb(key_of(0)[7], entrob.make("mujoco/pusher")[1], "goal_shift", 0.2).goal_pos
    _, info = env.reset(seed=0)
    distance = float(np.linalg.norm(env.state.puck[:2] - goal))
    assert info == {"success": False, "goal_distance": pytest.approx(distance)}
    picture = env.render()
    assert picture.shape == (360, 480, 3) and picture.std() > 10
    assert env.environment is not pusher(contacts="mujoco3").environment
    with pytest.raises(EntrobError, match="unknown option of the environment 'contact'"):
        pusher(contact="mujoco3")


@pytest.mark.slow  # conformance/ plays the physics
def test_physics_steps():
    env = pusher(render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", f"(?s).*({UNUSUAL})")
        check_env(env)
    env.reset(seed=0)
    for t in range(100):
        observation, reward, terminated, truncated, info = env.step(np.ones(7))
        assert not terminated and truncated == (t == 99)
    assert np.isfinite(observation).all() and reward < 0 and info["goal_distance"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("id", ["entrob/minigrid-empty-8x8-v0", "entrob/gymnax-CartPole-v1"])
def test_stable_baselines3_finds_nothing_wrong(id):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It takes the codes of a grid's 7×7 cells for a picture that a CNN of its own should see.
        picture = "(?s).*(is an image but the|minimal resolution for an image)"
        warnings.filterwarnings("ignore", picture)
        checker.check_env(gymnasium.make(id, perturbations={"slip": 0.1}, instance=1))


@pytest.mark.slow
def test_stable_baselines3_learns(tmp_path):
    """PPO on a cart with a longer pole beats what it began with by far, and is tested here."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.evaluation import evaluate_policy

    env = gymnasium.make("entrob/gymnax-CartPole-v1", perturbations={"length": 0.5}, instance=3)
    agent = sb3.PPO("MlpPolicy", env, n_steps=256, seed=0, device="cpu")
    # Sampled: the most likely action of an untrained network may happen to balance the pole.
    play = lambda: evaluate_policy(agent, agent.get_env(), 10, deterministic=False)[0]
    before = play()
    agent.learn(10_000)
    assert play() > 2 * before
    agent.save(tmp_path / "agent.zip")
    policy = entrob.load_policy(tmp_path / "agent.zip")
    table = entrob.evaluate(policy, "gymnax:CartPole-v1", {"length": [0.5]}, instances=8)
    assert table.perturbation.tolist() == ["nominal", "length"]
    assert (table.return_mean > 2 * before).all()
