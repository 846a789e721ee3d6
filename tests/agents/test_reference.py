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


def moved(place, np=np):
    """Where a place [..., 2] goes on to."""
    return place + np.cos(5.0 * place)


def shown(place, np=np):
    """The observation [..., 3] of a place: one number of a large spread, one of none."""
    return np.stack([place[..., 0], 100.0 * place[..., 1], 5.0 + 0.0 * place[..., 0]], -1)


class Drift(Environment):
    """A walk that no action moves; a reward of any size; it ends here and there, or is cut at 4."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=4)

    def reset_env(self, key, params):
        state = Drifting(time=jnp.int32(0), place=jax.random.normal(key, (2,)))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        state = Drifting(time=state.time + 1, place=moved(state.place, jnp))
        reward = 30.0 * state.place[0]
        return self.get_obs(state), state, reward, state.place[1] > 1.2, {}

    def get_obs(self, state, params=None, key=None):
        return shown(state.place, jnp)

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
    """A small one, its first weights, and observations [4, 3, 2]."""
    net = ReferenceLSTM(4, width=8)
    obs, start = jax.random.normal(jax.random.key(1), (4, 3, 2)), jnp.zeros((4, 3), bool)
    params = jax.jit(net.init)(jax.random.key(0), net.init_carry(3), obs, start)
    outputs = jax.jit(net.apply)(params, net.init_carry(3), obs, start)
    return jax.tree.map(np.asarray, params["params"]), np.asarray(obs), outputs


def test_the_networks_first_weights(network):
    weights, *_ = network
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
    np.testing.assert_array_equal(weights["Dense_7"]["kernel"], np.full((8, 2), 0.2, np.float32))
    assert not any(layer["bias"].any() for name, layer in weights.items() if name != "recurrent")
    assert len(weights) == 11


def test_the_network_is_that_of_its_definition(network):
    """No shift of the forget gate; a tower each; the critic straight from the memory."""
    weights, obs, (head, value, _) = network
    layer = functools.partial(dense, weights)
    hidden = lambda name, x: np.maximum(layer(name, x), 0)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    c = h = np.zeros((3, 8))
    for t in range(4):
        x = hidden("Dense_1", hidden("Dense_0", obs[t]))
        i, f, g, o = np.split(layer("Dense_2", x) + h @ weights["recurrent"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    shared = hidden("Dense_3", h)
    mean = layer("Dense_5", hidden("Dense_4", shared))
    log_std = layer("Dense_7", hidden("Dense_6", shared))
    np.testing.assert_allclose(head[-1], np.concatenate([mean, log_std], -1), atol=1e-5)
    np.testing.assert_allclose(value[-1], layer("Dense_9", hidden("Dense_8", h))[:, 0], atol=1e-5)


def test_the_first_spread_grows_with_what_is_seen_up_to_its_bound():
    """Near e^1.2, and actions near their bounds, where all is ±10; less where it is ±1."""
    net = ReferenceLSTM(14)
    sign = jax.random.bernoulli(jax.random.key(1), shape=(16, 23)) * 2.0 - 1.0
    scales = jnp.repeat(jnp.array([1.0, 10.0]), 16)[:, None]
    obs = jnp.broadcast_to(scales * jnp.tile(sign, (2, 1)), (5, 32, 23))

    @jax.jit
    def first(key):
        inputs = net.init_carry(32), obs, jnp.zeros((5, 32), bool)
        head = net.apply(net.init(key, *inputs), *inputs)[0]
        return jnp.split(head, 2, -1)

    mean, raw = first(jax.random.key(0))
    log_std = np.asarray(squashed(raw, *LOG_STD))
    ones, tens = log_std[-1, :16], log_std[-1, 16:]
    np.testing.assert_array_less(1.15, tens)
    assert (tens < LOG_STD[1] + 1e-6).all() and float(jnp.abs(mean).max()) < 0.1
    # Rectified units and weights of 0.2: at no time below the middle, the same in all dimensions.
    assert (raw >= 0).all() and (ones > -1.9).all() and (ones < tens.min()).all()
    np.testing.assert_allclose(log_std, np.broadcast_to(log_std[..., :1], log_std.shape), atol=1e-5)
    u = np.random.default_rng(0).normal(mean[-1, 16:], np.exp(tens), (1000, 16, 7))
    assert (np.abs(np.tanh(u)) > 0.9).mean() == pytest.approx(0.657, abs=0.02)


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
    log_std = lambda model: float(
        model.sequence(PolicyParams(params), (), obs, None)[0].log_std[0, 0]
    )
    assert log_std(clipped) == pytest.approx(1.2)
    assert log_std(model) == pytest.approx(-5 + 3.1 * (np.tanh(2.0) + 1), abs=0.02)


def test_the_normals_entropy_is_counted_before_tanh():
    mean, log_std = [[3.0, -1.0], [0.0, 0.0]], [[1.2, -2.0], [0.5, 1.2]]
    make = lambda *settings: TanhNormal(
        jnp.float32(mean), jnp.float32(log_std), LOW, HIGH, *settings
    )
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

    def __call__(self, x):
        return np.clip((x - self.mean) / self.std, -10, 10)


N, T = 3, 20


@functools.cache
def rollouts():
    """A model, and two rollouts: as they are, and in units of each environment's statistics."""
    spec = Spec(ENV, chain(), "mlp", "ppo", num_envs=N, num_steps=T,
                normalize=True, statistics="environment")  # fmt: skip
    agent = make_agent(spec)
    policy = PolicyParams(agent.model.init(jax.random.key(5), jnp.zeros((1, 3))))

    @jax.jit
    def two(key):
        state = agent.init(key, Hyper(), PARAMS)

        def roll(loop, key):
            where, own = loop
            where, rollout, next_value, _, _, own = collect(
                agent.build, PARAMS, Context(0.0, 0.9), policy, lambda d: d, where, key, own=own
            )
            return (where, own), (rollout.replace(context=None), next_value)

        keys, where = jax.random.split(jax.random.key(7)), state.rollout_state
        raw, _ = jax.lax.scan(roll, (where, ()), keys)[1]
        (_, own), (rollout, value) = jax.lax.scan(roll, (where, state.normalizer), keys)
        in_rows = jax.tree.map(lambda x: x.reshape(2 * T, *x.shape[2:]), (raw, rollout, value))
        return *in_rows, own

    return agent.model, policy, jax.tree.map(np.asarray, two(jax.random.PRNGKey(3)))


