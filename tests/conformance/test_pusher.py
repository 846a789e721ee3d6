"""`mujoco/pusher` against Gymnasium's Pusher-v5 in C MuJoCo, the paper's blocks included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.evaluation.batch import evaluate
from entrob.regularizers import chain
from entrob.sweep.program import compiler_options

pytest.importorskip("gymnasium")
reference = pytest.importorskip("entrob.envs.mujoco.reference")
gymnasium_pusher, record = reference.gymnasium_pusher, reference.record

ENV, NOMINAL = make("mujoco/pusher")
GYMNASIUM = NOMINAL.replace(control_weight=jnp.float32(0.1))
WALLED = GYMNASIUM.replace(block_on=jnp.float32(1))
OPTIONS = compiler_options()


@functools.partial(jax.jit, compiler_options=OPTIONS)
def play(params, qpos, qvel, actions):
    """Episodes from given states: qpos, qvel, obs and rewards after each action."""

    def episode(qpos, qvel, actions):
        _, state = ENV.reset_env(jax.random.key(0), params)
        state = state.replace(qpos=qpos, qvel=qvel)

        def step(state, action):
            obs, state, reward, *_ = ENV.step_env(jax.random.key(0), state, action, params)
            return state, (state.qpos, state.qvel, obs, reward)

        return jax.lax.scan(step, state, actions)[1]

    return jax.vmap(episode)(qpos, qvel, actions)


def same_states_in_gymnasium(env, qpos, qvel, actions, force=(0.0, 0.0)):
    """The same episodes in Gymnasium, and at which of their steps any constraint was active.

    A force (x, y) pushes the puck, whose slides are y before x.
    """
    out, puck = [], env.model.geom_bodyid == env.model.body("object").id
    for q, v, controls in zip(qpos, qvel, actions):
        env.reset(seed=0)
        env.set_state(np.r_[q, 0, 0], np.r_[v, 0, 0])
        env.data.qfrc_applied[7:9] = force[::-1]
        episode = []
        for action in controls:
            obs, reward, *_ = env.step(action)
            # The puck rests on the table, whose contacts cannot move it.
            others = env.data.nefc - puck[env.data.contact.geom].any(1).sum()
            episode.append((env.data.qpos[:9].copy(), obs, reward, others))
        out.append(list(map(np.array, zip(*episode))))
    return [np.stack(x) for x in zip(*out)]


@pytest.fixture(scope="module")
def pushes():
    return record(gymnasium_pusher(WALLED), 160, seed=7)


def test_the_start_is_observed_as_in_gymnasium():
    env = gymnasium_pusher(GYMNASIUM)
    env.reset(seed=0)
    env.set_state(np.r_[np.zeros(7), -0.3, 0.2, 0, 0], np.zeros(11))
    obs, _ = ENV.reset_env(jax.random.key(0), GYMNASIUM)
    np.testing.assert_allclose(obs, env._get_obs(), atol=1e-6)
    drawn = jax.vmap(ENV.reset_env, (0, None))(
        jax.random.split(jax.random.key(1), 64), GYMNASIUM.replace(fixed_start=jnp.bool_(False))
    )[1]
    for qpos, qvel, tip, puck in zip(drawn.qpos, drawn.qvel, drawn.tip, drawn.puck):
        env.set_state(np.r_[qpos, 0, 0], np.r_[qvel, 0, 0])
        np.testing.assert_allclose(env._get_obs()[14:20], [*tip, *puck], atol=1e-6)


@pytest.mark.parametrize("force", [(0.0, 0.0), (0.05, -0.02)])
def test_free_motion_is_equal_over_50_steps(force):
    rng = np.random.default_rng(0)
    n = 48
    qpos, qvel = np.zeros((n, 9)), np.zeros((n, 9))
    # Well inside the joints' ranges, and over the table.
    low, high = [-0.5, -0.4, -0.3, -1.5, -0.5, -0.7, -0.5], [0.5, -0.2, 0.3, -0.5, 0.5, -0.3, 0.5]
    qpos[:, :7] = rng.uniform(low, high, (n, 7))
    qpos[:, 7:] = -0.3, 0.2
    qvel[:, :7] = rng.uniform(-0.2, 0.2, (n, 7))
    actions = rng.normal(0, 0.15, (n, 50, 7)).astype(np.float32)
    expected, seen, rewards, constraints = same_states_in_gymnasium(
        gymnasium_pusher(GYMNASIUM), qpos, qvel, actions, force
    )
    free = constraints.max(1) == 0
    assert free.sum() >= 16
    params = GYMNASIUM.replace(puck_force=jnp.float32(force))
    got, _, obs, reward = (
        np.asarray(x)[free] for x in play(params, *map(jnp.float32, (qpos, qvel, actions)))
    )
    assert (np.abs(got[:, -1, 7:] - qpos[free, 7:]).max() > 0.03) == any(force)
    assert np.abs(got[:, -1, :7] - qpos[free, :7]).max() > 0.3  # they did move
    error = np.abs(obs - seen[free]).max()
    print(f"free motion, {free.sum()} episodes: largest error of an observation {error:.1e}")
    np.testing.assert_allclose(got, expected[free], atol=1e-4)
    np.testing.assert_allclose(obs, seen[free], atol=1e-4)
    np.testing.assert_allclose(reward, rewards[free], atol=1e-4)


def quantiles(name, error):
    cells = [f"{1e3 * np.quantile(error, q):.2f}" for q in (0.5, 0.9, 0.95, 1)]
    within = np.mean(error < 0.005)
    print(f"| {name} | {len(error)} | {within:.1%} | {' | '.join(cells)} |")
    return within


def test_pushed_pucks_end_where_gymnasium_has_them(pushes):
    touched = (pushes.arm > 0) | (pushes.block > 0)
    assert touched.sum() >= 100 and (pushes.block > 0).sum() >= 20
    start = jnp.float32(pushes.qpos[:, 0]), jnp.float32(pushes.qvel[:, 0])
    qpos, _, obs, rewards = map(np.asarray, play(WALLED, *start, pushes.actions))
    error = np.linalg.norm(qpos[:, -1, 7:] - pushes.qpos[:, -1, 7:], axis=1)
    print("\n| contact | episodes | within 5 mm | 50 % (mm) | 90 % | 95 % | 100 % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    within = quantiles("any", error[touched])
    quantiles("puck and block", error[pushes.block > 0])
    assert within >= 0.95

    # Where states are equal, so is what is seen and paid.
    apart = np.abs(qpos - pushes.qpos[:, 1:]).max(-1)
    equal = np.maximum.accumulate(apart, 1) < 1e-5
    assert equal.sum() > 3000
    positions = [*range(7), *range(14, 23)]
    np.testing.assert_allclose(obs[equal][:, positions], pushes.obs[equal][:, positions], atol=3e-5)
    np.testing.assert_allclose(rewards[equal], pushes.rewards[equal], atol=3e-5)


def test_pushes_are_as_predictable_in_gymnasium_itself(pushes):
    """What rounding alone does: Gymnasium's own pushes from starts moved by a micrometer."""
    env, rng = gymnasium_pusher(WALLED), np.random.default_rng(1)
    touched = np.flatnonzero((pushes.arm > 0) | (pushes.block > 0))[:100]
    start = pushes.qpos[touched, 0] + 1e-6 * rng.standard_normal((len(touched), 9))
    end, *_ = same_states_in_gymnasium(env, start, pushes.qvel[touched, 0], pushes.actions[touched])
    error = np.linalg.norm(end[:, -1, 7:] - pushes.qpos[touched, -1, 7:], axis=1)
    assert quantiles("Gymnasium against itself", error) > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"puck_mass": 3 * NOMINAL.puck_mass},
        {"puck_friction": jnp.float32(0.2)},
        {"joint_damping": 4 * NOMINAL.joint_damping},
        {"joint_range": 0.5 * NOMINAL.joint_range},
        {"actuator_gain": 0.6 * NOMINAL.actuator_gain},
        {"block_size": 2 * NOMINAL.block_size},
        {"goal_pos": NOMINAL.goal_pos + 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_params_are_changed_models(pushes, change):
    """One episode per param, against Gymnasium's model changed and compiled likewise."""
    params = WALLED.replace(**change)
    env = gymnasium_pusher(params)
    few = np.flatnonzero((pushes.arm > 0) | (pushes.block > 0))[:24]
    start, actions = (pushes.qpos[few, 0], pushes.qvel[few, 0]), pushes.actions[few]
    end, _, paid, _ = same_states_in_gymnasium(env, *start, actions)
    got, _, _, rewards = map(np.asarray, play(params, *map(jnp.float32, start), actions))
    # Two seconds of pushing, before chaos has its way.
    error = np.linalg.norm(got[:, 40, 7:] - end[:, 40, 7:], axis=1)
    assert np.quantile(error, 0.75) < 1e-3
    assert np.quantile(np.abs(rewards[:, :40] - paid[:, :40]).max(1), 0.75) < 1e-3
    # The param matters at all.
    assert np.median(np.abs(paid - pushes.rewards[few]).max(1)) > 1e-4


@pytest.mark.slow
def test_a_policy_does_the_same_in_gymnasium():
    """An untrained recurrent policy; trained ones meet in benchmarks/pusher_in_gymnasium.py."""
    agent = make_agent(Spec(ENV, chain(), network="lstm", num_envs=4, normalize=True))
    policy, n = agent.init(jax.random.PRNGKey(0), Hyper(), WALLED).policy, 100
    keys = jax.random.split(jax.random.key(1), n)
    instances = jax.tree.map(lambda x: jnp.stack([x] * n), WALLED)
    test = lambda policy: evaluate(ENV, agent.actor, 100, policy, instances, keys)
    here = jax.jit(test, compiler_options=OPTIONS)(jax.tree.map(lambda x: x[None], policy))
    success, returns = reference.play(
        lambda key, memory, obs: agent.act(key, policy, memory, obs), agent.start(), WALLED, n
    )
    print(f"return {here.episode_return.mean():.2f} here, {returns.mean():.2f} in Gymnasium")
    assert not success.any() and not here.steps_to_success.any()
    assert returns.std() > 0.5
    assert scipy.stats.ks_2samp(np.asarray(here.episode_return[0]), returns).pvalue > 1e-3
