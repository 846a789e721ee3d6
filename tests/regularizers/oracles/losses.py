"""Loss terms by their definitions."""

import jax
import numpy as np
from cases import HIGH, LOW, NumPyPolicy

from oracles import Oracle

VOLUME = np.prod(np.subtract(HIGH, LOW))


def policy_entropy(seen):
    return {"loss": -seen.coef * seen.now.entropy().mean()}


def overlap(policy, other, alpha):
    """Σ policy^α other^{1-α}, over actions or by the trapezoidal rule over each dimension's raw
    action; the other is uniform if None."""
    if policy.kind == "discrete":
        theirs = 1 / policy.probs.shape[-1] if other is None else other.probs
        return (policy.probs**alpha * theirs ** (1 - alpha)).sum(-1)
    u = np.linspace(-12, 12, 601)
    total = np.ones(policy.mean.shape[:-1])
    for i in range(policy.mean.shape[-1]):
        slope = (HIGH[i] - LOW[i]) / 2 / np.cosh(u) ** 2

        def density(x, i=i, slope=slope):
            std = np.exp(x.log_std[..., i, None])
            z = (u - x.mean[..., i, None]) / std
            return np.exp(-(z**2) / 2) / std / np.sqrt(2 * np.pi) / slope

        theirs = 1 / (HIGH[i] - LOW[i]) if other is None else density(other)
        integrand = density(policy) ** alpha * theirs ** (1 - alpha) * slope
        total *= integrand.sum(-1) * (u[1] - u[0])
    return total


def tsallis(seen, q=2.0):
    if q == 1:
        return policy_entropy(seen)
    size = seen.now.probs.shape[-1] if seen.now.kind == "discrete" else VOLUME
    power = overlap(seen.now, None, q) * size ** (1 - q)
    return {"loss": -seen.coef * ((1 - power) / (q - 1)).mean()}


def reference_of(seen, reference):
    """The reference policy on the batch, None if uniform."""
    if reference == "uniform":
        return None
    if reference in ("initial", "average"):
        return NumPyPolicy(seen.now.kind, seen.state, seen.batch.obs)
    logits = np.log(np.tile([*reference, 1.0], (len(seen.batch.reward), 1)))
    return NumPyPolicy("discrete", None, None, logits)


def averaged(state, params):
    """Leaves of 0.99 parts of the old parameters and 0.01 of the new ones."""
    old, new = jax.tree.leaves(state), jax.tree.leaves(params)
    return [0.99 * x + 0.01 * y for x, y in zip(old, new)]


def kl(seen, reference="average"):
    other = reference_of(seen, reference)
    if other is None:
        size = seen.now.probs.shape[-1] if seen.now.kind == "discrete" else VOLUME
        divergence = np.log(size) - seen.now.entropy()
    else:
        divergence = seen.now.kl(other)
    out = {"loss": seen.coef * divergence.mean()}
    moves = {"updated": averaged(seen.state, seen.frozen.params)} if reference == "average" else {}
    return out | moves


def alpha_divergence(seen, alpha=0.5, reference="initial"):
    other = reference_of(seen, reference)
    divergence = (1 - overlap(seen.now, other, alpha)) / (alpha * (1 - alpha))
    return {"loss": seen.coef * divergence.mean()}


def episodes(rollout):
    """Lists of the steps (t, n) of each piece of an episode in the rollout."""
    found = []
    for n in range(rollout.time.shape[1]):
        for t in range(rollout.time.shape[0]):
            if t == 0 or rollout.time[t, n] == 0:
                found.append([])
            found[-1].append((t, n))
    return found


def epo(seen, released=False):
    mean, updates = seen.state
    cost = []
    floor = 0.0
    now, frozen = seen.now.entropy(), seen.frozen.entropy()
    if seen.now.kind == "continuous":
        known = [mean[int(t)] for t in seen.batch.time if updates[int(t)] > 0]
        floor = min([*frozen, *known])
    for entropy, t in zip(now, seen.batch.time.astype(int)):
        low, high = floor + 0.8 * (mean[t] - floor), floor + 1.2 * (mean[t] - floor)
        distance = max(low - entropy, entropy - high, 0.0)
        cost.append(0.1 * (distance > 0 if released else distance) * (updates[t] > 0))
    x = 2 * seen.rollout.context.progress  # in the first half of training
    weight = 1 - 0.2 * (1 - np.exp(-2 * x))
    acted = seen.rollout.dist.entropy()
    new, counts = mean.copy(), updates.copy()
    for t in range(len(mean)):
        visited = acted[seen.rollout.time == t]
        if len(visited):
            counts[t] += 1
            new[t] = (mean[t] * updates[t] + visited.mean()) / counts[t]
    loss = -seen.coef * (now.mean() - weight * np.mean(cost))
    return {"loss": loss, "updated": [new, counts]}


