"""`mujoco/pusher` by itself: rewards, success, params that reach the dynamics, bad input.

tests/conformance/test_pusher.py compares it with Gymnasium's.
"""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.envs.mujoco.pusher import environment as pusher
from entrob.errors import EntrobError
from entrob.perturbations import perturb

ENV, NOMINAL = make("mujoco/pusher")
WALLED = NOMINAL.replace(block_on=jnp.float32(1))
KEY = jax.random.key(0)
OPTIONS = compiler_options()
STEPS = 60


def episode(params, start, actions):
    """The observations, states and rewards of an episode from a state on."""

    def step(state, action):
        obs, state, reward, terminated, _ = ENV.step_env(KEY, state, action, params)
        return state, (obs, state, reward, terminated)

    return jax.lax.scan(step, start, actions)[1]


begin = jax.jit(jax.vmap(lambda params: ENV.reset_env(KEY, params)[1]))
#: The one program for all tests: a batch of episodes, of as many params.
traced = chex.assert_max_traces(episode, n=1)
episodes = jax.jit(jax.vmap(traced), compiler_options=OPTIONS)
#: And one of a single step.
step = jax.jit(ENV.step, compiler_options=OPTIONS)


def played(*variants, change=lambda start: start, still=False):
    """Episodes of up to 8 variants of params, with the same actions, or none if they are still."""
    variants = (*variants, *[NOMINAL] * (8 - len(variants)))
    params = jax.tree.map(lambda *x: jnp.stack(x), *variants)
    rng = np.random.default_rng(0)
    # Down onto the puck's side of the table, and about.
    actions = rng.normal([0.6, 0.8, 0, 0.2, 0, 0, 0], 0.7, (STEPS, 7)).clip(-2, 2)
    actions = jnp.tile(jnp.float32(0 * actions if still else actions), (8, 1, 1))
    return episodes(params, change(begin(params)), actions)


def test_spaces_and_shapes():
    obs, state = ENV.reset_env(KEY, NOMINAL)
    assert ENV.observation_space(NOMINAL).contains(obs)
    assert obs.shape == (23,) and obs.dtype == jnp.float32
    np.testing.assert_allclose(obs[17:], [0.65, -0.35, -0.275, 0.45, -0.05, -0.323], atol=1e-6)
    space = ENV.action_space(NOMINAL)
    assert space.shape == (7,) and (space.low, space.high) == (-2, 2)
    np.testing.assert_allclose(ENV.trace(state), [0.65, -0.35], atol=1e-6)
    np.testing.assert_array_equal(ENV.entropy_features(state, NOMINAL), ENV.trace(state))
    chex.assert_tree_all_finite((obs, state))


def test_reward_is_made_of_the_observed_positions():
    weighted = NOMINAL.replace(control_weight=jnp.float32(0.3), near_weight=jnp.float32(2))
    obs, _, reward, terminated = played(NOMINAL, weighted)
    near = np.linalg.norm(obs[..., 14:17] - obs[..., 17:20], axis=-1)
    far = np.linalg.norm(obs[..., 17:20] - obs[..., 20:], axis=-1)
    np.testing.assert_allclose(reward[0], -0.5 * near[0] - far[0], rtol=1e-5)
    paid_for_actions = -2 * near[1] - far[1] - reward[1]
    assert 0.3 * 7 * 0.3 < paid_for_actions.mean() < 0.3 * 7 * 4
    assert not terminated.any()


def test_positions_are_one_timestep_older_than_angles():
    obs, state, *_ = played(NOMINAL)
    now = np.array([0.45, -0.05]) + np.asarray(state.qpos[0, :, [8, 7]]).T
    before = now - 0.01 * np.asarray(state.qvel[0, :, [8, 7]]).T
    np.testing.assert_allclose(obs[0, :, 17:19], before, atol=1e-6)


def test_success_is_the_puck_near_the_goal():
    _, state = ENV.reset_env(KEY, NOMINAL)
    goal = np.array([0.45, -0.05])
    for away, expected in [(0.0, True), (0.099, True), (0.101, False), (0.3, False)]:
        puck = jnp.float32([goal[0] + away * 0.6, goal[1] - away * 0.8, -0.275])
        assert bool(ENV.is_success(state.replace(puck=puck), NOMINAL)) == expected
    wide = NOMINAL.replace(success_radius=jnp.float32(0.4))
    assert not ENV.is_success(state, NOMINAL) and ENV.is_success(state, wide)


