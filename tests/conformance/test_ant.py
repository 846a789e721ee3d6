"""`mujoco/ant` against Gymnasium's Ant-v5 in C MuJoCo, on the same controls, and over a wall.

Motors this strong on a body this light make contact chaotic within ten steps: there single steps
from the same states are compared, and what many episodes come to.

Margins of two geoms add up since MuJoCo 3.5. The paper's did not, nor do ours: here C MuJoCo has
half of each.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from optimized import OPTIMIZED
from scipy import stats

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.envs.mujoco.ant import body, legged, legged_step

gymnasium = pytest.importorskip("gymnasium")

ENV, NOMINAL = make("mujoco/ant")
WALLED = NOMINAL.replace(wall_height=jnp.float32(0.3))
#: Episodes take longer to play than their program takes to compile.
OPTIONS = compiler_options() | OPTIMIZED


class Size(NamedTuple):
    """How many episodes are played how long: most of the time goes into playing them.

    Attributes:
      free: thrown up.
      relaxed: of these with joints that stay within their ranges.
      floor: on the floor, or over the wall.
      steps: of the longest episodes.
      some: steps that are also compared one by one.
    """

    free: int
    relaxed: int
    floor: int
    steps: int
    some: int

    @property
    def all(self):
        return self.free + self.floor


#: Where the fast tests see a median, the slow ones see what is rare.
FAST, WHOLE = Size(18, 6, 30, 50, 20), Size(18, 6, 108, 100, 30)


@pytest.fixture(scope="module", params=[FAST, pytest.param(WHOLE, marks=pytest.mark.slow)],
                ids=["fast", "whole"])  # fmt: skip
def size(request):
    return request.param


@functools.partial(jax.jit, compiler_options=OPTIONS)
def program(params, qpos, qvel, actions, count, forced):
    """The first `count` steps of episodes [n, t]: qpos, qvel, obs and rewards after each action.

    They begin at the first of the states [n, t], and go on from their own or, if `forced`, from
    the one that is given at every step. Params have a leading axis [n].
    """

    def episode(params, qpos, qvel, actions):
        _, start = ENV.reset_env(jax.random.key(0), params)

        def step(t, carry):
            state, seen = carry
            given = state.replace(qpos=qpos[t], qvel=qvel[t], seen=qpos[t, :3])
            state = jax.tree.map(functools.partial(jnp.where, forced | (t == 0)), given, state)
            obs, state, reward, *_ = ENV.step_env(jax.random.key(0), state, actions[t], params)
            after = state.qpos, state.qvel, obs, reward
            return state, jax.tree.map(lambda x, y: x.at[t].set(y), seen, after)

        seen = [jnp.zeros((len(actions), *shape)) for shape in ((15,), (14,), (27,), ())]
        return jax.lax.fori_loop(0, count, step, (start, tuple(seen)))[1]

    return jax.vmap(episode)(params, qpos, qvel, actions)


def play(size, params, qpos, qvel, actions, forced=False):
    """See `program`; one params for all or several for as many equal parts.

    There are `size.all` episodes of at most `size.steps` steps, so that one program plays all.
    """
    params = params if isinstance(params, list) else [params]
    share = np.arange(len(qpos)) * len(params) // len(qpos)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves)[share], *params)
    if not forced:
        qpos, qvel = qpos[:, None], qvel[:, None]
    count = actions.shape[1]
    states = [
        jnp.asarray(np.pad(x, ((0, 0), (0, size.steps - x.shape[1]), (0, 0))), jnp.float32)
        for x in (qpos, qvel, actions)
    ]
    return [np.asarray(x)[:, :count] for x in program(params, *states, count, forced)]


def ant_v5(params=None):
    """Gymnasium's, with our reward, observation and margins; in our world if params are given."""
    env = gymnasium.make(
        "Ant-v5",
        healthy_reward=0,
        ctrl_cost_weight=0,
        contact_cost_weight=0,
        terminate_when_unhealthy=False,
        include_cfrc_ext_in_observation=False,
    ).unwrapped
    env.reset(seed=0)
    if params is not None:
        env.model = ENV.world(params)
        env.data = mujoco.MjData(env.model)
    env.model.geom_margin[:] /= 2
    return env


