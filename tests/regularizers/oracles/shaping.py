"""Reshaped advantages, weights and clip ranges by their definitions."""

import cases
import jax
import numpy as np

from oracles import Oracle


def key_of(hook):
    """The key that `cases.look` gives to this hook."""
    which = {"reward": 0, "surrogate": 1, "loss": 2, "update": 3}[hook]
    return jax.random.fold_in(jax.random.split(jax.random.key(3), 4)[which], 0)


def clip_range(seen):
    size = seen.batch.reward.size
    return {"low": np.full(size, cases.CLIP), "high": np.full(size, cases.CLIP)}


def ratio_of(seen, policy):
    return np.exp(policy.log_prob(seen.batch.action) - seen.batch.log_prob)


def covariances(seen, advantage):
    log_prob = seen.frozen.log_prob(seen.batch.action)
    return np.array(
        [
            (a - np.mean(advantage)) * (p - np.mean(log_prob))
            for a, p in zip(advantage, log_prob)
        ]
    )  # fmt: skip


def lottery(key, eligible, fraction):
    """Indices of those drawn: of the eligible ones, in the order of their lots, the first few."""
    lots = np.asarray(jax.random.uniform(key, eligible.shape))
    order = sorted(np.flatnonzero(eligible), key=lambda i: lots[i])
    return order[: max(1, int(fraction * eligible.size))]


def clip_cov(seen, bounds=(0.9, 1.0), absolute=False):
    ratio, advantage = ratio_of(seen, seen.frozen), seen.batch.advantage
    cov = covariances(seen, advantage)
    low, high = bounds if absolute else np.quantile(cov, bounds)
    clipped = ((advantage > 0) & (ratio > 1 + cases.CLIP)) | (
        (advantage < 0) & (ratio < 1 - cases.CLIP)
    )
    weight = np.ones(cov.size)
    weight[lottery(key_of("surrogate"), (cov > low) & (cov <= high) & ~clipped, seen.coef)] = 0
    return {"weight": weight, **clip_range(seen)}


def kl_cov(seen, share=0.002, clipped=False):
    cov = covariances(seen, seen.batch.advantage)
    top = np.argsort(-cov)[: max(1, int(share * cov.size))]
    moved = np.abs(seen.now.log_prob(seen.batch.action) - seen.batch.log_prob)
    want = {"loss": seen.coef * moved[top].sum() / cov.size}
    if clipped:
        return want
    free = np.full(cov.size, np.inf)
    return want | {"weight": np.ones(cov.size), "low": free, "high": free}


def steer(seen):
    dist, batch = seen.frozen, seen.batch
    log_prob, entropy = dist.log_prob(batch.action), dist.entropy()
    least, change = 1 - seen.coef, np.zeros(batch.reward.size)
    for i in range(change.size):
        p = np.exp(log_prob[i])
        others = 1 - p if dist.kind == "discrete" else 1.0
        outer = batch.advantage[i] / np.exp(batch.log_prob[i])
        change[i] = np.abs(outer * p * others * (log_prob[i] + entropy[i]))
    k = -np.log(least) / max(change.max(), 0.02)
    return {"weight": np.maximum(least, np.exp(-k * change)), **clip_range(seen)}


ORACLES = {
    "clip_cov": Oracle(
        clip_cov, ({}, {"bounds": (0.1, 0.9)}, {"bounds": (0.1, 2.0), "absolute": True})
    ),
    "kl_cov": Oracle(kl_cov, ({}, {"share": 0.1, "clipped": True})),
    "steer": Oracle(steer),
}
