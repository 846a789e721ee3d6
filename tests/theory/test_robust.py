"""Robust MDPs against convex solvers, brute force and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from entrob.theory import robust
from entrob.theory.divergences import AMBIGUITIES, worst_expectation
from entrob.theory.generators import garnet
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import expected_reward, float64, tabular_mdp, uniform_policy
from entrob.theory.regularized import Weights
from entrob.theory.robust import FactoredMDP, factored

BALLS = ["tv", "kl", "chi2"]
PENALTIES = [f"{name}_penalty" for name in BALLS]
SIZES = {name: 2.0 if ambiguity.penalized else 0.2 for name, ambiguity in AMBIGUITIES.items()}
KEY = jax.random.PRNGKey(0)
GAMMA = 0.95
STATES, ACTIONS = 6, 3


def in_numpy(function):
    """`function` with results in NumPy, for comparisons in 64 bits outside `enable_x64`."""
    return lambda *args, **kwargs: jax.tree.map(np.asarray, function(*args, **kwargs))


robust_value_iteration = in_numpy(robust.robust_value_iteration)
robust_policy_evaluation = in_numpy(robust.robust_policy_evaluation)


@pytest.fixture(scope="module")
def mdp():
    return garnet(KEY, STATES, ACTIONS, 4, GAMMA)


@pytest.fixture(scope="module")
def factor_models():
    """Four of them, stacked."""
    draw = lambda key: factored(key, STATES, ACTIONS, 3, 2, GAMMA)
    return in_numpy(float64(jax.jit(jax.vmap(draw))))(jax.random.split(KEY, 4))


@pytest.fixture(scope="module")
def factor_model(factor_models):
    return jax.tree.map(lambda x: x[0], factor_models)


@functools.cache
def batched(ambiguity):
    """`worst_expectation` of rows, vectors and sizes [N, ...], compiled."""
    one = lambda p, v, size: worst_expectation(p, v, ambiguity, size)
    return in_numpy(float64(jax.jit(jax.vmap(one))))


def distance(name, q, p):
    """D(q, p)."""
    return np.asarray(float64(AMBIGUITIES[name].divergence)(q, p))


def rows(n, states, seed=0):
    """Distributions, a third with zeros, and vectors, a third with ties, some constant."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(states), n)
    p[::3, : states // 2] = 0
    v = rng.normal(size=(n, states))
    v[1::3] = np.round(v[1::3])
    v[::17] = 2.5
    return p / p.sum(-1, keepdims=True), v


def tv_program(p, v, radius, price):
    """Over q and t >= |q - p|."""
    n = len(p)
    eye = np.eye(n)
    A = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, n)), np.full((1, n), 0.5)]])
    b = np.concatenate([p, -p, [radius]])
    cost = np.concatenate([v, np.full(n, price / 2)])
    ones = np.concatenate([np.ones(n), np.zeros(n)])[None]
    return linprog(cost, A, b, ones, [1.0], bounds=(0, None)).fun


