"""What a rollout without rewards teaches a policy: nothing; and one with them: all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.agents.actor_critic import make_agent
from entrob.agents.estimate import trust
from entrob.agents.networks import LSTM, MLP
from entrob.agents.spec import Hyper, Spec
from entrob.compiling import compiler_options
from entrob.envs import make
from entrob.estimators.advantages import discounted
from entrob.regularizers import Regularizer, chain


def test_discounted_returns_are_their_definition():
    reward = jnp.array([[1.0], [2.0], [4.0], [8.0]])
    ends = jnp.array([[False], [True], [False], [False]])
    no = jnp.zeros_like(ends)
    for terminated, truncated in ((ends, no), (no, ends)):
        got = discounted(reward, terminated, truncated, jnp.float32(0.5))
        np.testing.assert_allclose(got[:, 0], [2.0, 2.0, 8.0, 8.0])


def test_trust_is_the_share_of_the_returns_deviation():
    noise = jnp.array([[1.0, -1.0, 3.0, -3.0]])
    assert trust(noise, jnp.zeros_like(noise)) == 0
    assert trust(noise, noise / 4) == pytest.approx(0.25)
    assert trust(noise, noise) == 1 and trust(noise, 100 * noise) == 1
    assert trust(0 * noise, 0 * noise) == 1  # nothing to learn, nothing to divide by


def ppo(env, params, network, updates, **options):
    """Program ``coefficient of a bonus -> (state before, state after, curves)`` of PPO."""
    bonus = Regularizer(
        "bonus",
        reward=lambda key, state, rollout, coef: (coef * jnp.cos(rollout.time), state),
    )
    spec = Spec(env, chain(bonus), network, "ppo", num_envs=4, num_steps=8, epochs=2, minibatches=2,
                **options)  # fmt: skip
    agent = make_agent(spec)

    @jax.jit
    def train(coef):
        hyper = jax.tree.map(jnp.float32, Hyper(coefs={"bonus": coef}))
        before = agent.init(jax.random.PRNGKey(0), hyper, params)
        return before, *agent.train_chunk(before, hyper, params, updates)

    return train


#: Layers that serve the policy alone, by network.
ACTORS = {
    "mlp": (MLP(3, hidden=(8,)), ("Dense_0", "Dense_1")),
    "lstm": (LSTM(3, width=8), ("Dense_3", "Dense_4")),
    "minigrid": (None, ("Dense_0", "Dense_1")),
}


def moved(before, after, layers):
    """Which layers learned."""
    same = lambda layer: jax.tree.map(
        lambda a, b: bool((a == b).all()),
        before.network["params"][layer],
        after.network["params"][layer],
    )
    return [not all(jax.tree.leaves(same(layer))) for layer in layers]


#: Estimates are made after the network: one with a table shows what holds of all.
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "mlp", "untabulated")]


@pytest.mark.parametrize("network", ["minigrid", *OTHERS])
def test_without_reward_the_policy_stays_and_the_critic_learns(network):
    """Standardized as they are, the critic's errors would move the policy in every update."""
    if network in ("mlp", "lstm"):
        env, params = make("gymnax:MountainCar-v0")
        params = params.replace(max_steps_in_episode=10**6)
        env = type("Free", (type(env),), {"step_env": free(type(env))})()
    else:
        env, params = make("minigrid/empty-16x16")
    module, layers = ACTORS[network if network in ACTORS else "minigrid"]
    train = ppo(env, params, module, 3, tabulate=network != "untabulated")
    before, after, curves = train(0.0)
    assert curves["return_sum"].sum() == 0 and (curves["trust"] == 0).all()
    assert moved(before, after, layers) == [False, False]
    others = [name for name in after.network["params"] if name.startswith("Dense")]
    assert any(moved(before, after, others))
    # A bonus is a reward like others.
    before, after, curves = train(1.0)
    assert (curves["trust"] > 0.5).all() and moved(before, after, layers) == [True, True]


def free(cls):
    """A step whose reward is 0."""

    def step_env(self, key, state, action, params):
        obs, state, reward, *rest = cls.step_env(self, key, state, action, params)
        return obs, state, 0.0 * reward, *rest

    return step_env


def test_where_rewards_are_met_standardizing_is_left_alone():
    env, params = make("gymnax:CartPole-v1")
    *_, curves = ppo(env, params, MLP(2, hidden=(8,)), 20)(0.0)
    assert (curves["trust"] == 1).all()


@pytest.mark.slow  # compiles the physics
def test_pushers_rollouts_are_left_alone():
    env, params = make("mujoco/pusher")
    bonus = Regularizer(
        "bonus", reward=lambda key, state, rollout, coef: (0 * rollout.reward, state)
    )
    spec = Spec(env, chain(bonus), LSTM(14, width=16), "ppo", num_envs=4, num_steps=100, epochs=1,
                minibatches=2, normalize=True)  # fmt: skip
    agent = make_agent(spec)
    hyper = jax.tree.map(jnp.float32, Hyper(coefs={"bonus": 0.0}))
    state = jax.jit(agent.init)(jax.random.PRNGKey(0), hyper, params)
    options = compiler_options()
    chunk = jax.jit(functools.partial(agent.train_chunk, updates=4), compiler_options=options)
    assert (chunk(state, hyper, params)[1]["trust"] == 1).all()
