"""Self-imitation's buffer: returns over several rollouts, priorities, and what is repeated."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.distributions import Categorical
from entrob.errors import EntrobError
from entrob.regularizers import build
from entrob.regularizers.shaping import _replay as replay
from entrob.rollout import PolicyOutput

T, N, GAMMA = cases.STEPS, cases.ENVS, cases.GAMMA
add = jax.jit(replay.add)


def rollouts(count, ends=0.05, seed=0):
    """Rollouts that follow each other, with rewards and ends at random, in the reward's units."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        done = rng.random((T, N)) < ends
        rollout = cases.make_case(number).rollout.replace(
            reward=jnp.asarray(rng.normal(size=(T, N)), jnp.float32),
            terminated=jnp.asarray(done),
            truncated=jnp.zeros((T, N), bool),
        )
        yield rollout.with_context(reward_scale=jnp.float32(1 + number))


def filled(capacity, played):
    buffer = replay.empty(cases.spec_of("discrete"), capacity)
    for rollout in played:
        buffer = add(buffer, rollout)
    return buffer


def test_returns_are_those_of_whole_episodes_however_many_rollouts_they_take():
    played = list(rollouts(6, ends=0.03))
    buffer = filled(6 * T * N, played)
    reward = np.concatenate([r.reward * r.context.reward_scale for r in played]).astype(float)
    done = np.concatenate([r.terminated for r in played])
    assert 0 < done.sum() < 30
    gain, left = np.zeros((6 * T + 1, N)), np.ones((6 * T + 1, N))
    for t in reversed(range(6 * T)):
        gain[t] = reward[t] + GAMMA * ~done[t] * gain[t + 1]
        left[t] = GAMMA * ~done[t] * left[t + 1]
    np.testing.assert_allclose(buffer.gain.reshape(6 * T, N), gain[:-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(buffer.left.reshape(6 * T, N), left[:-1], rtol=1e-4)
    crossed = [n for n in range(N) if not done[:T, n].any() and done[T:, n].any()]
    assert crossed  # an episode longer than a rollout has been seen to its end
    closed = np.asarray(replay.priorities(buffer) > 0).reshape(6 * T, N)
    np.testing.assert_array_equal(closed, left[:-1] == 0)


def test_the_oldest_rollout_makes_place_and_shapes_stay():
    played = list(rollouts(5))
    buffer = filled(3 * T * N + 1, played)
    assert buffer.gain.shape == (3, T, N) and buffer.rollouts == 5
    for place, rollout in zip((0, 1, 2), (played[3], played[4], played[2])):
        np.testing.assert_array_equal(buffer.obs[place], rollout.obs)
        np.testing.assert_array_equal(buffer.action[place], rollout.action)
    assert filled(1, played).gain.shape == (1, T, N)  # one at least


def test_a_time_limit_is_worth_what_the_value_function_says():
    rollout = next(rollouts(1, ends=0.0))
    cut = jnp.zeros((T, N), bool).at[3, 0].set(True)
    gain, left = replay.returns(rollout.replace(truncated=cut))
    reward = np.asarray(rollout.reward[:4, 0], float)
    reward[3] = rollout.target[3, 0]
    np.testing.assert_allclose(gain[0, 0], (GAMMA ** np.arange(4) * reward).sum(), rtol=1e-5)
    assert (left[:4, 0] == 0).all() and (left[4:] > 0).all()


def test_steps_are_drawn_by_priority_and_corrected():
    played = list(rollouts(4, ends=0.2))
    buffer = filled(4 * T * N, played)
    sample = jax.jit(replay.draw, static_argnums=2)(jax.random.key(0), buffer, 200_000)
    priority = np.ravel(replay.priorities(buffer))
    gain = np.ravel(buffer.gain)
    counts = np.array([(np.asarray(sample.gain) == g).sum() for g in gain])
    share = priority / priority.sum()
    np.testing.assert_allclose(counts / 200_000, share, atol=5 * np.sqrt(share.max() / 200_000))
    assert (counts[priority == 0] == 0).all()
    best = np.argmax(priority)
    weight = np.asarray(sample.weight)[np.asarray(sample.gain) == gain[best]]
    least = priority[priority > 0].min()
    np.testing.assert_allclose(weight, (priority[best] / least) ** -0.1, rtol=1e-4)
    assert 0 < weight.max() <= np.asarray(sample.weight).max() <= 1


def test_nothing_is_repeated_before_an_episode_has_ended():
    case, part = cases.make_case(0), build("self_imitation", warmup=0.0)
    state = part.init(jax.random.key(0), cases.spec_of("discrete"), None)
    state = part.update(None, state, next(rollouts(1, ends=0.0)), {})
    out = cases.look(part, case, state, np.float32([0.0, 1.0, 3.0]))
    assert (out["loss"] == 0).all()
    assert all((x == y[0]).all() for y in out["gradient"].values() for x in y)


def test_a_success_of_long_ago_is_repeated():
    """One episode of many earned something; the actions of that one become likelier."""
    part = build("self_imitation", warmup=0.0, fraction=0.0)
    state = part.init(jax.random.key(0), cases.spec_of("discrete"), None)
    quiet = next(rollouts(1, ends=0.0))
    action = jnp.zeros((T, N), jnp.int32).at[:, 1].set(2)
    quiet = quiet.replace(reward=0 * quiet.reward, value=0 * quiet.value, action=action)
    end = quiet.replace(
        terminated=jnp.ones((T, N), bool).at[:-1].set(False),
        reward=quiet.reward.at[-1, 1].set(1.0),
    ).with_context(reward_scale=jnp.float32(1.0))
    for rollout in (end, *[quiet] * 5):
        state = part.update(None, state, rollout, {})
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]) if jnp.ndim(x) > 1 else x, quiet)

    def loss(logits):
        at = lambda params, obs: (
            Categorical(jnp.broadcast_to(logits, (len(obs), 4))), jnp.zeros(len(obs))
        )  # fmt: skip
        policy = PolicyOutput(*at(None, batch.obs), None, at)
        return part.loss(jax.random.key(1), state, policy, batch, 1.0)

    slope = jax.grad(loss)(jnp.zeros(4))
    assert np.argmin(slope) == 2 and slope[2] < -0.1
    assert (slope[jnp.array([0, 1, 3])] > 0).all()


def test_a_policy_with_a_memory_is_refused():
    spec = cases.spec_of("discrete")
    spec.network = "lstm"
    with pytest.raises(EntrobError, match=r"self_imitation: .* memory"):
        build("self_imitation").init(jax.random.key(0), spec, None)
