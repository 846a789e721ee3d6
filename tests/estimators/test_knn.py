"""Nearest neighbors against scipy, entropy against distributions of known entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.special import digamma, gamma
from scipy.stats import ortho_group

from entrob.estimators import knn, knn_distances, knn_entropy, smallest_distances

entropy = jax.jit(knn_entropy, static_argnames="k")
smallest = jax.jit(smallest_distances, static_argnames=("k", "exclude_self"))
# One shape for all examples, so that each property compiles once.
clouds = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(size=(60, 3)).astype(np.float32)
)
examples = settings(max_examples=25, deadline=None)


def oracle(x, k):
    """float64[n, k] by scipy, the point itself included."""
    distances, _ = cKDTree(x.astype(np.float64)).query(x.astype(np.float64), k=np.arange(1, k + 1))
    return distances


def draw(name, n, dim, seed):
    """A sample and the entropy of its distribution in nats."""
    rng = np.random.default_rng(seed)
    if name == "uniform":
        return rng.uniform(0, 3, (n, dim)), dim * np.log(3)
    return rng.normal(0, 2, (n, dim)), dim / 2 * np.log(2 * np.pi * np.e * 4)


BETWEEN = [pytest.param(dim, marks=pytest.mark.slow) for dim in range(3, 8)]


@pytest.mark.parametrize("dim", [1, 2, *BETWEEN, 8])
def test_agrees_with_scipy(dim):
    x = np.random.default_rng(dim).normal(size=(301, dim)).astype(np.float32)
    np.testing.assert_allclose(smallest_distances(x, 5), oracle(x, 5), rtol=2e-6, atol=1e-9)
    others = smallest_distances(x, 5, exclude_self=True)
    np.testing.assert_allclose(others, oracle(x, 6)[:, 1:], rtol=2e-6)
    np.testing.assert_array_equal(knn_distances(x, 4), smallest_distances(x, 5)[:, 3])


@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("rows", [7, 100, 4096])
@pytest.mark.parametrize("n", [5, 64, 130])
def test_every_cut_into_rows_and_lanes_is_exact(monkeypatch, n, rows, lanes):
    monkeypatch.setattr(knn, "_ROWS", rows)
    x = np.random.default_rng(n).integers(0, 4, (n, 2)).astype(np.float32)  # ties, doubles
    got = np.sqrt(knn._smallest_squared(jnp.asarray(x), 5, lanes))
    np.testing.assert_allclose(got, oracle(x, 5), rtol=1e-6)


def test_many_coordinates():
    x = np.random.default_rng(0).normal(size=(50, 147)).astype(np.float32)
    np.testing.assert_allclose(smallest_distances(x, 3), oracle(x, 3), rtol=1e-5)


def test_all_neighbors_of_few_points():
    x = np.array([[0.0], [1.0], [3.0]])
    np.testing.assert_array_equal(smallest_distances(x, 3), [[0, 1, 3], [0, 1, 2], [0, 2, 3]])
    np.testing.assert_array_equal(
        smallest_distances(x, 2, exclude_self=True), [[1, 3], [1, 2], [2, 3]]
    )
    np.testing.assert_array_equal(smallest_distances(x[:1], 1), [[0]])


def test_doubles_stay_when_the_point_is_excluded():
    x = np.array([[2.0, 2.0], [2.0, 2.0], [5.0, 6.0]])
    np.testing.assert_array_equal(
        smallest_distances(x, 2, exclude_self=True), [[0, 5], [0, 5], [5, 5]]
    )


def test_digits_survive_far_from_the_origin():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    far = (x + np.float32(4096)).astype(np.float32)  # its own rounding is in the oracle's input too
    np.testing.assert_allclose(smallest_distances(far, 5), oracle(far, 5), rtol=2e-6)
    # The shortcut that is not taken gets even the first digit wrong.
    squared = (far**2).sum(-1)
    expanded = squared[:, None] + squared[None] - 2 * far @ far.T
    shortcut = np.sqrt(np.maximum(np.sort(expanded, -1)[:, 4], 0))
    assert np.abs(shortcut / oracle(far, 5)[:, 4] - 1).max() > 0.5


def test_vmap_and_jit_change_nothing():
    x = np.random.default_rng(0).normal(size=(3, 40, 2)).astype(np.float32)
    got = jax.jit(jax.vmap(lambda x: smallest_distances(x, 5)))(x)
    for one, points in zip(got, x):
        np.testing.assert_allclose(one, oracle(points, 5), rtol=2e-6)
        assert entropy(points) == pytest.approx(float(knn_entropy(points)), abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_coordinates_spoil_everything_visibly(bad):
    x = np.random.default_rng(0).normal(size=(20, 2))
    x[7, 1] = bad
    assert np.isnan(smallest_distances(x, 3)).all()
    assert np.isnan(knn_entropy(x))


@pytest.mark.parametrize(
    ("k", "exclude_self", "message"),
    [(11, False, "1..10"), (10, True, "1..9"), (0, False, "not 0"), (-1, True, "not -1")],
)
def test_k_out_of_range(k, exclude_self, message):
    with pytest.raises(ValueError, match=rf"^k must be .*{message}"):
        smallest_distances(np.zeros((10, 2)), k, exclude_self)


def test_entropy_needs_k_others():
    with pytest.raises(ValueError, match=r"^k must be in 1\.\.4 for 5 points, not 5"):
        knn_entropy(np.zeros((5, 1)))


@pytest.mark.parametrize("shape", [(5,), (5, 0), (2, 5, 1)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"^x must have shape"):
        smallest_distances(np.zeros(shape), 1)


# Mean error at n = 2000, k = 5, measured over 40 samples. It falls with n; for the uniform one it
# comes from the edges of the cube, across which no neighbors lie.
BIAS = {
    ("uniform", 1): 0.00,
    ("uniform", 2): 0.03,
    ("uniform", 4): 0.27,
    ("normal", 1): -0.01,
    ("normal", 2): -0.01,
    ("normal", 4): -0.06,
}


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("name", "dim"), BIAS)
def test_known_entropy(name, dim):
    errors = []
    for seed in range(10):
        x, truth = draw(name, 2000, dim, seed)
        errors.append(float(entropy(x)) - truth)
    # One sample's error spreads by at most 0.034, so the mean of ten by at most 0.011.
    assert np.mean(errors) == pytest.approx(BIAS[name, dim], abs=0.03)


@pytest.mark.usefixtures("optimized")
def test_bias_falls_with_the_number_of_points():
    error = {}
    for n in (125, 2000):
        draws = [draw("uniform", n, 2, seed) for seed in range(10)]
        error[n] = np.mean([float(entropy(x)) - truth for x, truth in draws])
    assert 0 < error[2000] < error[125] / 2


@pytest.mark.parametrize("k", [1, 5, 20])
def test_entropy_matches_its_formula(k):
    """The paper's expression, term by term in float64."""
    n, q = 150, 3
    x = np.random.default_rng(k).normal(size=(n, q)).astype(np.float32)
    d = oracle(x, k + 1)[:, -1]
    volume = d**q * np.pi ** (q / 2)
    expected = np.log(n * volume / (k * gamma(q / 2 + 1))).mean() + np.log(k) - digamma(k)
    assert knn_entropy(x, k) == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("optimized")
