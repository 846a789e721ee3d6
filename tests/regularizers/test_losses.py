"""Limits, known values and refusals of the loss terms."""

import functools
import itertools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.distributions import Categorical, TanhNormal
from entrob.errors import EntrobError
from entrob.regularizers import build
from entrob.regularizers.losses import _subset as subset
from entrob.regularizers.losses.epo import History, phase_weight
from entrob.rollout import PolicyOutput

PROBS = np.float32([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])


def policy_of(dist):
    return PolicyOutput(dist, jnp.zeros(2), (), None)


def loss_of(name, dist, batch=None, state=(), coef=1.0, **options):
    """The loss of one policy on a batch, with its regularizer's state as given."""
    return build(name, **options).loss(jax.random.key(0), state, policy_of(dist), batch, coef)


def case_policy(kind="discrete"):
    """A policy on a batch of `cases`: (params -> PolicyOutput, params, batch)."""
    case = cases.make_case(0, kind)
    batch = case.rollout.replace(context=None)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    batch = batch.replace(context=case.rollout.context)
    evaluate = functools.partial(cases.apply, kind)
    return lambda params: PolicyOutput(*evaluate(params, batch.obs), params, evaluate), case, batch


def test_tsallis_is_shannons_at_one_and_finite_where_an_action_is_impossible():
    dist = Categorical(jnp.log(PROBS))
    shannon = loss_of("policy_entropy", dist)
    for q in (0.999, 1, 1.001):
        np.testing.assert_allclose(loss_of("tsallis", dist, q=q), shannon, atol=2e-3)
    np.testing.assert_allclose(loss_of("tsallis", dist), -(1 - (PROBS**2).sum(-1)).mean(), 1e-5)
    normal = TanhNormal(jnp.ones((2, 2)), jnp.zeros((2, 2)) - 1, (-1, -1), (1, 3))
    close = loss_of("policy_entropy", normal)
    np.testing.assert_allclose(loss_of("tsallis", normal, q=1.001), close, atol=1e-2)
    slope = jax.grad(lambda x: loss_of("tsallis", Categorical(x)))(jnp.array([[0.0, -1e4]]))
    np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("dist", [
    Categorical(jnp.log(PROBS)),
    TanhNormal(jnp.ones((2, 1)), jnp.array([[-1.0], [0.3]]), (-1.0,), (3.0,)),
], ids=["discrete", "continuous"])  # fmt: skip
def test_a_policy_is_at_no_distance_from_itself_and_divergences_meet_in_kl(dist):
    itself = lambda obs: dist
    other = lambda obs: jax.tree.map(lambda x: 0.8 * x - 0.1, dist)
    batch = case_policy()[2]
    for name in ("kl", "alpha_divergence"):
        np.testing.assert_allclose(loss_of(name, dist, batch, reference=itself), 0.0, atol=1e-6)
        assert loss_of(name, dist, batch, reference=other) > 1e-3
    for reference in (other, "uniform"):
        kl = loss_of("kl", dist, batch, reference=reference)
        near = loss_of("alpha_divergence", dist, batch, alpha=0.999, reference=reference)
        np.testing.assert_allclose(near, kl, rtol=5e-3)
        exact = loss_of("alpha_divergence", dist, batch, alpha=1, reference=reference)
        np.testing.assert_allclose(exact, kl, rtol=1e-6)


def test_given_probabilities_are_those_of_every_state():
    dist, given = Categorical(jnp.log(PROBS)), (0.2, 0.3, 0.5)
    wanted = (PROBS * np.log(PROBS / np.float32(given))).sum(-1).mean()
    np.testing.assert_allclose(loss_of("kl", dist, reference=list(given)), wanted, rtol=1e-5)
    uniform = loss_of("kl", dist, reference="uniform")
    np.testing.assert_allclose(loss_of("kl", dist, reference=(1 / 3,) * 3), uniform, rtol=1e-4)


