"""Terms that look at observations nearby: on windows of a grid by hand, and LRPG's multiplier."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.distributions import Categorical
from entrob.envs.minigrid import EMPTY, GOAL, WALL, MiniGrid
from entrob.regularizers import build
from entrob.regularizers.losses import _nearby as nearby
from entrob.rollout import PolicyOutput


@pytest.fixture(scope="module")
def windows():
    """(windows of a small room, linear network (params, obs) -> (dist, value), its params)."""
    env = MiniGrid(5, 5, view=3)
    params = env.default_params
    obs = jax.vmap(lambda s: env.get_obs(s, params))(env.states(params))

    def evaluate(weights, obs):
        out = jnp.asarray(obs, jnp.float32).reshape(len(obs), -1) @ weights
        return Categorical(out[:, :3]), out[:, 3]

    weights = np.random.default_rng(0).normal(size=(27, 4)).astype(np.float32) / 9
    return np.asarray(obs), evaluate, weights


def all_changes(obs):
    """Every window with one cell changed, [changes, B, V, V, 3]; the agent's own stays."""
    for x in range(3):
        for y in range(3):
            for code in (EMPTY, WALL, GOAL):
                changed = obs.copy()
                changed[:, x, y] = code
                if (x, y) != (1, 2):
                    yield changed


def test_on_a_grid_the_worst_of_all_one_cell_changes_counts(windows):
    obs, evaluate, weights = windows
    policy = PolicyOutput(*evaluate(weights, obs), weights, evaluate)
    batch = cases.make_case(0).rollout.replace(obs=jnp.asarray(obs))
    batch = batch.with_context(finite=None)
    dist, value = (np.asarray(x, float) for x in (policy.dist.log_probs, policy.value))
    spread, shift = [], []
    for changed in all_changes(obs):
        other, moved = evaluate(weights, changed)
        log_probs = np.asarray(other.log_probs, float)
        spread.append(((np.exp(dist) - np.exp(log_probs)) * (dist - log_probs)).sum(-1) / 2)
        shift.append(np.abs(moved - value))
    for name, by_hand in [("sr2l", spread), ("value_gradient", shift)]:
        loss = lambda cells, name=name: build(name, cells=cells).loss(
            jax.random.key(0), (), policy, batch, 1.0
        )
        np.testing.assert_allclose(loss(None), np.max(by_hand, 0).mean(), rtol=1e-4)
        assert 0 < loss(2) < loss(None)


def test_cells_that_are_tried_are_few_and_never_the_agents_own(windows):
    obs, _, _ = windows
    score = lambda x: jnp.abs(jnp.float32(x) - jnp.float32(obs)).sum((1, 2, 3))
    touched = np.zeros((3, 3), bool)
    for seed in range(20):
        worst = nearby.worst_cell(jax.random.key(seed), jnp.asarray(obs), score, 2)
        cells = (np.asarray(worst) != obs).any(-1)
        assert (cells.sum((1, 2)) <= 1).all() and cells.any(0).sum() <= 2
        touched |= cells.any(0)
    assert touched.sum() == 8 and not touched[1, 2]
    same = nearby.worst_cell(jax.random.key(0), jnp.asarray(obs), lambda x: 0 * score(x), None)
    np.testing.assert_array_equal(same, obs)


def test_ascent_ends_in_the_corner_of_the_box_that_a_linear_score_prefers():
    obs, slope = jax.random.normal(jax.random.key(0), (7, 3)), jnp.array([1.0, -2.0, 0.5])
    bound = jnp.array([0.1, 0.0, 3.0])
    got = nearby.ascend(jax.random.key(1), obs, bound, lambda x: x @ slope, 1)
    np.testing.assert_allclose(got, obs + bound * jnp.sign(slope), rtol=1e-6)


def test_lrpg_waits_for_the_first_phase_and_weighs_the_return_while_it_is_short():
    part = build("lrpg", begin=0.5, tolerance=0.01)
    update = jax.jit(part.update)
    rollout = cases.make_case(0).rollout
    ends = (rollout.terminated | rollout.truncated).mean()
    unit = float(rollout.context.reward_scale / ends)  # of an episode, all of whose rewards are 1
    paid = lambda pay, progress: rollout.replace(
        reward=jnp.full_like(rollout.reward, pay)
    ).with_context(progress=jnp.float32(progress))
    state = update(None, part.init(None, None, None), paid(-2.0, 0.0), {})
    state = update(None, state, paid(-1.0, 0.4), {})
    assert state.multiplier == 0
    np.testing.assert_allclose([state.performance, state.best], -1.9 * unit, rtol=1e-6)
    state = update(None, state, paid(-3.8, 0.5), {})  # the mean falls by 10 %
    wanted = np.array([-1.9, -2.09]) * unit
    np.testing.assert_allclose([state.best, state.performance], wanted, rtol=1e-6)
    np.testing.assert_allclose(state.multiplier, 0.19 / 2.09 - 0.01, rtol=1e-4)
    state = update(None, state, paid(-3.8, 0.6), {})  # and by more: it acts within a few updates
    assert state.multiplier > 0.2
    for _ in range(60):  # k̂ rises with J: λ then falls by η ε
        state = update(None, state, paid(-1.0, 0.7), {})
    assert state.multiplier == 0 and state.best > -1.9 * unit


def test_lrpgs_noise_is_two_codes_on_grids_and_its_weight_falls_with_the_multiplier(windows):
    obs, evaluate, weights = windows
    part = build("lrpg", begin=0.0)
    batch = cases.make_case(0).rollout.replace(obs=jnp.asarray(obs))
    batch = batch.with_context(finite=None)
    policy = PolicyOutput(*evaluate(weights, obs), weights, evaluate)
    noise = 2 * jax.random.uniform(jax.random.key(0), obs.shape, minval=-1, maxval=1)
    other, _ = evaluate(weights, obs + np.asarray(noise))
    wanted = ((policy.dist.probs - other.probs) ** 2).sum(-1).mean() / 2
    state = part.init(None, None, None)
    loss = lambda state: part.loss(jax.random.key(0), state, policy, batch, 1.0)
    np.testing.assert_allclose(loss(state), wanted / 2, rtol=1e-5)
    np.testing.assert_allclose(loss(state._replace(multiplier=2.0)), wanted / 4, rtol=1e-5)