def test_including_the_point_biases_by_a_quarter_nat():
    """The paper, B.1; 1/(k - 1) by theory where the density is constant."""
    q, gaps = 2, []
    for seed in range(20):
        x, _ = draw("uniform", 2000, q, seed)
        included = q * jnp.log(smallest(x, 5)[:, -1]).mean()
        excluded = q * jnp.log(smallest(x, 5, exclude_self=True)[:, -1]).mean()
        gaps.append(float(included - excluded))
    # The mean of 20 samples has a standard error below 0.002.
    assert np.mean(gaps) == pytest.approx(-0.25, abs=0.01)


def test_coinciding_points_have_no_density():
    x = np.random.default_rng(0).normal(size=(50, 2))
    x[:5] = 1.0
    assert np.isfinite(knn_entropy(x, 5))  # four others coincide: the fifth is elsewhere
    x[:6] = 1.0
    assert knn_entropy(x, 5) == -np.inf


@examples
@given(clouds, st.floats(-50, 50))
def test_translation(x, shift):
    assert entropy(x + np.float32(shift)) == pytest.approx(float(entropy(x)), abs=1e-3)


@examples
@given(clouds, st.integers(0, 2**32 - 1))
def test_rotation(x, seed):
    turned = x @ ortho_group.rvs(3, random_state=seed).astype(np.float32)
    assert entropy(turned) == pytest.approx(float(entropy(x)), abs=1e-4)


@examples
@given(clouds, st.floats(-6, 6))
def test_scale_adds_q_log_c(x, log_scale):
    scaled = x * np.float32(np.exp(log_scale))
    assert entropy(scaled) == pytest.approx(float(entropy(x)) + 3 * log_scale, abs=1e-4)


@examples
@given(clouds, st.randoms(use_true_random=False))
def test_permutation(x, random):
    order = random.sample(range(len(x)), len(x))
    np.testing.assert_array_equal(np.asarray(smallest(x, 5))[order], smallest(x[order], 5))
