"""Two-player training: what is executed, whose gain it is, and that it makes a difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from entrob.agents.actor_critic import make_agent
from entrob.agents.adversary import Adversary, Players, check_adversary
from entrob.agents.distributions import TanhNormal
from entrob.agents.networks import LSTM, MLP
from entrob.agents.spec import Hyper, Spec
from entrob.errors import EntrobError
from entrob.regularizers import chain


class Push(environment.Environment):
    """One step; the reward is the action, in [-1, 1]: one player pushes up, the other down."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=10)

    def reset_env(self, key, params):
        return jnp.ones(1), environment.EnvState(time=jnp.int32(0))

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        return jnp.ones(1), state, action[0], jnp.bool_(True), {}

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)


def players(kind, strength, batch=()):
    one = lambda mean: TanhNormal(
        jnp.full((*batch, 1), mean), jnp.full((*batch, 1), -1.0), (-1.0,), (1.0,)
    )
    return Players(one(0.5), one(-0.7), kind=kind, strength=strength)


def test_the_noisy_action_is_the_weighted_mean():
    dist = players("noisy", 0.25)
    raw = jnp.float32([0.3, -0.9, 1.0])
    expected = 0.75 * np.tanh(0.3) + 0.25 * np.tanh(-0.9)
    np.testing.assert_allclose(dist.execute(raw), [expected], rtol=1e-6)
    alone = [dist.protagonist.log_prob(raw[:1]), dist.adversary.log_prob(raw[1:2])]
    np.testing.assert_allclose(dist.log_prob(raw), alone)


def test_the_probabilistic_action_is_that_of_the_one_whose_turn_it_is():
    dist = players("probabilistic", 0.3, (20_000,))
    raw = dist.sample(jax.random.key(0))
    turn = np.asarray(raw[:, -1])
    assert turn.mean() == pytest.approx(0.3, abs=0.02)
    expected = np.tanh(np.where(turn > 0, raw[:, 1], raw[:, 0]))
    np.testing.assert_allclose(dist.execute(raw)[:, 0], expected, atol=1e-6)
    log_prob = np.asarray(dist.log_prob(raw))
    assert (log_prob[turn > 0, 0] == 0).all() and (log_prob[turn == 0, 1] == 0).all()
    assert (log_prob[turn > 0, 1] != 0).all() and (log_prob[turn == 0, 0] != 0).all()


def train(adversary, network, updates=100):
    env = Push()
    spec = Spec(env, chain(), network, "ppo", num_envs=16, num_steps=8, epochs=4, minibatches=2,
                adversary=adversary)  # fmt: skip
    agent = make_agent(spec)
    hyper = Hyper(learning_rate=3e-3, total_updates=updates)
    state = agent.init(jax.random.PRNGKey(0), hyper, env.default_params)
    chunk = jax.jit(agent.train_chunk, static_argnums=3)
    return agent, *chunk(state, hyper, env.default_params, updates)


@pytest.mark.parametrize("network", [MLP(2, hidden=(16,)), LSTM(2, width=16)])
@pytest.mark.parametrize("kind", ["noisy", "probabilistic"])
def test_both_players_get_what_they_want(kind, network):
    """The game's value is (1 - α) · 1 + α · (-1), whichever way actions are mixed."""
    agent, state, curves = train(Adversary(kind, 0.25), network)
    late = curves["return_sum"][-10:].sum() / curves["episodes"][-10:].sum()
    assert float(late) == pytest.approx(0.5, abs=0.12)
    # Tested alone, the protagonist does as it likes.
    act = lambda key: agent.act(key, state.policy, agent.start(), jnp.ones(1))[0]
    actions = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 20))
    assert float(actions.mean()) > 0.85


def test_an_adversary_without_strength_changes_nothing_that_is_executed():
    dist = players("probabilistic", 0.0, (100,))
    raw = dist.sample(jax.random.key(0))
    np.testing.assert_array_equal(dist.execute(raw), dist.protagonist.execute(raw[:, :1]))


def test_bad_adversaries_are_named():
    with pytest.raises(EntrobError, match="did you mean 'noisy'"):
        check_adversary(Adversary("nois"))
    with pytest.raises(EntrobError, match=r"must be in 0\.\.1, not 2"):
        check_adversary(Adversary("noisy", 2))