@pytest.mark.parametrize("name, options", [
    ("tsallis", {"q": 0}), ("kl", {"reference": "last"}), ("kl", {"reference": [0.5, 0.6]}),
    ("kl", {"reference": [1.0, 0.0]}), ("kl", {"reference": 3}), ("alpha_divergence", {"alpha": 0}),
    ("alpha_divergence", {"reference": "x"}), ("epo", {"penalty": -1}), ("epo", {"band": (1.1, 2)}),
    ("epo", {"horizon": 0}), ("siren", {"nucleus": 0}), ("siren", {"quantile": 1.1}),
    ("spine", {"share": 0}), ("spine", {"band": (0.5, 0.1)}), ("lp_reg", {"threshold": 1}),
    ("lp_reg", {"share": 0}), ("spine", {"pull": -1}), ("aent", {"dropped": 1}),
    ("aent", {"band": (0.5, 0.1)}),
    ("sr2l", {"radius": -1}), ("sr2l", {"steps": 0}), ("sr2l", {"cells": 0}),
    ("value_gradient", {"cells": 0}), ("lrpg", {"begin": 1}), ("lrpg", {"noise": -1}),
])  # fmt: skip
def test_options_out_of_range(name, options):
    with pytest.raises(EntrobError, match=name):
        build(name, **options)


def test_references_that_do_not_fit_the_actions():
    normal = TanhNormal(jnp.ones((2, 1)), jnp.zeros((2, 1)), (-1.0,), (3.0,))
    for dist in (Categorical(jnp.log(PROBS)), normal):
        with pytest.raises(EntrobError, match="kl: 2 probabilities"):
            loss_of("kl", dist, reference=(0.5, 0.5))
    with pytest.raises(EntrobError, match="uniform reference"):
        batch = case_policy()[2]
        loss_of("alpha_divergence", normal, batch, alpha=2, reference=lambda obs: normal)


def test_epos_phases_meet_the_published_ends():
    weights = [float(phase_weight(jnp.float32(x))) for x in (0, 0.4999999, 0.5, 1)]
    np.testing.assert_allclose(weights, [1, 0.8 + 0.2 / np.e**2, 0.8, 0.8 / np.e**3], rtol=1e-5)


def test_epos_released_penalty_costs_but_has_no_gradient():
    learner, case, batch = case_policy()
    history = History(jnp.full(256, 0.5), jnp.ones(256))

    @functools.partial(jax.jit, static_argnums=0)
    def slope(part):
        loss = lambda p: part.loss(None, history, learner(p), batch, 1.0)
        return jax.value_and_grad(loss)(case.params)

    def moved(**options):
        """What the penalty adds to the loss and to its gradient."""
        (loss, gradient), (base, plain) = (
            slope(build("epo", penalty=penalty, **options)) for penalty in (1.0, 0.0)
        )
        changes = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), gradient, plain)
        return float(loss - base), max(jax.tree.leaves(changes))

    assert moved(released=True)[0] > 0.1 and moved(released=True)[1] == 0
    assert moved()[0] > 0.1 and moved()[1] > 1e-3


def test_sirens_released_nucleus_empties_with_few_actions():
    log_probs = jnp.log(PROBS)
    # 0.7 + 0.2 crosses 0.8, and so does 0.9 alone.
    whole = subset.nucleus(log_probs, 0.8)
    np.testing.assert_array_equal(whole, [[True, True, False], [False, False, True]])
    released = subset.nucleus(log_probs, 0.8, crossing=False)
    np.testing.assert_array_equal(released, [[True, False, False], [False, False, False]])
    np.testing.assert_array_equal(subset.entropy(log_probs, released), 0.0)
    kept = np.float32([7, 2]) / 9
    wanted = [-(kept * np.log(kept)).sum(), 0.0]
    np.testing.assert_allclose(subset.entropy(log_probs, whole), wanted, atol=1e-6)


