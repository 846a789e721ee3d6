"""Off is none, wrong shapes are named, schedules, chains, modules to load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import entrob
from entrob.distributions import Categorical
from entrob.errors import EntrobError
from entrob.regularizers import Regularizer, load, policy_entropy, schedules
from entrob.regularizers.chaining import chain
from entrob.rollout import PolicyOutput


def test_coefficient_zero_is_none_bit_for_bit_in_one_program(train):
    both = [policy_entropy(), entrob.regularizers.state_entropy()]
    coefs = [[0, 0, 0, 0.3], [0, 0, 0.5, 0]]
    one, _ = train(both, dict(zip(("policy_entropy", "state_entropy"), coefs)), updates=1)
    none, _ = train([], {}, updates=1)
    for x, z in zip(jax.tree.leaves(one.network), jax.tree.leaves(none.network)):
        assert (x[0] == x[1]).all()
        np.testing.assert_allclose(x[0], z[0], atol=1e-6)  # another program
    for run in (2, 3):
        assert any((x[0] != x[run]).any() for x in jax.tree.leaves(one.network))


# The other fidelity is off at the edges of `test_zoo.py`.
@pytest.mark.parametrize("fidelity", ["reference", pytest.param("paper", marks=pytest.mark.slow)])
def test_state_entropy_is_off_at_zero_whatever_its_neighbors(train, fidelity):
    part = entrob.regularizers.state_entropy(fidelity=fidelity)
    state, _ = train([part], {"state_entropy": [0.0, 0.5, 0.0]}, updates=1)
    leaves = jax.tree.leaves(state.network)
    assert all((x[0] == x[2]).all() for x in leaves) and any((x[0] != x[1]).any() for x in leaves)


@pytest.mark.parametrize(
    ("hook", "function", "message"),
    [
        ("loss", lambda *a: jnp.ones(3), "loss must return shape [], got shape [3]"),
        ("loss", lambda *a: "x", "loss must return shape [], got str"),
        ("reward", lambda *a: (jnp.ones(2), ()), "reward must return shape [12, 4], got shape [2]"),
        ("reward", lambda *a: (jnp.ones(1),), "reward must return bonus[T, N] or (bonus, state)"),
        ("advantage", lambda *a: jnp.ones(1), "advantage must return shape [12, 4]"),
        (
            "surrogate",
            lambda *a: jnp.ones(1),
            "surrogate must return (weight, clip_low, clip_high)",
        ),
    ],
)
def test_wrong_shapes_are_one_clear_line(train, hook, function, message):
    with pytest.raises(EntrobError) as error:
        train([Regularizer("mine", **{hook: function})], {"mine": [1.0]})
    assert message in str(error.value) and "'mine'" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_gradient_of_policy_entropy():
    logits = np.random.default_rng(0).normal(size=(5, 3))

    def by_definition(logits):  # in float64, for the differences
        p = special.softmax(logits, -1)
        return -0.3 * stats.entropy(p, axis=-1).mean()

    def loss(logits):
        policy = PolicyOutput(Categorical(logits), jnp.zeros(5), None, None)
        return policy_entropy().loss(None, (), policy, None, 0.3)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits, jnp.float32))
    assert float(value) == pytest.approx(by_definition(logits), abs=1e-6)
    for i in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[i] = 1e-5
        slope = (by_definition(logits + step) - by_definition(logits - step)) / 2e-5
        assert float(gradient[i]) == pytest.approx(slope, abs=1e-6)


def test_schedules_at_their_ends_and_middle():
    at = lambda s: [float(s(jnp.float32(x))) for x in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(at(schedules.constant(2.0)), [2, 2, 2])
    np.testing.assert_allclose(at(schedules.linear()), [1, 0.5, 0])
    np.testing.assert_allclose(at(schedules.cosine(5.0)), [5, 3, 1], atol=1e-6)
    np.testing.assert_allclose(at(schedules.phase(0.25, 0.75)), [0, 1, 0])


def test_chains_are_flat_and_names_are_unique():
    inner = chain(policy_entropy())
    assert chain(inner, entrob.regularizers.state_entropy()).names == (
        "policy_entropy", "state_entropy")  # fmt: skip
    with pytest.raises(EntrobError, match="comes twice"):
        chain(inner, policy_entropy())


def test_load_finds_functions_or_says_why_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good_one.py").write_text(
        "import entrob\n@entrob.regularizer('loaded')\ndef f(policy, coef):\n    return coef\n"
        "def plain(x):\n    return x\n"
    )
    (tmp_path / "bad_one.py").write_text("import nothing_of_that_name\n")
    assert load("good_one:f") == "loaded" and load("state_entropy") == "state_entropy"
    for reference, message in [
        ("bad_one:f", "does not import .ModuleNotFoundError"),
        ("good_one:g", "has no 'g'"),
        ("good_one:plain", "neither decorated nor a Regularizer"),
        ("polcy_entropy", "did you mean"),
    ]:
        with pytest.raises(EntrobError, match=message):
            load(reference)