def test_each_environment_has_statistics_of_its_own():
    model, policy, (raw, rollout, next_value, own) = rollouts()
    place = raw.obs[..., :2] / [1.0, 100.0]
    done = raw.terminated | raw.truncated
    assert raw.terminated[:-1].any(0).all() and (raw.truncated & ~raw.terminated)[:-1].any(0).all()
    np.testing.assert_array_equal(rollout.terminated, raw.terminated)
    np.testing.assert_allclose(rollout.features, raw.features, rtol=1e-4, atol=1e-2)
    following = np.zeros_like(raw.obs)
    for n in range(N):
        seen, paid, total = Running(3), Running(()), 0.0
        seen.see(raw.obs[0, n])
        for t in range(2 * T):
            np.testing.assert_allclose(rollout.obs[t, n], seen(raw.obs[t, n]), atol=5e-3)
            total = 0.9 * total * (1 - raw.terminated[t, n]) + raw.reward[t, n]
            paid.see(total)
            given = np.clip(raw.reward[t, n] / paid.std, -10, 10)
            np.testing.assert_allclose(rollout.reward[t, n], given, rtol=1e-3, atol=1e-4)
            # The last observation of an episode counts, and so does that of the reset.
            last = shown(moved(place[t, n]))
            seen.see(last)
            following[t, n] = seen(last)
            if t + 1 < 2 * T and done[t, n]:
                seen.see(raw.obs[t + 1, n])
        assert own.discounted.count[n] == pytest.approx(2 * T + 1e-4)
        np.testing.assert_allclose(own.scale[n], paid.std, rtol=1e-3)
    # The value of the true next observation, as it would have been seen.
    values = model.sequence(policy, (), jnp.float32(following), None)[1]
    np.testing.assert_allclose(next_value, values, atol=5e-3)


def test_the_constant_number_is_not_blown_up_by_rounding():
    """Its variance is what the first 1e-4 values leave, not what rounding does."""
    *_, (_, rollout, _, own) = rollouts()
    assert (own.observation.m2[:, 2] > 0).all() and (rollout.obs[..., 2] > 0).all()
    np.testing.assert_allclose(rollout.obs[1:, :, 2], 0.0, atol=0.1)


