"""The LSTM and recurrent PPO: exact equivalences, and a task that cannot be done without memory."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from entrob.agents.actor_critic import make_agent
from entrob.agents.collect import collect
from entrob.agents.model import PolicyParams, make_model
from entrob.agents.networks import LSTM, MLP
from entrob.agents.spec import Hyper, Spec
from entrob.envs import Environment, make
from entrob.errors import EntrobError
from entrob.regularizers import Regularizer, chain, policy_entropy
from entrob.rollout import Context


@struct.dataclass
class RecallState(environment.EnvState):
    sign: jax.Array


class Recall(Environment):
    """A sign is shown once; after `delay` blank steps the action has to name it: reward 1 or 0."""

    def __init__(self, delay=3):
        self.delay = delay

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=1000)

    def reset_env(self, key, params):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = RecallState(time=jnp.int32(0), sign=sign)
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        terminated = state.time > self.delay
        right = action == (state.sign > 0)
        return self.get_obs(state), state, jnp.float32(terminated & right), terminated, {}

    def get_obs(self, state, params=None, key=None):
        last = (state.time == self.delay).astype(jnp.float32)
        return jnp.stack([jnp.where(state.time == 0, state.sign, 0.0), last])

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(-1, 1, (2,), jnp.float32)

    @property
    def num_actions(self):
        return 2


def train(network, updates, extra=(), **options):
    env = Recall()
    spec = Spec(
        env, chain(policy_entropy(), *extra), network, "ppo",
        num_envs=16, num_steps=16, epochs=4, minibatches=4, **options,
    )  # fmt: skip
    agent = make_agent(spec)
    coefs = {"policy_entropy": 0.01} | {part.name: 1.0 for part in extra}
    hyper = Hyper(learning_rate=2e-3, total_updates=updates, coefs=coefs)
    params = env.default_params
    state = agent.init(jax.random.PRNGKey(0), hyper, params)
    return agent, *jax.jit(agent.train_chunk, static_argnums=3)(state, hyper, params, updates)


@pytest.mark.slow
def test_only_a_memory_solves_what_needs_one():
    late = lambda curves: float(curves["return_sum"][-20:].sum() / curves["episodes"][-20:].sum())
    *_, recurrent = train(LSTM(2, width=16), 150)
    *_, forgetful = train(MLP(2, hidden=(16,)), 150)
    assert late(recurrent) > 0.9
    assert late(forgetful) < 0.65


@pytest.fixture(scope="module")
def lstm():
    """A compiled one, its first weights, and observations."""
    model = make_model(Recall(), LSTM(2, width=8))
    compiled = SimpleNamespace(
        step=jax.jit(model.step), sequence=jax.jit(model.sequence), init_carry=model.init_carry
    )
    obs = jax.random.normal(jax.random.PRNGKey(1), (12, 3, 2))
    start = jax.random.bernoulli(jax.random.PRNGKey(2), 0.3, (12, 3))
    weights = jax.jit(model.init)(jax.random.PRNGKey(0), obs[0])
    return compiled, PolicyParams(weights), obs, start


def test_a_sequence_is_its_steps(lstm):
    model, policy, obs, start = lstm
    dist, value = model.sequence(policy, model.init_carry(3), obs, start)
    carry = model.init_carry(3)
    for t in range(12):
        one, v, carry = model.step(policy, carry, obs[t], start[t])
        np.testing.assert_allclose(one.logits, dist.logits[t], atol=1e-6)
        np.testing.assert_allclose(v, value[t], atol=1e-6)


def test_an_episode_remembers_nothing_of_the_one_before(lstm):
    model, policy, obs, _ = lstm
    start = jnp.zeros((12, 3), bool).at[5].set(True)
    changed = obs.at[:5].add(1.0)
    a, b = (model.sequence(policy, model.init_carry(3), x, start)[1] for x in (obs, changed))
    np.testing.assert_array_equal(a[5:], b[5:])
    assert (a[:5] != b[:5]).any()


def test_the_lstm_is_that_of_its_definition(lstm):
    """Gates in the order i, f, g, o with a forget bias of 1 (Hochreiter & Schmidhuber; Gers)."""
    model, policy, obs, _ = lstm
    weights = jax.tree.map(np.asarray, policy.network["params"])
    dense = lambda name, x: x @ weights[name]["kernel"] + weights[name]["bias"]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    c = h = np.zeros((3, 8))
    for t in range(4):
        x = np.maximum(dense("Dense_1", np.maximum(dense("Dense_0", np.asarray(obs[t])), 0)), 0)
        i, f, g, o = np.split(dense("Dense_2", x) + h @ weights["recurrent"], 4, -1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = dense("Dense_4", np.maximum(dense("Dense_3", h), 0))
    none = jnp.zeros((4, 3), bool)
    dist, _ = model.sequence(policy, model.init_carry(3), obs[:4], none)
    np.testing.assert_allclose(dist.logits[-1], logits, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_first_pass_of_the_learner_sees_the_behavior_policy(normalize):
    """Memories at the start of a rollout, resets and normalization agree: every ratio is 1."""

    def worst_ratio(policy, batch, coef):
        error = jnp.abs(policy.dist.log_prob(batch.action) - batch.log_prob).max()
        return coef * jax.lax.stop_gradient(error)

    probe = Regularizer(
        "probe", loss=lambda k, s, policy, batch, coef: worst_ratio(policy, batch, coef)
    )
    env = Recall(delay=6)  # episodes cross the borders of rollouts
    spec = Spec(env, chain(probe), LSTM(2, width=8), "ppo", num_envs=4, num_steps=10,
                minibatches=2, normalize=normalize)  # fmt: skip
    agent, hyper = make_agent(spec), Hyper(learning_rate=0.0, coefs={"probe": 1.0})
    params = env.default_params

    @jax.jit
    def five(key):
        state = agent.init(key, hyper, params)
        return agent.train_chunk(state, hyper, params, 5)[1]

    curves = five(jax.random.PRNGKey(0))
    np.testing.assert_allclose(curves["regularizer_loss"], 0.0, atol=1e-5)


def test_truncation_is_bootstrapped_with_the_memory_of_that_step():
    """V of the next observation continues from the memory after the step, not from a fresh one."""
    env, params = make("minigrid/empty-8x8")
    spec = Spec(env, chain(), "lstm", "ppo", num_envs=2, num_steps=6)
    agent, hyper = make_agent(spec), Hyper()
    context = Context(0.0, 0.9)

    @jax.jit
    def roll(key_init, key):
        state = agent.init(key_init, hyper, params)
        return collect(
            agent.build, params, context, state.policy, lambda d: d, state.rollout_state, key
        )[1:3]

    rollout, next_value = roll(jax.random.PRNGKey(0), jax.random.PRNGKey(1))
    # Within an episode the next value is the value at the next step.
    assert not (rollout.terminated | rollout.truncated)[:-1].any()
    np.testing.assert_allclose(next_value[:-1], rollout.value[1:], atol=1e-5)


def test_an_episode_that_ends_within_a_rollout_has_the_value_of_its_own_last_observation():
    """Whether episodes end before the rollout does or with it, one run or two side by side."""
    env = Recall(delay=3)
    params = env.default_params
    for steps, ends in ((10, [3, 7]), (4, [3])):
        spec = Spec(env, chain(), LSTM(2, width=8), "ppo", num_envs=2, num_steps=steps)
        agent = make_agent(spec)

        def run(key, agent=agent):
            state, context = agent.init(key, Hyper(), params), Context(0.0, 0.9)
            _, rollout, next_value, *_ = collect(
                agent.build, params, context, state.policy, lambda d: d, state.rollout_state, key
            )
            # What follows the last observation of an episode of four: a blank one.
            obs = jnp.concatenate([rollout.obs[:4], jnp.zeros((1, 2, 2))])
            start = (jnp.arange(5) == 0)[:, None] & jnp.ones((5, 2), bool)
            carry = agent.model.init_carry(2)
            return rollout, next_value, agent.model.sequence(state.policy, carry, obs, start)[1]

        rollout, next_value, whole = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))
        assert np.flatnonzero(rollout.terminated[0, :, 0]).tolist() == ends
        goes_on = ~rollout.terminated[:, :-1]
        np.testing.assert_allclose(
            jnp.where(goes_on, next_value[:, :-1] - rollout.value[:, 1:], 0.0), 0.0, atol=1e-6
        )
        np.testing.assert_allclose(next_value[:, :4], whole[:, 1:], atol=1e-6)


def test_sequences_stay_whole():
    with pytest.raises(ValueError, match="minibatches must divide"):
        make_agent(Spec(Recall(), chain(), LSTM(2), "ppo", num_envs=6, num_steps=8, minibatches=4))
    with pytest.raises(EntrobError, match="did you mean 'lstm'"):
        make_agent(Spec(Recall(), chain(), "lstn"))
