"""What the wrappers of environments share: subclasses with more fields and one more base.

A wrapped environment is of a subclass of its own class, and so are its params and states: what it
offers beyond gymnax's interface, and a `step` of its own, keep working, and so does `isinstance`.
"""

import dataclasses
import functools
from typing import Any

from flax import struct

#: The `EnvParams` of any gymnax environment.
Params = Any


@functools.cache
def _wider(native: type, prefix: str, names: tuple[str, ...]) -> type:
    """One subclass per class and prefix, so that pytrees of one kind have one structure."""
    body = {"__annotations__": dict.fromkeys(names, Any), **dict.fromkeys(names)}
    return struct.dataclass(type(prefix + native.__name__, (native,), body))


def _fields(cls: type, value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}


def widen(value: Any, prefix: str, **more: Any) -> Any:
    """The flax dataclass `value` with more fields, an instance of a subclass of its class.

    Args:
      value: params or a state.
      prefix: of the subclass's name.
      **more: the fields added, by name.
    """
    native: type = type(value)
    return _wider(native, prefix, tuple(more))(**_fields(native, value), **more)


def narrow(value: Any) -> Any:
    """What `widen` began with: `value` without the fields that it added last."""
    native: Any = type(value).__base__
    return native(**_fields(native, value))


def wrap(env: Any, cls: type, **attributes: Any) -> Any:
    """A copy of an environment as an instance of a subclass of its class, with more attributes."""
    new: Any = object.__new__(cls)
    vars(new).update(vars(env), **attributes)
    return new
