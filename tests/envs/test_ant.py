"""`mujoco/ant` by itself: reward, success, params that reach the dynamics, the wall, bad input.

tests/conformance/test_ant.py compares it with Gymnasium's.
"""

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.envs.mujoco import physics
from entrob.envs.mujoco.ant import body, constraints, legged, legged_step, solver, track
from entrob.errors import EntrobError
from entrob.perturbations import perturb

ENV, NOMINAL = make("mujoco/ant")
KEY = jax.random.key(0)
OPTIONS = compiler_options()
STEPS, BATCH = 30, 12


def episode(params, start, actions):
    """The observations, states and rewards of an episode."""

    def step(state, action):
        obs, state, reward, terminated, _ = ENV.step_env(KEY, state, action, params)
        return state, (obs, state, reward, terminated)

    return jax.lax.scan(step, start, actions)[1]


#: The one program for all tests: a batch of episodes, of as many params and starts.
traced = chex.assert_max_traces(episode, n=1)
episodes = jax.jit(jax.vmap(traced), compiler_options=OPTIONS)


def start(params=NOMINAL, **changes):
    """A state to begin with; `changes` to the first numbers of qpos and qvel."""
    state = ENV.reset_env(KEY, params)[1]
    for name, value in changes.items():
        values = getattr(state, name)
        state = state.replace(**{name: values.at[: len(value)].set(jnp.array(value))})
    return state.replace(seen=state.qpos[:3])


def played(*variants, before=None):
    """Episodes of up to `BATCH` params, with the same actions and from the same start."""
    fill = BATCH - len(variants)
    params = jax.tree.map(lambda *x: jnp.stack(x), *variants, *[NOMINAL] * fill)
    before = start() if before is None else before
    before = jax.tree.map(lambda x: jnp.tile(x, (BATCH,) + (1,) * x.ndim), before)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 8))
    return episodes(params, before, jnp.tile(jnp.float32(actions), (BATCH, 1, 1)))


def test_spaces_and_shapes():
    obs, state = ENV.reset_env(KEY, NOMINAL)
    assert ENV.observation_space(NOMINAL).contains(obs)
    assert obs.shape == (27,) and obs.dtype == jnp.float32
    space = ENV.action_space(NOMINAL)
    assert space.shape == (8,) and (space.low, space.high) == (-1, 1)
    # The state is small: all that an episode carries.
    assert sum(x.size for x in jax.tree.leaves(state)) == 1 + 15 + 14 + 14 + 3
    np.testing.assert_array_equal(ENV.trace(state), state.qpos[jnp.array([0, 2])])


def test_reset_noise():
    still = NOMINAL.replace(reset_noise=jnp.float32(0))
    _, state = ENV.reset_env(KEY, still)
    np.testing.assert_allclose(state.qpos, [0, 0, 0.75, 1] + [0] * 11, atol=1e-7)
    assert not state.qvel.any()
    states = jax.vmap(ENV.reset_env, (0, None))(jax.random.split(KEY, 500), NOMINAL)[1]
    off = states.qpos - state.qpos
    assert 0.099 < jnp.abs(off).max() < 0.1 + 1e-6
    np.testing.assert_allclose(states.qvel.std(0), 0.1, rtol=0.15)


@pytest.mark.slow  # conformance/test_ant.py has rewards
def test_reward_is_the_torso_velocity_along_x_and_episodes_end_in_time_only():
    before = start(qvel=[3.0])
    weights = [NOMINAL.replace(forward_weight=jnp.float32(w)) for w in (1, 2)]
    _, states, rewards, terminated = played(*weights, before=before)
    moved = jnp.diff(states.seen[0, :, 0], prepend=before.seen[0])
    np.testing.assert_allclose(rewards[0], moved / 0.05, atol=1e-5)
    np.testing.assert_allclose(rewards[1], 2 * rewards[0], atol=1e-5)
    # What is read is off by a timestep's error only.
    np.testing.assert_allclose(states.seen[0], states.qpos[0, :, :3], atol=0.02)
    assert rewards[0].max() > 1
    assert not terminated.any()
    late = jax.tree.map(lambda x: x[0, -1], states).replace(time=jnp.int32(1000))
    assert ENV.is_truncated(late, NOMINAL) and not ENV.is_truncated(before, NOMINAL)


@pytest.mark.parametrize(
    ("name", "magnitude"),
    [("leg_failure", 1), ("actuator_gain", 0.5), ("friction", 0.9), ("torso_mass", 2)],
)
def test_perturbations_reach_the_dynamics(name, magnitude):
    some = perturb(KEY, NOMINAL, name, magnitude)
    _, states, *_ = played(NOMINAL, perturb(KEY, NOMINAL, name, 0), some)
    np.testing.assert_array_equal(states.qpos[0], states.qpos[1])
    assert jnp.abs(states.qpos[2] - states.qpos[0])[-1].max() > 0.05
    if name == "friction":
        # Nothing slips before it touches the floor.
        np.testing.assert_array_equal(states.qpos[2, 0], states.qpos[0, 0])