def nucleus_entropy(policy, chosen_by, released):
    """Entropy within the 0.8-nucleus of the other policy."""
    if policy.kind == "continuous":
        return policy.entropy()
    out = np.zeros(policy.probs.shape[:-1])
    for where in np.ndindex(*out.shape):
        mass, kept = 0.0, []
        for action in np.argsort(-chosen_by.probs[where], kind="stable"):
            mass += chosen_by.probs[where][action]
            if not released or mass <= 0.8:
                kept.append(action)
            if mass >= 0.8:
                break
        p = policy.probs[where][kept]
        out[where] = -(p / p.sum() * np.log(p / p.sum())).sum() if kept else 0.0
    return out


def siren(seen, released=False):
    acted = nucleus_entropy(seen.rollout.dist, seen.rollout.dist, released)
    now = nucleus_entropy(seen.now, seen.frozen, released).reshape(acted.shape)
    means = []
    for steps in episodes(seen.rollout):
        bound = np.quantile([acted[s] for s in steps], 0.8) - 1e-6
        kept = [s for s in steps if acted[s] >= bound]
        means.append([np.mean([x[s] for s in kept]) for x in (now, acted)])
    mean, first = np.mean(means, 0)
    target = seen.state[0] if seen.state[1] else first
    return {"loss": seen.coef * (mean - target) ** 2, "updated": [target, True]}


def spine(seen, share=0.2, pull=0.1):
    rollout = seen.rollout
    acted, chosen = rollout.dist.entropy(), np.zeros(rollout.reward.shape, bool)
    for steps in episodes(rollout):
        bound = np.quantile([acted[s] for s in steps], 1 - share) - 1e-6
        for s in steps:
            chosen[s] = acted[s] >= bound
    low, high = np.quantile(acted[chosen], [0.1, 0.5])
    now, where = seen.now.entropy(), chosen.ravel()
    band = np.maximum(now - high, 0) + np.maximum(low - now, 0)
    terms = seen.now.kl(NumPyPolicy(seen.now.kind, seen.state, seen.batch.obs)) + band
    weight = (1 - seen.coef) + seen.coef * where / where.mean()
    return {"weight": weight, "loss": seen.coef * pull * terms[where].mean()}


def lp_reg(seen, threshold=0.1, share=0.1):
    batch, size = seen.batch, len(seen.batch.reward)
    now, frozen = seen.now.log_prob(batch.action), seen.frozen.log_prob(batch.action)
    best = seen.frozen.log_probs.max(-1)
    proxies, rare = np.zeros(size), []
    for i, action in enumerate(batch.action.astype(int)):
        probs = batch.dist.probs[i]
        kept = np.where(probs >= threshold * probs.max(), probs, 0.0)
        proxies[i] = kept[action] / kept.sum()
        not_best = probs[action] < probs.max() and frozen[i] < best[i]
        if batch.advantage[i] < 0 and not_best and np.exp(frozen[i]) < proxies[i]:
            rare.append(i)
    count = max(1, int(share * (batch.advantage < 0).sum()))
    low, total = np.full(size, 0.2), 0.0
    for i in sorted(rare, key=lambda i: frozen[i])[:count]:
        low[i] = np.inf
        d = np.clip(np.log(proxies[i]) - now[i], -10, 10)
        total += np.exp(d) - d - 1
    return {"weight": np.ones(size), "low": low, "high": low, "loss": seen.coef * total / size}


def likely_entropy(policy, chosen_by, kept):
    """Entropy among the actions that the other policy likes most."""
    best = np.argsort(-chosen_by.probs, -1, kind="stable")[..., :kept]
    p = np.take_along_axis(policy.probs, best, -1)
    p = p / p.sum(-1, keepdims=True)
    return -(p * np.log(p)).sum(-1)


def aent(seen, dropped=0.3, adaptive=False):
    kept = 4 - int(dropped * 4)
    entropy = likely_entropy(seen.now, seen.frozen, kept).mean()
    if not adaptive:
        return {"loss": -seen.coef * entropy}
    dist = seen.rollout.dist
    share = likely_entropy(dist, dist, kept).mean() / np.log(kept)
    change = 0.1 - share if share < 0.1 else min(0.5 - share, 0.0)
    updated = np.clip(seen.state + change, 0.01, 10)
    return {"loss": -seen.coef * seen.state * entropy, "updated": [updated]}


