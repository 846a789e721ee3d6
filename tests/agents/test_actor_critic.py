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
from entrob.agents.networks import MLP
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.regularizers import Regularizer, chain, policy_entropy, state_entropy
from entrob.regularizers.chaining import faults


@struct.dataclass
class ProbeState(environment.EnvState):
    sign: jax.Array


@struct.dataclass
class ProbeParams(environment.EnvParams):
    """What is probed, traced, so that one program answers every question.

    Attributes:
      length: steps of an episode.
      paid: what a reward depends on, an index of `PAID`.
      every_step: whether it is paid at every step, not at the last one only.
      clock: whether the observation shows the time.
    """

    length: int = 1
    paid: int = 0
    every_step: bool = False
    clock: bool = True


PAID = ("constant", "obs", "action", "match")


class Probe(environment.Environment):
    """One coin toss an episode, shown as ±1; the reward of the last step is what is probed."""

    @property
    def default_params(self):
        return ProbeParams(max_steps_in_episode=10**6)

    def reset_env(self, key, params):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = ProbeState(time=jnp.int32(0), sign=sign)
        return self.get_obs(state, params), state

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        terminated = state.time >= params.length
        right = 1.0 * (action == (state.sign > 0))
        reward = jnp.stack([jnp.ones(()), state.sign, 1.0 * (action == 1), right])[params.paid]
        reward = jnp.where(terminated | params.every_step, reward, 0.0)
        return self.get_obs(state, params), state, jnp.float32(reward), terminated, {}

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.sign, state.time.astype(jnp.float32) * params.clock])

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(-10, 10, (2,), jnp.float32)

    @property
    def num_actions(self):
        return 2


def probe(paid="constant", **params):
    return Probe().default_params.replace(paid=PAID.index(paid), **params)


#: Reward 1 forever, cut every 4 steps without the clock being observed.
CUT = {"length": 10**6, "max_steps_in_episode": 4, "every_step": True, "clock": False}
#: By question: params of the probe, and discounts.
QUESTIONS = {
    "constant": (probe(), {}),
    "obs": (probe("obs"), {}),
    "discount": (probe(length=2), {"gamma": 0.5, "gae_lambda": 1.0}),
    "action": (probe("action"), {}),
    "match": (probe("match"), {}),
    "cut": (probe(**CUT), {"gamma": 0.5, "gae_lambda": 0.9}),
}
TERMINAL = {"cut": (probe(**CUT), {"gamma": 0.5, "gae_lambda": 1.0})}

UPDATES = 400


def ends(key, state, rollout, coef):
    """No bonus, and how many episodes of the rollout terminated and were truncated."""
    return 0 * rollout.reward, jnp.stack([rollout.terminated.sum(), rollout.truncated.sum()])


SEEN = Regularizer("seen", init=lambda key, spec, params: jnp.zeros(2, jnp.int32), reward=ends)


@functools.cache
def learned(algorithm, time_limit):
    """(agent, {question: state after training}): all questions side by side."""
    more = {"epochs": 4, "minibatches": 2} if algorithm == "ppo" else {}
    # A little policy entropy, or A2C may settle on an arm before it has tried both.
    spec = Spec(Probe(), chain(policy_entropy(), SEEN), MLP(2, hidden=(16,)), algorithm,
                num_envs=8, num_steps=16, time_limit=time_limit, **more)  # fmt: skip
    agent = make_agent(spec)
    questions = QUESTIONS if time_limit == "bootstrap" else TERMINAL
    rate, coefs = 2e-3 if algorithm == "a2c" else 1e-3, {"policy_entropy": 0.01, "seen": 1.0}
    fixed = {"learning_rate": rate, "total_updates": UPDATES, "coefs": coefs}
    stack = lambda *xs: jnp.stack([jnp.asarray(x) for x in xs])
    probes, discounts = zip(*questions.values())
    params = jax.tree.map(stack, *probes)
    hyper = jax.tree.map(stack, *(Hyper(**fixed, **own) for own in discounts))

    @jax.jit
    @jax.vmap
    def train(hyper, params):
        state = agent.init(jax.random.PRNGKey(0), hyper, params)
        return agent.train_chunk(state, hyper, params, UPDATES)[0]

    states = jax.tree.map(np.asarray, train(hyper, params))
    one = lambda i: jax.tree.map(lambda x: x[i], states)
    return agent, {name: one(i) for i, name in enumerate(questions)}


both = pytest.mark.parametrize("algorithm", ["a2c", "ppo"])


