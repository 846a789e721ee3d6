"""Each perturbation of physics reaches what it claims to, in Pusher and in Ant.

One compiled step serves a whole environment: everything perturbed is a traced leaf of its params.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.perturbations import perturb, perturbations

# Quick to compile and slow to run, which suits a test.
QUICK = compiler_options() | {"xla_backend_optimization_level": 0}
PUSHER, ANT = "mujoco/pusher", "mujoco/ant"
NAMES = [
    *((PUSHER, name) for name in ("wall", "goal_shift", "joint_damping", "joint_range")),
    *((PUSHER, name) for name in ("puck_mass", "actuator_gain", "observation_noise_raw")),
    *((PUSHER, name) for name in ("action_noise", "action_delay")),
    *((ANT, name) for name in ("hurdle", "leg_failure", "friction", "torso_mass")),
    *((ANT, name) for name in ("actuator_gain", "observation_noise_raw", "action_noise")),
    (ANT, "action_delay"),
]


@functools.cache
def build(id):
    """The environment with noise, its params, and its compiled reset and step."""
    env, params = make(id, noise=True)
    compiled = lambda f: jax.jit(f, compiler_options=QUICK)
    return env, params, compiled(env.reset_env), compiled(env.step_env)


def begin(id, name=None, magnitude=0.0, seed=0):
    """Perturbed params, and the observation and state that an episode begins with."""
    _, params, reset, _ = build(id)
    if name:
        params = perturb(jax.random.key(seed), params, name, magnitude)
    return params, *reset(jax.random.key(0), params)


def play(id, params, state, actions):
    """Steps with given actions: observations, the last state, rewards."""
    step, seen, rewards = build(id)[3], [], []
    for i, action in enumerate(actions):
        observation, state, reward, _, _ = step(jax.random.key(i), state, action, params)
        seen.append(np.asarray(observation))
        rewards.append(float(reward))
    return np.array(seen), state, np.array(rewards)


def still(id, steps):
    return jnp.zeros((steps, build(id)[0].num_actions))


def moved(state, qpos=None, qvel=None):
    """A state with some positions and velocities set, by index."""
    for name, values in (("qpos", qpos or {}), ("qvel", qvel or {})):
        array = getattr(state, name)
        for index, value in values.items():
            array = array.at[index].set(value)
        state = state.replace(**{name: array})
    return state


def chosen(id, steps, seed=0):
    """Random actions well within the bounds."""
    shape = (steps, build(id)[0].num_actions)
    return jax.random.uniform(jax.random.key(seed), shape, minval=-0.5, maxval=0.5)


@pytest.mark.parametrize(("id", "name"), NAMES)
def test_magnitude_0_is_the_identity_and_the_largest_is_felt(id, name):
    _, params, *_ = build(id)
    nothing = perturb(jax.random.key(5), params, name, 0)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(nothing), strict=True):
        assert jnp.asarray(old).dtype == jnp.asarray(new).dtype
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
    # Where the puck or the ant comes to what is perturbed within three steps.
    put, kick = {}, {}
    if name == "wall":
        put, kick = {7: -0.22, 8: 0.13}, {7: 1.0, 8: -1.0}
    if name == "puck_mass":
        kick = {7: 1.0}
    if name == "joint_range":
        put = {0: 1.7}
    if name == "hurdle":
        put, kick = {0: 3.2}, {0: 5.0}
    if name == "friction":
        put, kick = {2: 0.55}, {0: 2.0}
    ends = []
    for magnitude in (0, perturbations.get(name, params).range(params)[1]):
        changed, _, state = begin(id, name, magnitude)
        seen, *_ = play(id, changed, moved(state, put, kick), chosen(id, 3))
        ends.append(seen[-1])
    assert np.isfinite(ends).all()
    assert (ends[0] != ends[1]).any()


def beside_a_block(name, magnitude, wall):
    """Where a resting puck, 15 mm into the corner of the paper's middle block, is after a step."""
    params, _, state = begin(PUSHER, name, magnitude)
    params = perturb(jax.random.key(0), params, "wall", wall)
    state = moved(state, {7: -0.25 + 0.05, 8: 0.59 - 0.45})
    return play(PUSHER, params, state, still(PUSHER, 1))[1]


def test_a_wall_pushes_the_puck_away_and_is_not_observed():
    np.testing.assert_array_equal(begin(PUSHER, "wall", 2)[1], begin(PUSHER)[1])
    none, paper, wide = (np.asarray(beside_a_block(None, 0, w).qvel[7:]) for w in (0, 1, 2))
    assert not none.any()
    # Blocks are on the diagonal through (0.55, -0.21), and the puck is below it: down, right.
    assert paper[0] < 0 < paper[1] and wide[0] < 0 < wide[1]
    assert np.linalg.norm(wide) > 1.5 * np.linalg.norm(paper)


