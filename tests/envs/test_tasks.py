"""Every registered environment runs as `collect` needs it; gymnax's tasks step as gymnax's do.

The perturbed equations of motion are checked against NumPy renderings in float64, written from the
textbooks: Barto, Sutton & Anderson (1983) for CartPole, Sutton & Barto (2018) for the car and, in
the form M(q) q̈ = τ - c(q, q̇) - g(q), the acrobot.
"""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.compiling import compiler_options
from entrob.envs import entropy_features, environments, make
from entrob.perturbations import perturb

IDS = environments.names()
GYMNAX = [id for id in IDS if id.startswith("gymnax:")]
COPIES, STEPS, LIMIT = 3, 50, 20
# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}


@functools.cache
def played(id):
    """50 random steps of three copies, begun anew where an episode ends, which is at step 20 at the
    latest: (env, params, what was seen, leaves [COPIES, STEPS, ...])."""
    env, params = make(id)
    params = params.replace(max_steps_in_episode=jnp.asarray(LIMIT, jnp.int32))
    space = env.action_space(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @functools.partial(jax.vmap, in_axes=(0, None))
    def play(key, params):
        def step(state, key):
            key_action, key_step, key_reset = jax.random.split(key, 3)
            action = space.sample(key_action)
            obs, after, reward, terminated, _ = env.step_env(key_step, state, action, params)
            truncated = env.is_truncated(after, params)
            success = env.is_success(after, params)
            features = entropy_features(env, after, obs, params)
            begun = env.reset_env(key_reset, params)[1]
            new = lambda a, b: jnp.where(terminated | truncated, a, b)
            inside = env.observation_space(params).contains(obs)
            out = obs, inside, reward, terminated, truncated, success, features, after.time
            return jax.tree.map(new, begun, after), out

        return jax.lax.scan(step, env.reset_env(key, params)[1], jax.random.split(key, STEPS))[1]

    names = ["obs", "inside", "reward", "terminated", "truncated", "success", "features", "time"]
    out = play(jax.random.split(jax.random.key(0), COPIES), params)
    return env, params, dict(zip(names, map(np.asarray, out), strict=True))


#: Of what takes long to compile more is asked in `test_pusher.py` and `test_ant.py`.
PLAYED = [pytest.param(id, marks=pytest.mark.slow) if id.startswith("mujoco") else id for id in IDS]


@pytest.mark.parametrize("id", PLAYED)
def test_it_runs_and_begins_anew(id):
    env, params, out = played(id)
    space = env.observation_space(params)
    assert out["obs"].shape == (COPIES, STEPS, *space.shape)
    assert out["obs"].dtype == space.dtype
    assert out["inside"].all()
    for name in ("obs", "reward", "features"):
        assert np.isfinite(out[name]).all(), name
    for name in ("terminated", "truncated", "success"):
        assert out[name].shape == (COPIES, STEPS) and out[name].dtype == bool, name
    assert out["features"].dtype == np.float32 and out["features"].ndim == 3
    # Time counts from 1 after every end, and no episode outlasts its limit.
    ends = out["terminated"] | out["truncated"]
    for time, end in zip(out["time"], ends):
        since = 0
        for t, e in zip(time, end):
            since += 1
            assert t == since <= LIMIT and e >= (since == LIMIT)
            since = 0 if e else since
    assert out["truncated"].sum() == (out["time"] == LIMIT).sum() > 0


@pytest.mark.parametrize("id", IDS)
def test_every_param_is_an_array(id):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(make(id)[1]))