def test_a_test_sees_the_mean_statistics_unclipped():
    *_, own = rollouts()[2]
    moments = own.observation
    mean, variance = moments.mean.mean(0), (moments.m2 / moments.count[:, None]).mean(0)
    far = np.float32([[1e4, -3.0, 5.0]])
    seen = standardize(own.tested, far)
    np.testing.assert_allclose(seen, (far - mean) / np.sqrt(variance + 1e-8), rtol=1e-4)
    assert float(seen.max()) > 10


def test_a_reset_counts_only_where_an_episode_ended():
    own = PerEnvironment.begin(jnp.ones((2, 1)))
    after = own.see(jnp.full((2, 1), 9.0), jnp.array([True, False]))
    np.testing.assert_allclose(after.observation.count, [2.0001, 1.0001], rtol=1e-6)
    assert float(after.observation.mean[0, 0]) == pytest.approx(5.0, rel=1e-3)
    np.testing.assert_array_equal(after.observation.mean[1], own.observation.mean[1])


def test_a_bonus_is_in_units_of_its_own_environments_rewards():
    part = state_entropy(statistic="kth", normalizer="reward_std")
    raw, rollout, *_ = rollouts()[2]
    rollout = raw.replace(features=jnp.asarray(raw.obs[..., :2]))
    bonus = lambda scale: part.reward(
        None, part.init(None, None, None),
        rollout.replace(context=Context(0.0, 0.9, scale)), 2.0)[0]  # fmt: skip
    scale = jnp.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(bonus(scale), bonus(jnp.float32(1.0)) / scale, rtol=1e-6)
    assert float(bonus(scale).max()) > 0
    # Steps of a minibatch are of any environment.
    assert float(Context(0.0, 0.9, scale).of_minibatches().reward_scale) == pytest.approx(5.5 / 3)
    one = Context(0.0, 0.9, jnp.float32(2.0))
    assert one.of_minibatches() is one


def of_code(*parts, **settings):
    """A small agent with all of the code's settings but those that are given."""
    own = {**REFERENCE, "network": ReferenceLSTM(2, width=8), **settings}
    return make_agent(
        Spec(ENV, chain(policy_entropy(), state_entropy(normalizer="reward_std"), *parts),
             algorithm="ppo", num_envs=4, num_steps=8, epochs=2, minibatches=2,
             **{"normalize": True, **own})
    )  # fmt: skip


def trained(agent, hypers):
    """States after an update and curves of runs side by side, by their hypers."""
    runs = jax.tree.map(lambda *x: jnp.stack(jnp.float32(x)), *hypers)

    @jax.jit
    def all_of(hypers):
        def one(hyper):
            state = agent.init(jax.random.PRNGKey(0), hyper, PARAMS)
            return agent.train_chunk(state, hyper, PARAMS, 1)

        return jax.vmap(one)(hypers)

    return jax.tree.map(np.asarray, all_of(runs))


SPREAD = Regularizer(
    "spread", loss=lambda key, state, policy, batch, coef: coef * jax.lax.stop_gradient(
        jnp.std(batch.advantage, ddof=1) / batch.context.trust)
)  # fmt: skip
NORMAL = Regularizer(
    "normal", loss=lambda key, state, policy, batch, coef: coef * jax.lax.stop_gradient(
        jnp.mean(policy.dist.log_std.sum(-1) + 0.5 * np.log(2 * np.pi * np.e)))
)  # fmt: skip
NAMES = ("policy_entropy", "state_entropy", "spread", "normal")


def difference(off, bare):
    """The largest one of networks after an update with parts of coefficient 0 and without parts."""
    none, _ = trained(bare, [Hyper(learning_rate=1e-3, total_updates=2, coefs={})])
    gaps = jax.tree.map(lambda a, b: float(np.abs(a - b[0]).max()), off, none.network)
    return max(jax.tree.leaves(gaps))


def without_parts(agent):
    return make_agent(agent.spec._replace(regularizer=chain()))


