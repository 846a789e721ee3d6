"""Off means off to the last bit, what goes wrong is named, and chains compose."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.agents.actor_critic import AGENT
from entrob.distributions import Categorical
from entrob.errors import EntrobError
from entrob.regularizers import Regularizer, chain, policy_entropy, schedules
from entrob.regularizers.chaining import faults
from entrob.regularizers.guards import FAULTS, Guarded
from entrob.rollout import PolicyOutput

ENTROPY = policy_entropy()  # one object, so that programs are shared
WATCHED = tuple(fault for fault in FAULTS if fault != "gradient")
MEDDLING = tuple(hook for hook in WATCHED if hook != "update")


def meddler(*hooks) -> Regularizer:
    """These hooks meddle with training as much as the regularizer's state says."""

    def init(key, spec, params):
        return jnp.float32(1.0)

    def behavior(state, dist, coef):
        return Categorical(dist.logits * state)

    def reward(key, state, rollout, coef):
        return state * (1 + rollout.time), state

    def advantage(state, rollout, coef):
        return rollout.advantage * state, rollout.target + state

    def surrogate(key, state, policy, batch, coef):
        weight = jnp.sqrt(state * jnp.abs(policy.value))  # at 0 its derivative is not finite
        return weight, 0 * batch.reward, 0 * batch.reward + state

    def loss(key, state, policy, batch, coef):
        elsewhere = policy.at(batch.obs + 1)
        return jnp.sqrt(state * (policy.logits**2).mean()) + state * elsewhere.value.mean()

    hooks_of = {"behavior": behavior, "reward": reward, "advantage": advantage}
    made = Regularizer("meddler", init, surrogate=surrogate, loss=loss, **hooks_of)
    return made._replace(**{hook: None for hook in MEDDLING if hook not in hooks})


def same_bits(tree, i, j):
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return all(x[i].tobytes() == x[j].tobytes() for x in leaves)


# In A2C that zero is none to the last bit: `test_protocol.py`.
@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("a2c", marks=pytest.mark.slow)])
def test_switched_off_is_bit_identical_to_doing_nothing(train, algorithm):
    # One program; the states say to do nothing, to meddle in earnest, and to spoil everything.
    state, curves = train(
        [ENTROPY, meddler(*MEDDLING)],
        {"policy_entropy": [0.01] * 3, "meddler": [0.0] * 3},
        states={"meddler": jnp.array([0.0, 50.0, jnp.nan])},
        algorithm=algorithm,
    )
    assert state.diverged_at.tolist() == [-1] * 3
    kept = (state.replace(regularizers={}), curves)
    assert same_bits(kept, 0, 1) and same_bits(kept, 0, 2)


def test_switched_on_every_hook_matters(train):
    parts = [meddler(hook)._replace(name=hook) for hook in MEDDLING]
    coefs = {hook: [0.0, *row] for hook, row in zip(MEDDLING, np.eye(len(MEDDLING)))}
    states = {hook: jnp.full(len(MEDDLING) + 1, 3.0) for hook in MEDDLING}
    state, _ = train(parts, coefs, states=states, algorithm="ppo")
    assert state.diverged_at.tolist() == [-1] * (len(MEDDLING) + 1)
    for run, hook in enumerate(MEDDLING, 1):
        assert not same_bits(state.network, 0, run), hook


def root_loss(key, state, policy, batch, coef):
    return coef * jnp.sqrt(0 * policy.value).mean()


def root_surrogate(key, state, policy, batch, coef):
    fill = jnp.ones_like(batch.reward)
    return 1 + coef * jnp.sqrt(0 * policy.value), 0.2 * fill, 0.2 * fill


ROOT = Regularizer("root", loss=root_loss)


