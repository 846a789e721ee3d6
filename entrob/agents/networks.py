"""Networks of the agents, in flax.

Each returns the parameters of an action distribution (the *head*) and a value. Feed-forward ones
map observations; a recurrent one, `LSTM`, also takes and returns its memory.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from entrob.agents.batching import one_at_a_time
from entrob.agents.recurrence import recurrence

# Bounds ±1/√fan_in for weights and biases.
_conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def orthogonal(scale: float = 1.0) -> nn.initializers.Initializer:
    """`flax.linen.initializers.orthogonal`, drawn for one run after the other on a CPU.

    There jaxlib's QR of a batch of matrices splits the batch over threads and can wait for itself
    forever (jaxlib 0.10.2, two cores, eighteen 256 × 256 matrices).
    """
    draw = nn.initializers.orthogonal(scale)

    def init(key, shape, dtype=jnp.float32):
        return one_at_a_time(lambda key: draw(key, shape, dtype))(key)

    return init


def _head(outputs: int) -> nn.Dense:
    """A policy's last layer: small, so that it begins near the distribution of outputs 0."""
    return nn.Dense(outputs, kernel_init=orthogonal(0.01))


def _in_rows(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """A layer on every row of an array: float32[..., K] -> float32[..., F].

    Given more than two axes, XLA's CPU backend transposes the gradient of all rows before it
    multiplies, which costs as much as the product.
    """
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class PatchConv(nn.Module):
    """A square convolution without padding, as patches and one matrix product.

    A `vmap` over agents turns `nn.Conv` into a grouped convolution, which is many times slower
    than the batched matrix product that this becomes.

    Input float32[..., H, W, C]; output float32[..., H - size + 1, W - size + 1, features].
    """

    features: int
    size: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = (x.shape[axis] - self.size + 1 for axis in (-3, -2))
        offsets = [(i, j) for i in range(self.size) for j in range(self.size)]
        patches = [x[..., i : i + height, j : j + width, :] for i, j in offsets]
        product = nn.Dense(self.features, kernel_init=_conv_init)
        return _in_rows(product, jnp.concatenate(patches, axis=-1))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over disjoint 2×2 cells: float32[..., H, W, C] -> float32[..., ⌈H/2⌉, ⌈W/2⌉, C].

    Where a size is odd, the last cells are halves or a quarter: nothing is dropped.
    """
    odd = [(0, x.shape[axis] % 2) for axis in (-3, -2)]
    if odd != [(0, 0), (0, 0)]:
        around = [(0, 0)] * (x.ndim - 3) + odd + [(0, 0)]
        x = jnp.pad(x, around, constant_values=-jnp.inf)
    rows = jnp.maximum(x[..., 0::2, :, :], x[..., 1::2, :, :])
    return jnp.maximum(rows[..., 0::2, :], rows[..., 1::2, :])


class MiniGridNetwork(nn.Module):
    """The paper's MiniGrid network (B.2): three 2×2 convolutions, then an actor and a critic head.

    Its last layers begin as large as the others, as in the released code.

    Input: integer image [..., 7, 7, 3], fed as it is. Output: ``(logits float32[..., A],
    value float32[...])``.
    """

    outputs: int

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = image.astype(jnp.float32)
        # max-pooling and ReLU commute; pooling first leaves a quarter of the ReLUs.
        x = nn.relu(max_pool_2x2(PatchConv(16)(x)))
        x = nn.relu(PatchConv(32)(x))
        x = nn.relu(PatchConv(64)(x))
        x = x.reshape(*x.shape[:-3], -1)
        logits = nn.Dense(self.outputs)(nn.tanh(nn.Dense(64)(x)))
        value = nn.Dense(1)(nn.tanh(nn.Dense(64)(x)))
        return logits, value[..., 0]


class MinAtarNetwork(nn.Module):
    """MinAtar's network (Young and Tian 2019, section 4): a convolution and a dense layer, shared.

    16 3×3 filters and 128 units, rectified as in their DQN, then a head and a value as in their
    actor-critic. Nothing is pooled, so that every cell of the screen counts.

    Input: image [..., H, W, C], H and W at least 3. Output: ``(head float32[..., outputs], value
    float32[...])``.
    """

    outputs: int

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu(PatchConv(16, size=3)(image.astype(jnp.float32)))
        x = nn.relu(nn.Dense(128)(x.reshape(*x.shape[:-3], -1)))
        return _head(self.outputs)(x), nn.Dense(1)(x)[..., 0]


class MLP(nn.Module):
    """A multilayer perceptron with separate actor and critic.

    Input: [..., D]. Output: ``(head float32[..., outputs], value float32[...])``.

    Attributes:
      outputs: numbers of the head.
      hidden: widths of the hidden layers.
      axes: of an observation; one that is no vector, a matrix or a number, is flattened to one.
    """

    outputs: int
    hidden: Sequence[int] = (64, 64)
    axes: int = 1

    @nn.compact
    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = observation.shape[: observation.ndim - self.axes]

        def tower(last: Callable[[], nn.Dense]) -> jax.Array:
            x = observation.reshape(*batch, -1).astype(jnp.float32)
            for width in self.hidden:
                x = nn.tanh(nn.Dense(width)(x))
            return last()(x)

        return tower(lambda: _head(self.outputs)), tower(lambda: nn.Dense(1))[..., 0]


class LSTM(nn.Module):
    """The paper's recurrent network for physics (B.3): an encoder, an LSTM, two heads.

    What does not depend on the memory (encoder, input half of the gates, heads) is computed for all
    steps in one matrix product; only the memory's half of the gates runs step by step
    (`recurrence`).

    Input: the carry ``(c, h)`` float32[N, width] each, observations [T, N, ...], and ``is_first``
    bool[T, N], which says where an episode begins and the memory is cleared. Output: ``(head
    float32[T, N, outputs], value float32[T, N], (c, h))``, the carries after each step,
    float32[T, N, width].

    Attributes:
      outputs: numbers of the head.
      width: of every layer.
      products: dtype of the large matrix products over all steps and of their gradients, None for
        float32. The recurrence itself, both outputs and all parameters stay float32.
    """

    outputs: int
    width: int = 256
    products: DTypeLike | None = None

    def init_carry(self, n: int) -> tuple[jax.Array, jax.Array]:
        """The memory with which n episodes begin."""
        return jnp.zeros((n, self.width)), jnp.zeros((n, self.width))

    @nn.compact
    def __call__(self, carry, observation: jax.Array, is_first: jax.Array):
        x = observation.reshape(*observation.shape[:2], -1).astype(jnp.float32)
        for _ in range(2):
            x = nn.relu(self._layer(x, self.width, kernel_init=orthogonal(2**0.5)))
        inputs, memory, forget = self._gates()
        recurrent = self.param("recurrent", memory, (self.width, 4 * self.width))
        shift = jnp.repeat(jnp.array([0.0, forget, 0.0, 0.0]), self.width)
        gates = self._layer(x, 4 * self.width, kernel_init=inputs) + shift
        cs, hs = recurrence(recurrent, gates, carry, is_first, self.products)
        return *self._heads(hs), (cs, hs)

    def _layer(self, x: jax.Array, width: int, **options) -> jax.Array:
        product = nn.Dense(width, dtype=self.products, **options)
        return _in_rows(product, x).astype(jnp.float32)

    def _gates(self):
        """Initializers of the gates' weights, of inputs and of memory, and the forget gate's shift.

        It starts open, so that memories last.
        """
        return nn.initializers.lecun_normal(), orthogonal(), 1.0

    def _heads(self, hs: jax.Array) -> tuple[jax.Array, jax.Array]:
        def tower(width_out: int, scale: float) -> jax.Array:
            hidden = nn.relu(self._layer(hs, self.width))
            return _in_rows(nn.Dense(width_out, kernel_init=orthogonal(scale)), hidden)

        return tower(self.outputs, 0.01), tower(1, 1.0)[..., 0]


class ReferenceLSTM(LSTM):
    """The recurrent network of the paper's released Pusher code, for continuous actions.

    It differs from `LSTM` in that the gates' weights are all orthogonal of scale 0.5, the forget
    gate is not opened, every hidden layer is orthogonal of scale √2, and mean and log standard
    deviation come from a shared layer and a tower each. The last weights of the standard
    deviation's are all 0.2, so that it begins above the middle of its bounds, at the upper one
    where observations are large.
    """

    def _gates(self):
        return orthogonal(0.5), orthogonal(0.5), 0.0

    def _heads(self, hs: jax.Array) -> tuple[jax.Array, jax.Array]:
        def hidden(x: jax.Array) -> jax.Array:
            return nn.relu(self._layer(x, self.width, kernel_init=orthogonal(2**0.5)))

        def tower(x: jax.Array, width_out: int, last: nn.initializers.Initializer) -> jax.Array:
            x = hidden(x)
            return _in_rows(nn.Dense(width_out, kernel_init=last), x)

        size, shared = self.outputs // 2, hidden(hs)
        mean = tower(shared, size, orthogonal(0.01))
        log_std = tower(shared, size, nn.initializers.constant(0.2))
        return jnp.concatenate([mean, log_std], -1), tower(hs, 1, orthogonal(1.0))[..., 0]
