"""Whose code a run rests on besides entrob's, as digests of its source: part of what identifies it.

So what was measured before an edit of one's own regularizer, perturbation or environment does not
pass for what it does now. Of a module counts what stands in it and in the modules that it imports
from beside it, and they in turn.
"""

import ast
import functools
import hashlib
import importlib.machinery
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from entrob.perturbations import NOMINAL, perturbations
from entrob.regularizers import build, regularizers
from entrob.regularizers.protocol import HOOKS
from entrob.sweep.experiment import Experiment, Method

#: Raised by hand, with an entry in the changelog, where the same run comes to have other numbers.
NUMERICS = 1
#: What stands for the source of a module that has no file.
UNVERSIONED = "unversioned"
#: Packages whose versions the manifest names.
_KNOWN = ("entrob", "gymnax", "brax", "mujoco", "jax", "flax", "optax", "chex", "numpy")


def code_of(experiment: Experiment, method: Method) -> tuple[str, ...]:
    """What the code of a method's training is besides entrob's; empty if there is none."""
    trained = [*method.training, *method.randomize, *(name for name, *_ in method.mixture)]
    found = {cls.__module__ for cls in type(experiment.task.env).__mro__}
    found |= set(_of_perturbations(experiment, trained))
    for name in method.coefficients:
        if name in regularizers:
            part = build(name, **method.options.get(name, {}))
            hooks = [getattr(part, hook) for hook in HOOKS]
            found |= set(_modules([regularizers.get(name), *hooks]))
    version = () if NUMERICS == 1 else (f"numerics {NUMERICS}",)
    return (*version, *_digests(found))


def code_of_test(experiment: Experiment, name: str) -> str:
    """What the code of a perturbation is besides entrob's; "" if there is none."""
    return "-".join(_digests(_of_perturbations(experiment, [name] if name != NOMINAL else [])))


def _of_perturbations(experiment: Experiment, names: Iterable[str]) -> Iterator[str]:
    params = experiment.task.noisy_params
    return _modules(perturbations.get(name, params).fn for name in names)


def _modules(functions: Iterable[Callable[..., Any] | None]) -> Iterator[str]:
    for function in functions:
        if function is not None:
            module = getattr(getattr(function, "func", function), "__module__", None)
            yield module or UNVERSIONED


def _digests(modules: Iterable[str]) -> tuple[str, ...]:
    foreign = {m for m in modules if not _known(m.partition(".")[0])}
    return tuple(sorted({digest_of(module) for module in foreign}))


def _known(package: str) -> bool:
    return package in _KNOWN or (package in sys.stdlib_module_names and package != "__main__")


@functools.cache
def digest_of(module: str) -> str:
    """16 hexadecimal digits of a module's source and of what it imports from beside it.

    It does not depend on where the folder is. `UNVERSIONED` if the module has no file.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return UNVERSIONED
    path = Path(file).resolve()
    parts = path.stem.split() if module == "__main__" else module.split(".")
    above = len(parts) - (path.stem != "__init__")
    base = path.parents[min(above, len(path.parents) - 1)]
    # Beside an installed package are those that it has nothing to do with.
    beside = base not in {Path(sysconfig.get_path(k)).resolve() for k in ("purelib", "platlib")}
    found: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = path.read_bytes()
        for name in _imports(found[path], path, base):
            if beside or name[0] == parts[0]:
                waiting += _files(base, name)
    hashed = hashlib.sha256()
    for path in sorted(found):
        relative = path.relative_to(base).as_posix()
        hashed.update(f"{relative} {len(found[path])}\n".encode() + found[path])
    return hashed.hexdigest()[:16]


def _imports(source: bytes, path: Path, base: Path) -> Iterator[list[str]]:
    """Dotted names that a source imports, as parts; a last one may be an attribute."""
    package = list(path.relative_to(base).parts[:-1])
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            prefix = above + (node.module.split(".") if node.module else [])
            yield from ([*prefix, alias.name] for alias in node.names)


def _files(base: Path, name: list[str]) -> Iterator[Path]:
    """The files below a folder that importing a dotted name runs."""
    if not _known(name[0]):
        for end in range(1, len(name) + 1):
            here = base.joinpath(*name[:end])
            for suffix in importlib.machinery.SOURCE_SUFFIXES:
                files = here.with_name(here.name + suffix), here / f"__init__{suffix}"
                yield from (path for path in files if path.is_file())