def test_a_gradient_that_is_nan_does_no_harm_while_off(train):
    # Finite values, whose derivative is 0 · inf.
    parts = [ENTROPY, ROOT, Regularizer("weighted", surrogate=root_surrogate)]
    names = [part.name for part in parts]
    coefs = dict(zip(names, [[0.01] * 3, [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    state, _ = train(parts, coefs)
    alone, _ = train([ENTROPY], {"policy_entropy": [0.01]})
    assert state.diverged_at.tolist() == [-1, 0, 0]  # switched on it does harm, and is named
    named = [faults(names)[cause - 2] for cause in state.cause[1:]]
    assert named == ["root: gradient", "weighted: gradient"]
    first = jax.tree.map(lambda x: x[:1], state.network)
    chex.assert_trees_all_close(first, alone.network, atol=1e-6)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda reward: (reward,), r"advantage must return advantage\[T, N\] or"),
        (lambda reward: (reward,) * 3, r"advantage must return advantage\[T, N\] or"),
        (lambda reward: (reward, 1.0), r"shape \[12, 4\], got shape \[\]"),
        (lambda reward: None, r"shape \[12, 4\], got NoneType"),
    ],
)
def test_wrong_advantages_are_named_in_one_line(make_rollout, returned, message):
    part = chain(
        Regularizer("odd", advantage=lambda state, rollout, coef: returned(rollout.reward))
    )
    with pytest.raises(EntrobError, match=message) as error:
        part.advantage({"odd": Guarded()}, make_rollout(0), {"odd": 1.0})
    assert "'odd'" in str(error.value) and "\n" not in str(error.value)


def test_only_the_one_that_did_it_is_blamed(make_rollout):
    key = jax.random.PRNGKey(0)

    def reward(key, state, rollout, coef):
        return (rollout.reward / 0 if state == "ill" else rollout.reward), state

    def advantage(state, rollout, coef):
        return rollout.advantage, (rollout.target / 0 if state == "ill" else rollout.target)

    names = ("good", "guilty", "after", "off")
    part = chain(*(Regularizer(name, reward=reward, advantage=advantage) for name in names))
    inner = {"good": "well", "guilty": "ill", "after": "well", "off": "ill"}
    states = {name: Guarded(own) for name, own in inner.items()}
    coefs = {"good": 1.0, "guilty": 1.0, "after": 1.0, "off": 0.0}
    for hook, (_, after) in {
        "reward": part.reward(key, states, make_rollout(0), coefs),
        "advantage": part.advantage(states, make_rollout(0), coefs),
    }.items():
        caught = {name: int(state.fault) for name, state in after.items()}
        assert caught == {**dict.fromkeys(names, 0), "guilty": 1 + FAULTS.index(hook)}
        assert faults(names)[part.fault(after) - 1] == f"guilty: {hook}"
    assert part.fault(states) == 0


def test_bonuses_add_up_and_states_stay_apart(make_rollout):
    rollout, key = make_rollout(0), jax.random.PRNGKey(0)

    def counting(name):
        return Regularizer(
            name,
            init=lambda key, spec, params: 0,
            reward=lambda key, state, rollout, coef: (coef * rollout.reward, state + 1),
            update=lambda key, state, rollout, metrics: state + metrics["step"],
        )

    part = chain(counting("a"), counting("b"))
    states = {**part.init(key, None, None), "b": Guarded(5)}
    total, states = part.reward(key, states, rollout, {"a": 2.0, "b": 0.5})
    np.testing.assert_allclose(total, 2.5 * rollout.reward, rtol=1e-6)
    states = part.update(key, states, rollout, {"step": 10}, {"a": 2.0, "b": 0.5})
    assert {name: state.inner for name, state in states.items()} == {"a": 11, "b": 16}
    assert part.fault(states) == 0


def test_weights_multiply_and_the_last_clip_range_holds(make_rollout):
    def fixed(name, *values):
        def surrogate(key, state, policy, batch, coef):
            return tuple(jnp.full(batch.reward.shape, v) for v in values)

        return Regularizer(name, surrogate=surrogate)

    part = chain(fixed("a", 2.0, 0.1, 0.3), fixed("b", 3.0, 0.2, 0.4), fixed("off", 9.0, 9.0, 9.0))
    states = dict.fromkeys(part.names, Guarded())
    policy = PolicyOutput(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), None)
    for coefs, wanted in [((1.0, 1.0, 0.0), [6.0, 0.2, 0.4]), ((0.0, 0.0, 0.0), [1.0, 0.5, 0.5])]:
        named = dict(zip(part.names, coefs))
        key, batch = jax.random.PRNGKey(0), make_rollout(0)
        out, _ = part.surrogate(key, states, policy, batch, named, 0.5)
        assert [float(x.mean()) for x in out] == pytest.approx(wanted)