def play_in_gymnasium(env, qpos, qvel, actions):
    """The same as `play`, and how many contacts, those with the wall, and rows of constraints."""
    wall = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_GEOM, "wall")
    out = []
    for q, v, controls in zip(qpos, qvel, actions):
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(q, v)
        episode = []
        for action in controls:
            obs, reward, terminated, *_ = env.step(action)
            assert not terminated
            geom = env.data.contact.geom
            seen = env.data.ncon, (geom == wall).any(1).sum(), env.data.nefc
            episode.append((env.data.qpos.copy(), env.data.qvel.copy(), obs, reward, *seen))
        out.append(list(map(np.array, zip(*episode))))
    return [np.stack(x) for x in zip(*out)]


def cut(size, qpos, qvel, actions):
    """As many episodes of `WHOLE`, and as long, as a size has."""
    return qpos[: size.all], qvel[: size.all], actions[: size.all, : size.steps]


def starts(size, seed):
    """Gymnasium's random starts, and actions of which a third are held for half a second."""
    rng, n = np.random.default_rng(seed), WHOLE.all
    qpos = ENV.legged.host.qpos0 + rng.uniform(-0.1, 0.1, (n, 15))
    actions = rng.uniform(-1, 1, (n, WHOLE.steps, 8))
    actions[::3] = np.repeat(actions[::3, ::10], 10, axis=1)
    return cut(size, qpos, 0.1 * rng.standard_normal((n, 14)), actions)


def rush(size, seed):
    """Starts close before the wall, thrown at it from various heights and angles."""
    qpos, qvel, actions = starts(WHOLE, seed)
    rng, n = np.random.default_rng(seed), WHOLE.all
    qpos[:, 0] = 3 - rng.uniform(0, 0.6, n)
    qpos[:, 2] = rng.uniform(0.4, 0.9, n)
    qpos[:, 3:7] += rng.normal(0, 0.3, (n, 4))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qvel[:, 0] = rng.uniform(2, 6, n)
    return cut(size, qpos, qvel, actions)


def apart(ours, theirs):
    """Largest difference of a state's positions, and of its velocities, [n, t]."""
    return [np.abs(a - b).max(-1) for a, b in zip(ours[:2], theirs[:2])]


def quantiles(name, x, at=(0.5, 0.9, 0.95, 1)):
    print(f"{name}: " + ", ".join(f"{q:.0%} {v:.2g}" for q, v in zip(at, np.quantile(x, at))))


def single_steps(size, params, start, theirs):
    """Every step of Gymnasium's episodes, from its states: errors of positions, velocities, obs."""
    before = [np.concatenate([s[:, None], x[:, :-1]], 1) for s, x in zip(start[:2], theirs)]
    ours = play(size, params, *before, start[2][:, : before[0].shape[1]], forced=True)
    return *apart(ours, theirs), np.abs(ours[2] - theirs[2]).max(-1)


@pytest.fixture(scope="module")
def gym():
    return ant_v5()


@pytest.fixture(scope="module")
def nominal(size, gym):
    """Starts, ours and Gymnasium's; the first ones thrown up, and some of these relaxed."""
    qpos, qvel, actions = starts(size, seed=0)
    qpos[: size.free, 2] += 3
    qvel[: size.free, 2] += 0.5 * 9.81 * 2.5
    # Joints in the middle of their ranges, and controls that leave them there.
    qpos[: size.relaxed, 8::2] += np.deg2rad([50, -50, -50, 50])
    qvel[: size.relaxed, 6:] = 0
    actions[: size.relaxed] *= 0.002
    start = qpos, qvel, actions
    return start, play(size, NOMINAL, *start), play_in_gymnasium(gym, *start)


@pytest.fixture(scope="module")
def walled(size):
    start = rush(size, seed=1)
    start = *start[:2], start[2][:, :60]
    return start, play(size, WALLED, *start), play_in_gymnasium(ant_v5(WALLED), *start)


