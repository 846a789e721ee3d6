"""Two devices for all tests, as on the command line of a machine with two cores."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
