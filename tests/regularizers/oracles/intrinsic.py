"""Bonuses by their definitions, from all pairs of points."""

import jax
import numpy as np
from cases import HIGH, LOW
from scipy.special import digamma, gamma

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
    share = shares(cells(seen, width), seen.rollout.gamma**seen.batch.time)
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


BOTH = (False, True)
ORACLES = {
    "state_entropy": Oracle(state_entropy, finite=BOTH),
    "re3": Oracle(re3, ({}, {"k": 1, "decay": 1e-3}), finite=BOTH),
    "rise": Oracle(rise, ({}, {"k": 1, "alpha": 0.8}), finite=BOTH),
    "apt": Oracle(apt, ({}, {"k": 4}), finite=BOTH),
    "count_entropy": Oracle(count_entropy, ({}, {"width": 0.5}), finite=BOTH),
    "discounted_count_entropy": Oracle(discounted_count_entropy, finite=BOTH),
    "state_action_entropy": Oracle(state_action_entropy, ({}, {"width": 2.0, "k": 1}), finite=BOTH),
}
