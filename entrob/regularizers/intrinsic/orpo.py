"""ORPO: staying close to where the initial policy goes, in three divergences of occupancies."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.distributions import Categorical
from entrob.errors import EntrobError
from entrob.regularizers.intrinsic._perceptron import Auxiliary, feature_size
from entrob.regularizers.intrinsic._pilot import reward_spread
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Rollout

_HIDDEN = 64
_MOST = 20.0  # log-ratios beyond are cut, so that their exponentials stay finite


class Reference(NamedTuple):
    """What is known of the initial policy's occupancy, and of the present one's beside it.

    Attributes:
      rollouts: float32[], how many have been taken in.
      counts: float32[C], visits of each cell of a finite environment; C = 0 elsewhere.
      sample: float32[T * N, p], visited inputs of the discriminator, drawn from all rollouts alike.
      spread: float32[], σ, see `reward_spread`.
      discriminator: `Auxiliary`, its output the log-ratio of occupancies.
    """

    rollouts: jax.Array
    counts: jax.Array
    sample: jax.Array
    spread: jax.Array
    discriminator: Auxiliary


def orpo_kl(
    over: str = "state_actions",
    share: float = 0.01,
    steps: int = 8,
    clip: float = 100.0,
    schedule=None,
) -> Regularizer:
    """Add −coef · σ · d to the reward, d = log(μ_π / μ_ref) (ORPO, Laidlaw et al. 2025).

    μ are occupancies: shares of a rollout's steps, not discounted. σ is the standard deviation of
    the rewards that a uniformly random policy earns, see `reward_spread`: the same for all seeds of
    a task. Pulls the policy back to where the initial policy went.

    Adapted: the reference is the initial policy, as seen in the first rollout and those within the
    first `share` of training (the source has a safe policy, whose rewards σ is that of). Where the
    environment is finite, the policy not recurrent (and actions are discrete, or do not count) d
    comes from counts, with one more visit in all of the reference, spread as the policy's own: d is
    0 where the two agree, and bounded. Elsewhere d is a discriminator's output, trained after each
    rollout and so one rollout late.

    Args:
      over: occupancy of ``"state_actions"`` or of ``"states"``.
      share: of training, in [0, 1], during which rollouts belong to the reference.
      steps: of gradient for the discriminator after each rollout, at least 1.
      clip: bound of the penalty's magnitude before coef · σ, positive.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: an option is out of its range.
    """
    return _orpo("orpo_kl", lambda d: d, over, share, steps, clip, schedule)._replace(coef=0.1)


def orpo_chi2(
    over: str = "state_actions",
    share: float = 0.01,
    steps: int = 8,
    clip: float = 100.0,
    schedule=None,
) -> Regularizer:
    """Add −coef · σ · (e^d − 1) to the reward, d = log(μ_π / μ_ref) (ORPO, Laidlaw et al. 2025).

    Half the gradient of χ²(μ_π ‖ μ_ref). Harder than KL on what the reference hardly ever did.
    Otherwise as `orpo_kl`, with the same options and errors.
    """
    return _orpo("orpo_chi2", jnp.expm1, over, share, steps, clip, schedule)._replace(coef=0.01)


def orpo_root_chi2(
    over: str = "state_actions",
    share: float = 0.01,
    steps: int = 8,
    clip: float = 100.0,
    schedule=None,
) -> Regularizer:
    """Add −coef · σ · (e^d − 1) / √χ̂² to the reward, d = log(μ_π / μ_ref) (ORPO).

    Laidlaw et al. 2025: the gradient of √χ²(μ_π ‖ μ_ref), which bounds how much true reward can
    be lost. χ̂² is the mean of e^d − 1 over the rollout without its lowest and highest 1 %; where it
    is not positive nothing is divided. Otherwise as `orpo_kl`, with the same options and errors.
    """

    def penalty(d):
        ratio = jnp.expm1(d)
        cut = ratio.size // 100
        chi2 = jnp.sort(ratio.ravel())[cut : ratio.size - cut].mean()
        return ratio / jnp.where(chi2 > 0, jnp.sqrt(jnp.maximum(chi2, 1e-12)), 1.0)

    return _orpo("orpo_root_chi2", penalty, over, share, steps, clip, schedule)._replace(coef=0.1)


def _orpo(name: str, penalty: Callable, over, share, steps, clip, schedule) -> Regularizer:
    if over not in ("state_actions", "states"):
        raise EntrobError(f"{name}: over must be 'state_actions' or 'states', not {over!r}")
    if not 0 <= share <= 1 or steps < 1 or not clip > 0:
        raise EntrobError(f"{name}: share must be in [0, 1], steps at least 1 and clip positive")
    with_actions = over == "state_actions"

    def init(key, spec, params):
        space = spec.env.action_space(spec.env.default_params)
        actions = (space.n if hasattr(space, "n") else space.shape[0]) if with_actions else 0
        size = feature_size(spec) + actions
        return Reference(
            rollouts=jnp.zeros(()),
            counts=jnp.zeros(_states(spec.env) * (actions or 1)),
            sample=jnp.zeros((spec.num_envs * spec.num_steps, size)),
            spread=reward_spread(spec.env),
            discriminator=Auxiliary.begin(key, size, _HIDDEN),
        )

    def reward(key, state, rollout, coef):
        state = _take_in(key, state, rollout, share, with_actions)
        if _counted(rollout, with_actions):
            d = _exact_log_ratio(state, rollout, with_actions)
        else:
            d = state.discriminator(_inputs(rollout, with_actions)).reshape(rollout.reward.shape)
        delta = jnp.clip(penalty(jnp.clip(d, -_MOST, _MOST)), -clip, clip)
        return -coef * state.spread / rollout.context.reward_scale * delta, state

    def update(key, state, rollout, metrics):
        if _counted(rollout, with_actions):
            return state
        mine = _inputs(rollout, with_actions)

        def loss(net):
            softplus = jax.nn.softplus
            return softplus(-net(mine)).mean() + softplus(net(state.sample)).mean()

        both = jnp.concatenate([mine, state.sample])
        # The first rollout is its own reference: Adam would blow up what rounding leaves of 0.
        differ, old = jnp.any(mine != state.sample), state.discriminator
        new = jax.tree.map(lambda a, b: jnp.where(differ, a, b), old.train(both, loss, steps), old)
        return state._replace(discriminator=new)

    return Regularizer(
        name,
        init=init,
        reward=reward,
        update=update,
        schedule=schedule,
        source="Laidlaw et al. 2025 (2403.03185)",
        evidence="paper",
        label="adapted: the initial policy is the reference; counts, or a small discriminator",
    )


def _states(env) -> int:
    """Number of states of a finite environment, else 0."""
    if not env.finite:
        return 0
    return jax.tree.leaves(jax.eval_shape(env.states, env.default_params))[0].shape[0]


def _discrete(rollout: Rollout) -> bool:
    return jnp.issubdtype(rollout.action.dtype, jnp.integer)


def _counted(rollout: Rollout, with_actions: bool) -> bool:
    """Whether occupancies are counted. A recurrent policy's rollouts have no index."""
    return rollout.index is not None and (_discrete(rollout) or not with_actions)