@pytest.mark.parametrize("id", GYMNAX)
def test_nominally_it_steps_as_gymnax(id):
    env, params = make(id)
    theirs, their_params = gymnax.make(id.removeprefix("gymnax:"))
    assert isinstance(env, type(theirs)) and env.name == theirs.name
    space = env.action_space(params)

    def play(env, keys, params):
        def one(key):
            def step(state, key):
                key_action, key_step = jax.random.split(key)
                action = space.sample(key_action)
                obs, state, reward, terminated, _ = env.step_env(key_step, state, action, params)
                return state, (obs, reward, terminated)

            obs, state = env.reset_env(key, params)
            return obs, jax.lax.scan(step, state, jax.random.split(key, 100))[1]

        return jax.vmap(one)(keys)

    keys = jax.random.split(jax.random.key(1), 8)
    compiled = lambda env: jax.jit(functools.partial(play, env), compiler_options=QUICK)
    jax.tree.map(
        np.testing.assert_array_equal,
        compiled(env)(keys, params),
        compiled(theirs)(keys, their_params),
    )


def begun(id, **state):
    """An environment, its params and a state with some fields set."""
    env, params = make(id)
    fields = {name: jnp.asarray(value, jnp.float32) for name, value in state.items()}
    return env, params, env.reset(jax.random.key(0), params)[1].replace(**fields)


def test_success_of_cartpole_is_to_stand_at_the_limit():
    env, params, state = begun("gymnax:CartPole-v1", theta=0.1)
    assert not env.is_success(state.replace(time=499), params)
    assert env.is_success(state.replace(time=500), params)
    assert not env.is_success(state.replace(time=500, theta=0.3), params)


def test_success_of_acrobot_and_car_is_the_goal():
    for height, angle in ((0.9, 0.45), (1.1, 0.55)):  # both links at one angle: -2 cos
        env, params, state = begun("gymnax:Acrobot-v1", joint_angle1=np.arccos(-angle))
        state = state.replace(joint_angle2=jnp.float32(0.0))
        assert bool(env.is_success(state, params)) == (height > 1)
        assert env.is_success(state, params.replace(goal_height=jnp.float32(0.8)))
    for position in (0.49, 0.51):
        env, params, state = begun("gymnax:MountainCar-v0", position=position, velocity=0.01)
        assert bool(env.is_success(state, params)) == (position > 0.5)


def test_success_of_the_robot_is_to_have_reached_its_goal():
    env, params, state = begun("gymnax:PointRobot-misc")
    assert not env.is_success(state, params)
    there = state.replace(pos=state.goal)
    _, after, reward, *_ = env.step(jax.random.key(0), there, jnp.zeros(2), params)
    assert reward == 1 and env.is_success(after, params)


@pytest.mark.parametrize("id", ["Pendulum-v1", "Asterix-MinAtar", "SpaceInvaders-MinAtar"])
def test_tasks_without_a_notion_of_success_never_succeed(id):
    assert not played(f"gymnax:{id}")[2]["success"].any()


def test_features_are_in_units_of_bounds_and_hold_neither_time_nor_action():
    env, params, state = begun("gymnax:CartPole-v1", x=1.2, x_dot=3.0, theta=0.1, theta_dot=-1.0)
    limit = np.radians(12)
    np.testing.assert_allclose(
        env.entropy_features(state, params), [0.5, 3, 0.1 / limit, -1], rtol=1e-6
    )
    env, params, state = begun("gymnax:MountainCar-v0", position=-0.3, velocity=0.035)
    np.testing.assert_allclose(env.entropy_features(state, params), [-0.3, 0.5], rtol=1e-6)
    env, params, state = begun("gymnax:Pendulum-v1", theta=np.pi / 2, theta_dot=-4.0)
    np.testing.assert_allclose(env.entropy_features(state, params), [0, 1, -0.5], atol=1e-6)
    angles = {"joint_angle1": 0.0, "joint_angle2": np.pi / 2}
    env, params, state = begun(
        "gymnax:Acrobot-v1", **angles, velocity_1=2 * np.pi, velocity_2=-9 * np.pi
    )
    np.testing.assert_allclose(
        env.entropy_features(state, params), [1, 0, 0, 1, 0.5, -1], atol=1e-6
    )
    env, params, state = begun("gymnax:PointRobot-misc", pos=[0.3, -0.2], time=7.0)
    np.testing.assert_allclose(env.entropy_features(state, params), [0.3, -0.2])
    env, params, state = begun("gymnax:Asterix-MinAtar")
    np.testing.assert_array_equal(env.entropy_features(state, params), [5, 5])
    env, params, state = begun("gymnax:SpaceInvaders-MinAtar")
    np.testing.assert_array_equal(env.entropy_features(state, params), [5, 24])


