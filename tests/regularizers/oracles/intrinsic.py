"""Bonuses by their definitions, from all pairs of points."""

import numpy as np

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


ORACLES = {"state_entropy": Oracle(state_entropy, finite=(False, True))}
