"""State entropy by nearest neighbors: visits spread over many paths."""

from typing import Any

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.estimators.counting import smallest_from_counts
from entrob.estimators.knn import smallest_distances
from entrob.estimators.moments import Moments
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Rollout

#: What the released code does where it differs from the paper's text. The bonus is added after
#: GAE, the running mean moves by batch/total whatever the batch's mean is, and of the 8
#: environments only the first one's position is seen to change.
REFERENCE: dict[str, Any] = {"injection": "advantage", "normalizer": "reference", "moving": 1}


NORMALIZERS = ("running_std", "batch_std", "reward_std", "reference", "none")


def state_entropy(
    k: int = 5,
    statistic: str = "mean",
    log: str = "outside",
    normalizer: str = "running_std",
    injection: str = "reward",
    groups: int = 1,
    discount: float = 1.0,
    features=None,
    moving: int | None = None,
    fidelity: str = "paper",
    schedule=None,
) -> Regularizer:
    """Add coef · g^t · log(d + 1) / std to the reward, d a nearest-neighbor distance (paper, B.1).

    d is measured between the entropy features of the rollout's own states, the point itself
    included. On MiniGrid (paper, B.2) it is the mean of the k = 5 smallest distances.

    Faithful for discrete and continuous actions: actions do not enter.

    Args:
      k: neighbors, the point itself being the first.
      statistic: ``"mean"`` of the k smallest distances, or the ``"kth"`` one.
      log: ``"outside"`` is log(mean + 1), ``"inside"`` the mean of log(distance + 1).
      normalizer: ``"running_std"`` (over all updates so far, this one included), ``"batch_std"``,
        ``"reward_std"`` (what the agent divides rewards by; the paper's for physics, B.3),
        ``"reference"`` (the released code's running one) or ``"none"``.
      injection: ``"reward"`` adds the bonus before GAE; ``"advantage"`` adds it to advantage and
        value target after GAE, where it is never bootstrapped.
      groups: pieces the N environments are cut into; neighbors are sought within each.
      discount: g in (0, 1], the intrinsic discount per step since the episode began.
      features: indices of the entropy features to use, or a function of them
        (float32[..., q] -> float32[..., q']); all by default.
      moving: only the first so many environments show their states, the others the state they
        began with (`reference`); all by default.
      fidelity: ``"paper"``, or ``"reference"`` for `REFERENCE`, which overrides the options.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    options: dict[str, Any] = {"injection": injection, "normalizer": normalizer, "moving": moving}
    if fidelity == "reference":
        options = REFERENCE
    injection, normalizer, moving = (options[x] for x in ("injection", "normalizer", "moving"))
    _check("statistic", statistic, ("mean", "kth"))
    _check("log", log, ("outside", "inside"))
    _check("normalizer", normalizer, NORMALIZERS)
    _check("injection", injection, ("reward", "advantage"))
    _check("fidelity", fidelity, ("paper", "reference"))
    if k < 1 or groups < 1 or not 0 < discount <= 1:
        raise EntrobError("state_entropy: k and groups must be at least 1 and discount in (0, 1]")

    def bonus(rollout: Rollout, moments: Moments):
        """float32[T, N] before the coefficient, and the moments after this batch."""
        envs = rollout.reward.shape[1]
        if envs % groups:
            raise EntrobError(f"state_entropy: {groups} groups do not divide {envs} environments")
        finite, index = rollout.context.finite, rollout.index
        if finite is not None and index is not None and features is None:
            by_count = _grouped(_from_counts(finite, k, statistic, log), groups)
            raw = by_count(_still(index, moving))
        else:
            x = rollout.features
            if features is not None:
                x = features(x) if callable(features) else x[..., jnp.asarray(features)]
            raw = _grouped(_from_points(k, statistic, log), groups)(_still(x, moving))
        moments = moments.add(raw, reference=normalizer == "reference")
        rewards = rollout.context.reward_scale
        given = {"batch_std": raw.std() + 1e-8, "reward_std": rewards, "none": 1.0}
        scale = given.get(normalizer, moments.std)
        return discount**rollout.time * raw / scale, moments

    def init(key, spec, params) -> Moments:
        return Moments.empty()

    def reward(key, state, rollout, coef):
        raw, state = bonus(rollout, state)
        return coef * raw, state

    def advantage(state, rollout, coef):
        raw, _ = bonus(rollout, state)
        return rollout.advantage + coef * raw, rollout.target + coef * raw

    def update(key, state, rollout, metrics) -> Moments:
        return bonus(rollout, state)[1]

    before_gae = injection == "reward"
    return Regularizer(
        "state_entropy",
        init=init,
        reward=reward if before_gae else None,
        advantage=None if before_gae else advantage,
        update=None if before_gae else update,
        schedule=schedule,
        coef=0.07,
        source="Ashlag et al. 2025 (NeurIPS), B.1",
        evidence="code",
    )


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise EntrobError(
            f"state_entropy: {option} must be one of {', '.join(known)}, not {value!r}"
        )


def _still(x: jax.Array, moving: int | None) -> jax.Array:
    """Let all but the first `moving` environments stand at their first state: [T, N, ...]."""
    if moving is None:
        return x
    stays = jnp.arange(x.shape[1]) >= moving
    return jnp.where(stays.reshape(1, -1, *[1] * (x.ndim - 2)), x[:1, :1], x)


def _grouped(f, groups: int):
    """Apply ``f: [n, ...] -> [n]`` to each of the groups that [T, N, ...] is cut into along N."""

    def apply(x):
        steps, envs = x.shape[:2]
        cut = jnp.moveaxis(x.reshape(steps, groups, envs // groups, *x.shape[2:]), 1, 0)
        out = jax.vmap(f)(cut.reshape(groups, -1, *x.shape[2:]))
        return jnp.moveaxis(out.reshape(groups, steps, envs // groups), 0, 1).reshape(steps, envs)

    return apply


def _from_counts(finite, k: int, statistic: str, log: str):
    """log(d + 1) of each of n states, given by their indices int32[n]: float32[n]."""

    def f(index):
        counts = jnp.zeros(finite.features.shape[0]).at[index].add(1.0)
        inside = statistic == "mean" and log == "inside"
        transform = jnp.log1p if inside else lambda d: d
        kth, mean = smallest_from_counts(counts, finite.neighbors, k, transform)
        value = kth if statistic == "kth" else mean
        return (value if inside else jnp.log1p(value))[index]

    return f


def _from_points(k: int, statistic: str, log: str):
    """log(d + 1) of each of n points float32[n, q]: float32[n]."""

    def f(x):
        distances = smallest_distances(x, k)
        if statistic == "kth":
            return jnp.log1p(distances[:, -1])
        if log == "inside":
            return jnp.log1p(distances).mean(-1)
        return jnp.log1p(distances.mean(-1))

    return f