def test_leg_failure_is_a_limp_leg():
    failed = perturb(KEY, NOMINAL, "leg_failure", 1)
    hips = jnp.flatnonzero(failed.actuator_gain == 0) // 2
    assert len(hips) == 2 and hips[0] == hips[1]
    # In Gymnasium's order the actuators begin with the fourth leg.
    joint = 7 + 2 * ((int(hips[0]) + 3) % 4)
    before = start(qpos=[0.0, 0, 5])
    _, states, *_ = played(NOMINAL, failed, before=before)
    turned = jnp.abs(jnp.diff(states.qpos[:, :10, joint], axis=1)).max(1)
    assert turned[1] < 0.5 * turned[0]


def test_without_a_height_there_is_no_wall():
    on_it = start(qpos=[4.5, 0, 0.6])
    variants = [
        NOMINAL.replace(wall_pos=jnp.float32(p), wall_depth=jnp.float32(d))
        for p, d in ((4, 1), (1000, 1), (3.9, 3))
    ]
    high = NOMINAL.replace(wall_height=jnp.float32(0.4))
    _, states, rewards, _ = played(*variants, high, before=on_it)
    for other in (1, 2):
        np.testing.assert_array_equal(states.qpos[other], states.qpos[0])
        np.testing.assert_array_equal(rewards[other], rewards[0])
    assert jnp.abs(states.qpos[3] - states.qpos[0]).max() > 0.05


def test_a_wall_stops_what_runs_into_it_and_holds_what_stands_on_it():
    walls = [NOMINAL.replace(wall_height=jnp.float32(h)) for h in (0, 0.3, 3.0)]
    walls.append(walls[2].replace(wall_pos=jnp.float32(6.0)))
    _, states, *_ = played(*walls, before=start(qpos=[2.5, 0, 0.6], qvel=[8.0]))
    far = states.qpos[:, :, 0].max(1)
    assert far[0] > 6.5
    assert far[2] < 4 and 4 < far[3] < 6
    # Observations tell nothing of a wall that is not reached: two episodes up to the nearer one.
    apart = jnp.abs(states.qpos[2] - states.qpos[3]).max(1) > 0
    first = int(jnp.argmax(apart))
    assert apart.any() and first > 0
    assert states.qpos[2, first - 1, 0] > 2.5

    _, states, *_ = played(*walls, before=start(qpos=[4.5, 0, 1.3]))
    # At its lowest over the wall, from which it tumbles in the end.
    x, z = states.qpos[..., 0], states.qpos[..., 2]
    height = jnp.where((x > 4) & (x < 5), z, jnp.inf).min(1)
    assert height[1] > 0.3 + 0.2 and height[0] < height[1] - 0.1


def test_success_is_past_the_far_face():
    walled = NOMINAL.replace(wall_depth=jnp.float32(2))
    for x, yes in ((5.9, False), (6.1, True)):
        assert bool(ENV.is_success(start(qpos=[x]), walled)) == yes
        assert bool(ENV.is_success(start(qpos=[x]), NOMINAL))


def test_entropy_features_are_height_and_orientation():
    state = start(qpos=[3.0, 2, 0.5, -0.6, 0, 0, -1.6])
    features = ENV.entropy_features(state, NOMINAL)
    np.testing.assert_allclose(features, [0.5, 0.351123, 0, 0, 0.936329], atol=1e-5)
    other = state.replace(qpos=state.qpos.at[3:7].multiply(-1))
    np.testing.assert_allclose(ENV.entropy_features(other, NOMINAL), features, atol=1e-6)


def test_scene_shows_the_wall_from_the_side():
    assert ENV.scene(NOMINAL)["blocks"].shape == (0, 4)
    walled = perturb(KEY, NOMINAL, "hurdle", 0.3)
    np.testing.assert_allclose(ENV.scene(walled)["blocks"], [[4.5, 0.15, 0.5, 0.15]], atol=1e-6)