def test_truncation_after_the_limit_and_auto_reset():
    _, state = ENV.reset_env(KEY, NOMINAL)
    state = state.replace(time=jnp.int32(98), puck=state.puck + 0.1)
    _, state, _, terminated, truncated, _ = step(KEY, state, jnp.zeros(7), NOMINAL)
    assert not truncated and state.time == 99
    obs, state, _, terminated, truncated, info = step(KEY, state, jnp.ones(7), NOMINAL)
    assert truncated and not terminated and state.time == 0
    np.testing.assert_array_equal(obs, ENV.reset_env(KEY, NOMINAL)[0])
    assert np.abs(info["final_observation"] - obs).max() > 1e-3


CHANGES = {
    "puck_mass": jnp.float32(0.1),
    "contact_armature": jnp.float32(0.0),
    "puck_friction": 0.3 * NOMINAL.puck_friction,
    "joint_damping": 3 * NOMINAL.joint_damping,
    "joint_range": 0.3 * NOMINAL.joint_range,
    "actuator_gain": 0.5 * NOMINAL.actuator_gain,
    "goal_pos": NOMINAL.goal_pos + 0.1,
}


def test_params_reach_the_dynamics_in_one_program():
    first = played(*(NOMINAL.replace(**{name: value}) for name, value in CHANGES.items()))
    nominal = jax.tree.map(lambda x: np.asarray(x)[-1], first)
    for i, name in enumerate(CHANGES):
        _, state, reward, _ = jax.tree.map(lambda x, i=i: np.asarray(x)[i], first)
        assert np.abs(reward - nominal[2]).max() > 1e-4, name
        moved = np.abs(state.qpos - nominal[1].qpos)
        assert (moved.max() > 1e-3) == (name != "goal_pos"), name
        if name.startswith(("puck", "contact")):  # reached through the puck
            assert moved[:, 7:].max() > 1e-3


def test_blocks_stand_in_the_way_where_and_as_large_as_params_say():
    """The puck is thrown at blocks: it stops sooner at larger ones and misses shifted ones."""
    start = jnp.array([-0.3, 0.2])
    speed = jnp.array([6.0, -4.0])  # along the slides: the straight way to the goal

    def thrown(state):
        qpos, qvel = state.qpos.at[:, 7:].set(start), state.qvel.at[:, 7:].set(speed)
        return state.replace(qpos=qpos, qvel=qvel)

    stands = WALLED
    soft = stands.replace(contact_armature=jnp.float32(0))
    variants = [
        NOMINAL,
        stands,
        stands.replace(block_size=2 * stands.block_size),
        stands.replace(block_pos=stands.block_pos + jnp.array([0.3, 0.0])),
        soft,
    ]
    _, after, *_ = played(*variants, change=thrown, still=True)
    free, paper, larger, shifted, through = after.qpos[: len(variants), 19, 7]
    assert larger < paper - 0.01 and paper < free - 0.05
    np.testing.assert_allclose(shifted, free, atol=1e-6)
    assert paper < through - 0.05  # what soft contacts do not stop


def test_contacts_of_a_version_are_an_option_of_make():
    new, params = make("mujoco/pusher", contacts="mujoco3")
    assert params.contact_armature == 0 and NOMINAL.contact_armature == jnp.float32(0.04)
    assert [p.margin for p in new.chain.pairs] == [2 * p.margin for p in ENV.chain.pairs]
    with pytest.raises(EntrobError, match="unknown contacts 'mujoco1': did you mean 'mujoco"):
        make("mujoco/pusher", contacts="mujoco1")
    with pytest.raises(EntrobError, match="'contact': did you mean 'contacts'"):
        make("mujoco/pusher", contact="mujoco3")
    with pytest.raises(EntrobError, match="takes no option such as 'contacts'"):
        make("minigrid/empty-8x8", contacts="mujoco3")


def test_random_starts_are_gymnasiums_and_clear_of_the_blocks():
    draw = jax.jit(lambda keys, params: jax.vmap(ENV.reset_env, (0, None))(keys, params)[1])
    keys = jax.random.split(KEY, 4000)
    random = WALLED.replace(fixed_start=jnp.bool_(False))
    wide = random.replace(block_size=2 * random.block_size)
    for params in (random, wide, random.replace(block_on=jnp.float32(0))):
        state = draw(keys, params)
        puck, slides = np.asarray(state.puck[:, :2]), np.asarray(state.qpos[:, 7:])
        assert (slides >= [-0.3, -0.2]).all() and (slides <= [0, 0.2]).all()
        assert np.linalg.norm(puck - [0.45, -0.05], axis=1).min() > 0.17
        gap = np.abs(puck[:, None] - params.block_pos) - params.block_size
        touching = (np.linalg.norm(np.maximum(gap, 0), axis=-1) < 0.05).any(1)
        assert touching.any() != (params.block_on > 0)
        assert 0.002 < np.abs(state.qvel[:, :7]).max() <= 0.005
        assert not state.qvel[:, 7:].any() and not state.qpos[:, :7].any()
    fixed = draw(keys, WALLED)
    assert not fixed.qvel.any() and np.ptp(fixed.qpos, axis=0).max() == 0


