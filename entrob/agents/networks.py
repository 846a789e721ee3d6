"""Networks of the agents, in flax."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

# Bounds ±1/√fan_in for weights and biases.
_conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PatchConv(nn.Module):
    """A 2×2 convolution without padding, as patches and one matrix product.

    A `vmap` over agents turns `nn.Conv` into a grouped convolution, which is many times slower
    than the batched matrix product that this becomes.

    Input float32[..., H, W, C]; output float32[..., H-1, W-1, features].
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        top, bottom = x[..., :-1, :, :], x[..., 1:, :, :]
        patches = jnp.concatenate(
            [top[..., :-1, :], top[..., 1:, :], bottom[..., :-1, :], bottom[..., 1:, :]], axis=-1
        )
        return nn.Dense(self.features, kernel_init=_conv_init)(patches)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over disjoint 2×2 cells: float32[..., H, W, C] -> float32[..., H//2, W//2, C]."""
    h, w = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    x = x[..., :h, :w, :]
    rows = jnp.maximum(x[..., 0::2, :, :], x[..., 1::2, :, :])
    return jnp.maximum(rows[..., 0::2, :], rows[..., 1::2, :])


class MiniGridNetwork(nn.Module):
    """The paper's MiniGrid network (B.2): three 2×2 convolutions, then an actor and a critic head.

    Input: integer image [..., 7, 7, 3], fed as it is. Output: ``(logits float32[..., A],
    value float32[...])``.
    """

    num_actions: int

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = image.astype(jnp.float32)
        # max-pooling and ReLU commute; pooling first leaves a quarter of the ReLUs.
        x = nn.relu(max_pool_2x2(PatchConv(16)(x)))
        x = nn.relu(PatchConv(32)(x))
        x = nn.relu(PatchConv(64)(x))
        x = x.reshape(*x.shape[:-3], -1)
        logits = nn.Dense(self.num_actions)(nn.tanh(nn.Dense(64)(x)))
        value = nn.Dense(1)(nn.tanh(nn.Dense(64)(x)))
        return logits, value[..., 0]


class MLP(nn.Module):
    """A multilayer perceptron with separate actor and critic, for vector observations.

    Input: float32[..., D]. Output: ``(logits float32[..., A], value float32[...])``.
    """

    num_actions: int
    hidden: Sequence[int] = (64, 64)

    @nn.compact
    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        def tower(outputs: int) -> jax.Array:
            x = observation.astype(jnp.float32)
            for width in self.hidden:
                x = nn.tanh(nn.Dense(width)(x))
            return nn.Dense(outputs)(x)

        return tower(self.num_actions), tower(1)[..., 0]
