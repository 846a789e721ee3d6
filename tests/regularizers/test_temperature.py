"""Adaptive coefficients move the right way, and temperatures pull entropy to its target."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.distributions import Categorical, TanhNormal
from entrob.errors import EntrobError
from entrob.regularizers import build
from entrob.rollout import PolicyOutput

SPEC = SimpleNamespace(num_envs=4, epochs=4, minibatches=5)


def repeated(part, state, rollout, times, coef=1.0):
    """The state after so many equal updates."""
    metrics = {"coef": jnp.float32(coef)}
    body = lambda state, _: (part.update(None, state, rollout, metrics), None)
    return jax.jit(lambda s: jax.lax.scan(body, s, None, length=times)[0])(state)


def with_logits(rollout, scale):
    return rollout.replace(dist=Categorical(scale * rollout.dist.logits))


@pytest.mark.parametrize("share, sign", [(0.2, -1), (0.98, 1)])
def test_the_temperature_rises_below_the_target_and_falls_above(make_rollout, share, sign):
    part, rollout = build("sac_temperature"), make_rollout(0)
    assert 0.2 < rollout.dist.entropy_share().mean() < 0.98
    begun = part.init(None, SPEC, None)
    state = repeated(part, begun, rollout, 20, share)
    # Adam's steps on a slope that keeps its sign are about as long as the rate, a little more while
    # it grows with α and less while it shrinks; 20 of them an update.
    assert sign * float(state.log_alpha - begun.log_alpha) == pytest.approx(1.2, rel=0.4)


def test_the_continuous_target_does_not_depend_on_units(make_rollout):
    part, ends = build("sac_temperature", initial=1.0, learning_rate=5e-3), []
    for size in (1.0, 50.0):
        mean = jnp.zeros((12, 4, 2))
        dist = TanhNormal(mean, mean - 3.0, (-size,) * 2, (size,) * 2)
        rollout = make_rollout(0).replace(dist=dist, action=mean)
        state = repeated(part, part.init(None, SPEC, None), rollout, 3, coef=0.18)
        ends.append(float(state.log_alpha))
    assert ends[0] == pytest.approx(ends[1], rel=1e-4) and ends[0] > 0.2  # surer than -d


def test_the_temperature_moves_within_a_short_run_toward_its_target(train):
    """Two thousand frames: α, and with it the entropy, part by which side the target is on."""
    shares = [0.05, 0.95]
    part = build("sac_temperature", initial=1.0, learning_rate=0.02)
    settings = {"algorithm": "ppo", "epochs": 4, "minibatches": 4}
    state, curves = train([part], {"sac_temperature": shares}, updates=40, **settings)
    alpha = np.asarray(state.regularizers["sac_temperature"].inner.log_alpha)
    assert alpha[0] < -2  # nearly uniform, far above its target
    entropy = np.asarray(curves["policy_entropy"])[:, -5:].mean(1) / np.log(3)
    assert entropy[1] > 0.9 and entropy[1] > entropy[0]


def test_aer_holds_entropy_at_its_share_of_the_first(make_rollout):
    part, rollout = build("aer", share=0.5, rate=0.5), make_rollout(0)
    first = part.update(None, part.init(None, SPEC, None), rollout, {})
    share = float(rollout.dist.entropy_share().mean())
    assert float(first.first) == pytest.approx(share)
    assert float(first.alpha) == pytest.approx(1 - 0.5 * 0.5 * share, rel=1e-5)
    assert float(repeated(part, first, rollout, 200).alpha) == 0
    sure = repeated(part, first, with_logits(rollout, 30.0), 1000)
    assert float(sure.alpha) == 10 and float(sure.first) == pytest.approx(share)


def test_aer_spends_nothing_where_success_is_common(make_rollout):
    part, rollout = build("aer", groups=2, easy=0.15), make_rollout(0)
    done = jnp.zeros((12, 4), bool).at[3, :].set(True).at[7, 0].set(True)
    never = jnp.zeros_like(done)
    rollout = rollout.replace(terminated=done, truncated=never, success=done.at[:, 2:].set(False))
    state = part.init(None, SPEC, None)
    assert (part.prepare(state, rollout, 1.0) == 1).all()
    for want in (0.1, 0.19):
        state = part.update(None, state, rollout, {})
        np.testing.assert_allclose(state.success, [want, 0.0], rtol=1e-5)
    notes = part.prepare(state, rollout, 1.0)
    assert (notes[:, :2] == 0).all() and np.allclose(notes[:, 2:], state.alpha)
    # What is known stays known while no episode ends.
    quiet = part.update(None, state, rollout.replace(terminated=never, success=never), {})
    np.testing.assert_array_equal(quiet.success, state.success)


def test_aepo_imitates_whole_pieces_that_succeed_in_time(make_rollout):
    part, rollout = build("aepo"), make_rollout(0)
    done = jnp.zeros((12, 4), bool).at[5, 0].set(True).at[2, 1].set(True)
    rollout = rollout.replace(
        terminated=done, truncated=done & False, success=done.at[2, 1].set(False),
        advantage=jnp.zeros((12, 4)).at[0, 3].set(1.0),
    )  # fmt: skip
    gained = part.advantage(jnp.float32(1.0), rollout, 1.0) > 1e-4
    want = np.zeros((12, 4), bool)
    want[:6, 0] = want[0, 3] = True  # the piece that succeeds, and the advantage itself
    np.testing.assert_array_equal(gained, want)
    # At T = 1 all its steps count alike: a std(A), a = a0 / (1 + a0), a0 = 0.1 / (1 / 2).
    shaped = part.advantage(jnp.float32(1.0), rollout, 1.0)
    a0 = min(abs(0.5 - float(rollout.dist.entropy_share().mean())), 0.1) / 0.5
    np.testing.assert_allclose(shaped[:6, 0], a0 / (1 + a0) * rollout.advantage.std(), rtol=1e-4)


@pytest.mark.parametrize("start, sign", [(0.1, 1), (2.0, -1)])
def test_aepo_pulls_entropy_to_its_target_from_both_sides(make_rollout, start, sign):
    # One state, every action a success: without the pull, imitation would leave π where it is.
    logits, target = start * jnp.array([2.0, 0.5, -1.0]), 0.8
    above = Categorical(logits).entropy_share() > target
    assert bool(above) == (sign > 0)
    part, rollout = build("aepo", target=target), make_rollout(0)
    action = jnp.resize(jnp.arange(3), (12, 4))
    dist = Categorical(jnp.broadcast_to(logits, (12, 4, 3)))
    yes = jnp.ones((12, 4), bool)
    rollout = rollout.replace(
        dist=dist, action=action, terminated=yes, truncated=~yes, success=yes,
        advantage=jnp.resize(jnp.array([1.0, -1.0]), (12, 4)),
    )  # fmt: skip
    state = part.update(None, part.init(None, SPEC, None), rollout, {})
    assert float(state) == pytest.approx(0.8 if above else 1.2)
    extra = part.advantage(state, rollout, 1.0) - part.advantage(jnp.float32(1.0), rollout, 1.0)

    def imitation(logits):  # E_π[extra · log π], the actions weighed by their probability
        weight = jax.lax.stop_gradient(jnp.exp(Categorical(logits).log_probs))[action]
        return jnp.mean(weight * extra * Categorical(logits).log_probs[action])

    ascent = jax.grad(imitation)(logits)
    slope = jax.grad(lambda x: Categorical(x).entropy())(logits) @ ascent
    assert float(slope) * sign < 0


def test_only_drawing_from_the_tempered_policy_is_a_behavior(make_rollout):
    assert build("aepo").behavior is None
    dist = make_rollout(0).dist
    hot = build("aepo", draw=True).behavior(jnp.float32(1.2), dist, 1.0)
    np.testing.assert_allclose(hot.logits, dist.logits / 1.2, rtol=1e-6)


def test_the_bonus_is_policy_entropy_times_its_temperature(make_rollout):
    rollout = make_rollout(0)
    policy = PolicyOutput(rollout.dist, rollout.value, None, None)
    batch = rollout.replace(notes=jnp.full((12, 4), 3.0))
    plain = float(build("policy_entropy").loss(None, (), policy, batch, 0.5))
    tripled = build("sac_temperature").init(None, SPEC, None)._replace(log_alpha=jnp.log(3.0))
    for name, state in (("sac_temperature", tripled), ("aer", ())):
        assert float(build(name).loss(None, state, policy, batch, 0.5)) == pytest.approx(3 * plain)


@pytest.mark.parametrize(
    "name, options",
    [
        ("sac_temperature", {"initial": 0.0}),
        ("aer", {"most": 0.5}),
        ("aepo", {"cold": 1.1}),
        ("aepo", {"target": 1.0}),
    ],
)
def test_options_out_of_range_are_one_clear_line(name, options):
    with pytest.raises(EntrobError, match=name) as error:
        build(name, **options)
    assert "\n" not in str(error.value)


def test_groups_must_divide_the_environments():
    with pytest.raises(EntrobError, match="3 groups do not divide 4 environments"):
        build("aer", groups=3).init(None, SPEC, None)
