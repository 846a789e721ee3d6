"""Hooks, chains, gates, schedules and the decorator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entrob
from entrob.agents.actor_critic import make_agent
from entrob.agents.distributions import Categorical
from entrob.agents.spec import Hyper, Spec
from entrob.errors import EntrobError
from entrob.regularizers import HOOKS, Regularizer, build, load, policy_entropy, schedules
from entrob.regularizers import regularizers as registry
from entrob.regularizers.protocol import Policy, chain


def one_update(regularizer, coefs, seed=0):
    """Parameters after one update on MiniGrid, for each of several coefficients."""
    env, params = entrob.make("minigrid/empty-8x8")
    agent = make_agent(Spec(env, regularizer, num_envs=2, num_steps=16))
    width = len(next(iter(coefs.values()), [0, 0]))
    hyper = jax.tree.map(lambda x: jnp.full(width, x, jnp.float32), Hyper())
    hyper = hyper.replace(coefs={k: jnp.asarray(v, jnp.float32) for k, v in coefs.items()})
    state = agent.init(jax.random.PRNGKey(seed), hyper, params)
    train = jax.vmap(lambda h: agent.train_chunk(state, h, params, 1)[0])
    return jax.tree.leaves(jax.jit(train)(hyper).params)


def poison(hook):
    """A regularizer whose value and gradient are NaN."""

    def loss(key, state, policy, batch, coef):
        return coef * jnp.sqrt(-1 - policy.value**2).sum()

    def reward(key, state, rollout, coef):
        return coef * jnp.full(rollout.reward.shape, jnp.nan), state

    def advantage(state, rollout, coef):
        return rollout.advantage * jnp.nan

    def surrogate(key, state, policy, batch, coef):
        return (jnp.full(batch.reward.shape, jnp.nan),) * 3

    def behavior(state, dist, coef):
        return dist.replace(logits=dist.logits * jnp.nan)

    return Regularizer("poison", **{hook: locals()[hook]})


@pytest.mark.parametrize("hook", ["loss", "reward", "advantage", "surrogate", "behavior"])
def test_coefficient_zero_is_off_even_where_the_term_is_nan(hook):
    with_it = one_update(chain(policy_entropy(), poison(hook)), {
        "policy_entropy": [0.01, 0.01], "poison": [0.0, 0.0]})  # fmt: skip
    without = one_update(chain(policy_entropy()), {"policy_entropy": [0.01, 0.01]})
    for x, y in zip(with_it, without):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_coefficient_zero_is_none_bit_for_bit_in_one_program():
    both = chain(policy_entropy(), entrob.regularizers.state_entropy())
    a = one_update(both, {"policy_entropy": [0, 0], "state_entropy": [0, 0.5]})
    b = one_update(both, {"policy_entropy": [0, 0.3], "state_entropy": [0, 0]})
    none = one_update(chain(), {})
    for x, y, z in zip(a, b, none):
        assert (x[0] == y[0]).all()
        np.testing.assert_allclose(x[0], z[0], atol=1e-6)
    assert any((x[0] != x[1]).any() for x in a) and any((y[0] != y[1]).any() for y in b)


@pytest.mark.parametrize(
    ("hook", "function", "message"),
    [
        ("loss", lambda *a: jnp.ones(3), "loss must return shape [], got shape [3]"),
        ("loss", lambda *a: "x", "loss must return shape [], got str"),
        ("reward", lambda *a: (jnp.ones(2), ()), "reward must return shape [16, 2], got shape [2]"),
        ("reward", lambda *a: jnp.ones((16, 2)), "reward must return (bonus, state)"),
        ("advantage", lambda *a: jnp.ones(1), "advantage must return shape [16, 2]"),
        (
            "surrogate",
            lambda *a: jnp.ones(1),
            "surrogate must return (weight, clip_low, clip_high)",
        ),
    ],
)
def test_wrong_shapes_are_one_clear_line(hook, function, message):
    with pytest.raises(EntrobError) as error:
        one_update(chain(Regularizer("mine", **{hook: function})), {"mine": [1.0]})
    assert message in str(error.value) and "'mine'" in str(error.value)
    assert "\n" not in str(error.value)


def test_policy_entropys_gradient_is_that_of_finite_differences():
    logits = jax.random.normal(jax.random.PRNGKey(0), (7, 3))

    def loss(logits):
        policy = Policy(Categorical(logits), jnp.zeros(7), None, None)
        return policy_entropy().loss(None, (), policy, None, 0.7)

    direction = jax.random.normal(jax.random.PRNGKey(1), (7, 3))
    h = 1e-2
    slope = (loss(logits + h * direction) - loss(logits - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(jax.grad(loss)(logits) * direction), slope, rtol=1e-2)


def test_schedules_at_their_ends_and_middle():
    at = lambda s: [float(s(jnp.float32(x))) for x in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(at(schedules.constant(2.0)), [2, 2, 2])
    np.testing.assert_allclose(at(schedules.linear()), [1, 0.5, 0])
    np.testing.assert_allclose(at(schedules.cosine(5.0)), [5, 3, 1], atol=1e-6)
    np.testing.assert_allclose(at(schedules.phase(0.25, 0.75)), [0, 1, 0])


def test_a_scheduled_coefficient_is_what_trains():
    off = build("policy_entropy", schedule={"kind": "phase", "begin": 0.5})
    half = build("policy_entropy", schedule={"kind": "constant", "value": 0.5})
    plain = one_update(chain(policy_entropy()), {"policy_entropy": [0.0, 0.1]})
    a = one_update(chain(off), {"policy_entropy": [0.2, 0.2]})
    b = one_update(chain(half), {"policy_entropy": [0.2, 0.2]})
    for x, y, z in zip(plain, a, b):
        np.testing.assert_allclose(y[0], x[0], atol=1e-6)
        np.testing.assert_allclose(z[0], x[1], atol=1e-6)


def test_build_names_what_is_wrong():
    for options, message in [
        ({"alpha": 1}, "unexpected keyword"),
        ({"schedule": {"kind": "square"}}, "schedule kind must be one of"),
        ({"schedule": {"kind": "linear", "middle": 1}}, "unexpected keyword"),
    ]:
        with pytest.raises(EntrobError, match=message):
            build("policy_entropy", **options)
    with pytest.raises(EntrobError, match="did you mean 'policy_entropy'"):
        build("policy_entropi")


def test_chains_are_flat_and_names_are_unique():
    inner = chain(policy_entropy())
    assert chain(inner, entrob.regularizers.state_entropy()).names == (
        "policy_entropy", "state_entropy")  # fmt: skip
    with pytest.raises(EntrobError, match="comes twice"):
        chain(inner, policy_entropy())


@pytest.mark.parametrize("hook", HOOKS)
def test_the_decorator_passes_each_hook_its_arguments_by_name(hook):
    name = f"decorated_{hook}"
    wanted = HOOKS[hook]
    scope = {}
    exec(f"def f({', '.join(reversed(wanted))}): return locals()", scope)
    factory = entrob.regularizer(name, hook=hook, coef=0.5)(scope["f"])
    made = build(name)
    assert made.coef == 0.5 and made.name == name and registry.get(name) is factory
    assert getattr(made, hook)(*wanted) == {w: w for w in wanted}


def test_the_decorator_says_what_was_expected_and_got():
    with pytest.raises(EntrobError, match="unknown hook 'losses'"):
        entrob.regularizer("x1", hook="losses")
    with pytest.raises(EntrobError, match="loss takes key, state, policy, batch, coef; got beta"):
        entrob.regularizer("x2")(lambda policy, beta: 0.0)
    with pytest.raises(EntrobError, match="registered twice"):
        entrob.regularizer("policy_entropy")(lambda coef: 0.0)


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