def test_a_shifted_goal_is_observed_and_rewarded():
    nominal, _, state = begin(PUSHER)
    params, observation, shifted = begin(PUSHER, "goal_shift", 0.15)
    np.testing.assert_array_equal(observation[-3:-1], params.goal_pos)
    np.testing.assert_allclose(jnp.linalg.norm(params.goal_pos - nominal.goal_pos), 0.15, rtol=1e-5)
    _, end, before = play(PUSHER, nominal, state, still(PUSHER, 1))
    _, shifted_end, after = play(PUSHER, params, shifted, still(PUSHER, 1))
    np.testing.assert_array_equal(end.qpos, shifted_end.qpos)
    closer = [np.linalg.norm(end.puck[:2] - p.goal_pos) for p in (nominal, params)]
    height = float(end.puck[2] - observation[-1])
    lost = np.hypot(closer, height)
    np.testing.assert_allclose(after - before, lost[0] - lost[1], atol=1e-6)
    assert abs(after - before) > 0.01
    at_goal = moved(shifted, {7: params.goal_pos[1] + 0.05, 8: params.goal_pos[0] - 0.45})
    _, at_goal, _ = play(PUSHER, params, at_goal, still(PUSHER, 1))
    success = build(PUSHER)[0].is_success
    assert success(at_goal, params) and not success(at_goal, nominal)


def test_damping_slows_every_joint_down():
    # Away from the ends of the ranges, two of which are where episodes begin.
    speeds = []
    for magnitude in (0, 4):
        params, _, state = begin(PUSHER, "joint_damping", magnitude)
        pose = {3: -0.5, 5: -0.5}
        ends = [
            play(PUSHER, params, moved(state, pose, {joint: 1.0}), still(PUSHER, 1))[1].qvel[joint]
            for joint in range(7)
        ]
        speeds.append(np.array(ends))
    assert (speeds[1] < speeds[0]).all() and (speeds[0] < 1).all() and (speeds[1] > 0).all()


def test_a_narrower_range_pushes_every_joint_back():
    low, high = np.asarray(begin(PUSHER)[0].joint_range).T
    for joint in range(7):
        # Not the upper end: of the shoulder's lift, under the table; of two where episodes begin.
        angle = 0.99 * (low[joint] if joint in (1, 3, 5) else high[joint])
        speeds = []
        for magnitude in (0, 0.5):
            params, _, state = begin(PUSHER, "joint_range", magnitude)
            pose = {3: -0.5, 5: -0.5, joint: angle}
            state = moved(state, pose)
            end = play(PUSHER, params, state, still(PUSHER, 1))[1]
            speeds.append(float(end.qvel[joint]) * np.sign(angle))
        assert abs(speeds[0]) < 0.1 and speeds[1] < -1, joint


def test_a_heavier_puck_is_as_hard_to_enter_and_slides_on_longer():
    """Contacts are stiffer by as much as the puck's inertia is larger: it gets the same speed, of
    which the table's drag takes less."""
    speeds = [
        float(jnp.linalg.norm(beside_a_block("puck_mass", magnitude, 1).qvel[7:]))
        for magnitude in (0, 4)
    ]
    assert 1.3 < speeds[1] / speeds[0] < 1.9
    env, nominal, *_ = build(PUSHER)
    host = env.chain.host
    inertia = (float(nominal.puck_mass) + host.dof_armature[7]) * np.array([1, 5])
    # Implicit damping, five timesteps of 10 ms.
    shares = (1 + 0.01 * float(nominal.puck_friction) / inertia) ** -5.0
    assert shares[1] - shares[0] > 0.3
    for magnitude, share in zip((0, 4), shares):
        params, _, state = begin(PUSHER, "puck_mass", magnitude)
        end = play(PUSHER, params, moved(state, qvel={7: 0.5}), still(PUSHER, 1))[1]
        np.testing.assert_allclose(end.qvel[7], 0.5 * share, rtol=2e-5)


def test_a_heavier_puck_under_todays_contacts_is_pushed_harder():
    """There only its 8 mg count, which its contacts feel and its motion hardly."""
    nominal = build(PUSHER)[1].replace(contact_armature=jnp.float32(0))
    heavier = perturb(jax.random.key(0), nominal, "puck_mass", 4)
    np.testing.assert_allclose(heavier.puck_mass, 5 * nominal.puck_mass, rtol=1e-6)
    speeds = []
    for params in (nominal, heavier):
        _, _, state = begin(PUSHER)
        state = moved(state, {7: -0.25 + 0.05, 8: 0.59 - 0.45})
        params = perturb(jax.random.key(0), params, "wall", 1)
        speeds.append(
            float(jnp.linalg.norm(play(PUSHER, params, state, still(PUSHER, 1))[1].qvel[7:]))
        )
    assert 4 < speeds[1] / speeds[0] < 5.1