def test_a_surrogate_sees_the_clip_range_so_far(make_rollout):
    def double(key, state, policy, batch, coef):
        return 0 * batch.reward + 1, batch.clip_low, 2 * batch.clip_high

    part = chain(*(Regularizer(name, surrogate=double) for name in ("a", "off", "b")))
    policy, coefs = PolicyOutput(*[jnp.zeros(())] * 3, None), {"a": 1.0, "off": 0.0, "b": 1.0}
    states = dict.fromkeys(part.names, Guarded())
    out, _ = part.surrogate(jax.random.PRNGKey(0), states, policy, make_rollout(0), coefs, 0.5)
    assert [float(x.mean()) for x in out] == pytest.approx([1.0, 0.5, 2.0])


def noise_loss(key, state, policy, batch, coef):
    return coef * jax.random.normal(key)


def coef_loss(key, state, policy, batch, coef):
    return coef


#: Two of either kind, in one program.
NOISES = [Regularizer(name, loss=noise_loss) for name in "ab"]
SCHEDULED = [
    Regularizer("fade", loss=coef_loss, schedule=schedules.linear(2.0, 0.0)),
    Regularizer(
        "gap",
        loss=coef_loss,
        schedule=lambda p: schedules.phase(0.0, 0.25)(p) + schedules.phase(0.75)(p),
    ),
]


def losses_of(train, coefs):
    """The regularizers' loss in each of four updates of two runs, [2, 4]."""
    parts = [*NOISES, *SCHEDULED]
    coefs = {part.name: coefs.get(part.name, [0.0, 0.0]) for part in parts}
    return train(parts, coefs, updates=4, hyper={"total_updates": 4})[1]["regularizer_loss"]


def test_parts_and_updates_have_keys_of_their_own(train):
    assert len(np.unique(losses_of(train, {"a": [1.0, 0.0], "b": [0.0, 1.0]}))) == 8


def test_a_schedule_runs_over_the_whole_training(train):
    wanted = [[2.0, 1.5, 1.0, 0.5], [0.5, 0.0, 0.0, 0.5]]
    found = losses_of(train, {"fade": [1.0, 0.0], "gap": [0.0, 0.5]})
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def broken() -> Regularizer:
    """The hook of `WATCHED` whose number its state is, returns NaN; -1 is none."""
    spoil = lambda state, hook: jnp.where(state == WATCHED.index(hook), jnp.nan, 0.0)

    def surrogate(key, state, policy, batch, coef):
        bad = spoil(state, "surrogate")
        return 1 + 0 * batch.reward + bad, batch.clip_low + bad, batch.clip_high + bad

    hooks = {
        "behavior": lambda state, dist, coef: Categorical(dist.logits + spoil(state, "behavior")),
        "reward": lambda key, state, rollout, coef: (
            0 * rollout.reward + spoil(state, "reward"), state
        ),
        "advantage": lambda state, rollout, coef: rollout.advantage + spoil(state, "advantage"),
        "surrogate": surrogate,
        "loss": lambda key, state, policy, batch, coef: (
            0 * policy.value.mean() + spoil(state, "loss")
        ),
        "update": lambda key, state, rollout, metrics: state + spoil(state, "update"),
    }  # fmt: skip
    assert set(hooks) == set(WATCHED)
    return Regularizer("broken", lambda *args: jnp.float32(-1.0), **hooks)