def test_world_is_the_same_for_c_mujoco():
    changed = NOMINAL.replace(
        wall_height=jnp.float32(0.5), wall_pos=jnp.float32(7), torso_mass=jnp.float32(0.8)
    )
    model, plain = ENV.world(changed), ENV.world(NOMINAL)
    data = mujoco.MjData(model)
    data.qpos[:3] = [7.5, 0, 0.74]  # the torso just into the wall's top
    mujoco.mj_forward(model, data)
    assert (data.contact.geom == model.geom("wall").id).any()
    data = mujoco.MjData(plain)
    data.qpos[:3] = [4.5, 0, 0.4]
    mujoco.mj_forward(plain, data)
    assert not (data.contact.geom == plain.geom("wall").id).any()
    # The model stepped here gives way as the one that MuJoCo derives from the changed mass.
    extra = changed.torso_mass - plain.body_mass[ENV.legged.root_body]
    bodies, dofs = legged.weights(ENV.legged.lightness, extra[None])
    np.testing.assert_allclose(bodies[:, 0], model.body_invweight0[:, 0], rtol=1e-4)
    np.testing.assert_allclose(dofs[:, 0], model.dof_invweight0, rtol=1e-4)
    assert abs(model.dof_invweight0[0] / plain.dof_invweight0[0] - 1) > 0.1