def jeffreys(policy, obs):
    """Half the sum of both KLs between the policy on its batch and elsewhere."""
    other = policy.at(obs)
    return (policy.kl(other) + other.kl(policy)) / 2


def sr2l(seen, radius=0.05, steps=5):
    center = seen.batch.obs
    bound = radius * center.std(0)
    finite, index, shape = seen.rollout.context.finite, np.arange(len(center)), center.shape
    if finite is not None:
        index, shape = finite.view[seen.batch.index.astype(int)], finite.observations.shape
    # The key of the loss in `cases`.
    key = jax.random.fold_in(jax.random.split(jax.random.key(3), 4)[2], 0)
    x = center + bound * np.asarray(jax.random.uniform(key, shape, minval=-1, maxval=1))[index]
    for _ in range(steps):
        slope = np.zeros_like(x)
        for i in range(x.shape[1]):
            e = 1e-4 * np.eye(x.shape[1])[i]
            slope[:, i] = jeffreys(seen.frozen, x + e) - jeffreys(seen.frozen, x - e)
        moved = x + 2 / steps * bound * np.sign(slope)
        x = np.minimum(np.maximum(moved, center - bound), center + bound)
    return {"loss": seen.coef * jeffreys(seen.now, x).mean()}


def value_gradient(seen):
    params, obs = seen.now.params, seen.batch.obs
    inside = 1 - np.tanh(obs @ params["inner"] + params["bias"]) ** 2
    slope = (inside * params["outer"][:, -1]) @ params["inner"].T * obs.std(0)
    return {"loss": seen.coef * np.linalg.norm(slope, axis=-1).mean()}


def lrpg(seen, begin=1 / 3, tolerance=0.05, rate=1.0):
    """At progress 0.3: with the default `begin` nothing but the running mean has begun."""
    reward, ends, best, multiplier, updates = seen.state
    on = seen.rollout.context.progress >= begin
    obs = seen.batch.obs
    key = jax.random.fold_in(jax.random.split(jax.random.key(3), 4)[2], 0)
    noise = np.asarray(jax.random.uniform(key, obs.shape, minval=-1, maxval=1))
    other = seen.frozen.at(obs + 0.1 * obs.std(0) * noise)
    if seen.now.kind == "discrete":
        difference = seen.now.probs - other.probs
    else:
        difference = np.concatenate(
            [seen.now.mean - other.mean, np.exp(seen.now.log_std) - np.exp(other.log_std)], -1
        )
    second = (difference**2).sum(-1).mean() / 2
    loss = on * seen.coef * second / (2 + multiplier * seen.coef)
    unknown = ends == 0
    old = 0.9 if updates else 0.0
    paid = seen.rollout.reward * seen.rollout.context.reward_scale
    reward = old * reward + (1 - old) * paid.mean()
    ends = old * ends + (1 - old) * (seen.rollout.terminated | seen.rollout.truncated).mean()
    performance = reward / ends
    best = performance if unknown else max(best, performance)
    if on:
        short = (best - performance) / max(abs(best), abs(performance))
        multiplier = max(multiplier + rate * (short - tolerance), 0)
    return {"loss": loss, "updated": [reward, ends, best, multiplier, updates + 1]}


ORACLES = {
    "policy_entropy": Oracle(policy_entropy),
    "tsallis": Oracle(tsallis, ({}, {"q": 0.5})),
    "kl": Oracle(
        kl, ({}, {"reference": "uniform"}, {"reference": "initial"}), finite=(False, True)
    ),
    "alpha_divergence": Oracle(alpha_divergence, ({}, {"alpha": 2.0, "reference": "uniform"})),
    "epo": Oracle(epo, ({}, {"released": True})),
    "siren": Oracle(siren, ({}, {"released": True})),
    "spine": Oracle(spine, ({}, {"share": 0.5, "pull": 2.0}), finite=(False, True)),
    "lp_reg": Oracle(
        lp_reg,
        ({}, {"threshold": 0.3, "share": 0.9}),
        kinds=("discrete",),
        train={"threshold": 0.1, "share": 1.0},
    ),
    "aent": Oracle(aent, ({}, {"dropped": 0.5}, {"adaptive": True}), kinds=("discrete",)),
    "sr2l": Oracle(sr2l, ({}, {"radius": 0.3, "steps": 3}), finite=(False, True)),
    "lrpg": Oracle(lrpg, ({}, {"begin": 0.2, "rate": 0.3}), train={"begin": 0.0}),
    "value_gradient": Oracle(value_gradient, finite=(False, True)),
}
