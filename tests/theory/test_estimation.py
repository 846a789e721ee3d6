import jax
import numpy as np
import pandas as pd
import pytest

from entrob.theory.estimation import estimation_errors, fitted_slopes


def synthetic(**columns):
    n = np.array([10.0, 100, 1000, 10_000, 100_000])
    rmse = np.where(n < 500, 7.0, 3 * n**-0.75)  # the smaller half must not count
    frame = pd.DataFrame({"quantity": "x", "dimension": 3, "n": n, "rmse": rmse})
    return frame.assign(rmse_low=rmse / 1.2, rmse_high=rmse * 1.2, **columns)


def test_slope_of_a_power_law():
    none = synthetic().assign(quantity="y", dimension=pd.NA, rmse=lambda f: f.n**-0.5)
    slopes = fitted_slopes(pd.concat([synthetic().sample(frac=1, random_state=0), none]))
    assert slopes.quantity.tolist() == ["x", "y"]
    np.testing.assert_allclose(slopes.slope, [-0.75, -0.5])
    np.testing.assert_allclose(slopes.claimed, [-1 / 3, -1 / 2])
    assert slopes.dimension[0] == 3 and pd.isna(slopes.dimension[1])


def test_uncertainty_of_a_slope():
    # Three points a factor of ten apart: the slope is half the difference of the outer ones.
    se = np.log(1.2) / 1.96
    expected = np.sqrt(2) * se / (2 * np.log(10))
    np.testing.assert_allclose(fitted_slopes(synthetic()).slope_se, expected)


@pytest.mark.parametrize(
    "frame, message",
    [
        (synthetic().drop(columns="rmse_low"), "rmse_low"),
        (synthetic().assign(rmse=0.0), "positive"),
        (synthetic().head(1), "fewer than two"),
    ],
)
def test_slopes_refuse(frame, message):
    with pytest.raises(ValueError, match=message):
        fitted_slopes(frame)


@pytest.fixture(scope="module")
def errors():
    return estimation_errors(jax.random.key(0), (16, 256), (1, 4), points=2**14, fewest=8, most=512)


def test_rows(errors):
    assert errors.quantity.unique().tolist() == [
        "state entropy, Gaussian",
        "state entropy, uniform",
        "policy entropy",
        "return",
    ]
    assert len(errors) == (2 * 2 + 2) * 2
    assert errors[errors.n == 16].repetitions.eq(512).all()
    larger = errors[errors.n == 256]
    assert larger.repetitions.tolist() == [64] * 4 + [512] * 2
    assert errors.dimension.isna().sum() == 4


def test_bias_and_spread_make_up_the_error(errors):
    spread = errors["std"] ** 2 * (errors.repetitions - 1) / errors.repetitions
    np.testing.assert_allclose(errors.rmse**2, errors.bias**2 + spread)
    assert (errors.rmse_low < errors.rmse).all() and (errors.rmse < errors.rmse_high).all()


def test_means_are_unbiased_with_the_rate_of_means(errors):
    rows = errors[errors.dimension.isna()]
    assert (rows.bias.abs() < 4 * rows["std"] / np.sqrt(rows.repetitions)).all()
    for _, pair in rows.groupby("quantity"):
        np.testing.assert_allclose(pair["std"].iloc[0] / pair["std"].iloc[1], 4, rtol=0.3)


def test_state_entropy_is_near_and_biased_at_a_boundary(errors):
    rows = errors.set_index(["quantity", "dimension", "n"])
    assert rows.rmse["state entropy, Gaussian", 1, 256] < 0.1
    assert rows.rmse["state entropy, uniform", 1, 256] < 0.1
    assert rows.bias["state entropy, uniform", 4, 16] > 0.3
    assert rows.bias["state entropy, uniform", 4, 256] > 0.1


def test_slopes_of_measured_errors(errors):
    slopes = fitted_slopes(errors)
    assert len(slopes) == 6 and (slopes.slope < 0).all()
    assert slopes[slopes.dimension.isna()].slope.between(-0.65, -0.35).all()


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"sizes": ()}, "sizes"),
        ({"sizes": (5,)}, "sizes"),
        ({"dimensions": (0,)}, "dimensions"),
        ({"fewest": 1}, "fewest"),
        ({"most": 3}, "fewest"),
    ],
)
def test_bad_input(arguments, name):
    with pytest.raises(ValueError, match=name):
        estimation_errors(jax.random.key(0), **arguments)