def test_capsules_touch_the_wall_as_in_c_mujoco():
    xml = """<mujoco><worldbody><geom name="w" type="box" size=".5 50 .15" pos="0 0 .15"/>
      <body><freejoint/><geom type="capsule" size=".08 .2" mass="1"/></body>
      </worldbody></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    model.geom_margin[:] = 0.1
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)

    @jax.jit
    def touch(ends):
        capsules = track.Capsules(ends[:, :, None, None], np.float32([[0.08]]))
        found = track.wall(capsules, (0.0, 0.15), (0.5, 0.15))
        return jax.tree.map(lambda x: x[..., 0, 0].T, found)

    agreed, twice, n = 0, 0, 0
    for _ in range(600):
        data.qpos[:3] = rng.uniform([-0.8, -1, 0.2], [0.8, 1, 0.6])
        data.qpos[3:] = rng.normal(size=4)
        mujoco.mj_forward(model, data)
        # With its axis within the wall a leg would have been through its surface by 8 cm.
        if not data.ncon or data.contact.dist.min() < -0.08:
            continue
        half = 0.2 * data.geom_xmat[1].reshape(3, 3)[:, 2]
        found = touch(jnp.float32([data.qpos[:3] - half, data.qpos[:3] + half]))
        near = np.flatnonzero(np.asarray(found.dist) < 0.2)
        order = near[np.argsort(np.asarray(found.dist)[near])]
        theirs = np.argsort(data.contact.dist)
        n += 1
        twice += data.ncon == 2
        agreed += len(order) == data.ncon and all(
            abs(found.dist[i] - data.contact.dist[j]) < 1e-4
            and np.abs(found.pos[i] - data.contact.pos[j]).max() < 1e-3
            and abs(found.normal[i] @ data.contact.frame[j, :3]) > 0.999
            for i, j in zip(order, theirs)
        )
    print(f"{agreed} of {n} agree, {twice} with two contacts")
    assert n > 200 and twice > 50
    assert agreed > 0.99 * n


def test_the_solver_has_converged():
    """What it returns is least: the slope of the cost is 0."""
    _, states, *_ = played(NOMINAL)
    env = ENV.legged
    rng = np.random.default_rng(1)

    def residual(qpos, qvel, start):
        held = legged.prepare(env, copies(NOMINAL, STEPS), jnp.zeros((8, STEPS)))
        pose = body.pose(env, qpos)
        mass, _ = body.dynamics(env, held.trunk, pose, qvel)
        speed, start = (legged_step.split(pose.turn.swapaxes(0, 1), x) for x in (qvel, start))
        rows = constraints.constrain(env, held, pose, qpos, speed)
        none = jax.tree.map(jnp.zeros_like, start)
        acc = solver.minimize(mass, none, rows, start, env.iterations)
        lack = [jnp.maximum(a - x, 0) for a, x in zip(rows.aim, solver.along(rows, acc))]
        pull = solver.pressed(rows, [w * x for w, x in zip(rows.weight, lack)])
        slope = solver.add(solver.times(mass, acc), pull, -1.0)
        slope, pull = (jnp.concatenate([x.root, x.legs.reshape(8, -1)]) for x in (slope, pull))
        return jnp.linalg.norm(slope, axis=0) / (1 + jnp.linalg.norm(pull, axis=0)), pull

    qpos, qvel, warm = (x[0].T for x in (states.qpos, states.qvel, states.warmstart))
    starts = warm + jnp.float32(rng.normal(0, 5, warm.shape))
    slope, pull = jax.jit(residual, compiler_options=OPTIONS)(qpos, qvel, starts)
    assert (jnp.abs(pull).max(0) > 1).sum() > 10
    print(f"slopes at the end: {np.quantile(slope, [0.5, 0.9, 1])}")
    assert jnp.quantile(slope, 0.9) < 1e-3


def test_the_solver_finds_what_a_dense_one_does():
    """A random system of two legs, against numpy."""
    rng, n, size = np.random.default_rng(0), 5, 10
    full = rng.normal(size=(n, size, size))
    full = full @ full.swapaxes(1, 2) + np.eye(size)
    full[:, 6:8, 8:] = full[:, 8:, 6:8] = 0
    full += 10 * np.eye(size)
    b = rng.normal(size=(n, size))
    last = np.moveaxis(np.float32(full), 0, -1)
    legs = np.stack([last[6:8, 6:8], last[8:, 8:]])
    matrix = solver.Matrix(last[:6, :6], last[:6, 6:].reshape(6, 2, 2, n), legs)
    vector = solver.Vector(np.float32(b.T[:6]), np.float32(b.T[6:]).reshape(2, 2, n))
    x, back = solver.solve(matrix, vector), solver.times(matrix, vector)
    joined = lambda v: np.concatenate([v.root, v.legs.reshape(4, n)])
    right = np.linalg.solve(full, b[..., None])[..., 0]
    np.testing.assert_allclose(joined(x), right.T, atol=1e-5)
    np.testing.assert_allclose(joined(back), (full @ b[..., None])[..., 0].T, rtol=1e-4, atol=1e-4)


def copies(params, n):
    """What `legged` makes of params, for n copies along the last axis."""
    return jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[..., None], n, -1), ENV.knobs(params))


def test_no_wall_in_reach_and_no_wall_are_the_same_however_many_look():
    """Contacts with a wall are computed as soon as one of the copies is near it."""
    far, near = start(), start(qpos=[3.2, 0, 0.6], qvel=[8.0])
    high = NOMINAL.replace(wall_height=jnp.float32(0.3))
    params = jax.tree.map(lambda *x: jnp.stack(x), NOMINAL, *[high] * (BATCH - 1))
    befores = [far] * (BATCH - 1) + [near]
    actions = jnp.tile(
        jnp.float32(np.random.default_rng(0).uniform(-1, 1, (STEPS, 8))), (BATCH, 1, 1)
    )
    _, states, *_ = episodes(params, jax.tree.map(lambda *x: jnp.stack(x), *befores), actions)
    np.testing.assert_array_equal(states.qpos[1], states.qpos[0])
    _, alone, *_ = played(high)
    np.testing.assert_array_equal(alone.qpos[0], states.qpos[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"wall_height": -0.1}, "wall_height must be a finite number of at least 0, not -0.1"),
        ({"wall_depth": -1}, "wall_depth must be a finite number above 0, not -1"),
        ({"wall_depth": float("nan")}, "wall_depth must be a finite number above 0, not nan"),
        ({"friction": 0}, "friction must be a finite number above 0"),
        ({"torso_mass": 0}, "torso_mass must be a finite number above 0"),
        ({"reset_noise": -1}, "reset_noise must be a finite number of at least 0"),
        ({"wall_pos": 1.0}, "the wall overlaps the start: wall_pos must be above 1.3"),
        ({"wall_pos": -3.0}, "the wall overlaps the start"),
        ({"actuator_gain": [float("nan")] * 8}, "actuator_gain must be a finite number, not nan"),
    ],
)
def test_bad_params_are_one_line(change, says):
    params = NOMINAL.replace(**{name: jnp.float32(value) for name, value in change.items()})
    ENV.check_params(NOMINAL)
    ENV.check_params(perturb(KEY, NOMINAL, "hurdle", 0.6))
    with pytest.raises(EntrobError, match=says) as error:
        ENV.check_params(params)
    assert "\n" not in str(error.value)


def test_bad_models_are_one_line(tmp_path):
    Ant = type(ENV)
    with pytest.raises(EntrobError, match="no_such"):
        Ant(model="no_such.xml")
    with pytest.raises(EntrobError, match="unknown body 'torso'"):
        Ant(model="pusher.xml")
    with pytest.raises(EntrobError, match="contacts and iterations must be positive"):
        Ant(iterations=0)
    with pytest.raises(EntrobError, match="contacts must be at most 25"):
        Ant(contacts=26)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('armature="1" damping="1"', 'armature="1" stiffness="1"', "neither springs nor dry"),
        ('range="30 70"', 'range="30 70" ref="5"', "hinges at 0 in its initial pose"),
        ('<motor name="hip_1"', '<position name="hip_1"', "motors with a range of control"),
        ('ankle_1" axis="-1 1 0"', 'ankle_1" axis="-1 1 0" solreflimit="0.03 1"', "one solref"),
        ('"thigh1" fromto="0 0 0 0.2 0.2 0"', '"thigh1" type="sphere"', "capsules and a ball"),
        ('integrator="RK4"', 'integrator="Euler"', "the RK4 integrator"),
    ],
)
def test_models_that_are_not_legged_are_one_line(old, new, says):
    text = (physics.resources() / "ant.xml").read_text()
    assert old in text
    with pytest.raises(EntrobError, match=says) as error:
        type(ENV)(model=text.replace(old, new)[text.index("<mujoco") :])
    assert "\n" not in str(error.value)
