"""Bonuses in cases that are known: limits, invariances, gradients of what they are gradients of."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import spec_of
from scipy.special import digamma

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.estimators import knn_distances
from entrob.estimators.weighted import kth_distances
from entrob.regularizers import build
from entrob.regularizers.intrinsic._perceptron import Auxiliary

T, N, STATES = 12, 4, 20


@functools.cache
def programs(name, options):
    """Programs for the state before training, and for the bonus at coefficient 1."""
    part = build(name, **dict(options))
    key = jax.random.key(0)
    begin = jax.jit(lambda: part.init(key, spec_of("discrete"), None))
    return begin, jax.jit(lambda state, rollout: part.reward(key, state, rollout, 1.0))


def given(name, rollout, state=None, **options):
    """The bonus at coefficient 1 and the new state."""
    begin, reward = programs(name, tuple(options.items()))
    return reward(begin() if state is None else state, rollout)


def at(rollout, index):
    """The rollout at other states of the grid."""
    index = jnp.asarray(index, jnp.int32).reshape(T, N)
    table = rollout.context.finite.features[index]
    return rollout.replace(index=index, features=table, obs=table)


def test_count_entropy_is_the_entropy_of_the_visits_on_average(make_rollout):
    data = make_rollout(0, finite=True)
    bonus, _ = given("count_entropy", data)
    share = np.bincount(np.ravel(data.index), minlength=STATES) / (T * N)
    share = share[share > 0]
    np.testing.assert_allclose(bonus.mean(), -(share * np.log(share)).sum(), rtol=1e-5)
    evenly, _ = given("count_entropy", at(data, np.arange(T * N) % 16))
    np.testing.assert_allclose(evenly, np.log(16), rtol=1e-5)


def test_bins_too_small_make_all_steps_rare_and_too_large_ones_all_common(make_rollout):
    data = make_rollout(0)
    # All in one orthant of the mean of bins, else large bins would still part there.
    far = data.replace(features=100 + data.features)
    _, bins = given("count_entropy", data.replace(features=data.features - 50))
    for width, value in [(1e-3, np.log(T * N)), (1e3, 0.0)]:
        bonus, _ = given("count_entropy", far, bins, width=width)
        np.testing.assert_allclose(bonus, value, rtol=1e-5)


def test_bins_stay_those_of_the_first_rollout(make_rollout):
    first, second = make_rollout(0), make_rollout(1)
    _, state = given("count_entropy", first)
    _, later = given("count_entropy", second, state)
    assert all((a == b).all() for a, b in zip(state, later))


def test_without_discount_discounted_counts_are_counts(make_rollout):
    data = make_rollout(0, finite=True)
    counts, _ = given("count_entropy", data)
    same, _ = given("discounted_count_entropy", data.with_context(gamma=jnp.float32(1)))
    np.testing.assert_allclose(same, counts, rtol=1e-5)
    late, _ = given("discounted_count_entropy", data.replace(time=data.time * 1000))
    assert np.isfinite(late).all() and float(late.max()) == pytest.approx(-np.log(1e-8))
    # The weights of a rollout of late steps would all underflow.
    shifted, _ = given("discounted_count_entropy", data.replace(time=data.time + 5000))
    np.testing.assert_array_equal(shifted, given("discounted_count_entropy", data)[0])


def test_state_action_entropy_adds_that_of_actions(make_rollout):
    data = make_rollout(0, finite=True)
    states, _ = given("count_entropy", data)
    both, _ = given("state_action_entropy", data)  # one action only
    np.testing.assert_allclose(both, states, rtol=1e-5)
    index, action = np.arange(T * N) % 16, (np.arange(T * N) // 16).reshape(T, N)
    spread = at(data, index).replace(action=jnp.asarray(action, jnp.int32))
    np.testing.assert_allclose(given("state_action_entropy", spread)[0], np.log(48), rtol=1e-5)


def test_neighbors_by_products_are_neighbors(make_rollout):
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(50, 1, (700, 30)), jnp.float32)  # two blocks of rows
    exact = knn_distances(points, 3, exclude_self=True)
    np.testing.assert_allclose(kth_distances(points, jnp.ones(700), 3), exact, rtol=1e-4)
    few, counts = points[:40], rng.integers(0, 4, 40)
    repeated = knn_distances(np.repeat(few, counts, 0), 3, exclude_self=True)
    counted = kth_distances(few, jnp.float32(counts), 3)
    np.testing.assert_allclose(np.repeat(counted, counts), repeated, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["re3", "rise", "apt", "vcse"])
def test_a_grid_counted_is_a_grid_of_points(name, make_rollout):
    data = make_rollout(0, finite=True).replace(obs=make_rollout(0, finite=True).features)
    points = data.replace(index=None).with_context(finite=None)
    counted, _ = given(name, data)
    np.testing.assert_allclose(counted, given(name, points)[0], rtol=1e-4, atol=1e-5)


def test_where_steps_coincide(make_rollout):
    data = make_rollout(0, points=np.ones((T, N, 3)))
    data = data.replace(obs=data.features)
    for name in ("re3", "rise", "apt"):
        np.testing.assert_allclose(given(name, data)[0], 0.0, atol=1e-3)
    # With no other point there is nothing to be spread over.
    nothing = np.log(1e-5) - np.euler_gamma / 3
    np.testing.assert_allclose(given("vcse", data)[0], nothing, rtol=1e-5)


def test_apt_pays_one_on_average_and_more_smoothing_less_spread(make_rollout):
    data = make_rollout(0)
    bonus, state = given("apt", data)
    assert float(bonus.mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(state.count) == T * N
    assert given("apt", data, k=2)[0].std() > bonus.std()


def test_re3_decays_with_the_steps_seen(make_rollout):
    data = make_rollout(0).replace(obs=make_rollout(0).features)
    _, state = given("re3", data)
    whole, _ = given("re3", data, state)
    less, _ = given("re3", data, state, decay=0.01)
    np.testing.assert_allclose(less, 0.99 ** (T * N) * whole, rtol=1e-4)


def test_vcse_tells_values_apart(make_rollout):
    # A critic that is flat changes nothing; one that is not makes equal states neighbors no more.
    data = make_rollout(0)
    part = build("vcse", steps=500)
    critic = part.init(jax.random.key(0), spec_of("discrete"), None)
    taught = data.replace(reward=5 * data.features[..., 0], terminated=jnp.ones((T, N), bool))
    critic = jax.jit(lambda c: part.update(None, c, taught, {}))(critic)
    value = np.ravel(critic(data.features))
    assert np.corrcoef(value, np.ravel(taught.reward))[0, 1] > 0.98
    assert np.abs(given("vcse", data)[0] - given("vcse", data, critic)[0]).max() > 0.1


def test_a_discriminator_finds_the_log_ratio():
    rng = np.random.default_rng(0)
    mine, other = (jnp.asarray(rng.normal(m, 1, (2000, 1)), jnp.float32) for m in (1.0, 0.0))
    softplus = jax.nn.softplus
    loss = lambda net: softplus(-net(mine)).mean() + softplus(net(other)).mean()
    net = Auxiliary.begin(jax.random.key(0), 1, 64)
    x = jnp.linspace(-1, 2, 7)[:, None]
    np.testing.assert_array_equal(net(x), 0.0)
    net = jax.jit(lambda net: net.train(jnp.concatenate([mine, other]), loss, 300))(net)
    np.testing.assert_allclose(net(x), x[:, 0] - 0.5, atol=0.3)


DIVERGENCES = {
    "orpo_kl": (1, lambda p, q: (p * np.log(p / q)).sum()),
    "orpo_chi2": (2, lambda p, q: (p**2 / q).sum() - 1),  # half its gradient
    "orpo_root_chi2": (1, lambda p, q: np.sqrt((p**2 / q).sum() - 1)),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_orpo_is_a_divergences_gradient(name, make_rollout):
    times, divergence = DIVERGENCES[name]
    data = at(make_rollout(0, finite=True), np.r_[np.arange(20), np.arange(20), np.arange(8)])
    still = data.with_context(reward_scale=jnp.float32(1))
    begun, state = given(name, still, over="states")
    np.testing.assert_array_equal(begun, 0.0)
    state = state._replace(spread=jnp.ones(()))
    q = np.random.default_rng(0).dirichlet(np.ones(STATES) * 5)
    state = state._replace(counts=jnp.float32(q * 1e7))
    bonus, _ = given(name, still, state, over="states")
    p = np.bincount(np.ravel(data.index)) / (T * N)
    delta = np.zeros(STATES)
    delta[np.ravel(data.index)] = -np.ravel(bonus)
    for s in range(1, STATES):
        step = np.zeros(STATES)
        step[s], step[0] = 1e-5, -1e-5
        slope = (divergence(p + step, q) - divergence(p - step, q)) / 2e-5
        np.testing.assert_allclose(times * (delta[s] - delta[0]), slope, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("task", ["minigrid/empty-8x8", "gymnax:CartPole-v1"])
def test_orpos_unit_is_the_tasks_and_no_seeds(task):
    env, _ = make(task)
    spec = SimpleNamespace(env=env, num_envs=4, num_steps=8)
    begin = lambda key: build("orpo_kl").init(key, spec, None).spread
    spread = jax.jit(jax.vmap(begin))(jax.random.split(jax.random.key(7), 3))
    assert (spread == spread[0]).all() and spread[0] > 0
    if task.startswith("minigrid"):
        # Rare successes, of which single rollouts may hold none: between them and σ = 1.
        assert 0.001 < spread[0] < 0.3
    else:
        assert spread[0] == 1  # its rewards are all equal


def test_vcse_pays_less_the_more_often_a_state_is_visited(make_rollout):
    often = np.repeat(np.arange(5), [24, 12, 6, 4, 2])  # on a line, one apart
    data = make_rollout(0)
    points = jnp.asarray(np.stack([often, 0 * often, 0 * often], -1), jnp.float32)
    data = data.replace(features=points.reshape(T, N, 3))
    bonus = np.ravel(given("vcse", data)[0])
    paid = [bonus[often == place].mean() for place in range(5)]
    assert (np.diff(paid[:4]) > 0.1).all()
    assert min(paid) > np.log(1e-5) / 2  # no floor
    # The visits' share of the way to the neighbor: half of 1, (k / m)^(1/3) of it.
    wanted = np.log(2 * 0.5 * (3 / 23) ** (1 / 3) + 1e-5) + digamma(T * N + 1) / 3
    assert paid[0] == pytest.approx(wanted, rel=1e-4)


def test_orpos_reference_is_the_first_share_of_training(make_rollout):
    first, second = (make_rollout(seed, finite=True) for seed in (0, 1))
    early = lambda data: data.with_context(progress=jnp.float32(0.005))
    _, state = given("orpo_kl", first, over="states")  # however late
    assert float(state.counts.sum()) == T * N
    _, late = given("orpo_kl", second, state, over="states")
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), state, late))
    _, more = given("orpo_kl", early(second), state, over="states")
    assert float(more.counts.sum()) == 2 * T * N
    old = (more.sample == state.sample).all(-1)
    assert 0 < old.sum() < T * N  # some of either


@pytest.mark.parametrize("name", DIVERGENCES)
def test_orpo_never_exceeds_its_clip(name, make_rollout):
    data = make_rollout(0, finite=True)
    _, state = given(name, data, over="states")
    alone = at(data, np.full(T * N, 3)).with_context(reward_scale=jnp.float32(1))
    state = state._replace(counts=jnp.zeros(STATES).at[0].set(1e6))
    bonus, _ = given(name, alone, state, over="states", clip=0.5)
    np.testing.assert_allclose(np.abs(bonus), 0.5 * state.spread, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("re3", {"k": 0}), ("re3", {"dim": 0}), ("re3", {"decay": 1.0}), ("rise", {"alpha": 1.0}),
        ("rise", {"alpha": 0.0}), ("rise", {"k": 0}), ("apt", {"k": 1}), ("vcse", {"k": 0}),
        ("vcse", {"steps": 0}), ("vcse", {"hidden": 0}), ("count_entropy", {"width": 0.0}),
        ("discounted_count_entropy", {"width": -1.0}), ("state_action_entropy", {"width": 0.0}),
        ("state_action_entropy", {"k": 0}), ("orpo_kl", {"over": "actions"}),
        ("orpo_chi2", {"share": 1.1}), ("orpo_root_chi2", {"steps": 0}), ("orpo_kl", {"clip": 0}),
    ],
)  # fmt: skip
def test_options_out_of_range(name, options):
    with pytest.raises(EntrobError, match=name):
        build(name, **options)