def smooth_program(p, v, radius, price, kind):
    """KL and χ² by sequential quadratic programming on the support."""
    p, v = p[p > 0], v[p > 0]
    log = lambda q: np.log(np.maximum(q, 1e-300) / p)
    if kind == "kl":
        D, slope = lambda q: q @ log(q), lambda q: log(q) + 1
    else:
        D, slope = lambda q: np.sum((q - p) ** 2 / p), lambda q: 2 * (q - p) / p
    constraints = [{"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like}]
    if price == 0:
        inside = {"type": "ineq", "fun": lambda q: radius - D(q), "jac": lambda q: -slope(q)}
        constraints.append(inside)
    result = minimize(
        lambda q: q @ v + price * D(q),
        p,
        jac=lambda q: v + price * slope(q),
        bounds=[(1e-12, 1)] * len(p),
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return result.fun


SOLVERS = {
    "tv": tv_program,
    "kl": functools.partial(smooth_program, kind="kl"),
    "chi2": functools.partial(smooth_program, kind="chi2"),
}


@pytest.mark.parametrize("name", AMBIGUITIES)
def test_a_convex_solver_finds_the_same_value(name):
    p, v = rows(24, 5)
    size = 10 ** np.random.default_rng(1).uniform(-2, 0.3, len(p))
    solver, one = SOLVERS[name.split("_")[0]], np.ones(24)  # total variation is at most 1
    radius, price = (one, size) if AMBIGUITIES[name].penalized else (size, 0 * one)
    numeric = [solver(*case) for case in zip(p, v, radius, price)]
    np.testing.assert_allclose(batched(name)(p, v, size).value, numeric, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(AMBIGUITIES)), st.integers(0, 2**32 - 1), st.floats(-9, 2))
def test_the_row_attains_the_value_and_lies_in_the_set(name, seed, log_size):
    p, v = rows(50, 7, seed)
    v = v * 10.0 ** np.random.default_rng(seed).uniform(-3, 3, (50, 1))
    size = np.full(50, 10**log_size)
    worst = batched(name)(p, v, size)
    penalized = AMBIGUITIES[name].penalized
    scale = np.abs(v).max(-1) + penalized * size
    assert (worst.row >= 0).all()
    np.testing.assert_allclose(worst.row.sum(-1), 1, atol=1e-14)
    away = distance(name, worst.row, p)
    paid = (worst.row * v).sum(-1) + penalized * size * away
    assert (np.abs(paid - worst.value) <= 1e-13 * scale).all()
    assert (worst.gap <= 1e-13 * scale).all()
    assert penalized or (away <= size * (1 + 1e-11) + 1e-14).all()


@pytest.mark.parametrize("name", BALLS)
def test_a_penalty_is_the_best_price_of_radii(name):
    """inf_q E v + λ D = inf over radii of worst(radius) + λ radius, attained at D of the row."""
    p, v = rows(20, 6, 5)
    for penalty in (0.1, 0.7, 5.0):
        paid = batched(f"{name}_penalty")(p, v, np.full(20, penalty))
        for radius in np.linspace(0, 3, 25):
            ball = batched(name)(p, v, np.full(20, radius)).value
            assert (paid.value <= ball + penalty * radius + 1e-12).all()
        own = np.maximum(distance(name, paid.row, p), 0)
        ball = batched(name)(p, v, own).value
        np.testing.assert_allclose(ball + penalty * own, paid.value, atol=1e-7)


def test_closed_forms():
    p, v = np.array([0.2, 0.3, 0.5, 0.0]), np.array([1.0, 2.0, 4.0, -1.0])
    value = lambda name, size: float(worst_expectation(p, v, name, size).value)
    mean, variance = p @ v, p @ (v - p @ v) ** 2
    assert value("tv", 0.6) == pytest.approx(0.2 * 1 + 0.2 * 2 - 0.6)
    assert value("tv_penalty", 2.5) == pytest.approx(p @ np.minimum(v, 1.5))
    assert value("kl_penalty", 1.5) == pytest.approx(-1.5 * np.log(p @ np.exp(-v / 1.5)))
    assert value("chi2", 0.01) == pytest.approx(mean - np.sqrt(0.01 * variance))  # nothing cut off
    assert value("chi2_penalty", 50.0) == pytest.approx(mean - variance / 200)
    assert value("kl", -np.log(0.2) + 0.01) == pytest.approx(1)  # all on the least of the support
    assert value("chi2", 4.0) == pytest.approx(1)
    assert value("tv", 5.0) == pytest.approx(-1)  # all on the least state of all
    for name in BALLS:
        assert value(name, 0) == pytest.approx(mean)


def test_order_of_the_divergences():
    """Pinsker: TV <= √(KL/2); Jensen: KL <= log(1 + χ²): so the balls are nested."""
    p, v = rows(60, 6, 7)
    for radius in (1e-4, 0.05, 0.5):
        full = lambda x: np.full(60, x)
        tv = batched("tv")(p, v, full(np.sqrt(radius / 2))).value
        kl = batched("kl")(p, v, full(radius)).value
        chi2 = batched("chi2")(p, v, full(np.expm1(radius))).value
        assert (tv <= kl + 1e-12).all()
        assert (kl <= chi2 + 1e-12).all()


@pytest.mark.parametrize("name", BALLS)
def test_plain_value_iteration_agrees(name):
    solver = SOLVERS[name]
    small = garnet(KEY, 3, 2, 3, 0.4)
    V = np.zeros(3)
    for _ in range(18):
        inner = [[solver(p, V, 0.1, 0.0) for p in pairs] for pairs in np.asarray(small.P)]
        V = (np.asarray(small.r) + 0.4 * np.array(inner)).max(-1)
    np.testing.assert_allclose(robust_value_iteration(small, name, 0.1).values, V, atol=1e-6)


@pytest.mark.parametrize("name", BALLS)
def test_radius_zero_is_the_plain_mdp(mdp, name):
    plain = float64(interior_point)(mdp, Weights(0.0, 0.0), 1e-10)
    solution = robust_value_iteration(mdp, name, 0.0)
    assert solution.converged
    assert float(solution.value) == pytest.approx(float(plain.value), abs=1e-9)
    np.testing.assert_allclose(solution.kernel, mdp.P, atol=1e-15)
    uniform = uniform_policy(mdp)
    evaluated = robust_policy_evaluation(mdp, uniform, name, 0.0)
    assert float(evaluated.value) == pytest.approx(float(expected_reward(mdp, uniform)), abs=1e-12)


def test_the_largest_radius_leads_to_the_worst_state(mdp):
    """V = max_a r + γ min V in every state."""
    V = np.asarray(robust_value_iteration(mdp, "tv", 1.0).values)
    best = np.asarray(mdp.r).max(-1)
    np.testing.assert_allclose(V, best + GAMMA * best.min() / (1 - GAMMA), atol=1e-9)


@pytest.mark.parametrize("name", [*BALLS, "chi2_penalty"])
def test_vmap_over_sizes_is_one_by_one_and_monotone(mdp, name):
    with jax.enable_x64(True):
        sizes = jnp.array([0.01, 0.1, 0.4, 1.5])
        together = jax.vmap(lambda size: robust.robust_value_iteration(mdp, name, size))(sizes)
    together = jax.tree.map(np.asarray, together)
    assert together.converged.all()
    assert (together.error <= 1e-9).all()
    order = np.diff(together.values, axis=0)
    assert ((order if AMBIGUITIES[name].penalized else -order) >= -1e-9).all()
    for i in (0, 2):
        alone = robust_value_iteration(mdp, name, float(sizes[i]))
        np.testing.assert_allclose(together.values[i], alone.values, atol=1e-9)
        np.testing.assert_array_equal(together.policy[i], alone.policy)


def test_vmap_over_models_is_one_by_one(factor_models):
    solve = lambda model: robust.robust_value_iteration(model, "tv", 0.3)
    together = in_numpy(float64(jax.jit(jax.vmap(solve))))(factor_models)
    for i in range(4):
        alone = solve(jax.tree.map(lambda x, i=i: x[i], factor_models))
        np.testing.assert_allclose(together.values[i], alone.values, atol=1e-10)


@pytest.mark.parametrize(
    "name, kind", [*((name, "rectangular") for name in AMBIGUITIES), ("kl_penalty", "factored")]
)
def test_the_optimum_is_consistent(mdp, factor_model, kind, name):
    model = mdp if kind == "rectangular" else factor_model
    best = robust_value_iteration(model, name, SIZES[name])
    assert best.converged and best.iterations < 40
    assert float(best.value) == pytest.approx((1 - GAMMA) * best.values.mean(), abs=1e-12)
    others = np.random.default_rng(2).dirichlet(np.full(ACTIONS, 0.4), (50, STATES))
    evaluate = lambda policy: robust.robust_policy_evaluation(model, policy, name, SIZES[name])
    with jax.enable_x64(True):
        policies = jnp.concatenate([best.policy[None], others])
        lesser = jax.tree.map(np.asarray, jax.vmap(evaluate)(policies))
    assert lesser.converged.all()
    np.testing.assert_allclose(lesser.values[0], best.values, atol=1e-8)
    assert (lesser.values <= best.values + 1e-8).all()


def inside(name, p, radius, rng):
    """A random distribution of the ball: some way from p to a random one, often all of it."""
    q = rng.dirichlet(np.full(p.shape[-1], 0.5), p.shape[:-1])
    if name != "tv":
        q = q * (p > 0)
        q /= q.sum(-1, keepdims=True)
    share = np.minimum(1, radius / distance(name, q, p)) ** (0.5 if name == "chi2" else 1)
    return p + share[..., None] * (q - p)


def returns(mdp, P, policy):
    """Values of a policy under kernels [N, S, A, S]."""
    moves = np.einsum("nsat,sa->nst", P, policy)
    gain = (policy * np.asarray(mdp.r)).sum(-1)[:, None]
    gains = np.broadcast_to(gain, (len(P), STATES, 1))
    return np.linalg.solve(np.eye(STATES) - GAMMA * moves, gains)[..., 0]


@pytest.mark.parametrize(
    "name, kind", [*((name, "rectangular") for name in BALLS), ("tv", "factored")]
)
def test_no_kernel_of_the_set_is_worse(mdp, factor_model, kind, name):
    rng = np.random.default_rng(4)
    policy = rng.dirichlet(np.ones(ACTIONS), STATES)
    model = mdp if kind == "rectangular" else factor_model
    solution = robust_policy_evaluation(model, policy, name, SIZES[name])
    nominal = np.asarray(mdp.P if kind == "rectangular" else factor_model.w)
    drawn = inside(name, np.broadcast_to(nominal, (1000, *nominal.shape)), SIZES[name], rng)
    own = solution.kernel
    if kind == "factored":
        u = np.asarray(factor_model.u)
        drawn = np.einsum("sar,nrt->nsat", u, drawn)
        moved = np.linalg.lstsq(u.reshape(-1, 3), own.reshape(-1, STATES))[0]
        np.testing.assert_allclose(u @ moved, own, atol=1e-13)  # one set of factors for all pairs
    else:
        moved = own
    tabular = mdp if kind == "rectangular" else factor_model.mdp
    assert (returns(tabular, drawn, policy) >= solution.values - 1e-9).all()
    np.testing.assert_allclose(returns(tabular, own[None], policy)[0], solution.values, atol=1e-8)
    moved = np.where(np.abs(moved) < 1e-14, 0, moved)
    assert (distance(name, moved, nominal) <= SIZES[name] + 1e-9).all()


def test_shared_factors_are_less_conservative(factor_model):
    """Their rows move by at most the radius, so the rectangular set holds them all."""
    for radius in (0.05, 0.3):
        shared = robust_value_iteration(factor_model, "tv", radius).values
        free = robust_value_iteration(factor_model.mdp, "tv", radius).values
        assert (shared >= free - 1e-9).all()
        assert (shared > free + 1e-3).any()


def test_one_factor_per_pair_is_rectangular(mdp):
    u = np.eye(STATES * ACTIONS).reshape(STATES, ACTIONS, -1)
    model = FactoredMDP(mdp, u, np.asarray(mdp.P).reshape(-1, STATES))
    shared = robust_value_iteration(model, "kl_penalty", 2.0).values
    free = robust_value_iteration(mdp, "kl_penalty", 2.0).values
    np.testing.assert_allclose(shared, free, atol=1e-10)


def test_the_adversary_descends_and_the_error_bounds_it(mdp):
    policy = uniform_policy(mdp)
    exact = np.asarray(robust_policy_evaluation(mdp, policy, "kl", 0.3, 1e-11).values)
    best = np.asarray(robust_value_iteration(mdp, "kl", 0.3, 1e-11).values)
    before = np.full(STATES, np.inf)
    for steps in range(5):
        stopped = robust_policy_evaluation(mdp, policy, "kl", 0.3, max_iterations=steps)
        assert (stopped.values <= before + 1e-12).all()
        assert np.abs(stopped.values - exact).max() <= stopped.error + 1e-11
        early = robust_value_iteration(mdp, "kl", 0.3, max_iterations=steps)
        assert np.abs(early.values - best).max() <= early.error + 1e-11
        before = stopped.values
        if steps == 0:
            assert not stopped.converged and stopped.error > 1e-3
    assert stopped.converged


def test_an_unreachable_tolerance_ends_and_says_so(mdp):
    for name in AMBIGUITIES:
        solution = robust_value_iteration(mdp, name, SIZES[name], tolerance=0.0)
        assert solution.error < 1e-10
        assert bool(solution.converged) == (float(solution.error) == 0)


def test_two_states_by_hand():
    """Stay for 0.5, or gamble: reward 1 and, within the radius, a fall to where nothing is paid."""
    P = np.array([[[1.0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0]]])
    r = np.array([[0.5, 1.0], [0.0, 0.0], [0.0, 0.0]])
    mdp = tabular_mdp(P, r, 0.5, [1.0, 0, 0])
    solution = robust_value_iteration(mdp, "tv", 0.25)
    assert float(solution.values[0]) == pytest.approx(1 / (1 - 0.5 * 0.75))
    np.testing.assert_array_equal(solution.policy[0], [0, 1])
    for name in ("kl", "chi2"):  # the support is one state: there is nothing to change
        assert float(robust_value_iteration(mdp, name, 9.0).values[0]) == pytest.approx(2)


def test_bad_input(mdp, factor_model):
    p, v = [0.5, 0.5], [0.0, 1.0]
    with pytest.raises(ValueError, match="unknown ambiguity 'hellinger': known are tv, kl"):
        robust_value_iteration(mdp, "hellinger", 0.1)
    for name in BALLS:
        with pytest.raises(ValueError, match="size must be >= 0"):
            robust_policy_evaluation(mdp, uniform_policy(mdp), name, -0.1)
    for name in PENALTIES:
        with pytest.raises(ValueError, match="size must be > 0"):
            worst_expectation(p, v, name, 0.0)
    with pytest.raises(ValueError, match="size must be one number"):
        worst_expectation(p, v, "tv", [0.1, 0.2])
    with pytest.raises(ValueError, match="v has values that are not finite"):
        worst_expectation(p, [0.0, np.inf], "tv", 0.1)
    with pytest.raises(ValueError, match="v must have shape"):
        worst_expectation(p, [0.0, 1.0, 2.0], "tv", 0.1)
    with pytest.raises(ValueError, match="p must sum to 1"):
        worst_expectation([0.5, 0.6], v, "tv", 0.1)
    with pytest.raises(ValueError, match="policy must sum to 1"):
        robust_policy_evaluation(mdp, np.ones((STATES, ACTIONS)), "tv", 0.1)
    with pytest.raises(ValueError, match="is not u w"):
        robust_value_iteration(factor_model._replace(mdp=mdp), "tv", 0.1)
    with pytest.raises(ValueError, match="u must have shape"):
        robust_value_iteration(factor_model._replace(u=np.ones((STATES, ACTIONS, 2))), "tv", 0.1)
    with pytest.raises(ValueError, match="factors must be >= 1"):
        factored(KEY, 3, 2, 0)
    with pytest.raises(ValueError, match=r"branching must be in 1\.\.2"):
        factored(KEY, 3, 2, 2, 3)
