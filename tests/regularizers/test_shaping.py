"""What reshaping does in cases that can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.distributions import Categorical, TanhNormal
from entrob.errors import EntrobError
from entrob.regularizers import build, chain
from entrob.regularizers.guards import Guarded
from entrob.rollout import PolicyOutput

STEPS, ENVS = 6, 3


def rollout_of(make_rollout, entropy_scale=1.0, ends=()):
    """A rollout cut to 6 steps in 3 environments, with episodes that end at the given (t, n)."""
    rollout = make_rollout(0)
    # The mean of this one is 0 and its spread 1.
    advantage = jnp.resize(jnp.array([-1.0, 1.0]), (STEPS, ENVS))
    done = np.zeros((STEPS, ENVS), bool)
    for where in ends:
        done[where] = True
    cut = jax.tree.map(lambda x: x[:STEPS, :ENVS] if jnp.ndim(x) > 1 else x, rollout)
    none = jnp.zeros((STEPS, ENVS), bool)
    return cut.replace(
        advantage=advantage,
        terminated=jnp.asarray(done),
        truncated=none,
        success=none,
        dist=Categorical(entropy_scale * cut.dist.logits),
    )


def surrogate(name, batch, dist, coef=None, clip=0.2, **options):
    """(weight, low, high) of a regularizer alone."""
    part = build(name, **options)
    policy, key = PolicyOutput(dist, batch.value, None, None), jax.random.key(0)
    coefs = {name: part.coef if coef is None else coef}
    return chain(part).surrogate(key, {name: Guarded()}, policy, batch, coefs, clip)[0]


def batch_of(make_rollout, log_ratio=0.0, **changes):
    """A minibatch of 18 steps, all with this log-ratio, and the present policy."""
    batch = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]) if jnp.ndim(x) > 1 else x, rollout_of(make_rollout)
    )
    dist = batch.dist
    return batch.replace(log_prob=dist.log_prob(batch.action) - log_ratio, **changes), dist


@pytest.mark.parametrize("coef, count", [(1e-6, 1), (0.2, 3), (1.0, 9)])
def test_clip_cov_drops_its_share_of_the_eligible(make_rollout, coef, count):
    batch, dist = batch_of(make_rollout)
    weight, _, _ = surrogate("clip_cov", batch, dist, coef, bounds=(0.5, 1.0))
    assert (weight == 0).sum() == count and (weight == 1).sum() == 18 - count


def test_clip_cov_spares_what_is_clipped_already_and_keeps_the_range(make_rollout):
    batch, dist = batch_of(make_rollout, log_ratio=0.5)
    weight, low, high = surrogate("clip_cov", batch, dist, 1.0, bounds=(0.0, 1.0), clip=0.3)
    assert (weight[batch.advantage > 0] == 1).all() and (weight == 0).any()
    assert (low == np.float32(0.3)).all() and (high == np.float32(0.3)).all()
    assert build("clip_cov", bounds=(1.0, 5.0), absolute=True).label == "faithful"


def test_steer_weighs_the_greatest_change_least(make_rollout):
    batch, dist = batch_of(make_rollout)
    weight, _, _ = surrogate("steer", batch, dist, 0.2)
    assert float(weight.min()) == pytest.approx(0.8) and float(weight.max()) <= 1
    # A uniform policy's log π + H is 0: nothing changes its entropy to first order.
    flat, uniform = batch_of(make_rollout, dist=None)[0], Categorical(jnp.zeros((18, 3)))
    flat = flat.replace(log_prob=uniform.log_prob(flat.action))
    np.testing.assert_allclose(surrogate("steer", flat, uniform, 0.2)[0], 1.0, atol=1e-5)


def test_steers_change_is_that_of_the_entropy(make_rollout):
    batch, dist = batch_of(make_rollout, log_ratio=0.1)
    p = np.asarray(dist.probs, float)
    own = np.eye(3)[batch.action]
    moved = np.log(p) + 1e-4 * own * (
        np.asarray(batch.advantage) / np.exp(batch.log_prob) * (1 - (own * p).sum(-1))
    ).reshape(-1, 1)
    q = np.exp(moved) / np.exp(moved).sum(-1, keepdims=True)
    change = np.abs((q * np.log(q)).sum(-1) - (p * np.log(p)).sum(-1))
    weight, _, _ = surrogate("steer", batch, dist, 0.2)
    np.testing.assert_allclose(weight, 0.8 ** (change / change.max()), rtol=1e-3)


def test_empg_centers_and_pays_for_clear_views(make_rollout):
    part = build("empg", sharpness=0.0, bonus=0.5)
    rollout = rollout_of(make_rollout, ends=[(1, 0), (4, 2)])
    paid = part.advantage((), rollout, 1.0) - rollout.advantage
    assert float(paid.mean()) == pytest.approx(0, abs=1e-6)
    unpaid = [(1, 0), (4, 2), *((STEPS - 1, n) for n in range(ENVS))]
    least = np.zeros((STEPS, ENVS), bool)
    least[tuple(zip(*unpaid))] = True
    np.testing.assert_allclose(paid[least], paid.min(), atol=1e-6)
    assert (paid[~least] > paid.min() + 0.1).all()


@pytest.mark.parametrize("name", ["empg", "ear", "aepo"])
def test_advantages_in_other_units_are_shaped_alike(make_rollout, name):
    part, rollout = build(name), rollout_of(make_rollout, ends=[(1, 0), (4, 2)])
    rollout = rollout.replace(success=rollout.terminated)
    state = jnp.float32(1.2)
    shaped = part.advantage(state, rollout, 1.0)
    thousand = part.advantage(state, rollout.replace(advantage=1000 * rollout.advantage), 1.0)
    np.testing.assert_allclose(thousand, 1000 * shaped, rtol=1e-4, atol=1e-2)
    assert not np.allclose(shaped, rollout.advantage, atol=1e-3)


@pytest.mark.parametrize("name", ["empg", "ear"])
def test_equal_entropies_leave_advantages_alone(make_rollout, name):
    part, rollout = build(name), rollout_of(make_rollout, entropy_scale=0.0, ends=[(2, 1)])
    options = {"bonus": 0.0} if name == "empg" else {}
    part = build(name, **options)
    np.testing.assert_allclose(part.advantage((), rollout, 1.0), rollout.advantage, atol=1e-5)


def test_ear_turns_to_episodes_in_which_the_policy_was_sure(make_rollout):
    rollout = rollout_of(make_rollout, ends=[(2, n) for n in range(ENVS)])
    # Sure in the first pieces, not at all in the second.
    sharp = jnp.where(jnp.arange(STEPS) < 3, 50.0, 0.0)[:, None, None]
    rollout = rollout.replace(dist=Categorical(jnp.zeros((STEPS, ENVS, 3)).at[..., :1].add(sharp)))
    factor = build("ear").advantage((), rollout, 1.0) / rollout.advantage
    np.testing.assert_allclose(factor[:3], 2.0, atol=1e-5)
    np.testing.assert_allclose(factor[3:], 0.0, atol=1e-5)


def test_hapos_places_reach_from_minus_one_to_one(make_rollout):
    part, rollout = build("hapo"), rollout_of(make_rollout)
    # Before the first rollout all temperatures are 1, then the least sure is the hottest.
    state = part.init(None, None, None)
    plain = part.behavior(state, rollout.dist, 1.0).logits
    np.testing.assert_allclose(plain, rollout.dist.logits)
    state = part.update(None, state, rollout, {})
    heat = (rollout.dist.logits / part.behavior(state, rollout.dist, 1.0).logits)[..., 0]
    place = (heat.ravel() - 1) / 0.05
    order = np.argsort(rollout.dist.entropy().ravel())
    assert (np.diff(place[order]) > -1e-5).all()
    np.testing.assert_allclose([place.min(), place.max()], [-1, 1], atol=1e-4)
    assert np.mean(place > 0) == pytest.approx(0.2, abs=0.06)
    # The same places widen the clip range of the same policy.
    batch, dist = batch_of(make_rollout)
    _, low, high = surrogate("hapo", batch, dist, 1.0)
    np.testing.assert_allclose((high - low) / 0.2, place, atol=1e-4)


def test_hapo_weighs_by_place_and_ratio(make_rollout):
    for log_ratio, outside in [(0.0, False), (0.5, True), (0.15, True), (0.05, False)]:
        batch, dist = batch_of(make_rollout, log_ratio)
        weight, low, high = surrogate("hapo", batch, dist, 0.5)
        place = (high - low) / 0.1  # as these are 0.2 (1 - h) and 0.2 (1 + h), h = 0.5 place
        counts = (place > 0) if outside else (place <= 0)
        np.testing.assert_allclose(weight, np.where(counts, 1 + 0.5 * place, 1.0), rtol=1e-5)
        assert (weight > 1).any() == outside and (weight < 1).any() != outside


def test_agentic_aepo_keeps_the_gradient_of_clipped_steps(make_rollout):
    batch, dist = batch_of(make_rollout, log_ratio=0.5)  # far above the clip range

    def gain(logits, coef):
        now = Categorical(logits)
        _, low, high = surrogate("agentic_aepo", batch, now, coef)
        ratio = jnp.exp(now.log_prob(batch.action) - batch.log_prob)
        return jnp.minimum(ratio, jnp.clip(ratio, 1 - low, 1 + high)).sum()

    score = jax.grad(lambda logits: Categorical(logits).log_prob(batch.action).sum())(dist.logits)
    for coef, kept in [(1e-6, 5e-6), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)]:
        assert float(gain(dist.logits, coef)) == pytest.approx(1.2 * 18, rel=1e-5)
        slope = jax.grad(gain)(dist.logits, coef)
        np.testing.assert_allclose(slope, 1.2 * kept * score, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("names", [("kl_cov", "hapo", "agentic_aepo"), ("hapo", "clip_cov")])
def test_those_that_reshape_the_clip_range_compose(make_rollout, names):
    options = {"kl_cov": {"clipped": False}}
    build_ = lambda name: build(name, **options.get(name, {}))
    batch, dist = batch_of(make_rollout, log_ratio=0.3)
    batch = batch.replace(notes={})
    part, coefs = chain(*map(build_, names)), {name: build(name).coef for name in names}

    def gain(logits):
        policy = PolicyOutput(Categorical(logits), batch.value, None, None)
        states = dict.fromkeys(names, Guarded())
        out, states = part.surrogate(jax.random.key(0), states, policy, batch, coefs, 0.2)
        weight, low, high = out
        ratio = jnp.exp(policy.dist.log_prob(batch.action) - batch.log_prob)
        clipped = jnp.clip(ratio, 1 - low, 1 + high) * batch.advantage
        return jnp.sum(weight * jnp.minimum(ratio * batch.advantage, clipped)), (
            low,
            high,
            part.fault(states),
        )

    gradient, (low, high, fault) = jax.grad(gain, has_aux=True)(dist.logits)
    assert jnp.isfinite(gradient).all() and fault == 0
    if names[0] == "kl_cov":  # what is free stays free
        assert (low > 1e5).all() and (high > 1e5).all()
    else:  # what HAPO widened stays wide
        assert (low > 0.21).any() and (high > 0.21).any()


@pytest.mark.parametrize("coef, count", [(1e-6, 1), (0.2, 3), (0.5, 9), (0.99, 17)])
def test_kl_cov_holds_back_more_steps_the_larger_its_coefficient(make_rollout, coef, count):
    batch, dist = batch_of(make_rollout, log_ratio=0.5)
    part = build("kl_cov", weight=2.0)
    loss = part.loss(None, (), PolicyOutput(dist, batch.value, None, None), batch, coef)
    assert float(loss) == pytest.approx(2.0 * count * 0.5 / 18, rel=1e-5)
    assert part.distinct(coef, 18) == count
    assert part.surrogate is None
    weight, low, high = surrogate("kl_cov", batch, dist, clipped=False)
    assert (weight == 1).all() and np.isinf(low).all() and np.isinf(high).all()


def test_a_density_far_above_one_weighs_like_any_other(make_rollout):
    batch, _ = batch_of(make_rollout)
    raw = jax.random.normal(jax.random.key(1), (18, 2))
    for size in (1.0, 1e-3):  # the same policy in other units
        dist = TanhNormal(jnp.zeros((18, 2)), jnp.zeros((18, 2)) - 1, (-size,) * 2, (size,) * 2)
        own = batch.replace(action=raw, log_prob=dist.log_prob(raw))
        weight, _, _ = surrogate("steer", own, dist)
        if size == 1.0:
            first = weight
    np.testing.assert_allclose(weight, first, rtol=1e-3)
    assert float(first.min()) == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize(
    "name, options",
    [
        ("clip_cov", {"bounds": (0.9, 0.1)}),
        ("clip_cov", {"bounds": (1.0, 5.0)}),
        ("kl_cov", {"weight": 0.0}),
        ("empg", {"bonus": -1.0}),
        ("hapo", {"quantile": 1.0}),
        ("self_imitation", {"warmup": 2.0}),
        ("self_imitation", {"capacity": 0}),
        ("self_imitation", {"bounds": (0.5, 0.5)}),
    ],
)
def test_options_out_of_range_are_one_clear_line(name, options):
    with pytest.raises(EntrobError, match=name) as error:
        build(name, **options)
    assert "\n" not in str(error.value)
