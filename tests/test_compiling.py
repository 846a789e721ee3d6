"""What XLA is asked for, whatever its version and its devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entrob
from entrob import compiling
from entrob.compiling import for_once, sharded


def test_options_that_this_version_of_xla_lacks_are_left_out():
    both = {"xla_of_another_version": True, "xla_cpu_enable_fast_math": False}
    assert compiling._known(both) == {"xla_cpu_enable_fast_math": False}


@pytest.fixture(params=[True, False])
def unoptimized(request):
    """Whether JAX is told to leave most optimizations out."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, request.param)
    yield request.param
    jax.config.update(name, before)


def test_programs_that_run_once_are_compiled_quickly_to_the_same_bits(unoptimized):
    """The weights that a run begins with."""
    if unoptimized:
        assert for_once() == {}
        return
    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    begin = lambda seeds: jax.vmap(lambda s: kernel(jax.random.PRNGKey(s), (12, 16)))(seeds)
    once, often = (
        sharded(begin, (True,), options)(np.arange(2, dtype=np.uint32))
        for options in (for_once(), {"xla_backend_optimization_level": 3})
    )
    np.testing.assert_array_equal(once, often)


def test_products_are_of_32_bits():
    """An accelerator's default is fewer: TF32 on a GPU, bfloat16 on a TPU."""
    rows = np.ones((compiling.padded(1), 2, 2), np.float32)
    lowered = compiling.sharded(lambda x: jnp.matmul(x, x), (True,)).lower(rows)
    assert "precision = [HIGHEST, HIGHEST]" in lowered.as_text()


def test_what_is_wrapped_computes_in_32_bits_within_64():
    made = compiling.in_32_bits(lambda x: jnp.asarray(x) / 3)
    with jax.enable_x64(True):
        assert made(np.ones(2)).dtype == jnp.float32 and jnp.ones(2).dtype == jnp.float64


@pytest.mark.parametrize("name", ["train", "evaluate", "Policy.episode"])
def test_the_library_is_wrapped(name):
    function = entrob
    for part in name.split("."):
        function = getattr(function, part)
    assert function.__code__ is compiling.in_32_bits(len).__code__
