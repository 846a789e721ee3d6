"""Loss terms by their definitions."""

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
    if reference == "initial":
        return NumPyPolicy(seen.now.kind, seen.state, seen.batch.obs)
    logits = np.log(np.tile([*reference, 1.0], (len(seen.batch.reward), 1)))
    return NumPyPolicy("discrete", None, None, logits)


def kl(seen, reference="initial"):
    other = reference_of(seen, reference)
    if other is None:
        size = seen.now.probs.shape[-1] if seen.now.kind == "discrete" else VOLUME
        divergence = np.log(size) - seen.now.entropy()
    else:
        divergence = seen.now.kl(other)
    return {"loss": seen.coef * divergence.mean()}


def alpha_divergence(seen, alpha=0.5, reference="initial"):
    other = reference_of(seen, reference)
    divergence = (1 - overlap(seen.now, other, alpha)) / (alpha * (1 - alpha))
    return {"loss": seen.coef * divergence.mean()}


ORACLES = {
    "policy_entropy": Oracle(policy_entropy),
    "tsallis": Oracle(tsallis, ({}, {"q": 0.5})),
    "kl": Oracle(kl, ({}, {"reference": "uniform"}), finite=(False, True)),
    "alpha_divergence": Oracle(alpha_divergence, ({}, {"alpha": 2.0, "reference": "uniform"})),
}