def test_cartpole_does_not_trust_stale_derived_params():
    """A file's ``params = { masspole = 0.3 }`` sets that field alone."""
    env, params, state = begun("gymnax:CartPole-v1", theta=0.1, theta_dot=0.5)
    stale = params.replace(masspole=jnp.float32(0.3), length=jnp.float32(1.0))
    true = stale.replace(total_mass=jnp.float32(1.3), polemass_length=jnp.float32(0.3))
    key = jax.random.key(0)
    np.testing.assert_array_equal(
        env.step(key, state, 1, stale)[0], env.step(key, state, 1, true)[0]
    )


def cartpole(state, action, gravity=9.8, cart=1.0, pole=0.1, length=0.5, force=10.0, tau=0.02):
    x, v, angle, spin = state
    push = force if action else -force
    sin, cos, total = np.sin(angle), np.cos(angle), cart + pole
    shared = (push + pole * length * spin**2 * sin) / total
    angular = (gravity * sin - cos * shared) / (length * (4 / 3 - pole * cos**2 / total))
    linear = shared - pole * length * angular * cos / total
    return np.array([x + tau * v, v + tau * linear, angle + tau * spin, spin + tau * angular])


def car(state, action, gravity=0.0025, force=0.001):
    x, v = state
    v = np.clip(v + force * (action - 1) - gravity * np.cos(3 * x), -0.07, 0.07)
    x = np.clip(x + v, -1.2, 0.6)
    return np.array([x, 0.0 if x == -1.2 and v < 0 else v])


def pendulum(state, action, gravity=10.0, mass=1.0, length=1.0, torque=2.0):
    angle, spin = state
    u = np.clip(action, -torque, torque)
    pull = 1.5 * gravity / length * np.sin(angle) + 3 * u / (mass * length**2)
    spin = np.clip(spin + 0.05 * pull, -8, 8)
    return np.array([angle + 0.05 * spin, spin])


