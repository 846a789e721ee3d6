"""The command line: ``entrob list | run | check | tune | report | ...``."""

import contextlib
import functools
import operator
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from entrob.cli import arguments, commands
from entrob.errors import EntrobError

COMMANDS: dict[type, Callable[..., None]] = {
    arguments.List: commands.list_names,
    arguments.Run: commands.run,
    arguments.Check: commands.check,
    arguments.Tune: commands.tune,
    arguments.Report: commands.report,
    arguments.Status: commands.status,
    arguments.Test: commands.test,
    arguments.Play: commands.play,
    arguments.Theory: commands.theory,
    arguments.NewRegularizer: commands.new_regularizer,
}
"""What carries out each command."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the ``entrob`` script; exits with 2 after one line on what was wrong."""
    given = sys.argv[1:] if argv is None else argv
    kinds: Any = functools.reduce(operator.or_, COMMANDS)
    command = tyro.cli(kinds, prog="entrob", args=given)
    # What is recorded is for other machines, where the folders of this one say nothing.
    named = [Path(a).name if Path(a).is_absolute() else a for a in given]
    line = shlex.join(["entrob", *named])
    setup()
    try:
        COMMANDS[type(command)](command, line)
    except KeyboardInterrupt:
        print("entrob: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (EntrobError, OSError) as error:
        print(f"entrob: {error}", file=sys.stderr)
        sys.exit(2)


def setup() -> None:
    """Use every core as a device and keep compiled programs between processes."""
    import jax

    options: Any = jax.config  # whose type declares none of the options
    undecided = options.jax_num_cpu_devices < 0
    if undecided and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX runs already: its devices stay as they are
            jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if options.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "entrob" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