def test_siren_keeps_the_entropy_of_the_first_update():
    part = build("siren")
    case, other = cases.make_case(0), cases.make_case(5)
    first = part.update(None, part.init(None, None, None), case.rollout, {})
    later = part.update(None, first, other.rollout, {})
    assert first.known and later.entropy == first.entropy > 0
    target = part.prepare(later, other.rollout, 1.0)["target"]
    np.testing.assert_array_equal(target, first.entropy)


@pytest.mark.parametrize("name", ["lp_reg", "aent"])
def test_discrete_actions_are_needed(name):
    learner, case, batch = case_policy("continuous")
    with pytest.raises(EntrobError, match=f"{name}: needs discrete actions"):
        build(name).loss(None, (), learner(case.params), batch, 1.0)


def test_spine_chooses_the_top_share_of_every_episode():
    rollout = cases.make_case(2).rollout
    entropy = np.asarray(rollout.dist.entropy())
    for share in (0.2, 0.5, 1.0):
        chosen = np.asarray(build("spine", share=share).prepare((), rollout, 1.0)["chosen"])
        for n in range(cases.ENVS):
            starts = [0, *(np.flatnonzero(rollout.time[1:, n] == 0) + 1), cases.STEPS]
            for begin, end in itertools.pairwise(starts):
                order = np.argsort(-entropy[begin:end, n])
                some = int(np.floor(share * (end - begin - 1) + 1e-6)) + 1
                wanted = np.isin(np.arange(end - begin), order[:some])
                np.testing.assert_array_equal(chosen[begin:end, n], wanted)


def test_lp_reg_pulls_rare_sensible_actions_up_and_leaves_noise_alone():
    acted = jnp.log(jnp.array([[0.6, 0.38, 0.02]] * 3))
    _, _, batch = case_policy()
    batch = jax.tree.map(lambda x: x[:3] if jnp.ndim(x) else x, batch)
    batch = batch.replace(
        dist=Categorical(acted),
        action=jnp.array([1, 2, 1]),  # rare, noise, and rare but good
        advantage=jnp.array([-1.0, -1.0, 1.0]),
        clip_low=jnp.full(3, 0.2),
        clip_high=jnp.full(3, 0.3),
    )
    part = build("lp_reg", threshold=0.1, share=1.0)
    learner = lambda logits: policy_of(Categorical(logits))
    weight, low, high = part.surrogate(None, (), learner(acted), batch, 1.0)
    np.testing.assert_array_equal(weight, 1.0)
    np.testing.assert_array_equal(low, np.float32([np.inf, 0.2, 0.2]))
    np.testing.assert_array_equal(high, np.float32([np.inf, 0.3, 0.3]))
    slope = jax.grad(lambda x: part.loss(None, (), learner(x), batch, 1.0))(acted)
    assert slope[0, 1] < 0 < slope[0, 0]  # descent makes it likelier
    np.testing.assert_array_equal(slope[1:], 0.0)


def lp_protected(acted, now, action, share):
    """Which steps, all bad, have their clip lifted."""
    _, _, batch = case_policy()
    batch = jax.tree.map(lambda x: x[: len(action)] if jnp.ndim(x) else x, batch)
    fill = jnp.ones(len(action))
    batch = batch.replace(
        dist=Categorical(acted), action=jnp.asarray(action), advantage=-fill,
        clip_low=0.2 * fill, clip_high=0.2 * fill, reward=0 * fill, acted=None,
    )  # fmt: skip
    part = build("lp_reg", share=share)
    return np.isinf(part.surrogate(None, (), policy_of(Categorical(now)), batch, 1.0)[1])


def test_lp_reg_never_protects_the_likeliest_action():
    # A state seen many times: one π for all, of which the greedy action's is the lowest quantile.
    logits = jnp.tile(jnp.log(jnp.array([0.96, 0.03, 0.01])), (40, 1))
    assert not lp_protected(logits, 0.9 * logits, np.zeros(40, int), 0.01).any()
    rng = np.random.default_rng(0)
    acted = jnp.asarray(rng.normal(size=(40, 4)), jnp.float32)
    now = acted + 0.3 * jnp.asarray(rng.normal(size=(40, 4)), jnp.float32)
    action = rng.integers(0, 4, 40)
    where = lp_protected(acted, now, action, 1.0)
    best = (action == np.argmax(acted, -1)) | (action == np.argmax(now, -1))
    assert where.any() and best.any() and not (where & best).any()