@pytest.mark.parametrize("id", [PUSHER, ANT])
def test_a_smaller_gain_is_a_smaller_action(id):
    params, _, state = begin(id, "actuator_gain", 0.75)
    seen, *_ = play(id, params, state, chosen(id, 3))
    expected, *_ = play(id, begin(id)[0], state, chosen(id, 3) / 4)
    np.testing.assert_allclose(seen, expected, atol=2e-4)
    limp, _, state = begin(id, "actuator_gain", 1)
    np.testing.assert_array_equal(
        play(id, limp, state, chosen(id, 3))[0], play(id, limp, state, still(id, 3))[0]
    )


def test_a_failing_leg_is_a_hip_and_its_ankle():
    env, *_ = build(ANT)
    names = [env.legged.host.actuator(i).name for i in range(8)]
    failed = set()
    for seed in range(12):
        params, _, state = begin(ANT, "leg_failure", 1, seed)
        limp = np.flatnonzero(np.asarray(params.actuator_gain) == 0)
        hip, ankle = (names[i] for i in limp)
        assert hip.startswith("hip_") and ankle == hip.replace("hip", "ankle")
        failed.add(hip)
        if len(failed) == 1:
            actions = chosen(ANT, 3)
            without = actions.at[:, limp].set(0)
            seen, *_ = play(ANT, params, state, actions)
            expected, *_ = play(ANT, begin(ANT)[0], state, without)
            np.testing.assert_allclose(seen, expected, atol=2e-4)
    assert len(failed) == 4


def test_a_hurdle_stops_the_ant_and_is_not_observed():
    ends = {}
    for height in (0, 0.6):
        params, observation, state = begin(ANT, "hurdle", height)
        np.testing.assert_array_equal(observation, begin(ANT)[1])
        state = moved(state, {0: 2.8, 2: 0.6}, {0: 4.0})
        _, state, _ = play(ANT, params, state, still(ANT, 8))
        ends[height] = float(build(ANT)[0].trace(state)[0])
    assert ends[0] > ends[0.6] + 0.2


def test_with_less_friction_the_ant_slides_on():
    ends = {}
    for magnitude in (0, 0.9):
        params, _, state = begin(ANT, "friction", magnitude)
        state = moved(state, {2: 0.5}, {0: 3.0})
        _, state, _ = play(ANT, params, state, still(ANT, 8))
        ends[magnitude] = float(build(ANT)[0].trace(state)[0])
    assert ends[0.9] > ends[0] + 0.1


def test_a_heavier_torso_is_moved_less_by_the_legs():
    """In the air, where momentum is kept: mass times speed of the torso is what the legs give."""
    speeds = {}
    for magnitude in (0, 2):
        params, _, state = begin(ANT, "torso_mass", magnitude)
        rest = dict(enumerate(build(ANT)[0].legged.host.qpos0))
        state = moved(state, {**rest, 2: 3.0}, dict.fromkeys(range(14), 0.0))
        ankles = jnp.array([[0.0, 1, 0, 1, 0, 0, 0, 0]])  # not all, whose pushes would cancel
        _, state, _ = play(ANT, params, state, ankles)
        speeds[magnitude] = float(jnp.linalg.norm(state.qvel[:2]))
    assert speeds[0] > 1.1 * speeds[2] > 0


@pytest.mark.parametrize("id", [PUSHER, ANT])
def test_noise_and_delay(id):
    """Their statistics are tested in test_noise.py; here, that they act on these environments."""
    nominal, clean, state = begin(id)
    params, observation, _ = begin(id, "observation_noise_raw", 0.01)
    error = np.asarray(observation - clean)
    assert (error != 0).all() and 0.003 < error.std() < 0.03
    seen, end, _ = play(id, nominal, state, chosen(id, 4))
    noisy, noisy_end, _ = play(id, params, state, chosen(id, 4))
    np.testing.assert_array_equal(end.qpos, noisy_end.qpos)
    assert (seen != noisy).all()

    params, _, state = begin(id, "action_noise", 0.1)
    _, jittered, _ = play(id, params, state, chosen(id, 4))
    high = build(id)[0].action_space(params).high
    error = np.asarray(jittered.executed_action - chosen(id, 4)[-1]) / high
    assert (error != 0).all() and 0.02 < error.std() < 0.3
    assert (jittered.qpos != end.qpos).any()

    params, _, state = begin(id, "action_delay", 2)
    actions = chosen(id, 4)
    late, *_ = play(id, params, state, actions)
    by_hand, *_ = play(id, nominal, state, actions[np.array([0, 0, 0, 1])])
    np.testing.assert_array_equal(late, by_hand)
