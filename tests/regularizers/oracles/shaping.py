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


def kl_cov(seen, weight=1.0, clipped=True):
    cov = covariances(seen, seen.batch.advantage)
    top = np.argsort(-cov)[: max(1, int(seen.coef * cov.size))]
    moved = np.abs(seen.now.log_prob(seen.batch.action) - seen.batch.log_prob)
    want = {"loss": weight * moved[top].sum() / cov.size}
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


def pieces(rollout):
    """Steps (t, n) of each piece of an episode inside the rollout."""
    done = rollout.terminated | rollout.truncated
    steps, envs = done.shape
    for n in range(envs):
        piece = []
        for t in range(steps):
            piece.append((t, n))
            if done[t, n] or t == steps - 1:
                yield piece
                piece = []


def share_of(dist):
    """Entropy as a share of log A, or of the range that a uniform of that entropy fills."""
    if dist.kind == "discrete":
        return dist.entropy() / np.log(cases.ACTIONS)
    volume = np.prod(np.subtract(cases.HIGH, cases.LOW))
    return (np.exp(dist.entropy()) / volume) ** (1 / cases.DIMENSIONS)


def empg(seen, sharpness=1.0, lookahead=1.0, bonus=0.1):
    rollout = seen.rollout
    done, entropy = rollout.terminated | rollout.truncated, rollout.dist.entropy()
    h = (entropy - entropy.min()) / (entropy.max() - entropy.min() + 1e-8)
    scale, shaped = np.exp(-sharpness * h).mean(), np.zeros(h.shape)
    for t, n in np.ndindex(*h.shape):
        shaped[t, n] = rollout.advantage[t, n] * np.exp(-sharpness * h[t, n]) / scale
        if not done[t, n] and t + 1 < len(h):
            shaped[t, n] += bonus * rollout.advantage.std() * np.exp(-lookahead * h[t + 1, n])
    shaped -= shaped.mean()
    return {"advantage": (1 - seen.coef) * rollout.advantage + seen.coef * shaped}


def hapo(seen, quantile=0.8, heat=0.05):
    def placed(u, center, above, below):
        h = u - center
        h = np.where(h > 0, h / above, h / below)
        return np.minimum(np.maximum(h, -1), 1)

    u = np.log(share_of(seen.frozen))
    center = np.quantile(u, quantile)
    rms = np.sqrt(np.mean((u - center) ** 2))
    h = (u - center) / rms
    h = np.where(h > 0, h / h.max(), h / -h.min()) * seen.coef
    ratio, eps = ratio_of(seen, seen.frozen), cases.CLIP
    weight, low, high = np.ones(h.size), np.full(h.size, eps), np.full(h.size, eps)
    for i in range(h.size):
        if h[i] > 0:
            high[i] = eps * (1 + h[i])
        else:
            low[i] = eps * (1 - h[i])
        inside = 1 - low[i] / 2 < ratio[i] < 1 + high[i] / 2
        if (h[i] > 0 and not inside) or (h[i] <= 0 and inside):
            weight[i] = max(1 + h[i], 0)
    dist, u = seen.rollout.dist, np.log(share_of(seen.rollout.dist))
    center = np.quantile(u, quantile)
    temperature = (1 + heat * seen.coef * placed(u, *seen.state))[..., None]
    tempered = (
        [dist.logits / temperature]
        if dist.kind == "discrete"
        else [dist.mean, np.log(np.exp(dist.log_std) * np.sqrt(temperature))]
    )
    scale = [center, u.max() - center, center - u.min()]
    return {"weight": weight, "low": low, "high": high, "behavior": tempered, "updated": scale}


def ear(seen):
    rollout, entropy = seen.rollout, share_of(seen.rollout.dist)
    means = [np.mean([entropy[step] for step in piece]) for piece in pieces(rollout)]
    advantage = rollout.advantage.copy()
    for piece, mean in zip(pieces(rollout), means):
        for step in piece:
            advantage[step] *= 1 + seen.coef * (np.mean(means) - mean) / np.mean(means)
    return {"advantage": advantage}


def agentic_aepo(seen):
    entropy = seen.frozen.entropy()
    z = (entropy - entropy.mean()) / entropy.std()
    ratio, frozen = (ratio_of(seen, policy) for policy in (seen.now, seen.frozen))
    kept = min(seen.coef / 0.2, 1.0)
    bound = (1 + cases.CLIP) * (1 - kept + kept * ratio / frozen)
    return {"weight": np.maximum(1 + seen.coef * z, 0), **clip_range(seen), "high": bound - 1}


