import functools

import jax
import numpy as np
import pytest

from entrob import theory


@functools.cache
def _random_mdp(seed=0, states=8, actions=3, branching=3, gamma=0.9):
    mdp = theory.garnet(jax.random.key(seed), states, actions, branching, gamma)
    return jax.tree.map(np.asarray, mdp)


def _random_policy(mdp, seed=0, sharpness=1.0):
    weights = np.exp(sharpness * np.random.default_rng(seed).normal(size=mdp.r.shape))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture
def random_mdp():
    """Draws Garnet MDPs as NumPy arrays."""
    return _random_mdp


@pytest.fixture
def random_policy():
    """Draws policies of an MDP; 0 sharpness is uniform."""
    return _random_policy


@pytest.fixture
def mdp():
    return _random_mdp()


@pytest.fixture
def policy(mdp):
    return _random_policy(mdp)
