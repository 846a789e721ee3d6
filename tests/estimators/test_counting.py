"""The counting form against brute force over the points that the counts stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrob.estimators import neighbors, smallest_distances, smallest_from_counts
from entrob.estimators.counting import _BLOCK

# The 8×8 grid: (x, y) and a one-hot direction, as MiniGrid's entropy features.
CELLS = np.stack(np.meshgrid(np.arange(8), np.arange(8), np.arange(4), indexing="ij"), -1)
CELLS = CELLS.reshape(-1, 3)
GRID = np.concatenate([CELLS[:, :2], np.eye(4)[CELLS[:, 2]]], 1).astype(np.float32)
NEAR = neighbors(jnp.asarray(GRID))
counted = jax.jit(smallest_from_counts, static_argnames=("k", "transform"))


def brute(features, counts, k, transform=lambda d: d):
    """``(kth, mean)`` of present values: float64, NaN where absent."""
    points = np.repeat(np.arange(len(counts)), counts.astype(int))
    features = features.astype(np.float64)
    d = np.linalg.norm(features[:, None] - features[None, points], axis=-1)
    smallest = np.sort(d, -1)[:, :k]
    absent = np.where(counts > 0, 0.0, np.nan)
    return smallest[:, -1] + absent, transform(smallest).mean(-1) + absent


def check(got, expected, counts):
    present = counts > 0
    for ours, theirs in zip(got, expected):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours[present], theirs[present], rtol=1e-6)


def concentrated(seed, n=800, width=3.0):
    """Counts of n visits that thin out from one corner: many ties, some isolated values."""
    weight = np.exp(-CELLS[:, :2].sum(1) / width)
    return np.random.default_rng(seed).multinomial(n, weight / weight.sum())


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_grid(k, width):
    counts = concentrated(k, width=width)
    check(counted(counts, NEAR, k), brute(GRID, counts, k), counts)


def test_mean_of_logs():
    counts = concentrated(0)
    got = counted(counts, NEAR, 5, jnp.log1p)
    check(got, brute(GRID, counts, 5, np.log1p), counts)


def test_few_distinct_values():
    counts = np.zeros(256, int)
    counts[[3, 250]] = [2, 1]
    kth, mean = counted(counts, NEAR, 3)
    far = np.linalg.norm(GRID[3] - GRID[250])
    assert mean[3] == pytest.approx(far / 3) and mean[250] == pytest.approx(2 * far / 3)
    assert kth[3] == kth[250] == pytest.approx(far)


@pytest.mark.parametrize("last", [_BLOCK - 1, _BLOCK, 3 * _BLOCK, 255])
def test_neighbors_in_any_block(last):
    """A value alone but for the `last`-nearest of all."""
    counts = np.zeros(256, int)
    counts[0], counts[NEAR.order[0, last]] = 1, 9
    check(counted(counts, NEAR, 5), brute(GRID, counts, 5), counts)


def test_fewer_points_than_k():
    counts = np.zeros(256, int)
    counts[[0, 100]] = [1, 2]
    check(counted(counts, NEAR, 5), brute(GRID, counts, 5), counts)
    check(counted(0 * counts, NEAR, 5), (np.zeros(256), np.zeros(256)), 0 * counts)


def test_vmap_with_different_ends():
    """Batches that finish in different blocks do not disturb each other."""
    batch = np.stack(
        [*(concentrated(0, width=w) for w in (0.3, 1.0, 100.0)), np.eye(256, dtype=int)[9]]
    )
    kth, mean = jax.jit(jax.vmap(lambda c: smallest_from_counts(c, NEAR, 5)))(batch)
    for counts, *got in zip(batch, kth, mean):
        check(got, brute(GRID, counts, 5), counts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=11, max_size=11), st.integers(0, 2**32 - 1))
def test_any_counts_on_any_features(counts, seed):
    """Eleven values, some of which coincide, do not fill their last block."""
    counts = np.array(counts)
    features = np.random.default_rng(seed).integers(0, 3, (11, 2)).astype(np.float32)
    got = counted(counts.astype(np.float32), neighbors(jnp.asarray(features)), 4)
    if counts.any():
        check(got, brute(features, counts, 4), counts)


def test_agrees_with_points():
    index = np.random.default_rng(1).choice(256, 800)
    counts = jnp.zeros(256).at[index].add(1.0)
    kth, mean = counted(counts, NEAR, 5)
    distances = smallest_distances(GRID[index], 5)
    np.testing.assert_allclose(kth[index], distances[:, -1], rtol=1e-6)
    np.testing.assert_allclose(mean[index], distances.mean(-1), rtol=1e-6)


def test_neighbors_are_sorted_and_begin_with_the_value_itself():
    doubled = jnp.asarray(np.concatenate([GRID[:20], GRID[:20]]))
    for features, near in ((GRID, NEAR), (np.asarray(doubled), neighbors(doubled))):
        size = len(features)
        assert near.order.dtype == jnp.int32 and near.distance.dtype == jnp.float32
        np.testing.assert_array_equal(near.order[:, 0], np.arange(size))
        np.testing.assert_array_equal(np.sort(near.order, -1), np.tile(np.arange(size), (size, 1)))
        assert (np.diff(near.distance, axis=-1) >= 0).all()
        true = np.linalg.norm(features[:, None] - features[near.order], axis=-1)
        np.testing.assert_allclose(near.distance, true, rtol=1e-6)


def test_k_out_of_range():
    with pytest.raises(ValueError, match=r"^k must be at least 1, not 0"):
        smallest_from_counts(jnp.ones(256), NEAR, 0)
