"""How fast estimates of state entropy, policy entropy and return improve with the sample (§4.3).

The paper gives n^(-1/D) for the nearest-neighbor estimate of state entropy in D dimensions and
n^(-1/2) for the two others.  But the standard deviation of all of them falls as n^(-1/2), so the
first cannot hold in one dimension, and the bias depends on the density.  The slopes are therefore
measured, for a density that is smooth everywhere and for one with a boundary.
"""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from entrob.estimators.knn import knn_entropy
from entrob.theory.generators import garnet
from entrob.theory.mdp import TabularMDP, entropy, occupancy, policy_entropy, values

SIZES = (64, 256, 1024, 4096, 16384)
DIMENSIONS = (1, 2, 4, 8)
NEIGHBORS = 5
CUT = 1e-6
"""Episodes end where less than this share of the discounted sum can follow."""
_DENSITIES = ("state entropy, Gaussian", "state entropy, uniform")
_OF_THE_MDP = ("policy entropy", "return")
_BRANCHING = 3
_THREADS = 2  # one computation of distances keeps one core busy


def estimation_errors(
    key: jax.Array,
    sizes: Sequence[int] = SIZES,
    dimensions: Sequence[int] = DIMENSIONS,
    points: int = 2**17,
    fewest: int = 8,
    most: int = 512,
) -> pd.DataFrame:
    """Errors of estimates from n independent samples against the exact values.

    - "state entropy, Gaussian": `knn_entropy` (k = 5) of n points of a standard Gaussian, whose
      entropy is D/2 log(2πe); smooth and unbounded.
    - "state entropy, uniform": of n points of the unit cube, entropy 0; points at the boundary have
      neighbors on one side only.
    - "policy entropy": mean of H(π(·|s)) over n states drawn from d, the discounted distribution of
      a random policy in a Garnet MDP with 20 states, 4 actions, branching 3 and γ = 0.8.
    - "return": mean discounted return of n episodes of that policy.

    Args:
      key: a JAX key.
      sizes: the n, each more than 5.
      dimensions: the D of state entropy, each at least 1; may be empty.
      points: n × repetitions of state entropy, eight times as many for the others, which are cheap;
        bounds the time that the large n take.
      fewest: least number of repetitions, at least 2.
      most: largest number of repetitions.

    Returns:
      Columns quantity, dimension (missing where there is none), n, repetitions, bias, std and rmse
      of the estimate, rmse_low and rmse_high (its 95 % interval, normal on the log scale), in nats
      or in units of reward.

    Raises:
      ValueError: an argument out of range.
    """
    if len(sizes) == 0 or min(sizes) <= NEIGHBORS:
        raise ValueError(f"sizes must all be more than {NEIGHBORS}, not {list(sizes)}")
    if min(dimensions, default=1) < 1:
        raise ValueError(f"dimensions must all be at least 1, not {list(dimensions)}")
    if not 2 <= fewest <= most:
        raise ValueError(f"fewest must be in 2..{most}, not {fewest}")
    repeat = lambda n, points: min(max(points // n, fewest), most)
    example, key = jax.random.split(key)
    mdp, policy = _example(example)

    def errors_of(job):
        D, n, key = job
        if D is None:
            return _mdp_errors(key, mdp, policy, n, repeat(n, 8 * points))
        return _entropy_errors(key, D, n, repeat(n, points))

    kinds = [(D, n) for D in (*dimensions, None) for n in sizes]
    jobs = [(*kind, k) for kind, k in zip(kinds, jax.random.split(key, len(kinds)))]
    with ThreadPoolExecutor(_THREADS) as pool:
        errors = dict(zip(kinds, pool.map(errors_of, jobs)))
    rows = []
    for names, of in ((_DENSITIES, dimensions), (_OF_THE_MDP, (None,))):
        rows += [
            _row(name, D, n, errors[D, n][i])
            for i, name in enumerate(names)
            for D in of
            for n in sizes
        ]
    return pd.DataFrame(rows).astype({"dimension": "Int64"})


def _row(quantity: str, dimension, n: int, errors: np.ndarray) -> dict:
    """Bias, spread and root mean square of the errors of repeated estimates."""
    bias, std, number = errors.mean(), errors.std(ddof=1), len(errors)
    square = np.mean(errors**2)
    # An estimate is a mean, so nearly normal: its squared error has variance 2σ⁴ + 4 bias² σ².
    # The relative error of the root is half that of the mean square.
    relative = math.sqrt((2 * std**4 + 4 * bias**2 * std**2) / number) / (2 * square)
    rmse = math.sqrt(square)
    return {
        "quantity": quantity,
        "dimension": dimension,
        "n": n,
        "repetitions": number,
        "bias": bias,
        "std": std,
        "rmse": rmse,
        "rmse_low": rmse * math.exp(-1.96 * relative),
        "rmse_high": rmse * math.exp(1.96 * relative),
    }


def _entropy_errors(key: jax.Array, dimension: int, n: int, repetitions: int) -> np.ndarray:
    """Errors of `knn_entropy`, for each density: float64[2, repetitions]."""
    exact = np.array([dimension / 2 * math.log(2 * math.pi * math.e), 0.0])
    with jax.enable_x64(False):  # the estimator's precision
        estimates = _knn_estimates(key, dimension, n, repetitions)
    return np.asarray(estimates, np.float64) - exact[:, None]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _knn_estimates(key: jax.Array, dimension: int, n: int, repetitions: int) -> jax.Array:
    def estimate(at):  # both densities by one body: half the compilation
        key, gaussian = at
        shape = (n, dimension)
        x = jnp.where(gaussian, jax.random.normal(key, shape), jax.random.uniform(key, shape))
        return knn_entropy(x, NEIGHBORS)

    keys = jax.random.split(key, 2 * repetitions)
    gaussian = jnp.arange(2 * repetitions) < repetitions
    return jax.lax.map(estimate, (keys, gaussian)).reshape(2, repetitions)


def _example(key: jax.Array) -> tuple[TabularMDP, jax.Array]:
    """The Garnet MDP and the policy that are evaluated."""
    make, act = jax.random.split(key)
    mdp = garnet(make, states=20, actions=4, branching=_BRANCHING, gamma=0.8)
    with jax.enable_x64(True):
        return mdp, jax.nn.softmax(2 * jax.random.normal(act, mdp.r.shape))


def _mdp_errors(
    key: jax.Array, mdp: TabularMDP, policy: jax.Array, n: int, repetitions: int
) -> np.ndarray:
    """Errors of policy entropy and return, estimated from n samples: float64[2, repetitions]."""
    rho = occupancy(mdp, policy)
    with jax.enable_x64(True):
        exact = np.array([policy_entropy(rho), mdp.mu @ values(mdp, policy, mdp.r)])
        of_state, d = entropy(policy), rho.sum(-1)
    steps = math.ceil(math.log(CUT) / math.log(mdp.gamma))
    with jax.enable_x64(False):
        tables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (mdp, policy, of_state, d))
        samples = _mdp_samples(key, *tables, n * repetitions, steps)
    means = np.asarray(samples, np.float64).reshape(2, repetitions, n).mean(-1)
    return means - exact[:, None]


@functools.partial(jax.jit, static_argnums=(5, 6))
def _mdp_samples(
    key: jax.Array,
    mdp: TabularMDP,
    policy: jax.Array,
    of_state: jax.Array,
    d: jax.Array,
    number: int,
    steps: int,
) -> jax.Array:
    """H(π(·|s)) of states drawn from d, and discounted returns of episodes: float32[2, number]."""
    below = lambda p: jnp.cumsum(p, -1)[..., :-1]
    draw = lambda key, edges: (jax.random.uniform(key, (number, 1)) >= edges).sum(-1)
    to = jnp.argsort(mdp.P, -1, descending=True)[..., :_BRANCHING]  # all others are impossible
    act, move = below(policy), below(jnp.take_along_axis(mdp.P, to, -1))

    def step(carry, key):
        s, total, discount = carry
        first, second = jax.random.split(key)
        a = draw(first, act[s])
        total += discount * mdp.r[s, a]
        return (to[s, a, draw(second, move[s, a])], total, discount * mdp.gamma), None

    visited, begin, episode = jax.random.split(key, 3)
    start = (draw(begin, below(mdp.mu)), jnp.zeros(number), 1.0)
    (_, total, _), _ = jax.lax.scan(step, start, jax.random.split(episode, steps))
    return jnp.stack([of_state[draw(visited, below(d))], total])


def fitted_slopes(errors: pd.DataFrame) -> pd.DataFrame:
    """Slopes of log rmse against log n, by least squares over the larger half of the n.

    Args:
      errors: what `estimation_errors` returns; at least two n of each quantity and dimension.

    Returns:
      One row per quantity and dimension: slope, slope_se (what the uncertainty of each rmse, known
      from its interval, leaves of uncertainty in the slope) and claimed, the paper's -1/D or -1/2.

    Raises:
      ValueError: a column is missing, an rmse is not positive, or a slope has fewer than two n.
    """
    needed = ["quantity", "dimension", "n", "rmse", "rmse_low", "rmse_high"]
    missing = [name for name in needed if name not in errors]
    if missing:
        raise ValueError(f"errors lacks the columns {', '.join(missing)}")
    if not (errors[["rmse", "rmse_low", "rmse_high"]] > 0).all(axis=None):
        raise ValueError("errors has an rmse that is not positive")
    rows = []
    for (quantity, D), group in errors.groupby(["quantity", "dimension"], sort=False, dropna=False):
        if group.n.nunique() < 2:
            raise ValueError(f"errors has fewer than two n for {quantity}")
        half = group.sort_values("n").tail(max(2, math.ceil(len(group) / 2)))
        x = np.log(half.n.to_numpy(float))
        weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        spread = np.log(half.rmse_high / half.rmse_low) / (2 * 1.96)
        rows.append(
            {
                "quantity": quantity,
                "dimension": D,
                "slope": weight @ np.log(half.rmse),
                "slope_se": math.sqrt((weight**2) @ spread**2),
                "claimed": -1 / 2 if pd.isna(D) else -1 / D,
            }
        )
    return pd.DataFrame(rows).astype({"dimension": "Int64"})