@pytest.mark.slow  # two programs; in conformance/test_pusher.py copies side by side are C MuJoCo's
def test_side_by_side_is_one_by_one():
    """Nested vmap, and with params mapped or not, gives each copy what it gets alone."""
    variants = jax.tree.map(lambda *x: jnp.stack(x), NOMINAL, WALLED)
    keys = jax.random.split(KEY, 3)
    random = variants.replace(fixed_start=jnp.zeros(2, bool))
    actions = jnp.array([[1.0] * 7, [-1.0] * 7])

    def after_two(key, params):
        _, state = ENV.reset_env(key, params)
        move = lambda state, a: ENV.step_env(key, state, a, params)[1::-1]
        return jax.lax.scan(move, state, actions)[1][-1]

    nested = jax.vmap(jax.vmap(after_two, (0, None)), (None, 0))
    together = jax.jit(nested, compiler_options=OPTIONS)(keys, random)
    reset = jax.jit(ENV.reset_env)

    def alone(key, params):
        _, state = reset(key, params)
        for action in actions:
            obs, state, *_ = step(key, state, action, params)
        return obs

    for i in range(2):
        params = jax.tree.map(lambda x, i=i: x[i], random)
        for j in range(3):
            np.testing.assert_allclose(together[i, j], alone(keys[j], params), atol=2e-5)


def test_scene_shows_what_stands():
    assert ENV.scene(NOMINAL)["blocks"].shape == (0, 4)
    scene = ENV.scene(WALLED)
    np.testing.assert_allclose(scene["blocks"][1], [0.55, -0.21, 0.015, 0.015], rtol=1e-6)
    assert scene["goal"] == pytest.approx((0.45, -0.05)) and scene["radius"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["wall", "joint_range", "joint_damping", "puck_mass"])
def test_the_strongest_perturbations_are_legal(name):
    high = {"wall": 2, "joint_range": 0.5, "joint_damping": 9, "puck_mass": 4}[name]
    ENV.check_params(perturb(KEY, NOMINAL, name, high))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_pos": WALLED.block_pos.at[1].set(jnp.array([0.6, -0.3]))}, "block 1 .* start"),
        ({"goal_pos": jnp.array([0.53, -0.23])}, "block 0 overlaps the goal"),
        ({"block_size": -WALLED.block_size}, "block_size must be a finite number of at least 0"),
        ({"puck_mass": jnp.float32(0)}, "puck_mass must be a finite number above 0"),
        ({"success_radius": jnp.float32(-1)}, "success_radius must be a finite number above 0"),
        (
            {"joint_damping": -NOMINAL.joint_damping},
            "joint_damping must be a finite number of at least 0",
        ),
        (
            {"contact_armature": jnp.float32(-1)},
            "contact_armature must be a finite number of at least 0",
        ),
        (
            {"puck_friction": jnp.float32(jnp.nan)},
            "puck_friction must be a finite number of at least 0, not nan",
        ),
        ({"joint_range": NOMINAL.joint_range[:, ::-1]}, "joint_range must rise"),
    ],
)
def test_params_that_make_no_task_are_refused(change, message):
    ENV.check_params(WALLED)
    with pytest.raises(EntrobError, match=message) as error:
        ENV.check_params(WALLED.replace(**change))
    assert "\n" not in str(error.value)


def xml(old="", new=""):
    text = (pusher.physics.resources() / "pusher.xml").read_text()
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such.xml", "model 'no_such.xml' does not load: .*No such file"),
        ("<mujoco><worldbody>", "the model does not load: .*"),
        (xml('name="tips_arm"', 'name="tip"'), "unknown body 'tips_arm': did you mean 'tip'"),
        (xml('name="obj_slidex"', 'name="slide"'), "unknown joint 'obj_slidex'"),
        (xml('name="block2"', 'name="block3"'), "unknown geom 'block2'"),
        (xml('margin="0.002" condim="1"', 'condim="3"'), "it needs contacts without friction"),
        (xml('<motor joint="r_wrist_roll_joint"/>'), "it needs a motor on every hinge"),
    ],
)
def test_models_that_do_not_fit_are_refused(model, message):
    with pytest.raises(EntrobError, match=message) as error:
        pusher.Pusher(model)
    assert "\n" not in str(error.value)


@pytest.mark.slow  # a process of its own
def test_mujoco_is_imported_only_when_needed():
    code = (
        "import sys, entrob\n"
        "entrob.make('minigrid/empty-8x8')\n"
        "print('mujoco' in sys.modules, 'brax' in sys.modules)\n"
        "entrob.make('mujoco/pusher')\n"
        "print('mujoco' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\nTrue\n"
