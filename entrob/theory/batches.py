"""One function of one instance, run on thousands: vmapped, in blocks, on all devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from entrob.theory.mdp import float64

BLOCK = 64
"""Instances side by side on one device: what they need should stay in a core's cache."""


@float64
def over(function: Callable, *batch: Any, block: int = BLOCK) -> Any:
    """Map `function` over the leading axis of `batch`.

    Args:
      function: pure, of one instance per argument.
      *batch: trees whose leaves have the same leading axis.
      block: instances per device and call.
    """
    count = len(jax.tree.leaves(batch)[0])
    devices = len(jax.devices())
    block = min(block, -(-count // devices))
    width = block * devices
    rows = PartitionSpec("instances")
    mesh = Mesh(np.array(jax.devices()), ("instances",))
    mapped = jax.jit(
        jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    )

    def run(start: int) -> Any:
        # The last block is filled up with its last instance, so that nothing is compiled twice.
        index = np.minimum(np.arange(start, start + width), count - 1)
        part = jax.tree.map(lambda x: jnp.asarray(x)[index], batch)
        part = mapped(*jax.device_put(part, NamedSharding(mesh, rows)))
        # Gathered on one device: cutting and joining what is spread over several would make them
        # wait for each other in collectives, which may never end on as many cores.
        part = jax.device_put(part, jax.devices()[0])
        return jax.tree.map(lambda x: x[: count - start], part)

    parts = [run(start) for start in range(0, count, width)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