def earned(rollout):
    """Return and discount that follow each step within the rollout: two float[T, N]."""
    steps, envs = rollout.reward.shape
    gain, left = np.zeros((steps, envs)), np.zeros((steps, envs))
    for t, n in np.ndindex(steps, envs):
        factor = 1.0
        for s in range(t, steps):
            cut = rollout.truncated[s, n] and not rollout.terminated[s, n]
            pay = rollout.target[s, n] if cut else rollout.reward[s, n]
            gain[t, n] += factor * pay * rollout.context.reward_scale
            factor *= rollout.context.gamma
            if rollout.truncated[s, n] or rollout.terminated[s, n]:
                factor = 0.0
                break
        left[t, n] = factor
    return gain, left


def self_imitation(
    seen, warmup=0.5, fraction=0.02, bounds=(0.9, 1.0), absolute=False, critic=0.01, capacity=65536
):
    obs, action, value, gain, left, own, rollouts = map(np.asarray, seen.state)
    better = np.maximum(gain - value, 1e-6) ** 0.6 * own * (left == 0)
    mass = np.cumsum(better.ravel())
    key_draw, key_drop = jax.random.split(key_of("loss"))
    size = seen.batch.reward.size
    lots = np.asarray(jax.random.uniform(key_draw, (size,)), np.float64) * mass[-1]
    index = np.array([min((mass <= lot).sum(), mass.size - 1) for lot in lots])
    flat = lambda x: x.reshape(mass.size, *x.shape[3:])[index]
    chosen = flat(better)
    weight = np.zeros(size)
    if mass[-1] > 0:
        weight = (chosen / better[better > 0].min()) ** -0.1
    now, frozen = seen.now.at(flat(obs)), seen.frozen.at(flat(obs))
    returns, actions = flat(gain) / seen.rollout.context.reward_scale, flat(action)
    imitated = np.maximum(returns - frozen.value, 0)
    if fraction:
        log_prob = frozen.log_prob(actions)
        cov = (imitated - imitated.mean()) * (log_prob - log_prob.mean())
        low, high = bounds if absolute else np.quantile(cov, bounds)
        imitated[lottery(key_drop, (cov > low) & (cov <= high), fraction)] = 0
    cost = np.minimum(-now.log_prob(actions), 5.0)
    terms = imitated * cost + critic / 2 * np.maximum(returns - now.value, 0) ** 2
    time = cases.PROGRESS
    rise = (1 - np.cos(np.pi * time / warmup)) / 2 if time < warmup else 1.0
    loss = seen.coef * rise * np.mean(weight * terms)
    fresh, rest = earned(seen.rollout)
    gain, left = gain + left * fresh[0], left * rest[0]
    whole = seen.rollout
    new = [whole.obs, whole.action, whole.value * whole.context.reward_scale, fresh, rest]
    new += [np.ones(fresh.shape, bool)]
    updated = [x.copy() for x in (obs, action, value, gain, left, own)]
    for x, y in zip(updated, new):
        x[int(rollouts) % len(x)] = y
    return {"loss": loss, "updated": [*updated, rollouts + 1]}


ORACLES = {
    "clip_cov": Oracle(
        clip_cov, ({}, {"bounds": (0.1, 0.9)}, {"bounds": (0.1, 2.0), "absolute": True})
    ),
    "kl_cov": Oracle(kl_cov, ({}, {"weight": 3.0, "clipped": False})),
    "steer": Oracle(steer),
    "empg": Oracle(empg, ({}, {"sharpness": 2.0, "lookahead": 0.5, "bonus": 0.3})),
    "hapo": Oracle(hapo, ({}, {"quantile": 0.5, "heat": 0.2})),
    "ear": Oracle(ear),
    "agentic_aepo": Oracle(agentic_aepo),
    "self_imitation": Oracle(
        self_imitation,
        (
            {},
            {"warmup": 0.1, "fraction": 0.0},
            {"fraction": 0.2, "bounds": (0.1, 9.0), "absolute": True, "capacity": 100},
        ),
        train={"warmup": 0.0},
    ),
}