def _cells(rollout: Rollout, with_actions: bool) -> jax.Array:
    """Index of each step's state, or state and action: int32[T, N]."""
    if rollout.index is None:
        raise ValueError("this rollout has no index of states")
    return rollout.index * _num_actions(rollout) + rollout.action if with_actions else rollout.index


def _num_actions(rollout: Rollout) -> int:
    if not isinstance(rollout.dist, Categorical):
        raise ValueError("actions that are not discrete have no number")
    return rollout.dist.logits.shape[-1]


def _inputs(rollout: Rollout, with_actions: bool) -> jax.Array:
    """What the discriminator sees of each step: float32[T * N, p]."""
    parts = [rollout.features]
    if with_actions and _discrete(rollout):
        parts.append(jax.nn.one_hot(rollout.action, _num_actions(rollout)))
    elif with_actions:
        parts.append(rollout.dist.execute(rollout.action))
    return jnp.concatenate(parts, -1).reshape(rollout.reward.size, -1)


def _take_in(key, state: Reference, rollout: Rollout, share: float, with_actions: bool):
    """The reference with this rollout, if it belongs to it."""
    joins = (state.rollouts == 0) | (rollout.context.progress < share)
    counts = state.counts
    if _counted(rollout, with_actions):
        counts = counts.at[_cells(rollout, with_actions)].add(1.0)
    new = Reference(
        rollouts=state.rollouts + 1.0,
        counts=counts,
        # Each place goes to the m-th rollout with probability 1/m: all are as likely to be there.
        sample=jnp.where(
            jax.random.uniform(key, (len(state.sample), 1)) * (state.rollouts + 1.0) < 1.0,
            _inputs(rollout, with_actions),
            state.sample,
        ),
        spread=state.spread,
        discriminator=state.discriminator,
    )
    return jax.tree.map(lambda old, new: jnp.where(joins, new, old), state, new)


def _exact_log_ratio(state: Reference, rollout: Rollout, with_actions: bool) -> jax.Array:
    """log(μ_π / μ_ref) from counts: float32[T, N]."""
    cells = _cells(rollout, with_actions)
    mine = jnp.zeros_like(state.counts).at[cells].add(1.0 / cells.size)[cells]
    return jnp.log(mine * (state.counts.sum() + 1.0) / (state.counts[cells] + mine))
