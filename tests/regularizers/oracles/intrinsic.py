"""Bonuses by their definitions, from all pairs of points."""

import jax
import numpy as np
from cases import ACTIONS, HIGH, LOW
from scipy.special import digamma, expit, gamma

from oracles import Oracle


def distances(x):
    """float[n, n] between points float[T, N, q], sorted along the last axis."""
    x = x.reshape(-1, x.shape[-1])
    return np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), -1)


def moments(state, x):
    """Count, mean and sum of squares about it, of the stream so far and of x."""
    count, mean, m2 = state
    total = count + x.size
    new = (count * mean + x.sum()) / total
    squares = m2 + count * (mean - new) ** 2 + ((x - new) ** 2).sum()
    return np.array([total, new, squares])


def state_entropy(seen):
    d = distances(seen.rollout.features)[:, :5].mean(-1)
    raw = np.log1p(d).reshape(seen.rollout.reward.shape)
    new = moments(seen.state, raw)
    return {"bonus": seen.coef * raw / np.sqrt(new[2] / new[0])}


def perceptron(leaves, x):
    """A network with ReLU between layers, from (bias, weight) of each."""
    for i in range(0, len(leaves), 2):
        x = np.maximum(x, 0) if i else x
        x = x @ leaves[i + 1] + leaves[i]
    return x


def re3(seen, k=3, decay=0.0):
    encoder, stream = seen.state
    d = distances(perceptron(jax.tree.leaves(encoder), seen.rollout.obs))[:, k]
    raw = np.log1p(d).reshape(seen.rollout.reward.shape)
    new = moments(stream, raw)
    left = (1 - decay) ** stream[0]
    return {"bonus": seen.coef * left * raw / np.sqrt(new[2] / new[0])}


def rise(seen, k=3, alpha=0.5):
    d = distances(perceptron(jax.tree.leaves(seen.state), seen.rollout.obs))[:, k]
    return {"bonus": seen.coef * d.reshape(seen.rollout.reward.shape) ** (1 - alpha)}


def apt(seen, k=12):
    raw = np.log1p(distances(seen.rollout.features)[:, :k].mean(-1))
    new = moments(seen.state, raw)
    return {"bonus": seen.coef * raw.reshape(seen.rollout.reward.shape) / new[1]}


def cells(seen, width):
    """The cell of each step as a tuple: its index, or the bins of its features."""
    if seen.rollout.index is not None:
        return [(i,) for i in seen.rollout.index.ravel()]
    x = seen.rollout.features.reshape(-1, seen.rollout.features.shape[-1])
    count, mean, m2 = seen.state
    mean, std = (mean, np.sqrt(m2 / count)) if count else (x.mean(0), x.std(0))
    return [tuple(row) for row in np.floor((x - mean) / (width * std))]


def shares(cells, weight):
    """The share of the weight that steps in the same cell have."""
    mass = dict.fromkeys(cells, 0.0)
    for cell, w in zip(cells, weight):
        mass[cell] += w
    return np.array([mass[cell] for cell in cells]) / sum(weight)


def count_entropy(seen, width=1.0):
    share = shares(cells(seen, width), np.ones(seen.batch.reward.size))
    return {"bonus": -seen.coef * np.log(share)}


def discounted_count_entropy(seen, width=1.0):
    share = shares(cells(seen, width), seen.rollout.context.gamma**seen.batch.time)
    return {"bonus": -seen.coef * np.log(share)}


def state_action_entropy(seen, width=1.0, k=3):
    if seen.now.kind == "discrete":
        both = [(*cell, a) for cell, a in zip(cells(seen, width), seen.batch.action)]
        return {"bonus": -seen.coef * np.log(shares(both, np.ones(len(both))))}
    low, high = np.array(LOW), np.array(HIGH)
    executed = low + (high - low) * (1 + np.tanh(seen.batch.action)) / 2
    x = np.concatenate([seen.batch.features, executed], -1)
    d = distances((x - x.mean(0)) / x.std(0))[:, k]
    n, dim = x.shape
    ball = np.pi ** (dim / 2) / gamma(dim / 2 + 1)
    density = np.exp(digamma(k)) / (n * ball * d**dim)
    return {"bonus": -seen.coef * np.log(density)}


def auxiliary(net, x):
    """Standardized inputs, hidden layer and output of a trained network on x [n, p]."""
    count, mean, m2 = net.moments
    variance = m2 / max(count, 1)
    std = np.where(variance > (1e-5 * mean) ** 2, np.sqrt(variance), 1)
    z = (x - mean) / std
    (b0, w0), (b1, w1) = ((layer["bias"], layer["weight"]) for layer in net.layers)
    hidden = np.maximum(z @ w0 + b0, 0)
    return z, hidden, (hidden @ w1 + b1)[:, 0]


def trained(net, x, slope, steps):
    """Leaves after Adam's steps, from ``slope(outputs on x)``, the loss's derivative by them."""
    count, mean, m2 = net.moments
    total = count + len(x)
    new = (count * mean + x.sum(0)) / total
    m2 = m2 + count * (mean - new) ** 2 + ((x - new) ** 2).sum(0)
    net = net._replace(moments=(total, new, m2))
    adam = net.opt_state[0]
    first, second = (jax.tree.leaves(part) for part in (adam.mu, adam.nu))
    weights, done = jax.tree.leaves(net.layers), int(adam.count)
    for t in range(done + 1, done + 1 + steps):
        layers = [{"bias": b, "weight": w} for b, w in (weights[:2], weights[2:])]
        z, hidden, out = auxiliary(net._replace(layers=layers), x)
        out = slope(out)[:, None]
        inner = (out @ weights[3].T) * (hidden > 0)
        gradient = [inner.sum(0), z.T @ inner, out.sum(0), hidden.T @ out]
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradient)]
        second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradient)]
        weights = [
            w - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-5)
            for w, m, v in zip(weights, first, second)
        ]
    return [*weights, done + steps, *first, *second, total, new, m2]