@pytest.mark.slow  # each part is shown by itself above
def test_all_of_it_trains_and_each_part_acts():
    agent = of_code(SPREAD, NORMAL)
    still = {name: {**dict.fromkeys(NAMES, 0.0), name: 1.0} for name in NAMES}
    cases = [Hyper(learning_rate=0.0, total_updates=2, coefs=coefs) for coefs in still.values()]
    coefs = {**dict.fromkeys(NAMES, 0.0), "policy_entropy": 0.1, "state_entropy": 0.5}
    cases.append(Hyper(learning_rate=1e-3, total_updates=2, coefs=coefs))
    state, curves = trained(agent, cases)
    assert all(np.isfinite(curves[name]).all() for name in curves if name != "activity")
    assert (state.diverged_at == -1).all()
    entropy, bonus, spread, normal, learned = range(5)
    loss = curves["regularizer_loss"]
    # Standardized by the sample's deviation; the curve and the bonus count the normal's entropy.
    np.testing.assert_allclose(loss[spread], 1.0, rtol=1e-5)
    np.testing.assert_allclose(loss[normal], curves["policy_entropy"][normal], rtol=1e-5)
    np.testing.assert_allclose(loss[entropy], -curves["policy_entropy"][entropy], rtol=1e-5)
    assert (curves["bonus_mean"][bonus] > 0).all() and not curves["bonus_mean"][spread].any()
    # Without steps the learner meets the policy that acted: the same observations and memories.
    np.testing.assert_allclose(curves["kl"][:learned], 0.0, atol=1e-6)
    assert (curves["kl"][learned] > 0).all()
    # Nothing of an episode is bootstrapped, and statistics are each environment's.
    assert state.normalizer.discounted.count.shape == (5, 4)
    moved = jax.tree.map(lambda x: np.abs(x[learned] - x[spread]).max(), state.network)
    assert all(change > 0 for change in jax.tree.leaves(moved["params"]["Dense_7"]))


@pytest.mark.slow  # two programs; agents/test_actor_critic.py shows it of an agent by the text
def test_coefficients_of_0_are_none_with_all_of_it():
    agent = of_code(SPREAD, NORMAL)
    hyper = Hyper(learning_rate=1e-3, total_updates=2, coefs=dict.fromkeys(NAMES, 0.0))
    off, _ = trained(agent, [hyper])
    assert difference(jax.tree.map(lambda x: x[0], off.network), without_parts(agent)) < 1e-6


@pytest.mark.slow  # two programs each
@pytest.mark.parametrize("name", REFERENCE)
def test_coefficients_of_0_are_none_under_each_setting(name):
    usual = {**{k: words[0] for k, words in CHOICES.items()}, "network": "mlp"}
    own = {name: ReferenceLSTM(2, width=8) if name == "network" else REFERENCE[name]}
    agent = of_code(**{**usual, **own})
    hyper = Hyper(learning_rate=1e-3, total_updates=2, coefs=dict.fromkeys(NAMES[:2], 0.0))
    off, _ = trained(agent, [hyper])
    off = jax.tree.map(lambda x: x[0], off.network)
    assert difference(off, without_parts(agent)) < 1e-6


def test_a_policy_of_all_of_it_survives_saving(tmp_path):
    settings = {"network": "lstm-reference", "log_std": "tanh"}
    agent = make_agent(Spec(make("gymnax:Pendulum-v1")[0], normalize=True,
                            statistics="environment", num_envs=2, **settings))  # fmt: skip
    obs, model = jax.random.normal(jax.random.key(0), (2, 3)), agent.model
    tested = PerEnvironment.begin(obs).see(2 * obs, jnp.ones(2, bool)).tested
    weights = PolicyParams(jax.jit(model.init)(jax.random.key(1), obs), tested)
    policy = entrob.Policy("gymnax:Pendulum-v1", weights, **settings)
    policy.save(tmp_path)
    again = read_policy(tmp_path)
    assert again.log_std == "tanh" and type(again.weights.moments) is type(tested)
    dists = [
        jax.jit(one.model.step)(
            one.weights, one.model.init_carry(2), 30.0 * obs, jnp.ones(2, bool)
        )[0]
        for one in (policy, again)
    ]
    np.testing.assert_array_equal(dists[0].log_std, dists[1].log_std)
    np.testing.assert_array_equal(dists[0].mean, dists[1].mean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_std": "tanh"}, "log_std = 'tanh' is for continuous actions"),
        ({"entropy_of": "normal"}, "entropy_of = 'normal' is for continuous actions"),
        ({"log_prob": "atanh"}, "log_prob = 'atanh' is for continuous actions"),
        ({"network": "lstm-reference"}, "'lstm-reference' is for continuous actions"),
        ({"advantage_std": "sample"}, "advantage_std is for the algorithm 'ppo'"),
        ({"statistics": "environment"}, "are for normalize = true"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(EntrobError, match=message):
        make_agent(Spec(make("gymnax:CartPole-v1")[0], **settings))


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_words_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown {name} 'other': {CHOICES[name][0]} or"):
        make_agent(Spec(ENV, **{name: "other"}))
