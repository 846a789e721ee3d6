"""Policies that a policy is compared with: uniform, initial, a moving average, or given."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.errors import EntrobError
from entrob.rollout import PolicyOutput, Rollout


class Reference(NamedTuple):
    """A reference policy.

    Attributes:
      init: ``(key, spec, params) -> state``, the initial parameters if they are needed.
      at: ``(state, policy, batch) -> dist`` on the batch, or None for the uniform policy.
      update: as of a `Regularizer`, or None where the reference stays.
    """

    init: Callable
    at: Callable
    update: Callable | None = None


#: What of the moving average is kept at each update.
KEPT = 0.99


def make_reference(name: str, reference: str | Sequence[float] | Callable) -> Reference:
    """A reference policy by its option.

    Args:
      name: the regularizer's, for messages.
      reference: ``"uniform"``, over actions or over the box of actions; ``"initial"``, the network
        before training (on standardized observations it sees today's statistics); ``"average"``,
        the network with the moving average of its parameters, of which each update keeps 0.99;
        probabilities of discrete actions, the same in every state; or a function
        ``obs[B, ...] -> dist``.

    Raises:
      EntrobError: the option is none of these; at the first use, that the probabilities are not
        one per action.
    """
    nothing = lambda key, spec, params: ()
    if callable(reference):
        return Reference(nothing, lambda state, policy, batch: reference(batch.obs))
    if reference == "uniform":
        return Reference(nothing, lambda state, policy, batch: None)
    if reference == "initial":
        return Reference(lambda key, spec, params: params, initial)
    if reference == "average":
        return Reference(lambda key, spec, params: params, initial, _averaged)
    if isinstance(reference, str) or not _are_probabilities(reference):
        raise EntrobError(
            f"{name}: reference must be uniform, initial, average, positive probabilities that add "
            f"up to 1, or a function, not {reference!r}"
        )

    def given(state, policy, batch):
        shape = getattr(policy.dist, "logits", jnp.zeros(0)).shape
        if shape[-1] != len(reference):
            raise EntrobError(
                f"{name}: {len(reference)} probabilities need as many discrete actions"
            )
        logits = jnp.log(jnp.asarray(reference, jnp.float32))
        return policy.dist.replace(logits=jnp.broadcast_to(logits, shape))

    return Reference(nothing, given)


def initial(params: Any, policy: PolicyOutput, batch: Rollout) -> Any:
    """The network with other parameters on the batch, once per state where those are few.

    A recurrent one begins the batch with the memory that the acting policy had.
    """
    finite = batch.context.finite
    if finite is None:
        return policy.apply(params, batch.obs)[0]
    return finite.of_states(policy.apply(params, finite.observations)[0], batch.index)


def _averaged(key, state, rollout, metrics) -> Any:
    """The moving average of parameters with those after this update."""
    return jax.tree.map(lambda old, new: KEPT * old + (1 - KEPT) * new, state, metrics["params"])


def kl(dist: Any, reference: Any) -> jax.Array:
    """KL(dist ‖ reference) in nats, the reference uniform if None: float32[B]."""
    return dist.max_entropy - dist.entropy() if reference is None else dist.kl(reference)


def log_overlap(dist: Any, reference: Any, alpha: float) -> jax.Array:
    """log Σ dist^α reference^{1-α}, the reference uniform if None: float32[B]."""
    if reference is None:
        return dist.log_power(alpha) + (alpha - 1) * dist.max_entropy
    return dist.log_overlap(reference, alpha)


def _are_probabilities(values: Sequence[float]) -> bool:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return False
    return array.ndim == 1 and bool((array > 0).all()) and abs(array.sum() - 1) < 1e-6
