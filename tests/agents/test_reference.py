"""What the paper's released Pusher code does where its text is silent or differs: each alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from scipy import stats

import entrob
from entrob.agents.actor_critic import make_agent
from entrob.agents.collect import collect
from entrob.agents.model import LOG_STD, Gaussian, PolicyParams, make_model, squashed
from entrob.agents.networks import ReferenceLSTM
from entrob.agents.normalizer import PerEnvironment, standardize
from entrob.agents.spec import CHOICES, REFERENCE, Hyper, Spec
from entrob.distributions import Categorical, TanhNormal
from entrob.envs import Environment, make
from entrob.errors import EntrobError
from entrob.library.policy import read_policy
from entrob.regularizers import Regularizer, chain, policy_entropy, state_entropy
from entrob.rollout import Context

LOW, HIGH = (-2.0, 0.0), (2.0, 0.5)


@struct.dataclass
class Drifting(environment.EnvState):
    place: jax.Array


class Drift(Environment):
    """A walk that no action moves; a reward of any size; an episode ends by chance or after 7."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=7)

    def reset_env(self, key, params):
        state = Drifting(time=jnp.int32(0), place=jax.random.normal(key, (3,)))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        move = jax.random.normal(key, (3,))
        state = Drifting(time=state.time + 1, place=state.place + move)
        reward = 30.0 * move[0] - action[0]
        return self.get_obs(state), state, reward, move[1] > 1.2, {}

    def get_obs(self, state, params=None, key=None):
        return state.place * jnp.array([1.0, 100.0, 0.0]) + 5.0

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(-np.inf, np.inf, (3,), jnp.float32)


ENV = Drift()
PARAMS = ENV.default_params


def dense(weights, name, x):
    return x @ weights[name]["kernel"] + weights[name]["bias"]


@pytest.fixture(scope="module")
def network():
    """The network as a run of Pusher has it, and observations of unit spread."""
    model = make_model(make("mujoco/pusher")[0], "lstm-reference", gaussian=Gaussian("tanh"))
    obs = jax.random.normal(jax.random.key(1), (5, 4, 23))
    return model, jax.jit(model.init)(jax.random.key(0), obs[0]), obs


def test_the_networks_first_weights(network):
    _, params, _ = network
    weights = jax.tree.map(np.asarray, params["params"])
    scales = {
        "Dense_0": 2**0.5, "Dense_1": 2**0.5, "Dense_2": 0.5,  # encoder, inputs of the gates
        "Dense_3": 2**0.5, "Dense_4": 2**0.5, "Dense_5": 0.01,  # shared layer, tower of the mean
        "Dense_6": 2**0.5, "Dense_8": 2**0.5, "Dense_9": 1.0,  # of the deviation, of the critic
    }  # fmt: skip
    kernels = {name: weights[name]["kernel"] for name in scales} | {"": weights["recurrent"]}
    for name, kernel in kernels.items():
        small = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
        scale = scales.get(name, 0.5)
        np.testing.assert_allclose(small @ small.T, scale**2 * np.eye(len(small)), atol=1e-5)
    np.testing.assert_array_equal(weights["Dense_7"]["kernel"], np.full((256, 7), 0.2, np.float32))
    assert not any(layer["bias"].any() for name, layer in weights.items() if name != "recurrent")
    assert len(weights) == 11


def test_the_first_spread_is_near_its_upper_bound_and_actions_near_theirs(network):
    model, params, obs = network
    start = jnp.zeros((5, 4), bool).at[0].set(True)
    dist, value = model.sequence(PolicyParams(params), model.init_carry(4), obs, start)
    assert dist.mean.shape == dist.log_std.shape == (5, 4, 7) and value.shape == (5, 4)
    assert float(dist.log_std.min()) > 0.8 and float(dist.log_std.max()) < LOG_STD[1]
    assert float(jnp.abs(dist.mean).max()) < 0.05
    share = jnp.abs(jnp.tanh(dist.sample(jax.random.key(2)))) > 0.9
    assert 0.5 < float(share.mean()) < 0.75  # of a normal of spread e^1.2: 0.66


def test_the_network_is_that_of_its_definition():
    """No shift of the forget gate; a tower each; the critic straight from the memory."""
    net = ReferenceLSTM(4, width=8)
    obs, start = jax.random.normal(jax.random.key(1), (4, 3, 2)), jnp.zeros((4, 3), bool)
    params = net.init(jax.random.key(0), net.init_carry(3), obs, start)
    head, value, _ = net.apply(params, net.init_carry(3), obs, start)
    weights = jax.tree.map(np.asarray, params["params"])
    layer = functools.partial(dense, weights)
    hidden = lambda name, x: np.maximum(layer(name, x), 0)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    c = h = np.zeros((3, 8))
    for t in range(4):
        x = hidden("Dense_1", hidden("Dense_0", np.asarray(obs[t])))
        i, f, g, o = np.split(layer("Dense_2", x) + h @ weights["recurrent"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    shared = hidden("Dense_3", h)
    mean = layer("Dense_5", hidden("Dense_4", shared))
    log_std = layer("Dense_7", hidden("Dense_6", shared))
    np.testing.assert_allclose(head[-1], np.concatenate([mean, log_std], -1), atol=1e-5)
    np.testing.assert_allclose(value[-1], layer("Dense_9", hidden("Dense_8", h))[:, 0], atol=1e-5)


def test_the_smooth_bound_and_its_gradient():
    x = np.linspace(-9, 9, 37).astype(np.float32)
    bound = lambda x: squashed(x, *LOG_STD)
    np.testing.assert_allclose(bound(x), -5 + 3.1 * (np.tanh(x) + 1), atol=1e-5)
    slopes = jax.vmap(jax.grad(bound))(x)
    np.testing.assert_allclose(slopes, 3.1 / np.cosh(x.astype(float)) ** 2, atol=1e-5)
    model = make_model(ENV, "mlp", gaussian=Gaussian(log_std="tanh"))
    clipped = make_model(ENV, "mlp")
    obs = jnp.ones((1, 3))
    params = model.init(jax.random.key(0), obs)
    params["params"]["Dense_2"]["bias"] = jnp.array([0.0, 2.0])
    log_std = lambda model: float(model.sequence(PolicyParams(params), (), obs, None)[0].log_std[0, 0])
    raw = 2.0 + log_std(clipped) - 1.2  # the clip hides the number: it is 2 but for 0.01 weights
    assert log_std(clipped) == pytest.approx(1.2)
    assert log_std(model) == pytest.approx(-5 + 3.1 * (np.tanh(raw) + 1), abs=0.02)


def test_the_normals_entropy_is_counted_before_tanh():
    mean, log_std = [[3.0, -1.0], [0.0, 0.0]], [[1.2, -2.0], [0.5, 1.2]]
    make = lambda *settings: TanhNormal(jnp.float32(mean), jnp.float32(log_std), LOW, HIGH, *settings)
    expected = stats.norm.entropy(mean, np.exp(log_std)).sum(-1)
    np.testing.assert_allclose(make("normal").counted_entropy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(make().counted_entropy(), make().entropy())
    # All else that an entropy is asked for is the executed action's, whatever is counted.
    np.testing.assert_array_equal(make("normal").entropy(), make().entropy())
    np.testing.assert_array_equal(make("normal").entropy_share(), make().entropy_share())
    # It grows with the spread by 1 in each dimension, however far tanh saturates.
    total = lambda log_std: make("normal").replace(log_std=log_std).counted_entropy().sum()
    np.testing.assert_allclose(jax.grad(total)(jnp.float32(log_std)), np.ones((2, 2)), rtol=1e-6)
    most = TanhNormal(jnp.zeros(7), jnp.full(7, 1.2), (-2.0,) * 7, (2.0,) * 7, "normal")
    assert float(most.counted_entropy()) == pytest.approx(18.3, abs=0.05)
    logits = Categorical(jnp.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(logits.counted_entropy(), logits.entropy())


def test_a_stored_action_is_scored_by_its_clipped_atanh():
    mean, log_std = np.array([0.3, -0.2]), np.array([1.2, 0.4])
    dist = TanhNormal(jnp.float32(mean), jnp.float32(log_std), LOW, HIGH, scored="atanh")
    exact = TanhNormal(jnp.float32(mean), jnp.float32(log_std), LOW, HIGH)
    raw = np.array([[0.5, -1.0], [3.7, 0.0], [4.5, -3.9], [-6.0, 5.0]])
    y, scale = np.tanh(raw), np.array([2.0, 0.25])
    slope = np.log(scale * (1 - y**2) + 1e-6)
    score = lambda u: (stats.norm.logpdf(u, mean, np.exp(log_std)) - slope).sum(-1)
    stored, drawn = score(np.arctanh(np.clip(y, -0.999, 0.999))), score(raw)
    u = jnp.float32(raw)
    np.testing.assert_allclose(dist.log_prob(u), stored, rtol=1e-3)
    np.testing.assert_allclose(dist.drawn_log_prob(u), drawn, rtol=1e-3)
    # The ratio of an unchanged policy is 1 within the bound, and above 1 outside.
    ratio = np.exp(dist.log_prob(u) - dist.drawn_log_prob(u))
    np.testing.assert_allclose(ratio[:2], 1.0, rtol=1e-5)
    assert (ratio[2:] > 1.08).all()
    np.testing.assert_array_equal(exact.drawn_log_prob(u), exact.log_prob(u))
    np.testing.assert_allclose(exact.log_prob(u)[:2], drawn[:2], rtol=1e-3)
    slopes = jax.grad(lambda u: dist.log_prob(u).sum())(jnp.float32([[40.0, -40.0]]))
    assert jnp.isfinite(slopes).all()


class Running:
    """Mean and variance of one stream, as Gymnasium's `RunningMeanStd` with batches of one."""

    def __init__(self, shape):
        self.mean, self.var, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def see(self, x):
        total = self.count + 1
        delta = x - self.mean
        m2 = self.var * self.count + delta**2 * self.count / total
        self.mean, self.var, self.count = self.mean + delta / total, m2 / total, total

    @property
    def std(self):
        return np.sqrt(self.var + 1e-8)


N, T = 3, 20


@functools.cache
def rollouts():
    """Two rollouts as they are, and the same ones in units of each environment's statistics."""
    spec = Spec(ENV, chain(), "mlp", "ppo", num_envs=N, num_steps=T,
                normalize=True, statistics="environment")  # fmt: skip
    agent = make_agent(spec)
    policy = PolicyParams(agent.model.init(jax.random.key(5), jnp.zeros((1, 3))))
    # So that neither how it sees nor what it is paid moves the walk: its actions are all 0.
    still = lambda dist: dist.replace(mean=0 * dist.mean, log_std=0 * dist.log_std - 30)

    @jax.jit
    def two(key):
        state = agent.init(key, Hyper(), PARAMS)

        def roll(loop, key):
            where, own = loop
            where, rollout, next_value, *_, own = collect(
                agent.build, PARAMS, Context(0.0, 0.9), policy, still, where, key, own=own
            )
            return (where, own), (rollout, next_value, own)

        keys = jax.random.split(jax.random.key(7))
        raw = jax.lax.scan(roll, (state.rollout_state, ()), keys)[1][0]
        own = jax.lax.scan(roll, (state.rollout_state, state.normalizer), keys)[1]
        return state, raw, *own

    return agent, policy, two(jax.random.PRNGKey(3))


def test_each_environment_has_statistics_of_its_own():
    agent, policy, (_, raw, rollout, next_value, own) = rollouts()
    raw, rollout, own = jax.tree.map(np.asarray, (raw, rollout, own))
    flat = lambda x: x.reshape(2 * T, *x.shape[2:])
    obs, reward = flat(raw.obs), flat(raw.reward)
    terminated, truncated = flat(raw.terminated), flat(raw.truncated)
    assert terminated[:-1].any(0).all() and truncated[:-1].any(0).all()
    np.testing.assert_array_equal(flat(rollout.terminated), terminated)
    np.testing.assert_array_equal(raw.features, rollout.features)
    for n in range(N):
        seen, paid, total = Running(3), Running(()), 0.0
        seen.see(obs[0, n])
        for t in range(2 * T):
            shown = np.clip((obs[t, n] - seen.mean) / seen.std, -10, 10)
            np.testing.assert_allclose(flat(rollout.obs)[t, n], shown, rtol=2e-3, atol=2e-3)
            total = 0.9 * total * (1 - terminated[t, n]) + reward[t, n]
            paid.see(total)
            given = np.clip(reward[t, n] / paid.std, -10, 10)
            np.testing.assert_allclose(flat(rollout.reward)[t, n], given, rtol=1e-3, atol=1e-4)
            # The last observation of an episode counts, and that of the reset does.
            if t + 1 < 2 * T:
                done = terminated[t, n] or truncated[t, n]
                if done:
                    seen.see(last_of(raw, t, n))
                seen.see(obs[t + 1, n])
        np.testing.assert_allclose(own.discounted.mean[-1, n], paid.mean, rtol=1e-3)
        scale = np.sqrt(own.discounted.m2[-1, n] / own.discounted.count[-1, n] + 1e-8)
        np.testing.assert_allclose(scale, paid.std, rtol=1e-3)