def vcse(seen, k=3, steps=8):
    x, shape = seen.batch.features, seen.rollout.reward.shape
    value = auxiliary(seen.state, x)[2]
    scaled = (value - value.mean()) / np.sqrt(value.var() + 1e-5)
    bonus = np.zeros(len(x))
    for i in range(len(x)):
        apart = np.abs(scaled - scaled[i])
        away = np.sort(np.maximum(np.linalg.norm(x - x[i], axis=-1), apart))
        epsilon, same = away[k], (away == 0).sum() - 1
        if same >= k:
            epsilon = away[away > 0].min() / 2 * (k / same) ** (1 / x.shape[1])
        bonus[i] = digamma((apart < epsilon).sum() + 1) / x.shape[1] + np.log(2 * epsilon + 1e-5)
    value, r, discount = value.reshape(shape), seen.rollout, seen.rollout.context.gamma
    target = np.zeros(shape)
    for n in range(shape[1]):
        for t in reversed(range(shape[0])):
            last = t == shape[0] - 1
            after = value[t if last or r.truncated[t, n] else t + 1, n] * (not r.terminated[t, n])
            ends = last or r.truncated[t, n] or r.terminated[t, n]
            rest = after if ends else 0.05 * after + 0.95 * target[t + 1, n]
            target[t, n] = r.reward[t, n] + discount * rest
    slope = lambda out: 2 * (out - target.ravel()) / len(x)
    return {"bonus": seen.coef * bonus, "updated": trained(seen.state, x, slope, steps)}


def orpo(penalty):
    """Oracle of one of the three divergences, from ``penalty(e^d)``."""

    def function(seen, over="state_actions", share=0.01, steps=8):
        state, batch = seen.state, seen.batch
        discrete, actions = seen.now.kind == "discrete", over == "state_actions"
        x, cell = [batch.features], batch.index
        low, high = np.array(LOW), np.array(HIGH)
        if actions and discrete:
            x.append(np.eye(ACTIONS)[batch.action.astype(int)])
            cell = None if cell is None else cell * ACTIONS + batch.action
        elif actions:
            x.append(low + (high - low) * (1 + np.tanh(batch.action)) / 2)
        x = np.concatenate(x, -1)
        counted = batch.index is not None and (discrete or not actions)
        rollouts, counts, sample, unit = (x.copy() for x in map(np.asarray, state[:4]))
        if rollouts == 0 or seen.rollout.context.progress < share:
            rollouts = rollouts + 1
            if counted:
                np.add.at(counts, cell.astype(int), 1)
            key = jax.random.fold_in(jax.random.split(jax.random.key(3), 4)[0], 0)
            taken = np.asarray(jax.random.uniform(key, (len(x), 1)))[:, 0] < 1 / rollouts
            sample[taken] = x[taken]
        if counted:
            cell = cell.astype(int)
            mine = np.bincount(cell, minlength=len(counts)) / len(x)
            reference = (counts + mine) / (counts + mine).sum()
            ratio = mine[cell] / reference[cell]
        else:
            ratio = np.exp(auxiliary(state.discriminator, x)[2])
        leaves = jax.tree.leaves(state.discriminator)
        if not counted and (sample != x).any():
            n = len(x)
            slope = lambda out: np.append(expit(out[:n]) - 1, expit(out[n:])) / n
            leaves = trained(state.discriminator, np.concatenate([x, sample]), slope, steps)
        bonus = -seen.coef * unit / seen.rollout.context.reward_scale * penalty(ratio)
        return {"bonus": bonus, "updated": [rollouts, counts, sample, unit, *leaves]}

    return function


def root_chi2(ratio):
    chi2 = (ratio - 1).mean()  # fewer than 100 steps: none are cut
    return (ratio - 1) / (np.sqrt(max(chi2, 1e-12)) if chi2 > 0 else 1)


BOTH = (False, True)
ORPO = ({}, {"over": "states", "share": 0.5})
ORACLES = {
    "state_entropy": Oracle(state_entropy, finite=BOTH),
    "re3": Oracle(re3, ({}, {"k": 1, "decay": 1e-3}), finite=BOTH),
    "rise": Oracle(rise, ({}, {"k": 1, "alpha": 0.8}), finite=BOTH),
    "apt": Oracle(apt, ({}, {"k": 4}), finite=BOTH),
    "vcse": Oracle(vcse, ({}, {"k": 1, "steps": 2}), finite=BOTH),
    "orpo_kl": Oracle(orpo(np.log), ORPO, finite=BOTH),
    "orpo_chi2": Oracle(orpo(lambda ratio: ratio - 1), ORPO, finite=BOTH),
    "orpo_root_chi2": Oracle(orpo(root_chi2), ORPO, finite=BOTH),
    "count_entropy": Oracle(count_entropy, ({}, {"width": 0.5}), finite=BOTH),
    "discounted_count_entropy": Oracle(discounted_count_entropy, finite=BOTH),
    "state_action_entropy": Oracle(state_action_entropy, ({}, {"width": 2.0, "k": 1}), finite=BOTH),
}
