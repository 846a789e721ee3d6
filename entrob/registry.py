"""Names on the command line and in experiment files, mapped to what they denote."""

import importlib.metadata
import os
import sys
from typing import Any, Generic, TypeVar

from entrob.errors import EntrobError, unknown

T = TypeVar("T")


class Names(Generic[T]):
    """Names whose look-up failure tells the nearest one, and which other packages extend.

    What an installed package declares as an entry point in the group ``entrob.<kind>s``, in its
    ``pyproject.toml``::

        [project.entry-points."entrob.regularizers"]
        my_regularizer = "my_package.my_module:my_regularizer"

    is imported when a name is first looked up. It registers itself by a decorator, or is registered
    under the entry point's name.

    Args:
      kind: what is registered, e.g. ``"environment"``; used in error messages.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._looked_for_plugins = False

    def _entry(self, name: str) -> T:
        """What a name stands for; raises `EntrobError` with the nearest name if there is none."""
        if name not in self:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        self._load_plugins()
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        if name not in self._entries:
            self._load_plugins()
        return name in self._entries

    def _load_plugins(self) -> None:
        """Import what other packages declare; one that fails is named, and does no other harm."""
        if self._looked_for_plugins:
            return
        self._looked_for_plugins = True
        for entry in importlib.metadata.entry_points(group=f"entrob.{self.kind}s"):
            before = set(self._entries)
            try:
                found = entry.load()
                if set(self._entries) == before:
                    self._adopt(entry.name, found)
            except Exception as error:
                reason = (str(error).splitlines() or [""])[0]
                print(
                    f"warning: {self.kind} {entry.name!r} of another package does not load "
                    f"({type(error).__name__}: {reason})",
                    file=sys.stderr,
                )

    def _adopt(self, name: str, found: Any) -> None:
        """Register what did not register itself while it was imported."""
        raise NotImplementedError


class Registry(Names[T]):
    """A dictionary of which each name has one entry; see `Names`."""

    def register(self, name: str, value: T) -> T:
        """Add an entry and return it; raises `EntrobError` if the name is taken by another one."""
        if self._entries.get(name, value) is not value:
            raise EntrobError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = value
        return value

    def get(self, name: str) -> T:
        """The entry called `name`; raises `EntrobError` with the nearest name if there is none."""
        return self._entry(name)

    def _adopt(self, name: str, found: Any) -> None:
        if found not in self._entries.values():
            self.register(name, found)


def add_working_directory() -> None:
    """Let modules beside the user be imported, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def imported(kind: str, reference: str) -> Any:
    """The attribute that ``module:attribute`` names; modules beside the user are found.

    Args:
      kind: what is looked for, used in error messages.
      reference: the name.

    Raises:
      EntrobError: the module does not import, or has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    add_working_directory()
    try:
        module = importlib.import_module(module_name)
    except EntrobError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise EntrobError(f"{kind} {reference!r} does not import ({reason})") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise EntrobError(f"{kind} {reference!r}: module has no {attribute!r}")
    return found