def outcome(algorithm, question, obs, time_limit="bootstrap"):
    """(distribution, values) of the learned policy at some observations."""
    agent, states = learned(algorithm, time_limit)
    return agent.model.sequence(states[question].policy, (), jnp.array(obs), None)


@both
def test_the_value_of_a_constant_reward(algorithm):
    _, value = outcome(algorithm, "constant", [[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(value, 1.0, atol=0.1)


@both
def test_the_value_tells_observations_apart(algorithm):
    _, value = outcome(algorithm, "obs", [[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(value, [1.0, -1.0], atol=0.15)


@both
def test_the_value_is_discounted(algorithm):
    _, value = outcome(algorithm, "discount", [[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(value, [0.5, 1.0], atol=0.12)


@both
def test_the_better_arm_is_found(algorithm):
    dist, _ = outcome(algorithm, "action", [[1.0, 0.0], [-1.0, 0.0]])
    assert (dist.probs[:, 1] > 0.9).all()


@both
def test_the_policy_depends_on_the_observation(algorithm):
    dist, _ = outcome(algorithm, "match", [[1.0, 0.0], [-1.0, 0.0]])
    assert dist.probs[0, 1] > 0.9 and dist.probs[1, 0] > 0.9


@both
def test_truncation_is_bootstrapped(algorithm):
    # V = 1 / (1 - γ), as if it went on.
    _, value = outcome(algorithm, "cut", [[1.0, 0.0]])
    np.testing.assert_allclose(value, 2.0, atol=0.1)


# What `collect` makes of a time limit is the same for both.
@pytest.mark.parametrize("algorithm", ["a2c", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_time_limit_can_be_terminal(algorithm):
    # V cannot tell the four steps of an episode apart: the mean of 1, 1.5, 1.75 and 1.875.
    _, value = outcome(algorithm, "cut", [[1.0, 0.0]], "terminal")
    np.testing.assert_allclose(value, 1.53, atol=0.08)


@pytest.mark.parametrize(("time_limit", "seen"), [("bootstrap", [0, 32]), ("terminal", [32, 0])])
def test_regularizers_see_what_learning_makes_of_a_time_limit(time_limit, seen):
    """Of 8 environments that are cut at every fourth of 16 steps."""
    _, states = learned("a2c", time_limit)
    assert states["cut"].regularizers["seen"].inner.tolist() == seen


@functools.cache
def minigrid(regularizer, **options):
    """(agent, params); one agent per regularizer, whose program is shared."""
    env, params = make("minigrid/empty-8x8")
    return make_agent(Spec(env, regularizer, **options)), params


def batch_of(agent, params, seeds, coefs, updates, tables=None, **hyper):
    """Train runs side by side: (state, curves)."""
    width = len(seeds)
    hyper = Hyper(**hyper, coefs={k: jnp.asarray(v, jnp.float32) for k, v in coefs.items()})
    fill = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (width,))
    hyper = jax.tree.map(fill, hyper)
    return compiled(agent, updates)(jnp.asarray(seeds), hyper, params, tables)


@functools.cache
def compiled(agent, updates):
    """The training program of an agent, kept between calls."""

    def one(seed, hyper, params, tables):
        state = agent.init(jax.random.PRNGKey(seed), hyper, params)
        return agent.train_chunk(state, hyper, params, updates, tables)

    return jax.jit(jax.vmap(one, (0, 0, None, None)))


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


ENTROPIES = chain(policy_entropy(), state_entropy())
#: Compiles in half the time that the grid's own network takes, and is looked up in tables as that.
SMALL = MLP(3, hidden=(16,), axes=3)


def test_tables_change_nothing_but_the_order_of_additions():
    results = []
    for tabulate in (False, True):
        agent, params = minigrid(ENTROPIES, network=SMALL, tabulate=tabulate)
        coefs = {"policy_entropy": [0.01], "state_entropy": [0.05]}
        results.append(batch_of(agent, params, [3], coefs, updates=1))
    tables = agent.tables(params)
    assert len(tables.observations) < len(tables.view)
    results.append(batch_of(agent, params, [3], coefs, updates=1, tables=tables))
    (every, x), *others = results
    for found, y in others:
        chex.assert_trees_all_close(found.network, every.network, atol=2e-5)
        for name in x:
            np.testing.assert_allclose(x[name], y[name], rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("task", ["empty-8x8", "two-paths", "four-rooms"])
def test_tables_hold_each_observation_once_and_what_every_state_looks_like(task):
    env, params = make(f"minigrid/{task}")
    tables = make_agent(Spec(env, network=SMALL)).tables(params)
    look = jax.jit(jax.vmap(lambda state: env.get_obs(state, params)))
    np.testing.assert_array_equal(tables.observations[tables.view], look(env.states(params)))
    shown = {x.tobytes() for x in np.asarray(tables.observations)}
    assert len(shown) == len(tables.observations) < len(tables.view)


def test_coefficients_and_seeds_share_one_compilation():
    agent, params = minigrid(ENTROPIES, network=SMALL, tabulate=True)
    tables, sizes = agent.tables(params), []
    for seed, value in enumerate([0.0, 0.01, 1.0]):
        coefs = {"policy_entropy": [value], "state_entropy": [value]}
        batch_of(agent, params, [seed], coefs, updates=1, tables=tables)
        sizes.append(compiled(agent, 1)._cache_size())
    assert len({*sizes}) == 1


#: Coefficients of `SPOILER` of which one turns the loss NaN, the other the reward.
LOSS, REWARD = 2.0, 3.0


def spoiler():
    """A regularizer of which one hook turns NaN in the third update, by its coefficient."""

    def init(key, spec, params):
        return jnp.int32(0)

    def bad(state, coef, ill):
        return jnp.where((coef == ill) & (state >= 2), jnp.nan, 0.0)

    def loss(key, state, policy, batch, coef):
        return bad(state, coef, LOSS) + 0 * policy.value.sum()

    def reward(key, state, rollout, coef):
        return jnp.full(rollout.reward.shape, bad(state, coef, REWARD)), state

    def update(key, state, rollout, metrics):
        return state + 1

    return Regularizer("spoiler", init=init, update=update, loss=loss, reward=reward)


SPOILED = chain(policy_entropy(), spoiler())


def spoiled(*coefs, seeds=(0, 1, 2), **hyper):
    """Four updates of three runs whose spoiler has these coefficients: (agent, state, curves)."""
    agent, params = minigrid(SPOILED, network=SMALL)
    coefs = {"policy_entropy": [0.01] * 3, "spoiler": coefs}
    return agent, *batch_of(agent, params, seeds, coefs, updates=4, **hyper)


def test_seeds_differ_and_equal_seeds_agree():
    _, state, _ = spoiled(1, 1, 1, seeds=(5, 6, 5))
    leaf = np.asarray(jax.tree.leaves(state.network)[1])
    assert (leaf[0] == leaf[2]).all() and (leaf[0] != leaf[1]).any()


@pytest.mark.parametrize(("hook", "coef"), [("loss", LOSS), ("reward", REWARD)])
def test_a_diverged_run_is_frozen_and_its_neighbors_unharmed(hook, coef):
    agent, sick, curves = spoiled(1, coef, 1)
    _, well, _ = spoiled(1, 1, 1)
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
    _, state, _ = spoiled(1, 1, 1, learning_rate=1e38)
    assert (state.diverged_at >= 0).all() and (state.cause == AGENT).all()


def within(epochs, max_kl):
    """A network after an update, and the share of the update's steps that were not taken."""
    sizes = {"algorithm": "ppo", "num_envs": 4, "num_steps": 8}
    agent = make_agent(Spec(Probe(), chain(), epochs=epochs, **sizes))
    params, hyper = probe("match", length=4), {"learning_rate": 1e-2, "max_kl": jnp.array(max_kl)}
    state, curves = batch_of(agent, params, [0] * len(max_kl), {}, updates=1, **hyper)
    return state.network, curves["stopped"][:, 0]


def test_no_step_is_taken_from_too_far_away():
    network, stopped = within(4, [1e-6, float("inf")])
    np.testing.assert_array_equal(stopped, [0.75, 0])
    gaps = jax.tree.map(lambda x: float(abs(x[0] - x[1]).max()), network)
    assert max(jax.tree.leaves(gaps)) > 1e-3


@pytest.mark.slow  # a program more
def test_the_first_step_is_taken():
    (once, never), (stopped, _) = within(1, [1e-6]), within(4, [1e-6])
    chex.assert_trees_all_close(stopped, once, atol=1e-5)
    assert never == 0


def test_what_cannot_be_built_says_so():
    env, _ = make("minigrid/empty-8x8")
    with pytest.raises(ValueError, match="a2c or ppo"):
        make_agent(Spec(env, chain(), algorithm="dqn"))
    with pytest.raises(ValueError, match="bootstrap or terminal"):
        make_agent(Spec(env, chain(), time_limit="infinite"))
    with pytest.raises(ValueError, match="minibatches"):
        make_agent(Spec(env, chain(), minibatches=7))
