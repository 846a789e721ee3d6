"""``entrob new-regularizer``: a file with one function to fill in, and its test."""

import keyword
import sys
from pathlib import Path

from entrob.errors import EntrobError
from entrob.regularizers import regularizers
from entrob.regularizers.protocol import HOOKS

MODULE = '''"""{name}, a regularizer for entrob."""

import jax.numpy as jnp

import entrob


# The name is what the command line, tables and figures call it; coef is its default coefficient,
# 0 being off and larger stronger. `label` says how it stands to its source: "faithful", or
# "adapted: ..." or "degenerate: ..." with what is different.
@entrob.regularizer("{name}", coef=1e-3, hook="loss", source="", label="faithful")
def {name}(policy, batch, coef):
    """Add coef · mean ‖logits‖² to the loss.

    policy.dist is the distribution over actions [B], policy.value float32[B]; policy.at(obs) is the
    policy elsewhere. batch holds what was collected: obs, action, log_prob, reward, advantage, ...
    each [B], see entrob.regularizers.Rollout.
    """
    return coef * jnp.mean(jnp.sum(policy.logits**2, -1))


# A function may be another hook; it takes by name what it needs of the hook's arguments:
{hooks}
# Several hooks, or a state between updates: return an entrob.Regularizer from a function instead,
# as those in entrob/regularizers do.
'''

TEST = '''"""{name} against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from entrob.distributions import Categorical
from entrob.rollout import PolicyOutput
import {name} as idea

LOGITS = np.random.default_rng(0).normal(size=(5, 3))


def loss(logits, coef):
    policy = PolicyOutput(Categorical(logits), jnp.zeros(5), None, None)
    return idea.{name}().loss(None, (), policy, None, coef)


def formula(logits, coef):
    return coef * (logits**2).sum(-1).mean()


def test_it_is_its_formula():
    np.testing.assert_allclose(loss(jnp.float32(LOGITS), 0.3), formula(LOGITS, 0.3), rtol=1e-5)


def test_its_gradient_is_the_formulas():
    gradient = jax.grad(loss)(jnp.float32(LOGITS), 0.3)
    for where in np.ndindex(*LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[where] = 1e-5
        slope = (formula(LOGITS + step, 0.3) - formula(LOGITS - step, 0.3)) / 2e-5
        np.testing.assert_allclose(gradient[where], slope, rtol=1e-4, atol=1e-6)
'''


_USED = {"entrob", "jax", "jnp", "numpy", "pytest"}  # names within the files, and of their imports


def new_regularizer(name: str, folder: Path) -> tuple[Path, Path]:
    """Write ``NAME.py`` and ``test_NAME.py``.

    Args:
      name: of the regularizer, of its function and of its module.
      folder: where; made if it does not exist.

    Returns:
      Both paths.

    Raises:
      EntrobError: the name is no Python name or is taken, or a file is there already.
    """
    # A module of that name would stand before what it imports, or what others do.
    taken = name in sys.stdlib_module_names or name in _USED
    if not name.isidentifier() or keyword.iskeyword(name) or taken:
        raise EntrobError(f"{name!r} cannot name a function")
    if name in regularizers or name == "none":
        raise EntrobError(f"regularizer {name!r} exists already")
    paths = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in paths:
        if path.exists():
            raise EntrobError(f"{path} exists already")
    hooks = "\n".join(f"#   {hook}({', '.join(HOOKS[hook])})" for hook in HOOKS)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (MODULE, TEST)):
        path.write_text(text.format(name=name, hooks=hooks), encoding="utf-8")
    return paths
