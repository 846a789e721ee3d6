"""The LSTM's own backward pass: against automatic differentiation and finite differences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from entrob.agents.batching import one_at_a_time
from entrob.agents.model import NETWORKS, make_model
from entrob.agents.recurrence import recurrence
from entrob.envs import make


def plain(recurrent, gates, carry, start):
    """The definition, as a scan that JAX differentiates."""

    def step(loop, inputs):
        gates, start = inputs
        c, h = jax.tree.map(lambda m: jnp.where(start[:, None], 0.0, m), loop)
        i, f, g, o = jnp.split(gates + h @ recurrent, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), (c, h)

    return jax.lax.scan(step, carry, (gates, start))[1]


def draw(seed=0, steps=9, n=4, width=5, dtype=np.float64):
    """``(weights, gates, carry), start`` with episodes that begin at random places."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)
    carry = normal(n, width), normal(n, width)
    arguments = normal(width, 4 * width), normal(steps, n, 4 * width), carry
    return arguments, rng.random((steps, n)) < 0.3


def loss(function, arguments, start):
    """Every number of both memories has a weight of its own."""
    cs, hs = function(*arguments, start)
    by_c, by_h = np.random.default_rng(1).normal(size=(2, *cs.shape)).astype(cs.dtype)
    return jnp.sum(by_c * cs) + jnp.sum(by_h * jnp.sin(hs))


def gradient(function, arguments, start):
    return jax.jit(jax.grad(lambda a: loss(function, a, start)))(arguments)


def assert_close(actual, expected, rtol):
    """Leaf by leaf, relative to the largest number of the leaf."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_gradients_are_those_of_automatic_differentiation(steps):
    with jax.enable_x64(True):
        arguments, start = draw(steps=steps)
        assert start.any()
        assert_close(recurrence(*arguments, start), plain(*arguments, start), 1e-15)
        assert_close(
            gradient(recurrence, arguments, start), gradient(plain, arguments, start), 1e-12
        )


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        arguments, start = draw(steps=6, n=2, width=3)
        flat, build = ravel_pytree(arguments)
        losses = jax.jit(jax.vmap(lambda x: loss(recurrence, build(x), start)))
        steps = 1e-6 * jnp.eye(flat.size)
        central = (losses(flat + steps) - losses(flat - steps)) / 2e-6
        exact, _ = ravel_pytree(gradient(recurrence, arguments, start))
        np.testing.assert_allclose(exact, central, atol=1e-8)


def test_an_episode_that_begins_takes_no_gradient_into_the_one_before():
    arguments, _ = draw(dtype=np.float32)
    start = np.zeros((9, 4), bool)
    start[5, 2] = True
    last = lambda a: recurrence(*a, start)[1][5:].sum()
    _, dgates, dmemory = jax.tree.map(np.asarray, jax.jit(jax.grad(last))(arguments))
    assert not np.abs(dgates[:5, 2]).any() and not any(np.abs(d[2]).any() for d in dmemory)
    assert np.abs(dgates[:5, [0, 1, 3]]).any(-1).all() and np.abs(dgates[5:, 2]).any(-1).all()


@pytest.mark.parametrize("together", [jax.vmap, lambda f: jax.vmap(one_at_a_time(f))])
def test_runs_side_by_side_and_one_at_a_time(together):
    """Inside a scan, as the learner uses it."""
    with jax.enable_x64(True):
        runs = [draw(seed) for seed in range(3)]
        arguments, start = jax.tree.map(lambda *x: np.stack(x), *runs)

        def descend(arguments, start):
            def step(arguments, _):
                slope = jax.grad(lambda a: loss(recurrence, a, start))(arguments)
                return jax.tree.map(lambda x, g: x - 0.1 * g, arguments, slope), None

            return jax.lax.scan(step, arguments, None, length=2)[0]

        found = jax.jit(together(descend))(arguments, start)
        for run, (own, own_start) in enumerate(runs):
            for _ in range(2):
                slope = gradient(plain, own, own_start)
                own = jax.tree.map(lambda x, g: x - 0.1 * g, own, slope)
            assert_close(jax.tree.map(lambda x, run=run: x[run], found), own, 1e-12)


def test_float32_is_exact_to_rounding():
    """At the paper's size; the reference is the plain scan in float64."""
    arguments, start = draw(steps=100, n=8, width=256, dtype=np.float32)
    arguments = (arguments[0] / 16, *arguments[1:])  # weights of norm 1 or so, as at the start
    with jax.enable_x64(True):
        exact = gradient(plain, jax.tree.map(np.float64, arguments), start)
        expected = jax.tree.map(np.float32, exact)
    assert_close(gradient(recurrence, arguments, start), expected, 3e-6)