def test_the_hook_that_returned_nan_is_named(train):
    """One run each, and one whose hooks all work."""
    parts, width = [ENTROPY, broken()], 1 + len(WATCHED)
    coefs = {"policy_entropy": [0.1] * width, "broken": [1.0] * width}
    states = {"broken": jnp.arange(-1.0, len(WATCHED))}
    state, _ = train(parts, coefs, states=states, algorithm="ppo")
    assert state.diverged_at.tolist() == [-1] + [0] * len(WATCHED)
    named = [faults(chain(*parts).names)[cause - 2] for cause in state.cause[1:]]
    assert named == [f"broken: {hook}" for hook in WATCHED]


def test_the_first_minibatchs_fault_is_the_one_that_is_named(train):
    """After it the network is NaN, and so is what everybody else returns."""
    late = Regularizer("late", loss=lambda key, state, policy, batch, coef: policy.value.mean())
    coefs = {"late": [0.1], "root": [1.0]}
    state, _ = train([late, ROOT], coefs, algorithm="ppo")
    assert faults(("late", "root"))[state.cause[0] - 2] == "root: gradient"


@pytest.mark.slow  # what is blamed is the same
def test_weights_that_overflow_are_no_regularizers_fault(train):
    """In PPO; in A2C: `agents/test_actor_critic.py`."""
    hyper, coefs = {"learning_rate": jnp.inf}, {"policy_entropy": [0.1]}
    state, _ = train([ENTROPY], coefs, hyper=hyper, algorithm="ppo")
    assert state.diverged_at[0] == 0 and state.cause[0] == AGENT


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_notes_go_with_their_steps(train, algorithm):
    def prepare(state, rollout, coef):
        return {"same": rollout.reward + rollout.advantage, "obs": rollout.obs}

    def loss(key, state, policy, batch, coef):
        expected = batch.reward + state * batch.advantage
        moved = jnp.abs(batch.notes["same"] - expected).max()
        return coef * (moved + jnp.abs(batch.notes["obs"] * 1.0 - batch.obs).max())

    # PPO standardizes a minibatch's advantages before the hooks see them, so its notes differ.
    part = Regularizer("notes", lambda *args: jnp.float32(1.0), prepare=prepare, loss=loss)
    _, curves = train([part], {"notes": [1.0]}, algorithm=algorithm)
    assert (curves["regularizer_loss"] < 1e-5).all() == (algorithm == "a2c")


def test_notes_of_another_shape_are_named(make_rollout):
    part = chain(Regularizer("short", prepare=lambda state, rollout, coef: rollout.reward[0]))
    with pytest.raises(EntrobError, match=r"'short': prepare .* \[12, 4, '...'\], got \[4\]"):
        part.prepare({"short": Guarded()}, make_rollout(0), {"short": 1.0})


@pytest.mark.parametrize("hook", ["reward", "update"])
def test_a_state_that_changes_shape_is_named(make_rollout, hook):
    grow = {
        "reward": lambda key, state, rollout, coef: (rollout.reward, jnp.append(state, 1.0)),
        "update": lambda key, state, rollout, metrics: jnp.append(state, 1.0),
    }
    part = chain(Regularizer("grows", **{hook: grow[hook]}))
    args = (
        jax.random.PRNGKey(0),
        {"grows": Guarded(jnp.zeros(2))},
        make_rollout(0),
        {"grows": 1.0},
    )
    with pytest.raises(EntrobError, match=rf"'grows': {hook} .*float32\[2\], got float32\[3\]"):
        getattr(part, hook)(*args[:3], *([{}] if hook == "update" else []), args[3])


def test_a_hook_with_other_arguments_is_named():
    with pytest.raises(EntrobError, match=r"loss takes \(key, state, policy, batch, coef\), got"):
        chain(Regularizer("wrong", loss=lambda policy, coef: 0.0))
    with pytest.raises(EntrobError, match=r"init takes .*got no function but float"):
        chain(Regularizer("wrong", init=1.0))