def acrobot(state, action, gravity=9.8, mass=1.0, length=1.0, inertia=1.0, torque=1.0):
    def derivative(y):
        (a, b), (da, db), center = y[:2], y[2:], length / 2
        coupling = mass * length * center
        m22 = mass * center**2 + inertia
        m12 = m22 + coupling * np.cos(b)
        m11 = mass * center**2 + inertia + m22 + mass * length**2 + 2 * coupling * np.cos(b)
        bend = coupling * np.sin(b)
        c = np.array([-bend * (2 * da * db + db**2), bend * da**2])
        lower = mass * gravity * center * np.sin(a + b)
        g = np.array([mass * gravity * (center + length) * np.sin(a) + lower, lower])
        tau = np.array([0.0, (action - 1) * torque])
        return np.concatenate([[da, db], np.linalg.solve([[m11, m12], [m12, m22]], tau - c - g)])

    h = 0.2
    k1 = derivative(state)
    k2 = derivative(state + h / 2 * k1)
    k3 = derivative(state + h / 2 * k2)
    k4 = derivative(state + h * k3)
    after = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    after[:2] = (after[:2] + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([after[:2], np.clip(after[2:], [-4 * np.pi, -9 * np.pi], np.pi * 9)])


FIELDS = {
    "gymnax:CartPole-v1": (cartpole, ("x", "x_dot", "theta", "theta_dot")),
    "gymnax:MountainCar-v0": (car, ("position", "velocity")),
    "gymnax:Pendulum-v1": (pendulum, ("theta", "theta_dot")),
    "gymnax:Acrobot-v1": (acrobot, ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2")),
}
CASES = [  # id, perturbation, magnitude, what the textbook's constants become for a factor f
    ("gymnax:CartPole-v1", "gravity", 1.0, lambda f: {"gravity": 9.8 * f}),
    ("gymnax:CartPole-v1", "mass", 9.0, lambda f: {"pole": 0.1 * f}),
    ("gymnax:CartPole-v1", "length", 3.0, lambda f: {"length": 0.5 * f}),
    ("gymnax:CartPole-v1", "force", 0.5, lambda f: {"force": 5.0}),
    ("gymnax:MountainCar-v0", "gravity", 1.0, lambda f: {"gravity": 0.0025 * f}),
    ("gymnax:MountainCar-v0", "force", 0.5, lambda f: {"force": 0.0005}),
    ("gymnax:Pendulum-v1", "gravity", 1.0, lambda f: {"gravity": 10.0 * f}),
    ("gymnax:Pendulum-v1", "mass", 1.0, lambda f: {"mass": f}),
    ("gymnax:Pendulum-v1", "length", 1.0, lambda f: {"length": f}),
    ("gymnax:Pendulum-v1", "force", 0.5, lambda f: {"torque": 1.0}),
    ("gymnax:Acrobot-v1", "gravity", 1.0, lambda f: {"gravity": 9.8 * f}),
    ("gymnax:Acrobot-v1", "mass", 1.0, lambda f: {"mass": f, "inertia": f}),
    ("gymnax:Acrobot-v1", "length", 1.0, lambda f: {"length": f, "inertia": f**2}),
    ("gymnax:Acrobot-v1", "force", 0.5, lambda f: {"torque": 0.5}),
]


@functools.cache
def stepper(id):
    env, _ = make(id)
    step = lambda state, action, params: env.step_env(jax.random.key(0), state, action, params)
    return jax.jit(jax.vmap(step, (0, 0, None)), compiler_options=QUICK)


@pytest.mark.parametrize(("id", "name", "magnitude", "constants"), CASES)
def test_perturbed_steps_are_those_of_the_textbook(id, name, magnitude, constants):
    textbook, fields = FIELDS[id]
    env, params = make(id)
    rng = np.random.default_rng(0)
    high = {"gymnax:MountainCar-v0": [0.5, 0.06]}.get(id, [0.3, 1.0, 0.2, 1.5])[: len(fields)]
    high = [3.0, 5.0] if id == "gymnax:Pendulum-v1" else high
    before = rng.uniform(-1, 1, (64, len(fields))) * high
    state = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], 64, 0), begun(id)[2])
    state = state.replace(**dict(zip(fields, before.T.astype(np.float32))))
    continuous = id == "gymnax:Pendulum-v1"
    actions = rng.uniform(-2, 2, 64) if continuous else rng.integers(0, env.num_actions, 64)
    given = jnp.asarray(actions[:, None] if continuous else actions, jnp.result_type(actions))
    found = set()
    for seed in range(6):  # both signs
        exact = name if name == "force" else f"{name}_exact"
        changed = perturb(jax.random.key(seed), params, exact, magnitude)
        after = stepper(id)(state, given, changed)[1]
        got = np.stack([getattr(after, field) for field in fields], 1)
        close = []
        for factor in (1 + magnitude, 1 / (1 + magnitude)):
            expected = [textbook(s, a, **constants(factor)) for s, a in zip(before, actions)]
            close.append(np.allclose(got, expected, rtol=2e-5, atol=2e-5))
        assert any(close)
        found.add(tuple(close))
        # And not those of the nominal constants.
        nominal = np.array([textbook(s, a) for s, a in zip(before, actions)])
        assert np.abs(got - nominal).max() > 1e-4
    assert len(found) == (1 if name == "force" else 2)
