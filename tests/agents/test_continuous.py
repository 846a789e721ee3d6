"""The tanh-normal policy, normalization, schedules of the learning rate, value clipping."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from entrob.agents.actor_critic import AGENT, make_agent
from entrob.agents.model import LOG_STD, bounded, make_model
from entrob.agents.normalizer import Normalizer, standardize
from entrob.agents.spec import Hyper, Spec
from entrob.distributions import TanhNormal
from entrob.errors import EntrobError
from entrob.regularizers import chain

LOW, HIGH = (-2.0, 0.0), (2.0, 0.5)


def normal(mean, log_std):
    return TanhNormal(jnp.float32(mean), jnp.float32(log_std), LOW, HIGH)


def density(action, mean, std, low, high):
    """Density of the executed action by the change of variables, in float64."""
    y = (action - low) / (high - low) * 2 - 1
    return stats.norm.pdf(np.arctanh(y), mean, std) / (1 - y**2) / ((high - low) / 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(-2, 0.5), st.floats(-2, 2))
def test_log_prob_is_the_density_of_the_executed_action(mean, log_std, u):
    dist = normal([mean, 0.0], [log_std, 0.0])
    raw = jnp.float32([u, 0.3])
    action = np.asarray(dist.execute(raw), float)
    expected = sum(
        np.log(density(a, m, np.exp(s), low, high))
        for a, m, s, low, high in zip(action, (mean, 0.0), (log_std, 0.0), LOW, HIGH)
    )
    assert float(dist.log_prob(raw)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("mean", [-2.0, 0.0, 0.7])
@pytest.mark.parametrize("log_std", [-5.0, -1.0, 0.0, 1.2])
def test_entropy_against_numerical_integration(mean, log_std):
    std = np.exp(log_std)

    def integrand(u):
        slope = np.log(2.0) + 2 * (np.log(2.0) - u - np.logaddexp(0, -2 * u))
        return stats.norm.pdf(u, mean, std) * (slope - stats.norm.logpdf(u, mean, std))

    expected, _ = integrate.quad(integrand, mean - 12 * std, mean + 12 * std, limit=500)
    dist = TanhNormal(jnp.float32([mean]), jnp.float32([log_std]), (-2.0,), (2.0,))
    assert float(dist.entropy()) == pytest.approx(expected, abs=1e-2)
    assert float(dist.entropy()) <= np.log(4.0) + 1e-6


def test_sampled_log_prob_averages_to_minus_entropy():
    dist = TanhNormal(jnp.full((40_000, 2), 0.4), jnp.full((40_000, 2), -0.3), LOW, HIGH)
    mean = -dist.log_prob(dist.sample(jax.random.key(0))).mean()
    assert float(mean) == pytest.approx(float(dist.entropy()[0]), abs=0.02)


def test_samples_stay_inside_and_gradients_finite_where_tanh_saturates():
    dist = normal([30.0, -30.0], [1.2, 1.2])
    raw = dist.sample(jax.random.key(0))
    action = np.asarray(dist.execute(raw))
    assert (action >= LOW).all() and (action <= HIGH).all()
    f = lambda m: normal(m, [1.2, 1.2]).entropy() + normal(m, [1.2, 1.2]).log_prob(raw)
    assert jnp.isfinite(jax.grad(f)(jnp.float32([30.0, -30.0]))).all()


def test_kl_is_that_of_the_normals():
    p, q = normal([0.3, 0.0], [-0.5, 0.2]), normal([-0.2, 0.1], [0.1, 0.0])
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), 40_000))
    estimate = (p.log_prob(samples) - q.log_prob(samples)).mean()
    assert float(p.kl(q)) == pytest.approx(float(estimate), abs=0.02)
    assert float(p.kl(p)) == 0.0


def test_a_tempered_normal_is_the_power_of_its_density():
    mean, log_std = jnp.array([[0.3], [0.3]]), jnp.array([[-0.7], [-0.7]])
    dist, u = TanhNormal(mean, log_std, (-1.0,), (1.0,)), np.linspace(-9, 9, 4001)
    power = stats.norm.pdf(u, 0.3, np.exp(-0.7)) ** (1 / 1.7)
    std = np.sqrt(np.sum((u - 0.3) ** 2 * power) / power.sum())
    tempered = dist.tempered(jnp.array([1.0, 1.7]))
    np.testing.assert_allclose(np.exp(tempered.log_std[:, 0]), [np.exp(-0.7), std], rtol=1e-5)


def test_the_share_of_entropy_is_that_of_the_range_a_uniform_needs():
    # tanh of a normal of spread 0.8 is the most even; of a narrow one the range does not matter.
    for low, high in [((-1.0, -1.0), (1.0, 1.0)), ((-1.0, -2.0), (5.0, 3.0))]:
        dist = TanhNormal(jnp.zeros((2, 2)), jnp.log(jnp.array([[0.8] * 2, [0.01] * 2])), low, high)
        volume = np.prod(np.subtract(high, low))
        assert dist.max_entropy == pytest.approx(np.log(volume), rel=1e-6)
        narrow = np.sqrt(2 * np.pi * np.e) * 0.01 / 2
        even, small = dist.entropy_share()
        assert 0.95 < even < 1 and small == pytest.approx(narrow, rel=1e-3)


def powers():
    """Every pair of a mean, a spread and a power; all three combined are slow tests."""
    means, log_stds = (0.0, 0.7, -4.0, 12.0), (-5.0, -1.0, 0.0, 1.2)
    for i, mean in enumerate(means):
        for j, log_std in enumerate(log_stds):
            for k, power in enumerate((0.3, 0.5, 0.9, 1.0, 1.5, 3.0)):
                marks = [pytest.mark.slow] * ((i + j + k) % 2)
                yield pytest.param(mean, log_std, power, marks=marks)


@pytest.mark.parametrize(("mean", "log_std", "power"), powers())
def test_powers_and_their_gradients_are_integrals_over_the_box(mean, log_std, power):
    """∫ π^q da, as an integral over u scaled by its largest value, and d/dμ, d/d(log σ) of it."""
    std = np.exp(log_std)

    def log_integrand(u):
        slope = np.log(2.0) + 2 * (np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
        return power * stats.norm.logpdf(u, mean, std) + (1 - power) * slope

    grid = np.linspace(mean - 60 * std, mean + 60 * std, 100_001)
    top = log_integrand(grid).max()
    inside = grid[log_integrand(grid) > top - 60]
    ends = inside[0], inside[-1]

    def integral(f):
        weighted = lambda u: f((u - mean) / std) * np.exp(log_integrand(u) - top)
        pieces = np.linspace(*ends, 9)
        return sum(integrate.quad(weighted, a, b)[0] for a, b in itertools.pairwise(pieces))

    total = integral(lambda z: 1.0)
    log_power = lambda mean, log_std: TanhNormal(
        mean[None], log_std[None], (-1.0,), (3.0,)
    ).log_power(power)
    value, slopes = jax.value_and_grad(log_power, (0, 1))(jnp.float32(mean), jnp.float32(log_std))
    assert float(value) == pytest.approx(np.log(total) + top, abs=1e-3)
    wanted = power * np.array([integral(lambda z: z) / std, integral(lambda z: z**2 - 1)]) / total
    np.testing.assert_allclose(slopes, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("log_std", [-2.0, 0.0, 1.2])
def test_overlaps_are_integrals_over_the_box(log_std):
    u = np.linspace(-40, 40, 80001)
    density = lambda mean, std: stats.norm.pdf(u, mean, std)
    integral = lambda f: np.log(f.sum() * (u[1] - u[0]))
    dist = TanhNormal(jnp.array([0.7]), jnp.array([log_std]), (-1.0,), (3.0,))
    other = TanhNormal(jnp.array([-0.2]), jnp.array([-0.4]), (-1.0,), (3.0,))
    p, q = density(0.7, np.exp(log_std)), density(-0.2, np.exp(-0.4))
    for alpha in (0.2, 0.5):
        wanted = integral(p**alpha * q ** (1 - alpha))
        np.testing.assert_allclose(dist.log_overlap(other, alpha), wanted, atol=1e-5)


def test_statistics_are_those_of_everything_seen():
    rng = np.random.default_rng(0)
    obs = rng.normal(3.0, 5.0, (4, 6, 2, 3)).astype(np.float32)  # rollouts × T × N × D
    reward = rng.normal(1.0, 2.0, (4, 6, 2)).astype(np.float32)
    done = rng.random((4, 6, 2)) < 0.2
    state = Normalizer.empty((3,), 2)
    np.testing.assert_array_equal(standardize(state.observation, obs[0]), np.clip(obs[0], -10, 10))
    for o, r, d in zip(obs, reward, done):
        state, scale = state.add(jnp.asarray(o), jnp.asarray(r), jnp.asarray(d), 0.9)
    flat = obs.reshape(-1, 3)
    np.testing.assert_allclose(state.observation.mean, flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(state.observation.std, flat.std(0), rtol=1e-4)
    sums, total = [], np.zeros(2)
    for r, d in zip(reward.reshape(-1, 2), done.reshape(-1, 2)):
        total = 0.9 * total + r
        sums.append(total.copy())
        total[d] = 0.0
    np.testing.assert_allclose(scale, np.std(sums), rtol=1e-4)
    np.testing.assert_allclose(state.running, total, rtol=1e-4)
    seen = standardize(state.observation, flat)
    assert abs(float(seen.mean())) < 1e-3 and float(jnp.abs(seen).max()) <= 10


@struct.dataclass
class Shown(environment.EnvState):
    target: jax.Array


class Name(environment.Environment):
    """Name the number that is shown times 1000: reward -100 (action - target)², one step long."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=10)

    def reset_env(self, key, params):
        target = jax.random.uniform(key, (), minval=-1.0)
        return 1000.0 * target[None], Shown(time=jnp.int32(0), target=target)

    def step_env(self, key, state, action, params):
        reward = -100.0 * (action[0] - state.target) ** 2
        state = state.replace(time=state.time + 1)
        return 1000.0 * state.target[None], state, reward, jnp.bool_(True), {}

    def action_space(self, params=None):
        return spaces.Box(-2.0, 2.0, (1,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(-1000.0, 1000.0, (1,), jnp.float32)


@functools.cache
def learner(env):
    spec = Spec(env, chain(), None, "ppo", num_envs=32, num_steps=16, epochs=4, minibatches=4,
                normalize=True)  # fmt: skip
    agent = make_agent(spec)
    begin = jax.jit(lambda hyper, params: agent.init(jax.random.PRNGKey(0), hyper, params))
    return agent, begin, jax.jit(agent.train_chunk, static_argnums=3)


ENV = Name()


def train(updates=400, done=0, **hyper):
    """(agent, state before, state after some updates, `done` of them before)."""
    agent, begin, chunk = learner(ENV)
    hyper = Hyper(learning_rate=1e-3, total_updates=updates, max_grad_norm=0.5).replace(**hyper)
    hyper = jax.tree.map(jnp.float32, hyper)
    before = begin(hyper, ENV.default_params).replace(update=jnp.int32(done))
    return agent, before, chunk(before, hyper, ENV.default_params, updates)[0]


@pytest.mark.slow
def test_continuous_actions_are_learned_from_observations_and_rewards_of_any_scale():
    agent, _, state = train(anneal=1.0)
    targets = jnp.linspace(-0.9, 0.9, 7)
    dist, _ = agent.model.sequence(state.policy, (), 1000.0 * targets[:, None], None)
    np.testing.assert_allclose(dist.execute(dist.mean)[:, 0], targets, atol=0.1)


def test_annealing_ends_at_zero_and_value_clip_acts():
    third = functools.partial(train, updates=1, done=2, total_updates=3)
    *_, state = third()
    *_, annealed = third(anneal=1.0)
    *_, clipped = third(value_clip=1e-4)
    for other in (annealed, clipped):
        pairs = zip(jax.tree.leaves(state.network), jax.tree.leaves(other.network))
        assert any((a != b).any() for a, b in pairs)
    _, end, after = train(updates=1, done=3, total_updates=3, anneal=1.0)
    for a, b in zip(jax.tree.leaves(end.network), jax.tree.leaves(after.network)):
        np.testing.assert_allclose(a, b, atol=1e-8)


@struct.dataclass
class Fragile(environment.EnvParams):
    chance: jax.Array = 0.0


class Breaking(Name):
    """Its simulation turns NaN at some steps."""

    @property
    def default_params(self):
        return Fragile(max_steps_in_episode=10)

    def step_env(self, key, state, action, params):
        broken = jax.random.bernoulli(key, params.chance)
        state = state.replace(target=jnp.where(broken, jnp.nan, state.target))
        return super().step_env(key, state, action, params)


def test_a_simulation_that_breaks_freezes_its_run_and_spares_the_rest():
    agent, *_ = learner(Breaking())
    hyper, keys = Hyper(total_updates=4), jax.random.split(jax.random.PRNGKey(3), 6)

    @jax.jit
    def runs(params):
        state = jax.vmap(agent.init, (0, None, None))(keys, hyper, params)
        return jax.vmap(lambda s: agent.train_chunk(s, hyper, params, 4))(state)

    (sick, curves), (well, _) = runs(Fragile(chance=4e-4)), runs(Fragile(chance=0.0))
    broken = np.asarray(sick.diverged_at >= 0)
    assert 0 < broken.sum() < 6 and not (well.diverged_at >= 0).any()
    assert (sick.cause[broken] == AGENT).all()
    assert (np.isnan(curves["value_loss"]).any(1) == broken).all()
    for a, b in zip(jax.tree.leaves(sick.policy), jax.tree.leaves(well.policy)):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a[~broken], b[~broken])


def test_unbounded_actions_are_refused():
    class Unbounded(Name):
        def action_space(self, params=None):
            return spaces.Box(-np.inf, np.inf, (1,), jnp.float32)

    with pytest.raises(EntrobError, match="finite bounds"):
        make_model(Unbounded())


def test_a_log_std_out_of_bounds_finds_its_way_back():
    low, high = LOG_STD
    x = jnp.float32([low - 1, low - 1, 0.0, high + 1, high + 1])
    pull = jnp.float32([1.0, -1.0, 3.0, 1.0, -1.0])  # descent goes against it
    np.testing.assert_array_equal(bounded(x, low, high), jnp.clip(x, low, high))
    gradient = jax.grad(lambda x: jnp.sum(pull * bounded(x, low, high)))(x)
    np.testing.assert_array_equal(gradient, [0.0, -1.0, 3.0, 1.0, 0.0])
    # Beyond a bound, the policy's own gradient leads back into it; `jnp.clip` would leave it there.
    start = jnp.float32([high + 0.5])
    loss = lambda x: (bounded(x, low, high) - 0.3).sum() ** 2
    for _ in range(100):
        start = start - 0.1 * jax.grad(loss)(start)
    np.testing.assert_allclose(start, 0.3, atol=1e-3)
