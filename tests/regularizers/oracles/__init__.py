"""Independent NumPy renderings of every regularizer's formulas, by family."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Oracle(NamedTuple):
    """How a regularizer is compared with NumPy.

    Attributes:
      function: ``(seen, **options) -> dict`` with an entry for each hook that the regularizer has:
        ``behavior`` ([logits] or [mean, log_std]), ``bonus``, ``advantage`` (and ``target`` if it
        changes), ``weight``, ``low``, ``high``, ``loss``, ``updated`` (leaves of the new state in
        the order of `jax.tree.leaves`, None for one that is random).
      options: the factory's options that are compared.
      kinds: of actions.
      finite: whether environments with an index of states, others, or both.
      train: options with which it changes what is learned within two updates.
    """

    function: Callable[..., dict[str, Any]]
    options: tuple[dict[str, Any], ...] = ({},)
    kinds: tuple[str, ...] = ("discrete", "continuous")
    finite: tuple[bool, ...] = (False,)
    train: dict[str, Any] = {}  # noqa: RUF012 (nobody writes to it)