def test_the_model_has_gymnasiums_numbers(gym):
    ours, theirs = ENV.legged.host, gym.model
    for name in (
        *("body_mass", "body_inertia", "body_pos", "body_ipos", "body_iquat", "body_invweight0"),
        *("jnt_type", "jnt_axis", "jnt_range", "jnt_limited", "jnt_solref", "jnt_solimp"),
        *("dof_armature", "dof_damping", "dof_invweight0", "qpos0", "opt.timestep", "opt.gravity"),
        *("actuator_gear", "actuator_gainprm", "actuator_ctrlrange", "actuator_trnid", "opt.cone"),
        *("opt.integrator", "opt.impratio", "opt.solver"),
    ):
        a, b = (functools.reduce(getattr, name.split("."), m) for m in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=1e-12, err_msg=name)
    own, body = (np.flatnonzero(m.geom_bodyid > 0) for m in (ours, theirs))
    for name in ("size", "pos", "quat", "friction", "condim", "solref", "solimp"):
        a, b = (getattr(m, f"geom_{name}") for m in (ours, theirs))
        np.testing.assert_allclose(a[own], b[body], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(ours.geom_margin[own], 2 * theirs.geom_margin[body])
    assert ENV.legged.margin == ours.geom_margin[own[0]] == 0.01
    assert make("mujoco/ant", margins_add_up=True)[0].legged.margin == 0.02


def anywhere(n, seed):
    """States of any orientation, height and speed, and controls beyond their range."""
    rng = np.random.default_rng(seed)
    qpos = ENV.legged.host.qpos0 + rng.normal(0, 0.4, (n, 15))
    qpos[:, 2] = rng.uniform(0.2, 1, n)
    qpos[:, 3:7] = rng.normal(size=(n, 4))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, rng.normal(0, 3, (n, 14)), rng.uniform(-1.2, 1.2, (n, 8))


def held(params, ctrl):
    """What `legged` makes of params and controls [n, 8]."""
    knobs = jax.tree.map(lambda x: jnp.repeat(x[..., None], len(ctrl), -1), ENV.knobs(params))
    return legged.prepare(ENV.legged, knobs, jnp.float32(ctrl.T))


def test_inertia_and_forces_are_mujocos():
    params = NOMINAL.replace(torso_mass=jnp.float32(1.3))
    host = ENV.world(params)
    data, n = mujoco.MjData(host), 16
    qpos, qvel, ctrl = anywhere(n, seed=3)

    @jax.jit
    def ours(qpos, qvel):
        known = held(params, ctrl)
        pose = body.pose(ENV.legged, qpos)
        return pose.turn, *body.dynamics(ENV.legged, known.trunk, pose, qvel), known.torque

    turn, mass, bias, torque = ours(jnp.float32(qpos.T), jnp.float32(qvel.T))
    for i in range(n):
        data.qpos, data.qvel, data.ctrl = qpos[i], qvel[i], ctrl[i]
        mujoco.mj_forward(host, data)
        theirs = np.zeros((14, 14))
        for row, unit in zip(theirs, np.eye(14)):
            mujoco.mj_mulM(host, data, row, unit)
        # The root's linear part is along its own axes here, along the world's there.
        into, own = np.eye(14), np.zeros((14, 14))
        into[:3, :3] = turn[..., i].T
        own[:6, :6] = mass.root[..., i]
        own[:6, 6:] = mass.side[..., i].reshape(6, 8)
        own[6:, :6] = own[:6, 6:].T
        for leg in range(4):
            own[6 + 2 * leg : 8 + 2 * leg, 6 + 2 * leg : 8 + 2 * leg] = mass.legs[leg, ..., i]
        np.testing.assert_allclose(own, into @ theirs @ into.T, atol=2e-6)
        mine = np.append(bias.root[:, i], bias.legs[..., i])
        np.testing.assert_allclose(mine, into @ data.qfrc_bias, atol=2e-5)
        np.testing.assert_allclose(torque[..., i].ravel(), data.qfrc_actuator[6:], rtol=1e-6)


@pytest.mark.slow  # steps with and without contacts are compared below
def test_accelerations_are_mujocos_however_the_body_lies():
    """On its feet, its back or its side; the torso's ball touches the floor once."""
    host = ENV.world(NOMINAL)
    host.geom_margin[:] /= 2
    data, n = mujoco.MjData(host), 64
    qpos, qvel, ctrl = anywhere(n, seed=4)
    qpos[::2, 2] = np.random.default_rng(4).uniform(0.2, 0.25, n // 2)

    @functools.partial(jax.jit, compiler_options=OPTIONS)
    def ours(qpos, qvel, start):
        return legged_step.accelerate(ENV.legged, held(NOMINAL, ctrl), qpos, qvel, start)

    found = jnp.zeros((14, n))
    for _ in range(6):
        found = ours(jnp.float32(qpos.T), jnp.float32(qvel.T), found)
    touched, errors = [], []
    for i in range(n):
        data.qpos, data.qvel, data.ctrl = qpos[i], qvel[i], ctrl[i]
        mujoco.mj_forward(host, data)
        if data.ncon > ENV.legged.contacts:
            continue
        touched.append((data.contact.geom == ENV.legged.geoms[1]).any())
        errors.append(np.abs(found[:, i] - data.qacc).max() / np.abs(data.qacc).max())
    print(f"{sum(touched)} of {len(touched)} on the ball")
    quantiles("accelerations over the largest of them", errors)
    assert sum(touched) > 10 and len(touched) - sum(touched) > 10
    assert max(errors) < 1e-5


def test_free_motion_is_equal_over_50_steps(size, nominal):
    _, ours, theirs = nominal
    relaxed = slice(size.relaxed), slice(50)
    assert theirs[6][relaxed].max() == 0  # no constraint of any kind
    qpos, qvel = (e[relaxed] for e in apart(ours, theirs))
    quantiles("free motion, 50 steps, positions", qpos[:, -1])
    assert qpos.max() < 1e-4 and qvel.max() < 1e-4
    np.testing.assert_allclose(ours[2][relaxed], theirs[2][relaxed], atol=1e-4)
    np.testing.assert_allclose(ours[3][relaxed], theirs[3][relaxed], atol=1e-4)


def test_in_the_air_only_rounding_and_joint_limits_tell(size, nominal):
    _, ours, theirs = nominal
    air = slice(size.relaxed, size.free), slice(50)
    assert theirs[4][air].max() == 0 and theirs[6][air].max() > 0
    qpos = apart(ours, theirs)[0][air][:, -1]
    quantiles("thrown up, full controls, 50 steps, positions", qpos)
    assert np.quantile(qpos, 0.5) < 1e-4 and np.quantile(qpos, 0.9) < 3e-4


def test_no_more_contacts_at_once_than_are_kept(nominal, walled):
    most = max(nominal[2][4].max(), walled[2][4].max())
    print(f"at most {most} contacts at once, {ENV.legged.contacts} are kept")
    assert most <= ENV.legged.contacts


def test_single_steps_on_the_floor(size, nominal):
    start, _, theirs = nominal
    theirs = [x[:, : size.some] for x in theirs]
    errors = single_steps(size, NOMINAL, start, theirs)
    touching = theirs[4] > 0
    assert touching.mean() > 0.15
    qpos, qvel, obs = (error[touching] for error in errors)
    print(f"{touching.sum()} steps that end with floor contact")
    for name, error in (("positions", qpos), ("velocities", qvel)):
        quantiles(f"one step from the same state, {name}", error, (0.5, 0.9, 0.99, 1))
    assert np.quantile(qpos, 0.5) < 3e-5 and np.quantile(qpos, 0.99) < 1e-3
    np.testing.assert_array_less(obs, np.maximum(qpos, qvel) + 1e-5)


def test_episodes_on_the_floor_come_to_the_same(size, nominal, gym):
    start, ours, theirs = nominal
    floor = slice(size.free, None)
    nudged = start[0].copy()
    nudged[:, 7:] += 1e-6
    again = play_in_gymnasium(gym, nudged[floor], start[1][floor], start[2][floor])
    for t in (t for t in (3, 5, 10, 20, 50, 100) if t <= size.steps):
        for name, other in (("ours", ours[0][floor]), ("C, angles 1e-6 rad off", again[0])):
            off = np.linalg.norm(other[:, t - 1, :3] - theirs[0][floor, t - 1, :3], axis=-1)
            quantiles(f"torso after {t} steps in m, {name}", off)
            if t == 5:
                assert np.median(off) < 1e-4
    # Then it is chance: a millionth of a radian parts C MuJoCo from itself, and float32, which
    # begins with ten times as much, does so sooner. On the whole they do the same.
    for column in (0, 2):
        mine, gyms = (x[0][floor, 49::50, column].T for x in (ours, theirs))
        for a, b in zip(mine, gyms):
            off = a - b
            print(f"paired difference {off.mean():.3f} ± {stats.sem(off):.3f} m")
            assert abs(off.mean()) < 3 * stats.sem(off)
            assert stats.ks_2samp(a, b).pvalue > 0.01
    mine, gyms = (x[3][floor].sum(1) for x in (ours, theirs))
    assert stats.ks_2samp(mine, gyms).pvalue > 0.01


def test_single_steps_against_the_wall(size, walled):
    start, _, theirs = walled
    theirs = [x[:, : size.some] for x in theirs]
    errors = single_steps(size, WALLED, start, theirs)
    touching = theirs[5] > 0
    assert touching.mean() > 0.075
    qpos, qvel, _ = (error[touching] for error in errors)
    print(f"{touching.sum()} steps that end with wall contact")
    for name, error in (("positions", qpos), ("velocities", qvel)):
        quantiles(f"one step from the same state, {name}", error, (0.5, 0.9, 0.95, 0.99))
    assert np.quantile(qpos, 0.5) < 1e-4
    assert np.quantile(qpos, 0.95) < 5e-3


def test_episodes_over_the_wall_come_to_the_same(walled):
    _, ours, theirs = walled
    mine, gyms = (x[0][:, -1, 0] for x in (ours, theirs))
    over = [np.mean(x > 5) for x in (mine, gyms)]
    print(f"past the wall: ours {over[0]:.2f}, C {over[1]:.2f}")
    assert 0.05 < over[1] < 0.95
    both = (mine > 5) & (gyms <= 5), (mine <= 5) & (gyms > 5)
    # As often the one without the other as the other way round.
    assert stats.binomtest(both[0].sum(), max(sum(b.sum() for b in both), 1)).pvalue > 0.01
    assert stats.ks_2samp(mine, gyms).pvalue > 0.01


def test_changed_models_are_the_same_world(size):
    names = ["torso_mass", "friction", "actuator_gain"]
    changed = [NOMINAL.replace(**{n: getattr(NOMINAL, n) * jnp.float32(0.3)}) for n in names]
    each = size.all // len(names)
    start = starts(size, seed=2)
    start = *start[:2], start[2][:, :15]
    theirs = [
        play_in_gymnasium(ant_v5(params), *(x[each * i : each * (i + 1)] for x in start))
        for i, params in enumerate(changed)
    ]
    theirs = [np.concatenate(x) for x in zip(*theirs)]
    right = single_steps(size, changed, start, theirs)[0]
    for i, name in enumerate(names):
        part = slice(each * i, each * (i + 1))
        quantiles(f"one step with another {name}, positions", right[part])
        assert np.quantile(right[part], 0.95) < 1e-3


def test_the_start_is_drawn_and_observed_as_in_gymnasium(gym):
    reset = jax.jit(jax.vmap(ENV.reset_env, (0, None)))
    obs, states = reset(jax.random.split(jax.random.key(0), 150), NOMINAL)
    theirs = np.array([gym.reset(seed=i)[0] for i in range(150)])
    for a, b in zip(np.asarray(obs).T, theirs.T):
        assert stats.ks_2samp(a, b).pvalue > 1e-4
    for q, v, o in zip(states.qpos[:5], states.qvel, obs):
        gym.set_state(np.asarray(q), np.asarray(v))
        np.testing.assert_allclose(o, gym._get_obs(), atol=1e-6)


def test_a_force_on_the_torso_acts_as_mujocos(size):
    """In the air, where nothing is touched, over one step of 50 ms."""
    env, force = ant_v5(), np.array([3.0, -2.0, 4.0])
    qpos, qvel, actions = starts(size, seed=11)
    qpos[:, 2] += 2.0
    half = size.all // 2  # pushed, and the same without a force
    start = [np.concatenate([x[:half]] * 2) for x in (qpos, qvel, actions[:, :1])]
    after = []
    for q, v, controls in zip(*(x[:half] for x in start)):
        env.set_state(q, v)
        env.data.xfrc_applied[env.model.body("torso").id, :3] = force
        env.step(controls[0])
        after.append(env.data.qvel.copy())
    pushed = NOMINAL.replace(torso_force=jnp.float32(force))
    ours, still = np.split(play(size, [pushed, NOMINAL], *start)[1][:, 0], 2)
    assert np.abs(ours - still)[:, :3].max() > 0.1
    np.testing.assert_allclose(ours, after, atol=2e-3)
