"""The actor-critic loop on environments whose solution is known, and on MiniGrid."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from entrob.agents.actor_critic import AGENT, HEALTHY, make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.regularizers import Regularizer, chain, policy_entropy, state_entropy
from entrob.regularizers.chaining import faults


@struct.dataclass
class ProbeState(environment.EnvState):
    sign: jax.Array


@struct.dataclass
class ProbeParams(environment.EnvParams):
    length: int = 1
    reward_from: str = struct.field(pytree_node=False, default="constant")


class Probe(environment.Environment):
    """One coin toss an episode, shown as ±1; the reward of the last step is what is probed."""

    def __init__(self, reward_from="constant", length=1, limit=10**6, every_step=False):
        self.reward_from, self.length, self.limit = reward_from, length, limit
        self.every_step = every_step

    @property
    def default_params(self):
        return ProbeParams(max_steps_in_episode=self.limit)

    def reset_env(self, key, params):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = ProbeState(time=jnp.int32(0), sign=sign)
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        terminated = state.time >= self.length
        right = jnp.where(action == (state.sign > 0), 1.0, 0.0)
        reward = {"constant": 1.0, "obs": state.sign, "action": 1.0 * (action == 1)}.get(
            self.reward_from, right
        )
        reward = jnp.where(terminated | self.every_step, reward, 0.0)
        return self.get_obs(state), state, jnp.float32(reward), terminated, {}

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.sign, state.time.astype(jnp.float32) * (self.limit > 10**5)])

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(-10, 10, (2,), jnp.float32)

    @property
    def num_actions(self):
        return 2


def trained(env, algorithm, updates=400, time_limit="bootstrap", **hyper):
    """(agent, state) after training on a probe."""
    more = {"epochs": 4, "minibatches": 2} if algorithm == "ppo" else {}
    more["time_limit"] = time_limit
    # A little policy entropy, or A2C may settle on an arm before it has tried both.
    regularizer = chain(policy_entropy())
    spec = Spec(env, regularizer, algorithm=algorithm, num_envs=8, num_steps=16, **more)
    agent = make_agent(spec)
    coefs = {"policy_entropy": 0.01}
    rate = 2e-3 if algorithm == "a2c" else 5e-4
    hyper = Hyper(**{"learning_rate": rate, "total_updates": updates, "coefs": coefs, **hyper})
    params = env.default_params
    state = agent.init(jax.random.PRNGKey(0), hyper, params)
    return agent, jax.jit(agent.train_chunk, static_argnums=3)(state, hyper, params, updates)[0]


both = pytest.mark.parametrize("algorithm", ["a2c", "ppo"])


@both
def test_the_value_of_a_constant_reward(algorithm):
    agent, state = trained(Probe(), algorithm)
    _, value = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0], [-1.0, 0.0]]), None)
    np.testing.assert_allclose(value, 1.0, atol=0.1)


@both
def test_the_value_tells_observations_apart(algorithm):
    agent, state = trained(Probe("obs"), algorithm)
    _, value = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0], [-1.0, 0.0]]), None)
    np.testing.assert_allclose(value, [1.0, -1.0], atol=0.15)


@both
def test_the_value_is_discounted(algorithm):
    agent, state = trained(Probe(length=2), algorithm, gamma=0.5, gae_lambda=1.0)
    _, value = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0], [1.0, 1.0]]), None)
    np.testing.assert_allclose(value, [0.5, 1.0], atol=0.12)


@both
def test_the_better_arm_is_found(algorithm):
    agent, state = trained(Probe("action"), algorithm)
    dist, _ = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0], [-1.0, 0.0]]), None)
    assert (dist.probs[:, 1] > 0.9).all()


@both
def test_the_policy_depends_on_the_observation(algorithm):
    agent, state = trained(Probe("match"), algorithm)
    dist, _ = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0], [-1.0, 0.0]]), None)
    assert dist.probs[0, 1] > 0.9 and dist.probs[1, 0] > 0.9


@both
def test_truncation_is_bootstrapped(algorithm):
    # Reward 1 forever, cut every 4 steps without the clock being observed: V = 1 / (1 - γ).
    env = Probe(length=10**6, limit=4, every_step=True)
    agent, state = trained(env, algorithm, updates=1000, gamma=0.5, gae_lambda=0.9)
    _, value = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0]]), None)
    np.testing.assert_allclose(value, 2.0, atol=0.1)


@both
def test_a_time_limit_can_be_terminal(algorithm):
    # V cannot tell the four steps of an episode apart: the mean of 1, 1.5, 1.75 and 1.875.
    env = Probe(length=10**6, limit=4, every_step=True)
    agent, state = trained(env, algorithm, 1000, "terminal", gamma=0.5, gae_lambda=1.0)
    _, value = agent.model.sequence(state.policy, (), jnp.array([[1.0, 0.0]]), None)
    np.testing.assert_allclose(value, 1.53, atol=0.08)


@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
def test_regularizers_see_what_learning_makes_of_a_time_limit(time_limit):
    def ends(rollout):
        return jnp.stack([rollout.terminated.sum(), rollout.truncated.sum()])

    seen = Regularizer(
        "seen",
        init=lambda key, spec, params: jnp.zeros(2, jnp.int32),
        reward=lambda key, state, rollout, coef: (0 * rollout.reward, ends(rollout)),
    )
    env = Probe(length=10**6, limit=4)
    spec = Spec(env, chain(seen), num_envs=2, num_steps=8, time_limit=time_limit)
    state = batch_of(make_agent(spec), env.default_params, [0], {"seen": [1.0]}, updates=1)[0]
    assert state.regularizers["seen"].inner[0].tolist() == (
        [0, 4] if time_limit == "bootstrap" else [4, 0]
    )


def minigrid(regularizer, **options):
    env, params = make("minigrid/empty-8x8")
    return make_agent(Spec(env, regularizer, **options)), params


def batch_of(agent, params, seeds, coefs, updates, **hyper):
    """Train runs side by side: (state, curves)."""
    width = len(seeds)
    hyper = Hyper(**hyper, coefs={k: jnp.asarray(v, jnp.float32) for k, v in coefs.items()})
    fill = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (width,))
    hyper = jax.tree.map(fill, hyper)
    keys = jax.vmap(jax.random.PRNGKey)(jnp.asarray(seeds))
    state = jax.vmap(agent.init, (0, 0, None))(keys, hyper, params)
    return compiled(agent, updates)(state, hyper, params)


@functools.cache
def compiled(agent, updates):
    """The training program of an agent, kept between calls."""
    chunk = functools.partial(agent.train_chunk, updates=updates)
    return jax.jit(jax.vmap(chunk, (0, 0, None)))


@pytest.mark.slow
def test_minigrid_is_solved():
    # With the paper's policy entropy: without any, some seeds have not solved it by then.
    agent, params = minigrid(chain(policy_entropy()))
    _, curves = batch_of(agent, params, [0, 1, 2], {"policy_entropy": [0.01] * 3}, updates=250)
    last = {k: np.asarray(v)[:, -25:].sum(1) for k, v in curves.items()}
    assert (last["success_sum"] / last["episodes"] >= 0.95).all()


@pytest.mark.slow
def test_minigrid_is_solved_at_the_papers_length_by_ppo():
    agent, params = minigrid(chain(policy_entropy()), algorithm="ppo", epochs=4, minibatches=4)
    coefs = {"policy_entropy": [0.01] * 3}
    _, curves = batch_of(agent, params, [0, 1, 2], coefs, updates=1000, learning_rate=3e-4)
    last = {k: np.asarray(v)[:, -25:].sum(1) for k, v in curves.items()}
    assert (last["success_sum"] / last["episodes"] >= 0.95).all()


def test_tables_change_nothing_but_the_order_of_additions():
    results = []
    for tabulate in (True, False):
        agent, params = minigrid(chain(policy_entropy(), state_entropy()), tabulate=tabulate)
        coefs = {"policy_entropy": [0.01], "state_entropy": [0.05]}
        results.append(batch_of(agent, params, [3], coefs, updates=1))
    (a, x), (b, y) = results
    chex.assert_trees_all_close(a.network, b.network, atol=2e-5)
    for name in x:
        np.testing.assert_allclose(x[name], y[name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_seeds_differ_and_equal_seeds_agree():
    agent, params = minigrid(chain())
    state, _ = batch_of(agent, params, [5, 6, 5], {}, updates=2)
    leaf = np.asarray(jax.tree.leaves(state.network)[1])
    assert (leaf[0] == leaf[2]).all() and (leaf[0] != leaf[1]).any()


def spoiler(hook):
    """A regularizer that turns NaN in the third update, if its coefficient exceeds 1."""

    def init(key, spec, params):
        return jnp.int32(0)

    def bad(state, coef):
        return jnp.where((coef > 1) & (state >= 2), jnp.nan, 0.0)

    def loss(key, state, policy, batch, coef):
        return bad(state, coef) + 0 * policy.value.sum()

    def reward(key, state, rollout, coef):
        return jnp.full(rollout.reward.shape, bad(state, coef)), state

    def update(key, state, rollout, metrics):
        return state + 1

    hooks = {"loss": loss, "reward": reward}
    return Regularizer("spoiler", init=init, update=update, **{hook: hooks[hook]})


@pytest.mark.parametrize("hook", ["loss", "reward"])
def test_a_diverged_run_is_frozen_and_its_neighbors_unharmed(hook):
    agent, params = minigrid(chain(policy_entropy(), spoiler(hook)))
    coefs = {"policy_entropy": [0.01] * 3}
    sick, curves = batch_of(agent, params, [0, 1, 2], {**coefs, "spoiler": [1, 2, 1]}, updates=4)
    well, _ = batch_of(agent, params, [0, 1, 2], {**coefs, "spoiler": [1, 1, 1]}, updates=4)
    assert sick.diverged_at.tolist() == [-1, 2, -1]
    fault = faults(agent.build.chain.names).index(f"spoiler: {hook}")
    assert sick.cause.tolist() == [HEALTHY, 2 + fault, HEALTHY]
    assert sick.update.tolist() == [4, 2, 4]
    assert (
        np.isnan(curves["value_loss"][1, 2:]).all() and np.isfinite(curves["value_loss"][0]).all()
    )
    for x, y in zip(jax.tree.leaves(sick.network), jax.tree.leaves(well.network)):
        assert np.isfinite(x).all()
        assert (x[0] == y[0]).all() and (x[2] == y[2]).all()


def test_weights_that_overflow_blame_the_agent():
    agent, params = minigrid(chain())
    state, _ = batch_of(agent, params, [0], {}, updates=2, learning_rate=1e38)
    assert state.diverged_at[0] >= 0 and state.cause[0] == AGENT


def test_coefficients_and_seeds_share_one_compilation():
    agent, params = minigrid(chain(policy_entropy(), state_entropy()))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def train(state, hyper):
        return agent.train_chunk(state, hyper, params, 1)

    for seed, value in enumerate([0.0, 0.01, 1.0]):
        coefs = {"policy_entropy": jnp.float32(value), "state_entropy": jnp.float32(value)}
        hyper = jax.tree.map(jnp.float32, Hyper(coefs=coefs))
        train(agent.init(jax.random.PRNGKey(seed), hyper, params), hyper)


def test_no_step_is_taken_from_too_far_away():
    env = Probe("match", length=4)

    def network(epochs, max_kl):
        spec = Spec(env, chain(), algorithm="ppo", num_envs=4, num_steps=8, epochs=epochs)
        agent = make_agent(spec)
        hyper = {"learning_rate": 1e-2, "max_kl": max_kl}
        state, curves = batch_of(agent, env.default_params, [0], {}, updates=1, **hyper)
        return state.network, float(curves["stopped"][0, 0])

    (once, never), (stopped, share) = network(1, 1e-6), network(4, 1e-6)
    chex.assert_trees_all_close(stopped, once, atol=1e-5)
    assert never == 0 and share == 0.75
    free, none = network(4, float("inf"))
    gaps = jax.tree.map(lambda a, b: float(abs(a - b).max()), free, once)
    assert none == 0 and max(jax.tree.leaves(gaps)) > 1e-3


def test_what_cannot_be_built_says_so():
    env, _ = make("minigrid/empty-8x8")
    with pytest.raises(ValueError, match="a2c or ppo"):
        make_agent(Spec(env, chain(), algorithm="dqn"))
    with pytest.raises(ValueError, match="bootstrap or terminal"):
        make_agent(Spec(env, chain(), time_limit="infinite"))
    with pytest.raises(ValueError, match="minibatches"):
        make_agent(Spec(env, chain(), minibatches=7))
