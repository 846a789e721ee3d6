"""The command line: ``entrob list | run | check | tune | report | ...``."""

import contextlib
import functools
import io
import operator
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from entrob.cli import arguments, commands, running
from entrob.errors import EntrobError
from entrob.ranges import declared

COMMANDS: dict[type, Callable[..., None]] = {
    arguments.List: commands.list_names,
    arguments.Run: running.run,
    arguments.Plan: running.plan,
    arguments.Work: running.work,
    arguments.Gather: running.gather,
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a locale that lacks what we print
            stream.reconfigure(errors="replace")
    given = sys.argv[1:] if argv is None else argv
    kinds: Any = functools.reduce(operator.or_, COMMANDS)
    command = tyro.cli(kinds, prog="entrob", args=given)
    # What is recorded is for other machines, where the folders of this one say nothing.
    named = [Path(a).name if Path(a).is_absolute() else a for a in given]
    line = shlex.join(["entrob", *named])
    # Of a locale that is not UTF-8, arguments have bytes in them that no file may hold.
    line = os.fsencode(line).decode("utf-8", "replace")
    try:
        setup(running.devices_of(command.folder) if isinstance(command, arguments.Work) else None)
        for name, range_ in declared(type(command)).items():
            if (value := getattr(command, name)) is not None:
                range_.check(f"--{name.replace('_', '-')}", value)
        COMMANDS[type(command)](command, line)
    except KeyboardInterrupt:
        print("entrob: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (EntrobError, OSError) as error:
        print(f"entrob: {error}", file=sys.stderr)
        sys.exit(2)


def setup(devices: int | None = None) -> None:
    """Use every core as a device, compute in 32 bits, keep compiled programs between processes.

    Args:
      devices: how many a CPU is to have instead, which need not be as many as its cores.

    Raises:
      EntrobError: what JAX_PLATFORMS asks for is not there.
    """
    import jax

    options: Any = jax.config  # whose type declares none of the options
    undecided = options.jax_num_cpu_devices < 0
    if undecided and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX runs already: its devices stay as they are
            jax.config.update("jax_num_cpu_devices", devices or os.cpu_count() or 1)
    if options.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "entrob" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # No profile is taken here that shows where an operation was written, which takes time to trace.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    # Whatever JAX_ENABLE_X64 says; the theory asks for 64 bits where it needs them.
    jax.config.update("jax_enable_x64", False)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no plugin knows the device
        reason = (str(error).splitlines() or ["there is no such device"])[0]
        asked = os.environ.get("JAX_PLATFORMS") or "any device"
        raise EntrobError(f"JAX does not start on {asked} (JAX_PLATFORMS): {reason}") from error
