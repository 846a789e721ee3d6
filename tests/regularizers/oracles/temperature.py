"""Adapted coefficients and temperatures by their definitions."""

import cases
import jax
import numpy as np

from oracles import Oracle
from oracles.shaping import pieces, share_of


def sac_temperature(seen, initial=0.03, learning_rate=3e-3):
    log_alpha, count, mean, square, steps = map(float, jax.tree.leaves(seen.state))
    loss = -seen.coef * np.exp(log_alpha) * seen.now.entropy().mean()
    target = seen.coef * np.log(cases.ACTIONS)
    if seen.now.kind == "continuous":
        target = np.log(seen.coef * np.subtract(cases.HIGH, cases.LOW)).sum()
    for _ in range(6):  # two epochs of three minibatches
        slope = np.exp(log_alpha) * (seen.rollout.dist.entropy().mean() - target)
        count, mean, square = count + 1, 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        step = (mean / (1 - 0.9**count)) / (np.sqrt(square / (1 - 0.999**count)) + 1e-8)
        log_alpha = np.clip(log_alpha - learning_rate * step, -10, 10)
    return {"loss": loss, "updated": [log_alpha, count, mean, square, steps]}


def aer(seen, share=0.4, rate=0.05, most=10.0, easy=1.0, groups=1):
    alpha, first, success = seen.state
    rollout, now = seen.rollout, share_of(seen.rollout.dist).mean()
    first = now if first < 0 else first
    width, success, need = cases.ENVS // groups, success.copy(), np.zeros(rollout.reward.shape)
    for group in range(groups):
        block = slice(group * width, (group + 1) * width)
        ends = [
            rollout.success[t, n]
            for t, n in np.argwhere(rollout.terminated | rollout.truncated)
            if n // width == group
        ]
        need[:, block] = alpha * max(0, 1 - success[group] / easy)
        if ends:
            success[group] = 0.9 * success[group] + 0.1 * np.mean(ends)
    loss = -seen.coef * np.mean(need.ravel() * seen.now.entropy())
    alpha = min(max(alpha + rate * (share * first - now), 0), most)
    return {"loss": loss, "updated": [alpha, first, success]}


def aepo(seen, target=0.5, hot=1.2, cold=0.8, cap=0.1, draw=False):
    rollout, dist = seen.rollout, seen.rollout.dist
    temperature, now = seen.state, share_of(dist).mean()
    if dist.kind == "discrete":
        tempered = [dist.logits / temperature]
        power = dist.probs ** (1 / temperature)
        power /= power.sum(-1, keepdims=True)
        chosen = rollout.action[..., None].astype(int)
        weight = np.take_along_axis(power / dist.probs, chosen, -1)[..., 0]
    else:
        std = np.exp(dist.log_std)
        wide = std * np.sqrt(temperature)
        tempered = [dist.mean, np.log(wide)]
        z = (rollout.action - dist.mean) ** 2
        weight = np.prod(std / wide * np.exp(z / (2 * std**2) - z / (2 * wide**2)), -1)
    won = np.zeros(weight.shape)
    for piece in pieces(rollout):
        for step in piece:
            won[step] = any(rollout.success[other] for other in piece)
    episodes = max((rollout.terminated | rollout.truncated).sum(), 1)
    success = max(rollout.success.sum() / episodes, 1 / episodes)
    a = rollout.success.any() * seen.coef * min(abs(target - now), cap) / success
    a = a / (1 + a)
    advantage = (1 - a) * rollout.advantage + a * rollout.advantage.std() * won * weight
    out = {"advantage": advantage, "updated": [hot if now <= target else cold]}
    return out | ({"behavior": tempered} if draw else {})


ORACLES = {
    "sac_temperature": Oracle(sac_temperature, ({}, {"initial": 2.0, "learning_rate": 0.1})),
    "aer": Oracle(aer, ({}, {"share": 0.9, "rate": 2.0, "most": 1.0, "easy": 0.1, "groups": 2})),
    "aepo": Oracle(aepo, ({}, {"target": 0.9, "hot": 1.5, "cap": 0.4, "draw": True})),
}
