"""Names on the command line and in experiment files, mapped to what they denote."""

from typing import Generic, TypeVar

from entrob.errors import EntrobError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary whose look-up failure names the nearest entry.

    Args:
      kind: what is registered, e.g. ``"environment"``; used in error messages.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str, value: T) -> T:
        """Add an entry and return it; raises `EntrobError` if the name is taken by another one."""
        if self._entries.get(name, value) is not value:
            raise EntrobError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = value
        return value

    def get(self, name: str) -> T:
        """The entry called `name`; raises `EntrobError` with the nearest name if there is none."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries
