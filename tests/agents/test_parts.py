"""Advantages, distributions and network layers against independent renderings."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from entrob.agents.model import PolicyParams, make_model
from entrob.agents.networks import MLP, MinAtarNetwork, MiniGridNetwork, PatchConv, max_pool_2x2
from entrob.distributions import Categorical
from entrob.envs import environments, make
from entrob.estimators.advantages import gae


def gae_by_definition(reward, value, next_value, terminated, truncated, gamma, lam):
    """Sum of (γλ)^l δ_{t+l} up to the end of the episode or of the rollout."""
    steps, envs = reward.shape
    delta = reward + gamma * next_value * (1 - terminated) - value
    out = np.zeros_like(reward)
    for n in range(envs):
        for t in range(steps):
            for later in range(t, steps):
                out[t, n] += (gamma * lam) ** (later - t) * delta[later, n]
                if terminated[later, n] or truncated[later, n]:
                    break
    return out


@pytest.mark.parametrize("seed", range(3))
def test_gae_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, 20, 4))
    ends = rng.random((20, 4))
    terminated, truncated = ends < 0.1, ends > 0.9
    args = (reward, value, next_value, terminated, truncated, 0.9, 0.8)
    np.testing.assert_allclose(gae(*map(jnp.asarray, args)), gae_by_definition(*args), atol=1e-5)


def test_termination_cuts_what_truncation_bootstraps():
    one, v = jnp.ones((1, 1)), jnp.full((1, 1), 10.0)
    no, yes = jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)
    assert float(gae(one, 0 * v, v, yes, no, 0.9, 1.0)[0, 0]) == pytest.approx(1.0)
    assert float(gae(one, 0 * v, v, no, yes, 0.9, 1.0)[0, 0]) == pytest.approx(10.0)


def test_categorical_against_scipy():
    logits = np.random.default_rng(0).normal(size=(6, 3)) * 3
    probs = special.softmax(logits, -1)
    dist = Categorical(jnp.asarray(logits))
    np.testing.assert_allclose(dist.probs, probs, atol=1e-6)
    np.testing.assert_allclose(dist.entropy(), stats.entropy(probs, axis=-1), atol=1e-6)
    other = Categorical(jnp.zeros((6, 3)))
    np.testing.assert_allclose(dist.kl(other), stats.entropy(probs, 1 / 3, axis=-1), atol=1e-5)
    action = jnp.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(
        dist.log_prob(action), np.log(probs[np.arange(6), action]), atol=1e-5
    )


def test_categorical_samples_its_probabilities():
    dist = Categorical(jnp.log(jnp.array([0.2, 0.5, 0.3])))
    draws = jax.vmap(dist.sample)(jax.random.split(jax.random.PRNGKey(0), 20_000))
    assert stats.chisquare(np.bincount(draws), 20_000 * np.array([0.2, 0.5, 0.3])).pvalue > 1e-3


def test_an_impossible_action_has_no_entropy():
    assert float(Categorical(jnp.array([0.0, -jnp.inf])).entropy()) == 0.0


def test_a_tempered_categorical_is_the_power_of_its_probabilities():
    logits = jax.random.normal(jax.random.key(0), (5, 3))
    dist, temperature = Categorical(logits), jnp.array([0.5, 0.8, 1.0, 1.2, 9.0])
    power = np.asarray(dist.probs, float) ** (1 / np.asarray(temperature)[:, None])
    np.testing.assert_allclose(
        dist.tempered(temperature).probs, power / power.sum(-1, keepdims=True), rtol=1e-5
    )
    assert dist.entropy_share() == pytest.approx(stats.entropy(dist.probs, axis=-1) / np.log(3))
    assert Categorical(jnp.zeros((1, 4))).entropy_share() == pytest.approx(1.0)
    assert Categorical(jnp.zeros((1, 1))).entropy_share() == 0.0


@pytest.mark.parametrize("size", [2, 3])
def test_patches_are_a_convolution(size):
    x = jax.random.normal(jax.random.PRNGKey(0), (5, 7, 6, 3))
    layer, conv = PatchConv(4, size), nn.Conv(4, (size, size), padding="VALID")
    params = jax.jit(layer.init)(jax.random.PRNGKey(1), x)
    dense = params["params"]["Dense_0"]
    kernel = dense["kernel"].reshape(size, size, 3, 4)
    same = {"params": {"kernel": kernel, "bias": dense["bias"]}}
    np.testing.assert_allclose(layer.apply(params, x), conv.apply(same, x), atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (7, 6), (6, 9), (9, 9), (1, 1)])
def test_pooling_drops_nothing(shape):
    x = -1 - jnp.abs(jax.random.normal(jax.random.PRNGKey(0), (5, *shape, 3)))
    pooled = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
    np.testing.assert_array_equal(max_pool_2x2(x), pooled)


def test_the_papers_network_has_its_size():
    net = MiniGridNetwork(3)
    image = jnp.zeros((2, 7, 7, 3), jnp.uint8)
    params = jax.eval_shape(net.init, jax.random.PRNGKey(0), image)
    logits, value = jax.eval_shape(net.apply, params, image)
    assert logits.shape == (2, 3) and value.shape == (2,)
    layers = [(12, 16), (64, 32), (128, 64), (64, 64), (64, 3), (64, 64), (64, 1)]
    wanted = sum(i * o + o for i, o in layers)
    assert sum(x.size for x in jax.tree.leaves(params)) == wanted


def test_the_network_of_minatars_paper_has_its_size():
    net = MinAtarNetwork(5)
    image = jnp.zeros((2, 10, 10, 6), bool)
    params = jax.eval_shape(net.init, jax.random.PRNGKey(0), image)
    layers = [(9 * 6, 16), (8 * 8 * 16, 128), (128, 5), (128, 1)]
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(i * o + o for i, o in layers)


def seen(env, params, steps=64, envs=64):
    """Observations of random play, [steps * envs, ...]."""

    def play(key):
        key, first = jax.random.split(key)
        _, state = env.reset(first, params)

        def step(carry, key):
            action, move = jax.random.split(key)
            action = env.action_space(params).sample(action)
            obs, state, *_ = env.step(move, carry, action, params)
            return state, obs

        return jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    obs = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), envs))
    return np.asarray(obs).reshape(-1, *obs.shape[2:])


def images():
    """Ids of registered environments whose observations are images."""
    for id in environments.names():
        env, params = make(id)
        if len(env.observation_space(params).shape) == 3:
            yield id


#: Has the network of the other games and the most cells that vary.
MANY = "gymnax:Asterix-MinAtar"


@pytest.mark.parametrize(
    "id",
    [
        pytest.param(id, marks=pytest.mark.slow) if id == MANY else id
        for id in (*images(), "gymnax:Breakout-MinAtar")
    ],
)
def test_all_that_varies_in_an_image_reaches_the_head_and_the_value(id):
    env, params = make(id)
    obs = seen(env, params)
    model = make_model(env)
    policy = PolicyParams(jax.jit(model.init)(jax.random.key(1), jnp.asarray(obs[:1])))

    @jax.jit
    def out(batches):
        dist, value = jax.lax.map(lambda x: model.sequence(policy, (), x, None), batches)
        return dist.logits, value

    # One cell and channel at a time as it is in other images; most of what varies is rare.
    varies = np.argwhere((obs != obs[0]).any(0))
    assert len(varies) > 20
    batches = np.stack([obs[:: len(obs) // 16]] * (1 + len(varies)))
    for changed, cell in zip(batches[1:], map(tuple, varies)):
        values = np.unique(obs[:, *cell])
        changed[:, *cell] = [
            values[values != old][i % (len(values) - 1)] for i, old in enumerate(changed[:, *cell])
        ]
    for found in map(np.asarray, out(batches)):
        felt = (found[1:] != found[0]).reshape(len(varies), -1).any(1)
        assert felt.all(), varies[~felt]


def test_policies_begin_close_to_uniform_and_values_do_not():
    """But for MiniGrid's, whose layers begin as in the released code."""
    x = jax.random.normal(jax.random.key(0), (100, 4))
    first = lambda net, x: jax.jit(lambda x: net.apply(net.init(jax.random.key(1), x), x))(x)
    head, value = first(MLP(3), x)
    assert jnp.abs(head).max() < 0.05 and jnp.abs(value).max() > 0.1
    image = jax.random.bernoulli(jax.random.key(0), 0.3, (100, 10, 10, 4))
    head, value = first(MinAtarNetwork(3), image)
    assert jnp.abs(head).max() < 0.05 and jnp.abs(value).max() > 0.1
