"""State entropy against an independent NumPy rendering, option by option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import in_tables

from entrob.envs import make
from entrob.errors import EntrobError
from entrob.estimators.moments import Moments
from entrob.regularizers import state_entropy
from entrob.rollout import Context, Rollout

T, N = 12, 4


def rollout(seed=0, finite=False):
    """A rollout of random states of the 8×8 grid."""
    env, params = make("minigrid/empty-8x8")
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 40, (T, N)).astype(np.int32)
    table = jax.vmap(lambda s: env.entropy_features(s, params))(env.states(params))
    zero = jnp.zeros((T, N))
    return Rollout(
        obs=zero, features=table[index], time=jnp.asarray(rng.integers(0, 9, (T, N))),
        action=zero, log_prob=zero, value=zero, reward=zero, terminated=zero > 0,
        truncated=zero > 0, success=zero > 0, advantage=zero + 1, target=zero + 2,
        dist=None, index=jnp.asarray(index) if finite else None,
        context=Context(
            progress=jnp.float32(0), gamma=jnp.float32(1),
            finite=in_tables(table) if finite else None,
        ),
    )  # fmt: skip


def raw(x, k=5, statistic="mean", log="outside"):
    """log(d + 1) of points [n, q], from all pairs."""
    d = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), -1)[:, :k]
    if statistic == "kth":
        return np.log1p(d[:, -1])
    return np.log1p(d).mean(-1) if log == "inside" else np.log1p(d.mean(-1))


def by_hand(features, groups=1, **options):
    """The bonus before normalization, float[T, N]."""
    x = np.asarray(features, np.float64)
    out, size = np.zeros((T, N)), N // groups
    for g in range(groups):
        here = slice(g * size, (g + 1) * size)
        out[:, here] = raw(x[:, here].reshape(T * size, -1), **options).reshape(T, size)
    return out


@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"k": 3}, {"statistic": "kth"}, {"log": "inside"}, {"groups": 2}, {"groups": 4, "k": 2}],
)
def test_the_bonus_is_its_definition(options, finite):
    data = rollout(finite=finite)
    regularizer = state_entropy(normalizer="none", **options)
    bonus, _ = regularizer.reward(None, regularizer.init(None, None, None), data, 0.3)
    np.testing.assert_allclose(bonus, 0.3 * by_hand(data.features, **options), atol=1e-5)


def test_a_subset_or_function_of_the_features():
    data = rollout()
    for features in ((0, 1), lambda x: x[..., :2]):
        regularizer = state_entropy(normalizer="none", features=features)
        bonus, _ = regularizer.reward(None, Moments.empty(), data, 1.0)
        np.testing.assert_allclose(bonus, by_hand(data.features[..., :2]), atol=1e-5)


def test_the_running_std_is_over_all_batches_so_far():
    regularizer, state, seen = state_entropy(), Moments.empty(), []
    for seed in range(3):
        data = rollout(seed)
        seen.append(by_hand(data.features))
        bonus, state = regularizer.reward(None, state, data, 1.0)
        np.testing.assert_allclose(bonus, seen[-1] / np.std(seen), rtol=1e-4)


def test_the_discount_counts_from_the_episodes_start():
    data = rollout()
    regularizer = state_entropy(normalizer="none", discount=0.9)
    bonus, _ = regularizer.reward(None, Moments.empty(), data, 1.0)
    wanted = 0.9 ** np.asarray(data.time) * by_hand(data.features)
    np.testing.assert_allclose(bonus, wanted, atol=1e-5)


def test_injection_into_the_advantage_leaves_the_reward_alone():
    data = rollout()
    regularizer = state_entropy(normalizer="none", injection="advantage")
    assert regularizer.reward is None
    advantage, target = regularizer.advantage(Moments.empty(), data, 0.5)
    np.testing.assert_allclose(advantage, 1 + 0.5 * by_hand(data.features), atol=1e-5)
    np.testing.assert_allclose(target, 2 + 0.5 * by_hand(data.features), atol=1e-5)


def test_the_reference_sees_one_moving_environment_and_its_own_mean():
    data = rollout()
    regularizer = state_entropy(fidelity="reference")
    seen = np.array(data.features)
    seen[:, 1:] = seen[0, 0]
    bonus = by_hand(seen)
    state = Moments.empty()
    advantage, _ = regularizer.advantage(state, data, 1.0)
    np.testing.assert_allclose(advantage, 1 + bonus / bonus.std(), rtol=1e-4)
    once = regularizer.update(None, state, data, {})
    twice = regularizer.update(None, once, data, {})
    np.testing.assert_allclose([once.mean, twice.mean], [1.0, 1.5])  # batch / total, added up


def test_moments_are_numpys():
    rng = np.random.default_rng(1)
    batches = [rng.normal(i, 1 + i, 50).astype(np.float32) for i in range(8)]
    moments = Moments.empty()
    for batch in batches:
        moments = moments.add(jnp.asarray(batch))
    np.testing.assert_allclose(moments.mean, np.mean(batches), rtol=1e-5)
    np.testing.assert_allclose(moments.std, np.std(batches), rtol=1e-5)
    assert float(Moments.empty().add(jnp.ones(4)).std) == 1.0


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"groups": 0}, {"discount": 0.0}, {"discount": 1.1}, {"statistic": "max"},
     {"log": "twice"}, {"normalizer": "x"}, {"injection": "x"}, {"fidelity": "x"}],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(EntrobError, match="state_entropy"):
        state_entropy(**options)


def test_groups_must_divide_the_environments():
    with pytest.raises(EntrobError, match="do not divide"):
        state_entropy(groups=3).reward(None, Moments.empty(), rollout(), 1.0)


@pytest.mark.parametrize("finite", [False, True])
def test_only_the_moving_environments_change_their_state(finite):
    data = rollout(finite=finite)
    seen = np.array(data.features)
    seen[:, 2:] = seen[0, 0]
    regularizer = state_entropy(normalizer="none", moving=2)
    bonus, _ = regularizer.reward(None, Moments.empty(), data, 1.0)
    np.testing.assert_allclose(bonus, by_hand(seen), atol=1e-5)


def test_normalizers_of_one_batch_and_of_the_released_code():
    # The released code, line by line: its mean moves by the share, not by delta times the share.
    seen = [by_hand(rollout(seed).features) for seed in (0, 1)]
    mean, m2, count, reference = 0.0, 0.0, 0, []
    for x in seen:
        total = count + x.size
        m2 += x.var() * x.size + (x.mean() - mean) ** 2 * count * x.size / total
        mean, count = mean + x.size / total, total
        reference.append(np.sqrt(m2 / count))
    assert abs(reference[1] / np.std(seen) - 1) > 0.01  # so that the two can be told apart
    for normalizer, stds in [("batch_std", [x.std() for x in seen]), ("reference", reference)]:
        regularizer, state = state_entropy(normalizer=normalizer), Moments.empty()
        for seed, std in enumerate(stds):
            bonus, state = regularizer.reward(None, state, rollout(seed), 1.0)
            np.testing.assert_allclose(bonus, seen[seed] / std, rtol=1e-4, err_msg=normalizer)


@pytest.mark.parametrize("normalizer", ["running_std", "batch_std", "reference", "none"])
def test_states_that_never_change_earn_nothing(normalizer):
    data = rollout()
    still = data.replace(features=jnp.ones_like(data.features))
    bonus, _ = state_entropy(normalizer=normalizer).reward(None, Moments.empty(), still, 1.0)
    np.testing.assert_array_equal(bonus, 0.0)


def test_what_rounding_leaves_of_a_constant_is_no_spread():
    # 0.45 is no float32: batch means differ from it and from each other by roundings.
    moments, rng = Moments.empty((2,)), np.random.default_rng(0)
    for _ in range(50):
        batch = np.stack([np.full(999, 0.45), 0.45 + 1e-4 * rng.normal(size=999)], -1)
        moments = moments.add(jnp.asarray(batch, jnp.float32))
    assert moments.m2[0] > 0
    assert moments.std[0] == 1
    np.testing.assert_allclose(moments.std[1], 1e-4, rtol=0.05)