@pytest.mark.parametrize("share, count", [(0.01, 1), (0.1, 4), (0.5, 20), (1.0, 40)])
def test_lp_reg_counts_its_steps_where_all_are_equally_likely(share, count):
    logits = jnp.tile(jnp.log(jnp.array([0.6, 0.38, 0.02])), (40, 1))
    assert lp_protected(logits, logits, np.ones(40, int), share).sum() == count


def test_spine_becomes_none_as_its_coefficient_vanishes():
    learner, case, batch = case_policy()
    part = build("spine")
    notes = part.prepare(case.initial, case.rollout, 1.0)
    batch = batch.replace(
        notes=jax.tree.map(jnp.ravel, notes),
        clip_low=jnp.full(48, 0.2),
        clip_high=jnp.full(48, 0.2),
    )
    policy, whole = learner(case.params), part.surrogate(None, None, None, batch, 1.0)[0]
    assert (whole == 0).sum() == (~np.ravel(notes["chosen"])).sum() > 24
    for coef in (1e-1, 1e-3, 1e-6):
        weight = part.surrogate(None, None, None, batch, coef)[0]
        np.testing.assert_allclose(weight - 1, coef * (whole - 1), atol=1e-6)
        assert abs(weight - 1).max() <= coef * whole.max()
        loss = part.loss(None, case.initial, policy, batch, coef)
        np.testing.assert_allclose(
            loss, coef * part.loss(None, case.initial, policy, batch, 1.0), rtol=1e-5
        )


def test_a_moving_average_follows_the_policy_and_a_uniform_reference_is_policy_entropy():
    learner, case, batch = case_policy()
    part = build("kl")
    state, metrics = part.init(None, None, case.initial), {"params": case.params}
    far = part.loss(None, state, learner(case.params), batch, 1.0)
    for _ in range(500):
        state = part.update(None, state, case.rollout, metrics)
    near = part.loss(None, state, learner(case.params), batch, 1.0)
    assert far > 1e-3 and abs(near) < 1e-3 * far  # what is left of 0.99^500
    slope = lambda name, **options: jax.grad(
        lambda p: build(name, **options).loss(None, None, learner(p), batch, 1.0)
    )(case.params)
    flat, entropy = slope("kl", reference="uniform"), slope("policy_entropy")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), flat, entropy)
    assert "degenerate" in build("kl", reference="initial").label


def test_aent_is_policy_entropy_with_nothing_dropped_and_zero_of_two_actions():
    dist = Categorical(jnp.log(PROBS))
    whole = loss_of("policy_entropy", dist)
    np.testing.assert_allclose(loss_of("aent", dist, dropped=0), whole, rtol=1e-6)
    two = PROBS[:, :2] + np.float32([[0, 0.1], [0.9, 0]])
    np.testing.assert_array_equal(loss_of("aent", Categorical(jnp.log(two))), 0.0)
    kept = np.array([[7, 2], [1, 18]]) / np.array([[9], [19]])  # of three, one is dropped
    wanted = (kept * np.log(kept)).sum(-1).mean()
    np.testing.assert_allclose(loss_of("aent", dist), wanted, rtol=1e-5)


@pytest.mark.parametrize("band, wanted", [((0.0, 0.0), 0.01), ((1.0, 1.0), 10.0)])
def test_aents_coefficient_follows_the_band_within_its_box(band, wanted):
    part, rollout = build("aent", adaptive=True, band=band, rate=100.0), cases.make_case(0).rollout
    assert part.update(None, part.init(None, None, None), rollout, {}) == np.float32(wanted)
    inside = build("aent", adaptive=True, band=(0.0, 1.0))
    assert inside.update(None, jnp.float32(0.7), rollout, {}) == np.float32(0.7)
