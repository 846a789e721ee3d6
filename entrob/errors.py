"""Errors a user can cause: one clear line each, turned into exit code 2 by the command line."""

import difflib
from collections.abc import Iterable


class EntrobError(Exception):
    """A mistake in what entrob was asked to do; its message is one line, fit to be shown."""


class BrokenMethod(EntrobError):
    """What one method's own code does wrong while it is traced; other methods can go on."""


def unknown(kind: str, name: str, known: Iterable[str]) -> EntrobError:
    """The error for a name that is not registered, with the nearest registered one.

    Args:
      kind: what the name should denote, e.g. ``"perturbation"``.
      name: the name that was given.
      known: the registered names.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return EntrobError(f"unknown {kind} {name!r}: {hint}")
