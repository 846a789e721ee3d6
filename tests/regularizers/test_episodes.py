"""Pieces of episodes and quantiles of groups, against NumPy."""

import cases
import jax.numpy as jnp
import numpy as np

from entrob.regularizers.episodes import group_quantile, piece_of, sum_by_piece


def test_pieces_begin_with_the_rollout_and_after_every_end():
    rollout = cases.make_case(1).rollout
    piece = np.asarray(piece_of(rollout))
    done = np.asarray(rollout.terminated | rollout.truncated)
    assert done[:-1].any()
    np.testing.assert_array_equal(piece[1:] != piece[:-1], done[:-1])
    assert all(not set(x) & set(y) for x, y in zip(piece.T, piece.T[1:]))  # no piece in two columns
    sizes = sum_by_piece(jnp.ones_like(rollout.reward), jnp.asarray(piece))
    np.testing.assert_array_equal(sizes, np.bincount(piece.ravel(), minlength=piece.size))


def test_quantiles_are_numpys_in_every_group():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype(np.float32)
    group = rng.integers(0, 5, x.shape)
    group[group == 3] = 4  # one is empty
    for q in (0.0, 0.3, 0.8, 1.0):
        got = group_quantile(jnp.asarray(x), jnp.asarray(group), q, 6)
        for g in (0, 1, 2, 4):
            np.testing.assert_allclose(got[g], np.quantile(x[group == g], q), atol=1e-6)
        assert np.isfinite(got).all()
