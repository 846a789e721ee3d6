"""The short way in: decorate, load and build regularizers by name."""

import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

import entrob
from entrob import regularizers as r
from entrob.errors import EntrobError
from entrob.registry import Registry


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    fresh = Registry("regularizer")
    fresh.register("policy_entropy", r.policy_entropy)
    fresh.register("state_entropy", r.state_entropy)
    monkeypatch.setattr(r, "regularizers", fresh)
    return fresh


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Function that writes an importable module and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


def one_line(error, *parts):
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_the_example_of_the_docstring_trains(train, registry):
    example = textwrap.dedent(r.__doc__.split("::\n\n", 1)[1])
    assert 0 < len(example.strip().splitlines()) <= 15
    exec(example, {"entrob": entrob})
    state, curves = train([r.build("l2_logits")], {"l2_logits": [0.0, 1e-3, 1.0]})
    used = np.asarray(curves["regularizer_loss"])
    assert (used[0] == 0).all() and (used[1:, 1] > 0).all()
    assert state.diverged_at.tolist() == [-1, -1, -1]
    norm = np.linalg.norm(np.asarray(state.network["params"]["Dense_0"]["kernel"]), axis=(1, 2))
    assert norm[2] < norm[0]


@pytest.mark.parametrize("hook", r.HOOKS)
def test_every_hook_takes_its_arguments_by_name_in_any_order(hook):
    arguments = r.HOOKS[hook]
    scope = {}
    # The last argument and the first, the other way round.
    exec(f"def f({arguments[-1]}, {arguments[0]}): return ({arguments[-1]}, {arguments[0]})", scope)
    factory = entrob.regularizer("mine", coef=0.5, hook=hook, source="a paper")(scope["f"])
    made = r.build("mine")
    assert factory() == made._replace(**{hook: getattr(factory(), hook)})
    assert (made.name, made.coef, made.source) == ("mine", 0.5, "a paper")
    assert [h for h in r.HOOKS if getattr(made, h)] == [hook]
    assert getattr(made, hook)(*range(len(arguments))) == (len(arguments) - 1, 0)


def test_the_decorator_keeps_the_docstring():
    @entrob.regularizer("mine")
    def mine(coef):
        """What it is."""

    assert mine.__doc__ == "What it is." and mine.__name__ == "mine"


def test_what_cannot_be_decorated(registry):
    with pytest.raises(EntrobError) as error:
        entrob.regularizer("mine", hook="bonus")
    one_line(error, "'mine'", "'bonus'", *r.HOOKS)
    with pytest.raises(EntrobError) as error:
        entrob.regularizer("mine")(lambda policy, rollout: 0.0)
    one_line(error, "'mine'", "loss takes key, state, policy, batch, coef", "got rollout")
    assert registry.names() == ["policy_entropy", "state_entropy"]
    with pytest.raises(EntrobError) as error:
        entrob.regularizer("state_entropy")(lambda policy: 0.0)
    one_line(error, "'state_entropy'", "twice")


DECORATED = """
    import entrob

    @entrob.regularizer("from_a_module", coef=0.25)
    def mine(policy, coef):
        return coef * policy.value.mean()
"""


def test_a_decorated_function_is_loaded_from_its_module(module):
    name = module("with_a_function", DECORATED)
    assert r.load(f"{name}:mine") == r.load(f"{name}:mine") == "from_a_module"
    assert r.build("from_a_module").coef == 0.25


def test_a_factory_and_a_regularizer_are_loaded(module):
    text = """
        from entrob import Regularizer

        def made(schedule=None):
            return Regularizer("from_a_factory", schedule=schedule, coef=2.0)

        ready = Regularizer("ready_made", coef=3.0)
    """
    name = module("with_a_factory", text)
    for attribute, known, coef in [("made", "from_a_factory", 2.0), ("ready", "ready_made", 3.0)]:
        for _ in range(2):  # a second time it is there already
            assert r.load(f"{name}:{attribute}") == known
        assert r.build(known).coef == coef
    schedule = r.build("from_a_factory", schedule={"kind": "linear"}).schedule
    assert float(schedule(jnp.float32(0.25))) == 0.75


def test_a_registered_name_loads_as_itself():
    assert r.load("policy_entropy") == "policy_entropy"
    with pytest.raises(EntrobError) as error:
        r.load("policy_entropi")
    one_line(error, "did you mean 'policy_entropy'?")


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        (None, "no_such_module:mine", "does not import (ModuleNotFoundError"),
        (None, ":mine", "does not import"),
        ("1 / 0", "{}:mine", "does not import (ZeroDivisionError"),
        ("def broken(:", "{}:mine", "does not import (SyntaxError"),
        ("x = 1", "{}:mine", "has no 'mine'"),
        ("x = 1", "{}:", "has no ''"),
        ("mine = 1", "{}:mine", "neither decorated nor a Regularizer"),
        ("def mine(policy, batch, coef): return coef", "{}:mine", "neither decorated"),
        ("def mine(): return 1", "{}:mine", "neither decorated nor a Regularizer"),
        ("def mine(): return 1 / 0", "{}:mine", "ZeroDivisionError"),
        (DECORATED.replace("coef)", "koef)"), "{}:mine", "got koef"),
        (DECORATED.replace("from_a_module", "policy_entropy"), "{}:mine", "registered twice"),
    ],
)
def test_what_cannot_be_loaded(module, text, reference, said, request):
    name = module(f"bad_{request.node.callspec.indices['text']}", text or "")
    with pytest.raises(EntrobError) as error:
        r.load(reference.format(name))
    one_line(error, said)


def test_a_schedule_as_in_an_experiment_file():
    made = r.build("state_entropy", k=3, schedule={"kind": "cosine", "start": 5.0})
    assert float(made.schedule(jnp.float32(0.5))) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("state_entropi", {}, "did you mean 'state_entropy'?"),
        ("policy_entropy", {"k": 5}, "'k'"),
        ("state_entropy", {"neighbours": 5}, "'neighbours'"),
        ("state_entropy", {"k": "five"}, "state_entropy"),
        ("state_entropy", {"schedule": {"kind": "step"}}, "constant, linear, cosine, phase"),
        ("state_entropy", {"schedule": {}}, "constant, linear, cosine, phase"),
        ("state_entropy", {"schedule": {"kind": "cosine"}}, "start"),
        ("state_entropy", {"schedule": {"kind": "linear", "stop": 1}}, "'stop'"),
        ("state_entropy", {"schedule": "cosine"}, "schedule"),
    ],
)
def test_what_cannot_be_built(name, options, said):
    with pytest.raises(EntrobError) as error:
        r.build(name, **options)
    one_line(error, said)


def test_a_factory_must_make_a_regularizer(registry):
    registry.register("odd", lambda: 3)
    with pytest.raises(EntrobError) as error:
        r.build("odd")
    one_line(error, "'odd'", "Regularizer")
