"""Activity against gradients by hand; exactly 0 for what changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from entrob.agents.actor_critic import make_agent
from entrob.agents.collect import collect
from entrob.agents.networks import LSTM, MLP
from entrob.agents.spec import Hyper, Spec
from entrob.distributions import Categorical
from entrob.envs import make
from entrob.estimators.advantages import gae
from entrob.regularizers import Regularizer, chain, policy_entropy, state_entropy
from entrob.rollout import Context

#: Actions drawn from logits that favor the first one by the coefficient.
TILT = Regularizer(
    "tilt", behavior=lambda state, dist, coef: Categorical(dist.logits.at[..., 0].add(coef))
)
#: A bonus for angles.
ANGLE = Regularizer(
    "angle", reward=lambda key, state, rollout, coef: (coef * rollout.obs[..., 2], state)
)
#: Twice the weight for the samples of one action, and shaped advantages.
WEIGHT = Regularizer(
    "weight",
    surrogate=lambda key, state, policy, batch, coef: (
        1.0 + coef * batch.action,
        batch.clip_low,
        batch.clip_high,
    ),
    advantage=lambda state, rollout, coef: rollout.advantage + coef * rollout.action,
)


#: Pulls the policy back to that of the rollout: without a gradient before it has moved.
BACK = Regularizer(
    "back",
    loss=lambda key, state, policy, batch, coef: (
        coef * jnp.mean((policy.dist.log_prob(batch.action) - batch.log_prob) ** 2)
    ),
)
#: What tests of A2C look at, and those of PPO, in one program each.
A2C, PPO = (policy_entropy(), ANGLE, BACK), (WEIGHT, BACK)
MINIBATCHES = {"algorithm": "ppo", "epochs": 2, "minibatches": 2}


@functools.cache
def cartpole(parts, envs=8, steps=16, **options):
    """(agent, params, program ``hyper -> (activity of the first update, the state before)``)."""
    env, params = make("gymnax:CartPole-v1")
    spec = Spec(env, chain(*parts), MLP(2, hidden=(8,)), num_envs=envs, num_steps=steps, **options)
    agent = make_agent(spec)

    @jax.jit
    def first(hyper):
        state = agent.init(jax.random.PRNGKey(3), hyper, params)
        # The head begins so small that the policy's entropy has almost no gradient.
        state.network["params"]["Dense_2"]["kernel"] *= 100.0
        return agent.train_chunk(state, hyper, params, 1)[1]["activity"][0], state

    return agent, params, first


def measured(parts, coefs, **options):
    """(activity in the first update, the state before); coefficients that are not named are 0."""
    named = {part.name: coefs.get(part.name, 0.0) for part in parts}
    hyper = jax.tree.map(jnp.float32, Hyper(coefs=named))
    activity, state = cartpole(parts, **options)[2](hyper)
    return float(activity), state


@functools.cache
def by_hand():
    """Function ``(state, bonus, entropy) -> gradient``: the first one of A2C."""
    agent, params, _ = cartpole(A2C)

    def gradient(state, bonus, entropy):
        key_roll, context = jax.random.split(state.key, 5)[1], Context(0.0, Hyper().gamma)
        _, rollout, next_value, *_ = collect(
            agent.build, params, context, state.policy, lambda d: d, state.rollout_state, key_roll
        )
        reward = rollout.reward + bonus * rollout.obs[..., 2]
        ends = rollout.terminated, rollout.truncated
        advantage = gae(reward, rollout.value, next_value, *ends, 0.99, 0.95)
        target = advantage + rollout.value

        def loss(network):
            policy = state.policy.replace(network=network)
            dist, value = agent.model.sequence(policy, (), rollout.obs, None)
            policy_loss = -jnp.mean(dist.log_prob(rollout.action) * advantage)
            value_loss = 0.5 * jnp.mean((value - target) ** 2)
            return policy_loss + value_loss - entropy * jnp.mean(dist.entropy())

        return ravel_pytree(jax.grad(loss)(state.network))[0]

    return jax.jit(gradient)


@pytest.mark.parametrize(("bonus", "entropy"), [(0.0, 0.3), (0.5, 0.0), (2.0, 0.1)])
def test_it_is_the_relative_change_of_the_gradient(bonus, entropy):
    activity, state = measured(A2C, {"policy_entropy": entropy, "angle": bonus})
    g, g0 = (np.asarray(by_hand()(state, *coefs)) for coefs in ((bonus, entropy), (0.0, 0.0)))
    assert activity == pytest.approx(np.linalg.norm(g - g0) / np.linalg.norm(g0), rel=1e-3)
    assert activity > 1e-5


def test_policy_entropys_grows_with_its_coefficient():
    values = [measured(A2C, {"policy_entropy": c})[0] for c in (0.01, 0.02, 0.08)]
    np.testing.assert_allclose(np.divide(values, values[0]), [1, 2, 8], rtol=1e-3)


def test_of_a_behavior_it_is_the_total_variation():
    for coef in (1.0, 0.1):
        activity, state = measured((TILT,), {"tilt": coef}, envs=64, steps=64)
        # About as many observations of the same kind as the rollout's.
        obs = jax.random.normal(jax.random.key(0), (1000, 4)) * jnp.array([0.05, 0.4, 0.08, 0.6])
        model = cartpole((TILT,), envs=64, steps=64)[0].model
        dist, _ = model.sequence(state.policy, (), obs, None)
        tilted = Categorical(dist.logits.at[:, 0].add(coef))
        variation = 0.5 * jnp.abs(tilted.probs - dist.probs).sum(-1).mean()
        assert activity == pytest.approx(float(variation), rel=0.1)


def test_weights_and_shaped_advantages_count():
    small, large = (measured(PPO, {"weight": c}, **MINIBATCHES)[0] for c in (0.01, 1.0))
    assert 0 < small < large / 10


def test_what_acts_only_once_the_policy_has_moved_counts_where_it_moves():
    assert measured(PPO, {"back": 100.0}, **MINIBATCHES)[0] > 1e-3
    assert measured(A2C, {"back": 100.0})[0] == 0  # one step on every rollout


PARTS = (policy_entropy(), state_entropy(), TILT, WEIGHT)


#: What is not a table is told from `none` by the same lines.
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("lstm", "ppo", "tabulated ppo")]


@pytest.mark.parametrize("kind", ["plain", "tabulated", *SLOW])
def test_without_coefficients_it_is_exactly_zero(kind):
    parts = () if kind == "plain" else PARTS
    grid = kind.startswith("tabulated")
    env, params = make("minigrid/empty-8x8" if grid else "gymnax:CartPole-v1")
    network = None if grid else LSTM(2, width=8) if kind == "lstm" else MLP(2, hidden=(8,))
    ppo = {} if kind in ("plain", "tabulated") else {"epochs": 2, "minibatches": 2}
    spec = Spec(env, chain(*parts), network, "ppo" if ppo else "a2c", 4, 16, **ppo)
    agent = make_agent(spec)
    coefs = {part.name: jnp.float32(0) for part in parts}
    hyper = jax.tree.map(jnp.float32, Hyper(coefs=coefs))

    @jax.jit
    def two_chunks(hyper):
        state = agent.init(jax.random.PRNGKey(0), hyper, params)
        chunk = lambda state, _: agent.train_chunk(state, hyper, params, 3)
        return jax.lax.scan(chunk, state, None, length=2)[1]["activity"]

    for activity in np.asarray(two_chunks(hyper)):
        assert np.isnan(activity[:2]).all() and activity[2] == 0


def test_side_by_side_it_is_computed_only_where_it_is_measured():
    """The choice stays one: under `vmap`, a `cond` on what differs between runs would not."""
    agent, params, _ = cartpole(A2C)
    hyper = Hyper(coefs={"policy_entropy": 0.0, "angle": jnp.array([0.0, 1.0]), "back": 0.0})
    hyper = jax.tree.map(lambda x: jnp.broadcast_to(jnp.float32(x), (2,)), hyper)
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.jit(jax.vmap(agent.init, (0, 0, None)))(keys, hyper, params)
    chunk = functools.partial(agent.train_chunk, updates=2)
    both = jax.vmap(chunk, (0, 0, None))
    jaxpr = jax.make_jaxpr(both)(state, hyper, params)
    (scan,) = [e for e in jaxpr.eqns if e.primitive.name == "scan" and e.params["length"] == 2]
    assert any(e.primitive.name == "cond" for e in scan.params["jaxpr"].eqns)
    activity = np.asarray(jax.jit(both)(state, hyper, params)[1]["activity"])
    assert np.isnan(activity[:, 0]).all() and activity[0, 1] == 0 and activity[1, 1] > 0