def test_bfloat16_changes_only_the_gradient_of_the_weights_and_little():
    arguments, start = draw(steps=50, n=8, width=64, dtype=np.float32)
    arguments = (arguments[0] / 8, *arguments[1:])
    half = lambda *a: recurrence(*a, jnp.bfloat16)
    exact, rounded = gradient(recurrence, arguments, start), gradient(half, arguments, start)
    assert_close(half(*arguments, start), recurrence(*arguments, start), 0)
    assert_close(rounded[1:], exact[1:], 0)
    # Each factor is rounded to 8 bits, and the errors of 400 terms average out.
    assert_close(rounded[0], exact[0], 2**-8)
    assert (rounded[0] != exact[0]).any()


#: Sum of |w| of the initial weights at seed 0, before the recurrence had its own backward pass.
INITIAL = {
    "Dense_0": 416.397, "Dense_1": 4628.246, "Dense_2": 13463.699, "recurrent": 6534.961,
    "Dense_3": 3377.531, "Dense_4": 1.790, "Dense_5": 3373.208, "Dense_6": 13.049,
}  # fmt: skip


@pytest.fixture(scope="module")
def pusher():
    """``(policy networks by name, parameters, what they are applied to)`` of the paper's LSTM."""
    nets = {name: NETWORKS[name](14) for name in ("lstm", "lstm-bf16")}
    obs = jax.random.normal(jax.random.PRNGKey(1), (20, 4, 23))
    start = jax.random.bernoulli(jax.random.PRNGKey(2), 0.1, (20, 4))
    inputs = nets["lstm"].init_carry(4), obs, start
    return nets, jax.jit(nets["lstm"].init)(jax.random.PRNGKey(0), *inputs), inputs


def test_the_network_is_the_one_it_was(pusher):
    """Names, shapes and initial values of the parameters, and values of the plain formulas."""
    nets, params, (carry, obs, start) = pusher
    shapes = {"recurrent": (256, 1024)}
    sizes = (23, 256), (256, 256), (256, 1024), (256, 256), (256, 14), (256, 256), (256, 1)
    for i, shape in enumerate(sizes):
        shapes[f"Dense_{i}"] = {"kernel": shape, "bias": shape[1:]}
    assert jax.tree.map(jnp.shape, params["params"]) == shapes
    sums = {
        name: np.abs(np.asarray(jax.tree.leaves(leaf)[-1], np.float64)).sum()
        for name, leaf in params["params"].items()
    }
    for name, total in INITIAL.items():
        assert sums[name] == pytest.approx(total, rel=1e-3)

    @jax.jit
    def expected(weights):
        dense = lambda i, x: x @ weights[f"Dense_{i}"]["kernel"] + weights[f"Dense_{i}"]["bias"]
        gates = dense(2, nn.relu(dense(1, nn.relu(dense(0, obs))))).at[..., 256:512].add(1.0)
        cs, hs = plain(weights["recurrent"], gates, carry, start)
        return dense(4, nn.relu(dense(3, hs))), dense(6, nn.relu(dense(5, hs)))[..., 0], (cs, hs)

    got = jax.jit(nets["lstm"].apply)(params, carry, obs, start)
    assert_close(got, expected(params["params"]), 1e-5)


def test_bfloat16_products_are_an_option_with_a_bounded_error(pusher):
    nets, params, inputs = pusher
    half = make_model(make("mujoco/pusher")[0], "lstm-bf16")
    assert half.recurrent
    applied = {name: jax.jit(net.apply) for name, net in nets.items()}
    at = lambda name, params: applied[name](params, *inputs)

    def slope(name):
        def loss(params):
            head, value, _ = at(name, params)
            return jnp.sin(head).mean() + (value**2).mean()

        return jax.jit(jax.grad(loss))(params)

    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(at("lstm-bf16", params)))
    assert_close(at("lstm-bf16", params), at("lstm", params), 0.05)
    norm = lambda tree: np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(tree)))
    exact, rounded = (jax.tree.map(np.asarray, slope(name)) for name in ("lstm", "lstm-bf16"))
    assert jax.tree.map(jnp.shape, exact) == jax.tree.map(jnp.shape, params)
    error = norm(jax.tree.map(lambda a, b: a - b, rounded, exact)) / norm(exact)
    assert 0 < error < 0.06
