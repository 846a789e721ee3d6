"""On what a result was computed: the part of a manifest that all programs share."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from typing import Any

import jax

PACKAGES = ("entrob", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "pandas", "pyarrow")


@functools.cache
def provenance() -> dict[str, Any]:
    """Versions, git commit and device of the running program; asked once, not to be changed."""
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        "device": f"{jax.devices()[0].device_kind} × {len(jax.devices())}",
        "platform": jax.default_backend(),
        "cores": os.cpu_count(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """The commit of the code that runs, marked if it was changed since; empty outside of git."""
    here = os.path.dirname(os.path.abspath(__file__))
    ask = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
