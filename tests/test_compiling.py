"""What XLA is asked for, whatever its version and its devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entrob
from entrob import compiling


def test_options_that_this_version_of_xla_lacks_are_left_out():
    both = {"xla_of_another_version": True, "xla_cpu_enable_fast_math": False}
    assert compiling._known(both) == {"xla_cpu_enable_fast_math": False}


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
